"""A printed certificate answers whether the gradient is right, and says what it is if not."""

import functools

import numpy as np
import pytest

import pgjax as pg
from certify.suite import as_certificate, chosen, problem_of, two_state, with_fault
from pgjax import exact

# What a mean is said to be, by the fault of the estimator.
SAID = {
    "": "the gradient is right",
    "wrong sign": "points the opposite way: it is minus the gradient of the discounted objective",
    "without γ^t": "is the gradient without γ^t",
    "γ^t twice": "is the gradient with γ^t counted twice",
    "undiscounted returns": "is the gradient with γ^t but with undiscounted returns",
    "rewards": "is the gradient of the reward of each step, without those that follow",
    "mean over time": "is 0.3333 times the gradient of the discounted objective (1/3, as where a mean over the 3 steps",
    "own baseline": "is 0.5 times the gradient of the discounted objective",
    "action baseline": "no multiple of a direction that is known here",
    "off by one": "no multiple of a direction that is known here",
}
ADVICE = {
    "wrong sign": "gradient of minus the objective, which is minimised",
    "without γ^t": "pg.discount_weight(trajectory.step, discount)",
    "γ^t twice": "need no step_weight",
    "undiscounted returns": "Discount the returns as well",
    "rewards": "returns in place of rewards",
}


def constant_value(params, obs):
    return 0.0 * obs[..., 0] + 0.7


@functools.cache
def by_fault(method="enumeration"):
    # The value is a constant, so that faults in what follows are not mended by a bootstrap.
    candidates = [with_fault(fault, value=constant_value) for fault in SAID]
    found = exact.certify_all(candidates, two_state(3), method=method, num_trajectories=200_000)
    return dict(zip(SAID, found, strict=True))


@pytest.mark.parametrize("fault", SAID)
def test_a_certificate_says_what_the_mean_is(fault):
    certificate = by_fault()[fault]
    text = str(certificate)
    assert SAID[fault] in text
    assert ADVICE.get(fault, "") in text
    assert certificate.unbiased == (fault == "")
    assert ("the gradient is wrong" in text.splitlines()[0]) == (fault != "")
    assert len(text.splitlines()) <= 5
    assert all(len(line) < 400 for line in text.splitlines())


def test_mutants_are_rejected_by_sampling_too_and_named():
    for fault, certificate in by_fault("sampling").items():
        assert certificate.unbiased == (fault == ""), fault
        assert certificate.relative_bias > 0.02 or fault == ""
        first, second, *_ = str(certificate).splitlines()
        if fault == "":
            assert "no bias shows in the sample" in first
            assert "would have shown with probability 0.9" in second
        else:
            assert SAID[fault] in second.replace(" within the noise of the sample", "") or fault in (
                "mean over time", "own baseline",
            ), (fault, second)  # fmt: skip
            assert "within the noise of the sample" in second or "no multiple" in second
    assert "0.33" in str(by_fault("sampling")["mean over time"])


def test_truncation_taken_for_termination_is_named():
    candidates = [with_fault(fault) for fault in ("truncation taken for termination", "")]
    cut, right = exact.certify_all(candidates, problem_of("two_state, cut"))
    assert right.unbiased
    assert not cut.unbiased
    assert "is the gradient of the return up to where the trajectory is cut" in str(cut)
    assert "treat only terminated steps as terminal" in str(cut)


def test_a_baseline_that_sees_its_own_sample_is_described():
    with pytest.raises(ValueError, match="depends on the other trajectories of the batch"):
        exact.certify(exact.Candidate("own", pg.gpomdp, lambda p, t: {"baseline": pg.batch_mean}), two_state(2))
    found = exact.certify(
        exact.Candidate("own", pg.gpomdp, lambda p, t: {"baseline": pg.batch_mean}), two_state(2), group_size=2
    )
    text = str(found)
    assert "own on two_state: the gradient is wrong." in text
    assert "is 0.5 times the gradient" in text
    assert "(1 - 1/2, as where a baseline contains the trajectory's own return)" in text
    assert "depends on the other trajectories of the batch: the figures are for groups of 2 (group_size)" in text


