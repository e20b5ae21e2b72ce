"""Environments on the host through the adapter, against Gymnasium's own loop; what cannot hold is refused."""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.envs import Choices, HostState, from_gymnasium

pytest.importorskip("gymnasium")

import gymnasium as gym

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LIMIT = 14  # of CartPole here: under random actions some episodes end by themselves before, some at it
OBS_SPACE = gym.spaces.Box(np.array([-9.0, 0.0]), np.array([99.0, np.inf]), (2,), np.float64)


class Count(gym.Env):
    """Counts its steps from its seed's last digit on, pays the action, is over after 3 steps, cut after `limit`."""

    observation_space: Any = OBS_SPACE
    action_space: Any = gym.spaces.Discrete(3, start=5)
    limit, wrong_shape, fails_at = 99, False, 99

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seed = self.__dict__.get("seed", 0) if seed is None else seed
        self.step_of_episode = 0
        return self.observed(), {}

    def step(self, action: Any) -> Any:
        self.step_of_episode += 1
        if self.step_of_episode == self.fails_at:
            raise OSError("the robot fell over")
        reward = float(action) if np.ndim(action) == 0 and not isinstance(action, dict | tuple) else 0.0
        return self.observed(), reward, self.step_of_episode >= 3, self.step_of_episode >= self.limit, {}

    def observed(self) -> Any:
        return np.array([self.step_of_episode, *(1 + self.wrong_shape) * [self.seed % 10]], float)


def several(form: Any, mode: str = "SameStep") -> Any:
    return lambda num_envs: gym.vector.SyncVectorEnv(num_envs * [form], autoreset_mode=mode)


def rolled(key: Any, env: Any, actions: Any, num_envs: int | None = None) -> Any:
    """(state, window) after given actions from the start."""
    state = pg.init_rollout(key, env, None, num_envs=num_envs or actions.shape[1])
    return pg.rollout(
        key, None, state, policy=blind(env), env=env, env_params=None, num_steps=len(actions), actions=actions
    )


def blind(env: Any) -> Any:
    space = env.action_space()
    if hasattr(space, "n"):
        return lambda params, obs: pg.Categorical(jnp.zeros((*obs.shape[:-1], space.n)))
    return lambda params, obs: pg.exploration.Deterministic(jnp.zeros((*obs.shape[:-1], *space.shape)))


def seeds_of(key: Any, num_envs: int) -> list[int]:
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 2**31 - 1))
    return [int(seed) for seed in draw(jax.random.split(key, num_envs))]


def own_loop(make: Any, seeds: Any, actions: Any) -> Any:
    """Gymnasium's loop: an environment at a time, reset where an episode has ended."""
    rows: Any = {name: [] for name in ("obs", "next_obs", "reward", "terminated", "truncated")}
    for i, seed in enumerate(seeds):
        env = make()
        obs, _ = env.reset(seed=seed)
        for t in range(len(actions)):
            last, reward, terminated, truncated, _ = env.step(actions[t, i])
            for name, x in zip(rows, (obs, last, reward, terminated, truncated), strict=True):
                rows[name].append(x)
            obs = env.reset()[0] if terminated or truncated else last
        env.close()
    by_env = {name: np.stack(x).reshape(len(seeds), len(actions), *np.shape(x[0])) for name, x in rows.items()}
    return {name: x.swapaxes(0, 1) for name, x in by_env.items()}


@pytest.fixture(scope="module")
def cart_pole() -> Any:
    """(key, actions, what Gymnasium's loop gives) of three CartPoles with a limit of their own."""
    key, actions = jax.random.key(3), np.random.default_rng(0).integers(0, 2, (60, 3))
    make = lambda: gym.make("CartPole-v1", max_episode_steps=LIMIT)  # noqa: E731
    own = own_loop(make, seeds_of(key, 3), actions)
    assert own["terminated"].any()
    assert own["truncated"].any()
    return key, actions, own


