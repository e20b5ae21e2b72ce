"""Exact mean, covariance and split of the variance, from every trajectory of a problem and its probability."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._types import Trajectory
from pgjax.certify.candidate import Candidate
from pgjax.certify.certificate import VarianceTerms
from pgjax.exact.enumeration import groups, weighted_moments

Array = jax.Array
QUICK = {"xla_backend_optimization_level": 0}  # programs that run once: what counts is how soon they are compiled
Finding = tuple[Any, Any, VarianceTerms | None]


def enumerated_moments(candidates: Sequence[Candidate], problem: Any, *, terms: bool) -> list[Finding]:
    """Compute the exact moments of estimators that look at equally many trajectories, all in one program.

    Args:
        candidates: the estimators; their group sizes are the same.
        problem: the problem.
        terms: whether to split the variance, where an estimator takes a `mask`.

    Returns:
        For each, the mean [P] and covariance [P, P] of the estimate from one group, and the split or None.
    """
    batch, weights = problem.enumerated
    size = candidates[0].group_size
    index: Array | None = None
    if size > 1:
        index, weights = groups(weights, size, limit=10**9)

    def estimates(batch: Trajectory) -> list[Array]:
        each = [c.contributions(problem, batch) for c in candidates]
        return each if index is None else [x.mean(0) for x in each]

    found = _apply(estimates, batch, index)
    moments = [weighted_moments(x, weights) for x in found]
    splits: list[VarianceTerms | None] = [None] * len(candidates)
    masked = [i for i, c in enumerate(candidates) if c.takes("mask")] if terms and hasattr(problem, "cells") else []
    if masked:
        parts = _apply(
            lambda batch: [_by_step(candidates[i], problem, batch, index is not None) for i in masked], batch, index
        )
        # The trajectories of a group are alike, so that the first of them speaks for all.
        first = batch if index is None else jax.tree.map(lambda x: x[:, index[:, 0]], batch)
        cells = problem.cells(first)
        for i, part in zip(masked, parts, strict=True):
            splits[i] = split_variance(part, cells, weights, size * float(np.trace(moments[i][1])))
    return [(mean, covariance, split) for (mean, covariance), split in zip(moments, splits, strict=True)]


def _by_step(candidate: Candidate, problem: Any, batch: Trajectory, first_only: bool) -> Array:
    """What each step of each trajectory adds, [B, H, P]; of the first trajectory alone, [H, P]."""

    def one(step: Array) -> Array:
        mask = jnp.broadcast_to(step[:, None], batch.reward.shape)
        return candidate.contributions(problem, batch, mask=mask)

    parts = jax.lax.map(one, jnp.eye(problem.num_steps, dtype=bool))
    return parts[:, 0] if first_only else jnp.moveaxis(parts, 0, 1)


def _apply(function: Callable[[Trajectory], list[Array]], batch: Trajectory, index: Array | None) -> list[Array]:
    """Apply a function to all columns at once, or to each group of columns, a few thousand groups at a time."""
    if index is None:
        return jax.jit(function, compiler_options=QUICK)(batch)

    def one(index: Array, batch: Trajectory) -> list[Array]:
        return function(jax.tree.map(lambda x: x[:, index], batch))

    return jax.jit(
        lambda index, batch: jax.lax.map(lambda i: one(i, batch), index, batch_size=2048), compiler_options=QUICK
    )(index, batch)


def split_variance(parts: Array, cells: tuple[Array, Array], weights: Array, trace: float) -> VarianceTerms:
    """Split the variance of a sum over steps by what the part of each step depends on.

    Shapes: parts [N, H, P]; cells two of [H, N]; weights [N].

    Args:
        parts: [N, H, P] float, what each step of each trajectory adds.
        cells: [H, N] int, the state at the step, and the state with the action, numbered from 0.
        weights: [N] float, probabilities.
        trace: of the covariance of the sum.

    Returns:
        VarianceTerms.
    """
    rows, mass_of = np.asarray(parts), np.asarray(weights)
    squares = np.zeros(4)
    for step in range(rows.shape[1]):
        part = rows[:, step]
        everywhere = np.zeros(len(part), int)
        for i, cell in enumerate((everywhere, *(np.asarray(cell)[step] for cell in cells))):
            mass, total = np.bincount(cell, mass_of), np.zeros((int(cell.max()) + 1, part.shape[1]))
            np.add.at(total, cell, mass_of[:, None] * part)
            squares[i] += np.sum(total**2 / np.where(mass > 0, mass, 1.0)[:, None])  # E‖E(X | cell)‖²
        squares[3] += mass_of @ np.sum(part**2, axis=1)
    state, action, trajectory = (float(x) for x in np.diff(squares))
    return VarianceTerms(state, action, trajectory, trace - state - action - trajectory)
