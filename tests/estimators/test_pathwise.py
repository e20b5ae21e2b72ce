"""The pathwise gradient: golden moments of a linear-quadratic system by quadrature, and loops with differences."""

import functools
from dataclasses import dataclass
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact
from pgjax.envs import TimeLimit
from pgjax.envs.boundary import StepRandomness
from pgjax.rollout import RolloutNoise

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

GAIN, GAMMA = np.array([[0.4]]), 0.95


@dataclass(frozen=True)
class Line:
    """x' = 0.9 x + 0.5 u + 0.3 w, whose disturbance w is the second part of the action; an episode starts at 0.7.

    The reward is -(x² + 0.2 u²), or 1 for u > 0 where `jump` says so. The parameters say after how many steps an
    episode terminates, and after how many it is truncated.
    """

    jump: bool = False

    def reset(self, key: Any, params: Any) -> Any:
        x = jnp.full(1, 0.7)
        return x, (x, jnp.int32(0))

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        x, time = state
        after = 0.9 * x + 0.5 * action[:1] + 0.3 * action[1:]
        reward = (action[0] > 0) * 1.0 if self.jump else -jnp.sum(x**2 + 0.2 * action[:1] ** 2)
        terminated, truncated = time + 1 >= params[0], time + 1 >= params[1]
        over = terminated | truncated
        first, start = self.reset(key, params)
        state = jax.tree.map(lambda a, b: jnp.where(over, a, b), start, (after, time + 1))
        return jnp.where(over, first, after), state, reward, terminated, truncated, {"final_observation": after}


LINE, NEVER = Line(), np.array([100, 100])


def policy(params: Any, obs: Any) -> pg.Normal:
    loc = jnp.concatenate([-obs @ params.T, jnp.zeros_like(obs)], -1)
    return pg.Normal(loc, jnp.broadcast_to(jnp.array([0.5, 1.0]), loc.shape))


def start_at(x: Any) -> pg.RolloutState:
    """A state whose environments stand at x [B]."""
    state = pg.init_rollout(jax.random.key(0), LINE, NEVER, num_envs=len(x))
    x = jnp.asarray(x)[:, None]
    return state.replace(obs=x, env_state=(x, state.env_state[1]))


def given(push: Any) -> RolloutNoise:
    """The noise [T, B, 2] of a policy in an environment without any of its own."""
    push = jnp.asarray(push)
    keys = jnp.broadcast_to(jax.random.key(0), push.shape[:2])
    return RolloutNoise(action=push, env=StepRandomness(keys))


def each(state: Any, noise: Any, *, env: Any = LINE, **kwargs: Any) -> Any:
    kwargs = {"discount": GAMMA, "env_params": NEVER, "policy": policy, **kwargs}
    return np.asarray(pg.pathwise_gradient.per_trajectory(GAIN, state, env=env, noise=noise, **kwargs)[0])[:, 0, 0]


def test_quadrature_over_all_noise_gives_the_exact_gradient_and_the_golden_variance() -> None:
    """Of degree two in each normal number, so that three nodes are exact for the mean and for the variance."""
    lqr, gain = exact.scalar_lqr()
    nodes, weights = (np.asarray(x) for x in exact.gauss_hermite(3, (10,)))
    push = np.zeros((5, len(nodes), 2))
    push[:, :, 0], push[:4, :, 1] = nodes[:, 1:6].T, nodes[:, 6:].T
    got = each(start_at(1.0 + 0.4 * nodes[:, 0]), given(push))
    mean = weights @ got
    np.testing.assert_allclose(mean, lqr.cost_gradient(gain)[0, 0], rtol=1e-12)
    np.testing.assert_allclose(mean, -2.436138911658, rtol=1e-11)
    np.testing.assert_allclose(weights @ (got - mean) ** 2, 8.7944305669, rtol=1e-10)
    moments = exact.lqr_pathwise_moments(lqr, gain)
    np.testing.assert_allclose(weights @ (got - mean) ** 2, moments.covariance[0, 0], rtol=1e-11)
    # One node of ten moved: the sum is no longer the expectation.
    assert abs(weights @ each(start_at(1.1 + 0.4 * nodes[:, 0]), given(push)) - mean) > 0.1


@functools.cache
def endless() -> tuple[float, float]:
    """p and c of V(x) = -(p x² + c), by iteration."""
    closed, p, c = 0.9 - 0.5 * 0.4, 0.0, 0.0
    for _ in range(2000):
        c = 0.2 * 0.25 + GAMMA * (c + p * (0.25 * 0.25 + 0.09))
        p = 1.0 + 0.2 * 0.16 + GAMMA * closed**2 * p
    return p, c


