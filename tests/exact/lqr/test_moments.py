"""Exact moments of gradient estimators on linear systems, against quadrature."""

import jax
import numpy as np
import pytest
from known_answers import PRINTED, SCALAR_LQR

from pgjax import exact

from ..processes import close, expectation, numpy
from .systems import system


@jax.jit
def moments(lqr, gain):
    """Those of every estimator, and the gradient."""
    value = exact.lqr.cost_to_go(lqr, gain)
    return {
        "reinforce": exact.lqr_reinforce_moments(lqr, gain),
        "gpomdp": exact.lqr_gpomdp_moments(lqr, gain),
        "value": exact.lqr_gpomdp_moments(lqr, gain, baseline=value),
        "pathwise": exact.lqr_pathwise_moments(lqr, gain),
    }, exact.lqr.policy_gradient(lqr, gain)


def test_scalar_figures():
    got, gradient = numpy(moments(*exact.scalar_lqr()))
    for name, want in (
        ("reinforce", SCALAR_LQR.reinforce_variance),
        ("gpomdp", SCALAR_LQR.gpomdp_variance),
        ("value", SCALAR_LQR.value_baseline_variance),
        ("pathwise", SCALAR_LQR.pathwise_variance),
    ):
        close(got[name].covariance, [[want]], atol=PRINTED[10])
        close(got[name].mean, gradient[0], rtol=1e-12)


def quadrature_gradients(lqr, gain, horizon, nodes):
    """Each estimator on a batch of all quadrature nodes of the noise of a scalar system, by plain loops."""
    noise, weights = numpy(exact.gauss_hermite(nodes, (2 * horizon,)))
    gamma, k = float(lqr.discount), float(gain[0, 0])
    a, b, q, r, e2, w2, v2 = (
        float(m[0, 0])
        for m in (lqr.A, lqr.B, lqr.Q, lqr.R, lqr.action_covariance, lqr.noise_covariance, lqr.initial_covariance)
    )
    levels, offsets = [0.0], [0.0]
    for _ in range(horizon):
        offsets.insert(0, r * e2 + gamma * (offsets[0] + levels[0] * (b * b * e2 + w2)))
        levels.insert(0, q + r * k * k + gamma * (a - b * k) ** 2 * levels[0])
    x = float(lqr.initial_mean[0]) + np.sqrt(v2) * noise[:, 0]
    tangent, path, scores, rewards, values = 0.0 * x, 0.0 * x, [], [], []
    for t in range(horizon):
        e = noise[:, 1 + t]
        u = -k * x + np.sqrt(e2) * e
        values.append(-(levels[t] * x**2 + offsets[t]))
        scores.append(-e * x / np.sqrt(e2))
        rewards.append(-(q * x**2 + r * u**2))
        du = -x - k * tangent
        path = path - gamma**t * (2 * q * x * tangent + 2 * r * u * du)
        tangent = a * tangent + b * du
        x = a * x + b * u + (np.sqrt(w2) * noise[:, 1 + horizon + t] if t + 1 < horizon else 0.0)
    powers = gamma ** np.arange(horizon)[:, None]
    scores, rewards, values = np.stack(scores), powers * np.stack(rewards), powers * np.stack(values)
    to_go = np.cumsum(rewards[::-1], 0)[::-1]
    return weights, {
        "reinforce": scores.sum(0) * rewards.sum(0),
        "gpomdp": (scores * to_go).sum(0),
        "value": (scores * (to_go - values)).sum(0),
        "pathwise": path,
    }


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_exact_moments_match_quadrature(horizon):
    lqr, gain = exact.scalar_lqr()
    lqr = lqr.replace(horizon=horizon, discount=0.8)
    weights, contributions = quadrature_gradients(lqr, np.asarray(gain), horizon, 7 if horizon < 3 else 5)
    got, _ = numpy(moments(lqr, gain))
    for name, contribution in contributions.items():
        mean, covariance = expectation(contribution, weights)
        close(got[name].mean, mean, rtol=1e-11)
        close(got[name].covariance, covariance, rtol=1e-10)


