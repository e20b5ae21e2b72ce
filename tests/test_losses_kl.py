"""Estimates of a divergence from single actions: their expectations, and those of their gradients, by enumeration."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, policy

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
LOGITS, REF = np.array([0.3, -1.0, 0.8, 0.1]), np.array([-0.5, 0.4, 0.2, 0.9])


def divergence(p: Any, q: Any) -> Any:
    return jnp.sum(p * (jnp.log(p) - jnp.log(q)))


def test_identity_19_gradients_of_k1_k2_and_k3_are_zero_the_reverse_and_the_forward_divergence() -> None:
    logits, ref = jnp.asarray(LOGITS), jax.nn.log_softmax(jnp.asarray(REF))
    probs = np.asarray(jax.nn.softmax(logits))
    reverse, reverse_grad = jax.value_and_grad(lambda x: divergence(jax.nn.softmax(x), jnp.exp(ref)))(logits)
    forward_grad = jax.grad(lambda x: divergence(jnp.exp(ref), jax.nn.softmax(x)))(logits)
    gap = np.log(probs) - np.asarray(ref)
    values = {"k1": reverse, "k2": 0.5 * probs @ gap**2, "k3": reverse}
    grads = {"k1": np.zeros(4), "k2": reverse_grad, "k3": forward_grad}
    for name, loss in (("k1", pg.kl_k1), ("k2", pg.kl_k2), ("k3", pg.kl_k3)):
        of_actions = lambda x, loss=loss: loss(jax.nn.log_softmax(x), ref)  # noqa: E731
        each, rows = of_actions(logits), jax.jit(jax.jacrev(of_actions))(logits)  # row a: the gradient at the action a
        close(probs @ each, values[name])
        close(probs @ rows, grads[name])
        # As a constant in the reward k1 gives the reverse divergence; k3 only together with its own gradient.
        scores = jax.jit(jax.jacrev(jax.nn.log_softmax))(logits)
        in_reward = probs @ (np.asarray(each)[:, None] * scores)
        if name != "k2":
            close(in_reward + probs @ rows, reverse_grad)
        if name != "k1":
            assert np.abs(in_reward - reverse_grad).max() > 0.01
    close(probs @ jax.jit(jax.jacrev(lambda x: -jax.nn.log_softmax(x)))(logits), 0.0)
    assert np.abs(np.asarray(reverse_grad) - forward_grad).max() > 0.01
    assert np.abs(reverse_grad).max() > 0.1


def test_k1_in_the_reward_gives_the_divergence_of_whole_trajectories_and_k2_as_a_loss_its_local_part() -> None:
    horizon, beta = 3, 0.7
    mdp, logits, batch, weights = every_trajectory("two_state", horizon)
    ref = jnp.array([[0.9, -0.1], [-0.8, 0.3]])
    log_ref = policy(ref, batch.obs).log_prob(batch.action)

    def exactly(logits: Any, beta: float) -> Any:
        probs, value = jax.nn.softmax(logits), jnp.zeros(2)
        gap = jax.nn.log_softmax(logits) - jax.nn.log_softmax(ref)
        for _ in range(horizon):
            value = jnp.sum(probs * (mdp.reward - beta * gap + mdp.discount * mdp.transition @ value), axis=1)
        return mdp.initial @ value

    wanted = jax.jit(jax.grad(exactly))(logits, beta)
    penalised = batch.replace(reward=batch.reward - beta * pg.kl_k1(batch.log_prob, log_ref))
    found, _ = pg.gpomdp.per_trajectory(logits, penalised, policy=policy, discount=mdp.discount)
    assert tabular.miss(found, weights, wanted) < 1e-12

    @jax.jit
    def local(logits: Any) -> Any:
        share = tabular.weight(batch, mdp) * weights[None]
        return jnp.sum(share * pg.kl_k2(policy(logits, batch.obs).log_prob(batch.action), log_ref))

    plain = tabular.gradient(mdp, logits, horizon)
    got = plain - beta * jax.jit(jax.grad(local))(logits)
    # What is missing is how earlier actions lead to states where the two policies differ.
    per_state = jnp.sum(jax.nn.softmax(logits) * (jax.nn.log_softmax(logits) - jax.nn.log_softmax(ref)), 1)
    through_states = jax.grad(
        lambda x: tabular.objective(mdp.replace(reward=per_state[:, None] * jnp.ones((2, 2))), x, horizon)
    )
    close(got - wanted, beta * through_states(logits))
    assert np.abs(got - wanted).max() > 1e-3


def test_k3_keeps_its_digits_near_the_reference_and_is_finite_far_from_it() -> None:
    x = np.array([1e-6, -1e-5, 0.009, -0.011, 0.3, -2.0, 5.0])
    wanted = np.array(
        [0.5 * v * v * (1 + v / 3 + v * v / 12 + v**3 / 60) if abs(v) < 0.02 else np.expm1(v) - v for v in x]
    )
    zeros = jnp.zeros(7)
    np.testing.assert_allclose(pg.kl_k3(zeros, jnp.asarray(x)), wanted, rtol=1e-9)
    np.testing.assert_allclose(pg.kl_k3(zeros.astype(jnp.float32), jnp.asarray(x, jnp.float32)), wanted, rtol=1e-4)
    close(pg.diagnostics.approximate_kl(jnp.asarray(x)), np.mean(wanted), rtol=1e-9)
    far = jnp.array([1e4, -1e4, 1e30, -1e30], jnp.float32)
    value, slope = jax.value_and_grad(lambda y: pg.kl_k3(-y, jnp.zeros(4, jnp.float32)).sum() / 1e20)(far)
    assert np.isfinite(value)
    np.testing.assert_allclose(slope * 1e20, [0.0, -1.0, 0.0, -1.0], rtol=1e-6)


def test_what_is_no_log_probability_is_refused_by_name() -> None:
    for loss in (pg.kl_k1, pg.kl_k2, pg.kl_k3):
        with pytest.raises(TypeError, match=r"^log_prob must have a floating dtype"):
            loss(jnp.zeros(3, int), jnp.zeros(3))
        with pytest.raises(ValueError, match=r"^ref_log_prob must have the shape of log_prob"):
            loss(jnp.zeros((3, 2)), jnp.zeros(3))


def test_the_rule_that_adapts_the_weight_follows_a_sequence_worked_by_hand() -> None:
    """d_targ = 0.02: halved below 0.01333, doubled above 0.03, kept between and on both bounds."""
    divergences = (0.05, 0.031, 0.03, 0.02, 0.0134, 0.0133, 0.0, 0.01)
    weights = (2.0, 4.0, 4.0, 4.0, 4.0, 2.0, 1.0, 0.5)
    coefficient = 1.0
    for d, weight in zip(divergences, weights, strict=True):
        coefficient = pg.adapt_kl_coefficient(coefficient, d, target=0.02)
        assert float(coefficient) == weight
    wide = {"target": 0.02, "factor": 3.0, "tolerance": 3.0}
    after = pg.adapt_kl_coefficient(jnp.full(4, 3.0), jnp.array([0.1, 0.05, 0.01, 0.001]), **wide)
    np.testing.assert_array_equal(after, [9.0, 3.0, 3.0, 1.0])


def test_a_weight_neither_dies_nor_overflows_and_zero_stays_zero() -> None:
    low, high = jnp.float32(1.0), jnp.float32(1.0)
    for _ in range(300):
        low = pg.adapt_kl_coefficient(low, 0.0, target=0.01)
        high = pg.adapt_kl_coefficient(high, 1.0, target=0.01)
    np.testing.assert_allclose([low, high], [1e-8, 1e8], rtol=1e-6)
    assert float(pg.adapt_kl_coefficient(low, 1.0, target=0.01)) > 1.9e-8
    assert float(pg.adapt_kl_coefficient(0.0, 1.0, target=0.01)) == 0.0
    assert float(pg.adapt_kl_coefficient(3.0, jnp.nan, target=0.01)) == 3.0