def value(params: Any, obs: Any) -> Any:
    p, c = endless()
    return -(p * obs[..., 0] ** 2 + c)


def half(params: Any, obs: Any) -> Any:
    return 0.5 * value(params, obs)


def without_slope(params: Any, obs: Any) -> Any:
    return value(params, jax.lax.stop_gradient(obs))


def test_a_short_horizon_with_the_exact_value_is_unbiased_for_the_states_in_it() -> None:
    """Σ_{t<2} γ^t E[∂V(s_t)/∂K by the action at s_t alone], from second moments."""
    nodes, weights = (np.asarray(x) for x in exact.gauss_hermite(3, (5,)))
    push = nodes[:, 1:].reshape(-1, 2, 2).transpose(1, 0, 2)
    state, noise = start_at(1.0 + 0.4 * nodes[:, 0]), given(push)
    p, _ = endless()
    second = [1.16, 0.7**2 * 1.16 + 0.25 * 0.25 + 0.09]
    # The derivative of E[x² + 0.2 u² + γ p x'²] by K at u = -K x + σ ε is 2 (0.2 K - γ p 0.5 · 0.7) E x².
    expected = sum(GAMMA**t * 2 * (0.2 * 0.4 - GAMMA * p * 0.5 * 0.7) * m for t, m in enumerate(second))
    for v, unbiased in ((value, True), (half, False), (without_slope, False), (None, False)):
        error = abs(weights @ each(state, noise, value=v) - expected)
        assert error < 1e-12 if unbiased else error > 0.05


def objective_by_loops(k: float, x: Any, push: Any, ends: Any, weight: Any, v: Any) -> np.ndarray:
    """[B]: what each column earns, weighted, as the docstring has it."""
    total = np.zeros(len(x))
    for b in range(len(x)):
        position, time, w = float(x[b]), 0, float(weight[b])
        for t in range(len(push)):
            u = -k * position + 0.5 * push[t, b, 0]
            reward = -(position**2 + 0.2 * u**2)
            position = 0.9 * position + 0.5 * u + 0.3 * push[t, b, 1]
            time += 1
            terminated, truncated = time >= ends[0], time >= ends[1]
            follows = not terminated and (truncated or t == len(push) - 1)
            total[b] += w * (reward + GAMMA * follows * v * (-(position**2) + 0.3))
            w *= GAMMA
            if terminated or truncated:
                position, time, w = 0.7, 0, 1.0
    return total


def square(params: Any, obs: Any) -> Any:
    return (1.3 + params.sum()) * (0.3 - obs[..., 0] ** 2)


def test_windows_with_resets_agree_with_differences_of_a_loop() -> None:
    random = np.random.default_rng(3)
    x, push, weight = random.normal(size=4), random.normal(size=(7, 4, 2)), random.random(4)
    state, noise = start_at(x), given(push)
    further = {"value": square, "start_weight": jnp.asarray(weight)}
    kwargs = {"policy": policy, "env": LINE, "noise": noise, "discount": GAMMA, **further}
    for ends in np.array([[3, 100], [100, 2], [2, 2], [100, 100]]):  # the last but one: terminated wins
        loop = lambda k, ends=ends: objective_by_loops(k, x, push, ends, weight, 1.7)  # noqa: E731
        slope = -(loop(0.4 + 1e-6) - loop(0.4 - 1e-6)) / 2e-6
        np.testing.assert_allclose(each(state, noise, env_params=ends, **further), slope, rtol=1e-7)
        grads, info = pg.pathwise_gradient(GAIN, state, **kwargs, env_params=ends)
        np.testing.assert_allclose(grads[0, 0], slope.mean(), rtol=1e-7)
        np.testing.assert_allclose(info.loss, -loop(0.4).mean(), rtol=1e-12)
    again, _ = pg.pathwise_gradient(GAIN, state, **kwargs, env_params=ends, checkpoint=True)
    np.testing.assert_allclose(again, grads, rtol=1e-12)

    def scalar(gain: Any, checkpoint: bool) -> Any:
        return pg.pathwise_gradient.surrogate(gain, state, **kwargs, env_params=ends, checkpoint=checkpoint)

    programs = [str(jax.make_jaxpr(functools.partial(scalar, checkpoint=c))(GAIN)) for c in (False, True)]
    assert ["prevent_cse" in program for program in programs] == [False, True]


