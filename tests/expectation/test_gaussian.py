"""Expectations under normal distributions in closed form and by quadrature, and what follows from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact, expectation

from . import cases
from .cases import THETA, W

CUBIC = np.random.default_rng(0).normal(size=(2, 2, 2))
HESSIAN = np.array([[1.2, 0.7], [0.7, -0.8]])


def make(theta: Any) -> pg.Normal:
    return pg.Normal(theta[:2], jnp.exp(theta[2:4]))


def polynomial(x: Any, order: int = 3) -> Any:
    """Degree three: a cubic form, a quadratic one with a cross term, a linear one and a constant."""
    value = 0.3 + x @ W[:2] + 0.5 * jnp.einsum("...i,ij,...j->...", x, HESSIAN, x)
    return value + (order > 2) * jnp.einsum("...i,...j,...k,ijk->...", x, x, x, CUBIC)


def by_moments(theta: Any, order: int) -> Any:
    """E of the polynomial by Isserlis' theorem."""
    m, s = theta[:2], jnp.diag(jnp.exp(2 * theta[2:4]))
    value = 0.3 + m @ W[:2] + 0.5 * (m @ HESSIAN @ m + jnp.trace(HESSIAN @ s))
    cubic = jnp.einsum("i,j,k,ijk", m, m, m, CUBIC)
    cubic += jnp.einsum("i,jk,ijk", m, s, CUBIC) + jnp.einsum("j,ik,ijk", m, s, CUBIC)
    cubic += jnp.einsum("k,ij,ijk", m, s, CUBIC)
    return value + (order > 2) * cubic


POINT = np.array([0.4, -0.7, 0.3, -0.2])


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize(("name", "options"), [("quadratic", {}), ("quadrature", {"num_nodes": 2})])
def test_polynomials_up_to_degree_three_are_exact_with_their_gradients(name: str, options: Any, order: int) -> None:
    rule = getattr(expectation, name)
    got = jax.jit(jax.value_and_grad(lambda t: rule.given({}, make(t), lambda x: polynomial(x, order), **options)))(
        POINT
    )
    want = jax.jit(jax.value_and_grad(lambda t: by_moments(t, order)))(POINT)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    other = jax.grad(lambda t: expectation.at_mode.given({}, make(t), lambda x: polynomial(x, order)))(POINT)
    assert np.abs(other - want[1]).max() > 0.1


def test_the_gradient_of_the_covariance_is_half_the_curvature() -> None:
    """As Ciosek and Whiteson have it, for σ rather than σ²: ∂/∂σ_i = σ_i H_ii, and of the mean the slope of f."""
    loc, scale = POINT[:2], np.exp(POINT[2:])
    mean = lambda loc, scale: expectation.quadratic.given({}, pg.Normal(loc, scale), lambda x: polynomial(x, 2))  # noqa: E731
    by_loc, by_scale = jax.jit(jax.grad(mean, (0, 1)))(loc, scale)
    np.testing.assert_allclose(by_loc, W[:2] + HESSIAN @ loc, rtol=1e-13)
    np.testing.assert_allclose(by_scale, scale * np.diag(HESSIAN), rtol=1e-13)


def gradient(rule: Any, problem: Any, **options: Any) -> Any:
    def value(theta: Any) -> Any:
        return rule.given({}, problem.make(theta), lambda x: problem.f(x, theta, W), **options)

    return jax.jit(jax.grad(value))(THETA)


def test_what_is_not_a_polynomial_converges_under_quadrature_and_is_off_in_closed_form() -> None:
    for problem, nodes in ((cases.normal(), (2, 6, 16)), (cases.tanh_normal(), (24, 64, 128))):
        truth = jax.jit(jax.grad(problem.exact))(THETA, W)
        errors = [np.abs(gradient(expectation.quadrature, problem, num_nodes=n) - truth).max() for n in nodes]
        assert errors[0] > errors[1] > 100 * errors[2]
        assert errors[2] < 1e-9
    closed = gradient(expectation.quadratic, cases.normal())
    assert np.abs(closed - jax.jit(jax.grad(cases.normal().exact))(THETA, W)).max() > 0.01


def test_identity_20_score_path_and_quadrature_agree_and_so_does_steins_identity() -> None:
    """E[f ∇log p] = E[∇f ∂x/∂θ] = ∇ Σ w f: the score function minus the path has mean 0, for f and for f + 1 alike."""
    smooth = lambda x: jnp.sin(x[..., 0]) * jnp.cos(0.5 * x[..., 1]) + 0.1 * x[..., 0] ** 3  # noqa: E731
    grid = lambda t: expectation.quadrature.given({}, make(t), smooth, num_nodes=40)  # noqa: E731
    exact_grad, means = jax.jit(jax.grad(grid))(POINT), []
    for rule in (expectation.score_function, expectation.pathwise):
        noise, weights = expectation.nodes(rule, make(POINT), size=40)
        each = jax.jit(jax.vmap(jax.grad(lambda t, n, r=rule: r.given(n, make(t), smooth)), (None, 0)))(POINT, noise)
        means.append(weights @ np.asarray(each))
        np.testing.assert_allclose(means[-1], exact_grad, atol=1e-12)
        assert np.abs(np.linspace(0.5, 1.5, len(weights)) * weights @ np.asarray(each) - exact_grad).max() > 1e-3


