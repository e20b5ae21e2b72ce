"""The terms that rules are made of, and the gradient that trains a control variate."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial as bind

from pgjax import _checks
from pgjax.expectation.sampling import parts, rows_of

Array = jax.Array
stop = jax.lax.stop_gradient

__all__ = ["bind", "control_gradient", "gradient_only", "through"]


def gradient_only(x: Any) -> Array:
    """Return 0 with the gradient of x.

        x − stop(x)

    A weight times it needs no stop_gradient of its own, since what flows into the weight is multiplied by 0. So the
    weight stays differentiable, which `control_gradient` needs.

    Shapes: x [...]; result [...].

    Args:
        x: [...] float. Where it is infinite, such as the log-probability of an action outside the range, the gradient
            is 0 too: the difference would be NaN.

    Returns:
        [...] zeros.

    Raises:
        TypeError: if x is not floating.

    Properties:
        Its derivatives of any order are those of x.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import gradient_only
        >>> value, slope = jax.value_and_grad(lambda x: 5.0 * gradient_only(x**2))(3.0)
        >>> print(value, slope)
        0.0 30.0

    References:
        Foerster et al. (2018), DiCE: the infinitely differentiable Monte Carlo estimator.
    """
    x = _checks.as_floating("x", x)
    x = jnp.where(jnp.isinf(x), 0.0, x)
    return x - stop(x)


def weighted(weight: Array, term: Array) -> Array:
    """Multiply a term whose value is 0 by a weight, so that the value stays 0 where the weight is infinite.

    The gradient is then NaN there: an infinite f is not hidden.

    Shapes: all [...].

    Args:
        weight: [...] float.
        term: [...] float, 0 with a gradient.

    Returns:
        [...] zeros with the gradient weight · ∇term.
    """
    return jnp.where(jnp.isinf(weight), 0.0, weight * term)


def difference(x: Array, y: Array) -> Array:
    """Subtract, with 0 where both are the same infinity: the value beside it shows that, and no NaN hides it.

    Shapes: x, y broadcast; result of their shape.
    """
    return jnp.where(jnp.isinf(x) & (x == y), 0.0, x - y)


def through(distribution: Any, cotangent: Any) -> Array:
    """Return 0 with a gradient that sends a cotangent into the parameters of a distribution.

        Σ_i c_i (φ_i − stop(φ_i)),   φ the parameters of the distribution; its gradient is (∂φ/∂θ)ᵀ c

    Shapes: leaves of the distribution [..., D]; result [...].

    Args:
        distribution: one of `pgjax.distributions`, or a tree of them.
        cotangent: what the gradient with respect to the parameters is to be: a dict from names of fields to [..., D],
            fields that are left out having 0, or a distribution of the same class, such as `jax.grad` gives. A tree of
            these for a tree of distributions. It may itself carry gradients: they are multiplied by 0.

    Returns:
        [...] zeros, one number for each row.

    Raises:
        TypeError: if cotangent is neither of these.
        ValueError: if it has a field that the distribution has not, or another shape.

    Properties:
        Differentiable any number of times. No cost worth naming.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import through
        >>> term = lambda loc: through(Normal(jnp.tanh(loc), 1.0), {"loc": jnp.array([3.0])})
        >>> print(jax.grad(term)(jnp.zeros(1)))
        [3.]

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay, whose trust region acts on the
        parameters of the distribution.
    """
    batch = rows_of("through", distribution).shape or ()
    return sum((_through(d, c, len(batch)) for d, c in parts("through", distribution, cotangent)[1]), jnp.zeros(batch))


def _through(d: Any, cotangent: Any, batch_ndim: int) -> Array:
    if not isinstance(cotangent, dict):
        if type(cotangent) is not type(d):
            raise TypeError(
                f"cotangent must be a dict from fields of {type(d).__name__} to arrays, or a {type(d).__name__}, "
                f"got {type(cotangent).__name__}."
            )
        cotangent = {name: x for name, x in vars(cotangent).items() if jnp.issubdtype(_dtype(x), jnp.floating)}
    total = jnp.zeros(d.shape[:batch_ndim], jax.tree.leaves(d)[0].dtype)
    for name, c in cotangent.items():
        x = getattr(d, name, None)
        if name not in vars(d) or x is None:
            raise ValueError(f"cotangent has a field {name!r}, which {type(d).__name__} has not.")
        _checks.require_shape(f"cotangent of {name}", c, x.shape, of=name)
        axes = tuple(range(batch_ndim, x.ndim))
        total = total + jnp.sum(c * gradient_only(x), axis=axes)
    return total


def _dtype(x: Any) -> Any:
    return getattr(x, "dtype", jnp.bool_)


def control_gradient(surrogate: Callable[[Any, Any], Array]) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Make a function that gives a gradient, and the derivative of its squared norm with respect to a control variate.

        ĝ = ∂/∂θ surrogate(θ, φ),   ∂/∂φ ‖ĝ‖²

    Since the mean of an unbiased ĝ does not depend on φ, the second is an unbiased estimate of the derivative of its
    total variance, E‖ĝ‖² − ‖E ĝ‖²: descend along it to train the control variate.

    Shapes: surrogate gives a scalar; the results have the shapes of θ and φ.

    Args:
        surrogate: of (params, control), two pytrees of arrays: for instance the mean over rows of
            ``relax.given(noise, distribution(params), f, control=bind(network, control))``.

    Returns:
        A function of (params, control) that gives (grads, like params; derivative, like control).

    Properties:
        Exact for the sample: the derivative passes through every place where the control variate enters, the weight of
        the score included. For a mean over N independent rows it is the derivative of the variance of the mean. The
        cost is that of a derivative of a gradient, about three gradients.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import control_gradient, gradient_only
        >>> surrogate = lambda x, c: (3.0 - c) * gradient_only(x)
        >>> grads, derivative = control_gradient(surrogate)(1.0, 1.0)
        >>> print(grads, derivative)
        2.0 -4.0

    References:
        Grathwohl et al. (2018), Backpropagation through the void, section on the optimisation of the control variate.
    """

    def both(params: Any, control: Any) -> tuple[Any, Any]:
        def square(control: Any) -> tuple[Array, Any]:
            grads = jax.grad(surrogate)(params, control)
            return sum((jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)), jnp.zeros(())), grads

        (_, grads), derivative = jax.value_and_grad(square, has_aux=True)(control)
        return grads, derivative

    return both
