"""Which estimator is less noisy: two or more of them on the same keys, per environment step and per second."""

import functools
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._flat import flat
from pgjax._types import Params
from pgjax.diagnostics import cosine
from pgjax.reference import Estimate

Array = jax.Array


@struct.dataclass
class PairStatistics:
    """What pairs of independent estimates say, one number for each pair: leaves [N]. Their means are unbiased."""

    cosine: Array  # between the two estimates of a pair
    reference_cosine: Array | None  # to the reference, mean of the two; None without a reference
    signal: Array  # <g, g'>, whose mean is |E g|²
    variance: Array  # ½ |g - g'|², whose mean is tr Cov of one estimate
    projection: Array | None  # <g, r> / |r|², mean of the two: on the reference, in its lengths; None without one


class Interval(NamedTuple):
    """An estimate of a mean, and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


class EstimatorNoise(NamedTuple):
    """How noisy one estimator is, and what it costs."""

    cosine: Interval  # mean cosine between two independent estimates
    reference_cosine: Interval | None  # mean cosine to the reference; None without one
    signal_to_noise: Interval  # |E g|² / tr Cov of one estimate
    variance: Interval  # tr Cov of one estimate
    variance_per_step: Interval  # times its environment steps: the mean of estimates of n steps in all has 1/n of it
    variance_per_second: Interval  # times its seconds: likewise
    seconds: float  # of one estimate, without compilation
    compile_seconds: float


class NoiseDifference(NamedTuple):
    """An estimator minus the first one, pair of keys by pair of keys."""

    cosine: Interval
    reference_cosine: Interval | None
    variance: Interval
    variance_per_step: Interval


class Comparison(NamedTuple):
    """Every estimator by name, and by name its difference from the first."""

    noise: dict[str, EstimatorNoise]
    difference: dict[str, NoiseDifference]
    statistics: dict[str, PairStatistics]


@compiled("estimate", "num_pairs")
def pair_statistics(
    key: Array, params: Params, *, estimate: Estimate, num_pairs: int, reference: Params | None = None
) -> PairStatistics:
    """Draw pairs of independent gradient estimates, and keep of each pair how well it agrees.

        cos(g, g'),   <g, g'>,   ½ |g - g'|²;   g, g' = estimate on the two halves of fold_in(key, i)

    Shapes: leaves of the result [N], N = num_pairs.

    Args:
        key: a PRNG key, consumed. The same key gives every estimator the same pairs of keys.
        params: parameters of the policy.
        estimate: estimate(key, params) -> gradient, a pytree like params; static.
        num_pairs: N, at least 1; static.
        reference: a gradient like params, with the sign of the estimates, or None.

    Returns:
        `PairStatistics`. An estimate that is zero has the cosine 0 to all, and on a reference that is zero every
        projection is 0.

    Raises:
        TypeError: if estimate is not a function or num_pairs is not an int.
        ValueError: if num_pairs < 1, or if the estimate or the reference is not like params.

    Properties:
        Pairs are independent of each other, so the spread of N numbers is the error of their mean. Memory that of one
        estimate, three gradients and N numbers.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.comparison import pair_statistics
        >>> noisy = lambda key, params: params + jax.random.normal(key, params.shape)
        >>> pairs = pair_statistics(jax.random.key(0), jnp.full(4, 3.0), estimate=noisy, num_pairs=1000)
        >>> pairs.cosine.shape, round(float(pairs.variance.mean()))
        ((1000,), 4)

    References:
        Ilyas et al. (2020), A closer look at deep policy gradients.
    """
    _checks.require_callable("estimate", estimate)
    num_pairs = _checks.as_positive_int("num_pairs", num_pairs)
    like = jax.eval_shape(estimate, key, params)
    _checks.require_same_structure("estimate(key, params)", like, params, of="params")
    if reference is not None:
        _checks.require_same_structure("reference", reference, params, of="params")

    def one(index: Array) -> PairStatistics:
        halves = jax.random.split(jax.random.fold_in(key, index))
        # One call in a loop, not two: the estimate is compiled once.
        first, second = jax.lax.map(lambda half: flat(estimate(half, params)), halves)
        toward = onto = None
        if reference is not None:
            target = flat(reference)
            toward = 0.5 * (cosine(first, target) + cosine(second, target))
            square = jnp.vdot(target, target)
            onto = jnp.where(square > 0, jnp.vdot(0.5 * (first + second), target) / jnp.where(square > 0, square, 1), 0)
        gap = jnp.sum(jnp.square(first - second))
        return PairStatistics(cosine(first, second), toward, jnp.vdot(first, second), 0.5 * gap, onto)

    return jax.lax.map(one, jnp.arange(num_pairs))


def compare_estimators(
    key: Array,
    params: Params,
    *,
    estimators: Mapping[str, Estimate],
    num_pairs: int,
    reference: Params | None = None,
    steps_per_estimate: int | Mapping[str, int] = 1,
) -> Comparison:
    """Measure and compare the noise of several gradient estimators, all of them on the same keys.

        variance = ½ E|g - g'|²,   signal-to-noise = E<g, g'> / variance,   g and g' independent

    Shapes: the result holds Python numbers by name, and the statistics [N] they came from, N = num_pairs.

    Args:
        key: a PRNG key, consumed.
        params: parameters of the policy.
        estimators: by name, functions (key, params) -> gradient, a pytree like params.
        num_pairs: N, pairs of independent estimates for each estimator, at least 2.
        reference: a gradient like params, with the sign of the estimates, for instance that of `reference_gradient`.
        steps_per_estimate: environment steps in one estimate, one number for all or one for each name.

    Returns:
        `Comparison`: intervals hold the true mean with a probability of about 95 percent each.

    Raises:
        TypeError: if an estimator is not a function, a count is not an int, or the call is inside jit or vmap.
        ValueError: if num_pairs < 2, estimators is empty, a name lacks its steps, or an estimate is not like params.

    Properties:
        Not compiled itself: it compiles each estimator and runs it, and measures the time of each apart. What two
        estimators share on the same keys, such as whole rollouts, drops out of their difference, whose interval is then
        narrower than that of two separate runs. Intervals are normal ones: take 30 pairs or more.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.comparison import compare_estimators
        >>> one = lambda key, params: params + jax.random.normal(key, params.shape)
        >>> two = lambda key, params: params + 0.5 * jax.random.normal(key, params.shape)
        >>> result = compare_estimators(
        ...     jax.random.key(0), jnp.ones(4), estimators={"plain": one, "halved": two}, num_pairs=500)
        >>> result.difference["halved"].variance.high < 0
        True

    References:
        Ilyas et al. (2020), A closer look at deep policy gradients.
    """
    if isinstance(key, jax.core.Tracer) or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params)):
        raise TypeError(
            "compare_estimators must be called outside jit and vmap, because it measures time, got a traced "
            "argument. Inside, use pair_statistics."
        )
    num_pairs = _checks.as_positive_int("num_pairs", num_pairs, at_least=2)
    steps = _steps(estimators, steps_per_estimate)
    noise, statistics = {}, {}
    for name, estimate in estimators.items():
        _checks.require_callable(f"estimators[{name!r}]", estimate)
        run = jax.jit(functools.partial(pair_statistics, estimate=estimate, num_pairs=num_pairs))
        started = time.perf_counter()
        program = run.lower(key, params, reference=reference).compile()
        ready = time.perf_counter()
        pairs = jax.block_until_ready(program(key, params, reference=reference))
        seconds = (time.perf_counter() - ready) / (2 * num_pairs)
        statistics[name] = pairs
        noise[name] = _noise(pairs, steps[name], seconds, ready - started)
    first = next(iter(estimators))
    difference = {
        name: _difference(pairs, statistics[first], steps[name], steps[first])
        for name, pairs in statistics.items()
        if name != first
    }
    return Comparison(noise, difference, statistics)


def _steps(estimators: Mapping[str, Any], steps: int | Mapping[str, int]) -> dict[str, int]:
    """Environment steps of one estimate, for each name."""
    if not estimators:
        raise ValueError("estimators must hold at least one estimator, got none. Give them by name.")
    if not isinstance(steps, Mapping):
        steps = dict.fromkeys(estimators, steps)
    if set(steps) != set(estimators):
        raise ValueError(
            f"steps_per_estimate must have the names of estimators, {sorted(estimators)}, got {sorted(steps)}. "
            "Give one number for all, or one for each."
        )
    return {name: _checks.as_positive_int("steps_per_estimate", count) for name, count in steps.items()}


def _noise(pairs: PairStatistics, steps: int, seconds: float, compile_seconds: float) -> EstimatorNoise:
    variance = _interval(pairs.variance)
    return EstimatorNoise(
        cosine=_interval(pairs.cosine),
        reference_cosine=None if pairs.reference_cosine is None else _interval(pairs.reference_cosine),
        signal_to_noise=_ratio(pairs.signal, pairs.variance),
        variance=variance,
        variance_per_step=Interval(*(steps * x for x in variance)),
        variance_per_second=Interval(*(seconds * x for x in variance)),
        seconds=seconds,
        compile_seconds=compile_seconds,
    )


def _difference(pairs: PairStatistics, first: PairStatistics, steps: int, first_steps: int) -> NoiseDifference:
    toward = None
    if pairs.reference_cosine is not None and first.reference_cosine is not None:
        toward = _interval(pairs.reference_cosine - first.reference_cosine)
    return NoiseDifference(
        cosine=_interval(pairs.cosine - first.cosine),
        reference_cosine=toward,
        variance=_interval(pairs.variance - first.variance),
        variance_per_step=_interval(steps * pairs.variance - first_steps * first.variance),
    )


def _interval(samples: Array) -> Interval:
    """Mean of independent samples ± 1.96 standard errors."""
    mean, error = float(samples.mean()), float(samples.std(ddof=1)) / len(samples) ** 0.5
    return Interval(mean, mean - 1.96 * error, mean + 1.96 * error)


def _ratio(above: Array, below: Array) -> Interval:
    """Ratio of two means ± 1.96 standard errors, to first order; infinite without variance, 0 without signal."""
    scale = float(below.mean())
    if scale == 0.0:
        ratio = float("inf") if float(above.mean()) > 0 else 0.0
        return Interval(ratio, ratio, ratio)
    ratio = float(above.mean()) / scale
    rest = _interval(above - ratio * below)
    error = (rest.high - rest.mean) / scale
    return Interval(ratio, ratio - error, ratio + error)
