"""Rows of a replay that tell their environment and time, and which windows a ring of the newest of them holds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg

ENVS, ROWS, BATCH = 3, 7, 64


def rows(start: int, count: int, *, envs: int = ENVS, next_obs: bool = True) -> pg.Trajectory:
    """Rows start, start + 1, ... of every environment: each leaf tells the environment and the time."""
    time, env = np.meshgrid(np.arange(start, start + count), np.arange(envs), indexing="ij")
    code = time + 1000 * env
    frame = np.stack([time % 256, env], -1)
    return pg.Trajectory(
        obs={"frame": jnp.asarray(frame, jnp.float32), "plane": jnp.asarray(time[..., None] % 2, jnp.float32)},
        action=jnp.asarray(code, jnp.int32),
        reward=jnp.asarray(code, jnp.float32) + 0.5,
        next_obs={
            "frame": jnp.asarray(frame + 1, jnp.float32),
            "plane": jnp.asarray((time[..., None] + 1) % 2, jnp.float32),
        }
        if next_obs
        else None,
        terminated=jnp.asarray((time + 2 * env) % 5 == 0),
        truncated=jnp.asarray((3 * time + env) % 7 == 0),
        log_prob=jnp.asarray(-code, jnp.float32),
        step=jnp.asarray(time, jnp.int32),
        extras={"bf16": jnp.asarray(env, jnp.bfloat16)},
    )


def expected(env: np.ndarray, time: np.ndarray) -> pg.Trajectory:
    """The rows of given environments and times, from the long run in which they were made."""
    long = jax.tree.map(np.asarray, rows(0, 400))
    return jax.tree.map(lambda x: x[time, env], long)


def where(window: pg.Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Environment and time of each row of a window."""
    code = np.asarray(window.action)
    return code // 1000, code % 1000


def valid(total: int, num_steps: int, *, held: int = ROWS) -> set[tuple[int, int]]:
    """Environment and first time of all windows that the newest `held` of `total` rows contain."""
    kept = list(range(total))[-held:]
    return {(env, kept[i]) for env in range(ENVS) for i in range(len(kept) - num_steps + 1)}


def filled(buffer: Any, *counts: int) -> tuple[Any, int]:
    """A state after adds of so many rows, and the number of rows."""
    state, total = buffer.init(rows(0, 1)), 0
    for count in counts:
        state = buffer.add(state, rows(total, count))
        total += count
    return state, total


# The steps of a window, and how many rows are added at a time.
ADDED = [(1, (3, 3, 7, 3)), (3, (3, 3, 1, 3, 7, 3, 1, 1, 7, 1)), (ROWS, (3, 3, 3, 3, 7, 3))]
