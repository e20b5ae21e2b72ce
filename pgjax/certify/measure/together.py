"""Whether what an estimator adds for one trajectory depends on the other trajectories of its batch."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.measure.programs import Data, columns, contributions, in_one_batch

AMONG = 512  # trajectories that are looked at together, at most
ROUNDING = 1e-6  # of the largest contribution: estimators may compute in float32 inside


def spread(trajectory: Any, size: int) -> Any:
    """Choose trajectories that differ in what they earn, so many that groups of a size can be made of them.

    Args:
        trajectory: leaves [T, N, ...].
        size: K.

    Returns:
        [M] int, their columns, a multiple of K and at least 2 K; the least earned first.
    """
    total = np.asarray(trajectory.reward).sum(0)
    count = size * max(2, min(len(total), AMONG) // size)
    places = np.linspace(0, len(total), count, endpoint=False).astype(int)
    return np.argsort(total, kind="stable")[places]


def dependent(
    candidates: Sequence[Candidate], problem: Any, data: Data, chosen: Any, apart: Sequence[Any]
) -> list[bool]:
    """Compare groups by themselves with the same trajectories inside one batch.

    Shapes: chosen [M]; apart [M / K, P] each.

    Args:
        candidates: the estimators; their group sizes K are the same.
        problem: the problem.
        data: trajectories and noise, leaves [T, N, ...].
        chosen: [M] int, the columns, group after group.
        apart: for each estimator its mean over each group by itself.

    Returns:
        For each, whether trajectories outside of a group matter.

    Raises:
        ValueError: if they do, and K is 1.
    """
    size = candidates[0].group_size
    inside = in_one_batch(tuple(candidates), problem)(columns(data, chosen))
    found = []
    for x, y in zip(apart, inside, strict=True):
        alone, among = np.asarray(x), np.asarray(y).reshape(len(x), size, -1).mean(1)
        scale = np.max(np.abs(np.where(np.isfinite(alone), alone, 0.0)), initial=0.0)
        scale = max(scale, np.max(np.abs(np.where(np.isfinite(among), among, 0.0)), initial=0.0))
        found.append(not np.allclose(alone, among, rtol=0.0, atol=ROUNDING * scale, equal_nan=True))
    if size == 1 and any(found):
        names = [candidate.name for candidate, depends in zip(candidates, found, strict=True) if depends]
        raise ValueError(_request(names, f"alone, a trajectory adds something else than among {len(chosen)}"))
    return found


def ask_for_groups(error: Exception, candidates: Sequence[Candidate], problem: Any, data: Data) -> None:
    """Raise if an estimator failed only because it was given one trajectory.

    Args:
        error: what was raised.
        candidates: the estimators; their group sizes are the same.
        problem: the problem.
        data: trajectories and noise, leaves [T, N, ...].

    Raises:
        ValueError: if one of them runs on two trajectories.
    """
    if candidates[0].group_size > 1:
        return
    for candidate in candidates:
        if not _runs(candidate, problem, data, 1) and _runs(candidate, problem, data, 2):
            raise ValueError(
                _request([candidate.name], f"with one trajectory it raises {type(error).__name__}: {error}")
            ) from error


def _runs(candidate: Candidate, problem: Any, data: Data, count: int) -> bool:
    some = columns(data, np.zeros(count, int))
    try:
        jax.eval_shape(lambda some: contributions(candidate, problem, some), some)
    except Exception:  # whatever an estimator of somebody's raises
        return False
    return True


def _request(names: Sequence[str], what: str) -> str:
    return (
        f"{' and '.join(names)} {'depends' if len(names) == 1 else 'depend'} on the other trajectories of the batch: "
        f"{what.rstrip('.')}. Pass group_size, how many trajectories are looked at together, for instance group_size=2."
    )
