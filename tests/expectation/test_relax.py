"""RELAX and REBAR sample by sample against the papers, and the gradient that trains the control variate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import pgjax as pg
from pgjax import expectation
from pgjax.expectation import bind, control_gradient, gradient_only, nodes, relax, score_function, taken

RNG = np.random.default_rng(0)


def relax_by_hand(logit: float, x: int, u: float, v: float, f: Any, c: Any, dc: Any, scale: float) -> float:
    """Grathwohl et al. (2018) for one Bernoulli: the gradient with respect to the logit, derivatives written out."""
    p = special.expit(logit)

    def given(noise: float) -> tuple[float, float]:
        u = noise * p + (1.0 - p) if x else noise * (1.0 - p)
        du = (noise - 1.0) * p * (1.0 - p) if x else -noise * p * (1.0 - p)
        return logit + special.logit(u), 1.0 + du / (u * (1.0 - u))

    (z, _), (z_given, slope) = given(u), given(v)
    weight = f(x) - scale * c(z_given)
    return weight * (x - p) + scale * dc(z) - scale * dc(z_given) * slope


def test_relax_is_the_formula_of_the_paper_sample_by_sample() -> None:
    n = 50
    logits, u, v = RNG.normal(size=n), *RNG.uniform(size=(2, n))
    x = RNG.integers(2, size=n)
    f, c, dc = (lambda b: (b - 0.45) ** 2), (lambda z: np.sin(0.7 * z)), (lambda z: 0.7 * np.cos(0.7 * z))

    def one(logit: Any, x: Any, u: Any, v: Any) -> Any:
        noise = {"x": taken(x[None]), "u": u[None], "v": v[None]}
        control = lambda z: jnp.sin(0.7 * z[..., 0])  # noqa: E731
        d, g = pg.Bernoulli(logit[None]), lambda b: (b[..., 0] - 0.45) ** 2
        return relax.given(noise, d, g, control=control, scale=0.6)

    value, grad = jax.jit(jax.vmap(jax.value_and_grad(one)))(logits, x, u, v)
    by_hand = [relax_by_hand(*row, f, c, dc, 0.6) for row in zip(logits, x, u, v, strict=True)]
    np.testing.assert_allclose(grad, by_hand, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(value, f(x), rtol=1e-14)


def test_relax_of_three_actions_is_the_formula_of_the_paper_sample_by_sample() -> None:
    """The same for a categorical, whose derivatives come from differences of the paper's own expressions."""
    logits, w = np.array([0.4, -1.2, 0.9]), np.array([0.5, -1.0, 2.0])
    control = lambda z, xp: xp.tanh(0.5 * z) @ w  # noqa: E731

    def pieces(logits: Any, x: int, v: Any) -> tuple[Any, Any]:
        p = special.softmax(logits)
        z = -np.log(-np.log(v) / p - np.log(v[x]))
        z[x] = -np.log(-np.log(v[x]))
        return np.log(p), z

    def by_hand(x: int, u: Any, v: Any) -> np.ndarray:
        log_p, z = pieces(logits, x, u)
        gumbel = z - log_p
        weight = w[x] ** 2 - control(pieces(logits, x, v)[1], np)

        def surrogate(l: Any) -> Any:
            log_p, z_given = pieces(l, x, v)
            return weight * log_p[x] + control(log_p + gumbel, np) - control(z_given, np)

        return np.array([(surrogate(logits + s) - surrogate(logits - s)) / 2e-5 for s in 1e-5 * np.eye(3)])

    def one(logits: Any, x: Any, u: Any, v: Any) -> Any:
        d = pg.OneHotCategorical(logits)
        return relax.given(
            {"x": taken(x), "u": u, "v": v}, d, lambda a: (a @ w) ** 2, control=lambda z: control(z, jnp)
        )

    x, u, v = RNG.integers(3, size=20), *RNG.uniform(size=(2, 20, 3))
    grad = jax.jit(jax.vmap(jax.grad(one), (None, 0, 0, 0)))(logits, np.eye(3)[x], u, v)
    np.testing.assert_allclose(grad, [by_hand(*row) for row in zip(x, u, v, strict=True)], atol=1e-8)


