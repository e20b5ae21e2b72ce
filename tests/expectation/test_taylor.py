"""Taylor polynomials as control variates: what they leave of the variance, and the limit of narrow normals."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation as ex

LOC, LOG_SCALE = np.array([0.4, -0.7]), np.array([-0.3, 0.2])
CURVE = np.array([[0.9, -0.4], [-0.4, 0.5]])


def linear(a: Any) -> Any:
    return 1.5 + a @ np.array([0.7, -1.2])


def quadratic(a: Any) -> Any:
    return linear(a) + 0.5 * jnp.einsum("...i,ij,...j->...", a, CURVE, a)


def wave(a: Any) -> Any:
    return jnp.sin(a[..., 0] + 0.3) * a[..., 1] + 2.0 * jnp.cos(a[..., 1])


def normal(params: Any) -> pg.Normal:
    return pg.Normal(params[0], jnp.exp(params[1]))


def moments(rule: Any, f: Any, width: float = 1.0, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and variance of the gradient with respect to mean and log deviation, [2, 2] each."""
    params = jnp.stack([LOC, LOG_SCALE + np.log(width)])
    noise, weights = ex.nodes(rule, normal(params), size=24)
    one = jax.grad(lambda params, noise: rule.given(noise, normal(params), f, **options))
    rows = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(params, noise))
    mean = np.tensordot(weights, rows, 1)
    return mean, np.tensordot(weights, np.square(rows - mean), 1)


RULES = {"taylor": (ex.taylor, ex.score_function), "taylor_pathwise": (ex.taylor_pathwise, ex.pathwise)}


@pytest.mark.parametrize("name", RULES)
def test_a_polynomial_of_the_order_leaves_no_variance(name: str) -> None:
    rule, plain = RULES[name]
    scale = np.exp(LOG_SCALE)
    # By hand: ∇E f = g + C μ, and the trace of C with the variances.
    truth = np.stack([np.array([0.7, -1.2]) + CURVE @ LOC, np.diag(CURVE) * scale**2])
    mean, variance = moments(rule, quadratic, order=2)
    np.testing.assert_allclose(mean, truth, rtol=0, atol=1e-12)
    assert variance.max() < 1e-20
    mean, variance = moments(rule, linear, order=1)
    np.testing.assert_allclose(mean, [[0.7, -1.2], [0.0, 0.0]], rtol=0, atol=1e-12)
    assert variance.max() < 1e-20
    mean, variance = moments(rule, quadratic, order=1)
    np.testing.assert_allclose(mean, truth, rtol=0, atol=1e-12)
    assert variance.sum() > 0.1
    assert moments(plain, quadratic)[1].sum() > variance.sum()


@pytest.mark.parametrize("name", RULES)
def test_for_a_narrow_normal_the_variance_falls_with_the_order_and_the_mean_stays(name: str) -> None:
    rule, plain = RULES[name]
    mean, variance = moments(plain, wave, 0.2)
    first, second = moments(rule, wave, 0.2, order=1), moments(rule, wave, 0.2, order=2)
    for got, _ in (first, second):
        np.testing.assert_allclose(got, mean, rtol=0, atol=1e-11)
    assert second[1].sum() < 0.5 * first[1].sum() < 0.5 * variance.sum()
    # Where the normal is wider than the waves of f the polynomial is a bad guess, and costs.
    wide = moments(rule, wave, order=2)
    np.testing.assert_allclose(wide[0], moments(plain, wave)[0], rtol=0, atol=1e-9)
    assert wide[1].sum() > moments(plain, wave)[1].sum()
    # Order 1 leaves the pathwise gradient of the mean as it is: the slope of a line is the same everywhere.
    if name == "taylor_pathwise":
        np.testing.assert_allclose(first[1][0], variance[0], rtol=1e-9)


