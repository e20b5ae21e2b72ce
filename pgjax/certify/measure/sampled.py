"""Mean and covariance of an estimator from rollouts, and a test of its bias."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._types import Trajectory
from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.certificate import SamplingTest, bias_test
from pgjax.certify.measure.finding import Finding
from pgjax.certify.measure.listed import without_action
from pgjax.certify.measure.programs import KEPT, Data, in_groups
from pgjax.certify.measure.together import AMONG, ask_for_groups, dependent
from pgjax.expectation import Rule
from pgjax.rollout import init_rollout, rollout

Array = jax.Array
Sampler = Callable[[Array, Any, int], Trajectory]

AT_ONCE = 4096  # estimates in a batch
BATCHES = 8  # batches at least, for the error of the trace


def sample_trajectories(key: Array, problem: Any, num_envs: int) -> Trajectory:
    """Roll out one trajectory of a problem in each environment.

    Shapes: result leaves [num_steps, num_envs, ...].

    Args:
        key: a PRNG key, consumed.
        problem: the problem; its trajectories must be finite.
        num_envs: how many.

    Returns:
        The trajectories; after the end of an episode they are padded as those of `trajectories` are.
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
) -> list[Finding]:
    """Estimate the moments of estimators that look at equally many trajectories, on the same ones, in bounded memory.

    Shapes: targets [P] each.

    Args:
        key: a PRNG key, consumed.
        candidates: the estimators; their group sizes are the same, and their rules for noise.
        problem: the problem.
        targets: for each, the direction that its mean is tested against.
        num_trajectories: how many to draw, rounded up to whole batches.
        sample: (key, problem, num_envs) -> trajectories.

    Returns:
        For each what was found.
    """
    size = candidates[0].group_size
    at_once, batches = batches_of(num_trajectories, size)
    draw, program = (
        _drawing(sample, problem, candidates[0].noise, size * at_once),
        in_groups(tuple(candidates), problem),
    )
    index: Any = np.arange(size * at_once).reshape(-1, size)
    keys = jax.random.split(key, batches)
    first = draw(keys[0])
    try:
        found = program(index, first)
    except Exception as error:
        ask_for_groups(error, candidates, problem, first)
        raise
    some = max(1, min(AMONG // size, at_once))
    depends = dependent(candidates, problem, first, np.arange(some * size), [x[:some] for x in found])
    tested = tested_moments(lambda key: program(index, draw(key)), keys, targets)
    return [
        Finding(
            "sampling", mean, covariance, test.num_estimates * size, size, sampling=test, depends_on_others=depends[i]
        )
        for i, (mean, covariance, test) in enumerate(tested)
    ]


def batches_of(number: int, size: int) -> tuple[int, int]:
    """Divide a number of samples into batches.

    Args:
        number: of samples, at least.
        size: how many make an estimate.

    Returns:
        (estimates in a batch, batches).
    """
    at_once = max(min(AT_ONCE, number // (BATCHES * size)), 2)
    return at_once, math.ceil(number / (at_once * size))


def tested_moments(
    estimates: Callable[[Array], Sequence[Array]], keys: Array, targets: Sequence[Any]
) -> list[tuple[Any, Any, SamplingTest]]:
    """Add up estimates batch by batch, and test their means.

    Shapes: targets [P] each; results [P] and [P, P].

    Args:
        estimates: key -> for each estimator estimates [G, P].
        keys: one for each batch.
        targets: for each estimator, the direction that its mean is tested against.

    Returns:
        For each the mean and the covariance of an estimate, and the test.
    """
    sums = [np.zeros_like(t) for t in targets]
    squares = [np.zeros((t.size, t.size)) for t in targets]
    traces: list[list[float]] = [[] for _ in targets]
    count = 0
    for key in keys:
        found = [np.asarray(x) for x in estimates(key)]
        count += len(found[0])
        for i, (x, target) in enumerate(zip(found, targets, strict=True)):
            error = x - target[None]  # counted from the target, the sums lose nothing to cancellation
            sums[i], squares[i] = sums[i] + error.sum(0), squares[i] + error.T @ error
            traces[i].append(float(x.var(0, ddof=1).sum()))
    return [_tested(*one, count) for one in zip(targets, sums, squares, traces, strict=True)]


def _tested(target: Any, total: Any, square: Any, traces: list[float], count: int) -> tuple[Any, Any, SamplingTest]:
    error = total / count
    covariance = (square - count * np.outer(error, error)) / (count - 1)
    trace_error = float(np.std(traces, ddof=1) / np.sqrt(len(traces))) if len(traces) > 1 else math.nan
    test = bias_test(error, covariance, target, num_estimates=count, trace_error=trace_error)
    return target + error, covariance, test


@functools.lru_cache(maxsize=KEPT)
def _drawing(sample: Sampler, problem: Any, rule: Rule | None, num_envs: int) -> Callable[[Array], Data]:
    """The program that draws trajectories, and the noise of a rule at each step of them."""

    def draw(key: Array) -> Data:
        if rule is None:
            return sample(key, problem, num_envs), None
        key, noise_key = jax.random.split(key)
        trajectory = sample(key, problem, num_envs)
        return trajectory, drawn_noise(noise_key, rule, problem, trajectory)

    return jax.jit(draw)


def drawn_noise(key: Array, rule: Rule, problem: Any, trajectory: Trajectory) -> Any:
    """Draw the noise that a rule needs at each step beside the action that was taken.

    Args:
        key: a PRNG key, consumed.
        rule: the rule.
        problem: the problem.
        trajectory: leaves [T, B, ...].

    Returns:
        The noise, leaves [T, B, ...].
    """
    return without_action(rule).draw(key, problem.policy(problem.params, trajectory.obs))