def test_relax_with_scale_zero_is_the_score_function() -> None:
    noise, _ = nodes(relax, pg.Bernoulli(np.array([0.3])), size=4)
    make, f = (lambda l: pg.Bernoulli(l[None])), (lambda b: jnp.exp(b[..., 0] * 1.0))

    def both(l: Any, n: Any) -> Any:
        ours = lambda l: relax.given(n, make(l), f, control=lambda z: z[..., 0] ** 2, scale=0.0)  # noqa: E731
        theirs = lambda l: score_function.given({"x": n["x"]}, make(l), f)  # noqa: E731
        return jax.value_and_grad(ours)(l), jax.value_and_grad(theirs)(l)

    ours, theirs = jax.jit(jax.vmap(both, (None, 0)))(0.3, noise)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


# --- training the control variate ------------------------------------------------------------------------------


def network(w: Any, z: Any) -> Any:
    """A control variate with parameters."""
    return w["out"] * jnp.tanh(w["in"] * z[..., 0] + w["shift"]) + w["bias"]


W = {"in": np.float64(0.8), "out": np.float64(0.4), "shift": np.float64(-0.3), "bias": np.float64(0.1)}
LOGITS = np.array([0.7])


def f(b: Any) -> Any:
    return (b[..., 0] - 0.2) ** 2 + 0.5


def surrogate(noise: Any, *, stopped: bool = False) -> Any:
    """RELAX of one sample as a function of (logits, parameters of the control)."""
    if not stopped:
        return lambda logits, w: relax.given(noise, pg.Bernoulli(logits), f, control=bind(network, w))

    def wrong(logits: Any, w: Any) -> Any:
        """The same gradient, but the weight of the score is stopped, and with it the parameters of the control."""
        d = pg.Bernoulli(logits)
        x = noise["x"].action
        z, given = d.relaxed_path(d.relaxed_given(x, noise["u"])), d.relaxed_given(x, noise["v"])
        weight = jax.lax.stop_gradient(f(x) - network(w, given))
        return weight * d.log_prob(x) + gradient_only(network(w, z) - network(w, given))

    return wrong


@pytest.fixture(scope="module")
def sampled_twice() -> tuple[Any, np.ndarray]:
    with jax.enable_x64(True):
        return nodes(relax, pg.Bernoulli(LOGITS), size=40)


def variance(noise: Any, weights: Any, w: Any) -> Any:
    grads = jax.jit(jax.vmap(lambda n: jax.grad(surrogate(n))(jnp.asarray(LOGITS), w)))(noise)
    mean = weights @ grads
    return weights @ jnp.sum(grads**2, -1) - mean @ mean


def test_the_gradient_of_the_control_variate_is_that_of_the_variance(sampled_twice: Any) -> None:
    """Its mean over the noise equals finite differences of the exact variance; with the weight stopped it does not."""
    noise, weights = sampled_twice

    def mean(stopped: bool) -> Any:
        one = lambda n: control_gradient(surrogate(n, stopped=stopped))(jnp.asarray(LOGITS), W)  # noqa: E731
        return jax.jit(lambda noise: jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), jax.vmap(one)(noise)))(noise)

    (grads, right), (same_grads, wrong) = mean(False), mean(True)
    of = jax.jit(lambda w: variance(noise, weights, w))
    for name in W:
        up, down = ({**W, name: W[name] + s} for s in (1e-5, -1e-5))
        differences = (of(up) - of(down)) / 2e-5
        assert float(right[name]) == pytest.approx(float(differences), abs=1e-9)
        assert abs(float(differences)) > 1e-3
    np.testing.assert_allclose(same_grads, grads, rtol=1e-12)
    assert max(abs(float(wrong[name] - right[name])) for name in W) > 0.01
    p = special.expit(LOGITS[0])
    np.testing.assert_allclose(grads, [p * (1 - p) * (0.64 - 0.04)], rtol=1e-12)


