"""Every estimator and every rule keeps what it claims; what claims nothing shows its bias."""

import pathlib
import re

import jax
import numpy as np
import public_surface
import pytest

import pgjax as pg
from certify.suite import (
    DEFAULT,
    EXPECTATIONS,
    LISTED,
    SEARCHES,
    certificates,
    chosen,
    close,
    problem_of,
    require_kept,
    two_state,
)
from pgjax import exact
from pgjax.estimators import Estimator
from pgjax.expectation import Rule

FLOOR = 5e-3  # the least relative error of what claims nothing
# Advantages are small beside the temperature of 1 on riverswim6: exponential weights are almost 1 + A.
SMALLER = {(name, "riverswim6"): 1e-3 for name in ("AWR, exact value", "MPO, all actions, exact critic")}
BLIND = 1e-4  # a control that comes nearer to the target tells nothing

by_default = [pytest.param(name, marks=() if name in DEFAULT else pytest.mark.slow) for name in LISTED]


def test_every_estimator_and_every_rule_of_the_library_has_a_certificate():
    estimators = {n: x for n in pg.__all__ if isinstance(x := getattr(pg, n), Estimator)}
    rules = {n: x for n in pg.expectation.__all__ if isinstance(x := getattr(pg.expectation, n), Rule)}
    assert len(estimators) >= 9
    assert len(rules) >= 9
    certified = {id(candidate.estimator) for candidate in exact.registry()}
    without = {name for name, x in (estimators | rules).items() if id(x) not in certified}
    assert not without
    names = [candidate.name for candidate in exact.registry()]
    assert len(names) == len(set(names))


# What stands in the rooms of estimators, rules, baselines and surrogates and is in no candidate, by the reason.
UNCERTIFIED = {
    "gives a part of an estimator that has a certificate, or the tools to write one": (
        *("action_distribution", "log_prob_taken", "factor_log_probs", "scores_and_slopes", "policy_gradient_loss"),
        *("ppo_objective", "episode_ratio", "masked_mean", "sequence_mean", "standardize"),
        *("expectation.nodes", "expectation.through", "expectation.control_gradient", "expectation.laws.independent"),
    ),
    "adds up to the actor-critic of the same λ over a trajectory: tests/estimators/test_traces.py": (
        *("accumulating_trace", "dutch_trace", "trace_gradient"),
    ),
    "is a number that was known before the rollout, as a constant baseline is, or is fitted on other data": (
        *("init_moving_mean", "moving_mean", "update_moving_mean", "init_value_scale", "update_value_scale"),
        *("normalize_value", "denormalize_value", "rescale_value_head"),
        *("fit_linear_baseline", "linear_baseline", "fit_optimal_baseline"),
    ),
    "changes a gradient that was estimated already": (
        *("project_to_halfspace", "scale_by_storm", "scale_by_svrpg", "hessian_vector_product"),
    ),
    "trains a critic, and is no direction of the policy": (
        *("categorical_loss", "categorical_target", "categorical_value", "project_categorical", "hl_gauss_target"),
        *("quantile_loss", "clipped_double_q", "clipped_value_loss", "value_loss", "td_target", "stochastic_duelling"),
        *("expected_soft_value", "soft_value"),
    ),
    "is a divergence, an entropy or a dual of one: identities 19, 24, 26 and 31": (
        *("kl_k1", "kl_k2", "kl_k3", "kl_penalty_loss", "kl_constraint_loss", "adapt_kl_coefficient"),
        *("softmax_temperature_loss", "temperature_loss", "entropy_loss", "soft_policy_loss"),
    ),
    "imitates the policies of others": ("policy_inference_loss",),
}


def test_whatever_estimates_or_weighs_has_a_certificate_or_a_reason_to_have_none():
    """Whatever a candidate names is run when the candidate is certified; what is listed here in vain is red too."""
    folder = pathlib.Path(pg.certify.__file__).parent / "candidates"
    certified = set().union(*(public_surface.objects_used_in(path) for path in folder.glob("*.py")))
    rooms = {"estimators", "expectation", "baselines", "losses"}
    public = {name: x for name, x in public_surface.functions().items() if public_surface.home(x) in rooms}
    without = {name for name, x in public.items() if id(x) not in certified}
    listed = [name for names in UNCERTIFIED.values() for name in names]
    assert len(listed) == len(set(listed))
    assert without == set(listed)
    for reason in UNCERTIFIED:
        for path in re.findall(r"tests/\S+\.py", reason):
            assert (pathlib.Path(__file__).parents[2] / path).exists(), path


