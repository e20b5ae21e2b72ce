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
