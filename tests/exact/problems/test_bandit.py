"""One-step problems: leave-one-out baselines by enumeration of groups, the quadratic bandit by quadrature."""

import jax
import numpy as np
import pytest

from pgjax import exact

from ..processes import close, expectation, numpy, softmax


def bandit():
    mdp, logits = exact.softmax_bandit(), np.asarray(exact.softmax_bandit_logits())
    return mdp, logits, np.asarray(mdp.reward)[0], softmax(logits)[0]


def test_the_bandit_is_a_process_of_one_step():
    mdp, logits, reward, probs = bandit()

    @jax.jit
    def truths(mdp, logits):
        pair = exact.gpomdp_pair(mdp, probs[None], baseline=(probs @ reward)[None])
        return exact.objective(mdp, probs[None]), exact.policy_gradient(mdp, logits), exact.pair_moments(mdp, pair)

    objective, gradient, moments = numpy(truths(mdp, logits))
    close(objective, probs @ reward, rtol=1e-15)
    close(gradient[0], probs * (reward - probs @ reward), atol=1e-15)
    assert exact.trajectories(mdp, probs[None])[1].shape == (3,)
    score = np.eye(3) - probs
    close(moments.covariance, expectation(score * (reward - probs @ reward)[:, None], probs)[1], atol=1e-15)


def test_a_bandit_takes_any_rewards():
    mdp = exact.softmax_bandit(np.array([3.0, -1.0]))
    close(mdp.reward, [[3.0, -1.0]])
    close(mdp.transition, np.ones((1, 2, 1)))
    assert mdp.horizon == 1
    close(mdp.discount, 1.0)


def group_estimates(size):
    """Contributions of every group, [3^N, 3], for each way to subtract something."""
    _, _, reward, probs = bandit()
    indices, weights = numpy(exact.groups(probs, size))
    score, r = (np.eye(3) - probs)[indices], reward[indices]
    mean = r.mean(1, keepdims=True)
    others = (r.sum(1, keepdims=True) - r) / (size - 1)
    subtract = {"leave one out": others, "own mean": mean, "none": 0.0 * r}
    return weights, {k: np.einsum("ni,nip->np", r - b, score) / size for k, b in subtract.items()}


@pytest.mark.parametrize("size", [2, 3, 6])
def test_leave_one_out_moments_match_all_groups(size):
    _, logits, reward, probs = bandit()
    weights, estimates = group_estimates(size)
    moments = numpy(exact.leave_one_out_moments(logits[0], reward, num_samples=size))
    mean, covariance = expectation(estimates["leave one out"], weights)
    close(moments.mean, mean, atol=1e-14)
    close(moments.covariance, covariance, atol=1e-14)
    truth = probs * (reward - probs @ reward)
    close(mean, truth, atol=1e-14)
    # The mean that includes the own sample shrinks the gradient by (N - 1) / N, a bias.
    own = expectation(estimates["own mean"], weights)[0]
    close(own, (size - 1) / size * truth, atol=1e-14)
    assert np.max(np.abs(own - truth)) > 1e-2
    close(expectation(estimates["none"], weights)[0], truth, atol=1e-14)


def test_leave_one_out_is_the_sample_covariance_and_scales_the_own_mean():
    weights, estimates = group_estimates(3)
    close(estimates["leave one out"], 1.5 * estimates["own mean"], atol=1e-15)
    assert weights.shape == (27,)


def test_leave_one_out_refuses_a_single_sample():
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        exact.leave_one_out_moments(np.zeros(3), np.ones(3), num_samples=1)
    with pytest.raises(ValueError, match="reward must have the shape of logits"):
        exact.leave_one_out_moments(np.zeros(3), np.ones(2), num_samples=2)


GRADIENT = np.array([0.8, -0.5, 0.3])
CURVATURE = np.array([[-1.0, 0.4, 0.1], [0.4, -0.7, 0.2], [0.1, 0.2, 0.5]])


def quadratic(size=2, scale=0.6):
    return exact.QuadraticBandit(1.3, GRADIENT[:size], CURVATURE[:size, :size], scale)


@jax.jit
def closed_forms(problem, baseline):
    slope = jax.grad(problem.score_function_variance)(problem.optimal_baseline)
    return {
        "objective": problem.objective,
        "log scale": problem.log_scale_gradient,
        "score": problem.score_function_variance(),
        "baseline": problem.score_function_variance(baseline),
        "best": problem.score_function_variance(problem.optimal_baseline),
        "slope at best": slope,
        "pathwise": problem.pathwise_variance,
        "antithetic": problem.antithetic_variance,
    }


@pytest.mark.parametrize("size", [1, 2, 3])
def test_quadratic_bandit_closed_forms_match_quadrature(size):
    want = numpy(closed_forms(quadratic(size), 0.7))
    nodes, weights = numpy(exact.gauss_hermite(6, (size,)))
    gradient, curvature, sigma = GRADIENT[:size], CURVATURE[:size, :size], 0.6
    payoff = lambda step: 1.3 + step @ gradient + 0.5 * np.einsum("ni,ij,nj->n", step, curvature, step)  # noqa: E731
    f, mirrored = payoff(sigma * nodes), payoff(-sigma * nodes)
    assert quadratic(size).size == size
    close(weights @ f, want["objective"], rtol=1e-13)
    up, down = (weights @ payoff(np.exp(np.log(sigma) + h) * nodes) for h in (1e-4, -1e-4))
    close(want["log scale"], (up - down) / 2e-4, rtol=1e-7)
    estimates = {
        "score": f[:, None] * nodes / sigma,
        "baseline": (f - 0.7)[:, None] * nodes / sigma,
        "pathwise": gradient + sigma * nodes @ curvature,
        "antithetic": (f - mirrored)[:, None] * nodes / (2 * sigma),
    }
    for name, estimate in estimates.items():
        mean, covariance = expectation(estimate, weights)
        close(mean, gradient, atol=1e-12, err_msg=name)
        close(want[name], np.trace(covariance), rtol=1e-11, err_msg=name)


def test_the_optimal_baseline_is_the_least_variable_and_not_the_mean():
    problem = quadratic()
    mean = float(problem.objective)
    got = numpy(closed_forms(problem, mean))
    close(got["slope at best"], 0.0, atol=1e-12)
    assert got["best"] < got["baseline"]


def test_the_score_function_explodes_at_small_noise_and_the_pathwise_gradient_does_not():
    quiet = closed_forms(quadratic(scale=1e-3), 0.0)
    assert float(quiet["score"]) > 1e6
    assert float(quiet["pathwise"]) < 1e-5


def test_bad_bandits_are_refused_by_name():
    with pytest.raises(ValueError, match=r"curvature must have shape \[D, D\] = \[2, 2\], got \[3, 3\]"):
        exact.QuadraticBandit(1.0, np.ones(2), np.eye(3), 1.0)
    with pytest.raises(ValueError, match="scale must be a scalar"):
        exact.QuadraticBandit(1.0, np.ones(2), np.eye(2), np.ones(2))
    with pytest.raises(TypeError, match="reward must have a floating dtype"):
        exact.softmax_bandit(np.array([1, 2]))
