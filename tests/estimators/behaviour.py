"""Every trajectory of a behaviour policy of the two-state process, in observations that tell the time, and critics."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tabular
from tabular import policy

import pgjax as pg
from pgjax import exact

HORIZON = 3


@functools.cache
def other_data(horizon: int = HORIZON, own: bool = False) -> tuple[Any, Any, pg.Trajectory, np.ndarray]:
    """The process, the logits, every trajectory of the behaviour, whose observations tell the time, and weights."""
    mdp, logits = tabular.problem("two_state")
    behaviour = jax.nn.softmax(logits) if own else exact.two_state_behaviour()
    batch, weights = exact.trajectories(mdp, behaviour, horizon)
    timed = lambda obs, step: jnp.concatenate([obs, step[..., None].astype(obs.dtype)], -1)  # noqa: E731
    batch = batch.replace(obs=timed(batch.obs, batch.step), next_obs=timed(batch.next_obs, batch.step + 1))
    return mdp, logits, batch, np.asarray(weights)


def timed_policy(logits: Any, obs: Any) -> Any:
    return policy(logits, obs[..., :2])


def look_up(table: Any, obs: Any, action: Any) -> Any:
    """A critic that knows the time: table [H, S, A]."""
    return table[obs[..., -1].astype(int), obs[..., :2].argmax(-1), action]


def of_table(table: Any, obs: Any, action: Any) -> Any:
    return jnp.take_along_axis(obs @ table, action[..., None], -1)[..., 0]


def action_values(mdp: Any, logits: Any, horizon: int) -> Any:
    table = tabular.values_over_time(mdp, logits, horizon)
    return jnp.asarray(mdp.reward)[None] + mdp.discount * jnp.einsum("sat,ht->hsa", mdp.transition, table[1:])


@functools.cache
def tables(horizon: int = HORIZON) -> dict[str, np.ndarray]:
    mdp, logits, *_ = other_data(horizon)
    q = np.asarray(action_values(mdp, logits, horizon))
    noise = np.random.default_rng(0).normal(size=q.shape)
    return {"zero": np.zeros_like(q), "exact": q, "noisy": q + noise, "unrelated": 5.0 * noise}