def pathwise_gradients(lqr, gain, noise):
    """∂R/∂K for each row of standard normal noise [N, n + H (m + n)], by tangents in plain loops: [N, m n]."""
    a, b, q, r = (np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R))
    root = lambda c: np.linalg.cholesky(np.asarray(c) + 1e-300 * np.eye(len(c))) if np.linalg.det(c) > 0 else psd(c)  # noqa: E731
    (n, m), h, gamma = b.shape, lqr.horizon, float(lqr.discount)
    start, explore, disturb = np.split(noise, [n, n + h * m], axis=1)
    explore, disturb = explore.reshape(-1, h, m), disturb.reshape(-1, h, n)
    x = np.asarray(lqr.initial_mean) + start @ root(lqr.initial_covariance).T
    tangent, total = np.zeros((len(noise), m * n, n)), np.zeros((len(noise), m * n))
    entries = np.eye(m * n).reshape(m * n, m, n)
    for t in range(h):
        u = -x @ gain.T + explore[:, t] @ root(lqr.action_covariance).T
        du = -np.einsum("pmn,bn->bpm", entries, x) - tangent @ gain.T
        total -= 2 * gamma**t * (np.einsum("bi,ij,bpj->bp", x, q, tangent) + np.einsum("bi,ij,bpj->bp", u, r, du))
        tangent = tangent @ a.T + du @ b.T
        x = x @ a.T + u @ b.T + disturb[:, t] @ root(lqr.noise_covariance).T
    return total


def psd(covariance):
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))


def test_pathwise_moments_of_a_larger_system():
    """The gradient is a quadratic in the noise: its coefficients from its values at ±e_i and e_i + e_j."""
    lqr, gain = system(3)
    unit = np.eye(3 + 3 * 5)
    i, j = np.triu_indices(len(unit), 1)
    at = lambda noise: pathwise_gradients(lqr, gain, noise)  # noqa: E731
    constant, plus, minus, pairs = at(0 * unit[:1]), at(unit), at(-unit), at(unit[i] + unit[j])
    linear = (plus - minus) / 2
    matrix = np.einsum("ip,ij->pij", (plus + minus) / 2 - constant, np.eye(len(unit)))
    matrix[:, i, j] = matrix[:, j, i] = (pairs - plus[i] - plus[j] + constant).T / 2
    mean = np.trace(matrix, axis1=1, axis2=2) + constant[0]
    covariance = 2 * np.einsum("pij,qji->pq", matrix, matrix) + linear.T @ linear
    got = numpy(exact.lqr_pathwise_moments(lqr, gain))
    close(got.mean, mean, rtol=1e-11, atol=1e-12)
    close(got.covariance, covariance, rtol=1e-10, atol=1e-12)
    close(got.mean, np.ravel(exact.lqr.policy_gradient(lqr, gain)), rtol=1e-11, atol=1e-12)


def test_small_exploration_leaves_the_gradient_and_costs_variance():
    lqr, gain = exact.scalar_lqr()
    variances, at = [], lambda covariance: lqr.replace(action_covariance=np.array([[covariance]]))
    for scale in (1.0, 0.1, 0.01):
        got, gradient = numpy(moments(at(scale**2), gain))
        close(got["gpomdp"].mean, gradient[0], rtol=1e-10)
        variances.append(float(got["gpomdp"].covariance[0, 0]))
    silent = numpy(exact.lqr_pathwise_moments(at(0.0), gain))
    close(got["gpomdp"].mean, silent.mean, rtol=1e-3)
    assert variances[2] > 50 * variances[1]
    assert np.isfinite(silent.covariance).all()


def test_bad_arguments_are_refused_by_name():
    lqr, gain = exact.double_integrator()
    with pytest.raises(ValueError, match="lqr must have a horizon, got None"):
        exact.lqr_pathwise_moments(lqr, gain)
    for function in (exact.lqr_reinforce_moments, exact.lqr_gpomdp_moments):
        with pytest.raises(ValueError, match=r"lqr must be a scalar system with a horizon"):
            function(lqr.replace(horizon=2), gain)