def test_every_claim_is_tried_on_the_problems_of_the_default_tests():
    fitting = {
        c.name
        for name in (*DEFAULT, *EXPECTATIONS, *SEARCHES[:3])
        for c in exact.registry()
        if c.fits(problem_of(name))
    }
    assert fitting == {candidate.name for candidate in exact.registry()}


@pytest.mark.parametrize("name", by_default)
def test_every_estimator_keeps_its_claim_and_shows_its_bias(name):
    problem = problem_of(name)
    for estimator, certificate in certificates(name).items():
        where = f"{estimator} on {name}"
        floor = SMALLER.get((estimator, name), FLOOR)
        require_kept(certificate, floor if problem.num_steps > 1 or "wrong" not in estimator else 0.0)
        if certificate.claim == "dropped discount" and problem.discount < 1:
            assert certificate.relative_bias > FLOOR, where


@pytest.mark.parametrize("name", by_default)
def test_claims_fail_for_other_rewards_and_under_another_law(name):
    """Without this a claim that is kept might say nothing."""
    for estimator, certificate in certificates(name).items():
        if certificate.claim is None:
            continue
        if "through the environment" in estimator:  # which pays the rewards itself
            assert certificate.controls["another law"] > BLIND
        # An exact critic knows the rewards, and gives nearly the same for all trajectories.
        elif estimator == "all-action, exact critic":
            assert name != "two_state" or certificate.controls["another law"] > BLIND
        elif "all-action" in estimator:
            assert certificate.controls["another law"] > BLIND
        else:
            assert min(certificate.controls.values()) > BLIND, f"{estimator} on {name}"


def test_relax_over_trajectories_by_nodes_and_by_sampling():
    """Over one step its noise can be listed beside the trajectories; over two steps it is drawn."""
    relax = chosen("RELAX at the action taken, wrong critic", "score function at the action taken")
    listed, plain = exact.certify_all(relax, two_state(1), num_nodes=16, method="enumeration", controls=True)
    assert listed.num_trajectories == 2 * 16**4 > plain.num_trajectories
    assert listed.claim_error < 1e-5  # what 16 nodes leave
    assert listed.claim_error < 1e-3 * min(listed.controls.values())
    drawn = exact.certify(relax[0], two_state(2), num_trajectories=40_000)
    assert drawn.method == "sampling"
    assert drawn.unbiased
    assert drawn.sampling.detectable < 0.2


@pytest.mark.parametrize("name", ["two_state, other data", pytest.param("alias_discount", marks=pytest.mark.slow)])
def test_enumeration_agrees_with_the_recursion(name):
    problem = problem_of(name)
    paired = [c for c in exact.registry() if c.fits(problem) and c.pair is not None]
    for other in exact.certify_all(paired, problem, method="recursion"):
        one = certificates(name)[other.estimator]
        close(one.mean, other.mean, atol=1e-12)
        close(one.covariance, other.covariance, atol=1e-11)


def test_a_baseline_of_single_rewards_needs_episodes_of_one_length():
    """Whether a reward comes at all depends on the actions before it, and its baseline then does too."""
    problem = problem_of("alias_discount")
    assert "equal lengths" not in problem.offers
    constant, others = exact.certify_all(chosen("GPOMDP, constant baseline", "GPOMDP, leave-one-out"), problem)
    assert constant.relative_bias > FLOOR
    assert others.relative_bias < 1e-12  # a function is subtracted from returns to go, which are there at every step


def test_dropping_the_discount_points_to_the_worst_policy():
    problem = problem_of("alias_discount")
    right, wrong = exact.certify_all(chosen("REINFORCE", "REINFORCE without γ^t"), problem)
    x = float(problem.probs[0, 1])
    close(right.mean[1] / (x * (1 - x)), 0.25, rtol=1e-12)
    close(wrong.mean[1] / (x * (1 - x)), -0.5, rtol=1e-12)
    assert wrong.cosine < 0
    assert wrong.samples_for_cosine() == np.inf


def test_states_of_another_policy_point_the_wrong_way():
    # Σ_t over the two steps: twice the figure for states weighted by their share of the two.
    (certificate,) = exact.certify_all(
        chosen("V-trace, other data, no clipping, wrong value"), problem_of("alias_offpolicy, other data")
    )
    close(certificate.mean[2] / 2, -0.03125, rtol=1e-12)
    assert certificate.gradient[2] > 0


def test_float32_problems_are_certified_in_float64():
    with jax.enable_x64(False):
        problem = exact.tabular_problem("x", exact.two_state(), num_steps=2)
        found = exact.certify(pg.gpomdp, problem)
    assert found.mean.dtype == np.float64
    assert found.claim_error < 1e-14