def test_each_row_has_its_own_polynomial_and_f_its_own_gradient() -> None:
    random = np.random.default_rng(0)
    loc, weights, noise = random.normal(size=(3, 2)), jnp.array([0.6, -1.1]), random.normal(size=(3, 2))

    def each(rule: Any) -> Any:
        def total(loc: Any, weights: Any, noise: Any) -> Any:
            f = lambda a: jnp.tanh(a @ weights) * a[..., 0]  # noqa: E731
            return rule.given({"x": noise}, pg.Normal(loc, 0.5), f).sum()

        return jax.jit(jax.grad(total, (0, 1)))

    for rule in (ex.taylor, ex.taylor_pathwise):
        by_loc, by_weights = each(rule)(loc, weights, noise)
        rows = [each(rule)(loc[i : i + 1], weights, noise[i : i + 1]) for i in range(3)]
        np.testing.assert_allclose(by_loc, np.concatenate([row[0] for row in rows]), rtol=1e-12)
        np.testing.assert_allclose(by_weights, sum(row[1] for row in rows), rtol=1e-12)
        action = loc + 0.5 * noise
        inner = action @ np.asarray(weights)
        own = np.einsum("n,nd->d", action[:, 0] / np.cosh(inner) ** 2, action)
        np.testing.assert_allclose(by_weights, own, rtol=1e-12)


def test_identity_22_the_score_function_of_a_narrow_normal_is_the_deterministic_gradient() -> None:
    """E (f ∇log p) - f'(m) falls as σ², and its variance grows as f(m)² / σ²."""
    f = lambda a: jnp.sin(a[..., 0] + 0.5) + 0.4 * a[..., 0] ** 2  # noqa: E731
    mode = float(jax.grad(lambda loc: ex.at_mode.given({}, pg.Normal(loc, 1.0), f))(jnp.zeros(1))[0])
    np.testing.assert_allclose(mode, np.cos(0.5), rtol=1e-12)
    gaps, variances = [], []
    for scale in (0.2, 0.02):
        noise, weights = ex.nodes(ex.score_function, pg.Normal(jnp.zeros(1), scale), size=24)
        one = jax.grad(lambda loc, noise, scale=scale: ex.score_function.given(noise, pg.Normal(loc, scale), f))
        rows = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(jnp.zeros(1), noise))[:, 0]
        mean = weights @ rows
        gaps.append(mean - mode)
        variances.append(weights @ np.square(rows - mean))
        np.testing.assert_allclose(mean, np.cos(0.5) * np.exp(-0.5 * scale**2), rtol=1e-10)
    np.testing.assert_allclose(gaps[0] / gaps[1], 100.0, rtol=0.02)
    np.testing.assert_allclose(variances[1] * 0.02**2, np.sin(0.5) ** 2, rtol=0.02)
    assert variances[1] > 50 * variances[0]


KEY, ROW = jax.random.key(0), lambda a: a[..., 0] * 1.0
BAD = [
    (lambda: ex.taylor(KEY, pg.Bernoulli(jnp.zeros(1)), ROW), TypeError, "taylor makes no sense for Bernoulli"),
    (lambda: ex.taylor_pathwise(KEY, pg.TanhNormal(jnp.zeros(1), 1.0), ROW), TypeError, "no sense for TanhNormal"),
    (lambda: ex.taylor(KEY, (pg.Normal(jnp.zeros(1), 1.0),), ROW), TypeError, "one Normal of all components"),
    (lambda: ex.taylor(KEY, pg.Normal(jnp.zeros(1), 1.0), ROW, order=3), ValueError, "order must be 1 or 2, got 3"),
    (lambda: ex.taylor_pathwise(KEY, pg.Normal(jnp.zeros(1), 1.0), ROW, order=True), ValueError, "order must be 1 or"),
    (
        lambda: ex.taylor(KEY, pg.Normal(jnp.zeros((2, 1)), 1.0), lambda a: a.sum()),
        ValueError,
        r"f must give one number for each row, shape \[2\], got \[\]",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_bad_combinations_raise_by_name_with_the_remedy(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
