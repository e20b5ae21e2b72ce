"""A ring of whole windows on the device, for algorithms that replay them with their importance ratios."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory
from pgjax.rollout import rollout

Array = jax.Array


def empty_windows(
    params: Params,
    state: RolloutState,
    *,
    policy: Policy,
    env: Environment,
    env_params: Any,
    num_steps: int,
    capacity: int,
) -> Trajectory:
    """Make room for windows of a rollout.

    Shapes: leaves [capacity, T, B, ...].

    Args:
        params: of the policy; only shapes matter, here as below.
        state: of the rollout.
        policy: as in `rollout`; what it returns as extras is kept.
        env: the environment.
        env_params: its parameters.
        num_steps: T, environment steps in each window.
        capacity: windows that are kept.

    Returns:
        Zeros, in the form of many trajectories.
    """
    window = jax.eval_shape(
        lambda: rollout(
            jax.random.key(0), params, state, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )[1]
    )
    return jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), window)


def add_window(windows: Trajectory, number: Array, window: Trajectory) -> Trajectory:
    """Put a window in place of the oldest.

    Shapes: windows leaves [capacity, T, B, ...]; window [T, B, ...].

    Args:
        windows: what is kept.
        number: scalar int, how many windows came before.
        window: the new one.

    Returns:
        What is kept now, the new one in row number mod capacity.
    """
    return jax.tree.map(lambda rows, x: rows.at[number % rows.shape[0]].set(x), windows, window)


def draw_windows(key: Array, count: Array, *, num_draws: int, num_envs: int) -> Array:
    """Draw which windows are replayed, for each environment by itself, with replacement.

    Shapes: result [N, B] int32.

    Args:
        key: a PRNG key, consumed.
        count: scalar int, windows that are kept.
        num_draws: N.
        num_envs: B.

    Returns:
        Rows for `take_windows`.
    """
    return jax.random.randint(key, (num_draws, num_envs), 0, count)


def take_windows(windows: Trajectory, rows: Array) -> Trajectory:
    """Put one window together, the column of each environment from a row of its own.

    Shapes: windows leaves [capacity, T, B, ...]; rows [B]; result [T, B, ...].

    Args:
        windows: what is kept.
        rows: for each environment a row.

    Returns:
        The window.
    """
    columns = jnp.arange(rows.shape[0])
    return jax.tree.map(lambda x: jnp.swapaxes(x[rows, :, columns], 0, 1), windows)
