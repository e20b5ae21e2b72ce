"""The programs that run estimators on trajectories: in groups by themselves, and all in one batch.

Each is compiled once for the same candidates, problem and shapes, so that other data and other weights need no new one.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Trajectory
from pgjax.certify.candidates.candidate import Candidate

Array = jax.Array
Data = tuple[Trajectory, Any]
"""Trajectories [T, B, ...], and the noise of a rule [T, B, ...] or None."""

QUICK = {"xla_backend_optimization_level": 0}  # programs that run a few times: what counts is how soon they compile
CHUNK = 2048  # groups at a time
KEPT = 16  # programs


def contributions(candidate: Candidate, problem: Any, data: Data, **further: Any) -> Array:
    """Compute what each trajectory adds, with the noise that belongs to it.

    Args:
        candidate: the estimator.
        problem: the problem.
        data: trajectories and noise, leaves [T, B, ...].
        **further: keyword arguments of the estimator.

    Returns:
        [B, P] float, ascent.
    """
    trajectory, noise = data
    return candidate.contributions(problem, trajectory, **({} if noise is None else {"noise": noise}), **further)


def columns(data: Any, index: Any) -> Any:
    """Take some columns of trajectories.

    Args:
        data: a pytree, leaves [T, N, ...].
        index: [...] int.

    Returns:
        The same pytree, leaves [T, ..., ...].
    """
    return jax.tree.map(lambda x: x[:, index], data)


@functools.lru_cache(maxsize=KEPT)
def in_groups(candidates: tuple[Candidate, ...], problem: Any) -> Callable[[Array, Data], list[Array]]:
    """Build the program that gives each group of trajectories to the estimators by itself.

    Args:
        candidates: the estimators.
        problem: the problem.

    Returns:
        ([G, K] int, leaves [T, N, ...]) -> for each estimator [G, P], the mean over each group.
    """

    def one(index: Array, data: Data) -> list[Array]:
        group = columns(data, index)
        return [contributions(c, problem, group).mean(0) for c in candidates]

    return jax.jit(lambda index, data: in_chunks(lambda i: one(i, data), index), compiler_options=QUICK)


@functools.lru_cache(maxsize=KEPT)
def in_one_batch(candidates: tuple[Candidate, ...], problem: Any) -> Callable[[Data], list[Array]]:
    """Build the program that gives all trajectories to the estimators at once.

    Args:
        candidates: the estimators.
        problem: the problem.

    Returns:
        leaves [T, B, ...] -> for each estimator [B, P], what each trajectory adds.
    """
    return jax.jit(lambda data: [contributions(c, problem, data) for c in candidates], compiler_options=QUICK)


@functools.lru_cache(maxsize=KEPT)
def by_step(candidates: tuple[Candidate, ...], problem: Any) -> Callable[[Array, Data], list[Array]]:
    """Build the program that computes what each step adds for the first trajectory of each group.

    Args:
        candidates: the estimators; each takes a `mask`.
        problem: the problem.

    Returns:
        ([G, K] int, leaves [T, N, ...]) -> for each estimator [G, T, P].
    """

    def one(index: Array, data: Data) -> list[Array]:
        group = columns(data, index)

        def step(only: Array) -> list[Array]:
            mask = jnp.broadcast_to(only[:, None], group[0].reward.shape)
            return [contributions(c, problem, group, mask=mask)[0] for c in candidates]

        return jax.lax.map(step, jnp.eye(problem.num_steps, dtype=bool))

    return jax.jit(lambda index, data: in_chunks(lambda i: one(i, data), index), compiler_options=QUICK)


def in_chunks(function: Callable[[Any], Any], xs: Any) -> Any:
    """Map a function over rows, a few thousand at a time, tracing it once.

    Args:
        function: of one row.
        xs: a pytree, leaves [N, ...].

    Returns:
        Its results, leaves [N, ...].
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if count <= CHUNK:
        return jax.vmap(function)(xs)
    chunks = -(-count // CHUNK)

    def fold(x: Array) -> Array:
        filled = jnp.concatenate([x, jnp.broadcast_to(x[:1], (chunks * CHUNK - count, *x.shape[1:]))])
        return filled.reshape(chunks, CHUNK, *x.shape[1:])

    found = jax.lax.map(jax.vmap(function), jax.tree.map(fold, xs))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)