def test_identity_22_the_score_function_tends_to_the_deterministic_gradient_and_its_variance_to_infinity() -> None:
    f, theta = (lambda x: jnp.sin(x[..., 0]) + 0.3 * x[..., 0] ** 2), np.array([0.7])
    limit = np.cos(0.7) + 0.6 * 0.7
    noise, weights = expectation.nodes(expectation.score_function, pg.Normal(theta, 1.0), size=60)
    one = lambda t, n, sigma: expectation.score_function.given(n, pg.Normal(t, sigma), f)  # noqa: E731
    scores = jax.jit(jax.vmap(jax.grad(one), (None, 0, None)))
    bias, scaled = [], []
    for sigma in (0.2, 0.1, 0.05):
        each = np.asarray(scores(theta, noise, sigma))[:, 0]
        mean = weights @ each
        np.testing.assert_allclose(mean, np.cos(0.7) * np.exp(-(sigma**2) / 2) + 0.42, rtol=1e-10)
        bias.append(abs(mean - limit))
        scaled.append(sigma**2 * weights @ (each - mean) ** 2)
    np.testing.assert_allclose(np.divide(bias[:2], bias[1:]), 4.0, rtol=0.02)
    np.testing.assert_allclose(scaled[2], f(theta) ** 2, rtol=0.05)  # the variance is f(μ)²/σ² in the limit
    at_mode = jax.grad(lambda t: expectation.at_mode.given({}, pg.Normal(t, 1.0), f))(theta)
    np.testing.assert_allclose(at_mode, limit, rtol=1e-12)


def test_identity_21_the_deterministic_policy_gradient_of_a_linear_quadratic_system_is_that_of_the_formula() -> None:
    """The critic is exact and quadratic, the states are nodes with the discounted second moment of the system."""
    lqr, gain = exact.double_integrator()
    gain, gamma = np.asarray(gain, float), 0.95
    a, b, q, r = (np.asarray(getattr(lqr, n), float) for n in ("A", "B", "Q", "R"))
    closed = a - b @ gain
    p = moment = np.zeros((2, 2))
    start, push = np.eye(2), b @ np.array([[0.1]]) @ b.T + 0.01 * np.eye(2)
    for _ in range(4000):
        p = q + gain.T @ r @ gain + gamma * closed.T @ p @ closed
        moment = start + gamma * closed @ moment @ closed.T + gamma / (1 - gamma) * push
    nodes, weights = (np.asarray(x) for x in exact.gauss_hermite(2, (2,)))
    states = nodes @ np.linalg.cholesky(moment).T

    def critic(obs: Any, action: Any) -> Any:
        after = obs @ a.T + action @ b.T
        form = lambda m, x: jnp.einsum("...i,ij,...j->...", x, m, x)  # noqa: E731
        return -(form(q, obs) + form(r, action) + gamma * form(p, after))

    no = np.zeros((1, len(weights)), bool)
    one = np.ones(no.shape)
    batch = pg.Trajectory(states[None], one[..., None], one, states[None], no, no, one, no.astype(int))
    batch = jax.tree.map(jnp.asarray, batch)
    policy = lambda k, obs: pg.Normal(-obs @ k.T, np.sqrt(0.1))  # noqa: E731
    for rule in (expectation.at_mode, expectation.quadratic, expectation.quadrature.using(num_nodes=2)):
        each = pg.expected_gradient.per_trajectory(jnp.asarray(gain), batch, policy=policy, critic=critic, rule=rule)[0]
        got = np.tensordot(weights, np.asarray(each), 1)
        np.testing.assert_allclose(got, [[-5.25100867, -0.5657994964]], rtol=1e-8)
        np.testing.assert_allclose(got, lqr.cost_gradient(jnp.asarray(gain)), rtol=1e-9)
    assert np.abs(np.asarray(each).mean(0) * 1.01 - got).max() > 0.01


def test_rows_are_apart_and_a_wrong_distribution_is_named() -> None:
    loc = np.random.default_rng(2).normal(size=(3, 4, 2))
    for rule in (expectation.quadratic, expectation.quadrature):
        value = jax.jit(lambda x, rule=rule: rule.given({}, pg.Normal(x, 0.5), polynomial))
        many, one = value(loc), value(loc[1, 2])
        assert many.shape == (3, 4)
        np.testing.assert_allclose(many[1, 2], one, rtol=1e-12)
        with pytest.raises(TypeError, match=rf"^{rule.name} needs a Normal.*got Categorical.*[Uu]se .*enumerated"):
            rule.given({}, pg.Categorical(loc), polynomial)
    with pytest.raises(TypeError, match=r"got TanhNormal.*Use quadrature"):
        expectation.quadratic.given({}, pg.TanhNormal(loc, 0.5), polynomial)
    with pytest.raises(ValueError, match=r"num_nodes=200 for each of 3 components makes more than"):
        expectation.quadrature.given({}, pg.Normal(np.zeros(3), 0.5), lambda x: x[..., 0], num_nodes=200)
    with pytest.raises(ValueError, match=r"^num_nodes must be at least 1"):
        expectation.quadrature.given({}, pg.Normal(np.zeros(1), 0.5), lambda x: x[..., 0], num_nodes=0)
