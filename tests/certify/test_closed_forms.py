"""Certificates against what is known in closed form, to every printed digit."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg
from certify.suite import brute_force_split, chosen, close, problem_of, two_state
from pgjax import exact

PRINTED = 5.1e-9  # half a unit of the eighth decimal


def test_two_state_over_two_and_three_steps():
    (certificate,) = exact.certify_all(chosen("REINFORCE"), two_state(2))
    close(certificate.mean[::2], [0.3230247740, -0.2003645235], atol=5.1e-11)
    close(certificate.trace, 1.3595033013, atol=PRINTED)
    mdp = exact.two_state().replace(horizon=3)
    scalar = exact.optimal_return_baseline(mdp, jax.nn.softmax(exact.two_state_logits()))
    best = exact.Candidate("best scalar", pg.likelihood_ratio, lambda p, t: {"baseline": scalar})
    estimators = [*chosen("likelihood ratio", "GPOMDP", "REINFORCE without γ^t"), best]
    total, gpomdp, dropped, least = exact.certify_all(estimators, two_state(3))
    close([x.trace for x in (total, gpomdp, least)], [7.37893277, 3.99767005, 2.19553665], rtol=1e-8)
    close(gpomdp.mean[::2], [0.3768485223, -0.4556517372], atol=5.1e-11)
    close(dropped.mean[::2], [0.4112766421, -0.5366794263], atol=5.1e-11)
    close(dropped.trace, 4.52398561, atol=PRINTED)
    assert total.num_trajectories == 32


def test_two_state_over_five_steps():
    (certificate,) = exact.certify_all(chosen("REINFORCE"), two_state(5))
    close(certificate.mean[::2], [0.4630769564, -0.9547680459], atol=5.1e-11)
    close(certificate.trace, 12.9457397947, atol=PRINTED)
    assert certificate.num_trajectories == 512


@functools.cache
def endless():
    return two_state()


def test_two_state_without_end():
    problem = endless()
    value = problem.state_value
    wrong = value + jnp.array([0.7, -0.4])
    candidate = lambda pair: exact.Candidate("x", pg.actor_critic, pair=pair)  # noqa: E731
    reward_to_go = lambda b: candidate(lambda p: exact.gpomdp_pair(p.mdp, p.probs, baseline=b))  # noqa: E731
    gae = lambda v, lam: candidate(lambda p: exact.gae_pair(p.mdp, p.probs, v, lam=lam))  # noqa: E731
    best = [f(problem.mdp, problem.probs) for f in (exact.per_step_optimal_baseline, exact.trajectory_optimal_baseline)]
    want = [
        (reward_to_go(None), 0.0, 179.43515968),
        (reward_to_go(value), 0.0, 12.94212681),
        (reward_to_go(best[0]), 0.0, 13.42977662),
        (reward_to_go(best[1]), 0.0, 12.85367868),
        (gae(value, 0.0), 0.0, 1.65898467),
        (gae(value, 0.5), 0.0, 2.40652567),
        (gae(value, 0.95), 0.0, 8.84405355),
        (gae(value, 1.0), 0.0, 12.94212681),
        (gae(wrong, 0.0), 1.35457250, 2.08924243),
        (gae(wrong, 0.5), 0.81061096, 2.79805405),
        (gae(wrong, 0.9), 0.19242558, 7.26552249),
        (gae(wrong, 1.0), 0.0, 13.80279448),
    ]
    found = exact.certify_all([candidate for candidate, _, _ in want], problem)
    for certificate, (_, bias, trace) in zip(found, want, strict=True):
        assert certificate.method == "recursion"
        assert certificate.num_trajectories == 0
        assert certificate.depends_on_others is None
        close(certificate.bias_norm, bias, atol=PRINTED)
        close(certificate.trace, trace, atol=PRINTED)
        assert certificate.unbiased == (bias == 0.0)
    close(found[0].gradient[::2], [0.8479865392, -3.1867916630], atol=5.1e-11)
    close(found[0].objective, 7.7569552737, atol=5.1e-11)
    assert "by the recursion for endless trajectories" in str(found[0])


def test_riverswim_without_end():
    problem = exact.tabular_problem("riverswim6", exact.riverswim6())
    plain, with_value = exact.certify_all(chosen("REINFORCE", "REINFORCE, value baseline"), problem)
    close([plain.trace, with_value.trace], [0.24772894, 0.20027996], atol=PRINTED)
    close(np.linalg.norm(plain.gradient), 0.0364509024, atol=5.1e-11)


def test_infinite_variance_is_reported_as_such():
    (dropped,) = exact.certify_all(chosen("REINFORCE without γ^t"), endless())
    off = exact.certify(
        chosen("V-trace, other data, no clipping, wrong value")[0], two_state(behaviour=exact.two_state_behaviour())
    )
    for certificate in (dropped, off):
        assert certificate.trace == math.inf
        assert certificate.samples_for_cosine() == math.inf
        assert (certificate.spectrum == math.inf).all()
    assert not dropped.unbiased
    assert "not finite" in str(dropped)
    assert off.unbiased
    assert "The variance is infinite." in str(off)
    assert json.loads(json.dumps(off.as_dict(), allow_nan=False))["trace"] == "inf"


def test_linear_quadratic_moments_by_quadrature():
    problem = problem_of("scalar_lqr")
    found = exact.certify_all(chosen("likelihood ratio", "REINFORCE"), problem, method="enumeration")
    closed = [f(problem.lqr, problem.params) for f in (exact.lqr_reinforce_moments, exact.lqr_gpomdp_moments)]
    for certificate, moments in zip(found, closed, strict=True):
        close(certificate.mean, moments.mean.ravel(), rtol=1e-11)
        close(certificate.covariance, moments.covariance, rtol=1e-11)


def test_linear_quadratic_moments_by_sampling():
    five = exact.lqr_problem("five steps", *exact.scalar_lqr())
    total, to_go = exact.certify_all(chosen("likelihood ratio", "REINFORCE"), five)
    close(five.objective, -3.2484156577, atol=5.1e-11)
    close(total.gradient, [2.436138911658], atol=5.1e-13)
    for certificate, trace in ((total, 476.1098564665), (to_go, 262.3766239932)):
        assert certificate.method == "sampling"
        assert certificate.num_trajectories == certificate.sampling.num_estimates >= 100_000
        assert certificate.unbiased
        assert certificate.sampling.trace_error < 0.05 * trace
        assert abs(certificate.trace - trace) < 5 * certificate.sampling.trace_error


def test_the_split_of_the_variance():
    bandit = problem_of("softmax_bandit")
    (certificate,) = exact.certify_all(chosen("REINFORCE"), bandit, terms=True)
    window = bandit.mdp.replace(horizon=1)
    closed = exact.variance_split(window, exact.gpomdp_pair(window, bandit.probs, score=bandit.score))
    terms = certificate.terms
    close([terms.state, terms.action, terms.trajectory], [closed.state, closed.action, closed.trajectory], atol=1e-14)
    problem = two_state(2)
    names = ["REINFORCE", "REINFORCE, value baseline", "REINFORCE, leave-one-out"]
    found = exact.certify_all(chosen(*names), problem, terms=True)
    for one in found:
        close(sum(vars(one.terms).values()), one.trace, rtol=1e-12)
    # A baseline acts on the action term alone, and the exact value leaves there what no baseline could remove.
    plain, with_value, pairs = found
    close(plain.terms.state, with_value.terms.state, atol=1e-13)
    assert with_value.terms.action < plain.terms.action
    close([plain.terms.state, plain.terms.action, plain.terms.trajectory], brute_force_split(problem), atol=1e-13)
    # With another trajectory's return as the baseline, of a group of two: the state term is that without a baseline.
    close(pairs.terms.state, plain.terms.state, atol=1e-13)
    assert pairs.terms.trajectory > plain.terms.trajectory
