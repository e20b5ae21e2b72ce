"""Rules for normal actions with the Taylor polynomial of f as control variate, whose expectation is known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.distributions import Normal
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import differentiable_sample, evaluate, rows_of, sampled
from pgjax.expectation.terms import gradient_only, weighted

Array = jax.Array
stop = jax.lax.stop_gradient


@rule(x="own")
def taylor(distribution: Any, f: Callable[[Any], Array], *, x: Any, order: int = 2) -> Array:
    """Estimate ∇ E f(x) of a normal by the score function, less the Taylor polynomial of f around the mean.

        h(x) = f(m) + ∇f(m)ᵀ (x − m) + ½ (x − m)ᵀ H(m) (x − m),   m the mean; without the last term for order 1
        ∇ E f(x) = E[ (f(x) − h(x)) ∇ log p(x) + ∇ f(x) ] + ∇ E h(x),   E h = f(m) + ∇f(m)ᵀ (μ − m) + ½ Σ_i H_ii σ_i²

    Known as the delta method, or as the expansion in MuProp. The polynomial is held fixed where E h is differentiated.

    Shapes: actions [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: a Normal.
        f: of an action [..., D], gives [...]; twice differentiable at the mean, anything elsewhere. What it gives for
            one row must not depend on the others.
        order: 1 or 2.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is no Normal, or f does not give numbers.
        ValueError: if f does not give one number for each row, or order is neither 1 nor 2.

    Properties:
        Unbiased for any f whose derivatives at the mean are finite. Without variance where f is a polynomial of that
        order; far from the mean a polynomial may be a bad control and raise the variance. Evaluates f at the sample and
        the mean, its gradient there, and for order 2 its Hessian, D further derivatives.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import taylor
        >>> f = lambda a: a[..., 0] ** 2
        >>> print(jax.grad(lambda loc: taylor(jax.random.key(0), Normal(loc, 2.0), f))(jnp.ones(1)).round(4))
        [2.]

    References:
        Gu, Levine, Sutskever and Mnih (2016), MuProp: unbiased backpropagation for stochastic neural networks.
        Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, on control variates by the delta
        method.
    """
    action, log_prob = sampled("taylor", _normal("taylor", distribution), x)
    value = evaluate("f", f, action, rows_of("taylor", distribution))
    polynomial, expected = _expansion(distribution, f, order)
    return value + weighted(value - polynomial(action), gradient_only(log_prob)) + gradient_only(expected)


@rule(x="own")
def taylor_pathwise(distribution: Any, f: Callable[[Any], Array], *, x: Any, order: int = 2) -> Array:
    """Estimate ∇ E f(x) of a normal through the sample, less the Taylor polynomial of f around the mean.

        ∇ E f(x) = E[ ∇ (f − h)(μ + σ ε) ] + ∇ E h(x),   h as in `taylor`

    Order 2 is the linear expansion of the gradient of f, the control variate of reparameterisation gradients.

    Shapes: actions [..., D]; result [...].

    Args:
        As `taylor`, and:
        key: a JAX random key; it is consumed.
        distribution: a Normal.
        f: of an action [..., D], gives [...]; continuous, and differentiable almost everywhere and at the mean.
        order: 1 or 2.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is no Normal, or f does not give numbers.
        ValueError: if f does not give one number for each row, or order is neither 1 nor 2.

    Properties:
        Unbiased for continuous f. Without variance where f is a polynomial of that order. Order 1 changes the gradient
        with respect to the deviations alone. Cost as that of `taylor`, and one derivative more.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import taylor_pathwise
        >>> f = lambda a: a[..., 0] ** 2
        >>> g = jax.grad(lambda loc: taylor_pathwise(jax.random.key(0), Normal(loc, 2.0), f))(jnp.ones(1))
        >>> print(g.round(4))
        [2.]

    References:
        Miller, Foti, D'Amour and Adams (2017), Reducing reparameterization gradient variance.
    """
    action = differentiable_sample("taylor_pathwise", _normal("taylor_pathwise", distribution), x)
    value = evaluate("f", f, action, rows_of("taylor_pathwise", distribution))
    polynomial, expected = _expansion(distribution, f, order)
    return value + gradient_only(expected) - gradient_only(polynomial(action))


def _normal(name: str, distribution: Any) -> Normal:
    if not isinstance(distribution, Normal):
        raise TypeError(
            f"{name} makes no sense for {type(distribution).__name__}: the expectation of a polynomial must be known. "
            "Use pathwise, score_function or enumerated; for a tree of Normals, one Normal of all components."
        )
    return distribution


def _expansion(distribution: Normal, f: Callable[[Any], Array], order: int) -> tuple[Callable[[Any], Array], Array]:
    """The polynomial as a function of the action, and its expectation with gradients to the mean and deviation."""
    if isinstance(order, bool) or order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order}. Without a polynomial the rule is score_function.")
    mean = stop(distribution.loc)
    total = lambda a: jnp.sum(evaluate("f", f, a, rows_of("taylor", distribution)))  # noqa: E731
    value, slope = stop(evaluate("f", f, mean, rows_of("taylor", distribution))), jax.grad(total)
    gradient = stop(slope(mean))
    away = distribution.loc - mean
    if order == 1:
        return lambda a: value + _dot(gradient, a - mean), value + _dot(gradient, away)
    # Rows do not mix, so one direction for all of them gives a column of each row's own Hessian.
    basis = jnp.eye(mean.shape[-1], dtype=mean.dtype)
    column = lambda e: jax.jvp(slope, (mean,), (jnp.broadcast_to(e, mean.shape),))[1]  # noqa: E731
    hessian = stop(jax.vmap(column, out_axes=-1)(basis))  # [..., D, D]

    def polynomial(action: Any) -> Array:
        d = action - mean
        return value + _dot(gradient, d) + 0.5 * jnp.einsum("...i,...ij,...j->...", d, hessian, d)

    spread = jnp.einsum("...ii,...i->...", hessian, jnp.square(distribution.scale))
    return polynomial, value + _dot(gradient, away) + 0.5 * spread


def _dot(x: Array, y: Array) -> Array:
    return jnp.sum(x * y, axis=-1)
