"""Gradients through the steps of an environment: the pathwise gradient of a rollout is that of finite differences."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.envs import PooledReset, TimeLimit

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B = 12, 3
PENDULUM, PARAMS = gymnax.make("Pendulum-v1")
WEIGHTS = np.array([[0.3], [-0.5], [0.2]])
NOISE = np.random.default_rng(0).normal(size=(T, B, 1))


def policy(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(jnp.tanh(obs @ params), 0.1 + jnp.zeros((*obs.shape[:-1], 1), obs.dtype))


def earned(params: Any, env: Any) -> Any:
    """The mean return of T steps."""
    state = pg.init_rollout(jax.random.key(0), env, PARAMS, num_envs=B)
    _, window = pg.rollout(
        jax.random.key(1), params, state, policy=policy, env=env, env_params=PARAMS, num_steps=T,
        noise=jnp.asarray(NOISE),
    )  # fmt: skip
    return window.reward.sum(0).mean()


@pytest.mark.usefixtures("x64", "foreign_ranks")
@pytest.mark.parametrize(
    "wrap", [lambda env: env, lambda env: PooledReset(TimeLimit(env, 5), 2)], ids=["bare", "wrapped, with resets"]
)
def test_finding_11_with_transition_gradients_the_pathwise_gradient_is_the_true_one(wrap: Any) -> None:
    """The noise and the starts are fixed, so that central differences of the return are its gradient."""
    env = wrap(PENDULUM).with_transition_gradients()
    value_and_grad = jax.jit(jax.value_and_grad(lambda w: earned(w, env)))
    _, grad = value_and_grad(WEIGHTS)
    step = 1e-6 * np.eye(3)[:, :, None]
    expected = [(value_and_grad(WEIGHTS + e)[0] - value_and_grad(WEIGHTS - e)[0]) / 2e-6 for e in step]
    np.testing.assert_allclose(grad[:, 0], expected, rtol=1e-6)


@pytest.mark.usefixtures("foreign_ranks")
def test_finding_11_gymnax_stops_them_by_default_and_nearly_nothing_is_left() -> None:
    grad, stopped = (
        jax.jit(jax.grad(lambda w, env=env: earned(w, env)))(WEIGHTS)
        for env in (PENDULUM.with_transition_gradients(), PENDULUM)
    )
    assert np.linalg.norm(stopped) < 0.01 * np.linalg.norm(grad)


def test_an_environment_that_cannot_says_so() -> None:
    cartpole, _ = gymnax.make("CartPole-v1")
    with pytest.raises(ValueError, match="CartPole-v1 does not support transition gradients"):
        TimeLimit(cartpole, 5).with_transition_gradients()


def test_a_wrapper_stays_around_the_environment() -> None:
    env = TimeLimit(PooledReset(PENDULUM, 2), 7).with_transition_gradients()
    assert (type(env), env.max_steps, type(env.env), env.env.size) == (TimeLimit, 7, PooledReset, 2)
    assert env.env.env.transition_gradients_enabled
    assert not PENDULUM.transition_gradients_enabled
