"""Relaxed samples of discrete distributions: a continuous z whose rounding is the action.

Categorical: z_k = log π(k) + g_k with g Gumbel; the action is the largest. Bernoulli: z = logit + l with l logistic;
the action is 1 where z > 0.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def inside(u: Array) -> Array:
    """Move uniform noise from the ends of [0, 1] to the nearest numbers inside, so that its logarithms are finite."""
    info = jnp.finfo(u.dtype)
    return jnp.clip(u, info.tiny, 1.0 - info.epsneg)


def logit(u: Array) -> Array:
    """Map uniform noise to logistic noise, log u − log(1 − u)."""
    u = inside(u)
    return jnp.log(u) - jnp.log1p(-u)


def gumbel(u: Array) -> Array:
    """Map uniform noise to Gumbel noise, −log(−log u)."""
    return -jnp.log(-jnp.log(inside(u)))


def gumbel_given(log_probs: Array, chosen: Array, v: Array) -> Array:
    """Map uniform noise v to log_probs + Gumbel noise, given which of its entries is the largest.

        z_k = −log(−log v_k) for the chosen k,   z_i = −log(−log v_i / π_i − log v_k) for the others

    The largest entry does not depend on the probabilities, since these sum to one.

    Shapes: log_probs, chosen, v [..., K]; chosen is True once in each row.
    """
    g = gumbel(v)
    top = jnp.sum(jnp.where(chosen, g, 0.0), axis=-1, keepdims=True)
    return jnp.where(chosen, g, -jnp.logaddexp(-(log_probs + g), -top))


def logistic_given(logits: Array, one: Array, v: Array) -> Array:
    """Map uniform noise v to logits + logistic noise, given whether it is positive.

        z = softplus(logit v + softplus(l)) given 1,   z = −softplus(−logit v + softplus(−l)) given 0

    Shapes: logits, one, v [..., D].
    """
    sign = jnp.where(one, 1.0, -1.0).astype(logits.dtype)
    return sign * jax.nn.softplus(sign * logit(v) + jax.nn.softplus(sign * logits))


def path(z: Array, location: Array) -> Array:
    """Return z with the gradient of its location: that of z = location + noise at fixed noise."""
    return jax.lax.stop_gradient(z) + (location - jax.lax.stop_gradient(location))
