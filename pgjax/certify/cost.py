"""What an estimator costs to compile and to run."""

import math
import time
from typing import Any

import jax
import numpy as np

from pgjax._types import Trajectory
from pgjax.certify.candidate import Candidate, candidate_of
from pgjax.certify.certificate import Cost
from pgjax.estimators import Estimator


def measure_cost(estimator: Estimator | Candidate, problem: Any, trajectory: Trajectory) -> Cost:
    """Measure what it costs to compile and to run an estimator on one batch, in float64 on the default device.

    Shapes: trajectory leaves [T, B, ...].

    Args:
        estimator: an estimator or a candidate.
        problem: the problem.
        trajectory: the batch, for instance from `sample_trajectories`.

    Returns:
        The cost; NaN for counts that the compiler does not offer. Rollout is not in it.

    Raises:
        TypeError: if estimator is none.
        ValueError: as the estimator does.
    """
    candidate = candidate_of(estimator)
    with jax.enable_x64(True):
        batch = jax.block_until_ready(trajectory)
        start = time.perf_counter()
        program = jax.jit(lambda batch: candidate.call(problem, batch)).lower(batch).compile()
        compile_seconds = time.perf_counter() - start
        seconds = []
        for _ in range(10):
            start = time.perf_counter()
            jax.block_until_ready(program(batch))
            seconds.append(time.perf_counter() - start)
    counts: Any = program.cost_analysis() or {}
    counts = counts[0] if isinstance(counts, (list, tuple)) else counts
    return Cost(
        batch_size=trajectory.reward.shape[1],
        compile_seconds=compile_seconds,
        run_seconds=float(np.median(seconds)),
        flops=float(counts.get("flops", math.nan)),
        bytes_accessed=float(counts.get("bytes accessed", math.nan)),
    )
