"""How the rest of the library acts through a distribution, its own or another library's.

These functions run once per trace and are not compiled by themselves: distributions from elsewhere need
not be pytrees.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks

Array = jax.Array


def sample_action(distribution: Any, key: Array) -> tuple[Any, Any, Array]:
    """Draw an action, and whatever is needed to find its log-probability again.

        a ~ π,   log π(a)

    Shapes: action and raw action of the distribution's shape; log-probability [...].

    Args:
        distribution: one of this package's, or any object with ``log_prob(action)`` and ``sample(key)``,
            ``sample(seed=key)`` or ``sample(rng=key)``; of such an object ``sample_and_log_prob`` is used
            if it has one. An object with ``sample_raw``, ``squash`` and ``log_prob_raw`` is sampled
            before squashing.
        key: a JAX random key; it is consumed.

    Returns:
        (action, raw action or None, log-probability [...] at least float32, nats).

    Raises:
        TypeError: if the object cannot be sampled in any of these ways or has no log_prob.
    """
    if hasattr(distribution, "sample_raw") and hasattr(distribution, "squash"):
        raw = distribution.sample_raw(key)
        return distribution.squash(raw), raw, log_prob_of(distribution, None, raw)
    if hasattr(distribution, "sample_and_log_prob"):
        action, log_prob = _call_with_key(distribution, "sample_and_log_prob", key)
        return action, None, _checks.as_floating("log_prob", log_prob)
    action = _call_with_key(distribution, "sample", key)
    return action, None, log_prob_of(distribution, action)


def log_prob_of(distribution: Any, action: Any, raw_action: Any = None) -> Array:
    """Compute the log-probability of an action, from the action before squashing if there is one.

        log π(a)

    Shapes: action of the distribution's shape, extra leading axes allowed; result [...].

    Args:
        distribution: one of this package's, or any object with ``log_prob(action)``.
        action: what was done; not looked at where raw_action is used.
        raw_action: the action before squashing, or None; used if the distribution has ``log_prob_raw``.

    Returns:
        [...] at least float32, nats. One of another library that does not sum over the components of an
        action, such as ``distrax.Normal``, gives one number for each: wrap it in ``distrax.Independent``.

    Raises:
        TypeError: if the object has no log_prob, or what it gives is not floating.
    """
    if raw_action is not None and hasattr(distribution, "log_prob_raw"):
        return _checks.as_floating("log_prob", distribution.log_prob_raw(raw_action))
    if not hasattr(distribution, "log_prob"):
        raise TypeError(
            f"distribution must have a method log_prob(action), got {type(distribution).__name__}. "
            "A policy returns a distribution, not an action or logits: wrap logits in Categorical(logits)."
        )
    return _checks.as_floating("log_prob", distribution.log_prob(action))


def action_from_noise(distribution: Any, noise: Any) -> tuple[Any, Any, Array]:
    """Map given noise to an action and its log-probability, in place of drawing.

        a = sample_from(noise),   log π(a)

    Shapes: noise as from ``base_noise``; action and raw action of the distribution's shape.

    Args:
        distribution: one with ``sample_from(noise)``; one with ``raw_from`` and ``squash`` is mapped
            before squashing.
        noise: as from ``base_noise``.

    Returns:
        (action, raw action or None, log-probability [...] at least float32, nats).

    Raises:
        TypeError: if noise does not determine an action of this distribution.
    """
    if hasattr(distribution, "raw_from") and hasattr(distribution, "squash"):
        raw = distribution.raw_from(noise)
        return distribution.squash(raw), raw, log_prob_of(distribution, None, raw)
    if not hasattr(distribution, "sample_from"):
        raise TypeError(
            f"{type(distribution).__name__} has no sample_from(noise), so noise does not determine its action. "
            "Pass a key, or give the actions themselves."
        )
    action = distribution.sample_from(noise)
    return action, None, log_prob_of(distribution, action)


def draw_noise(distribution: Any, key: Array, *, num_draws: int) -> Any:
    """Draw the noise of many draws at once, or say that this distribution has none of fixed size.

        action_from_noise(d, draw_noise(d, key, num_draws=N)[i]) is one draw from d

    A distribution with an attribute ``hold`` shares its noise between that many draws in a row.

    Shapes: result [N, ...] with N = num_draws.

    Args:
        distribution: one like those that will act; only its shapes matter.
        key: a JAX random key; it is consumed.
        num_draws: N.

    Returns:
        The noise, leaves [N, ...]; None for distributions from elsewhere.
    """
    if not getattr(distribution, "has_noise", False):
        return None
    hold: int = getattr(distribution, "hold", 1)
    if hold > 1:
        noise = _draw_all(distribution, key, -(-num_draws // hold))
        return jax.tree.map(lambda x: jnp.repeat(x, hold, axis=0)[:num_draws], noise)
    return _draw_all(distribution, key, num_draws)


def _draw_all(distribution: Any, key: Array, num_draws: int) -> Any:
    """The noise of that many independent draws."""
    lead = distribution.shape[: len(distribution.shape) - distribution.event_ndim][:1]
    if not lead:
        return jax.vmap(distribution.base_noise)(jax.random.split(key, num_draws))
    # All draws as rows of one batch: random numbers with a short last axis take three times as long to compile on CPU.
    repeat = lambda x: jnp.broadcast_to(x, (num_draws, *x.shape)).reshape(-1, *x.shape[1:])  # noqa: E731
    noise = jax.tree.map(repeat, distribution).base_noise(key)
    return jax.tree.map(lambda x: x.reshape(num_draws, *lead, *x.shape[1:]), noise)


_KEY_NAMES = ("key", "seed", "rng", "rng_key")


def _call_with_key(distribution: Any, method: str, key: Array) -> Any:
    """Call a sampling method with the key under the name that its signature gives it."""
    function = getattr(distribution, method, None)
    try:
        parameters = inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        parameters = {}  # type: ignore[assignment]
    for name in _KEY_NAMES:
        if name in parameters:
            if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY:
                return function(key)  # type: ignore[misc]
            return function(**{name: key})  # type: ignore[misc]
    raise TypeError(
        f"distribution must have a method {method} that takes a key as one of {', '.join(_KEY_NAMES)}, "
        f"got {type(distribution).__name__}. A policy returns a distribution, not an action or logits: "
        "wrap logits in Categorical(logits)."
    )
