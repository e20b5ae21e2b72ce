"""Playing whole episodes to see what a policy earns."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._sharding import one_type
from pgjax._types import Environment, Params, Policy, RolloutState
from pgjax.distributions import sample_action
from pgjax.envs.boundary import batched_step, draw_randomness
from pgjax.envs.description import given_params
from pgjax.rollout._episodes import advance
from pgjax.rollout.collect import init_rollout
from pgjax.rollout.policies import apply_policy

Array = jax.Array


MOST_STEPS = 100_000
"""Environment steps after which `evaluate` gives up by default, if the parameters do not allow longer episodes."""


class Evaluation(NamedTuple):
    """Whole episodes, one from each environment; [N, A] where env.agents is (A,)."""

    episode_return: Array  # [N] float32, undiscounted, reward units; NaN if the episode outlasted max_steps
    episode_length: Array  # [N] float32, environment steps; NaN likewise


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

    Shapes: N = num_episodes; results [N], and [N, A] where env.agents is (A,).

    Args:
        key: a PRNG key, consumed.
        params: parameters of the policy.
        policy: feed-forward or recurrent, see `rollout`; static.
        env: the environment; static.
        env_params: its parameters, see `init_rollout`.
        num_episodes: N, at least 1; static.
        policy_state: for a recurrent policy, its state at the start of an episode, leaves [N, ...].
        max_steps: give up after so many environment steps. None gives up after 100,000, or after
            env_params.max_steps_in_episode where that is more, so that it returns on an environment that never ends.
            Static.
        greedy: act by the distribution's mode in place of a sample; static.

    Returns:
        episode_return [N] float32, undiscounted, and episode_length [N] float32; both NaN where max_steps came first.

    Raises:
        TypeError: if num_episodes or max_steps is not an int, if the policy returns no distribution, or if greedy
            is asked of a distribution without a mode.
        ValueError: if num_episodes < 1 or max_steps < 1.

    Properties:
        Runs as long as the longest episode, at most max_steps. Not differentiable.
    """
    _checks.require_callable("policy", policy)
    num_episodes = _checks.as_positive_int("num_episodes", num_episodes)
    if max_steps is not None:
        _checks.as_positive_int("max_steps", max_steps)
    limit = _default_limit(env, env_params) if max_steps is None else max_steps
    start_key, key = jax.random.split(key)
    state = init_rollout(start_key, env, env_params, num_envs=num_episodes, policy_state=policy_state)

    def body(carry: tuple[Array, RolloutState]) -> tuple[Array, RolloutState]:
        count, state = carry
        start_like, step_key = (state.obs, state.env_state), jax.random.fold_in(key, count)
        act_key, randomness = draw_randomness(step_key, env, env_params, start_like=start_like, num_steps=1)
        distribution, _, policy_state = apply_policy(policy, params, state.obs, state.policy_state)
        action = _mode(distribution) if greedy else sample_action(distribution, act_key)[0]
        outcome = batched_step(jax.tree.map(lambda x: x[0], randomness), env, env_params, state.env_state, action)
        after = advance(state, outcome, policy_state)
        playing = state.num_episodes == 0
        return count + 1, replace(
            after,
            episode_return=jnp.where(playing, after.episode_return, state.episode_return),
            episode_length=jnp.where(playing, after.episode_length, state.episode_length),
        )

    def goes_on(carry: tuple[Array, RolloutState]) -> Array:
        count, state = carry
        return jnp.any(state.num_episodes == 0) & (count < limit)

    varied, start = one_type(body, (jnp.int32(0), state), key, params)
    _, state = jax.lax.while_loop(goes_on, varied, start)
    return Evaluation(state.episode_return, state.episode_length)


def _default_limit(env: Environment, env_params: Any) -> Array | int:
    limit = getattr(given_params(env, env_params), "max_steps_in_episode", None)
    return MOST_STEPS if limit is None else jnp.maximum(jnp.max(jnp.asarray(limit)), MOST_STEPS)


def _mode(distribution: Any) -> Any:
    if not callable(getattr(distribution, "mode", None)):
        raise TypeError(f"greedy=True needs a distribution with a method mode(), got {type(distribution).__name__}.")
    return distribution.mode()
