"""One step of every environment under a policy: the body of each loop over a window."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._sharding import as_one_type
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import action_from_noise, log_prob_of, sample_action
from pgjax.envs.boundary import Outcome, StepRandomness, batched_step
from pgjax.rollout._episodes import advance
from pgjax.rollout.policies import apply_policy

Array = jax.Array
Inputs = tuple[Any, StepRandomness, Any, Any]


def step_once(
    params: Params,
    state: RolloutState,
    inputs: Inputs,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    keep: Callable[[Outcome, Any], Any] | None = None,
) -> tuple[RolloutState, Trajectory]:
    """Act once in every environment.

    Args:
        params: whatever policy takes first.
        state: before the step, leaves [B, ...].
        inputs: a key to act with, the environments' randomness, the policy's noise, the actions; of the first, the
            third and the fourth all but one are None.
        policy: as in `rollout`.
        env: the environment.
        env_params: its parameters.
        keep: (outcome, state of the policy after the step) -> what stands in `truncation_value`; next_obs is then left
            out of the row. None keeps next_obs.

    Returns:
        The state after the step and the row of the trajectory, leaves [B, ...].

    Raises:
        ValueError: if log_prob is not one number for each environment (and agent).
    """
    act_key, randomness, noise, action = inputs
    distribution, extras, policy_state = apply_policy(policy, params, state.obs, state.policy_state)
    action, raw_action, log_prob = _act(distribution, act_key, noise, action)
    _checks.require_one_each("log_prob that policy gives", log_prob, state.step.shape)
    outcome = batched_step(randomness, env, env_params, state.env_state, action)
    row = Trajectory(
        obs=state.obs,
        action=action,
        reward=outcome.reward,
        next_obs=outcome.next_obs if keep is None else None,
        terminated=outcome.terminated,
        truncated=outcome.truncated,
        log_prob=log_prob,
        step=state.step,
        raw_action=raw_action,
        extras=extras,
        truncation_value=None if keep is None else keep(outcome, policy_state),
    )
    return advance(state, outcome, policy_state), row


def value_after(
    name: str, value: Value, params: Params, outcome: Outcome, policy_state: Any, *, needed: Array
) -> Array:
    """Evaluate what a step led to, in a step in which some environment needs it.

    Args:
        name: of the argument that value is.
        value: value(params, obs) -> one number for each environment (and agent); a recurrent policy's takes its state.
        params: its parameters.
        outcome: of the step.
        policy_state: of the policy after the step, or None.
        needed: where the value counts, bool.

    Returns:
        The values, 0 elsewhere.

    Raises:
        TypeError: if the values are not floating.
        ValueError: if they are not one number for each.
    """
    arguments = (params, outcome.next_obs) if policy_state is None else (params, outcome.next_obs, policy_state)

    def evaluate() -> Array:
        values = _checks.as_floating(f"the result of {name}", value(*arguments))
        _checks.require_one_each(f"result of {name}", values, needed.shape)
        return as_one_type(jnp.where(needed, values, 0.0), needed, *arguments)

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(evaluate))
    zero = as_one_type(zero, needed, *arguments)
    return jax.lax.cond(needed.any(), evaluate, lambda: zero)


def _act(distribution: Any, key: Any, noise: Any, action: Any) -> tuple[Any, Any, Array]:
    """Take the given action, that of the given noise, or else a sample: (action, raw action, log-probability)."""
    if action is not None:
        return action, None, log_prob_of(distribution, action)
    if noise is not None:
        return action_from_noise(distribution, noise)
    return sample_action(distribution, key)
