"""Soft Q-learning and the policy gradient with entropy are one: Schulman, Chen and Abbeel (2017)."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact

from ..processes import close, garnet, numpy, softmax

TAU = 0.4  # reward units per nat


@jax.jit
def gradients(mdp, params, reference, sampled):
    """Of the squared error of Q = V + τ (log π - log ref), on policy; of the soft objective; of V's squared error.

    `sampled` are the logits of the policy that visits states and draws actions.
    """
    log_reference = jnp.log(reference)

    def soft(logits):
        """The process that pays r - τ log(π / ref)."""
        log_probs = jax.nn.log_softmax(logits)
        return replace(mdp, reward=mdp.reward - TAU * (log_probs - log_reference)), jnp.exp(log_probs)

    process, probs = soft(sampled)
    true_value = exact.value(process, probs)
    # Of the first action the reward alone: what it costs to prefer it is not part of Q.
    target = exact.action_value(process, probs) + TAU * (jnp.log(probs) - log_reference)
    visits = exact.visitation(process, probs)

    def soft_q_loss(params):
        q = params["value"][:, None] + TAU * (jax.nn.log_softmax(params["logits"]) - log_reference)
        return jnp.sum(visits[:, None] * probs * pg.value_loss(q, target))

    return {
        "soft Q": jax.grad(soft_q_loss)(params),
        "objective": jax.grad(lambda logits: exact.objective(*soft(logits)))(params["logits"]),
        "value": jax.grad(lambda v: jnp.sum(visits * pg.value_loss(v, true_value)))(params["value"]),
        "unregularised": exact.policy_gradient(mdp, params["logits"]),
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_identity_25_soft_q_learning_is_the_policy_gradient_with_entropy(seed):
    """∇ E ½(Q - y)² = -τ ∇J_soft + ∇ E ½(V - V_soft)², in a whole process, the critic anywhere."""
    mdp, logits, _ = garnet(seed)
    random = np.random.default_rng(seed)
    reference = softmax(random.normal(size=logits.shape))
    params = {"logits": logits, "value": random.normal(size=len(logits))}
    got = numpy(gradients(mdp, params, reference, logits))
    close(got["soft Q"]["logits"], -TAU * got["objective"], rtol=1e-11, atol=1e-13)
    close(got["soft Q"]["value"], got["value"], rtol=1e-11, atol=1e-13)
    assert np.abs(got["objective"] - got["unregularised"]).max() > 1e-2  # the entropy of later steps counts
    # Not so for the actions of another policy.
    other = numpy(gradients(mdp, params, reference, logits + random.normal(size=logits.shape)))
    assert np.abs(other["soft Q"]["logits"] + TAU * other["objective"]).max() > 1e-2
