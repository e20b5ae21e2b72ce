"""Sums over the trajectories of the other folds, and the regressions made of them; not public.

A fold is a set of trajectories. What is fitted on all folds but one keeps the gradient of that one unbiased: with as
many folds as trajectories it is leave-one-out, with two it is two halves that swap.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks

Array = jax.Array


def checked_folds(num_folds: Any, size: int) -> int:
    """Return the number of folds of so many trajectories, None being one for each."""
    if num_folds is None:
        if size < 2:
            raise ValueError(
                f"num_folds=None leaves each trajectory out, which needs at least 2 of them, got {size}. One has no "
                "others: fit on an earlier batch."
            )
        return size
    count = _checks.as_positive_int("num_folds", num_folds)
    if count > size:
        raise ValueError(f"num_folds={count} must not exceed the {size} trajectories. Pass None for one fold each.")
    return count


def sum_over_others(x: Array, num_folds: int) -> Array:
    """Sum over the rows of x that are not in the fold of each row: [N, ...] -> [N, ...]; over all for one fold.

    Nothing is subtracted, so that one large row costs the others no digits.
    """
    size = x.shape[0]
    fold = (jnp.arange(size) * num_folds) // size
    sums = x if num_folds == size else jax.ops.segment_sum(x, fold, num_folds)
    if num_folds == 1:
        return jnp.broadcast_to(sums, x.shape)
    none = jnp.zeros_like(sums[:1])
    before = jnp.concatenate([none, jnp.cumsum(sums, 0)[:-1]])
    after = jnp.concatenate([jnp.cumsum(sums[::-1], 0)[::-1][1:], none])
    return (before + after)[fold]


def solve_ridge(gram: Array, target: Array, ridge: Array | float) -> Array:
    """Solve (G + ridge · diag G) w = target, [..., F, F] and [..., F]; 0 for what has no curvature."""
    diagonal = jnp.diagonal(gram, axis1=-2, axis2=-1)
    added = jnp.where(diagonal > 0, ridge * diagonal, 1.0)
    if gram.shape[-1] == 1:
        return jnp.where(diagonal > 0, target / (diagonal + added), 0.0)
    matrix = gram + added[..., None] * jnp.eye(gram.shape[-1], dtype=gram.dtype).reshape(
        (1,) * (gram.ndim - 2) + gram.shape[-2:]
    )
    scale = jnp.sqrt(diagonal + added)
    equations = jnp.concatenate([matrix / (scale[..., None] * scale[..., None, :]), (target / scale)[..., None]], -1)

    # Elimination without pivots, as stable as Cholesky's for a positive definite matrix. Several of LAPACK's batched
    # solvers in one program can wait for each other for ever on a CPU of two cores.
    def eliminate(k: Array, equations: Array) -> Array:
        row = equations[..., k, :] / equations[..., k, k][..., None]
        return (equations - equations[..., :, k][..., None] * row[..., None, :]).at[..., k, :].set(row)

    return jax.lax.fori_loop(0, gram.shape[-1], eliminate, equations)[..., -1] / scale
