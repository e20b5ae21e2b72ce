"""The one recurrence that every target is an instance of."""

from typing import Literal

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._sharding import varying_as

Array = jax.Array
Method = Literal["scan", "associative"]


@compiled("method", "reverse")
def affine_recurrence(
    u: Array, w: Array, *, initial: Array | float = 0.0, reverse: bool = True, method: Method | None = None
) -> Array:
    """Solve the affine recurrence X_t = u_t + w_t X_{t+1} over the leading axis.

        X_t = u_t + w_t X_{t+1},  X_T = initial          (reverse=True)
        X_t = u_t + w_t X_{t-1},  X_{-1} = initial       (reverse=False)

    Shapes: u, w [T, ...]; initial [...] or scalar; result [T, ...].

    Args:
        u: [T, ...] float, the term that is added at each step.
        w: [T, ...] float, the factor of the neighbouring step; dimensionless.
        initial: [...] or scalar, the value beyond the end.
        reverse: backwards in time if true, forwards if false.
        method: "scan" is sequential, "associative" has depth log T. None chooses by the backend:
            scan on CPU, where it is several times faster; associative on accelerators from 16 steps on.

    Returns:
        [T, ...] float, X.

    Raises:
        TypeError: if u or w is not floating.
        ValueError: if w has not the shape of u, if initial does not broadcast to a row of u, if they are empty,
            or if method is unknown.

    Properties:
        Linear in u and in initial; differentiable in all three. Where w is 0 nothing of the neighbouring step comes
        in, not even NaN or infinity; elsewhere they spread. Their gradient is 0. Time O(T), memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.affine_recurrence(jnp.ones(3), jnp.full(3, 0.5)))
        [1.75 1.5  1.  ]

    References:
        Blelloch (1990), Prefix sums and their applications: the associative form
        (w1, u1) o (w2, u2) = (w1 w2, u1 + w1 u2).
    """
    u = _checks.as_floating("u", u, ndim_at_least=1)
    w = _checks.as_floating("w", w, ndim_at_least=1)
    _checks.require_same_shape("u", u.shape, w=w)
    if method is None:
        method = "scan" if jax.default_backend() == "cpu" or u.shape[0] < 16 else "associative"
    dtype = jnp.promote_types(u.dtype, w.dtype)
    u, w = u.astype(dtype), w.astype(dtype)
    start = _checks.broadcast_to("initial", initial, u.shape[1:], of="a row of u").astype(dtype)
    start = varying_as(start, u, w)
    if method == "scan":
        return _affine_scan(u, w, start, reverse)
    if method == "associative":
        edge = -1 if reverse else 0
        u = u.at[edge].add(weigh(w[edge], start))
        _, x = jax.lax.associative_scan(_compose, (w, u), reverse=reverse)
        return x
    raise ValueError(f'method must be "scan", "associative" or None, got {method!r}.')


def _affine_scan(u: Array, w: Array, start: Array, reverse: bool) -> Array:
    def step(x: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        u_t, w_t = row
        x = u_t + weigh(w_t, x)
        return x, x

    return jax.lax.scan(step, start, (u, w), reverse=reverse)[1]


def _compose(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
    # associative_scan(reverse=True) hands over the part further along the scan first: it is the inner map.
    w_inner, u_inner = later
    w_outer, u_outer = earlier
    return weigh(w_outer, w_inner), u_outer + weigh(w_outer, u_inner)


def weigh(w: Array, x: Array) -> Array:
    """Multiply x by a weight: 0 where the weight is 0, whatever x is; what is not finite counts as a constant.

    Otherwise the gradient with respect to a weight would hold 0 times NaN wherever a NaN was left out of the result.
    """
    finite = jnp.isfinite(x)
    return w * jnp.where(finite, x, 0.0) + jax.lax.stop_gradient(jnp.where(finite | (w == 0), 0.0, w * x))
