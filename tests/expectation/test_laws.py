"""Laws of noise: what is drawn and what is integrated are the same law; the terms that rules are made of."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax as pg
from pgjax import expectation
from pgjax.expectation import Rule, control_gradient, gradient_only, laws, nodes, taken, through

# The first four moments, and the mean of exp(-x²), of each law.
MOMENTS = {
    "uniform": ([1 / 2, 1 / 3, 1 / 4, 1 / 5], math.sqrt(math.pi) / 2 * math.erf(1.0)),
    "normal": ([0.0, 1.0, 0.0, 3.0], 3.0**-0.5),
    "rayleigh": ([math.sqrt(math.pi / 2), 2.0, 3.0 * math.sqrt(math.pi / 2), 8.0], 1.0 / 3.0),
    "two_sided_maxwell": ([0.0, 3.0, 0.0, 15.0], 3.0**-1.5),
    "sign": ([0.0, 1.0, 0.0, 1.0], math.exp(-1.0)),
}
CDF = {
    "uniform": stats.uniform.cdf,
    "normal": stats.norm.cdf,
    "rayleigh": stats.rayleigh.cdf,
    "two_sided_maxwell": lambda x: 0.5 * (1.0 + np.sign(x) * stats.maxwell.cdf(np.abs(x))),
    "sign": lambda x: np.where(x < -1, 0.0, np.where(x < 1, 0.5, 1.0)),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_nodes_integrate_to_a_dozen_digits(name: str) -> None:
    moments, smooth = MOMENTS[name]
    x, w = getattr(laws, name).nodes(pg.Normal(jnp.zeros(1), 1.0), None, {})
    assert x.shape == (w.size, 1)
    assert x.dtype == np.float64
    np.testing.assert_allclose([w @ x[:, 0] ** k for k in range(5)], [1.0, *moments], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(w @ np.exp(-(x[:, 0] ** 2)), smooth, rtol=1e-12)


def test_uniform_nodes_bear_the_logarithms_of_relaxed_samples() -> None:
    u, w = laws.uniform.nodes(pg.Normal(jnp.zeros(1), 1.0), None, {})
    u = u[:, 0]
    assert w @ np.log(u) == pytest.approx(-1.0, abs=1e-12)
    assert w @ np.log1p(-u) == pytest.approx(-1.0, abs=1e-12)
    assert w @ -np.log(-np.log(u)) == pytest.approx(np.euler_gamma, abs=1e-12)
    assert w @ (np.log(u) - np.log1p(-u)) ** 2 == pytest.approx(np.pi**2 / 3, abs=1e-11)


def test_few_normal_nodes_are_exact_for_polynomials_and_many_for_functions_with_poles() -> None:
    d = pg.Normal(jnp.zeros(1), 1.0)
    x, w = laws.normal.nodes(d, 5, {})
    assert x.size == 5
    np.testing.assert_allclose(w @ x[:, 0] ** 8, 105.0, rtol=1e-12)
    z = np.linspace(-12, 12, 20_001)
    exact = np.tanh(1.3 * z + 1.0) ** 2 @ stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    x, w = laws.own.nodes(pg.TanhNormal(jnp.zeros(1), 1.0), None, {})
    assert w @ np.tanh(1.3 * x[:, 0] + 1.0) ** 2 == pytest.approx(exact, abs=1e-13)


def test_few_rayleigh_nodes_are_exact_for_polynomials_and_pieces_between_their_breaks() -> None:
    d = pg.Normal(jnp.zeros(1), 1.0)
    x, w = laws.rayleigh.nodes(d, 5, {})
    assert x.size == 5
    powers = [w @ x[:, 0] ** 8, w @ x[:, 0] ** 9]
    np.testing.assert_allclose(powers, [384.0, 945.0 * math.sqrt(math.pi / 2)], rtol=1e-11)
    u, w = nodes(expectation.arm, pg.Bernoulli(np.array([0.4])))
    u, p = u["u"][:, 0], 1.0 / (1.0 + math.exp(-0.4))
    np.testing.assert_allclose(w @ ((u < p) * u**3), p**4 / 4.0, rtol=1e-13)
    np.testing.assert_allclose(w @ ((1.0 - u < p) * u**2), (1.0 - (1.0 - p) ** 3) / 3.0, rtol=1e-13)


@pytest.mark.parametrize("name", MOMENTS)
def test_what_is_drawn_follows_the_law(name: str) -> None:
    n = 20_000
    d = pg.Normal(jnp.zeros((n, 1), jnp.float32), 1.0)
    law = getattr(laws, name)
    x = np.asarray(jax.jit(lambda key: law.draw(key, d, {}))(jax.random.key(1)))
    assert x.dtype == np.float32
    if name == "sign":
        assert set(x.ravel()) == {-1.0, 1.0}
        assert abs(x.mean()) < 4.5 / math.sqrt(n)
    else:
        assert stats.kstest(x[:, 0], CDF[name]).statistic < 0.016  # the 1e-4 quantile
    assert abs(np.mean(x[1:] * x[:-1]) - np.mean(x) ** 2) < 4.5 * x.var() / math.sqrt(n)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("size", [None, 6])
def test_nodes_of_many_numbers_are_the_product(size: int | None) -> None:
    number = size or 64
    noise, weights = nodes(expectation.pathwise, pg.Normal(jnp.array([1.0, 2.0]), 1.0), size=size)
    assert noise["x"].shape == (number**2, 2)
    np.testing.assert_allclose(weights @ (noise["x"][:, 0] ** 2 * noise["x"][:, 1] ** 4), 3.0, rtol=1e-12)
    twice, weights = nodes(expectation.score_leave_one_out, pg.Bernoulli(jnp.array([0.5])), num_samples=2)
    p = 1.0 / (1.0 + math.exp(-0.5))
    assert twice["x"].action.tolist() == [[[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]]
    np.testing.assert_allclose(weights, [(1 - p) ** 2, p * (1 - p), p * (1 - p), p * p], rtol=1e-13)
    noise, weights = nodes(expectation.relax, pg.Bernoulli(jnp.zeros(1)), size={"u": 3, "v": 4})
    assert weights.shape == (2 * 3 * 4,)
    assert noise["u"].shape == noise["v"].shape == noise["x"].action.shape == (24, 1)


def test_the_own_nodes_of_a_discrete_distribution_are_its_possible_actions() -> None:
    d = pg.Categorical(jnp.array([0.3, 9.0, -0.5], jnp.float32), jnp.array([True, False, True]))
    noise, weights = nodes(expectation.score_function, d)
    assert noise["x"].action.tolist() == [0, 2]
    assert weights.dtype == np.float64
    np.testing.assert_allclose(weights, np.asarray(d.probs)[[0, 2]], rtol=1e-6)


def test_sampled_rules_agree_with_their_nodes() -> None:
    """The mean over keys is the mean over nodes: the noise that is drawn is the noise that is integrated."""
    d = pg.Bernoulli(jnp.array([0.4]))
    control = lambda z: 0.3 * jnp.tanh(z[..., 0])  # noqa: E731
    n = 20_000
    for of, options in ((expectation.relax, {"control": control}), (expectation.straight_through, {})):
        one = lambda l, noise, of=of, o=options: of.given(noise, pg.Bernoulli(l), lambda b: (b[..., 0] - 0.3) ** 2, **o)  # noqa: E731
        drawn = jax.jit(jax.vmap(lambda key, of=of: of.draw(key, d)))(jax.random.split(jax.random.key(2), n))
        grads = jax.jit(jax.vmap(jax.grad(one), (None, 0)))
        noise, weights = nodes(of, d)
        sampled, exact = np.asarray(grads(d.logits, drawn))[:, 0], weights @ np.asarray(grads(d.logits, noise))[:, 0]
        assert abs(sampled.mean() - exact) < 4.5 * sampled.std() / math.sqrt(n)
        squares = weights @ np.asarray(grads(d.logits, noise))[:, 0] ** 2
        assert (sampled**2).mean() == pytest.approx(squares, rel=0.05)


def test_pathwise_through_a_beta_by_its_keys() -> None:
    make = lambda theta: pg.Beta(1.5 + jnp.exp(theta[:1]), 2.0 + theta[1:])  # noqa: E731
    theta, n = jnp.array([0.3, 0.5]), 4000
    one = jax.grad(lambda theta, key: expectation.pathwise(key, make(theta), lambda a: a[..., 0] ** 2))
    grads = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(theta, jax.random.split(jax.random.key(0), n)))

    def exact(theta: Any) -> Any:
        a, b = 1.5 + jnp.exp(theta[0]), 2.0 + theta[1]
        return a * (a + 1.0) / ((a + b) * (a + b + 1.0))

    truth = jax.jit(jax.grad(exact))(theta)
    error = np.abs(grads.mean(0) - truth)
    assert np.all(error < 4.5 * grads.std(0) / math.sqrt(n))
    assert np.all(np.abs(truth) > 20 * grads.std(0) / math.sqrt(n))


# --- second moments ---------------------------------------------------------------------------------------------


def moments(of: Rule, make: Any, params: Any, f: Any, **options: Any) -> tuple[np.ndarray, float]:
    noise, weights = nodes(of, make(params), **options)
    one = jax.grad(lambda p, n: of.given(n, make(p), f, **options))
    rows = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(params, noise)).reshape(weights.size, -1)
    return weights @ rows, weights @ (rows**2).sum(1)


def test_second_moments_on_a_quadratic_are_the_closed_forms() -> None:
    """f = f0 + g·(a − μ) + (a − μ)ᵀM(a − μ)/2 under N(μ, σ²I): the score function's and the path's, per the mean."""
    g, m, sigma, f0, b = np.array([0.7, -0.4]), np.array([[1.2, 0.3], [0.3, -0.5]]), 0.6, 1.1, 0.4
    mu, mu0 = jnp.array([0.2, -0.1]), np.array([0.2, -0.1])
    f = lambda a: f0 + (a - mu0) @ g + 0.5 * jnp.einsum("...i,ij,...j", a - mu0, m, a - mu0)  # noqa: E731
    make = lambda loc: pg.Normal(loc, sigma)  # noqa: E731
    d, c, trace = 2, f0 - b, np.trace(m)
    score = (
        d * c**2
        + sigma**2 * (d + 2) * g @ g
        + sigma**4 * (d + 4) * (trace**2 + 2 * np.trace(m @ m)) / 4
        + sigma**2 * (d + 2) * c * trace
    ) / sigma**2
    mean, square = moments(expectation.score_function.using(baseline=b), make, mu, f)
    np.testing.assert_allclose(mean, g, atol=1e-12)
    np.testing.assert_allclose(square, score, rtol=1e-12)
    mean, square = moments(expectation.pathwise, make, mu, f)
    np.testing.assert_allclose(mean, g, atol=1e-12)
    np.testing.assert_allclose(square - g @ g, sigma**2 * np.trace(m @ m), rtol=1e-12)


def test_second_moment_of_leave_one_out_is_that_of_every_pair() -> None:
    logits, table = jnp.array([0.2, -0.5, 0.4]), np.array([1.0, 0.2, -0.7])
    p = np.exp(logits) / np.exp(logits).sum()
    scores = np.eye(3) - p
    pairs = [(p[i] * p[j], 0.5 * (table[i] - table[j]) * (scores[i] - scores[j])) for i in range(3) for j in range(3)]
    mean, square = moments(
        expectation.score_leave_one_out, pg.Categorical, logits, lambda a: jnp.asarray(table)[a], num_samples=2
    )
    np.testing.assert_allclose(mean, sum(w * g for w, g in pairs), atol=1e-15)
    np.testing.assert_allclose(mean, p * (table - p @ table), atol=1e-15)
    np.testing.assert_allclose(square, sum(w * g @ g for w, g in pairs), rtol=1e-13)


# --- terms ------------------------------------------------------------------------------------------------------


def test_gradient_only_is_zero_with_every_derivative_and_never_nan() -> None:
    g = lambda x: gradient_only(jnp.exp(2.0 * x))  # noqa: E731
    assert g(0.5) == 0.0
    assert jax.grad(g)(0.5) == pytest.approx(2.0 * math.e)
    assert jax.grad(jax.grad(g))(0.5) == pytest.approx(4.0 * math.e)
    for x in (-np.inf, np.inf):
        assert jax.value_and_grad(gradient_only)(x) == (0.0, 0.0)
    out_of_range = lambda l: 3.0 * gradient_only(pg.Categorical(l).log_prob(jnp.int32(7)))  # noqa: E731
    value, grad = jax.value_and_grad(out_of_range)(jnp.zeros(2))
    assert value == 0.0
    assert grad.tolist() == [0.0, 0.0]
    assert np.isnan(gradient_only(np.nan))


def test_through_sends_a_cotangent_into_the_parameters() -> None:
    rng = np.random.default_rng(0)
    theta, c, s = rng.normal(size=(4, 2)), rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    make = lambda t: pg.Normal(jnp.sin(t), jnp.exp(t))  # noqa: E731
    total = lambda t, how: jnp.sum(jnp.arange(4.0) * through(make(t), how))  # noqa: E731
    grad = jax.jit(jax.grad(total))(theta, {"loc": c, "scale": s})
    np.testing.assert_allclose(grad, np.arange(4.0)[:, None] * (c * np.cos(theta) + s * np.exp(theta)), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(total)(theta, pg.Normal(c, s)), grad, rtol=1e-12)
    only = jax.grad(total)(theta, {"scale": s})
    np.testing.assert_allclose(only, np.arange(4.0)[:, None] * s * np.exp(theta), rtol=1e-12)
    assert through(make(jnp.asarray(theta)), {"loc": c}).tolist() == [0.0] * 4
    assert jax.grad(lambda c: total(theta, {"loc": c}))(jnp.asarray(c)).tolist() == [[0.0, 0.0]] * 4


def of_parameters(d: Any) -> Any:
    """Some function of all the parameters of a distribution, or of a tree of them."""
    entropies = [x.entropy().sum() for x in jax.tree.leaves(d, is_leaf=lambda x: hasattr(x, "entropy"))]
    return sum(entropies) + sum(jnp.sum(x**2) for x in jax.tree.leaves(d) if x.dtype != bool)


def test_through_takes_the_gradient_of_a_function_of_the_distribution() -> None:
    """∇θ g(d(θ)) in two steps, for every class, masks and sizes included, and for trees."""
    rng = np.random.default_rng(1)
    l = rng.normal(size=(2, 3))
    mask = np.array([True, True, False])
    for make in (
        lambda l: pg.Categorical(l, mask),
        lambda l: pg.OneHotCategorical(l, mask),
        lambda l: pg.MultiCategorical((l, l[..., :2])),
        pg.Bernoulli,
        lambda l: pg.TanhNormal(l, jnp.exp(l), -2.0, 2.0),
        lambda l: pg.Beta(jnp.exp(l), 1.0 + jnp.exp(l)),
        lambda l: {"a": pg.Bernoulli(l), "b": pg.Normal(jnp.sin(l), 1.0)},
    ):

        def both(l: Any, make: Any = make) -> Any:
            cotangent = jax.grad(of_parameters, allow_int=True)(make(l))
            return jax.grad(lambda l: through(make(l), cotangent).sum())(l), jax.grad(lambda l: of_parameters(make(l)))(
                l
            )

        ours, direct = jax.jit(both)(l)
        np.testing.assert_allclose(ours, direct, rtol=1e-10, atol=1e-12)


def test_bad_cotangents_are_named() -> None:
    d = pg.Normal(jnp.zeros((3, 2)), 1.0)
    for cotangent, kind, message in (
        ({"mean": jnp.zeros((3, 2))}, ValueError, "cotangent has a field 'mean', which Normal has not"),
        ({"loc": jnp.zeros(2)}, ValueError, r"cotangent of loc must have the shape of loc, \[3, 2\], got \[2\]"),
        (jnp.zeros((3, 2)), TypeError, "cotangent must be a dict from fields of Normal to arrays, or a Normal"),
        (pg.Bernoulli(jnp.zeros((3, 2))), TypeError, "got Bernoulli"),
    ):
        with pytest.raises(kind, match=message):
            through(d, cotangent)


def test_control_gradient_of_a_known_square() -> None:
    surrogate = lambda p, c: jnp.sum((3.0 - c["b"]) * gradient_only(p["x"])) + c["a"] * p["y"]  # noqa: E731
    params, control = {"x": jnp.zeros(2), "y": jnp.float64(1.0)}, {"a": jnp.float64(0.5), "b": jnp.float64(1.0)}
    grads, derivative = control_gradient(surrogate)(params, control)
    assert grads["x"].tolist() == [2.0, 2.0]
    assert grads["y"] == 0.5
    assert derivative == {"a": 1.0, "b": -8.0}


def test_taken_is_a_pytree_of_actions() -> None:
    assert jax.tree.leaves(taken(1, 2)) == [1, 2]
    assert jax.tree.leaves(taken(1)) == [1]


def test_a_law_of_independent_numbers_draws_and_integrates_each() -> None:
    sign = laws.independent(
        "sign", lambda key, shape, dtype: jax.random.rademacher(key, shape, dtype),
        lambda n: (np.array([-1.0, 1.0]), np.array([0.5, 0.5])), size=2,
    )  # fmt: skip
    d = pg.Normal(jnp.zeros((3, 2)), 1.0)
    assert set(np.unique(sign.draw(jax.random.key(0), d, {}))) <= {-1.0, 1.0}
    noise, weights = sign.nodes(pg.Normal(jnp.zeros(2), 1.0), None, {})
    assert noise.shape == (4, 2)
    np.testing.assert_allclose(weights, 0.25)
    np.testing.assert_allclose(weights @ noise[:, 0], 0.0)


def test_many_draws_lead_and_their_nodes_are_every_combination() -> None:
    law, options = laws.many(laws.uniform), {"num_samples": 3}
    draws = law.draw(jax.random.key(0), pg.Normal(jnp.zeros((5, 2)), 1.0), options)
    assert draws.shape == (3, 5, 2)
    assert len(np.unique(draws)) == 30
    noise, weights = law.nodes(pg.Normal(jnp.zeros(1), 1.0), 4, options)
    assert noise.shape == (len(weights), 3, 1)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-12)