def test_a_trained_control_variate_brings_the_variance_below_that_of_the_score_function(sampled_twice: Any) -> None:
    noise, weights = sampled_twice
    step = jax.value_and_grad(lambda w: variance(noise, weights, w))

    @jax.jit
    def train(w: Any) -> Any:
        def body(w: Any, _: Any) -> Any:
            value, grad = step(w)
            return jax.tree.map(lambda x, g: x - 0.5 * g, w, grad), value

        return jax.lax.scan(body, w, length=1500)

    before, trained = (float(x) for x in train(W)[1][jnp.array([0, -1])])
    p = special.expit(LOGITS[0])
    values, scores, probs = np.array([0.54, 1.14]), np.array([-p, 1 - p]), np.array([1 - p, p])
    plain = probs @ (values * scores) ** 2 - (probs @ (values * scores)) ** 2
    assert trained < before
    assert trained < 0.05 * plain
    print(f"\nvariance: score function {plain:.5f}, control before {before:.5f}, trained {trained:.6f}")


def test_control_gradient_passes_through_a_batch_and_any_pytree() -> None:
    """For a mean over N rows it is the derivative of the variance of the mean: 1/N of that of one row."""
    rows, keys = 3, jax.random.split(jax.random.key(0), 4)

    def mean(key: Any) -> Any:
        def of(params: Any, w: Any) -> Any:
            d = pg.Bernoulli(jnp.broadcast_to(params["logits"], (rows, 1)))
            return relax(key, d, f, control=bind(network, w)).mean()

        return of

    one = lambda key: control_gradient(mean(key))({"logits": jnp.asarray(LOGITS)}, W)  # noqa: E731
    grads, derivative = jax.jit(jax.vmap(one))(keys)
    assert grads["logits"].shape == (4, 1)
    assert {name: x.shape for name, x in derivative.items()} == dict.fromkeys(W, (4,))
    square = jax.jit(lambda w: jnp.sum(jax.grad(mean(keys[1]))({"logits": jnp.asarray(LOGITS)}, w)["logits"] ** 2))
    differences = [
        (square({**W, name: W[name] + 1e-5}) - square({**W, name: W[name] - 1e-5})) / 2e-5 for name in ("in", "bias")
    ]
    np.testing.assert_allclose([derivative[name][1] for name in ("in", "bias")], differences, atol=1e-8)


def test_a_baseline_and_the_options_of_rebar_can_be_trained_too() -> None:
    noise, weights = nodes(score_function, pg.Bernoulli(LOGITS))

    def mean(noise: Any, b: Any) -> Any:
        one = lambda n: control_gradient(lambda l, b: score_function.given(n, pg.Bernoulli(l), f, baseline=b))  # noqa: E731
        return weights @ jax.vmap(lambda n: one(n)(jnp.asarray(LOGITS), b)[1])(noise)

    p, (zero, one) = special.expit(LOGITS[0]), f(np.array([[0.0], [1.0]]))
    # d/db E[(f − b)² ψ²] for the two actions, whose scores are −p and 1 − p
    by_hand = -2.0 * ((1.0 - p) * (zero - 0.3) * p**2 + p * (one - 0.3) * (1.0 - p) ** 2)
    np.testing.assert_allclose(jax.jit(mean)(noise, 0.3), by_hand, rtol=1e-12)

    key = jax.random.key(3)

    def of(logits: Any, options: Any) -> Any:
        return expectation.rebar(key, pg.Bernoulli(logits), lambda b: (b[..., 0] - 0.2) ** 2, **options)

    options = {"temperature": 0.7, "scale": 0.8}
    square = jax.jit(lambda o: jnp.sum(jax.grad(of)(jnp.asarray(LOGITS), o) ** 2))
    derivatives = jax.jit(control_gradient(of))(jnp.asarray(LOGITS), options)[1]
    for name in options:
        up, down = ({**options, name: options[name] + s} for s in (1e-5, -1e-5))
        np.testing.assert_allclose(derivatives[name], (square(up) - square(down)) / 2e-5, atol=1e-8)
