"""Problems E f(x) whose value and gradient are known by other means than the rules.

In each, theta makes the distribution and w is what f closes over; f depends on theta, too, so that its own gradient
counts. `exact` is written with plain sums, or in closed form, and differentiated by JAX.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg

THETA, W = np.array([0.4, -0.7, 0.3]), np.array([0.8, -1.1, 0.5])
MASK = np.array([True, False, True])


class Problem(NamedTuple):
    """E f(x), x ~ make(theta), with f(x) = f(x, theta, w)."""

    make: Callable[[Any], Any]
    f: Callable[[Any, Any, Any], Any]
    exact: Callable[[Any, Any], Any]  # (theta, w) -> E f


def vector_f(x: Any, theta: Any, w: Any) -> Any:
    """Of an action [..., D]: neither linear nor separable."""
    s = x @ w[: x.shape[-1]]
    return jnp.tanh(s) + s**2 + theta[0] ** 2 * x[..., 0]


def index_f(x: Any, theta: Any, w: Any) -> Any:
    """Of an index: a table, some of it learned."""
    return w[x] ** 2 + theta[1] * x


def total(probs: Any, actions: Any, f: Any) -> Any:
    return sum(p * f(np.asarray(a)) for p, a in zip(probs, actions, strict=True))


def softmax(logits: Any) -> Any:
    e = jnp.exp(logits)
    return [e[k] / e.sum() for k in range(logits.shape[0])]


def bernoulli(size: int) -> Problem:
    def exact(theta: Any, w: Any) -> Any:
        p = 1.0 / (1.0 + jnp.exp(-theta[:size]))
        actions = list(itertools.product((0, 1), repeat=size))
        probs = [jnp.prod(jnp.where(np.asarray(a) == 1, p, 1.0 - p)) for a in actions]
        return total(probs, actions, lambda a: vector_f(a.astype(float), theta, w))

    return Problem(lambda theta: pg.Bernoulli(theta[:size]), vector_f, exact)


def categorical(mask: Any = None) -> Problem:
    allowed = np.flatnonzero(np.ones(3) if mask is None else mask)
    return Problem(
        lambda theta: pg.Categorical(theta, mask),
        index_f,
        lambda theta, w: total(softmax(theta[allowed]), allowed, lambda a: index_f(a, theta, w)),
    )


def two_way(cls: Any) -> Problem:
    """Two actions, for rules whose noise is one number for each action."""
    f = index_f if cls is pg.Categorical else vector_f
    actions = [0, 1] if cls is pg.Categorical else np.eye(2)
    return Problem(
        lambda theta: cls(theta[:2]), f, lambda theta, w: total(softmax(theta[:2]), actions, lambda a: f(a, theta, w))
    )


def one_hot(mask: Any = None) -> Problem:
    allowed = np.flatnonzero(np.ones(3) if mask is None else mask)
    return Problem(
        lambda theta: pg.OneHotCategorical(theta, mask),
        vector_f,
        lambda theta, w: total(softmax(theta[allowed]), np.eye(3)[allowed], lambda a: vector_f(a, theta, w)),
    )


def ragged() -> Problem:
    def exact(theta: Any, w: Any) -> Any:
        p, q = softmax(theta[:2]), softmax(theta)
        actions = list(itertools.product(range(2), range(3)))
        return total([p[i] * q[j] for i, j in actions], actions, lambda a: vector_f(a.astype(float), theta, w))

    return Problem(lambda theta: pg.MultiCategorical((theta[:2], theta)), vector_f, exact)


def one_of_multi() -> Problem:
    f = lambda x, theta, w: index_f(x[..., 0], theta, w)  # noqa: E731
    return two_way(pg.Categorical)._replace(make=lambda theta: pg.MultiCategorical(theta[None, :2]), f=f)


def normal() -> Problem:
    """f = w0 sin x0 + w1 x1³ + w2 x0 x1 + theta0² x0, whose mean under a normal has a closed form."""

    def f(x: Any, theta: Any, w: Any) -> Any:
        a, b = x[..., 0], x[..., 1]
        return w[0] * jnp.sin(a) + w[1] * b**3 + w[2] * a * b + theta[0] ** 2 * a

    def exact(theta: Any, w: Any) -> Any:
        (m, n), s = theta[:2], jnp.exp(theta[2])
        return (
            w[0] * jnp.sin(m) * jnp.exp(-(s**2) / 2) + w[1] * (n**3 + 3 * n * s**2) + w[2] * m * n + theta[0] ** 2 * m
        )

    return Problem(lambda theta: pg.Normal(theta[:2], jnp.exp(theta[2])), f, exact)


def smooth_f(x: Any, theta: Any, w: Any) -> Any:
    return w[0] * jnp.sin(2.0 * x[..., 0]) + w[1] * x[..., 0] ** 2 + theta[0] ** 2 * x[..., 0]


def tanh_normal() -> Problem:
    z = np.linspace(-9.0, 9.0, 2001)
    weights = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()

    def exact(theta: Any, w: Any) -> Any:
        a = -0.5 + 2.0 * jnp.tanh(theta[1] + jnp.exp(theta[2]) * z)
        return weights @ smooth_f(a[:, None], theta, w)

    return Problem(lambda theta: pg.TanhNormal(theta[1:2], jnp.exp(theta[2]), -2.5, 1.5), smooth_f, exact)


def beta() -> Problem:
    k = np.linspace(-3.2, 3.2, 801)
    x = 1.0 / (1.0 + np.exp(-np.pi * np.sinh(k)))
    weights = np.cosh(k) / np.cosh(0.5 * np.pi * np.sinh(k)) ** 2

    def exact(theta: Any, w: Any) -> Any:
        a, b = 2.0 + jnp.exp(theta[0]), 1.5 + jnp.exp(theta[1])
        p = weights * x ** (a - 1.0) * (1.0 - x) ** (b - 1.0)
        return p @ smooth_f(-1.0 + 3.0 * jnp.asarray(x)[:, None], theta, w) / p.sum()

    make = lambda theta: pg.Beta(2.0 + jnp.exp(theta[:1]), 1.5 + jnp.exp(theta[1]), -1.0, 2.0)  # noqa: E731
    return Problem(make, smooth_f, exact)


def joint_discrete() -> Problem:
    """A tree of two distributions: a dict."""

    def f(x: Any, theta: Any, w: Any) -> Any:
        return vector_f(x["bit"], theta, w) * (1.0 + w[x["choice"]])

    def exact(theta: Any, w: Any) -> Any:
        p, q = 1.0 / (1.0 + jnp.exp(-theta[0])), softmax(theta[1:])
        each = [(bit, k) for bit in (0, 1) for k in range(2)]
        value = lambda bit, k: vector_f(np.array([float(bit)]), theta, w) * (1.0 + w[k])  # noqa: E731
        return sum((p if bit else 1.0 - p) * q[k] * value(bit, k) for bit, k in each)

    make = lambda theta: {"bit": pg.Bernoulli(theta[:1]), "choice": pg.Categorical(theta[1:])}  # noqa: E731
    return Problem(make, f, exact)


def joint_mixed() -> Problem:
    """A tree of a discrete and a continuous distribution: a tuple."""

    def f(x: Any, theta: Any, w: Any) -> Any:
        k, a = x
        return w[k] * a[..., 0] ** 2 + theta[0] * a[..., 0]

    def exact(theta: Any, w: Any) -> Any:
        q = softmax(theta[1:])
        square = theta[0] ** 2 + 0.25
        return sum(q[k] * w[k] * square for k in range(2)) + theta[0] ** 2

    return Problem(lambda theta: (pg.Categorical(theta[1:]), pg.Normal(theta[:1], 0.5)), f, exact)


def joint_bits() -> Problem:
    """A tree of two Bernoullis, for relaxed samples."""

    def f(x: Any, theta: Any, w: Any) -> Any:
        return vector_f(jnp.concatenate([x[0] * 1.0, x[1] * 1.0], -1), theta, w)

    return bernoulli(2)._replace(make=lambda theta: (pg.Bernoulli(theta[:1]), pg.Bernoulli(theta[1:2])), f=f)


def estimates(rule: Any, problem: Problem, noise: Any, **options: Any) -> Callable[..., Any]:
    """A program (theta, w, noise, options) -> value [N] and gradients with respect to theta and w [N, 3]."""

    def one(theta: Any, w: Any, noise: Any, options: Any) -> Any:
        return rule.given(noise, problem.make(theta), lambda x: problem.f(x, theta, w), **options)

    many = jax.value_and_grad(one, (0, 1))
    if noise:
        many = jax.vmap(many, (None, None, 0, None))
    static = {name: x for name, x in options.items() if callable(x) or isinstance(x, int)}

    def run(theta: Any, w: Any, noise: Any, options: Any) -> Any:
        return many(theta, w, noise, {**options, **static})

    return jax.jit(run)


def flat(value: Any, grads: Any) -> np.ndarray:
    """Value and gradients as [N, 7]."""
    rows = [np.asarray(x).reshape(-1, width) for x, width in ((value, 1), (grads[0], 3), (grads[1], 3))]
    return np.concatenate(rows, axis=1)