def close_to(window: Any, own: Any) -> None:
    for name, x in own.items():
        np.testing.assert_allclose(getattr(window, name), x, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_a_rollout_is_gymnasiums_own_loop(cart_pole: Any, mode: str) -> None:
    """However the VectorEnv resets: no action is lost, and what was seen last comes before the reset."""
    key, actions, own = cart_pole
    vector = gym.make_vec(
        "CartPole-v1", 3, vectorization_mode="sync", max_episode_steps=LIMIT, vector_kwargs={"autoreset_mode": mode}
    )
    # Gymnasium keeps the mode in what the class of the environment shares: this one overwrites it.
    other = {"SameStep": "NextStep"}.get(mode, "SameStep")
    gym.make_vec("CartPole-v1", 1, vectorization_mode="sync", vector_kwargs={"autoreset_mode": other}).close()
    _, window = rolled(key, from_gymnasium(vector), actions)
    close_to(window, own)
    ended = own["terminated"] | own["truncated"]
    np.testing.assert_array_equal(np.abs(window.next_obs[:-1] - window.obs[1:]).max(-1) > 0, ended[:-1])
    assert (window.step.max(0) < LIMIT).all()


def test_the_limit_of_pendulum_truncates_and_its_last_value_counts() -> None:
    key, actions = jax.random.key(1), np.random.default_rng(1).uniform(-2, 2, (203, 2, 1)).astype(np.float32)
    env = from_gymnasium("Pendulum-v1")
    state, window = rolled(key, env, actions)
    close_to(window, own_loop(lambda: gym.make("Pendulum-v1"), seeds_of(key, 2), actions))
    np.testing.assert_array_equal(window.truncated, np.repeat(np.arange(203) == 199, 2).reshape(203, 2))
    assert not window.terminated.any()
    value = lambda params, obs: obs[..., 2]  # noqa: E731
    _, next_value = pg.bootstrap_values(None, window, value=value)
    np.testing.assert_array_equal(next_value[199], window.next_obs[199, :, 2])
    assert (np.abs(window.next_obs[199, :, 2] - window.obs[200, :, 2]) > 1e-3).all()
    np.testing.assert_allclose(state.episode_return, window.reward[:200].sum(0), rtol=1e-4)
    np.testing.assert_array_equal([env.action_space().low, env.action_space().high], [[-2.0], [2.0]])


def test_a_window_goes_on_where_the_last_one_stopped(cart_pole: Any) -> None:
    key, actions, own = cart_pole
    env = from_gymnasium("CartPole-v1", max_episode_steps=LIMIT)
    state = pg.init_rollout(key, env, None, num_envs=3)
    options: Any = {"policy": blind(env), "env": env, "env_params": None, "num_steps": 30}
    windows = []
    for part in (actions[:30], actions[30:]):
        state, window = pg.rollout(key, None, state, actions=part, **options)
        windows.append(window)
    close_to(jax.tree.map(lambda *x: np.concatenate(x), *windows), own)


def test_seeds_under_vmap_are_one_batch(cart_pole: Any) -> None:
    """The same as each alone, in one call of the host for all of them."""
    _, actions, _ = cart_pole
    env = from_gymnasium("CartPole-v1", max_episode_steps=LIMIT)
    keys = jax.random.split(jax.random.key(7), 2)
    _, together = jax.jit(jax.vmap(lambda key: rolled(key, env, actions)))(keys)
    assert [batch.vector.num_envs for batch in env._batches] == [6]
    for i in range(2):
        alone = own_loop(lambda: gym.make("CartPole-v1", max_episode_steps=LIMIT), seeds_of(keys[i], 3), actions)
        close_to(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_episodes_under_vmap_end_apart() -> None:
    """A loop that has ended for one seed keeps its old rows, while the others go on."""
    env = from_gymnasium("CartPole-v1")
    keys, weights = jax.random.split(jax.random.key(2), 2), jnp.array([1.0, 30.0])
    policy = lambda params, obs: pg.Categorical(params * jnp.stack([-obs[..., 2], obs[..., 2]], -1))  # noqa: E731

    def played(key: Any, weight: Any) -> Any:
        options: Any = {"policy": policy, "env": env, "env_params": None, "num_episodes": 2, "greedy": True}
        return pg.evaluate(key, weight, **options)

    together = jax.vmap(played)(keys, weights * jnp.array([-1.0, 1.0]))
    lengths = np.asarray(together.episode_length)
    assert lengths[0].max() < lengths[1].min()
    for i, sign in enumerate((-1.0, 1.0)):
        np.testing.assert_array_equal(played(keys[i], sign * weights[i]).episode_length, lengths[i])


def test_no_gradient_passes_and_none_is_asked_for() -> None:
    env = from_gymnasium("Pendulum-v1")

    def earned(scale: Any) -> Any:
        state = pg.init_rollout(jax.random.key(0), env, None, num_envs=1)
        policy = lambda params, obs: pg.Normal(params * obs[..., :1], 1.0)  # noqa: E731
        _, window = pg.rollout(jax.random.key(1), scale, state, policy=policy, env=env, env_params=None, num_steps=2)
        return window.reward.sum()

    value, slope = jax.value_and_grad(earned)(1.0)
    assert value < 0
    assert slope == 0


# What comes from where: batches, and states that are refused.


def begun(env: Any, num_envs: int = 2) -> tuple[Any, Any]:
    """(state after a reset, step(state)) outside rollouts."""
    step = jax.vmap(env.step, in_axes=(None, 0, 0))
    action = jnp.zeros((num_envs, *env.action_space().shape), int)
    _, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), num_envs))
    return state, lambda state: step(jax.random.key(0), state, action)[1]


