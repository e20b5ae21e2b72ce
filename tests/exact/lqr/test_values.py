"""Costs, values, gradients and the optimum of linear-quadratic problems: figures, loops and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_answers import DOUBLE_INTEGRATOR, PRINTED, SCALAR_LQR

from pgjax import exact

from ..processes import close, numpy
from .systems import loop_cost, single, system


@jax.jit
def truths(lqr, gain):
    return {
        "closed_loop": exact.lqr.closed_loop(lqr, gain),
        "stable": exact.lqr.stable(lqr, gain),
        "cost_matrix": exact.lqr.cost_matrix(lqr, gain),
        "state_moment": exact.lqr.state_moment(lqr, gain),
        "cost": exact.lqr.cost(lqr, gain),
        "objective": exact.lqr.objective(lqr, gain),
        "cost_gradient": exact.lqr.cost_gradient(lqr, gain),
        "policy_gradient": exact.lqr.policy_gradient(lqr, gain),
        "autodiff": jax.grad(lambda k: exact.lqr.cost(lqr, k))(gain),
    }


@jax.jit
def optimum(lqr):
    gain, matrix = exact.lqr.riccati(lqr)
    at = {"cost": exact.lqr.cost(lqr, gain), "shifted": exact.lqr.cost(lqr, gain + 0.05)}
    return gain, matrix, {"gradient": exact.lqr.cost_gradient(lqr, gain), "P": exact.lqr.cost_matrix(lqr, gain), **at}


def test_double_integrator_figures():
    lqr, gain = exact.double_integrator()
    got = numpy(truths(lqr, gain))
    close(np.abs(np.linalg.eigvals(got["closed_loop"])).max(), DOUBLE_INTEGRATOR.radius, atol=PRINTED[8])
    for name, digits in (("cost_matrix", 9), ("state_moment", 10), ("cost", 10), ("cost_gradient", 8)):
        close(got[name], getattr(DOUBLE_INTEGRATOR, name), atol=PRINTED[digits])
    close(optimum(lqr)[0], DOUBLE_INTEGRATOR.optimal_gain, atol=PRINTED[10])
    close(got["cost"], loop_cost(lqr, gain, 2000)[0], rtol=1e-13)


def test_scalar_figures():
    got = truths(*exact.scalar_lqr())
    close(got["cost"], SCALAR_LQR.cost, atol=PRINTED[10])
    close(got["cost_gradient"], SCALAR_LQR.cost_gradient, atol=PRINTED[12])


@pytest.mark.parametrize("horizon", [None, 1, 4])
def test_cost_and_gradient_agree_with_loops_and_autodiff(horizon):
    lqr, gain = system(horizon)
    got = numpy(truths(lqr, gain))
    cost, moments = loop_cost(lqr, gain, horizon or 1000)
    assert bool(got["stable"])
    close(got["closed_loop"], np.asarray(lqr.A) - np.asarray(lqr.B) @ gain, rtol=1e-14)
    close(got["cost"], cost, rtol=1e-12)
    close(got["objective"], -cost, rtol=1e-12)
    close(got["state_moment"], moments.sum(0), rtol=1e-11, atol=1e-13)
    close(got["cost_gradient"], got["autodiff"], rtol=1e-10, atol=1e-12)
    close(got["policy_gradient"], -got["autodiff"], rtol=1e-10, atol=1e-12)


def test_the_cost_to_go_and_the_moments_of_each_step_match_loops():
    lqr, gain = system(3, 0.8)
    matrices, offsets = numpy(exact.lqr.cost_to_go(lqr, gain))
    cost, moments = loop_cost(lqr, gain, 3)
    close(exact.lqr.moments_over_time(lqr, gain), moments, rtol=1e-12, atol=1e-15)
    a, b, q, r = (np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R))
    noise = b @ np.asarray(lqr.action_covariance) @ b.T + np.asarray(lqr.noise_covariance)
    matrix, offset = np.zeros((3, 3)), 0.0
    for t in (3, 2, 1, 0):
        close(matrices[t], matrix, rtol=1e-12, atol=1e-15)
        close(offsets[t], offset, rtol=1e-12)
        offset = np.trace(r @ np.asarray(lqr.action_covariance)) + 0.8 * (offset + np.trace(matrix @ noise))
        matrix = q + gain.T @ r @ gain + 0.8 * (a - b @ gain).T @ matrix @ (a - b @ gain)
    close(np.trace(matrices[0] @ moments[0]) + offsets[0], cost, rtol=1e-12)


@jax.jit
def mean_values(lqr, gain, x, u):
    each = jnp.broadcast_to(x, (len(u), *x.shape))
    return exact.lqr.value(lqr, gain, x), exact.lqr.action_value(lqr, gain, each, u=u)


@pytest.mark.parametrize("horizon", [None, 1, 4])
def test_the_objective_is_the_mean_of_the_value_and_that_the_mean_of_the_action_value(horizon):
    lqr, gain = system(horizon)
    nodes, weights = numpy(exact.gauss_hermite(2, (3,)))
    x = np.asarray(lqr.initial_mean) + np.sqrt(0.3) * nodes
    noise, mass = numpy(exact.gauss_hermite(2, (2,)))
    u = (-x @ gain.T)[None] + (noise @ np.linalg.cholesky(lqr.action_covariance).T)[:, None]
    value, action_value = numpy(mean_values(lqr, gain, x, u))
    close(weights @ value, -loop_cost(lqr, gain, horizon or 1000)[0], rtol=1e-12)
    close(mass @ action_value, value, rtol=1e-12)


@pytest.mark.parametrize("make", [exact.double_integrator, system])
def test_deterministic_policy_gradient_is_the_same(make):
    """E Σ_t γ^t ∂(-Kx)/∂K ∇_u Q(x, u) at u = -Kx, over the discounted second moment of the state."""
    lqr, gain = make()
    got = numpy(truths(lqr, gain))
    root = np.linalg.cholesky(got["state_moment"]).T  # rows x with Σ x xᵀ equal to the moment
    total = lambda u: jnp.sum(exact.lqr.action_value(lqr, gain, root, u=u))  # noqa: E731
    slope = jax.jit(jax.grad(total))(-root @ np.asarray(gain).T)
    close(-np.einsum("nm,ni->mi", slope, root), got["policy_gradient"], rtol=1e-11, atol=1e-12)


def test_the_riccati_gain_is_optimal():
    for lqr in (exact.double_integrator()[0], system()[0]):
        _, matrix, at = numpy(optimum(lqr))
        close(at["gradient"], 0.0, atol=1e-11)
        close(at["P"], matrix, rtol=1e-11, atol=1e-12)
        assert at["shifted"] > at["cost"]


def test_the_riccati_gain_with_a_horizon_is_that_of_the_first_step():
    for steps in (1, 2, 3):
        lqr, _ = system(steps)
        a, b, q, r = (np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R))
        matrix = np.zeros((3, 3))
        for _ in range(steps):
            gain = np.linalg.solve(r + 0.9 * b.T @ matrix @ b, 0.9 * b.T @ matrix @ a)
            matrix = q + gain.T @ r @ gain + 0.9 * (a - b @ gain).T @ matrix @ (a - b @ gain)
        got = numpy(exact.lqr.riccati(lqr))
        close(got[0], gain, rtol=1e-12, atol=1e-15)
        close(got[1], matrix, rtol=1e-12)


def test_stability_is_that_of_the_discounted_system():
    """The cost is finite where √γ ρ < 1: also for ρ > 1, but not wherever γ ρ < 1."""
    for drift, stable in ((0.99, True), (1.05, True), (-1.05, True), (1.1, True), (1.12, False), (1.15, False)):
        lqr, gain = single(drift, 0.81)
        got = numpy(truths(lqr, gain))
        assert bool(got["stable"]) == stable
        if stable:
            close(got["cost"], loop_cost(lqr, gain, 1500)[0], rtol=1e-9)
            close(got["cost_gradient"], got["autodiff"], rtol=1e-9)
            exact.lqr.check_stable(lqr, gain)
        else:
            assert got["cost"] == np.inf
            assert got["objective"] == -np.inf
            assert all(np.isnan(got[name]).all() for name in ("cost_gradient", "cost_matrix", "state_moment"))
            with pytest.raises(ValueError, match=r"gain must satisfy sqrt\(discount\) \* radius.*radius of 1.1"):
                exact.lqr.check_stable(lqr, gain)


def test_with_a_horizon_every_gain_has_a_cost():
    lqr, gain = single(1.5, 0.9, 3)
    got = numpy(truths(lqr, gain))
    assert bool(got["stable"])
    close(got["cost"], loop_cost(lqr, gain, 3)[0], rtol=1e-13)
    exact.lqr.check_stable(lqr, gain)


def test_mutants_of_the_cost_gradient_are_told_apart():
    lqr, gain = system()
    got = numpy(truths(lqr, gain))
    p, sigma, truth = got["cost_matrix"], got["state_moment"], got["autodiff"]
    a, b, q, r = (np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R))
    correct = 2 * ((r + 0.9 * b.T @ p @ b) @ gain - 0.9 * b.T @ p @ a) @ sigma
    close(correct, truth, rtol=1e-10)
    mutants = {
        "discount missing": 2 * ((r + b.T @ p @ b) @ gain - b.T @ p @ a) @ sigma,
        "factor two missing": correct / 2,
        "moment of the first state": 2 * ((r + 0.9 * b.T @ p @ b) @ gain - 0.9 * b.T @ p @ a) @ np.eye(3),
        "wrong sign": -correct,
    }
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant - truth)) > 1e-2, name
    # The Lyapunov equation with the drift transposed has another solution.
    drift, step_cost = a - b @ gain, q + gain.T @ r @ gain
    transposed = np.linalg.solve(np.eye(9) - 0.9 * np.kron(drift, drift), step_cost.ravel())
    assert np.max(np.abs(transposed.reshape(3, 3) - p)) > 1e-2


def test_the_functions_are_methods_of_the_record():
    methods = "closed_loop stable check_stable cost_matrix cost_to_go state_moment cost cost_gradient objective"
    for name in [*methods.split(), "policy_gradient", "value", "riccati"]:
        assert getattr(exact.LQR, name) is getattr(exact.lqr, name)
    lqr, gain = system()
    assert lqr.cost(gain) == exact.lqr.cost(lqr, gain)
    x, u = np.ones(3), np.ones(2)
    assert lqr.action_value(gain, x, u) == exact.lqr.action_value(lqr, gain, x, u=u)


def test_bad_problems_and_arguments_are_refused_by_name():
    lqr, gain = exact.double_integrator()
    with pytest.raises(ValueError, match=r"A must have shape \[n, n\] = \[2, 2\], got \[2, 1\]"):
        lqr.replace(A=np.ones((2, 1)))
    with pytest.raises(TypeError, match="Q must have a floating dtype"):
        lqr.replace(Q=np.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"discount must be below 1 without horizon, got 1.0"):
        lqr.replace(discount=1.0)
    with pytest.raises(ValueError, match=r"discount must lie in \[0, 1\]"):
        lqr.replace(discount=-0.5)
    with pytest.raises(ValueError, match=r"gain must have shape \[m, n\] = \[1, 2\], got \[2, 1\]"):
        lqr.cost(np.ones((2, 1)))
    with pytest.raises(ValueError, match="cost_to_go needs a horizon, got None"):
        exact.lqr.cost_to_go(lqr, gain)
    with pytest.raises(ValueError, match="moments_over_time needs a horizon, got None"):
        exact.lqr.moments_over_time(lqr, gain)
    with pytest.raises(ValueError, match=r"x must end with the shape of lqr.initial_mean, \[2\], got \[3\]"):
        exact.lqr.value(lqr, gain, np.ones(3))
    with pytest.raises(ValueError, match=r"u must end with the shape of the columns of lqr.B, \[1\], got \[2\]"):
        exact.lqr.action_value(lqr, gain, np.ones(2), u=np.ones(2))