def test_a_control_variate_that_is_not_corrected_is_described():
    """φ is subtracted from the advantage, and its expectation is not added again."""
    problem = two_state(2)

    @pg.estimator
    def uncorrected(params, trajectory, *, policy, discount, critic):
        t = trajectory
        returns = pg.discounted_returns(t.reward, terminated=t.terminated, truncated=t.truncated, discount=discount)
        weight = (returns - critic(t.obs, t.action)) * pg.discount_weight(t.step, discount)

        def loss(params, trajectory, weight, state):
            log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
            return pg.policy_gradient_loss(log_prob, weight)

        return pg.Surrogate(loss, weight)

    wrong = exact.Candidate("uncorrected", uncorrected, lambda p, t: {"critic": p.erring_critic})
    found, corrected = exact.certify_all([wrong, *chosen("control variate of all actions, wrong critic")], problem)
    text = str(found)
    assert "the gradient is wrong" in text
    assert f"The bias is {100 * found.relative_bias:.3g} % of the length of the gradient" in text
    assert f"the cosine {found.cosine:.4g}" in text
    assert corrected.unbiased
    assert "control variate of all actions, wrong critic on two_state: the gradient is right." in str(corrected)


def test_a_stopped_loss_and_a_transposed_gradient_are_described():
    gradient, covariance = np.array([1.0, 2.0, 3.0, 5.0]), 0.1 * np.eye(4)
    turned = gradient.reshape(2, 2).T.ravel()
    known = {"discounted": gradient, "transposed": turned}
    text = str(as_certificate(0 * gradient, 0 * covariance, gradient, known=known))
    assert "The expected estimate is zero, the gradient of the discounted objective is not." in text
    text = str(as_certificate(turned, covariance, gradient, known=known))
    assert "is the gradient with the axes of a parameter exchanged" in text
    text = str(as_certificate([np.nan, 1, 1, 1], covariance, gradient, known=known))
    assert "the gradient is wrong" in text
    assert "not finite" in text
    text = str(as_certificate(-turned[::-1], covariance, gradient, known=known))
    assert "points away from the gradient of the discounted objective" in text
    assert "no number of them keeps a cosine of 0.9" in text
    (known_here,) = exact.certify_all([pg.gpomdp], two_state(1))
    assert "transposed" in known_here.known


def test_a_claim_of_another_direction_is_no_error():
    (found,) = exact.certify_all(chosen("REINFORCE without γ^t"), two_state(3))
    first, second, *_ = str(found).splitlines()
    assert first.endswith("the claim holds, but it is not the gradient of the discounted objective.")
    assert "is the gradient without γ^t. The bias is 14.9 %" in second
    assert "discount_weight" not in second


def test_certificates_are_compared():
    found = exact.certify_all(chosen("likelihood ratio", "GPOMDP", "REINFORCE without γ^t"), two_state(3))
    total, gpomdp, dropped = found
    assert total.best.estimator == "GPOMDP"
    assert gpomdp.best is None
    # 7.37893277 and 3.99767005 in closed form.
    sentence = "likelihood ratio needs 1.85 times the trajectories of GPOMDP for the same variance."
    assert total.compare(gpomdp) == sentence
    assert sentence in str(total)
    ratio = dropped.samples_for_cosine() / gpomdp.samples_for_cosine()
    assert dropped.compare(gpomdp).startswith(
        f"REINFORCE without γ^t needs {ratio:.3g} times the trajectories of GPOMDP"
    )
    assert dropped.compare(gpomdp).endswith("for a cosine of 0.9 to the gradient.")
    table, needed = str(found).splitlines(), f"{total.samples_for_cosine():.3g}"
    assert table[0].split() == ["estimator", "the", "mean", "is", "bias", "cosine", "variance", "n", "for", "0.9"]
    assert table[1].split() == ["likelihood", "ratio", "the", "gradient", "0", "1", "7.38", needed]
    assert table[3].split()[:5] == ["REINFORCE", "without", "γ^t", "dropped", "discount"]
    assert sentence in table
    worst = as_certificate([-1.0, 0.0], np.eye(2), [1.0, 0.0])
    best = as_certificate([1.0, 0.0], np.eye(2), [1.0, 0.0])
    assert worst.compare(best) == "x cannot reach a cosine of 0.9 to the gradient, however many trajectories there are."
    exactly = as_certificate([1.0, 0.0], np.zeros((2, 2)), [1.0, 0.0], estimator="exact")
    assert best.compare(exactly) == "exact has no variance, x has."
    with pytest.raises(ValueError, match="other must be about problem 'y', got 'two_state'"):
        best.compare(total)
    assert isinstance(found, tuple)


def test_costs_and_splits_are_said_if_they_were_asked_for():
    (found,) = exact.certify_all([pg.gpomdp], problem_of("softmax_bandit"), terms=True, cost_batch=4)
    text = str(found)
    assert "Of the variance 0 % come from the states, " in text
    assert "µs for a trajectory in a batch of 4" in text
    assert "from the states" not in str(exact.certify(pg.gpomdp, problem_of("softmax_bandit")))