def test_a_state_is_used_once() -> None:
    state, step = begun(from_gymnasium(several(Count)))
    newer = step(state)
    np.testing.assert_array_equal(newer.time, [1, 1])
    with pytest.raises(Exception, match="is of step 0 of its batch, which is at step 1"):
        step(state)
    np.testing.assert_array_equal(step(newer).time, [2, 2])


@pytest.mark.parametrize(
    "rows", [lambda x: x[::-1], lambda x: x[:1], lambda x: jnp.concatenate([x, x])], ids=["turned", "one", "doubled"]
)
def test_rows_are_stepped_all_together_and_in_order(rows: Any) -> None:
    env = from_gymnasium(several(Count))
    state, _ = begun(env)
    wrong = jax.tree.map(rows, state)
    action = jnp.zeros(wrong.index.shape, int)
    with pytest.raises(Exception, match="must hold all 2 environments of its batch, in their order"):
        jax.vmap(env.step, in_axes=(None, 0, 0))(jax.random.key(0), wrong, action)


def test_a_reset_takes_the_batch_that_was_used_longest_ago() -> None:
    env = from_gymnasium(several(Count), max_batches=2)
    first, step = begun(env)
    second, _ = begun(env)
    first = step(first)
    vectors = [batch.vector for batch in env._batches]
    begun(env)  # takes the second, whose turn it is
    assert [batch.vector for batch in env._batches] == vectors
    first = step(first)
    with pytest.raises(Exception, match="belongs to no batch of environments that is still there"):
        step(second)
    begun(env, 3)  # another number: the oldest is closed
    assert vectors[1].closed
    np.testing.assert_array_equal(step(first).time, [3, 3])


def test_a_state_of_another_environment_is_refused() -> None:
    state, _ = begun(from_gymnasium(several(Count)))
    _, step = begun(from_gymnasium(several(Count)))
    with pytest.raises(Exception, match="cannot be resumed from a saved state"):
        step(state)
    env = from_gymnasium(several(Count))
    with pytest.raises(TypeError, match="env_state must be a HostState"):
        env.step(jax.random.key(0), jnp.int32(0), jnp.int32(0))


def test_a_closed_environment_is_refused() -> None:
    env = from_gymnasium(several(Count))
    state, step = begun(env)
    env.close()
    with pytest.raises(Exception, match="environments are closed"):
        step(state)
    with pytest.raises(Exception, match="environments are closed"):
        begun(env)
    vector = several(Count)(2)
    state, step = begun(from_gymnasium(vector))
    vector.close()
    with pytest.raises(Exception, match="the VectorEnv is closed"):
        step(state)


def test_a_given_vector_env_is_the_only_batch() -> None:
    env = from_gymnasium(several(Count)(2))
    state, step = begun(env)
    with pytest.raises(Exception, match="num_envs must be 2, what the given VectorEnv holds, got 3"):
        begun(env, 3)
    state = step(state)
    newer, _ = begun(env)
    with pytest.raises(Exception, match="belongs to no batch"):
        step(state)
    np.testing.assert_array_equal(step(newer).time, [1, 1])


@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_an_error_on_the_host_is_told_and_ends_the_batch(given: bool) -> None:
    class Fails(Count):
        fails_at = 2

    make = several(Fails)
    env = from_gymnasium(make(2) if given else make)
    state, step = begun(env)
    state = step(state)
    with pytest.raises(Exception, match="the robot fell over"):
        step(state)
    with pytest.raises(Exception, match="belongs to no batch of environments that is still there"):
        step(state)
    state, step = begun(env)
    np.testing.assert_array_equal(step(state).time, [1, 1])


# Spaces.


