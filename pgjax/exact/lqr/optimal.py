"""The optimal feedback."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.lqr._record import LQRRecord

Array = jax.Array


@compiled()
def riccati(lqr: LQRRecord) -> tuple[Array, Array]:
    """Compute the optimal gain and its cost matrix by iterating the Riccati equation.

        K = (R + γ Bᵀ P B)^{-1} γ Bᵀ P A,   P ← Q + γ Aᵀ P (A - B K),   from P = 0

    Shapes: result [m, n] and [n, n].

    Args:
        lqr: the problem, an `LQR`.

    Returns:
        (K, P), [m, n] and [n, n] float; with a horizon those of the first step, as the optimum then
        depends on time.
    """

    def gain_of(matrix: Array) -> Array:
        ahead = lqr.discount * lqr.B.T @ matrix
        return jnp.linalg.solve(lqr.R + ahead @ lqr.B, ahead @ lqr.A)

    def improve(matrix: Array) -> Array:
        better = lqr.Q + lqr.discount * lqr.A.T @ matrix @ (lqr.A - lqr.B @ gain_of(matrix))
        return 0.5 * (better + better.T)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        matrix, before, count = carry
        change = jnp.max(jnp.abs(matrix - before))
        return (count < 10_000) & (change > 4 * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(matrix)))

    zero = jnp.zeros_like(lqr.Q)
    if lqr.horizon is not None:
        last = jax.lax.fori_loop(0, lqr.horizon - 1, lambda _, matrix: improve(matrix), zero)
        return gain_of(last), improve(last)
    start = (improve(zero), zero, jnp.zeros((), int))
    matrix, *_ = jax.lax.while_loop(unfinished, lambda carry: (improve(carry[0]), carry[0], carry[2] + 1), start)
    return gain_of(matrix), matrix
