"""A mean over the batches before this one."""

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@struct.dataclass
class MovingMean:
    """An exponentially weighted sum of batch means and the weight it has gathered; never stored debiased."""

    total: Array  # float32, reward units
    weight: Array  # float32, 1 - decay^updates


@compiled()
def init_moving_mean() -> MovingMean:
    """Start a moving mean that has seen nothing.

    Shapes: scalars.

    Returns:
        The state.

    Properties:
        `moving_mean` of it is 0.

    Example:
        >>> import pgjax as pg
        >>> print(pg.moving_mean(pg.init_moving_mean()))
        0.0

    References:
        Kingma and Ba (2015), Adam: a method for stochastic optimization, section 3, on debiasing.
    """
    return MovingMean(jnp.float32(0.0), jnp.float32(0.0))


@compiled()
def moving_mean(state: MovingMean) -> Array:
    """Compute the baseline from a moving mean: debiased once, on reading.

        b = total / weight, and 0 before the first update

    Shapes: scalar.

    Args:
        state: the state from *before* the batch that the baseline is subtracted from.

    Returns:
        scalar float32, reward units.

    Properties:
        Keeps the gradient unbiased if the state has not seen the batch. On a constant return c it is c from the
        first update on.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.moving_mean(pg.update_moving_mean(pg.init_moving_mean(), jnp.full(3, 5.0))))
        5.0

    References:
        Kingma and Ba (2015), Adam: a method for stochastic optimization, section 3, on debiasing.
    """
    return jnp.where(state.weight > 0, state.total / jnp.where(state.weight > 0, state.weight, 1.0), 0.0)


@compiled(unit_interval=("decay",))
def update_moving_mean(state: MovingMean, return_: Array, *, decay: Array | float = 0.99) -> MovingMean:
    """Merge a batch of returns into a moving mean, after the batch has been used.

        total = decay · total + (1 - decay) mean(G),   weight = decay · weight + (1 - decay)

    Shapes: return_ [...]; the state is scalar.

    Args:
        state: the state so far.
        return_: [...] float, reward units; a constant here.
        decay: in [0, 1), the weight of the past; per update.

    Returns:
        The new state.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ is empty or decay is a number outside [0, 1].

    Properties:
        No gradient flows.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> state = pg.update_moving_mean(pg.init_moving_mean(), jnp.zeros(2), decay=0.5)
        >>> print(round(float(pg.moving_mean(pg.update_moving_mean(state, jnp.full(2, 3.0), decay=0.5))), 6))
        2.0

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning,
        on reinforcement comparison.
    """
    mean = jax.lax.stop_gradient(_checks.as_floating("return_", return_)).mean().astype(jnp.float32)
    decay = jnp.asarray(decay, jnp.float32)
    return MovingMean(decay * state.total + (1 - decay) * mean, decay * state.weight + (1 - decay))
