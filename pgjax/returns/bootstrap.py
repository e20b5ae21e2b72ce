"""The values that a window needs: of each observation, and of what each step led to."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Trajectory, Value

Array = jax.Array


@compiled("value")
def bootstrap_values(
    params: Params, trajectory: Trajectory, *, value: Value, last_obs: Any = None
) -> tuple[Array, Array]:
    """Evaluate a value function on a window: once per observation, and again only where an episode was truncated.

        v_t = V(obs_t),   v'_t = V(next_obs_t) before any reset
        v'_t = v_{t+1} except at the end of the window and where an episode was cut
        v'_t = 0 where terminated: no value follows, so none is computed

    Shapes: trajectory leaves [T, B, ...]; results [T, B].

    Args:
        params: parameters of the value function.
        trajectory: the window; either next_obs or truncation_value must be there.
        value: value(params, obs [..., features]) -> [...] float, reward units; static.
        last_obs: [B, ...] observation after the last step, `RolloutState.obs`; needed only when the
            trajectory keeps no next_obs.

    Returns:
        value [T, B], which carries gradients, and next_value [T, B], which does not.

    Raises:
        TypeError: if value is not callable or does not return a floating array.
        ValueError: if value does not return one number for each observation, if the trajectory keeps neither
            next_obs nor truncation_value, or if next_obs and last_obs are both missing.

    Properties:
        One batched pass over [T, B], one over [B], and one over as many small blocks as hold the
        truncated steps: none where no episode was truncated. Exact for any number of truncations.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=3)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=5)
        >>> value, next_value = pg.bootstrap_values(1.0, trajectory, value=lambda params, obs: params * obs[..., 0])
        >>> value.shape, next_value.shape
        ((5, 3), (5, 3))

    References:
        Pardo, Tavakoli, Levdik and Kormushev (2018), Time limits in reinforcement learning.
    """
    _checks.require_callable("value", value)
    batch = trajectory.reward.shape
    values = _evaluate(value, params, trajectory.obs, batch, "obs")
    if trajectory.next_obs is None:
        if trajectory.truncation_value is None:
            raise ValueError(
                "trajectory keeps neither next_obs nor truncation_value: the value of a truncated episode is lost. "
                "Leave next_obs in it, or pass truncation_value=... to rollout."
            )
        if last_obs is None:
            raise ValueError(
                "last_obs is required because this trajectory keeps no next_obs. Pass last_obs=state.obs, "
                "the state that rollout returned beside it."
            )
    elif last_obs is None:
        last_obs = jax.tree.map(lambda x: x[-1], trajectory.next_obs)
    last_value = _evaluate(value, params, last_obs, batch[1:], "last_obs").astype(values.dtype)
    next_value = jnp.concatenate([values[1:], last_value[None]])
    needed = trajectory.truncated & ~trajectory.terminated
    if trajectory.truncation_value is not None:
        _checks.require_shape("trajectory.truncation_value", trajectory.truncation_value, batch, of="trajectory.reward")
        next_value = jnp.where(needed, trajectory.truncation_value, next_value)
    else:
        next_value = _evaluate_where(needed, params, trajectory.next_obs, next_value, value)
    return values, jax.lax.stop_gradient(jnp.where(trajectory.terminated, 0.0, next_value))


def _evaluate(value: Value, params: Params, obs: Any, batch: tuple[int, ...], name: str) -> Array:
    result = f"result of value(params, {name})"
    values = _checks.as_floating(f"the {result}", value(params, obs))
    _checks.require_one_each(result, values, batch)
    return values


def _evaluate_where(mask: Array, params: Params, obs: Any, values: Array, value: Value) -> Array:
    """Replace values by value(params, obs) where mask holds, in blocks, so that the cost follows the count."""
    size = mask.size
    block = min(size, max(32, size // 64))
    rows = jax.tree.map(lambda x: x.reshape((size, *x.shape[mask.ndim :])), obs)
    # A loop of unknown length cannot be differentiated in reverse, and a bootstrap is a constant anyway.
    params, rows, values = jax.lax.stop_gradient((params, rows, values))

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        remaining, flat = carry
        # The first rows that remain. It compiles and runs in less time than nonzero, whose cumulative sums are many.
        found, index = jax.lax.top_k(remaining.astype(jnp.float32), block)
        index = jnp.where(found > 0, index, size)
        picked = jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), rows)
        flat = flat.at[index].set(value(params, picked).astype(flat.dtype), mode="drop")
        return remaining.at[index].set(False, mode="drop"), flat

    _, flat = jax.lax.while_loop(lambda carry: carry[0].any(), body, (mask.reshape(size), values.reshape(size)))
    return flat.reshape(mask.shape)
