"""The window that every return runs over, checked and masked once."""

import jax
import jax.numpy as jnp

from pgjax import _checks

Array = jax.Array


def checked_window(
    reward: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    *,
    next_value_name: str = "next_value",
) -> tuple[Array, Array, Array, Array]:
    """Check a window and return what its targets are made of.

    Masks make weights exactly 0, and `weigh` multiplies by them: a plain product of 0 and infinity is NaN, and so is
    the gradient of the branch of a selection that was not taken.

    Args:
        reward: [T, ...] float, reward units.
        next_value: [T, ...] float, reward units.
        terminated: [T, ...] bool.
        truncated: [T, ...] bool.
        discount: γ, scalar or [T, ...].
        next_value_name: what the caller calls next_value, for messages.

    Returns:
        reward; next_value; γ_t, 0 where terminated; and [T, ...] bool, True where the recurrence is cut, the last row
        of the window included.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ or the window is empty.
    """
    reward = _checks.as_floating("reward", reward, ndim_at_least=1)
    next_value = _checks.as_floating(next_value_name, next_value)
    _checks.require_shape(next_value_name, next_value, reward.shape, of="reward")
    terminated = _checks.as_boolean("terminated", terminated, like=reward)
    truncated = _checks.as_boolean("truncated", truncated, like=reward)
    discount = _checks.as_scalar_or_shape("discount", discount, reward.shape)
    cut = (terminated | truncated).at[-1].set(True)
    none = jnp.zeros((), reward.dtype)  # of a dtype, so that a Python number takes that of the rewards
    return reward, next_value, jnp.where(terminated, none, discount), cut


def next_row(x: Array) -> Array:
    """Give row t + 1 in place of row t. The last row repeats: the end of the window is always a cut."""
    return jnp.concatenate([x[1:], x[-1:]])