def test_numbers_reach_the_device_in_32_bits_and_choices_count_from_0() -> None:
    class Cut(Count):
        limit = 2

    env = from_gymnasium(several(Cut))
    seen, done = env.observation_space(), env.action_space()
    np.testing.assert_array_equal([seen.low, seen.high], np.float32([[-9.0, 0.0], [99.0, np.inf]]))
    assert (seen.dtype, pg.envs.observation_dtype(env), done.n) == (np.float32, np.float32, 3)
    actions = np.array([[0, 1], [2, 0], [1, 1], [0, 2]])
    _, window = rolled(jax.random.key(5), env, actions)
    np.testing.assert_array_equal(window.reward, actions + 5.0)
    np.testing.assert_array_equal(window.obs[:, 0, 0], [0, 1, 0, 1])
    np.testing.assert_array_equal(window.next_obs[:, 0, 0], [1, 2, 1, 2])
    np.testing.assert_array_equal(window.truncated[:, 0], [False, True] * 2)
    assert not window.terminated.any()
    np.testing.assert_array_equal(window.obs[0, :, 1], [seed % 10 for seed in seeds_of(jax.random.key(5), 2)])


FRAMES = gym.spaces.Box(0, 255, (2, 2), np.uint8)
KINDS: Any = {
    "frames": FRAMES,
    "long": gym.spaces.Box(-(2**40), 2**40, (2,), np.int64),
    "card": gym.spaces.Discrete(4, start=-1),
    "cards": gym.spaces.MultiDiscrete([3, 4], start=[1, 2]),
    "bits": gym.spaces.MultiBinary(3),
    "pair": gym.spaces.Tuple((gym.spaces.Discrete(2), gym.spaces.Box(-1.0, 1.0, (2, 1), np.float64))),
}


class Everything(Count):
    """Sees and does one of each kind."""

    observation_space = gym.spaces.Dict(KINDS)
    action_space = gym.spaces.Dict(KINDS)
    given: ClassVar[list[Any]] = []

    def step(self, action: Any) -> Any:
        self.given.append(action)
        return super().step(action)

    def observed(self) -> Any:
        frames = np.full((2, 2), 200 + self.step_of_episode, np.uint8)
        pair = 1, np.array([[0.5], [-0.25]])
        whole = {"long": np.array([7, -8]), "card": np.int64(2), "cards": np.array([1, 5]), "bits": np.int8([1, 0, 1])}
        return {"frames": frames, "pair": pair, **whole}


def test_every_kind_of_space_goes_both_ways() -> None:
    env = from_gymnasium(several(Everything))
    dtypes = {"frames": np.uint8, "long": np.int32, "card": np.int32, "cards": np.int32, "bits": np.int8}
    obs, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))
    assert {name: obs[name].dtype for name in dtypes} == {name: np.dtype(x) for name, x in dtypes.items()}
    assert [x.dtype for x in obs["pair"]] == [np.int32, np.float32]
    np.testing.assert_array_equal(obs["frames"], np.full((2, 2, 2), 200))
    np.testing.assert_array_equal([obs["long"][1], obs["cards"][1]], [[7, -8], [0, 3]])  # from 0 on
    np.testing.assert_array_equal(obs["card"], [3, 3])
    np.testing.assert_array_equal(obs["pair"][1][1], [[0.5], [-0.25]])
    space = env.action_space().spaces
    assert (space["cards"], space["bits"]) == (Choices((3, 4)), Choices((2, 2, 2)))
    assert space["card"].n == 4
    assert space["long"].high[0] == 2**31 - 1
    action = {
        "frames": jnp.full((2, 2, 2), 255, jnp.uint8), "long": jnp.array([[3, -4]] * 2), "card": jnp.array([0, 3]),
        "cards": jnp.array([[0, 0], [2, 3]]), "bits": jnp.array([[True, False, True]] * 2),
        "pair": (jnp.array([0, 1]), jnp.array([[[0.1], [-0.7]], [[1.0], [0.0]]])),
    }  # fmt: skip
    Everything.given.clear()
    jax.vmap(env.step, in_axes=(None, 0, 0))(jax.random.key(0), state, action)
    _, second = Everything.given
    assert all(space.contains(x) for x in Everything.given for space in [Everything.action_space])
    assert (second["card"], second["cards"].tolist(), second["bits"].tolist()) == (2, [3, 5], [1, 0, 1])
    assert (second["long"].tolist(), second["frames"].tolist()) == ([3, -4], [[255, 255], [255, 255]])
    np.testing.assert_array_equal(second["pair"][1], [[1.0], [0.0]])
    np.testing.assert_allclose(Everything.given[0]["pair"][1], [[0.1], [-0.7]], rtol=1e-6)


