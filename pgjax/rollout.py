"""From a policy and environments to a trajectory, in one scan on the device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory, Value
from pgjax.distributions import action_from_noise, draw_noise, log_prob_of, sample_action
from pgjax.envs.boundary import Chance, batched_reset, batched_step, draw_chance

Array = jax.Array


class Evaluation(NamedTuple):
    """Whole episodes, one from each environment."""

    episode_return: Array  # [N] float32, undiscounted, reward units; NaN if the episode outlasted max_steps
    episode_length: Array  # [N] int32, environment steps


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
    num_envs = _checks.positive_int("num_envs", num_envs)
    for leaf in jax.tree.leaves(policy_state):
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != num_envs:
            raise ValueError(
                f"every leaf of policy_state must have the leading axis num_envs={num_envs}, got {list(jnp.shape(leaf))}."
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
        episode_length=jnp.zeros(num_envs, jnp.int32),
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
        ValueError: if num_steps < 1, if noise and actions are both given, or if one has the wrong leading axes.

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
    _checks.function("policy", policy)
    num_steps = _checks.positive_int("num_steps", num_steps)
    num_envs = state.step.shape[0]
    if noise is not None and actions is not None:
        raise ValueError("noise and actions are both given: actions leave nothing to sample. Pass one of them.")
    for name, given in (("noise", noise), ("actions", actions)):
        for leaf in jax.tree.leaves(given):
            if leaf.shape[:2] != (num_steps, num_envs):
                raise ValueError(
                    f"{name} must have the leading axes [num_steps, num_envs] = [{num_steps}, {num_envs}], "
                    f"got {list(leaf.shape)}."
                )
    # All that is random is drawn before the loop: one large kernel is cheaper than many small ones.
    act_key, env_key = jax.random.split(key)
    act_keys = jax.random.split(act_key, num_steps)
    chance = draw_chance(env_key, env, env_params, num_envs=num_envs, num_steps=num_steps)
    if noise is None and actions is None:
        noise = draw_noise(apply_policy(policy, params, state.obs, state.policy_state)[0], act_keys)

    def body(state: RolloutState, inputs: tuple[Array, Chance, Any, Any]) -> tuple[RolloutState, Trajectory]:
        act_key, chance_t, noise_t, action_t = inputs
        distribution, extras, policy_state = apply_policy(policy, params, state.obs, state.policy_state)
        if actions is not None:
            action, raw_action = action_t, None
            log_prob = log_prob_of(distribution, action)
        elif noise is not None:
            action, raw_action, log_prob = action_from_noise(distribution, noise_t)
        else:
            action, raw_action, log_prob = sample_action(distribution, act_key)
        outcome = batched_step(chance_t, env, env_params, state.env_state, action)
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
        return _advance(state, row, outcome, policy_state), row

    return jax.lax.scan(body, state, (act_keys, chance, noise, actions), length=num_steps)


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
    return parts[0], extras, parts[-1] if recurrent else None


def _value_where_truncated(value: Any, params: Params, outcome: Any, policy_state: Any) -> Array:
    arguments = (params, outcome.next_obs) if policy_state is None else (params, outcome.next_obs, policy_state)
    zero = jnp.zeros(outcome.reward.shape, jnp.float32)
    evaluate = lambda: jnp.where(outcome.truncated, value(*arguments).astype(jnp.float32), 0.0)  # noqa: E731
    return jax.lax.cond(outcome.truncated.any(), evaluate, lambda: zero)


def _advance(state: RolloutState, row: Trajectory, outcome: Any, policy_state: Any) -> RolloutState:
    done = row.done
    running_return = state.running_return + row.reward.astype(jnp.float32)
    if policy_state is not None:
        policy_state = jax.tree.map(lambda start, now: _where(done, start, now), state.start_policy_state, policy_state)
    return RolloutState(
        env_state=outcome.env_state,
        obs=outcome.obs,
        step=jnp.where(done, 0, state.step + 1),
        policy_state=policy_state,
        start_policy_state=state.start_policy_state,
        running_return=jnp.where(done, 0.0, running_return),
        episode_return=jnp.where(done, running_return, state.episode_return),
        episode_length=jnp.where(done, state.step + 1, state.episode_length),
    )


def _where(mask: Array, x: Array, y: Array) -> Array:
    """Select between rows of x and y, both [B, ...], by a mask [B]; keep the dtype of y."""
    return jnp.where(mask.reshape(mask.shape + (1,) * (y.ndim - mask.ndim)), x, y).astype(y.dtype)


@compiled("policy")
def unroll_policy(params: Params, trajectory: Trajectory, policy_state: Any, *, policy: Policy, start_policy_state: Any) -> tuple[Any, Any]:
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

    Properties:
        Backpropagation through time over the window; memory O(T).
    """
    _checks.function("policy", policy)

    def body(carry: Any, inputs: tuple[Any, Array]) -> tuple[Any, tuple[Any, Any]]:
        obs, step = inputs
        carry = jax.tree.map(lambda start, now: _where(step == 0, start, now), start_policy_state, carry)
        distribution, extras, carry = apply_policy(policy, params, obs, carry)
        return carry, (distribution, extras)

    return jax.lax.scan(body, policy_state, (trajectory.obs, trajectory.step))[1]


