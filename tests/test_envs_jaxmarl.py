"""JaxMARL's environments through the adapter, against JaxMARL's own loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import spaces

import pgjax as pg
from pgjax.envs import JaxMARL, from_jaxmarl
from pgjax.envs.boundary import draw_randomness

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B, LAST = 30, 2, 25  # a particle environment with max_steps=25 ends with the 26th step


@pytest.fixture(scope="module")
def jaxmarl() -> Any:
    return pytest.importorskip("jaxmarl")


def make(jaxmarl: Any, name: str, action_type: str) -> tuple[Any, Any]:
    inside = jaxmarl.make(name, action_type=action_type)
    return inside, from_jaxmarl(inside)


def given(actions: Any) -> Any:
    """A policy that is never asked what to do."""
    return lambda params, obs: pg.exploration.Deterministic(jnp.zeros(actions.shape[1:]))


@pytest.fixture(scope="module")
def chased(jaxmarl: Any) -> Any:
    """(window, what JaxMARL's own loop gives) of simple_tag, in which predators see more than prey."""
    inside, env = make(jaxmarl, "MPE_simple_tag_v3", "Continuous")
    keys = jax.random.split(jax.random.key(0), 3)
    actions = jax.random.uniform(keys[0], (T, B, *env.agents, 5))
    state = pg.init_rollout(keys[1], env, None, num_envs=B)
    start_like = state.obs, state.env_state
    _, window = pg.rollout(
        keys[2], None, state, policy=given(actions), env=env, env_params=None, num_steps=T, actions=actions
    )
    _, drawn = draw_randomness(keys[2], env, None, start_like=start_like, num_steps=T)

    def step(key: Any, state: Any, action: Any) -> Any:
        by_name = {name: action[i] for i, name in enumerate(inside.agents)}
        last = inside.step_env(jax.random.split(key)[0], state, by_name)[0]
        return last, *inside.step(key, state, by_name)

    own_step = jax.jit(jax.vmap(step))
    rows = []
    with jax.numpy_rank_promotion("allow"):
        obs, own = jax.vmap(inside.reset)(jax.random.split(keys[1], B))
        for t in range(T):
            last, next_obs, own, reward, done, _ = own_step(drawn.keys[t], own, actions[t])
            rows.append({"obs": obs, "next_obs": last, "reward": reward, "done": done})
            obs = next_obs
    return inside, env, window, jax.tree.map(lambda *x: np.stack(x), *rows)


def test_a_rollout_is_jaxmarls_own_loop(chased: Any) -> None:
    """Each agent's own reward and, up to where its row is padded, its own observation, also across the reset."""
    inside, env, window, own = chased
    assert env.agents == (4,)
    assert env.observation_sizes == (16, 16, 16, 14)
    assert env.action_sizes == (5, 5, 5, 5)
    for i, name in enumerate(inside.agents):
        size = env.observation_sizes[i]
        np.testing.assert_allclose(window.reward[..., i], own["reward"][name], rtol=1e-4, atol=1e-4)
        for part in ("obs", "next_obs"):
            np.testing.assert_allclose(getattr(window, part)[..., i, :size], own[part][name], rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(getattr(window, part)[..., i, size:], 0.0)
    assert np.abs(window.reward[..., 0] - window.reward[..., 3]).max() > 0.1


def test_the_limit_truncates_and_the_last_observation_is_kept(chased: Any) -> None:
    *_, window, own = chased
    cut = np.broadcast_to((np.arange(T) == LAST)[:, None, None], (T, B, 4))
    np.testing.assert_array_equal(cut[..., 0], own["done"]["__all__"])
    np.testing.assert_array_equal(window.truncated, cut)
    assert not window.terminated.any()
    np.testing.assert_array_equal(window.step[..., 0], (np.arange(T) % (LAST + 1))[:, None] + np.zeros((1, B)))
    gone = np.abs(window.next_obs[:-1] - window.obs[1:]).max((2, 3)) > 1e-6
    np.testing.assert_array_equal(gone, cut[:-1, :, 0])
    value = lambda params, obs: obs[..., 0]  # noqa: E731
    _, next_value = pg.bootstrap_values(None, window, value=value)
    np.testing.assert_array_equal(next_value[LAST], window.next_obs[LAST, ..., 0])


def test_maddpg_trains_on_it(jaxmarl: Any) -> None:
    """Traced, not compiled; what padding adds to the observations is there for the networks."""
    pytest.importorskip("flashbax")
    _, env = make(jaxmarl, "MPE_simple_speaker_listener_v4", "Continuous")
    recipe = pg.recipes.maddpg.make_train(env, None, total_steps=64)
    state, metrics = jax.eval_shape(recipe, jax.random.key(0))
    assert state.replay.experience.obs.shape[2:] == (2, 11)
    assert state.replay.experience.action.shape[2:] == (2, 5)
    assert jax.tree.leaves(state.params.critic)[1].shape == (2, 1, 2 * (11 + 5), 128)
    assert metrics["loss"].shape == (4,)


def test_unequal_actions_are_cut_to_their_own_length(jaxmarl: Any) -> None:
    """The speaker says one of three words; the listener has the five components of a move."""
    inside, env = make(jaxmarl, "MPE_simple_speaker_listener_v4", "Continuous")
    assert env.action_sizes == (3, 5)
    assert env.observation_sizes == (3, 11)
    space = env.action_space(None)
    np.testing.assert_array_equal(jnp.stack([space.low, space.high]), [[0.0] * 5, [1.0] * 5])
    action = jax.random.uniform(jax.random.key(1), (2, 5))
    changed = [action.at[i].set(9.0) for i in ((0, slice(3, 5)), (0, 2), (1, 4))]

    def both(action: Any) -> Any:
        _, state = env.reset(jax.random.key(0))
        named = {"speaker_0": action[0, :3], "listener_0": action[1]}
        with jax.numpy_rank_promotion("allow"):
            own = inside.step(jax.random.key(2), state.env_state, named)[0]
        return env.step(jax.random.key(2), state, action)[0], own

    seen, own = jax.jit(jax.vmap(both))(jnp.stack([action, *changed]))
    np.testing.assert_array_equal(seen[:, 0, 3:], 0.0)
    np.testing.assert_allclose(seen[:, 0, :3], own["speaker_0"], rtol=1e-5)
    np.testing.assert_allclose(seen[:, 1], own["listener_0"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (np.abs(seen[2:] - seen[:1]).max((1, 2)) > 0.1).all()


def test_actions_that_an_agent_does_not_have_stand_for_its_last(jaxmarl: Any) -> None:
    _, env = make(jaxmarl, "MPE_simple_speaker_listener_v4", "Discrete")
    assert env.action_space(None).n == 5
    step = lambda x: env.step(jax.random.key(2), env.reset(jax.random.key(0))[1], x)[0]  # noqa: E731
    last, beyond, first, other = jax.jit(jax.vmap(step))(jnp.array([[2, 4], [4, 4], [0, 4], [2, 3]]))
    np.testing.assert_array_equal(last, beyond)
    assert np.abs(last - first).max() > 0.1
    assert np.abs(last - other).max() > 0.1


@struct.dataclass
class Count:
    """State of `Relay`."""

    step: Any


class Relay:
    """Of JaxMARL's form: the first agent is out after two steps, and with the third the match is over for both."""

    agents = ("first", "second")

    def action_space(self, name: str) -> Any:
        return spaces.Discrete(2)

    def reset(self, key: Any) -> Any:
        return self.observe(0), Count(jnp.int32(0))

    def step_env(self, key: Any, state: Any, actions: Any) -> Any:
        step = state.step + 1
        reward = {"first": 1.0 * actions["first"], "second": 10.0 * actions["second"]}
        done = {"first": step >= 2, "second": jnp.bool_(False), "__all__": step >= 3}
        return self.observe(step), Count(step), reward, done, {}

    def observe(self, step: Any) -> Any:
        return {"second": jnp.array([step, 2]), "first": jnp.array([step, 1])}


def relay(max_steps: int | None) -> Any:
    env = from_jaxmarl(Relay(), max_steps=max_steps)
    state = pg.init_rollout(jax.random.key(0), env, None, num_envs=1)
    actions = np.ones((6, 1, 2), int)
    policy = lambda params, obs: pg.Categorical(jnp.zeros((*obs.shape[:-1], 2)))  # noqa: E731
    _, window = pg.rollout(
        jax.random.key(1), None, state, policy=policy, env=env, env_params=None, num_steps=6, actions=actions
    )
    return jax.tree.map(lambda x: np.asarray(x)[:, 0], window)


def test_agents_end_by_themselves_and_all_of_them_with_the_match() -> None:
    window = relay(None)
    np.testing.assert_array_equal(window.terminated, np.array([[0, 0], [1, 0], [1, 1]] * 2, bool))
    assert not window.truncated.any()
    np.testing.assert_array_equal(window.reward, [[1.0, 10.0]] * 6)
    np.testing.assert_array_equal(window.obs[..., 1], [[1.0, 2.0]] * 6)  # in the order of env.agents
    np.testing.assert_array_equal(window.obs[..., 0], np.repeat([[0, 1, 2] * 2], 2, 0).T)


def test_an_end_at_the_limit_that_is_told_is_a_truncation() -> None:
    window = relay(3)
    np.testing.assert_array_equal(window.truncated, np.array([[0, 0], [0, 0], [1, 1]] * 2, bool))
    np.testing.assert_array_equal(window.terminated, np.array([[0, 0], [1, 0], [0, 0]] * 2, bool))
    assert not relay(4).truncated.any()


class Unequal(Relay):
    """Both agents have boxes, of other bounds in the component that both have."""

    bounds = ((0.0, 1.0, 1), (0.0, 2.0, 2))

    def action_space(self, name: str) -> Any:
        low, high, size = self.bounds[self.agents.index(name)]
        return spaces.Box(low, high, (size,))


class Apart(Unequal):
    """The second agent alone has the component that is bounded otherwise."""

    def action_space(self, name: str) -> Any:
        bounds = {"first": ([-1.0], [1.0]), "second": ([-1.0, 0.0], [1.0, 5.0])}[name]
        low, high = (jnp.array(x) for x in bounds)
        return spaces.Box(low, high, low.shape)


class Mixed(Relay):
    """One agent moves, the other speaks."""

    def action_space(self, name: str) -> Any:
        return spaces.Discrete(2) if name == "first" else spaces.Box(0.0, 1.0, (2,))


class Planes(Relay):
    """Actions that are no vector."""

    def action_space(self, name: str) -> Any:
        return spaces.Box(0.0, 1.0, (2, 2))


def test_a_component_has_the_bounds_of_the_agents_that_have_it() -> None:
    space = from_jaxmarl(Apart()).action_space(None)
    np.testing.assert_array_equal(jnp.stack([space.low, space.high]), [[-1.0, 0.0], [1.0, 5.0]])


class Nameless(Relay):
    agents = ()


class Stepless(Relay):
    step_env = None


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: from_jaxmarl(object()), TypeError, r"^env must be an environment of JaxMARL, .* got object"),
        (lambda: from_jaxmarl(Nameless()), TypeError, r"^env must be an environment of JaxMARL"),
        (lambda: from_jaxmarl(Stepless()), TypeError, r"^env must have a method step_env"),
        (lambda: from_jaxmarl(Mixed()), TypeError, r"^env must have action spaces .*'Discrete', 'Box'"),
        (lambda: from_jaxmarl(Planes()), TypeError, r"^env must have action spaces .*'Box', 'Box'"),
        (lambda: from_jaxmarl(Unequal()), ValueError, r"^env must have the same bounds for each component"),
        (lambda: from_jaxmarl(Relay(), max_steps=0), ValueError, r"^max_steps must be at least 1"),
        (
            lambda: JaxMARL(Apart()).step_env(jax.random.key(0), Count(0), jnp.zeros((2, 1))),
            ValueError,
            r"^action must have shape \[2, 2\], one row for each agent, got \[2, 1\]",
        ),
        (
            lambda: JaxMARL(Relay()).step_env(jax.random.key(0), Count(0), jnp.zeros(3, int)),
            ValueError,
            r"^action must have shape \[2\], one row for each agent, got \[3\]",
        ),
    ],
)
def test_what_is_none_of_jaxmarl_is_named(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_equal_observations_keep_their_axes() -> None:
    class Frames(Relay):
        def observe(self, step: Any) -> Any:
            return {name: jnp.full((2, 3), step, jnp.uint8) for name in self.agents}

    env = from_jaxmarl(Frames())
    assert env.reset(jax.random.key(0))[0].shape == (2, 2, 3)
    assert env.observation_space(None).shape == (2, 3)
    assert env.observation_sizes == (6, 6)
    assert pg.envs.observation_dtype(env) == jnp.uint8
