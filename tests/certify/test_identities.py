"""Identities of the expected estimates, which certificates compute exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from certify.suite import chosen, close
from pgjax import exact

STEPS = 2
UNBIASED = (
    *("likelihood ratio", "likelihood ratio, leave-one-out", "REINFORCE", "actor-critic λ=1, wrong value"),
    *("control variate of all actions, wrong critic", "all-action, exact critic"),
)
SCALED_BY_THE_SPREAD = ("likelihood ratio, GRPO", "PPO, first step, standardised")


@functools.cache
def certificates(times, plus):
    """Of two_state with k r + c in place of each reward r, over a fixed number of steps."""
    mdp = exact.two_state()
    mdp = mdp.replace(reward=times * jnp.asarray(np.asarray(mdp.reward, float)) + plus)
    problem = exact.tabular_problem("x", mdp, params=exact.two_state_logits(), num_steps=STEPS)
    found = exact.certify_all(chosen(*UNBIASED, *SCALED_BY_THE_SPREAD), problem)
    return problem, {c.estimator: c for c in found}


def test_identity_37_on_episodes_of_one_length_constants_change_no_mean_and_units_scale_it():
    _, plain = certificates(1.0, 0.0)
    _, shifted = certificates(1.0, 3.0)
    _, scaled = certificates(5.0, 0.0)
    for name in UNBIASED:
        assert np.linalg.norm(plain[name].mean) > 0.1
        close(shifted[name].mean, plain[name].mean, atol=1e-11)
        close(scaled[name].mean, 5.0 * plain[name].mean, atol=1e-10)
    for name in SCALED_BY_THE_SPREAD:  # but for what keeps the spread from 0
        close(shifted[name].mean, plain[name].mean, atol=1e-6)
        close(scaled[name].mean, plain[name].mean, atol=1e-3)
    # A constant is in the variance of what subtracts nothing, and not of what compares trajectories.
    assert shifted["likelihood ratio"].trace > 2.0 * plain["likelihood ratio"].trace
    close(shifted["likelihood ratio, leave-one-out"].trace, plain["likelihood ratio, leave-one-out"].trace, rtol=1e-10)


def test_identity_40_where_all_rewards_are_equal_no_policy_has_a_gradient():
    problem, found = certificates(0.0, 2.5)
    close(problem.direction(), np.zeros(4), atol=1e-15)
    for name in UNBIASED:
        close(found[name].mean, np.zeros(4), atol=1e-13)
    for name in SCALED_BY_THE_SPREAD:
        assert not found[name].mean.any()
        assert found[name].trace == 0.0
    assert found["REINFORCE"].trace > 1.0  # its estimates are not zero


@pytest.mark.parametrize("num_steps", [1, 3])
def test_identity_32_a_wrong_value_at_the_cut_biases_by_its_error_discounted_times_the_scores(num_steps):
    """γ^T E[Σ_t ψ_t (v - V)(s_T)] over windows of T steps; the value of each step plays no part."""
    problem = exact.tabular_problem(
        "cut", exact.two_state(), params=exact.two_state_logits(), num_steps=num_steps, whole=False
    )
    candidate = exact.Candidate(
        "bootstrap",
        pg.reinforce,
        lambda p, t: {
            "next_value": p.erring_value(p.params, t.next_obs),
            "step_weight": pg.discount_weight(t.step, p.discount),
        },
        claim=None,
    )
    certificate = exact.certify(candidate, problem)
    batch, weights = problem.enumerated
    gap = np.asarray(problem.wrong_value - problem.state_value)[np.asarray(batch.next_obs[-1]).argmax(-1)]
    log_prob = lambda x: jnp.sum(problem.policy(x, batch.obs).log_prob(batch.action), axis=0)  # noqa: E731
    scores = np.asarray(jax.jit(jax.jacobian(log_prob))(problem.params)).reshape(len(gap), -1)
    # Of the gradient with the states of this window alone: what the truth has beyond it, no window shows.
    exactly = exact.Candidate("exact", pg.reinforce, lambda p, t: {
        "next_value": p.value(p.params, t.next_obs), "step_weight": pg.discount_weight(t.step, p.discount),
    }, claim=None)  # fmt: skip
    bias = certificate.mean - exact.certify(exactly, problem).mean
    close(bias, problem.discount**num_steps * np.asarray(weights) @ (gap[:, None] * scores), atol=1e-13)
    assert np.linalg.norm(bias) > 0.05
