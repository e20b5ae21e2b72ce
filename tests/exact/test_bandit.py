"""One-step problems: leave-one-out baselines by enumeration of groups, the quadratic bandit by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .test_mdp import close


def bandit():
    mdp, logits = exact.softmax_bandit(), exact.softmax_bandit_logits()
    return mdp, logits, mdp.reward[0], jax.nn.softmax(logits[0])


def test_the_bandit_is_a_process_of_one_step():
    mdp, logits, reward, probs = bandit()
    close(exact.objective(mdp, probs[None]), probs @ reward, rtol=1e-15)
    close(exact.policy_gradient(mdp, logits)[0], probs * (reward - probs @ reward), atol=1e-15)
    assert exact.trajectories(mdp, probs[None])[1].shape == (3,)
    pair = exact.gpomdp_pair(mdp, probs[None], baseline=(probs @ reward)[None])
    score = jnp.eye(3) - probs[None]
    each = score * (reward - probs @ reward)[:, None]
    close(exact.pair_moments(mdp, pair).covariance, exact.weighted_moments(each, probs)[1], atol=1e-15)


def group_estimates(size):
    """Contributions of every group, [3^N, 3], for each way to subtract something."""
    _, _, reward, probs = bandit()
    indices, weights = exact.groups(probs, size)
    score, r = (jnp.eye(3) - probs[None])[indices], reward[indices]
    mean = r.mean(1, keepdims=True)
    others = (r.sum(1, keepdims=True) - r) / (size - 1)
    subtract = {"leave one out": others, "own mean": mean, "none": 0.0 * r}
    return weights, {k: jnp.einsum("ni,nip->np", r - b, score) / size for k, b in subtract.items()}


@pytest.mark.parametrize("size", [2, 3, 6])
def test_leave_one_out_moments_match_all_groups(size):
    mdp, logits, reward, _ = bandit()
    weights, estimates = group_estimates(size)
    moments = exact.leave_one_out_moments(logits[0], reward, num_samples=size)
    mean, covariance = exact.weighted_moments(estimates["leave one out"], weights)
    close(moments.mean, mean, atol=1e-14)
    close(moments.covariance, covariance, atol=1e-14)
    truth = exact.policy_gradient(mdp, logits)[0]
    close(mean, truth, atol=1e-14)
    # The mean that includes the own sample shrinks the gradient by (N - 1) / N, a bias.
    own = exact.weighted_moments(estimates["own mean"], weights)[0]
    close(own, (size - 1) / size * truth, atol=1e-14)
    assert float(jnp.max(jnp.abs(own - truth))) > 1e-2
    close(exact.weighted_moments(estimates["none"], weights)[0], truth, atol=1e-14)


def test_leave_one_out_is_the_sample_covariance_and_scales_the_own_mean():
    weights, estimates = group_estimates(3)
    close(estimates["leave one out"], 1.5 * estimates["own mean"], atol=1e-15)
    assert weights.shape == (27,)


def test_leave_one_out_refuses_a_single_sample():
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        exact.leave_one_out_moments(jnp.zeros(3), jnp.ones(3), num_samples=1)
    with pytest.raises(ValueError, match="reward must have the shape of logits"):
        exact.leave_one_out_moments(jnp.zeros(3), jnp.ones(2), num_samples=2)


def quadratic(size=2):
    curvature = np.array([[-1.0, 0.4, 0.1], [0.4, -0.7, 0.2], [0.1, 0.2, 0.5]])[:size, :size]
    return exact.QuadraticBandit(1.3, jnp.array([0.8, -0.5, 0.3])[:size], jnp.asarray(curvature), 0.6)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_quadratic_bandit_closed_forms_match_quadrature(size):
    problem = quadratic(size)
    nodes, weights = exact.gauss_hermite(6, (size,))
    sigma = 0.6

    def payoff(step):
        return problem.value + problem.gradient @ step + 0.5 * step @ problem.curvature @ step

    f = jax.vmap(payoff)(sigma * nodes)
    close(weights @ f, problem.objective, rtol=1e-13)
    slope = jax.grad(lambda s: weights @ jax.vmap(payoff)(jnp.exp(s) * nodes))(jnp.log(sigma))
    close(problem.log_scale_gradient, slope, rtol=1e-12)
    mirrored = jax.vmap(payoff)(-sigma * nodes)
    estimates = {
        "score": (f[:, None] * nodes / sigma, problem.score_function_variance()),
        "baseline": ((f - 0.7)[:, None] * nodes / sigma, problem.score_function_variance(0.7)),
        "pathwise": (jax.vmap(jax.grad(payoff))(sigma * nodes), problem.pathwise_variance),
        "antithetic": ((f - mirrored)[:, None] * nodes / (2 * sigma), problem.antithetic_variance),
    }
    for name, (estimate, variance) in estimates.items():
        mean, covariance = exact.weighted_moments(estimate, weights)
        close(mean, problem.gradient, atol=1e-12, err_msg=name)
        close(jnp.trace(covariance), variance, rtol=1e-11, err_msg=name)


def test_the_optimal_baseline_is_the_least_variable_and_not_the_mean():
    problem = quadratic()
    best = problem.optimal_baseline
    close(jax.grad(problem.score_function_variance)(best), 0.0, atol=1e-12)
    assert float(problem.score_function_variance(best)) < float(problem.score_function_variance(problem.objective))


def test_the_score_function_explodes_at_small_noise_and_the_pathwise_gradient_does_not():
    quiet = exact.QuadraticBandit(1.3, quadratic().gradient, quadratic().curvature, 1e-3)
    assert float(quiet.score_function_variance()) > 1e6
    assert float(quiet.pathwise_variance) < 1e-5


def test_bad_bandits_are_refused_by_name():
    with pytest.raises(ValueError, match=r"curvature must have shape \[D, D\] = \[2, 2\], got \[3, 3\]"):
        exact.QuadraticBandit(1.0, jnp.ones(2), jnp.eye(3), 1.0)
    with pytest.raises(ValueError, match="scale must be a scalar"):
        exact.QuadraticBandit(1.0, jnp.ones(2), jnp.eye(2), jnp.ones(2))
    with pytest.raises(TypeError, match="reward must have a floating dtype"):
        exact.softmax_bandit(jnp.array([1, 2]))
