"""Conjugate gradients in a fixed number of iterations.

`jax.scipy.sparse.linalg.cg` under vmap gave NaN in some processes and not in others, on CPU with jaxlib 0.10.2, where
the same iterations in a scan gave numbers in all.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def dot(x: Any, y: Any) -> Array:
    """Sum the products of the entries of two trees."""
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return sum((jnp.vdot(a, b) for a, b in pairs), jnp.zeros(()))


def conjugate_gradients(product: Callable[[Any], Any], b: Any, *, num_iters: int, tol: float = 0.0) -> Any:
    """Solve A x = b for a symmetric positive definite A, given by its products; stop at the relative residual tol."""
    plus = lambda x, scale, y: jax.tree.map(lambda u, v: (u + scale * v).astype(u.dtype), x, y)  # noqa: E731
    start = dot(b, b)
    tol = max(tol, 8 * float(jnp.finfo(start.dtype).eps))  # what is left below that is rounding

    def iterate(carry: Any, _: None) -> tuple[Any, None]:
        x, residual, direction, square = carry
        along = product(direction)
        curved = dot(direction, along)
        going = (square > tol**2 * start) & (curved > 0)
        length = jnp.where(going, square / jnp.where(going, curved, 1.0), 0.0)
        residual = plus(residual, -length, along)
        after = dot(residual, residual)
        turned = plus(residual, jnp.where(going, after / jnp.where(going, square, 1.0), 0.0), direction)
        direction = jax.tree.map(lambda new, old: jnp.where(going, new, old), turned, direction)
        return (plus(x, length, carry[2]), residual, direction, jnp.where(going, after, square)), None

    carry = (jax.tree.map(jnp.zeros_like, b), b, b, start)
    return jax.lax.scan(iterate, carry, length=num_iters)[0][0]
