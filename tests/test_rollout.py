"""Rollouts: shapes, episode ends, replay, what a state remembers, and what environments and policies may be."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import categorical, coin, collect, start

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
CARTPOLE, CARTPOLE_PARAMS = gymnax.make("CartPole-v1")
T, B = 30, 4


def cartpole(num_steps: int = T, **kwargs: Any) -> tuple[pg.RolloutState, pg.Trajectory]:
    kwargs = {"policy": categorical, "params": 1.0, "env_params": CARTPOLE_PARAMS, **kwargs}
    return collect(kwargs.pop("env", CARTPOLE), kwargs.pop("env_params"), num_steps=num_steps, num_envs=B, **kwargs)


def equal(actual: Any, desired: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


def equal_states(actual: Any, desired: Any) -> None:
    """Alike up to the last bit of a sum that another program orders otherwise."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), actual, desired)


@pytest.fixture(scope="module")
def window() -> pg.Trajectory:
    return jax.tree.map(np.asarray, cartpole()[1])


def test_every_leaf_has_the_axes_of_the_contract(window: pg.Trajectory) -> None:
    for name, shape, dtype in (
        ("obs", (T, B, 4), "float32"),
        ("action", (T, B), "int32"),
        ("reward", (T, B), "float32"),
        ("next_obs", (T, B, 4), "float32"),
        ("terminated", (T, B), "bool"),
        ("truncated", (T, B), "bool"),
        ("log_prob", (T, B), "float32"),
        ("step", (T, B), "int32"),
    ):
        leaf = getattr(window, name)
        assert (leaf.shape, leaf.dtype) == (shape, np.dtype(dtype)), name
    assert window.raw_action is window.extras is window.truncation_value is None


def test_next_obs_is_the_next_row_except_where_an_episode_was_cut(window: pg.Trajectory) -> None:
    same = np.all(window.next_obs[:-1] == window.obs[1:], axis=-1)
    assert window.done.any()
    np.testing.assert_array_equal(same, ~window.done[:-1])


def test_log_prob_is_that_of_the_action(window: pg.Trajectory) -> None:
    np.testing.assert_allclose(window.log_prob, categorical(1.0, window.obs).log_prob(window.action), rtol=1e-6)


def test_step_counts_inside_each_episode_and_across_rollouts() -> None:
    state, first = cartpole()
    _, second = cartpole(state=state, seed=2)
    step, done = (np.concatenate([getattr(w, name) for w in (first, second)]) for name in ("step", "done"))
    expected = np.zeros((2 * T, B), int)
    for t in range(1, 2 * T):
        expected[t] = np.where(done[t - 1], 0, expected[t - 1] + 1)
    np.testing.assert_array_equal(step, expected)
    assert np.any(step[T] > 0)


def test_two_rollouts_are_one_of_twice_the_length() -> None:
    """With the same actions, in an environment that chance has no part in once the start is drawn."""
    env = pg.envs.PooledReset(CARTPOLE, size=1)
    actions = jax.random.randint(jax.random.key(5), (2 * T, B), 0, 2)
    whole_state, whole = cartpole(2 * T, env=env, actions=actions)
    middle, first = cartpole(env=env, actions=actions[:T])
    last_state, second = cartpole(env=env, actions=actions[T:], state=middle, seed=9)
    equal(jax.tree.map(lambda *xs: jnp.concatenate(xs), first, second), whole)
    equal(last_state, whole_state)
    assert whole.done.any()


def test_given_noise_replays_a_sampled_rollout(window: pg.Trajectory) -> None:
    """Noise that stands for the actions that were sampled: below the probability of action 0, or above it."""
    chance = np.exp(np.where(window.action == 0, window.log_prob, np.log1p(-np.exp(window.log_prob))))
    noise = np.where(window.action == 0, chance / 2, (1 + chance) / 2).astype(np.float32)
    replayed = cartpole(noise=noise)[1]
    equal_states(replayed, window)
    assert np.any(cartpole(noise=noise[::-1])[1].action != window.action)


