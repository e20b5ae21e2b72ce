"""Linear systems as environments."""

import jax
import numpy as np
import pytest
from known_answers import SCALAR_LQR

from pgjax import exact

from ..processes import close, numpy


def test_lqr_environment_follows_its_system():
    lqr, gain = exact.scalar_lqr()
    env = exact.LQREnvironment(lqr)
    params = env.default_params

    def step(carry, key):
        obs, state = carry
        key_action, key_env = jax.random.split(key)
        action = -gain @ obs + 0.5 * jax.random.normal(key_action, (1,))
        after, state, reward, terminated, _, info = env.step(key_env, state, action, params)
        return (after, state), (obs, action, reward, terminated, info["final_observation"])

    def episode(key):
        key_reset, key = jax.random.split(key)
        return jax.lax.scan(step, env.reset(key_reset, params), jax.random.split(key, 5))[1]

    keys = jax.random.split(jax.random.key(0), 20_000)
    obs, action, reward, terminated, final = numpy(jax.jit(jax.vmap(episode))(keys))
    assert obs.dtype == reward.dtype == np.float32
    assert terminated[0].tolist() == [False] * 4 + [True]
    close(reward, -(obs**2 + 0.2 * action**2)[..., 0], rtol=1e-5)
    noise = (final - 0.9 * obs - 0.5 * action)[..., 0]
    close(noise.std(), 0.3, rtol=0.02)
    close(noise.mean(), 0.0, atol=0.005)
    close(obs[:, 1:], final[:, :-1])
    # The first state: mean 1, standard deviation 0.4, each with five standard errors of 20 000 draws.
    close(obs[:, 0].mean(), 1.0, atol=5 * 0.4 / np.sqrt(20_000))
    close(obs[:, 0].std(), 0.4, rtol=5 / np.sqrt(40_000))
    returns = reward @ 0.95 ** np.arange(5)
    close(returns.mean(), -SCALAR_LQR.cost, atol=5 * returns.std() / np.sqrt(len(returns)))
    assert env.action_space(params).shape == (1,)
    assert env.observation_space(params).shape == (1,)


def test_noise_has_the_covariance_of_the_system_also_where_that_is_singular():
    lqr, _ = exact.double_integrator()
    covariance = np.array([[0.4, 0.2], [0.2, 0.1]])
    env = exact.LQREnvironment(lqr.replace(noise_covariance=covariance), time_limit=10)

    def after(key):
        _, state = env.reset(jax.random.key(0), env.default_params)
        return env.step(key, state, np.zeros(1, np.float32), env.default_params)[0]

    x = np.asarray(jax.jit(jax.vmap(after))(jax.random.split(jax.random.key(1), 20_000)))
    close(np.cov(x.T), covariance, rtol=5 * np.sqrt(2 / 20_000))
    close(x[:, 0] - 2 * x[:, 1], np.full(20_000, (x[:, 0] - 2 * x[:, 1]).mean()), atol=1e-5)


def test_transitions_are_differentiable_on_demand():
    lqr, _ = exact.double_integrator()
    plain = exact.LQREnvironment(lqr, time_limit=10)

    def jacobian(env):
        def after(action):
            _, state = env.reset(jax.random.key(0), env.default_params)
            return env.step(jax.random.key(1), state, action, env.default_params)[0]

        return jax.jit(jax.jacobian(after))(np.zeros(1, np.float32))

    close(jacobian(plain.with_transition_gradients()), lqr.B, rtol=1e-6)
    close(jacobian(plain), 0.0)


def test_a_time_limit_truncates_and_the_horizon_terminates():
    lqr, _ = exact.scalar_lqr()
    for env, terminated, truncated in (
        (exact.LQREnvironment(lqr, time_limit=5), True, True),
        (exact.LQREnvironment(lqr, time_limit=6), True, False),
        (exact.LQREnvironment(lqr.replace(horizon=None), time_limit=5), False, True),
    ):
        params = env.default_params
        for steps in (4, 5):
            state = exact.LQRState(time=np.int32(steps), x=np.ones(1, np.float32))
            ends = bool(env.is_terminated(state, params)), bool(env.is_truncated(state, params))
            assert ends == ((terminated, truncated) if steps == 5 else (False, False))
    assert isinstance(params, exact.LQRParams)


def test_bad_limits_are_refused_by_name():
    with pytest.raises(ValueError, match="time_limit must be at least 1"):
        exact.LQREnvironment(exact.double_integrator()[0], time_limit=0)
