"""Estimators for yes-or-no choices that compare f at two opposite samples."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.distributions import Bernoulli
from pgjax.expectation import _quadrature, laws
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, map_parts, parts, rows_of, stop
from pgjax.expectation.terms import difference, gradient_only, weighted

Array = jax.Array


def _nodes(d: Any, size: int | None) -> laws.Nodes:
    """Between 0, p, 1 − p and 1 the pair of samples stays the same: two nodes each integrate squares of u exactly."""
    each = [_quadrature.pieces(np.array([p, 1.0 - p]), size or 2) for p in np.asarray(d.probs, float)]
    values, weights = laws.product(each)
    return np.stack(values, axis=-1).astype(laws.parameter(d).dtype), weights


_augmentation = dataclasses.replace(laws.uniform, name="augmentation", nodes_part=_nodes)
"""Uniform numbers, of which 1 − u makes the opposite sample."""


def _pair(name: str, distribution: Any, f: Callable[[Any], Array], u: Any) -> tuple[Any, Array, Array, list[Any]]:
    """Values of f at both samples, and for each part (its distribution, u, the two samples)."""
    for (d,) in parts(name, distribution)[1]:
        if not isinstance(d, Bernoulli):
            raise TypeError(
                f"{name} makes no sense for {type(d).__name__}: it is for Bernoulli, or trees of Bernoullis. For one "
                "choice among several use unordered_set, score_leave_one_out or relax; where actions are continuous "
                "use pathwise."
            )
    rows = rows_of(name, distribution)
    samples = map_parts(name, lambda d, u: stop(d.sample_from(u)), distribution, u)
    reflected = laws.uniform.mirror(u, distribution)
    others = map_parts(name, lambda d, u: stop(d.sample_from(u)), distribution, reflected)
    one, other = evaluate("f", f, samples, rows), evaluate("f", f, others, rows)
    return 0.5 * (one + other), one, other, parts(name, distribution, u, samples, others)[1]


@rule(u=_augmentation)
def arm(distribution: Any, f: Callable[[Any], Array], *, u: Any) -> Array:
    """Estimate ∇ E f(x) by the values of f at two opposite samples and the uniform number that made both.

        ∂/∂l_i = (f(x) − f(x̃)) (1/2 − u_i),   x_i = 1[u_i < σ(l_i)],   x̃_i = 1[1 − u_i < σ(l_i)]

    Shapes: u, x, x̃ [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli, or a tree of such.
        f: of an action [..., D], gives [...]; it need not be continuous.

    Returns:
        [...] float: the mean of f(x) and f(x̃); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is no Bernoulli, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Unbiased. Two evaluations of f. A constant that is added to f does not matter. `disarm` has less variance at
        the same cost. Swapping x and x̃ changes nothing, so that `mirrored` leaves it as it is.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import arm
        >>> f = lambda a: 8.0 * a[..., 0]
        >>> value = lambda logits: arm.given({"u": jnp.array([0.25])}, Bernoulli(logits), f)
        >>> print(value(jnp.zeros(1)), jax.grad(value)(jnp.zeros(1)))
        4.0 [2.]

    References:
        Yin and Zhou (2019), ARM: augment-REINFORCE-merge gradient for stochastic binary networks.
    """
    value, one, other, components = _pair("arm", distribution, f, u)
    terms = [jnp.sum((0.5 - noise) * gradient_only(d.logits), axis=-1) for d, noise, *_ in components]
    return value + weighted(difference(one, other), sum(terms, jnp.zeros_like(value)))


@rule(u=_augmentation)
def disarm(distribution: Any, f: Callable[[Any], Array], *, u: Any) -> Array:
    """Estimate ∇ E f(x) by the values of f at two opposite samples: the mean of `arm` given these.

        ∂/∂l_i = (f(x) − f(x̃)) (x_i − x̃_i) σ(|l_i|) / 2,   x_i = 1[u_i < σ(l_i)],   x̃_i = 1[1 − u_i < σ(l_i)]

    Shapes: u, x, x̃ [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli, or a tree of such.
        f: of an action [..., D], gives [...]; it need not be continuous.

    Returns:
        [...] float: the mean of f(x) and f(x̃); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is no Bernoulli, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Unbiased. Two evaluations of f. Its variance is at most that of `arm`, in every component. Also known as U2G,
        the unbiased uniform gradient.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import disarm
        >>> f = lambda a: 8.0 * a[..., 0]
        >>> value = lambda logits: disarm.given({"u": jnp.array([0.1])}, Bernoulli(logits), f)
        >>> print(jax.grad(value)(jnp.zeros(1)))  # at any u
        [2.]

    References:
        Dong, Mnih and Tucker (2020), DisARM: an antithetic gradient estimator for binary latent variables.
        Yin, Ho, Yan, Qian and Zhou (2020), Probabilistic best subset selection via gradient-based
        optimization, for U2G.
    """
    value, one, other, components = _pair("disarm", distribution, f, u)
    terms = [
        jnp.sum((x - y) * stop(jax.nn.sigmoid(jnp.abs(d.logits))) * gradient_only(d.logits), axis=-1)
        for d, _, x, y in components
    ]
    return value + weighted(0.5 * difference(one, other), sum(terms, jnp.zeros_like(value)))
