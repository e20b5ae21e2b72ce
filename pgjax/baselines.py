"""What is subtracted from a return.

A baseline never sees the return that it is subtracted from, unless its name says so.

A baseline is an array [T, B], or a function `baseline(return_) -> [T, B]` that an estimator calls. State and
update are apart: use the state from before the batch as the baseline, then update it with the batch.
"""

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Trajectory, Value

Array = jax.Array


@compiled("axis")
def leave_one_out(return_: Array, mask: Array | None = None, *, axis: int = -1) -> Array:
    """Compute, for each environment, the mean return of all the others.

        b_i = 1/(N-1) Σ_{j≠i} G_j

    Shapes: return_ [T, B] or [..., N]; result alike.

    Args:
        return_: [..., N] float, returns of N independent trajectories along axis.
        mask: [..., N] bool, True for the entries that count; None counts all.
        axis: the axis of the independent trajectories; static.

    Returns:
        [..., N] float, the baseline of each; 0 where no other trajectory counts.

    Raises:
        TypeError: if return_ is not floating or mask is not boolean.
        ValueError: if there are fewer than two trajectories, or shapes differ.

    Properties:
        Keeps the gradient unbiased: b_i does not depend on trajectory i. G_i - b_i = N/(N-1) (G_i - mean). For
        small N it may raise the variance. One pass, no N x N matrix.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.leave_one_out(jnp.array([1.0, 2.0, 6.0])))
        [4.  3.5 1.5]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    if return_.shape[axis] < 2:
        raise ValueError(
            f"return_ must hold at least 2 trajectories along axis {axis}, got shape {list(return_.shape)}. "
            "One trajectory has no others: use baseline=None, a constant or a value baseline."
        )
    mask = jnp.ones_like(return_, bool) if mask is None else _checks.as_boolean("mask", mask, like=return_)
    # Counted from the largest of them, so that the baseline of equal returns is that return without a rounding error:
    # an optimiser that scales gradients up would make a step of it.
    origin = jnp.max(return_, axis, keepdims=True, where=mask, initial=-jnp.inf)
    origin = jax.lax.stop_gradient(jnp.where(jnp.isfinite(origin), origin, 0.0))
    masked = jnp.where(mask, return_ - origin, 0.0)
    others = mask.sum(axis, keepdims=True) - mask
    return jnp.where(others > 0, origin + (masked.sum(axis, keepdims=True) - masked) / jnp.maximum(others, 1), 0.0)


@compiled("axis")
def batch_mean(return_: Array, *, axis: int = -1) -> Array:
    """Compute the mean return over the environments at each step, the own return included.

        b_t = 1/N Σ_j G_tj

    Shapes: return_ [T, B]; result alike.

    Args:
        return_: [..., N] float, returns of N trajectories along axis.
        axis: the axis of the trajectories; static.

    Returns:
        [..., N] float, the mean, repeated along axis.

    Raises:
        TypeError: if return_ is not floating.
        ValueError: if return_ is empty.

    Properties:
        Sees its own sample: the expected gradient shrinks to (N-1)/N of the true one, direction unchanged.
        `leave_one_out` is the same without the shrinkage.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.batch_mean(jnp.array([1.0, 2.0, 6.0])))
        [3. 3. 3.]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    return jnp.broadcast_to(return_.mean(axis, keepdims=True), return_.shape)


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


@compiled("value")
def value_baseline(params: Params, trajectory: Trajectory, *, value: Value) -> Array:
    """Compute the state-value baseline of each step.

        b_t = stop(V(s_t))

    Shapes: trajectory leaves [T, B, ...]; result [T, B].

    Args:
        params: parameters of the value function.
        trajectory: the window.
        value: value(params, obs [..., features]) -> [...] float, reward units; static.

    Returns:
        [T, B] float, reward units, without gradient.

    Raises:
        TypeError: if value is not callable or its result is not floating.
        ValueError: if its result has not the shape [T, B].

    Properties:
        Keeps the gradient unbiased if V was not fitted to this very trajectory. It is not the baseline of least
        variance, not even with the exact V.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> import numpy as np
        >>> z = np.zeros((2, 1), bool)
        >>> o = jnp.ones((2, 1, 3))
        >>> t = pg.Trajectory(o, o, o[..., 0], o, z, z, o[..., 0], z.astype(int))
        >>> print(pg.value_baseline(2.0, t, value=lambda params, obs: params * obs.sum(-1)).ravel())
        [6. 6.]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.4.
    """
    _checks.require_callable("value", value)
    values = _checks.as_floating("the result of value(params, obs)", value(params, trajectory.obs))
    _checks.require_shape("the result of value(params, obs)", values, trajectory.reward.shape, of="trajectory.reward")
    return jax.lax.stop_gradient(values)
