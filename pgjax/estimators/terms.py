"""What the losses of several estimators are made of: what the policy says of the window, and what was earned in it."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import log_prob_of
from pgjax.returns import bootstrap_values
from pgjax.rollout._episodes import restarted
from pgjax.rollout.policies import apply_policy, unroll

Array = jax.Array


def action_distribution(
    params: Params, trajectory: Trajectory, *, policy: Policy, state: RolloutState | None = None
) -> Any:
    """Return the distribution of the policy at each step of a window, to differentiate through.

    A feed-forward policy is called once on all observations. A recurrent one is run again as the rollout ran it;
    whatever else a policy returns, such as extras, is left out.

    Shapes: trajectory leaves [T, B, ...]; leaves of the distribution [T, B, ...].

    Args:
        params: parameters of the policy.
        trajectory: the window.
        policy: policy(params, obs) -> distribution or (distribution, extras); a recurrent one as in `rollout`.
        state: for a recurrent policy, the state that the rollout started from; None, or a state without a policy's, for
            a feed-forward one.

    Returns:
        The distribution with leaves [T, B, ...]; pass it with the trajectory to `log_prob_taken`.

    Raises:
        TypeError: if the policy returns no distribution.
    """
    return policy_outputs(params, trajectory, policy, state)[0]


def log_prob_taken(distribution: Any, trajectory: Trajectory) -> Array:
    """Compute the log-probability of the actions that were taken, from the action before squashing where there is one.

    Shapes: result [T, B].

    Args:
        distribution: what the policy returned for trajectory.obs: see `action_distribution`.
        trajectory: the window.

    Returns:
        [T, B] float, nats.

    Raises:
        TypeError: if the distribution has no log_prob.
        ValueError: if its log_prob is not one number for each step.
    """
    log_prob = log_prob_of(distribution, trajectory.action, trajectory.raw_action)
    _checks.require_shape("the policy's log_prob", log_prob, trajectory.reward.shape, of="trajectory.reward")
    return log_prob


def is_recurrent(state: RolloutState | None) -> bool:
    """Tell whether a policy carries a state: jax.tree.leaves of none would be empty too, so None decides.

    Args:
        state: the state that the rollout started from, or None.

    Returns:
        Whether there is a memory in it.
    """
    return state is not None and state.policy_state is not None


def policy_outputs(
    params: Params, trajectory: Trajectory, policy: Policy, state: RolloutState | None
) -> tuple[Any, Any]:
    """Apply a policy of either kind to a window.

    Args:
        params: parameters of the policy.
        trajectory: leaves [T, B, ...].
        policy: as for `rollout`.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The distribution and the extras, leaves [T, B, ...].
    """
    if not is_recurrent(state):
        return apply_policy(policy, params, trajectory.obs, None)[:2]
    distribution, extras, _ = _unrolled(params, trajectory, policy, state)
    return distribution, extras


def policy_and_value(
    params: Params, trajectory: Trajectory, policy: Policy, value: Value, state: RolloutState | None
) -> tuple[Any, Array]:
    """Apply a policy of either kind and its value function to a window.

    Args:
        params: parameters of both.
        trajectory: leaves [T, B, ...].
        policy: as for `rollout`; a recurrent one gives its value as its extras.
        value: value(params, obs) -> [T, B], which a recurrent policy does not need.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The distribution, and the value at each step [T, B].
    """
    distribution, extras = policy_outputs(params, trajectory, policy, state)
    values = _recurrent_value(extras, trajectory) if is_recurrent(state) else value(params, trajectory.obs)
    _checks.require_shape("the result of value(params, obs)", values, trajectory.reward.shape, of="trajectory.reward")
    return distribution, values


def values_and_next(
    params: Params, trajectory: Trajectory, policy: Policy, value: Value, state: RolloutState | None, last_obs: Any
) -> tuple[Array, Array]:
    """Return V(obs_t) and V(next_obs_t), [T, B] each, as `bootstrap_values`; with the memory of a recurrent policy."""
    if not is_recurrent(state):
        return bootstrap_values(params, trajectory, value=value, last_obs=last_obs)
    _, extras, memory = _unrolled(params, trajectory, policy, state)
    values = _recurrent_value(extras, trajectory)
    if trajectory.next_obs is not None:
        # Memory after each step and before any restart: what belongs to next_obs.
        next_value = value(params, trajectory.next_obs, memory)
    else:
        last_value = _last_value(params, trajectory, value, state, last_obs, memory)
        needed = trajectory.truncated & ~trajectory.terminated
        next_value = jnp.concatenate([values[1:], last_value[None]])
        next_value = jnp.where(needed, trajectory.truncation_value, next_value)
    return values, jax.lax.stop_gradient(jnp.where(trajectory.terminated, 0.0, next_value))


def weighted(advantage: Array, step_weight: Array | float | None) -> Array:
    """Multiply an advantage [T, B] by the weight of each step: [T, B], a scalar, or None for 1."""
    if step_weight is None:
        return advantage
    return advantage * _checks.as_scalar_or_shape("step_weight", step_weight, advantage.shape)


def _unrolled(params: Params, trajectory: Trajectory, policy: Policy, state: Any) -> tuple[Any, Any, Any]:
    return unroll(params, trajectory, state.policy_state, policy, state.start_policy_state)


def _recurrent_value(extras: Any, trajectory: Trajectory) -> Array:
    if getattr(extras, "shape", None) != trajectory.reward.shape:
        raise ValueError(
            "a recurrent policy that is trained with a critic must return its value as its extras, (distribution, "
            f"value, policy_state), one number for each step, shape {list(trajectory.reward.shape)}; got "
            f"{jax.tree.map(jnp.shape, extras) if extras is not None else 'no extras'}."
        )
    return extras


def _last_value(params: Params, trajectory: Trajectory, value: Value, state: Any, last_obs: Any, memory: Any) -> Array:
    if trajectory.truncation_value is None or last_obs is None:
        raise ValueError(
            "trajectory keeps no next_obs: to bootstrap a recurrent policy, truncation_value=value is needed in "
            "rollout, and last_obs=state.obs from after it. Pass both, or keep next_obs."
        )
    last = jax.tree.map(lambda x: x[-1], memory)
    return value(params, last_obs, restarted(trajectory.done[-1], state.start_policy_state, last))
