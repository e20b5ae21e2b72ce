"""What an estimator costs to compile and to run."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pgjax._types import Trajectory
from pgjax.certify.candidates.candidate import Candidate, candidate_of
from pgjax.certify.certificate import Cost
from pgjax.certify.measure.sampled import drawn_noise
from pgjax.estimators import Estimator

RUNS = 10


def measure_cost(estimator: Estimator | Candidate, problem: Any, trajectory: Trajectory) -> Cost:
    """Measure what it costs to compile and to run an estimator on one batch, in float64 on the default device.

    Shapes: trajectory leaves [T, B, ...].

    Args:
        estimator: an estimator or a candidate.
        problem: the problem that the trajectory is from.
        trajectory: the batch, for instance from `sample_trajectories`.

    Returns:
        The cost; NaN for counts that the compiler does not offer. Rollout is not in it.
    """
    candidate = candidate_of(estimator)
    with jax.enable_x64(True):
        batch = jax.block_until_ready(trajectory)
        further = {}
        if candidate.noise is not None:
            further["noise"] = jax.block_until_ready(drawn_noise(jax.random.key(0), candidate.noise, problem, batch))
        start = time.perf_counter()
        call = jax.jit(lambda batch, further: candidate.call(problem, batch, **further))
        program = call.lower(batch, further).compile()
        compile_seconds = time.perf_counter() - start
        run_seconds = median_seconds(lambda: jax.block_until_ready(program(batch, further)))
    counts: Any = program.cost_analysis() or {}
    counts = counts[0] if isinstance(counts, (list, tuple)) else counts
    return Cost(
        batch_size=trajectory.reward.shape[1],
        compile_seconds=compile_seconds,
        run_seconds=run_seconds,
        flops=float(counts.get("flops", math.nan)),
        bytes_accessed=float(counts.get("bytes accessed", math.nan)),
    )


def median_seconds(run: Callable[[], Any]) -> float:
    """Time a function after one run that is not counted.

    Args:
        run: the function.

    Returns:
        The median of several runs, seconds.
    """
    run()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
