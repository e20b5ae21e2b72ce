"""Means of the returns of several trajectories: of the others, or of all."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled("axis")
def leave_one_out(return_: Array, mask: Array | None = None, *, axis: int = -1) -> Array:
    """Compute, for each environment, the mean return of all the others.

        b_i = 1/(N-1) Σ_{j≠i} G_j

    Shapes: return_ [T, B] or [..., N]; result alike.

    Args:
        return_: [..., N] float, returns of N independent trajectories along axis.
        mask: [..., N] bool, True for the entries that count; None counts all.
        axis: the axis of the independent trajectories; static. Returns [T, B, A] of agents that share environments
            need axis=1: what one agent does changes the returns of the others.

    Returns:
        [..., N] float, the baseline of each; 0 where no other trajectory counts.

    Raises:
        TypeError: if return_ is not floating or mask is not boolean.
        ValueError: if there are fewer than two trajectories, or shapes differ.

    Properties:
        Keeps the gradient unbiased: b_i does not depend on trajectory i. G_i - b_i = N/(N-1) (G_i - mean). For
        small N it may raise the variance. One pass, no N x N matrix.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.leave_one_out(jnp.array([1.0, 2.0, 6.0])))
        [4.  3.5 1.5]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    if return_.shape[axis] < 2:
        raise ValueError(
            f"return_ must hold at least 2 trajectories along axis {axis}, got shape {list(return_.shape)}. "
            "One trajectory has no others: use baseline=None, a constant or a value baseline."
        )
    mask = jnp.ones_like(return_, bool) if mask is None else _checks.as_boolean("mask", mask, like=return_)
    # Counted from the largest of them, so that the baseline of equal returns is that return without a rounding error:
    # an optimiser that scales gradients up would make a step of it.
    origin = jnp.max(return_, axis, keepdims=True, where=mask, initial=-jnp.inf)
    origin = jax.lax.stop_gradient(jnp.where(jnp.isfinite(origin), origin, 0.0))
    masked = jnp.where(mask, return_ - origin, 0.0)
    others = mask.sum(axis, keepdims=True) - mask
    return jnp.where(others > 0, origin + (masked.sum(axis, keepdims=True) - masked) / jnp.maximum(others, 1), 0.0)


@compiled("axis")
def batch_mean(return_: Array, *, axis: int = -1) -> Array:
    """Compute the mean return over the environments at each step, the own return included.

        b_t = 1/N Σ_j G_tj

    Shapes: return_ [T, B]; result alike.

    Args:
        return_: [..., N] float, returns of N trajectories along axis.
        axis: the axis of the trajectories; static.

    Returns:
        [..., N] float, the mean, repeated along axis.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ is empty.

    Properties:
        Sees its own sample: the expected gradient shrinks to (N-1)/N of the true one, direction unchanged.
        `leave_one_out` is the same without the shrinkage.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.batch_mean(jnp.array([1.0, 2.0, 6.0])))
        [3. 3. 3.]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    return jnp.broadcast_to(return_.mean(axis, keepdims=True), return_.shape)
