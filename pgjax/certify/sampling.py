"""Mean and covariance of an estimator from rollouts, and what they can say about its bias."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc

from pgjax._types import Trajectory
from pgjax.certify.candidate import Candidate
from pgjax.certify.certificate import SamplingTest
from pgjax.rollout import init_rollout, rollout

Array = jax.Array
Sampler = Callable[[Array, Any, int], Trajectory]

SIGNIFICANCE, POWER, CONFIDENCE = 1e-6, 0.9, 0.95


def sample_trajectories(key: Array, problem: Any, num_envs: int) -> Trajectory:
    """Roll out one trajectory of a problem in each environment.

    Shapes: result leaves [num_steps, num_envs, ...].

    Args:
        key: a PRNG key, consumed.
        problem: the problem; its trajectories must be finite.
        num_envs: how many.

    Returns:
        The trajectories; after the end of an episode they are padded as those of `trajectories` are.

    Raises:
        TypeError: if num_envs is not an int.
        ValueError: if num_envs < 1.
    """
    start_key, key = jax.random.split(key)
    env, env_params = problem.environment, problem.environment.default_params
    state = init_rollout(start_key, env, env_params, num_envs=num_envs)
    _, trajectory = rollout(
        key, problem.params, state,
        policy=problem.collecting_policy, env=env, env_params=env_params, num_steps=problem.num_steps,
    )  # fmt: skip
    return first_episodes(trajectory)


def first_episodes(trajectory: Trajectory) -> Trajectory:
    """Blank what comes after the first end of an episode in each column.

    Shapes: leaves [T, B, ...]; result alike.

    Args:
        trajectory: a rollout that began with the start of an episode.

    Returns:
        The same with zeros in place of later observations, actions, rewards and log-probabilities, and with
        `terminated` true there.
    """
    done = trajectory.done.astype(jnp.int32)
    over = jnp.cumsum(done, axis=0) - done > 0

    def blank(x: Array) -> Array:
        return jnp.where(over.reshape(over.shape + (1,) * (x.ndim - over.ndim)), jnp.zeros_like(x), x)

    names = ("obs", "action", "reward", "next_obs", "log_prob", "raw_action")
    blanked = {name: jax.tree.map(blank, getattr(trajectory, name)) for name in names}
    return dataclasses.replace(
        trajectory, **blanked, terminated=trajectory.terminated | over, truncated=trajectory.truncated & ~over
    )


def sampled_moments(
    key: Array,
    candidates: Sequence[Candidate],
    problem: Any,
    *,
    targets: Sequence[Any],
    num_trajectories: int,
    sample: Sampler,
) -> list[tuple[Any, Any, SamplingTest]]:
    """Estimate the moments of estimators that look at equally many trajectories, on the same ones, in bounded memory.

    Shapes: targets [P] each; results [P] and [P, P].

    Args:
        key: a PRNG key, consumed.
        candidates: the estimators; their group sizes are the same.
        problem: the problem.
        targets: for each, the direction that its mean is tested against.
        num_trajectories: how many to draw, rounded up to whole batches.
        sample: (key, problem, num_envs) -> trajectories.

    Returns:
        For each, the mean and the covariance of the estimate from one group, and the test of its bias.
    """
    size = candidates[0].group_size
    groups = max(min(4096, num_trajectories // (8 * size)), 2)  # at least eight batches, for the error of the trace
    batches = math.ceil(num_trajectories / (groups * size))

    def errors(trajectory: Trajectory) -> list[Array]:
        each = [c.contributions(problem, trajectory) for c in candidates]
        return [x - jnp.asarray(target)[None] for x, target in zip(each, targets, strict=True)]

    def of_groups(trajectory: Trajectory) -> list[Array]:
        if size == 1:
            return errors(trajectory)
        grouped = jax.tree.map(lambda x: x.reshape(x.shape[0], groups, size, *x.shape[2:]), trajectory)
        return jax.vmap(lambda group: [x.mean(0) for x in errors(group)], in_axes=1)(grouped)

    def step(sums: Any, key: Array) -> tuple[Any, list[Array]]:
        found = of_groups(sample(key, problem, groups * size))
        # Counted from the target, the sums lose nothing to cancellation.
        added = [(total + x.sum(0), square + x.T @ x) for (total, square), x in zip(sums, found, strict=True)]
        return added, [jnp.var(x, axis=0, ddof=1).sum() for x in found]

    zeros = [(jnp.zeros(t.shape), jnp.zeros((t.size, t.size))) for t in targets]
    sums, traces = jax.jit(lambda keys: jax.lax.scan(step, zeros, keys))(jax.random.split(key, batches))
    return [
        _tested(np.asarray(target), np.asarray(total), np.asarray(square), np.asarray(trace), groups * batches)
        for target, (total, square), trace in zip(targets, sums, traces, strict=True)
    ]


def _tested(target: Any, total: Any, square: Any, traces: Any, count: int) -> tuple[Any, Any, SamplingTest]:
    error = total / count
    covariance = (square - count * np.outer(error, error)) / (count - 1)
    trace_error = float(np.std(traces, ddof=1) / np.sqrt(len(traces))) if len(traces) > 1 else math.nan
    test = test_of_bias(error, covariance, target, num_estimates=count, trace_error=trace_error)
    return target + error, covariance, test


def test_of_bias(error: Any, covariance: Any, target: Any, *, num_estimates: int, trace_error: float) -> SamplingTest:
    """Test whether a mean of estimates misses its target by more than chance, and say what would have been seen.

        T = N dᵀ Σ⁺ d ~ χ² with rank Σ degrees;   smallest bias seen = (z_α + z_β) √(tr Σ / N)

    Shapes: error, target [P]; covariance [P, P].

    Args:
        error: [P] d, the mean minus the target.
        covariance: [P, P] Σ, of one estimate.
        target: [P] the direction claimed.
        num_estimates: N.
        trace_error: standard error of the trace, passed on.

    Returns:
        SamplingTest. A distance in a direction in which nothing varies is a bias for certain.
    """
    values, vectors = np.linalg.eigh(covariance)
    varies = values > 1e-9 * max(float(values[-1]), 0.0)
    along = vectors.T @ error
    scale = max(float(np.linalg.norm(target)), math.sqrt(max(float(values.sum()), 0.0)))
    certain = float(np.linalg.norm(along[~varies])) > 1e-5 * scale
    statistic = math.inf if certain else num_estimates * float(np.sum(along[varies] ** 2 / values[varies]))
    degrees = int(varies.sum())
    p_value = 1.0 if degrees == 0 else float(gammaincc(degrees / 2.0, statistic / 2.0))
    mean, normal = max(float(values.sum()), 0.0) / num_estimates, NormalDist()
    # The squared error of the mean is nearly a multiple of χ² with as many degrees as its eigenvalues amount to.
    amount = float(values.sum()) ** 2 / max(float(np.sum(values**2)), 1e-300)
    cube = 1.0 - 2.0 / (9.0 * max(amount, 1.0)) + normal.inv_cdf(CONFIDENCE) * math.sqrt(2.0 / (9.0 * max(amount, 1.0)))
    radius, distance = math.sqrt(mean * cube**3), float(np.linalg.norm(error))
    reach = (normal.inv_cdf(1.0 - SIGNIFICANCE) + normal.inv_cdf(POWER)) * math.sqrt(mean)
    length = float(np.linalg.norm(target))
    return SamplingTest(
        num_estimates=num_estimates,
        statistic=statistic,
        degrees=degrees,
        p_value=0.0 if certain else p_value,
        significance=SIGNIFICANCE,
        interval=(max(distance - radius, 0.0), distance + radius),
        trace_error=trace_error,
        detectable=reach / length if length > 0.0 else math.inf,
    )
