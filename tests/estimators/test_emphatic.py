"""Emphatic weights: the mean over every trajectory of a behaviour policy is the gradient of excursions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import mean, miss, policy

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex

from .behaviour import HORIZON, of_table, other_data, timed_policy

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def stationary_data(horizon: int) -> tuple[Any, Any, Any, Any, pg.Trajectory, Any]:
    """Trajectories of the behaviour from its stationary distribution."""
    mdp, logits = tabular.problem("two_state")
    behaviour = exact.two_state_behaviour()
    visits = np.linalg.matrix_power(np.einsum("sa,sat->st", behaviour, mdp.transition), 200)[0]
    started = exact.TabularMDP(mdp.transition, mdp.reward, jnp.asarray(visits), mdp.discount)
    batch, weights = exact.trajectories(started, behaviour, horizon)
    batch = batch.replace(terminated=jnp.zeros_like(batch.terminated))  # the process goes on
    return mdp, logits, visits, behaviour, batch, np.asarray(weights)


def test_identity_11_the_emphatic_gradient_is_that_of_the_excursion_objective() -> None:
    horizon = 4
    mdp, logits, visits, _, batch, weights = stationary_data(horizon)
    gamma, probs = float(mdp.discount), np.asarray(jax.nn.softmax(logits))
    chain = np.einsum("sa,sat->st", probs, mdp.transition)

    def value(logits: Any) -> Any:
        p = jax.nn.softmax(logits)
        return jnp.linalg.solve(
            jnp.eye(2) - gamma * jnp.einsum("sa,sat->st", p, mdp.transition), (p * mdp.reward).sum(1)
        )

    truth = np.asarray(jax.jit(jax.grad(lambda x: jnp.asarray(visits) @ value(x)))(logits))
    np.testing.assert_allclose(truth[:, 0], [0.7201855951, -3.6895634767], atol=1e-9)
    q = np.asarray(mdp.reward + gamma * mdp.transition @ value(logits))
    ratio = policy(logits, batch.obs).log_prob(batch.action) - batch.log_prob
    no = jnp.zeros_like(batch.terminated)
    critic = pg.bind(of_table, jnp.asarray(q))

    def of_last_row(lam: float) -> np.ndarray:
        weight = pg.emphatic_weight(ratio, terminated=no, truncated=no, discount=gamma, lam=lam)
        last = weight * (batch.step == horizon - 1) * jnp.exp(ratio)  # the ratio of the action itself
        grads, _ = pg.control_variate.per_trajectory(
            logits, batch, policy=policy, advantage=critic(batch.obs, batch.action), critic=critic, rule=ex.enumerated,
            coefficient=0.0, step_weight=last,
        )  # fmt: skip
        return -mean(grads, weights)

    # What the trace of a window of four steps lacks is known: m - Σ_{k<4} (γ P^T)^k d = (γ P^T)^4 m.
    m = np.linalg.solve(np.eye(2) - gamma * chain.T, visits)
    np.testing.assert_allclose(m, [4.3435807274, 5.6564192726], atol=1e-9)
    lacking = np.linalg.matrix_power(gamma * chain.T, horizon) @ m
    slope = probs * (q - (probs * q).sum(1, keepdims=True))
    close(of_last_row(1.0) + lacking[:, None] * slope, truth)
    # Without emphasis: the semi-gradient, which is the gradient of nothing.
    semi = of_last_row(0.0)
    np.testing.assert_allclose(semi[:, 0], [0.0800435922, -0.3373856869], atol=1e-9)
    assert np.abs(semi - truth).max() > 0.5


def test_interest_in_the_start_alone_makes_other_data_unbiased_for_the_discounted_objective() -> None:
    mdp, logits, batch, weights = other_data()
    truth = tabular.gradient(mdp, logits, HORIZON)
    ratio = timed_policy(logits, batch.obs).log_prob(batch.action) - batch.log_prob
    ends = {"terminated": batch.terminated, "truncated": batch.truncated, "discount": mdp.discount}
    start = (batch.step == 0).astype(ratio.dtype)
    params = {"actor": logits, "critic": jnp.array([0.7, -1.3, 0.2])}
    grads = {}
    for name, interest in (("start", start), ("everywhere", 1.0)):
        grads[name] = pg.vtrace_actor_critic.per_trajectory(
            params, batch, policy=lambda p, obs: timed_policy(p["actor"], obs), discount=mdp.discount,
            value=lambda p, obs: obs @ p["critic"], clip_rho=1e6, clip_c=1e6, clip_pg_rho=1e6, value_coef=0.0,
            step_weight=pg.emphatic_weight(ratio, interest=interest, **ends),
        )[0]["actor"]  # fmt: skip
    assert miss(grads["start"], weights, truth) < 1e-12

    # Interest everywhere: the gradient of the sum over time of the values to come, in the states that were visited.
    def excursions(logits: Any) -> Any:
        values = tabular.values_over_time(mdp, logits, HORIZON)
        behaviour = exact.two_state_behaviour()
        states, total = mdp.initial, 0.0
        for t in range(HORIZON):
            total = total + states @ values[t]
            states = states @ jnp.einsum("sa,sat->st", behaviour, mdp.transition)
        return total

    assert miss(grads["everywhere"], weights, jax.jit(jax.grad(excursions))(logits)) < 1e-12
    assert miss(grads["everywhere"], weights, truth) > 0.1
