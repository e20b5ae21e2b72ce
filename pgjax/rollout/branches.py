"""Rollouts that branch off from states that were visited, to see what would have followed them."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._sharding import one_type
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory, Value
from pgjax.envs.description import agents_of, given_params, params_axes
from pgjax.returns import bootstrap_values, discounted_returns
from pgjax.rollout._step import Inputs, step_once
from pgjax.rollout.collect import rollout, window_inputs

Array = jax.Array


@compiled("policy", "env", "num_steps")
def rollout_with_states(
    key: Array,
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
) -> tuple[RolloutState, Trajectory, RolloutState]:
    """Step every environment num_steps times, and keep the state before each step for `branch_returns` to start from.

    Shapes: T = num_steps; leaves of the trajectory and of the states [T, B, ...].

    Args:
        key: a PRNG key, consumed; the trajectory is that of `rollout` with the same key.
        params: whatever policy takes first.
        state: from `init_rollout` or an earlier rollout.
        policy: as in `rollout`; static.
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        num_steps: T, environment steps, at least 1; static.

    Returns:
        The state after the last step, leaves [B, ...]; the trajectory; and the states before each step, a
        `RolloutState` with leaves [T, B, ...]. Memory for T B states of the environment.

    Raises:
        TypeError: if num_steps is not an int, state is no RolloutState, or the policy returns no distribution.
        ValueError: if num_steps < 1.
    """
    _checks.require_callable("policy", policy)
    _checks.require_instance("state", state, RolloutState, remedy="Start with init_rollout, and check the order.")
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    inputs = window_inputs(key, params, state, policy, env, env_params, num_steps)

    def body(state: RolloutState, inputs: Inputs) -> tuple[RolloutState, tuple[Trajectory, RolloutState]]:
        after, row = step_once(params, state, inputs, policy=policy, env=env, env_params=env_params)
        return after, (row, state)

    varied, state = one_type(body, state, inputs, params)
    after, (trajectory, states) = jax.lax.scan(varied, state, inputs, length=num_steps)
    return after, trajectory, states


@compiled("policy", "env", "num_steps", "num_branches", "chunk", unit_interval=("discount",))
def branch_returns(
    key: Array,
    params: Params,
    states: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    discount: Array | float,
    num_branches: int,
    num_steps: int,
    actions: Any = None,
    value: Value | None = None,
    chunk: int = 64,
) -> Array:
    """Estimate the value of each state by playing on from it several times: the mean return of the branches.

        V̂(s) = 1/N Σ_n Σ_{k<m} γ^k r_k,   s_0 = s,  a_k ~ π,  m = min(num_steps, steps to the end of the episode)
        Q̂(s, a): the same with a_0 = a, where actions are given

    Q̂(s_t, a_t) - V̂(s_t), or r_t + γ V̂(s_{t+1}) - V̂(s_t), is the advantage of VinePPO. Q̂ with each action in turn is
    the critic of an all-action gradient without a model of it.

    Shapes: leaves of states [..., ...], usually [T, B, ...]; result [T, B].

    Args:
        key: a PRNG key, consumed; branches of different states are independent.
        params: parameters of the policy.
        states: where to start, from `rollout_with_states`, or a `RolloutState` as `init_rollout` gives it; the last
            batch axis is that of the environments.
        policy: as in `rollout`; static.
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        discount: γ, scalar, in [0, 1], per environment step.
        num_branches: N, branches of each state, at least 1; static.
        num_steps: the longest branch, environment steps, at least 1; static.
        actions: leaves [T, B, ...], first actions, such as `trajectory.action`; None lets the policy choose.
        value: value(params, obs) -> [...] float of what follows a branch that is cut, by num_steps or a truncation;
            None means 0: rewards beyond the cut are then missing. For policies without memory.
        chunk: states that are played on from at once, which bounds the memory; static.

    Returns:
        [T, B] float, reward units.

    Raises:
        TypeError: if an int is none, or states are no RolloutState.
        ValueError: if one is below 1, shapes differ, discount is a number outside [0, 1], or a value is given for a
            recurrent policy.

    Properties:
        Unbiased for the value of the policy where num_steps reaches the end of every episode, or the value is exact,
        with 1/N of the variance of a return; independent of the actions that were taken, so that it may serve as a
        baseline. T B N num_steps environment steps; memory for chunk N environments, and the result does not depend on
        chunk.

    References:
        Kazemnejad et al. (2024), VinePPO: unlocking RL potential for LLM reasoning through refined credit assignment.
        Schulman et al. (2015), Trust region policy optimization, the vine.
    """
    _checks.require_callable("policy", policy)
    _checks.require_instance("states", states, RolloutState, remedy="Use rollout_with_states, and check the order.")
    num_branches = _checks.as_positive_int("num_branches", num_branches)
    num_steps, chunk = _checks.as_positive_int("num_steps", num_steps), _checks.as_positive_int("chunk", chunk)
    if value is not None and states.policy_state is not None:
        raise ValueError(
            "value is given, but the policy has a memory, which the value of the last observation would need. "
            "Leave value out, and play whole episodes."
        )
    batch, agents = jnp.shape(states.step), len(agents_of(env))
    lead = batch[: len(batch) - agents]
    for leaf in jax.tree.leaves(actions):
        _checks.require_leading_shape("actions", leaf, batch, of="states.step")
    env_params = given_params(env, env_params)
    axes = params_axes(env, env_params, lead[-1])
    size = math.prod(lead)
    flat = lambda tree: jax.tree.map(lambda x: jnp.reshape(x, (size, *jnp.shape(x)[len(lead) :])), tree)  # noqa: E731
    play = functools.partial(rollout, policy=policy, env=env)

    def one(inputs: Any) -> Array:
        key, index, state, action = inputs
        state, action = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_branches, *x.shape)), (state, action))
        own = _row_of(env_params, axes, index % lead[-1])
        first_key, key = jax.random.split(key)
        windows = []
        if action is not None:
            first = jax.tree.map(lambda x: x[None], action)
            state, window = play(first_key, params, state, env_params=own, num_steps=1, actions=first)
            windows.append(window)
        if num_steps > len(windows):
            steps = num_steps - len(windows)
            windows.append(play(key, params, state, env_params=own, num_steps=steps)[1])
        window = jax.tree.map(lambda *x: jnp.concatenate(x), *windows)
        next_value = None if value is None else bootstrap_values(params, window, value=value)[1]
        ends = {"terminated": window.terminated, "truncated": window.truncated}
        return discounted_returns(window.reward, next_value, **ends, discount=discount)[0].mean(0)

    inputs = jax.random.split(key, size), jnp.arange(size), flat(states), flat(actions)
    return jax.lax.map(one, inputs, batch_size=min(chunk, size)).reshape(batch)


def _row_of(env_params: Any, axes: Any, index: Array) -> Any:
    """The parameters of one environment, where some leaves hold a row for each."""
    if axes is None:
        return env_params
    return jax.tree.map(lambda axis, x: x if axis is None else x[index], axes, env_params, is_leaf=lambda x: x is None)
