"""What a value function minimises in each step."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.losses._pair import as_pair

Array = jax.Array


@compiled()
def value_loss(value: Array, target: Array) -> Array:
    """Compute half the squared error of a value prediction.

        L_t = ½ (V(s_t) - stop(target_t))²

    Shapes: value, target [T, ...]; result [T, ...].

    Args:
        value: [T, ...] float, reward units, differentiable.
        target: [T, ...] float, reward units, a constant here.

    Returns:
        [T, ...] float, squared reward units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        A semi-gradient: the bootstrap inside the target is not differentiated.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.value_loss(jnp.zeros(1), jnp.full(1, 2.0)))
        [2.]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 9.3.
    """
    value, target = as_pair("value", value, "target", target)
    return 0.5 * jnp.square(value - jax.lax.stop_gradient(target))


@compiled()
def clipped_value_loss(value: Array, target: Array, *, old_value: Array, clip: Array | float = 0.2) -> Array:
    """Compute half the squared error of a value prediction that may not move far from the old one.

        L_t = ½ max((V - target)², (old + clip(V - old, -ε, ε) - target)²)

    Shapes: value, target, old_value [T, ...]; result [T, ...].

    Args:
        value: [T, ...] float, reward units, differentiable.
        target: [T, ...] float, reward units, a constant here.
        old_value: [T, ...] float, reward units, the prediction when the data were collected; a constant here.
        clip: ε, reward units, scalar or [T, ...]: unlike the ratio's clip it depends on the scale of the rewards.

    Returns:
        [T, ...] float, squared reward units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Equals `value_loss` where value = old_value. Never smaller than it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.clipped_value_loss(jnp.ones(1), jnp.ones(1), old_value=jnp.zeros(1), clip=0.5))
        [0.125]

    References:
        Engstrom et al. (2020), Implementation matters in deep policy gradients: a case study on PPO and TRPO.
    """
    value, target = as_pair("value", value, "target", target)
    old_value = _checks.as_floating("old_value", old_value)
    _checks.require_same_shape("value", value.shape, old_value=old_value)
    clip = _checks.as_scalar_or_shape("clip", clip, value.shape)
    target, old_value = jax.lax.stop_gradient((target, old_value))
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))