def test_given_actions_replay_a_sampled_rollout(window: pg.Trajectory) -> None:
    equal_states(cartpole(actions=window.action)[1], window)
    other = cartpole(actions=1 - window.action)[1]
    np.testing.assert_array_equal(other.action, 1 - window.action)
    np.testing.assert_allclose(other.log_prob, categorical(1.0, other.obs).log_prob(other.action), rtol=1e-6)


def test_a_step_leads_where_the_environment_says(window: pg.Trajectory) -> None:
    """A CartPole shows its whole state, so that each row can be played again by itself."""
    x, x_dot, theta, theta_dot = np.moveaxis(window.obs.reshape(-1, 4), -1, 0)
    state = type(start(CARTPOLE, CARTPOLE_PARAMS, num_envs=1).env_state)(
        time=window.step.reshape(-1), x=x, x_dot=x_dot, theta=theta, theta_dot=theta_dot
    )
    step = jax.jit(jax.vmap(CARTPOLE.step_env, in_axes=(None, 0, 0, None)))
    obs, _, reward, terminated, _ = step(jax.random.key(0), state, window.action.reshape(-1), CARTPOLE_PARAMS)
    np.testing.assert_allclose(window.next_obs.reshape(-1, 4), obs, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(window.reward.reshape(-1), reward)
    np.testing.assert_array_equal(window.terminated.reshape(-1), terminated)
    starts = window.obs[window.step == 0]
    assert np.abs(starts).max() <= 0.05
    assert len(np.unique(starts, axis=0)) == len(starts) > B


def test_a_wrapped_env_steps_by_itself(window: pg.Trajectory) -> None:
    """The wrapper hides the class; then the environment's own `step` is called, which resets."""
    _, wrapped = cartpole(env=pg.envs.Wrapper(CARTPOLE))
    same = np.all(wrapped.next_obs[:-1] == wrapped.obs[1:], axis=-1)
    np.testing.assert_array_equal(same, ~wrapped.done[:-1])
    np.testing.assert_array_equal(wrapped.obs[0], window.obs[0])
    assert wrapped.done.any()


@pytest.mark.parametrize("env", [probes.RANDOM_LENGTH, pg.envs.Wrapper(probes.RANDOM_LENGTH)])
def test_old_keys_draw_what_typed_keys_draw(env: Any) -> None:
    results = []
    for make in (jax.random.PRNGKey, jax.random.key):
        options = {"policy": coin, "env": env, "env_params": None}
        state = pg.init_rollout(make(0), env, None, num_envs=B)
        results.append(pg.rollout(make(1), 1.0, state, num_steps=6, **options))
        results[-1] += (pg.evaluate(make(2), 1.0, num_episodes=B, **options),)
    equal(*results)
    assert results[0][1].terminated.any()


def test_no_fake_return_before_an_episode_ended() -> None:
    state, _ = collect(probes.TERMINATES, num_steps=3)
    assert np.isnan(state.episode_return).all()
    assert np.isnan(state.episode_length).all()
    np.testing.assert_array_equal(state.num_episodes, 0)
    np.testing.assert_array_equal(state.running_return, 3.0)
    state, _ = collect(probes.TERMINATES, num_steps=3, state=state)
    np.testing.assert_array_equal(state.episode_return, 4.0)
    np.testing.assert_array_equal(state.episode_length, 4)
    np.testing.assert_array_equal(state.running_return, 2.0)
    np.testing.assert_array_equal(state.step, 2)
    np.testing.assert_array_equal(state.num_episodes, 1)


def test_the_mean_return_is_not_that_of_the_short_episodes() -> None:
    """Finding 12. A policy worth 51 in the mean: half of its episodes last 2 steps and half 100."""
    params = probes.ProbeParams(length=jnp.array([2, 100, 2, 100]))
    early, _ = collect(probes.CONSTANT_REWARD, params, num_steps=50)
    late, _ = collect(probes.CONSTANT_REWARD, params, num_steps=50, state=early)
    assert jnp.nanmean(early.episode_return) == 2.0
    assert np.isnan(jnp.mean(early.episode_return))
    assert jnp.mean(early.num_episodes > 0) == 0.5
    np.testing.assert_array_equal(early.num_episodes, [25, 0, 25, 0])
    assert jnp.mean(late.episode_return) == 51.0
    np.testing.assert_array_equal(late.num_episodes, [50, 1, 50, 1])


def test_one_step_of_one_environment() -> None:
    _, window = collect(CARTPOLE, CARTPOLE_PARAMS, num_steps=1, num_envs=1, policy=categorical, params=1.0)
    assert window.obs.shape == (1, 1, 4)
    assert window.reward.shape == window.log_prob.shape == (1, 1)


def test_parameters_may_differ_from_environment_to_environment() -> None:
    limits = jnp.array([2, 3, 5, 6])
    params = probes.ProbeParams(length=10**6, max_steps_in_episode=limits)
    state, window = collect(probes.TRUNCATES, params)
    np.testing.assert_array_equal(state.episode_length, limits)
    np.testing.assert_array_equal(window.truncated.sum(0), [3, 2, 1, 1])
    result = pg.evaluate(jax.random.key(0), 0.0, policy=coin, env=probes.TRUNCATES, env_params=params, num_episodes=4)
    np.testing.assert_array_equal(result.episode_length, limits)
    one = pg.envs.single_params(probes.TRUNCATES, params)
    assert (int(one.max_steps_in_episode), one.length) == (2, 10**6)
    assert jax.tree.map(np.shape, one) == jax.tree.map(np.shape, probes.TRUNCATES.default_params)
    assert pg.envs.single_params(probes.Bare(), None) is None
    assert pg.envs.single_params(probes.TERMINATES, None) == probes.TERMINATES.default_params


def test_steps_and_starts_see_the_parameters_of_their_own_environment() -> None:
    """Each start shows the bonus that its environment has, each reward holds it."""

    class Shown(probes.Probe):
        def reset_env(self, key: Any, params: Any) -> Any:
            state = probes.ProbeState(time=0, cue=jnp.asarray(params.bonus, jnp.float32))
            return self.get_obs(state), state

    bonus = jnp.array([1.0, 9.0, 30.0, 99.0])
    _, window = collect(Shown("constant", length=2), probes.ProbeParams(length=2, bonus=bonus))
    np.testing.assert_array_equal(window.obs[..., 1], np.broadcast_to(bonus, (6, 4)))
    np.testing.assert_array_equal(window.reward, np.broadcast_to(1.0 + bonus, (6, 4)))


def test_vmap_over_keys_policies_and_parameters_equals_a_loop() -> None:
    def run(key: Any, params: Any, bonus: Any) -> Any:
        env, env_params = probes.RANDOM_LENGTH, probes.RANDOM_LENGTH.default_params.replace(bonus=bonus)
        state = pg.init_rollout(key, env, env_params, num_envs=2)
        return pg.rollout(key, params, state, policy=coin, env=env, env_params=env_params, num_steps=6)

    inputs = jax.random.split(jax.random.key(3), 3), jnp.array([0.0, 1.0, 9.0]), jnp.array([0.0, 1.0, -1.0])
    looped = [run(*one) for one in zip(*inputs, strict=True)]
    equal_states(jax.vmap(run)(*inputs), jax.tree.map(lambda *x: np.stack(x), *looped))


def test_traces_once() -> None:
    calls = []

    def counting(params: Any, obs: Any) -> Any:
        calls.append(obs.shape)
        return categorical(params, obs)

    state, _ = cartpole(5, policy=counting)
    traced = len(calls)
    assert 0 < traced <= 4
    for seed in range(2, 5):
        state, _ = cartpole(5, policy=counting, state=state, seed=seed, params=float(seed))
    assert len(calls) == traced


@pytest.mark.parametrize("num_actions", [3])
def test_masked_actions_are_never_taken(num_actions: int) -> None:
    def masked(params: Any, obs: Any) -> Any:
        mask = jnp.stack([obs[..., 1] > 0, obs[..., 1] < 0, obs[..., 1] > 0], -1)
        return pg.Categorical(jnp.zeros((*obs.shape[:-1], num_actions)), mask)

    _, window = collect(probes.CONSTANT_REWARD, num_steps=32, policy=masked)
    up = np.asarray(window.obs[..., 1] > 0)
    assert np.all(np.asarray(window.action)[~up] == 1)
    assert set(np.unique(np.asarray(window.action)[up])) == {0, 2}
    np.testing.assert_allclose(window.log_prob, np.where(up, -np.log(2), 0.0), atol=1e-6)


def test_extras_come_along() -> None:
    policy = lambda params, obs: (coin(params, obs), {"value": obs[..., 0], "seen": obs})  # noqa: E731
    _, window = collect(probes.TERMINATES, policy=policy)
    np.testing.assert_array_equal(window.extras["seen"], window.obs)
    np.testing.assert_array_equal(window.extras["value"], window.obs[..., 0])


def test_squashed_actions_keep_their_raw_form() -> None:
    policy = lambda params, obs: pg.TanhNormal(params * obs[..., :1], 1 + 0 * obs[..., :1], -2.0, 2.0)  # noqa: E731
    _, window = collect(probes.TERMINATES, policy=policy, params=3.0)
    distribution = policy(3.0, window.obs)
    np.testing.assert_allclose(distribution.squash(window.raw_action), window.action, rtol=1e-5)
    np.testing.assert_allclose(distribution.log_prob_raw(window.raw_action), window.log_prob, rtol=1e-4, atol=1e-5)
    assert window.log_prob.shape == (6, 4)
    assert np.abs(window.action).max() > 1.0


def test_a_value_kept_on_the_spot_replaces_next_obs() -> None:
    """It is kept where an episode was cut and nowhere else: others terminate in the same steps."""
    env = probes.Probe("constant", length=10**6, limit=4, chance=0.2)
    value = lambda params, obs: 10.0 + obs[..., 0]  # noqa: E731
    options = {"num_steps": 20, "actions": np.zeros((20, B), int)}
    state, full = collect(env, **options)
    same, light = collect(env, truncation_value=value, **options)
    assert light.next_obs is None
    at_once = full.truncated.any(1) & (full.terminated & ~full.truncated).any(1)
    assert at_once.any()
    np.testing.assert_array_equal(light.truncation_value, np.where(full.truncated, 14.0, 0.0))
    equal(state, same)
    for a, b in zip(
        pg.bootstrap_values(0.0, light, value=value, last_obs=same.obs),
        pg.bootstrap_values(0.0, full, value=value),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_a_whole_number_among_the_parameters_does_no_harm() -> None:
    policy = lambda params, obs: pg.Categorical(obs @ params["w"] / params["n"])  # noqa: E731
    options = {"policy": policy, "params": {"w": np.ones((2, 2), int), "n": 3}}
    _, window = collect(probes.TERMINATES, **options)
    np.testing.assert_allclose(window.log_prob, np.log(0.5), rtol=1e-6)


def test_frames_of_bytes_come_as_floats_that_hold_them_exactly() -> None:
    class Frames(probes.Bare):
        def reset(self, key: Any, params: Any) -> Any:
            return jnp.array([0, 127, 255], jnp.uint8), jnp.int32(0)

        def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            frame = jnp.array([255, 1, 128], jnp.uint8)
            return frame, state, jnp.uint8(200), jnp.bool_(False), jnp.bool_(False), {"final_observation": frame}

    _, window = collect(Frames())
    assert window.obs.dtype == window.next_obs.dtype == window.reward.dtype == jnp.float32
    np.testing.assert_array_equal(window.obs[0, 0], [0.0, 127.0, 255.0])
    np.testing.assert_array_equal(np.asarray(window.next_obs[0, 0]).astype(np.uint8), [255, 1, 128])
    assert window.reward[0, 0] == 200.0
