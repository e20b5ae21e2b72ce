"""Stepping many environments under a policy, and keeping what happened."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._sharding import one_type
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import draw_noise
from pgjax.envs.boundary import Outcome, batched_reset, draw_randomness
from pgjax.envs.description import agents_of
from pgjax.rollout._step import Inputs, step_once, value_after
from pgjax.rollout.policies import apply_policy

Array = jax.Array


@compiled("env", "num_envs")
def init_rollout(
    key: Array, env: Environment, env_params: Any, *, num_envs: int, policy_state: Any = None
) -> RolloutState:
    """Start num_envs environments and return the state that `rollout` continues from.

    Shapes: leaves of the result [B, ...] with B = num_envs; [B, A, ...] where env.agents is (A,), but for env_state.

    Args:
        key: a PRNG key, consumed.
        env: the environment, gymnax >= 1.0 or of the same form; static. One with an attribute agents = (A,) holds A
            agents: its observations, actions and rewards have a leading axis A, its ends one value or A.
        env_params: its parameters. A leaf with one axis more than in env.default_params, of length
            num_envs, is taken as one value for each environment.
        num_envs: number of environments, at least 1; static.
        policy_state: for a recurrent policy, its state at the start of an episode, leaves [B, ...]; else None.

    Returns:
        The state, with step 0 everywhere and no finished episode. Integer and boolean observations come as float32.

    Raises:
        TypeError: if num_envs is not an int, or if env has no reset and step or agents that are no tuple.
        ValueError: if num_envs < 1, or if a leaf of env_params, policy_state or obs has the wrong leading axes.
    """
    num_envs = _checks.as_positive_int("num_envs", num_envs)
    obs, env_state = batched_reset(key, env, env_params, num_envs)
    batch = (num_envs, *agents_of(env))
    for leaf in jax.tree.leaves(policy_state):
        if jnp.shape(leaf)[: len(batch)] != batch:
            raise ValueError(
                f"every leaf of policy_state must have the leading axes [num_envs, *env.agents] = {list(batch)}, "
                f"got {list(jnp.shape(leaf))}. Give one state for each environment and agent."
            )
    return RolloutState(
        env_state=env_state,
        obs=obs,
        step=jnp.zeros(batch, jnp.int32),
        policy_state=policy_state,
        start_policy_state=policy_state,
        running_return=jnp.zeros(batch, jnp.float32),
        episode_return=jnp.full(batch, jnp.nan, jnp.float32),
        episode_length=jnp.full(batch, jnp.nan, jnp.float32),
        num_episodes=jnp.zeros(batch, jnp.int32),
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

    Shapes: T = num_steps, B = number of environments; every leaf of the trajectory [T, B, ...], and [T, B, A, ...]
    where env.agents is (A,): agents are one more batch axis.

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
        The state after the last step, and the trajectory. Integer and boolean rewards and observations, uint8 frames
        too, come as float32, which holds them exactly: cast them back where they are stored.

    Raises:
        TypeError: if num_steps is not an int, if state is no RolloutState, or if the policy returns no distribution.
        ValueError: if num_steps < 1, if noise and actions are both given, if one has the wrong leading axes, or if
            log_prob, the reward or the truncation value is not one number for each environment (and agent).

    Properties:
        Differentiable with respect to params where actions are reparameterised and the environment lets
        gradients through. Those of gymnax stop them by default: env.with_transition_gradients() returns one of
        Pendulum, MountainCarContinuous, Reacher, Swimmer or PointRobot that does not, wrapped or bare; without it the
        gradient misses every path through a state. Memory O(T B) for the trajectory. All keys come from one split.

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
    _checks.require_instance("state", state, RolloutState, remedy="Start with init_rollout, and check the order.")
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    _check_given(noise, actions, (num_steps, *state.step.shape))
    inputs = window_inputs(key, params, state, policy, env, env_params, num_steps, noise, actions)
    keep = None if truncation_value is None else functools.partial(_value_where_truncated, truncation_value, params)
    body = functools.partial(step_once, params, policy=policy, env=env, env_params=env_params, keep=keep)
    varied, state = one_type(body, state, inputs, params)
    return jax.lax.scan(varied, state, inputs, length=num_steps)


def window_inputs(
    key: Array,
    params: Params,
    state: RolloutState,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
    noise: Any = None,
    actions: Any = None,
) -> Inputs:
    """Draw what a window of steps takes, one row for each: see `step_once`."""
    # All that is random is drawn before the loop: one large kernel is cheaper than many small ones.
    start_like = state.obs, state.env_state
    act_key, randomness = draw_randomness(key, env, env_params, start_like=start_like, num_steps=num_steps)
    act_keys = None
    if noise is None and actions is None:
        distribution = apply_policy(policy, params, state.obs, state.policy_state)[0]
        noise = draw_noise(distribution, act_key, num_draws=num_steps)
        act_keys = jax.random.split(act_key, num_steps) if noise is None else None

    return act_keys, randomness, noise, actions


def _check_given(noise: Any, actions: Any, lead: tuple[int, ...]) -> None:
    if noise is not None and actions is not None:
        raise ValueError("noise and actions are both given: actions leave nothing to sample. Pass one of them.")
    for name, given in (("noise", noise), ("actions", actions)):
        for leaf in jax.tree.leaves(given):
            if jnp.shape(leaf)[: len(lead)] != lead:
                axes = "[num_steps, num_envs]" if len(lead) == 2 else "[num_steps, num_envs, *env.agents]"
                raise ValueError(
                    f"{name} must have the leading axes {axes} = {list(lead)}, got {list(jnp.shape(leaf))}."
                )


def _value_where_truncated(value: Value, params: Params, outcome: Outcome, policy_state: Any) -> Array:
    return value_after("truncation_value", value, params, outcome, policy_state, needed=outcome.truncated)
