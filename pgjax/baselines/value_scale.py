"""Targets of a value function on one scale, whatever the rewards are: PopArt."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params

Array = jax.Array

SMALLEST, LARGEST = 1e-4, 1e6  # bounds of the scale: constant returns are not blown up


@struct.dataclass
class ValueScale:
    """Mean and variance of returns, weighted exponentially: the scale in which a value function is trained."""

    mean: Array  # [...] float32, reward units
    var: Array  # [...] float32, reward units squared
    weight: Array  # scalar float32, 1 - decay^updates

    @property
    def scale(self) -> Array:
        """[...] float32: the standard deviation, within 1e-4 and 1e6; 1 before the first update."""
        return jnp.clip(jnp.sqrt(self.var), SMALLEST, LARGEST)


@compiled("shape")
def init_value_scale(shape: tuple[int, ...] = ()) -> ValueScale:
    """Start the scale of a value function: mean 0, scale 1.

    Shapes: mean, var [...]; weight scalar.

    Args:
        shape: () for one value function, (M,) for M outputs with a scale each, such as one for each task; static.

    Returns:
        The state.

    Properties:
        `normalize_value` changes nothing before the first update.

    Example:
        >>> import pgjax as pg
        >>> print(pg.init_value_scale().scale)
        1.0

    References:
        Van Hasselt, Guez, Hessel, Mnih and Silver (2016), Learning values across many orders of magnitude.
    """
    return ValueScale(jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32), jnp.float32(0.0))


@compiled(unit_interval=("decay",))
def update_value_scale(state: ValueScale, return_: Array, *, decay: Array | float = 0.9997) -> ValueScale:
    """Merge a batch of returns into the scale of a value function.

        mean, mean of squares: sums over batches with weights decay^age, divided by the sum of the weights

    Shapes: return_ [..., M] or [...]; state [M] or [].

    Args:
        state: the state so far.
        return_: [...] float, targets of the value function, reward units; a constant here. Its last axes are those of
            the state.
        decay: in [0, 1), the weight of the past; per update.

    Returns:
        The new state: rescale the head with `rescale_value_head` at once, so that no prediction changes.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ is empty or does not end with the axes of the state, or if decay is a number
            outside [0, 1].

    Properties:
        Debiased: after the first update they are the mean and the variance of that batch. Merged from variances, so
        that a large mean costs no digits. No gradient flows.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> state = pg.update_value_scale(pg.init_value_scale(), jnp.array([10.0, 14.0]))
        >>> print(state.mean, state.scale)
        12.0 2.0

    References:
        Van Hasselt, Guez, Hessel, Mnih and Silver (2016), Learning values across many orders of magnitude.
        Hessel, Soyer, Espeholt, Czarnecki, Schmitt and van Hasselt (2019), Multi-task deep reinforcement learning with
        PopArt.
    """
    return_ = jax.lax.stop_gradient(_checks.as_floating("return_", return_)).astype(jnp.float32)
    _checks.require_trailing_shape("return_", return_, state.mean.shape, of="the state")
    rows = return_.reshape(-1, *state.mean.shape)
    origin = rows[0]
    centred = rows - origin[None]
    mean, var = origin + centred.mean(0), centred.var(0)
    decay = jnp.asarray(decay, jnp.float32)
    weight = decay * state.weight + (1 - decay)
    share = jnp.where(weight > 0, (1 - decay) / jnp.where(weight > 0, weight, 1.0), 0.0)
    away = mean - state.mean
    merged = (1 - share) * state.var + share * var + share * (1 - share) * away**2
    return ValueScale(state.mean + share * away, merged, weight)


@compiled()
def normalize_value(state: ValueScale, return_: Array) -> Array:
    """Put returns on the scale in which the value function is trained.

        (G - mean) / scale

    Shapes: return_ [...]; result alike.

    Args:
        state: the scale; a constant here.
        return_: [...] float, reward units; its last axes are those of the state.

    Returns:
        [...] float, dimensionless.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ does not end with the axes of the state.

    Properties:
        Undone by `denormalize_value`. A head that follows it with `rescale_value_head` keeps its unnormalised output.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> state = pg.update_value_scale(pg.init_value_scale(), jnp.array([10.0, 14.0]))
        >>> print(pg.normalize_value(state, jnp.array([10.0, 16.0])))
        [-1.  2.]

    References:
        Van Hasselt, Guez, Hessel, Mnih and Silver (2016), Learning values across many orders of magnitude.
    """
    return_, mean, scale = _beside("return_", return_, state)
    return (return_ - mean) / scale


@compiled()
def denormalize_value(state: ValueScale, value: Array) -> Array:
    """Put what a value function says on the scale of rewards.

        V = scale · v + mean

    Shapes: value [...]; result alike.

    Args:
        state: the scale; a constant here.
        value: [...] float, v, dimensionless; its last axes are those of the state.

    Returns:
        [...] float, V, reward units: what bootstraps and baselines are made of.

    Raises:
        TypeError: if value is not floating.
        ValueError: if value does not end with the axes of the state.

    Properties:
        As a baseline it keeps the gradient unbiased if head and scale have not seen the batch. Carries the gradient of
        value.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> state = pg.update_value_scale(pg.init_value_scale(), jnp.array([10.0, 14.0]))
        >>> print(pg.denormalize_value(state, jnp.array([-1.0, 2.0])))
        [10. 16.]

    References:
        Van Hasselt, Guez, Hessel, Mnih and Silver (2016), Learning values across many orders of magnitude.
    """
    value, mean, scale = _beside("value", value, state)
    return scale * value + mean


@compiled()
def rescale_value_head(head: Params, old: ValueScale, new: ValueScale) -> Params:
    """Change the last layer of a value function so that an update of its scale changes no prediction.

        W' = W · scale / scale',   b' = (scale · b + mean - mean') / scale'

    Shapes: kernel [..., M]; bias [M]; states [M] or [].

    Args:
        head: the parameters of the last layer, a dict of `kernel` and `bias` as that of a Flax Dense.
        old: the scale that the head was trained in.
        new: the scale after `update_value_scale`.

    Returns:
        The new parameters, a dict like head.

    Raises:
        TypeError: if head is no dict of kernel and bias.
        ValueError: if their last axis is not that of the states.

    Properties:
        `denormalize_value(new, ·)` of the new head equals `denormalize_value(old, ·)` of the old one, for every input.
        Moments of an optimiser that belong to the head are not rescaled.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> old = pg.init_value_scale()
        >>> new = pg.update_value_scale(old, jnp.array([10.0, 14.0]))
        >>> pg.rescale_value_head({"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}, old, new)
        {'bias': Array([-6.], dtype=float32), 'kernel': Array([[0.5]], dtype=float32)}

    References:
        Van Hasselt, Guez, Hessel, Mnih and Silver (2016), Learning values across many orders of magnitude.
    """
    if not (isinstance(head, dict) and set(head) == {"kernel", "bias"}):
        raise TypeError(
            "head must be a dict of kernel and bias, the parameters of one dense layer, got "
            f"{sorted(head) if isinstance(head, dict) else type(head).__name__}. Take them out of the whole tree."
        )
    kernel, bias = head["kernel"], _checks.as_array("head['bias']", head["bias"])
    _checks.require_trailing_shape("head['kernel']", kernel, bias.shape, of="head['bias']")
    _checks.require_trailing_shape("head['bias']", bias, old.mean.shape, of="the states")
    _checks.require_same_shape("old.mean", old.mean.shape, new=new.mean)
    dtype = jnp.promote_types(bias.dtype, jnp.float32)
    before, scale, shift = (
        jnp.broadcast_to(x, bias.shape)
        for x in (old.scale.astype(dtype), new.scale.astype(dtype), old.mean.astype(dtype) - new.mean.astype(dtype))
    )
    return {
        "bias": ((before * bias + shift) / scale).astype(bias.dtype),
        "kernel": (kernel * jnp.broadcast_to(before / scale, kernel.shape)).astype(kernel.dtype),
    }


def _beside(name: str, x: Any, state: ValueScale) -> tuple[Array, Array, Array]:
    x = _checks.as_floating(name, x)
    _checks.require_trailing_shape(name, x, state.mean.shape, of="the state")
    mean, scale = jax.lax.stop_gradient((state.mean, state.scale))
    return x, jnp.broadcast_to(mean, x.shape), jnp.broadcast_to(scale, x.shape)
