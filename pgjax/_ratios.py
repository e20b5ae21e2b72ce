"""Importance ratios from their logarithms, bounded once for the whole library."""

import jax
import jax.numpy as jnp

Array = jax.Array

MAX_LOG_RATIO = 20.0
"""Nats. exp(20) is 5e8: beyond that a ratio carries no information, and its products overflow float32."""


def bounded(log_ratio: Array) -> Array:
    """Clip log-ratios to ±`MAX_LOG_RATIO`; the gradient outside is 0, and NaN stays NaN."""
    return jnp.clip(log_ratio, -MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratio_of(log_ratio: Array) -> Array:
    """Exponentiate log-ratios that are `bounded`."""
    return jnp.exp(bounded(log_ratio))


def k3_of(log_ratio: Array) -> Array:
    """Return ρ - 1 - log ρ of each log-ratio, never negative; above `MAX_LOG_RATIO` it is taken as that."""
    x = jnp.minimum(log_ratio, MAX_LOG_RATIO)
    # Near ratio 1 the two terms cancel to x²/2 and float32 would lose it, sign and all: the series does not.
    near = jnp.abs(x) < 0.01
    small = jnp.where(near, x, 0.0)
    series = 0.5 * jnp.square(small) * (1 + small / 3 * (1 + small / 4 * (1 + small / 5 * (1 + small / 6))))
    return jnp.where(near, series, jnp.expm1(x) - x)
