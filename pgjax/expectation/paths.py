"""Pathwise estimators: the action is a differentiable function of noise, and f of the action."""

from collections.abc import Callable
from typing import Any

import jax

from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import differentiable_sample, evaluate, map_parts, require_differentiable, rows_of

Array = jax.Array


@rule(x="own")
def pathwise(distribution: Any, f: Callable[[Any], Array], *, x: Any) -> Array:
    """Estimate ∇ E f(x) by differentiating through the sample, ∇ f(g_θ(ε)).

        x = g_θ(ε), ε of a law without parameters:   ∇ E f(x) = E[ ∂f/∂x · ∂g_θ(ε)/∂θ + ∇ f(x) ]

    Shapes: actions [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Normal, TanhNormal or Beta, or a tree of such.
        f: of an action [..., D], gives [...]; continuous, and differentiable almost everywhere.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the actions are discrete, or f does not give numbers. At a `taken` action also for Beta, whose
            action does not determine its noise.
        ValueError: if f does not give one number for each row.

    Properties:
        Unbiased for continuous f; a jump of f is missed, in silence. Unbiased for the second derivative too where f is
        twice differentiable. One evaluation of f and of its derivative. For a quadratic f of a normal of deviation
        σ the variance of the gradient with respect to the mean is σ² tr(M²), M the Hessian.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import pathwise
        >>> f = lambda a: a[..., 0] ** 2
        >>> print(jax.grad(lambda loc: pathwise.given({"x": jnp.array([0.5])}, Normal(loc, 2.0), f))(jnp.ones(1)))
        [4.]

    References:
        Kingma and Welling (2014), Auto-encoding variational Bayes.
        Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients, for Beta.
    """
    action = differentiable_sample("pathwise", distribution, x)
    return evaluate("f", f, action, rows_of("pathwise", distribution))


@rule()
def at_mode(distribution: Any, f: Callable[[Any], Array]) -> Array:
    """Estimate ∇ E f(x) by the gradient of f at the mode, as the deterministic policy gradient does.

        ∇ f(mode_θ)

    Shapes: actions [..., D]; result [...].

    Args:
        key: a JAX random key; not used.
        distribution: Normal, TanhNormal or Beta, or a tree of such. For a TanhNormal the mode is the squashed mean.
        f: of an action [..., D], gives [...], differentiable.

    Returns:
        [...] float: f(mode); its gradient is the estimate.

    Raises:
        TypeError: if the actions are discrete, whose mode has no gradient, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Without noise. Exact for a linear f of a normal; else the gradient of f(mode) and not of E f(x), to which it
        tends as the distribution narrows. One evaluation of f and of its derivative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import at_mode
        >>> print(jax.grad(lambda loc: at_mode.given({}, Normal(loc, 1.0), lambda a: a[..., 0] ** 2))(jnp.ones(1)))
        [2.]

    References:
        Silver et al. (2014), Deterministic policy gradient algorithms.
    """
    require_differentiable("at_mode", distribution)
    action = map_parts("at_mode", lambda d: d.mode(), distribution)
    return evaluate("f", f, action, rows_of("at_mode", distribution))