def test_a_jump_is_missed_in_silence_and_the_score_function_sees_it() -> None:
    x, push = np.linspace(-1.0, 1.0, 5), np.random.default_rng(4).normal(size=(3, 5, 2))
    assert (each(start_at(x), given(push), env=Line(jump=True)) == 0.0).all()
    # One step from x = 1: P(u > 0) = Φ(-k / σ), by a fine grid over u for the score function.
    z = np.linspace(-8.0, 8.0, 40001) + 2e-4  # the jump, at 0.8, lies between two points
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    action = jnp.asarray(np.stack([-0.4 + 0.5 * z, np.zeros_like(z)], -1))[None]
    one, no = jnp.ones((1, len(z))), np.zeros((1, len(z)), bool)
    reward = (action[..., 0] > 0) * 1.0
    taken = pg.Trajectory(one[..., None], action, reward, one[..., None], ~no, no, one, no.astype(int))
    got = pg.reinforce.per_trajectory(GAIN, taken, policy=policy, discount=GAMMA)[0][:, 0, 0]
    np.testing.assert_allclose(weights @ got, np.exp(-0.5 * 0.8**2) / np.sqrt(2 * np.pi) / 0.5, rtol=1e-6)


def steer(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(-obs @ params.T, 0.5)


def test_the_noise_is_that_of_a_rollout_with_the_same_key() -> None:
    """The gradient is that of the rollout's own rewards, through a wrapper, disturbances and resets."""
    with jax.enable_x64(False):
        env = TimeLimit(exact.LQREnvironment(exact.scalar_lqr()[0]), 4).with_transition_gradients()
        kwargs = {"policy": steer, "env": env, "env_params": env.default_params}
        params = jnp.array([[0.4]])
        state = pg.init_rollout(jax.random.key(0), env, env.default_params, num_envs=3)

        def total(params: Any) -> Any:
            _, window = pg.rollout(jax.random.key(1), params, state, **kwargs, num_steps=6)
            return -jnp.sum(window.reward) / 3

        noise = pg.rollout_noise(jax.random.key(1), params, state, **kwargs, num_steps=6)
        got, info = pg.pathwise_gradient(params, state, **kwargs, noise=noise, discount=1.0)
        loss, expected = jax.value_and_grad(total)(params)
    np.testing.assert_allclose(got, expected, rtol=2e-5)
    np.testing.assert_allclose(info.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(info.metrics["reward"], -loss / 6, rtol=1e-5)
    assert np.abs(got).max() > 0.01


PENDULUM, PENDULUM_PARAMS = gymnax.make("Pendulum-v1")


def swing(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(jnp.tanh(obs @ params), 0.1)


def test_what_loses_gradients_is_refused() -> None:
    state, push = start_at([0.5, 1.0]), np.zeros((2, 2, 2))
    kwargs = {"policy": policy, "env": LINE, "env_params": NEVER, "noise": given(push), "discount": GAMMA}
    discrete = lambda params, obs: pg.Categorical(obs @ params)  # noqa: E731
    with pytest.raises(TypeError, match=r"samples carry gradients, such as a Normal, got Categorical\. Use reinforce"):
        pg.pathwise_gradient(GAIN, state, **{**kwargs, "policy": discrete})
    start = pg.init_rollout(jax.random.key(0), PENDULUM, PENDULUM_PARAMS, num_envs=2)
    for env in (PENDULUM, TimeLimit(PENDULUM, 3), exact.LQREnvironment(exact.scalar_lqr()[0])):
        with pytest.raises(ValueError, match=r"stops them.*Pass env\.with_transition_gradients\(\)"):
            pg.pathwise_gradient(jnp.zeros((3, 1)), start, **{**kwargs, "env": env, "policy": swing})
    with pytest.raises(TypeError, match=r"^noise must be a RolloutNoise, got .* Draw it with pg\.rollout_noise"):
        pg.pathwise_gradient(GAIN, state, **{**kwargs, "noise": jnp.asarray(push)})
    with pytest.raises(ValueError, match=r"^noise\.action must start with the shape of noise\.env, and state\.step"):
        pg.pathwise_gradient(GAIN, state, **{**kwargs, "noise": given(push).replace(action=jnp.zeros((2, 3, 2)))})
    with pytest.raises(ValueError, match=r"^start_weight must have"):
        pg.pathwise_gradient(GAIN, state, **kwargs, start_weight=jnp.ones(3))
    with pytest.raises(TypeError, match=r"takes \(params, state\), in this order"):
        pg.pathwise_gradient(state, GAIN, **kwargs)
