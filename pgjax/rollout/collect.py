"""Stepping many environments under a policy, and keeping what happened."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import action_from_noise, draw_noise, log_prob_of, sample_action
from pgjax.envs.boundary import Outcome, StepRandomness, batched_reset, batched_step, draw_randomness
from pgjax.rollout.policies import apply_policy, restarted

Array = jax.Array


@compiled("env", "num_envs")
def init_rollout(
    key: Array, env: Environment, env_params: Any, *, num_envs: int, policy_state: Any = None
) -> RolloutState:
    """Start num_envs environments and return the state that `rollout` continues from.

    Shapes: leaves of the result [B, ...] with B = num_envs.

    Args:
        key: a PRNG key, consumed.
        env: the environment, gymnax >= 1.0 or of the same form; static.
        env_params: its parameters. A leaf with one axis more than in env.default_params, of length
            num_envs, is taken as one value for each environment.
        num_envs: number of environments, at least 1; static.
        policy_state: for a recurrent policy, its state at the start of an episode, leaves [B, ...]; else None.

    Returns:
        The state, with step 0 everywhere and no finished episode.

    Raises:
        TypeError: if num_envs is not an int.
        ValueError: if num_envs < 1, or if a leaf of env_params or policy_state has the wrong leading axis.
    """
    num_envs = _checks.as_positive_int("num_envs", num_envs)
    for leaf in jax.tree.leaves(policy_state):
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != num_envs:
            raise ValueError(
                f"every leaf of policy_state must have the leading axis num_envs={num_envs}, "
                f"got {list(jnp.shape(leaf))}. Give one state for each environment."
            )
    obs, env_state = batched_reset(key, env, env_params, num_envs)
    return RolloutState(
        env_state=env_state,
        obs=obs,
        step=jnp.zeros(num_envs, jnp.int32),
        policy_state=policy_state,
        start_policy_state=policy_state,
        running_return=jnp.zeros(num_envs, jnp.float32),
        episode_return=jnp.full(num_envs, jnp.nan, jnp.float32),
        episode_length=jnp.full(num_envs, jnp.nan, jnp.float32),
    )


@compiled("policy", "env", "num_steps", "truncation_value")
def rollout(
    key: Array,
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
    noise: Any = None,
    actions: Any = None,
    truncation_value: Value | None = None,
) -> tuple[RolloutState, Trajectory]:
    """Step every environment num_steps times under a policy and return what happened.

        a_t ~ π(· | obs_t),   (r_t, next_obs_t) ~ P(· | s_t, a_t);  an ended episode starts anew by itself

    Shapes: T = num_steps, B = number of environments; every leaf of the trajectory [T, B, ...].

    Args:
        key: a PRNG key, consumed.
        params: whatever policy takes first.
        state: from `init_rollout` or an earlier rollout: episodes run on across rollouts.
        policy: policy(params, obs [B, ...]) -> distribution, or (distribution, extras). A recurrent policy
            also takes and gives its state: policy(params, obs, policy_state) -> (distribution, policy_state)
            or (distribution, extras, policy_state); it is set back where an episode starts. Static.
        env: the environment, gymnax >= 1.0 or of the same form; static.
        env_params: its parameters, see `init_rollout`.
        num_steps: T, environment steps, at least 1; static.
        noise: [T, B, ...] the distribution's own noise (`Distribution.base_noise`) to act with, or None.
        actions: [T, B, ...] actions to take in place of sampling, or None. log_prob is then theirs.
        truncation_value: value(params, obs) -> [B]; if given, the value of the last observation of a truncated
            episode is computed on the spot and kept as `truncation_value`, and next_obs is not kept: for large
            observations, which it would store twice. A recurrent policy's takes policy_state as well. Static.

    Returns:
        The state after the last step, and the trajectory.

    Raises:
        TypeError: if num_steps is not an int, or if the policy returns no distribution.
        ValueError: if num_steps < 1, if noise and actions are both given, if one has the wrong leading axes, or if
            log_prob, the reward or the truncation value is not one number for each environment.

    Properties:
        Differentiable with respect to params where actions are reparameterised and the environment lets
        gradients through. Memory O(T B) for the trajectory. One key per step for the whole batch.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=3)
        >>> state, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=5)
        >>> trajectory.obs.shape
        (5, 3, 4)
    """
    _checks.require_callable("policy", policy)
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    num_envs = state.step.shape[0]
    if noise is not None and actions is not None:
        raise ValueError("noise and actions are both given: actions leave nothing to sample. Pass one of them.")
    for name, given in (("noise", noise), ("actions", actions)):
        for leaf in jax.tree.leaves(given):
            if jnp.shape(leaf)[:2] != (num_steps, num_envs):
                raise ValueError(
                    f"{name} must have the leading axes [num_steps, num_envs] = [{num_steps}, {num_envs}], "
                    f"got {list(jnp.shape(leaf))}."
                )
    # All that is random is drawn before the loop: one large kernel is cheaper than many small ones.
    act_key, env_key = jax.random.split(key)
    act_keys = jax.random.split(act_key, num_steps)
    randomness = draw_randomness(env_key, env, env_params, num_envs=num_envs, num_steps=num_steps)
    if noise is None and actions is None:
        noise = draw_noise(apply_policy(policy, params, state.obs, state.policy_state)[0], act_keys)

    def body(state: RolloutState, inputs: tuple[Array, StepRandomness, Any, Any]) -> tuple[RolloutState, Trajectory]:
        act_key, randomness_t, noise_t, action_t = inputs
        distribution, extras, policy_state = apply_policy(policy, params, state.obs, state.policy_state)
        if actions is not None:
            action, raw_action = action_t, None
            log_prob = log_prob_of(distribution, action)
        elif noise is not None:
            action, raw_action, log_prob = action_from_noise(distribution, noise_t)
        else:
            action, raw_action, log_prob = sample_action(distribution, act_key)
        _checks.require_one_each("log_prob that policy gives", log_prob, state.step.shape)
        outcome = batched_step(randomness_t, env, env_params, state.env_state, action)
        kept = None
        if truncation_value is not None:
            kept = _value_where_truncated(truncation_value, params, outcome, policy_state)
        row = Trajectory(
            obs=state.obs,
            action=action,
            reward=outcome.reward,
            next_obs=outcome.next_obs if truncation_value is None else None,
            terminated=outcome.terminated,
            truncated=outcome.truncated,
            log_prob=log_prob,
            step=state.step,
            raw_action=raw_action,
            extras=extras,
            truncation_value=kept,
        )
        return advance(state, outcome, policy_state), row

    return jax.lax.scan(body, state, (act_keys, randomness, noise, actions), length=num_steps)


def _value_where_truncated(value: Value, params: Params, outcome: Outcome, policy_state: Any) -> Array:
    arguments = (params, outcome.next_obs) if policy_state is None else (params, outcome.next_obs, policy_state)

    def evaluate() -> Array:
        values = _checks.as_floating("the result of truncation_value", value(*arguments))
        _checks.require_one_each("result of truncation_value", values, outcome.truncated.shape)
        return jnp.where(outcome.truncated, values, 0.0)

    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(evaluate))
    return jax.lax.cond(outcome.truncated.any(), evaluate, lambda: zero)


def advance(state: RolloutState, outcome: Outcome, policy_state: Any) -> RolloutState:
    """Move the state of a rollout one step on.

    Args:
        state: before the step.
        outcome: what the step led to.
        policy_state: of a recurrent policy, after the step; or None.

    Returns:
        The state after the step; where an episode ended, that of the next one's start.

    Raises:
        ValueError: by JAX, if policy_state has another structure than that in state.
    """
    done = outcome.terminated | outcome.truncated
    running_return = state.running_return + outcome.reward.astype(jnp.float32)
    return RolloutState(
        env_state=outcome.env_state,
        obs=outcome.obs,
        step=jnp.where(done, 0, state.step + 1),
        policy_state=restarted(done, state.start_policy_state, policy_state),
        start_policy_state=state.start_policy_state,
        running_return=jnp.where(done, 0.0, running_return),
        episode_return=jnp.where(done, running_return, state.episode_return),
        episode_length=jnp.where(done, (state.step + 1).astype(jnp.float32), state.episode_length),
    )
