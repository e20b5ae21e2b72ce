"""A value function as the baseline."""

import jax

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Trajectory, Value

Array = jax.Array


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
