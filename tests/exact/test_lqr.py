"""Linear-quadratic problems: figures, autodiff, rollouts in closed form, and exact variances by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .test_mdp import close


def system(horizon=None, discount=0.9):
    """Three states, two actions, nothing symmetric."""
    a = jnp.array([[0.9, 0.2, 0.0], [-0.1, 0.8, 0.3], [0.0, 0.1, 0.7]])
    b = jnp.array([[0.5, 0.0], [0.1, 0.4], [-0.2, 0.3]])
    lqr = exact.LQR(
        A=a,
        B=b,
        Q=jnp.diag(jnp.array([1.0, 0.5, 0.2])),
        R=jnp.array([[0.3, 0.05], [0.05, 0.2]]),
        noise_covariance=jnp.array([[0.1, 0.02, 0.0], [0.02, 0.05, 0.0], [0.0, 0.0, 0.0]]),
        action_covariance=jnp.array([[0.2, 0.03], [0.03, 0.1]]),
        initial_mean=jnp.array([1.0, -0.5, 0.2]),
        initial_covariance=0.3 * jnp.eye(3),
        discount=discount,
        horizon=horizon,
    )
    return lqr, jnp.array([[0.4, 0.1, -0.1], [0.0, 0.3, 0.2]])


def loop_cost(lqr, gain, steps):
    """The cost by moments of the state, as a loop."""
    mean = np.asarray(lqr.initial_mean)
    moment = np.asarray(lqr.initial_covariance) + np.outer(mean, mean)
    a, b, q, r, w, e = (
        np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R, lqr.noise_covariance, lqr.action_covariance)
    )
    k, total = np.asarray(gain), 0.0
    for t in range(steps):
        total += float(lqr.discount) ** t * (np.trace(q @ moment) + np.trace(r @ (k @ moment @ k.T + e)))
        moment = (a - b @ k) @ moment @ (a - b @ k).T + b @ e @ b.T + w
    return total


def test_double_integrator_figures():
    lqr, gain = exact.double_integrator()
    close(exact.spectral_radius(lqr.closed_loop(gain)), 0.92736185, atol=5.1e-9)
    close(lqr.cost_matrix(gain)[0], [8.5489264804, 3.1804371279], atol=5.1e-11)
    close(lqr.cost_matrix(gain)[1, 1], 2.287302982, atol=5.1e-10)
    close(lqr.state_moment(gain)[0], [12.1883057176, -3.3532521261], atol=5.1e-11)
    close(lqr.state_moment(gain)[1, 1], 5.9508620891, atol=5.1e-11)
    close(lqr.cost(gain), 12.9585718169, atol=5.1e-11)
    close(lqr.cost_gradient(gain), [[-5.25100867, -0.5657994964]], atol=5.1e-9)
    close(lqr.riccati()[0], [[6.6014936489, 4.5414109127]], atol=5.1e-11)
    close(loop_cost(lqr, gain, 2000), lqr.cost(gain), rtol=1e-13)


def test_scalar_figures():
    lqr, gain = exact.scalar_lqr()
    close(lqr.cost(gain), 3.2484156577, atol=5.1e-11)
    close(lqr.cost_gradient(gain), [[-2.436138911658]], atol=5.1e-13)
    value = exact.lqr_gpomdp_moments(lqr, gain, baseline=lqr.cost_to_go(gain))
    for moments, want in (
        (exact.lqr_reinforce_moments(lqr, gain), 476.1098564665),
        (exact.lqr_gpomdp_moments(lqr, gain), 262.3766239932),
        (value, 40.8956263649),
        (exact.lqr_pathwise_moments(lqr, gain), 8.7944305669),
    ):
        close(moments.trace, want, atol=5.1e-11)
        close(moments.mean, lqr.policy_gradient(gain)[0], rtol=1e-12)


@pytest.mark.parametrize("horizon", [None, 1, 4])
def test_cost_gradient_and_values_agree_with_autodiff_and_loops(horizon):
    lqr, gain = system(horizon)
    close(lqr.cost(gain), loop_cost(lqr, gain, horizon or 1000), rtol=1e-12)
    close(lqr.cost_gradient(gain), jax.grad(lqr.cost)(gain), rtol=1e-10, atol=1e-12)
    close(lqr.policy_gradient(gain), jax.grad(lqr.objective)(gain), rtol=1e-10, atol=1e-12)
    # J is the mean of the value of the first state, and the value the mean of Q over the actions.
    nodes, weights = exact.gauss_hermite(2, (3,))
    x = lqr.initial_mean[None] + np.sqrt(0.3) * nodes
    close(weights @ lqr.value(gain, x), lqr.objective(gain), rtol=1e-12)
    noise, mass = exact.gauss_hermite(2, (2,))
    u = -x[:, None] @ gain.T + (noise @ np.linalg.cholesky(lqr.action_covariance).T)[None]
    close(
        lqr.action_value(gain, jnp.broadcast_to(x[:, None], (*u.shape[:2], 3)), u) @ mass,
        lqr.value(gain, x),
        rtol=1e-12,
    )


@pytest.mark.parametrize("case", ["double integrator", "three states"])
def test_deterministic_policy_gradient_is_the_same(case):
    """E Σ_t γ^t ∂(-Kx)/∂K ∇_u Q(x, u) at u = -Kx, over the discounted second moment of the state."""
    lqr, gain = exact.double_integrator() if case == "double integrator" else system()
    root = np.linalg.cholesky(lqr.state_moment(gain)).T  # rows x with Σ x xᵀ equal to the moment
    slope = jax.vmap(jax.grad(lambda u, x: lqr.action_value(gain, x, u)), (0, 0))(-root @ gain.T, jnp.asarray(root))
    close(-jnp.einsum("nm,ni->mi", slope, root), lqr.policy_gradient(gain), rtol=1e-11, atol=1e-12)


def test_the_riccati_gain_is_optimal():
    for lqr in (exact.double_integrator()[0], system()[0]):
        gain, matrix = lqr.riccati()
        close(lqr.cost_gradient(gain), 0.0, atol=1e-11)
        close(lqr.cost_matrix(gain), matrix, rtol=1e-11, atol=1e-12)
        assert float(lqr.cost(gain + 0.05)) > float(lqr.cost(gain))
    short, _ = system(1)
    close(short.riccati()[0], 0.0, atol=1e-15)
    close(short.riccati()[1], short.Q, atol=1e-15)
    two, _ = system(2)
    k, _ = two.riccati()
    by_hand = np.linalg.solve(two.R + 0.9 * two.B.T @ two.Q @ two.B, 0.9 * two.B.T @ two.Q @ two.A)
    close(k, by_hand, rtol=1e-13)


def test_an_unstable_gain_has_infinite_cost():
    lqr, gain = exact.double_integrator()
    lqr.check_stable(gain)
    bad = jnp.array([[-3.0, -1.0]])
    assert not bool(lqr.stable(bad))
    for cost in (lqr.cost(bad), jax.jit(lqr.cost)(bad)):
        assert float(cost) == float("inf")
    assert float(lqr.objective(bad)) == -float("inf")
    assert bool(jnp.all(jnp.isnan(lqr.cost_gradient(bad))))
    with pytest.raises(ValueError, match=r"gain must satisfy sqrt\(discount\) \* radius"):
        lqr.check_stable(bad)
    assert np.isfinite(float(lqr.replace(horizon=3).cost(bad)))


def quadrature_gradients(lqr, gain, horizon, nodes):
    """Each estimator on a batch of all quadrature nodes of the noise of a scalar system, by plain loops."""
    noise, weights = exact.gauss_hermite(nodes, (2 * horizon,))
    gamma, k = float(lqr.discount), float(gain[0, 0])
    a, b, q, r = (float(m[0, 0]) for m in (lqr.A, lqr.B, lqr.Q, lqr.R))
    sigma, omega = (float(np.sqrt(m[0, 0])) for m in (lqr.action_covariance, lqr.noise_covariance))
    matrices, offsets = lqr.cost_to_go(gain)
    x = float(lqr.initial_mean[0]) + float(np.sqrt(lqr.initial_covariance[0, 0])) * noise[:, 0]
    tangent, path, scores, rewards, values = 0.0 * x, 0.0 * x, [], [], []
    for t in range(horizon):
        e = noise[:, 1 + t]
        u = -k * x + sigma * e
        values.append(-(matrices[t, 0, 0] * x**2 + offsets[t]))
        scores.append(-e * x / sigma)
        rewards.append(-(q * x**2 + r * u**2))
        du = -x - k * tangent
        path = path - gamma**t * (2 * q * x * tangent + 2 * r * u * du)
        tangent = a * tangent + b * du
        x = a * x + b * u + (omega * noise[:, 1 + horizon + t] if t + 1 < horizon else 0.0)
    powers = gamma ** np.arange(horizon)[:, None]
    scores, rewards, values = np.stack(scores), powers * np.stack(rewards), powers * np.stack(values)
    to_go = np.cumsum(rewards[::-1], 0)[::-1]
    return weights, {
        "reinforce": scores.sum(0) * rewards.sum(0),
        "gpomdp": (scores * to_go).sum(0),
        "value": (scores * (to_go - values)).sum(0),
        "pathwise": np.asarray(path),
    }


@pytest.mark.parametrize("horizon", [1, 2, 3])
def test_exact_variances_match_quadrature(horizon):
    lqr, gain = exact.scalar_lqr()
    lqr = lqr.replace(horizon=horizon, discount=0.8)
    weights, contributions = quadrature_gradients(lqr, gain, horizon, 7 if horizon < 3 else 5)
    moments = {
        "reinforce": exact.lqr_reinforce_moments(lqr, gain),
        "gpomdp": exact.lqr_gpomdp_moments(lqr, gain),
        "value": exact.lqr_gpomdp_moments(lqr, gain, baseline=lqr.cost_to_go(gain)),
        "pathwise": exact.lqr_pathwise_moments(lqr, gain),
    }
    for name, contribution in contributions.items():
        mean, covariance = exact.weighted_moments(jnp.asarray(contribution)[:, None], weights)
        close(moments[name].mean, mean, rtol=1e-11)
        close(moments[name].covariance, covariance, rtol=1e-10)


def test_pathwise_moments_of_a_larger_system():
    lqr, gain = system(3)
    moments = exact.lqr_pathwise_moments(lqr, gain)
    close(moments.mean, lqr.policy_gradient(gain).ravel(), rtol=1e-11, atol=1e-12)
    close(moments.covariance, moments.covariance.T, atol=1e-13)
    roots = [np.linalg.cholesky(np.asarray(c) + 1e-30 * np.eye(len(c))) for c in (lqr.action_covariance,)]

    def returns(k, key):
        keys = jax.random.split(key, 3)
        x = lqr.initial_mean + np.sqrt(0.3) * jax.random.normal(keys[0], (3,))
        e, w = jax.random.normal(keys[1], (3, 2)), jax.random.normal(keys[2], (3, 3))
        values, vectors = np.linalg.eigh(lqr.noise_covariance)
        root = vectors * np.sqrt(np.maximum(values, 0))
        total = 0.0
        for t in range(3):
            u = -k @ x + roots[0] @ e[t]
            total -= 0.9**t * (x @ lqr.Q @ x + u @ lqr.R @ u)
            x = lqr.A @ x + lqr.B @ u + root @ w[t]
        return total

    count = 40_000
    sample = jax.vmap(jax.grad(returns), (None, 0))(gain, jax.random.split(jax.random.key(0), count)).reshape(count, 6)
    # Variances of 40 000 draws: a relative error of some 2 percent; the tolerance is five times that.
    close(np.var(sample, axis=0), jnp.diag(moments.covariance), rtol=0.1)


def test_small_exploration_leaves_the_gradient_and_costs_variance():
    lqr, gain = exact.scalar_lqr()
    variances = []
    for scale in (1.0, 0.1, 0.01):
        quiet = lqr.replace(action_covariance=jnp.array([[scale**2]]))
        moments = exact.lqr_gpomdp_moments(quiet, gain)
        close(moments.mean, quiet.policy_gradient(gain)[0], rtol=1e-10)
        variances.append(float(moments.trace))
    silent = lqr.replace(action_covariance=jnp.zeros((1, 1)))
    close(moments.mean, exact.lqr_pathwise_moments(silent, gain).mean, rtol=1e-3)
    assert variances[2] > 50 * variances[1]
    assert np.isfinite(float(exact.lqr_pathwise_moments(silent, gain).trace))


def test_mutants_of_the_cost_gradient_are_rejected():
    lqr, gain = system()
    truth = jax.grad(lqr.cost)(gain)
    p, sigma, a, b = lqr.cost_matrix(gain), lqr.state_moment(gain), lqr.A, lqr.B
    correct = 2 * ((lqr.R + 0.9 * b.T @ p @ b) @ gain - 0.9 * b.T @ p @ a) @ sigma
    close(correct, truth, rtol=1e-10)
    mutants = {
        "discount missing": 2 * ((lqr.R + b.T @ p @ b) @ gain - b.T @ p @ a) @ sigma,
        "factor two missing": correct / 2,
        "moment of the first state": 2 * ((lqr.R + 0.9 * b.T @ p @ b) @ gain - 0.9 * b.T @ p @ a) @ jnp.eye(3),
        "wrong sign": -correct,
    }
    for name, mutant in mutants.items():
        assert float(jnp.max(jnp.abs(mutant - truth))) > 1e-2, name
    # Without the discount the Lyapunov equation has another solution.
    transposed = jnp.linalg.solve(
        jnp.eye(9) - 0.9 * jnp.kron((a - b @ gain), (a - b @ gain)), (lqr.Q + gain.T @ lqr.R @ gain).ravel()
    )
    assert float(jnp.max(jnp.abs(transposed.reshape(3, 3) - p))) > 1e-2


def test_bad_problems_are_refused_by_name():
    lqr, gain = exact.double_integrator()
    with pytest.raises(ValueError, match=r"A must have shape \[n, n\] = \[2, 2\], got \[2, 1\]"):
        lqr.replace(A=jnp.ones((2, 1)))
    with pytest.raises(TypeError, match="Q must have a floating dtype"):
        lqr.replace(Q=jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"discount must be below 1 without horizon, got 1.0"):
        lqr.replace(discount=1.0)
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\]"):
        lqr.replace(discount=-0.5)
    with pytest.raises(ValueError, match=r"gain must have shape \[m, n\] = \[1, 2\], got \[2, 1\]"):
        lqr.cost(gain.T)
    with pytest.raises(ValueError, match="cost_to_go needs a horizon, got None"):
        lqr.cost_to_go(gain)
    with pytest.raises(ValueError, match="lqr must have a horizon, got None"):
        exact.lqr_pathwise_moments(lqr, gain)
    with pytest.raises(ValueError, match=r"lqr must be a scalar system with a horizon"):
        exact.lqr_reinforce_moments(lqr.replace(horizon=2), gain)
