"""What recipes that search over parameters share: how long an episode may be, and what whole episodes say."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax._types import Environment
from pgjax.envs.description import given_params
from pgjax.expectation import SearchInfo
from pgjax.recipes.recipe import Array, Metrics


def search_metrics(info: SearchInfo, grads: Any, *, num_steps: int, env_steps: Array) -> Metrics:
    """Summarise the whole episodes that a search over parameters played.

    Shapes: info.aux leaves [..., B]; scalars.

    Args:
        info: of a search whose f is minus the mean return, and whose aux is the `Evaluation`.
        grads: the direction that it gave.
        num_steps: steps after which an episode was given up.
        env_steps: environment steps of the run before.

    Returns:
        `loss`, the mean of f; `num_nonfinite`, how many values of f were not finite; `episode_return`, the mean over
        all episodes, NaN if one was given up; `finished`, share of episodes that ended; `grad_norm`; `env_steps`,
        int32, all that the run has taken so far.
    """
    returns, lengths = info.aux.episode_return, info.aux.episode_length
    return {
        "loss": info.value,
        "num_nonfinite": info.num_nonfinite,
        "episode_return": jnp.mean(returns),
        "finished": jnp.mean(~jnp.isnan(returns), dtype=jnp.float32),
        "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
        "env_steps": env_steps + jnp.sum(jnp.where(jnp.isnan(lengths), num_steps, lengths), dtype=jnp.int32),
    }


def longest_episode(env: Environment, env_params: Any) -> int:
    """Look up after how many steps an environment cuts its episodes.

    Shapes: a Python int.

    Args:
        env: the environment.
        env_params: its parameters, concrete numbers, shared or with one row for each environment; or None.

    Returns:
        The greatest ``max_steps_in_episode``.

    Raises:
        ValueError: if the parameters have none.
    """
    limit = getattr(given_params(env, env_params), "max_steps_in_episode", None)
    if limit is None:
        raise ValueError("env_params has no max_steps_in_episode: say by num_steps when an episode is given up.")
    return int(np.max(limit))
