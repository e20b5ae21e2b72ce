"""How policies of either kind are called, and recurrent ones run again."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._sharding import one_type
from pgjax._types import Params, Policy, Trajectory
from pgjax.rollout._episodes import restarted

Array = jax.Array


def apply_policy(policy: Policy, params: Params, obs: Any, policy_state: Any) -> tuple[Any, Any, Any]:
    """Call a policy of either kind and sort what it returns.

    Args:
        policy: feed-forward, or recurrent if policy_state is not None.
        params: its parameters.
        obs: [..., features] observations.
        policy_state: state of a recurrent policy, or None.

    Returns:
        distribution, extras or None, policy_state or None.

    Raises:
        TypeError: if the result is not of one of the documented forms.
        ValueError: if the state that it returns has another structure or other shapes than the one it was given.
    """
    recurrent = policy_state is not None
    result = policy(params, obs, policy_state) if recurrent else policy(params, obs)
    # A distribution may itself be a tuple (a named tuple, say): one that has log_prob is not unpacked.
    parts = result if isinstance(result, tuple) and not hasattr(result, "log_prob") else (result,)
    if not 1 + recurrent <= len(parts) <= 2 + recurrent or not hasattr(parts[0], "log_prob"):
        form = "(distribution, policy_state) or (distribution, extras, policy_state)"
        raise TypeError(
            f"policy must return {form if recurrent else 'a distribution or (distribution, extras)'}, "
            f"where the distribution has log_prob; got {', '.join(type(part).__name__ for part in parts)}."
        )
    extras = parts[1] if len(parts) == 2 + recurrent else None
    if not recurrent:
        return parts[0], extras, None
    name, given = "the policy_state that policy returns", "the one that it was given"
    _checks.require_same_structure(name, parts[-1], policy_state, of=given)
    for after, before in zip(jax.tree.leaves(parts[-1]), jax.tree.leaves(policy_state), strict=True):
        _checks.require_shape(name, after, jnp.shape(before), of=given)
    return parts[0], extras, parts[-1]


@compiled("policy")
def unroll_policy(
    params: Params, trajectory: Trajectory, policy_state: Any, *, policy: Policy, start_policy_state: Any
) -> tuple[Any, Any]:
    """Run a recurrent policy again over a window, as the rollout ran it, to differentiate through it.

    Shapes: trajectory leaves [T, B, ...]; policy states [B, ...]; results [T, B, ...].

    Args:
        params: parameters of the policy.
        trajectory: the window; its obs and step are used.
        policy_state: leaves [B, ...], the policy's state before the first step: `RolloutState.policy_state`
            of the state that was handed to `rollout`.
        policy: a recurrent policy; static.
        start_policy_state: leaves [B, ...], what the state is set to where an episode starts.

    Returns:
        The distribution with leaves [T, B, ...] and the extras [T, B, ...] or None.

    Raises:
        TypeError: if the policy returns something else than the documented forms.
        ValueError: if the state that it returns has another structure or other shapes than the one it was given.

    Properties:
        Backpropagation through time over the window; memory O(T).
    """
    _checks.require_callable("policy", policy)
    return unroll(params, trajectory, policy_state, policy, start_policy_state)[:2]


def unroll(
    params: Params, trajectory: Trajectory, policy_state: Any, policy: Policy, start_policy_state: Any
) -> tuple[Any, Any, Any]:
    """Run a recurrent policy again: as `unroll_policy`, and its state after each step, before any restart.

    Args:
        params: parameters of the policy.
        trajectory: the window; its obs and step are used.
        policy_state: leaves [B, ...], the policy's state before the first step.
        policy: a recurrent policy.
        start_policy_state: leaves [B, ...], what the state is set to where an episode starts.

    Returns:
        The distribution, the extras and the states, leaves [T, B, ...].
    """

    def body(carry: Any, inputs: tuple[Any, Array]) -> tuple[Any, tuple[Any, Any, Any]]:
        obs, step = inputs
        carry = restarted(step == 0, start_policy_state, carry)
        distribution, extras, after = apply_policy(policy, params, obs, carry)
        after = jax.tree.map(_checks.as_dtype_of, carry, after)
        return after, (distribution, extras, after)

    window = (trajectory.obs, trajectory.step)
    varied, policy_state = one_type(body, policy_state, window, start_policy_state, params)
    return jax.lax.scan(varied, policy_state, window)[1]