def test_other_spaces_and_other_shapes_are_refused() -> None:
    class Talks(Count):
        observation_space = gym.spaces.Text(5)

    with pytest.raises(TypeError, match="the observation space must be Box, Discrete"):
        from_gymnasium(several(Talks))
    vector = several(Count)(1)
    vector.envs[0].wrong_shape = True
    vector._observations = np.zeros((1, 3))
    with pytest.raises(Exception, match=r"observation of reset must have the shape \[1, 2\]"):
        begun(from_gymnasium(vector), 1)
    env = from_gymnasium(several(Count))
    _, state = jax.eval_shape(env.reset, jax.random.key(0))
    for action, error, message in (
        (jnp.zeros(2, int), ValueError, r"action must have the shape \[\] of the action space"),
        (jnp.zeros(()), TypeError, "action must be an integer array"),
        ({"a": 0}, ValueError, "action must have the tree structure of the action space"),
    ):
        with pytest.raises(error, match=message):
            jax.eval_shape(lambda state, action=action: env.step(jax.random.key(0), state, action), state)


# VectorEnvs that are not Gymnasium's.


class Bare(gym.vector.VectorEnv):
    """Two counters in one array, reset in the same step, with one seed for all; the last observations stacked."""

    num_envs = 2
    single_observation_space, single_action_space = OBS_SPACE, gym.spaces.Discrete(2)
    says_last = True

    def __init__(self, mode: Any = gym.vector.AutoresetMode.SAME_STEP):
        self.metadata = {"autoreset_mode": mode}

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        assert isinstance(seed, int)
        self.count = np.array([0, 1])
        return self.observed(), {}

    def observed(self) -> Any:
        return np.stack([self.count, self.count], 1).astype(float)

    def step(self, actions: Any) -> Any:
        self.count += 1
        last, done = self.observed(), self.count >= 3
        self.count[done] = 0
        info = {"final_obs": last} if self.says_last and done.any() else {}
        return self.observed(), actions, np.zeros(2, bool), done, info


def test_a_vector_env_of_another_kind() -> None:
    _, window = rolled(jax.random.key(0), from_gymnasium(Bare()), np.tile([0, 1], (4, 1)))
    np.testing.assert_array_equal(window.obs[..., 0], [[0, 1], [1, 2], [2, 0], [0, 1]])
    np.testing.assert_array_equal(window.next_obs[..., 1], [[1, 2], [2, 3], [3, 1], [1, 2]])
    np.testing.assert_array_equal(window.truncated, np.array([[0, 0], [0, 1], [1, 0], [0, 0]], bool))
    np.testing.assert_array_equal(window.reward, np.tile([0.0, 1.0], (4, 1)))


def test_one_that_hides_the_last_observation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"autoreset_mode SAME_STEP, got NextStep of Bare"):
        from_gymnasium(Bare(gym.vector.AutoresetMode.NEXT_STEP))
    silent = Bare()
    silent.says_last = False
    state, step = begun(from_gymnasium(silent))
    state = step(state)
    with pytest.raises(Exception, match="must give the last observation as info"):
        step(state)


def test_what_is_no_vector_env_is_refused() -> None:
    with pytest.raises(TypeError, match="make must be a function of num_envs"):
        from_gymnasium(Count())
    with pytest.raises(TypeError, match=r"make must give a gymnasium.vector.VectorEnv, got Count"):
        from_gymnasium(lambda num_envs: Count())
    with pytest.raises(ValueError, match=r"got 2 for make\(1\)"):
        from_gymnasium(lambda num_envs: several(Count)(2))
    with pytest.raises(ValueError, match="max_batches"):
        from_gymnasium(several(Count), max_batches=0)
    with pytest.raises(TypeError, match=r"options \['render_mode'\] go with the name"):
        from_gymnasium(several(Count), render_mode="human")


# Recipes.


@pytest.fixture
def pendulum() -> Iterator[Any]:
    env = from_gymnasium("Pendulum-v1")
    yield env
    env.close()


def test_ppo_and_ddpg_train_on_it(pendulum: Any) -> None:
    small: Any = {"num_envs": 2, "num_steps": 4}
    pytest.importorskip("flashbax")
    for module, options in (
        (pg.recipes.ppo, {"num_epochs": 1, "num_minibatches": 1, "total_steps": 16}),
        (pg.recipes.ddpg, {"gradient_steps": 1, "batch_size": 4, "warmup": 8, "capacity": 32, "total_steps": 24}),
    ):
        recipe = module.make_train(pendulum, None, **small, **options)
        start = recipe.init(jax.random.key(0))
        state, metrics = jax.jit(recipe.update)(start)
        state, metrics = jax.jit(recipe.update)(state)
        assert isinstance(state.rollout.env_state, HostState)
        assert int(state.rollout.env_state.time[0]) >= 8
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start.params, state.params)
        assert max(jax.tree.leaves(moved)) > 0
        assert np.isfinite(metrics["loss"])