@compiled("policy", "env", "num_episodes", "max_steps", "greedy")
def evaluate(
    key: Array,
    params: Params,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_episodes: int,
    policy_state: Any = None,
    max_steps: int | None = None,
    greedy: bool = False,
) -> Evaluation:
    """Play whole episodes, one in each of num_episodes environments, and return what each earned.

    Every environment plays its first episode to the end, so long episodes count as much as short ones.

    Shapes: N = num_episodes; results [N].

    Args:
        key: a PRNG key, consumed.
        params: parameters of the policy.
        policy: feed-forward or recurrent, see `rollout`; static.
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        num_episodes: N, at least 1; static.
        policy_state: for a recurrent policy, its state at the start of an episode, leaves [N, ...].
        max_steps: give up after so many environment steps; None waits for the last episode. Static.
        greedy: act by the distribution's mode in place of a sample; static.

    Returns:
        episode_return [N] float32, undiscounted, NaN where max_steps came first; episode_length [N] int32.

    Raises:
        TypeError: if num_episodes is not an int or the policy returns no distribution.
        ValueError: if num_episodes < 1.

    Properties:
        Runs as long as the longest episode. Not differentiable.
    """
    state = init_rollout(
        jax.random.fold_in(key, 0),
        env,
        env_params,
        num_envs=_checks.positive_int("num_episodes", num_episodes),
        policy_state=policy_state,
    )
    key = jax.random.fold_in(key, 1)

    def body(carry: tuple[Array, RolloutState]) -> tuple[Array, RolloutState]:
        count, state = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, count))
        chance = jax.tree.map(
            lambda x: x[0], draw_chance(env_key, env, env_params, num_envs=num_episodes, num_steps=1)
        )
        distribution, _, policy_state = apply_policy(policy, params, state.obs, state.policy_state)
        action = distribution.mode() if greedy else sample_action(distribution, act_key)[0]
        outcome = batched_step(chance, env, env_params, state.env_state, action)
        row = Trajectory(
            obs=None, action=None, reward=outcome.reward, next_obs=None, terminated=outcome.terminated,
            truncated=outcome.truncated, log_prob=None, step=state.step,
        )  # fmt: skip
        after = _advance(state, row, outcome, policy_state)
        first = jnp.isnan(state.episode_return)
        return count + 1, after.replace(
            episode_return=jnp.where(first, after.episode_return, state.episode_return),
            episode_length=jnp.where(first, after.episode_length, state.episode_length),
        )

    def unfinished(carry: tuple[Array, RolloutState]) -> Array:
        count, state = carry
        waiting = (state.episode_length == 0).any()
        return waiting if max_steps is None else waiting & (count < max_steps)

    _, state = jax.lax.while_loop(unfinished, body, (jnp.int32(0), state))
    return Evaluation(state.episode_return, state.episode_length)
