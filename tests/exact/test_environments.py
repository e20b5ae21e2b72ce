"""The suite as environments: their dynamics are those of the process, and their ends are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .test_mdp import close, episodic, garnet


def run(env, actions, key=0):
    """A loop over env.step; every leaf [T]."""
    params = env.default_params
    obs, state = env.reset(jax.random.key(key), params)

    def step(carry, row):
        obs, state = carry
        action, key = row
        after, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        return (after, state), (obs, reward, terminated, truncated, info["final_observation"])

    keys = jax.random.split(jax.random.key(key + 1), len(actions))
    return jax.lax.scan(step, (obs, state), (actions, keys))[1]


def frequencies(probs, hits):
    """Whether counts of draws fit probabilities: five standard deviations each."""
    n = hits.sum(-1, keepdims=True)
    return np.abs(hits - n * probs) <= 5 * np.sqrt(np.maximum(n * probs * (1 - probs), 0)) + 1e-9


def test_tabular_environment_draws_from_its_process():
    mdp, _, _ = garnet(0, 0.9, None, 3, 2)
    env = exact.TabularEnvironment(mdp, time_limit=7)
    actions = jax.random.randint(jax.random.key(5), (400, 64), 0, 2)
    obs, reward, terminated, truncated, final = jax.vmap(lambda a, k: run(env, a, k), (1, 0), 1)(
        actions, jnp.arange(64) * 2
    )
    assert obs.dtype == jnp.float32
    assert reward.dtype == jnp.float32
    state, after = np.argmax(obs, -1), np.argmax(final, -1)
    close(reward, np.asarray(mdp.reward, np.float32)[state, actions])
    hits = np.zeros((3, 2, 3))
    np.add.at(hits, (state, np.asarray(actions), after), 1)
    assert frequencies(np.asarray(mdp.transition), hits).all()
    assert (hits[np.asarray(mdp.transition) == 0] == 0).all()
    assert not terminated.any()
    assert (np.asarray(truncated) == (np.arange(400) % 7 == 6)[:, None]).all()
    # After a cut the next observation is a first state; elsewhere it is where the step led.
    cut = np.asarray(truncated)[:-1]
    assert (state[1:][~cut] == after[:-1][~cut]).all()
    starts = np.bincount(state[1:][cut], minlength=3)
    assert frequencies(np.asarray(mdp.initial), starts[None]).all()


def test_the_horizon_terminates_and_a_time_limit_truncates():
    mdp, _, _ = garnet(0, 0.9, 3, 3, 2)
    actions = jnp.zeros(7, int)
    _, _, terminated, truncated, _ = run(exact.TabularEnvironment(mdp), actions)
    assert terminated.tolist() == [False, False, True] * 2 + [False]
    assert not truncated.any()
    endless = mdp.replace(horizon=None)
    _, _, terminated, truncated, _ = run(exact.TabularEnvironment(endless, time_limit=3), actions)
    assert truncated.tolist() == [False, False, True] * 2 + [False]
    assert not terminated.any()
    _, _, terminated, truncated, _ = run(exact.TabularEnvironment(mdp, time_limit=3), actions)
    assert (terminated == truncated).all()


def test_terminal_states_terminate():
    mdp, _, _ = episodic(0)
    _, _, terminated, _, final = run(exact.TabularEnvironment(mdp), jnp.zeros(200, int))
    assert (np.asarray(terminated) == (np.asarray(final)[:, -1] == 1)).all()
    assert 50 < terminated.sum() < 150


@pytest.mark.parametrize("name", exact.tabular_problems())
def test_every_problem_runs_as_an_environment(name):
    mdp = exact.tabular_problems()[name]()
    env = exact.TabularEnvironment(mdp, time_limit=5)
    params = env.default_params
    assert env.num_actions == mdp.num_actions
    keys = jax.random.split(jax.random.key(0), 4)
    obs, state = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    assert obs.shape == (4, *env.observation_space(params).shape)
    action = jax.vmap(env.action_space(params).sample)(keys)
    out = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))(keys, state, action, params)
    assert out[0].shape == obs.shape
    assert out[0].dtype == jnp.float32
    assert jax.tree.map(lambda x: (x.shape, x.dtype), out[1]) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert all(x.shape == (4,) for x in out[2:5])
    assert out[5]["final_observation"].shape == obs.shape
    assert bool(jax.vmap(env.observation_space(params).contains)(out[0]).all())


def test_another_process_can_be_passed_as_parameters():
    env = exact.TabularEnvironment(exact.two_state())
    params = env.default_params
    doubled = params.replace(mdp=params.mdp.replace(reward=2 * params.mdp.reward))
    _, state = env.reset(jax.random.key(0), params)
    rewards = [float(env.step(jax.random.key(1), state, 0, p)[2]) for p in (params, doubled)]
    assert rewards == [1.0, 2.0]


def test_lqr_environment_follows_its_system():
    lqr, gain = exact.scalar_lqr()
    env = exact.LQREnvironment(lqr)
    params = env.default_params
    keys = jax.random.split(jax.random.key(0), 20_000)

    def step(carry, key):
        obs, state = carry
        key_action, key_env = jax.random.split(key)
        action = -gain @ obs + 0.5 * jax.random.normal(key_action, (1,))
        after, state, reward, terminated, _, info = env.step(key_env, state, action, params)
        return (after, state), (obs, action, reward, terminated, info["final_observation"])

    def episode(key):
        key_reset, key = jax.random.split(key)
        start = env.reset(key_reset, params)
        return jax.lax.scan(step, start, jax.random.split(key, 5))[1]

    obs, action, reward, terminated, final = jax.jit(jax.vmap(episode))(keys)
    assert obs.dtype == jnp.float32
    assert reward.dtype == jnp.float32
    assert terminated.tolist()[0] == [False] * 4 + [True]
    close(reward, -(obs**2 + 0.2 * action**2)[..., 0], rtol=1e-5)
    noise = (final - 0.9 * obs - 0.5 * action)[..., 0]
    close(noise.std(), 0.3, rtol=0.02)
    close(noise.mean(), 0.0, atol=0.005)
    close((obs[:, 1:] - final[:, :-1]), 0.0)
    returns = np.asarray(reward) @ 0.95 ** np.arange(5)
    error = float(returns.std() / np.sqrt(len(returns)))
    close(returns.mean(), lqr.objective(gain), atol=5 * error)
    assert env.action_space(params).shape == (1,)
    assert env.observation_space(params).shape == (1,)


def test_lqr_transitions_are_differentiable_on_demand():
    lqr, _ = exact.double_integrator()
    plain = exact.LQREnvironment(lqr, time_limit=10)

    def after(action, env):
        _, state = env.reset(jax.random.key(0), env.default_params)
        return env.step(jax.random.key(1), state, action, env.default_params)[0]

    jacobian = jax.jacobian(after)(jnp.zeros(1, jnp.float32), plain.with_transition_gradients())
    close(jacobian, lqr.B, rtol=1e-6)
    close(jax.jacobian(after)(jnp.zeros(1, jnp.float32), plain), 0.0)


@pytest.mark.parametrize(
    ("limits", "terminated", "truncated"),
    [
        ({"terminate_at": 3}, [0, 0, 1, 0, 0, 1], [0] * 6),
        ({"truncate_at": 2}, [0] * 6, [0, 1, 0, 1, 0, 1]),
        ({"terminate_at": 3, "truncate_at": 3}, [0, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 1]),
        ({"terminate_at": 4, "truncate_at": 3}, [0] * 6, [0, 0, 1, 0, 0, 1]),
    ],
)
def test_counter_counts(limits, terminated, truncated):
    env = exact.CounterEnvironment(**limits)
    obs, reward, *ends, final = run(env, jnp.zeros(6, int))
    assert ends[0].astype(int).tolist() == terminated
    assert ends[1].astype(int).tolist() == truncated
    length = min(limits.values())
    close(reward, np.arange(6) % length)
    close(obs[:, 0], reward)
    close(final[:, 0], reward + 1)


def test_bad_limits_are_refused_by_name():
    with pytest.raises(ValueError, match="time_limit must be at least 1"):
        exact.TabularEnvironment(exact.two_state(), time_limit=0)
    with pytest.raises(TypeError, match="terminate_at must be a Python int"):
        exact.CounterEnvironment(terminate_at=2.0)
    with pytest.raises(ValueError, match="time_limit must be at least 1"):
        exact.LQREnvironment(exact.double_integrator()[0], time_limit=0)
