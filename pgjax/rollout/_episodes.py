"""How the state of a rollout moves on, and what is set back where an episode ends."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import RolloutState
from pgjax.envs.boundary import Outcome

Array = jax.Array


def advance(state: RolloutState, outcome: Outcome, policy_state: Any) -> RolloutState:
    """Move the state of a rollout one step on.

    Args:
        state: before the step.
        outcome: what the step led to.
        policy_state: of a recurrent policy, after the step; or None.

    Returns:
        The state after the step; where an episode ended, that of the next one's start.
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
        num_episodes=jax.tree.map(lambda number: number + done, state.num_episodes),
    )


def restarted(starts: Array, start_policy_state: Any, policy_state: Any) -> Any:
    """Set the state of a recurrent policy back where an episode starts.

    Args:
        starts: [B] bool.
        start_policy_state: leaves [B, ...], the state at the start of an episode, or None.
        policy_state: leaves [B, ...], the state now, or None.

    Returns:
        Leaves [B, ...], in the dtypes of start_policy_state.
    """

    def choose(start: Array, now: Array) -> Array:
        mask = starts.reshape(starts.shape + (1,) * (start.ndim - starts.ndim))
        return jnp.where(mask, start, _checks.as_dtype_of(start, now))

    return jax.tree.map(choose, start_policy_state, policy_state)
