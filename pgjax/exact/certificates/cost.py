"""What an estimator costs to compile and to run."""

import math
import time
from typing import Any

import jax
import numpy as np

from pgjax import _checks
from pgjax.estimators import Estimator
from pgjax.exact.certificates.candidate import Candidate, candidate_of
from pgjax.exact.certificates.certificate import Cost
from pgjax.exact.certificates.sampling import Sampler, sample_trajectories


def measure_cost(
    estimator: Estimator | Candidate, problem: Any, batch_size: int, *, sample: Sampler = sample_trajectories
) -> Cost:
    """Measure what it costs to compile and to run an estimator on one batch, in float64 on the default device.

    Shapes: trajectories [num_steps, batch_size, ...].

    Args:
        estimator: an estimator or a candidate.
        problem: the problem, with finite trajectories.
        batch_size: trajectories in the batch.
        sample: (key, problem, num_envs) -> trajectories.

    Returns:
        The cost; NaN for counts that the compiler does not offer. Rollout is not in it.

    Raises:
        TypeError: if batch_size is not an int.
        ValueError: if batch_size < 1, or the trajectories are endless.
    """
    candidate, batch_size = candidate_of(estimator), _checks.positive_int("batch_size", batch_size)
    if problem.num_steps is None:
        raise ValueError(f"problem {problem.name!r} has endless trajectories: there is no batch to run on.")
    with jax.enable_x64(True):
        batch = jax.jit(lambda key: sample(key, problem, batch_size))(jax.random.key(0))
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
        batch_size=batch_size,
        compile_seconds=compile_seconds,
        run_seconds=float(np.median(seconds)),
        flops=float(counts.get("flops", math.nan)),
        bytes_accessed=float(counts.get("bytes accessed", math.nan)),
    )
