"""What the noise of a policy does, with exact numbers: its limit at none, and what it makes smooth."""

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg
from pgjax import exact

from .processes import close, expectation, numpy


def normal_policy(params, obs):
    """A policy with a mean and a scale, whatever the observation."""
    return pg.Normal(jnp.broadcast_to(params["mean"], obs.shape), jnp.broadcast_to(params["scale"], obs.shape))


def one_step(action, reward):
    """N episodes of one step."""
    yes, zero = np.ones((1, len(action)), bool), np.zeros((1, len(action)))
    return pg.Trajectory(
        obs=zero[..., None],
        next_obs=zero[..., None],
        action=action[None, :, None],
        reward=reward[None],
        terminated=yes,
        truncated=~yes,
        log_prob=zero,
        step=zero.astype(np.int32),
    )


def reinforce(mean, scale, action, reward):
    """What `pg.reinforce` says of the mean for each action [N] (ascent)."""
    params = {"mean": np.array([mean]), "scale": np.array([scale])}
    batch = one_step(np.asarray(action), np.asarray(reward))
    each, _ = pg.reinforce.per_trajectory(params, batch, policy=normal_policy, discount=1.0)
    return -np.asarray(each["mean"])[:, 0]


def expected_reinforce(payoff, mean, scale):
    """E of `pg.reinforce` and its variance on a bandit with normal actions, by quadrature (ascent)."""
    nodes, weights = numpy(exact.gauss_hermite(40))
    action = mean + scale * nodes
    gradient, covariance = expectation(reinforce(mean, scale, action, payoff(action)), weights)
    return gradient[0], covariance[0, 0]


def test_the_deterministic_gradient_is_the_limit_of_small_noise():
    """E g(σ) = f'(μ) + ½ σ² f'''(μ) + O(σ⁴), while the variance grows like f(μ)² / σ²."""
    mean, third = 0.4, np.sin(0.4)
    payoff = lambda a: 1.0 + np.cos(a)  # noqa: E731
    slope = -np.sin(mean)
    scales = np.array([0.4, 0.2, 0.1, 0.05])
    means, variances = np.array([expected_reinforce(payoff, mean, s) for s in scales]).T
    close(means, slope * np.exp(-(scales**2) / 2), atol=1e-12)
    close((means - slope)[-1] / scales[-1] ** 2, 0.5 * third, rtol=1e-2)
    close((means - slope)[1:] / (means - slope)[:-1], 0.25, rtol=5e-2)
    close((variances * scales**2)[-1], (1 + np.cos(mean)) ** 2, rtol=1e-2)
    # A quadratic has no third derivative: its gradient is the deterministic one at any noise.
    bandit = exact.QuadraticBandit(2.0, np.array([0.7]), np.array([[-1.5]]), 0.3)
    quadratic = lambda a: 2.0 + 0.7 * (a - mean) - 0.75 * (a - mean) ** 2  # noqa: E731
    got, variance = expected_reinforce(quadratic, mean, 0.3)
    close(got, 0.7, atol=1e-13)
    close(variance, bandit.score_function_variance(), rtol=1e-12)


def test_small_noise_on_a_linear_system_leads_to_the_deterministic_policy_gradient():
    """∇J(K, σ) = E_σ Σ γ^t (∂u/∂K) ∇_u Q, affine in σ², and at σ = 0 the deterministic policy gradient."""
    lqr, gain = exact.scalar_lqr()
    at = lambda s: lqr.replace(action_covariance=np.array([[s**2]]))  # noqa: E731
    gradients = np.array([np.asarray(exact.lqr.policy_gradient(at(s), gain)).item() for s in (0.0, 0.1, 0.2, 0.4)])
    close(np.diff(gradients)[1:] / np.diff(gradients)[0], [3.0, 12.0], rtol=1e-9)
    assert abs(gradients[-1] - gradients[0]) > 1e-3
    # By hand at σ = 0: u = -k x, ∂u/∂k = -x, and Q of the deterministic policy by a backward recursion.
    a, b, q, r, k, gamma = 0.9, 0.5, 1.0, 0.2, 0.4, 0.95
    later, second_moments = 0.0, [1.0 + 0.4**2]
    for _ in range(4):
        second_moments.append((a - b * k) ** 2 * second_moments[-1] + 0.3**2)
    total = 0.0
    for t in reversed(range(5)):
        slope_of_q = -2 * (-r * k + gamma * later * b * (a - b * k))  # ∂Q/∂u at u = -k x, divided by x
        total += gamma**t * -slope_of_q * second_moments[t]
        later = q + r * k**2 + gamma * (a - b * k) ** 2 * later
    close(gradients[0], total, rtol=1e-12)
    noisy, smooth = (
        [np.asarray(moments(at(s), gain).covariance).item() for s in (0.02, 0.01)]
        for moments in (exact.lqr_reinforce_moments, exact.lqr_pathwise_moments)
    )
    close(noisy[1] / noisy[0], 4.0, rtol=1e-2)
    close(smooth[1] / smooth[0], 1.0, rtol=1e-2)


def test_a_reward_that_does_not_know_the_parameters_has_a_smooth_objective_all_the_same():
    """r = 1[a > c] is flat wherever it has a slope, yet J(μ) = Φ((μ - c) / σ) has one: the noise is differentiated."""
    mean, scale, edge = 0.3, 0.5, 0.8
    # Quadrature on both sides of the edge.
    nodes, weights = np.polynomial.legendre.leggauss(60)
    halves = [(mean - 9 * scale, edge), (edge, mean + 9 * scale)]
    action = np.concatenate([0.5 * (a + b) + 0.5 * (b - a) * nodes for a, b in halves])
    density = lambda x: np.exp(-(((x - mean) / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))  # noqa: E731
    mass = np.concatenate([0.5 * (b - a) * weights for a, b in halves]) * density(action)
    reward = np.where(action > edge, 1.0, 0.0)
    close(mass.sum(), 1.0, rtol=1e-12)
    close(mass @ reinforce(mean, scale, action, reward), density(edge), rtol=1e-12)
    # Differentiating the reward along the actions finds nothing.
    payoff = lambda m, e: jnp.where(m + scale * e > edge, 1.0, 0.0)  # noqa: E731
    pathwise = jax.jit(jax.vmap(jax.grad(payoff), (None, 0)))(mean, (action - mean) / scale)
    close(pathwise, 0.0, atol=0.0)
