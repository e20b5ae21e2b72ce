"""Figures to watch in a run: the noise of gradients, the fit of a value, and how far a policy has moved."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import MAX_LOG_RATIO, k3_of
from pgjax._types import Params

Array = jax.Array


@compiled()
def gradient_variance(contributions: Params) -> Array:
    """Compute the total variance of one trajectory's gradient: the trace of its covariance.

        tr Cov = 1/(N-1) Σ_i |g_i - ḡ|²

    Shapes: leaves [N, ...]; result scalar.

    Args:
        contributions: gradients of N >= 2 trajectories, from an estimator's `per_trajectory`.

    Returns:
        scalar float, squared gradient units. The variance of the mean of N is this divided by N.

    Raises:
        ValueError: if there are fewer than two.
    """
    rows = _rows(contributions)
    # Counted from the first, equal gradients have a variance of exactly 0; a mean misses them by a rounding.
    rows = rows - rows[:1]
    return jnp.sum(jnp.square(rows - rows.mean(0, keepdims=True))) / (rows.shape[0] - 1)


@compiled()
def signal_to_noise(contributions: Params) -> Array:
    """Estimate the signal-to-noise ratio of one trajectory's gradient.

        |E g|² / tr Cov,  with |E g|² estimated without bias by |ḡ|² - tr Cov / N

    Shapes: leaves [N, ...]; result scalar.

    Args:
        contributions: gradients of N >= 2 trajectories, from an estimator's `per_trajectory`.

    Returns:
        scalar float, dimensionless; N times it is that of the mean of N. It may come out below 0, where noise
        dominates; 0 if every contribution is 0; infinite if all are equal and not 0; NaN if one is.

    Raises:
        ValueError: if there are fewer than two.
    """
    rows = _rows(contributions)
    variance = gradient_variance(contributions)
    signal = jnp.sum(jnp.square(rows.mean(0))) - variance / rows.shape[0]
    return jnp.where(variance == 0, jnp.where(signal > 0, jnp.inf, 0.0), _divide(signal, variance))


@compiled()
def cosine(first: Params, second: Params) -> Array:
    """Compute the cosine of the angle between two gradients.

        <a, b> / (|a| |b|), and 0 if one of them is 0

    Shapes: two pytrees alike; result scalar.

    Args:
        first: a gradient.
        second: another one of the same structure.

    Returns:
        scalar float in [-1, 1]; it does not depend on the scale of either, however small or large.

    Raises:
        ValueError: if their sizes differ.
    """
    a, b = _checks.widened(ravel_pytree(first)[0]), _checks.widened(ravel_pytree(second)[0])
    _checks.require_same_shape("first", a.shape, second=b)
    return jnp.clip(jnp.vdot(_unit(a), _unit(b)), -1.0, 1.0)


@compiled()
def pairwise_cosine(estimates: Params) -> Array:
    """Compute the mean cosine between all pairs of independent gradient estimates.

        1/(N(N-1)) Σ_{i≠j} cos(g_i, g_j)

    Shapes: leaves [N, ...]; result scalar.

    Args:
        estimates: N >= 2 independent estimates, each for instance the mean of one batch.

    Returns:
        scalar float in [-1, 1]; estimates that are 0 count as orthogonal to all.

    Raises:
        ValueError: if there are fewer than two.
    """
    unit = _unit(_rows(estimates))
    count = unit.shape[0]
    return (jnp.sum(jnp.square(unit.sum(0))) - jnp.sum(jnp.square(unit))) / (count * (count - 1))


@compiled()
def explained_variance(value: Array, target: Array) -> Array:
    """Compute how much of the variance of the returns a value function explains.

        1 - Var(target - value) / Var(target)

    Shapes: value, target [...]; result scalar.

    Args:
        value: [...] float, predictions, reward units.
        target: [...] float, returns, reward units.

    Returns:
        scalar float: 1 is perfect, 0 no better than a constant, below 0 worse. 0 if the target is constant.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.
    """
    value = _checks.as_floating("value", value)
    target = _checks.as_floating("target", target)
    _checks.require_same_shape("value", value.shape, target=target)
    # Counted from the first, equal targets have a variance of exactly 0; a mean misses them by a rounding.
    start = target.ravel()[0]
    variance = (target - start).var()
    return jnp.where(variance == 0, 0.0, 1.0 - _divide((target - value).var(), variance))


@compiled()
def approximate_kl(log_ratio: Array) -> Array:
    """Estimate KL(old ‖ new) from actions of the old policy: the low-variance estimator k3.

        mean of (ρ - 1) - log ρ,   ρ = π_new/π_old

    Shapes: log_ratio [...]; result scalar.

    Args:
        log_ratio: [...] float, nats, log π_new(a|s) - log π_old(a|s), actions drawn from the old policy; above 20
            it is taken as 20.

    Returns:
        scalar float, nats, never negative.

    Raises:
        TypeError: if log_ratio is not floating.
    """
    return jnp.mean(k3_of(_checks.as_floating("log_ratio", log_ratio)))


@compiled()
def clip_fraction(log_ratio: Array, *, clip: Array | float = 0.2) -> Array:
    """Compute the share of ratios outside the clipping range of PPO.

        mean of 1[|ρ - 1| > ε]

    Shapes: log_ratio [...]; result scalar.

    Args:
        log_ratio: [...] float, nats.
        clip: ε, dimensionless.

    Returns:
        scalar float in [0, 1].

    Raises:
        TypeError: if log_ratio is not floating.
    """
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    return jnp.mean(jnp.abs(jnp.expm1(log_ratio)) > clip, dtype=log_ratio.dtype)


@compiled()
def bound_fraction(log_ratio: Array) -> Array:
    """Compute the share of log-ratios beyond ±20, the bound at which losses and returns take them as ±20.

        mean of 1[not |log ρ| <= 20]

    The losses of such steps are constants, without gradient.

    Shapes: log_ratio [...]; result scalar.

    Args:
        log_ratio: [...] float, nats.

    Returns:
        scalar float in [0, 1]; NaN counts as beyond the bound.

    Raises:
        TypeError: if log_ratio is not floating.
    """
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    return jnp.mean(~(jnp.abs(log_ratio) <= MAX_LOG_RATIO), dtype=log_ratio.dtype)


@compiled()
def lost_gradient_fraction(log_ratio: Array, advantage: Array) -> Array:
    """Compute the share of steps whose PPO loss should lower the ratio but has lost its gradient to the bound of 20.

        mean of 1[A < 0 and log ρ > 20]

    PPO does not clip a ratio that rises where the advantage is negative. Beyond the bound on log-ratios the loss of
    such a step is the constant exp(20) |A|, about 5e8 |A|.

    Shapes: log_ratio, advantage [...]; result scalar.

    Args:
        log_ratio: [...] float, nats, log π(a|s) - log π_old(a|s).
        advantage: [...] float, the weight of each step; only its sign counts.

    Returns:
        scalar float in [0, 1]; anything but 0 asks for smaller steps.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.
    """
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    advantage = _checks.as_floating("advantage", advantage)
    _checks.require_same_shape("log_ratio", log_ratio.shape, advantage=advantage)
    return jnp.mean((advantage < 0) & (log_ratio > MAX_LOG_RATIO), dtype=log_ratio.dtype)


@compiled()
def effective_sample_size(log_weight: Array) -> Array:
    """Compute how many equally weighted samples a set of importance weights is worth.

        (Σ w)² / Σ w²

    Shapes: log_weight [...]; result scalar.

    Args:
        log_weight: [...] float, logarithms of the weights, up to a common constant.

    Returns:
        scalar float between 1 and the number of samples, for any finite log-weights; 0 if every weight is 0.

    Raises:
        TypeError: if log_weight is not floating.
        ValueError: if it is empty.
    """
    log_weight = _checks.as_floating("log_weight", log_weight)
    largest = jax.lax.stop_gradient(log_weight.max())
    weight = jnp.exp(log_weight - jnp.where(largest == -jnp.inf, 0.0, largest))
    return _divide(jnp.square(weight.sum()), jnp.square(weight).sum())


def _rows(tree: Params) -> Array:
    """[N, P] matrix of the leaves [N, ...]."""
    leaves = jax.tree.leaves(tree)
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"every leaf must hold at least 2 gradients along its first axis, got leading lengths {sorted(counts)}. "
            "Use an estimator's per_trajectory."
        )
    count = counts.pop()
    return _checks.widened(jnp.concatenate([leaf.reshape(count, -1) for leaf in leaves], axis=1))


def _divide(x: Array, y: Array) -> Array:
    """x / y, and x where y is 0."""
    return x / jnp.where(y == 0, 1.0, y)


def _unit(x: Array) -> Array:
    """Scale the last axis to length 1, in two steps so that no square underflows; zeros stay."""
    x = _divide(x, jnp.abs(x).max(-1, keepdims=True))
    squares = jnp.square(x).sum(-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(squares == 0, 1.0, squares))
