"""What an environment says of itself: its parameters, shared or one row for each environment, and its agents."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Environment

Array = jax.Array


def given_params(env: Environment, env_params: Any) -> Any:
    """Fill in the environment's own parameters where none are given.

    Args:
        env: the environment.
        env_params: its parameters, or None.

    Returns:
        env_params, or env.default_params; None if there are none either.
    """
    return getattr(env, "default_params", None) if env_params is None else env_params


def params_axes(env: Environment, env_params: Any, num_envs: int) -> Any:
    """Say which leaves of env_params hold one value for each environment.

    A leaf does if it has one axis more than the same leaf of env.default_params.

    Args:
        env: the environment; without default_params every leaf is shared.
        env_params: its parameters.
        num_envs: the length that the extra axis must have.

    Returns:
        A pytree like env_params of 0 (batched) and None (shared), for vmap.

    Raises:
        ValueError: if a batched leaf has not num_envs rows.
    """
    default = _default_like(env, env_params)
    if default is None:
        return None

    def axis(path: Any, leaf: Any, default_leaf: Any) -> int | None:
        if jnp.ndim(leaf) == jnp.ndim(default_leaf):
            return None
        if jnp.ndim(leaf) != jnp.ndim(default_leaf) + 1 or jnp.shape(leaf)[0] != num_envs:
            raise ValueError(
                f"env_params{jax.tree_util.keystr(path)} must have shape {list(jnp.shape(default_leaf))} or one row "
                f"for each of the {num_envs} environments, got {list(jnp.shape(leaf))}."
            )
        return 0

    return jax.tree_util.tree_map_with_path(axis, env_params, default)


def single_params(env: Environment, env_params: Any) -> Any:
    """Take the parameters of one environment out of parameters that may hold one row for each.

    Args:
        env: the environment; a leaf holds rows if it has one axis more than the same leaf of env.default_params.
        env_params: its parameters, or None.

    Returns:
        The parameters with the first row of each leaf that holds rows: what `env.action_space` and the like take.
    """
    env_params = given_params(env, env_params)
    default = _default_like(env, env_params)
    if default is None:
        return env_params
    return jax.tree.map(lambda x, one: x[0] if jnp.ndim(x) == jnp.ndim(one) + 1 else x, env_params, default)


def observation_dtype(env: Environment, env_params: Any = None) -> Any:
    """Tell the dtypes in which an environment gives its observations, before a rollout casts them to float32.

    Args:
        env: the environment.
        env_params: its parameters, or None for its own.

    Returns:
        A pytree of dtypes like an observation: uint8 of frames, bool of planes. Nothing is computed.
    """
    one = single_params(env, env_params)
    return jax.tree.map(lambda x: x.dtype, jax.eval_shape(lambda: env.reset(jax.random.key(0), one)[0]))


def agents_of(env: Environment) -> tuple[int, ...]:
    """Return the axes of the agents of an environment: () for one agent, (A,) where `env.agents` says so.

    Args:
        env: the environment.

    Returns:
        The lengths of the axes that follow that of the environments.

    Raises:
        TypeError: if env.agents is there and is not a tuple of positive ints.
    """
    agents = getattr(env, "agents", ())
    if not (isinstance(agents, tuple) and all(isinstance(number, int) and number > 0 for number in agents)):
        raise TypeError(
            "env.agents must be the axes of the agents as a tuple of positive ints, such as (3,), "
            f"got {type(agents).__name__} {agents}. Adapt the environment so that each agent is a row of its arrays."
        )
    return agents


def episode_over(terminated: Any, truncated: Any) -> Array:
    """Tell whether an environment starts anew: where its agents end apart, once all of them have ended.

    Args:
        terminated: scalar or [A] bool, of one environment.
        truncated: scalar or [A] bool.

    Returns:
        Scalar bool.
    """
    over = jnp.asarray(terminated | truncated)
    return over.all() if over.ndim else over


def _default_like(env: Environment, env_params: Any) -> Any:
    """The environment's own parameters if those given are of the same structure, else None."""
    default = getattr(env, "default_params", None)
    structures: list[Any] = [jax.tree.structure(default), jax.tree.structure(env_params)]
    return default if structures[0] == structures[1] else None
