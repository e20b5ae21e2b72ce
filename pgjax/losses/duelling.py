"""Action values whose mean over the policy is the value of the state, for continuous actions."""

import jax

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled()
def stochastic_duelling(value: Array, advantage: Array, *, of_draws: Array) -> Array:
    """Compute the action values of a stochastic duelling network.

        Q̃(s, a) = V(s) + A(s, a) - 1/M Σ_i A(s, u_i),   u_i ~ π(·|s)

    Shapes: value, advantage [...]; of_draws [M, ...]; result [...].

    Args:
        value: V, [...] float, reward units.
        advantage: A of the action that is judged, [...] float, reward units; its mean over the policy need not be 0.
        of_draws: A of M actions of the policy, [M, ...] float.

    Returns:
        [...] float, Q̃, reward units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ, or there are no draws.

    Properties:
        Over draws u and an action a of the policy that are independent, the mean of Q̃ is V for any M: value and action
        values agree without a constraint on A. A constant added to A changes nothing. Differentiable in all arguments.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.stochastic_duelling(jnp.full(1, 10.0), jnp.full(1, 3.0), of_draws=jnp.array([[1.0], [3.0]])))
        [11.]

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay, section on continuous actions.
    """
    value, advantage = _checks.as_floating("value", value), _checks.as_floating("advantage", advantage)
    of_draws = _checks.as_floating("of_draws", of_draws, ndim_at_least=1)
    _checks.require_same_shape("value", value.shape, advantage=advantage)
    _checks.require_shape("of_draws", of_draws, (of_draws.shape[0], *value.shape), "[M, ...], M actions for each value")
    return value + advantage - of_draws.mean(0)
