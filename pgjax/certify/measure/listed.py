"""Exact mean, covariance and split of the variance, from every trajectory of a problem and its probability."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._types import Trajectory
from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.measure.finding import Finding
from pgjax.certify.measure.programs import Data, by_step, columns, in_groups
from pgjax.certify.measure.split import split_variance
from pgjax.certify.measure.together import ask_for_groups, dependent, spread
from pgjax.exact.enumeration import groups, weighted_moments
from pgjax.expectation import Rule, nodes

Array = jax.Array
LIMIT = 10**9  # the number of groups is limited before they are listed


def listed_moments(
    candidates: Sequence[Candidate],
    problem: Any,
    *,
    targets: Sequence[Any],
    num_nodes: Any = None,
    terms: bool = False,
    controls: bool = False,
) -> list[Finding]:
    """Compute the exact moments of estimators that look at equally many trajectories, all in one program.

    Args:
        candidates: the estimators; their group sizes are the same, and their rules for noise.
        problem: the problem.
        targets: for each, the direction that it claims.
        num_nodes: as in `certify_all`, for estimators that take the noise of a rule.
        terms: whether to split the variance, where an estimator takes a `mask`.
        controls: whether to measure the distance from the target for other rewards and under another law.

    Returns:
        For each what was found.
    """
    data, mass = listing(problem, candidates[0].noise, num_nodes)
    size, total = candidates[0].group_size, int(mass.shape[0])
    index, weights = groups(mass, size, limit=LIMIT)
    program = in_groups(tuple(candidates), problem)
    try:
        found = program(index, data)
    except Exception as error:
        ask_for_groups(error, candidates, problem, data)
        raise
    chosen = spread(data[0], size)
    apart = np.ravel_multi_index(tuple(chosen.reshape(-1, size).T), (total,) * size)
    depends = dependent(candidates, problem, data, chosen, [x[apart] for x in found])
    moments = [weighted_moments(x, weights) for x in found]
    splits = _splits(candidates, problem, data, index, weights, [m[1] for m in moments]) if terms else {}
    checks: list[Any] = [None] * len(candidates)
    if controls:
        tilted = groups(tilt(mass), size, limit=LIMIT)[1]
        other = program(index, (with_other_rewards(data[0]), data[1]))
        checks = [
            {
                "another law": distance(tilted, x, target),
                "other rewards": distance(weights, y, target),
            }
            for x, y, target in zip(found, other, targets, strict=True)
        ]
    return [
        Finding(
            "enumeration", mean, covariance, total, size,
            terms=splits.get(i), depends_on_others=depends[i], controls=checks[i],
        )
        for i, (mean, covariance) in enumerate(moments)
    ]  # fmt: skip


def tilt(weights: Array) -> Array:
    """Change probabilities, as a control: what comes later in the list becomes up to three times as likely.

    Not linearly, which what is symmetric in the order of the list, as an antithetic rule is, would not notice.

    Args:
        weights: [N] float, probabilities.

    Returns:
        [N] float, probabilities.
    """
    tilted = weights * (0.5 + jnp.linspace(0.0, 1.0, weights.shape[0]) ** 2)
    return tilted / tilted.sum()


def distance(weights: Array, x: Array, target: Any) -> float:
    """Compute how far a weighted mean is from a direction.

    Args:
        weights: [N] float, probabilities.
        x: [N, P] float.
        target: [P] float.

    Returns:
        The Euclidean distance.
    """
    return float(jnp.linalg.norm(weights @ x - jnp.asarray(target)))


def listing(problem: Any, rule: Rule | None, num_nodes: Any = None) -> tuple[Data, Array]:
    """List the trajectories of a problem, each with every node of the noise of a rule at each step.

    Args:
        problem: the problem.
        rule: the rule, or None.
        num_nodes: as in `certify_all`.

    Returns:
        (trajectories and noise [T, N, ...], weights [N]).
    """
    trajectory, weights = problem.enumerated
    if rule is None:
        return (trajectory, None), weights
    noise, mass = noise_nodes(problem, rule, num_nodes)
    steps, count = trajectory.reward.shape
    # [T + 1, N]: the trajectory of each column, and the node at each of its steps.
    choice = np.indices((count, *(len(mass),) * steps)).reshape(1 + steps, -1)
    probability = weights[choice[0]] * jnp.asarray(np.prod(mass[choice[1:]], axis=0))
    each = jax.tree.map(lambda x: jnp.asarray(x)[choice[1:]], noise)
    return (columns(trajectory, choice[0]), each), probability


def count_of(candidate: Candidate, problem: Any, num_nodes: Any = None) -> float:
    """Count the columns of a listing, without making it.

    Args:
        candidate: the estimator, whose rule for noise multiplies them.
        problem: the problem, with a num_steps.
        num_nodes: as in `certify_all`.

    Returns:
        Their number, infinite where the noise has too many nodes.
    """
    if candidate.noise is None:
        return float(problem.count())
    try:
        each = len(noise_nodes(problem, candidate.noise, num_nodes)[1])
    except (TypeError, ValueError):
        return np.inf
    return float(problem.count()) * float(each) ** float(problem.num_steps)


def noise_nodes(problem: Any, rule: Rule, num_nodes: Any = None) -> tuple[Any, Any]:
    """List the nodes of the noise that a rule needs beside the action that was taken.

    Args:
        problem: the problem; the law of the noise does not depend on its states.
        rule: the rule.
        num_nodes: as in `certify_all`.

    Returns:
        (noise, leaves [M, ...] NumPy; weights [M]).
    """
    row = jax.tree.map(lambda x: x[0, 0], problem.enumerated[0].obs)
    return nodes(without_action(rule), problem.policy(problem.params, row), size=num_nodes)


def without_action(rule: Rule) -> Rule:
    """Return a rule whose only use is its noise: without that of the distribution, which the action stands for.

    Args:
        rule: the rule.

    Returns:
        A rule with the other laws.
    """
    return Rule(rule.function, {name: law for name, law in rule.laws.items() if name != "x"}, rule.options)


def with_other_rewards(trajectory: Trajectory) -> Trajectory:
    """Change what each action earns, as a control: the gradient is another one then.

    Args:
        trajectory: leaves [T, B, ...].

    Returns:
        The trajectories with rewards that depend on the action in another way.
    """
    done = trajectory.done.astype(jnp.int32)
    running = jnp.cumsum(done, axis=0) - done == 0
    action = jnp.asarray(trajectory.action, trajectory.reward.dtype).reshape(*trajectory.reward.shape, -1).sum(-1)
    change = 0.5 * jnp.maximum(jnp.abs(trajectory.reward).max(), 1e-3) * jnp.cos(1.0 + 2.0 * action)
    return dataclasses.replace(trajectory, reward=trajectory.reward + jnp.where(running, change, 0.0))


def _splits(
    candidates: Sequence[Candidate], problem: Any, data: Data, index: Array, weights: Array, covariances: Any
) -> dict[int, Any]:
    """The split of the variance of the estimators that take a mask, by their place."""
    masked = [i for i, c in enumerate(candidates) if c.takes("mask")] if hasattr(problem, "cells") else []
    if not masked:
        return {}
    parts = by_step(tuple(candidates[i] for i in masked), problem)(index, data)
    # The trajectories of a group are alike, so that the first of them speaks for all.
    cells = problem.cells(columns(data[0], index[:, 0]))
    size = candidates[0].group_size
    return {
        i: split_variance(part, cells, weights, size * float(np.trace(covariances[i])))
        for i, part in zip(masked, parts, strict=True)
    }
