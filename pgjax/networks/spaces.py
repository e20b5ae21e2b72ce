"""Which head fits the action space of an environment."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.envs.description import single_params
from pgjax.networks.heads import (
    BernoulliPolicy,
    BetaPolicy,
    DeterministicPolicy,
    DiscretePolicy,
    GaussianPolicy,
    StateDependentPolicy,
    TanhGaussianPolicy,
)

Heads = dict[str, Callable[[], nn.Module]]
Bounds = tuple[np.ndarray, np.ndarray]


def head_for(env: Any, env_params: Any, head: str | nn.Module | None) -> nn.Module:
    """Make the head of that name for the actions of an environment, as `default_actor_critic` documents it.

    Args:
        env: the environment.
        env_params: its parameters, shared or with one row for each environment.
        head: a name, a Flax module, or None for the first that fits.

    Returns:
        The head.

    Raises:
        TypeError: if the action space has no default head.
        ValueError: if head does not fit it, or needs finite bounds where there are none.
    """
    if isinstance(head, nn.Module):
        return head
    space = env.action_space(single_params(env, env_params))
    heads = _heads(space, lambda: _bounds(env, env_params, space.shape))
    if not heads:
        raise TypeError(
            f"head is required: there is no default for the action space {space}. Pass head=, a Flax module from "
            "features [..., F] to a distribution, or wrap env so that its actions are one whole number or one vector."
        )
    if head is not None and head not in heads:
        raise ValueError(
            f"head must be one of {', '.join(map(repr, heads))} for the action space {space}, got {head!r}."
        )
    return heads[head or next(iter(heads))]()


def _heads(space: Any, bounds: Callable[[], Bounds]) -> Heads:
    """The heads that fit a space, by name. Spaces of any library are told apart by their attributes."""
    shape: tuple[int, ...] = tuple(getattr(space, "shape", None) or ())
    if getattr(space, "nvec", None) is not None and np.ndim(space.nvec) == 1:
        return {"categorical": lambda: DiscretePolicy(tuple(int(n) for n in space.nvec))}
    if getattr(space, "n", None) is not None:
        if shape == () and getattr(space, "start", 0) == 0:
            return {"categorical": lambda: DiscretePolicy(int(space.n))}
        return {"bernoulli": lambda: BernoulliPolicy(shape[0])} if len(shape) == 1 else {}
    return _box_heads(shape[0], bounds) if hasattr(space, "low") and len(shape) == 1 else {}


def _box_heads(size: int, bounds: Callable[[], Bounds]) -> Heads:
    def normal() -> nn.Module:
        low, high = bounds()
        if not _finite(low, high):
            return GaussianPolicy(size)
        return GaussianPolicy(size, -math.log(2.0), low=tuple(low.tolist()), high=tuple(high.tolist()))

    def state_dependent() -> nn.Module:
        low, high = bounds()
        if not _finite(low, high):
            return StateDependentPolicy(size)
        return StateDependentPolicy(size, low=tuple(low.tolist()), high=tuple(high.tolist()))

    def within(name: str, policy: Callable[..., nn.Module]) -> nn.Module:
        low, high = bounds()
        if not _finite(low, high):
            raise ValueError(
                f"head={name!r} needs finite bounds, low below high, got {low.tolist()} and {high.tolist()}. "
                "Pass head='normal', or give env a bounded action space."
            )
        return policy(size, low=tuple(low.tolist()), high=tuple(high.tolist()))

    return {
        "normal": normal,
        "tanh_normal": lambda: within("tanh_normal", TanhGaussianPolicy),
        "beta": lambda: within("beta", BetaPolicy),
        "deterministic": lambda: within("deterministic", DeterministicPolicy),
        "state_dependent": state_dependent,
    }


def action_box(env: Any, env_params: Any) -> Bounds:
    """Look up the box of actions of an environment, for methods that need one.

    Args:
        env: the environment.
        env_params: its parameters, shared or with one row for each environment.

    Returns:
        (low, high), each [D] float32: the outermost bounds where environments differ.

    Raises:
        TypeError: if the actions are no vector in a box.
        ValueError: if a bound is infinite or not below the other.
    """
    space = env.action_space(single_params(env, env_params))
    shape = getattr(space, "shape", None)
    floating = jnp.issubdtype(getattr(space, "dtype", jnp.float32), jnp.floating)
    if not hasattr(space, "low") or shape is None or len(shape) != 1 or not floating:
        raise TypeError(
            f"env must have actions in a box, one vector of floats, got the action space {space}. For discrete actions "
            "take a recipe for them (sac_discrete, ppo, a2c), or wrap env."
        )
    low, high = _bounds(env, env_params, tuple(shape))
    if not _finite(low, high):
        raise ValueError(
            f"env must have bounded actions, low below high, got {low.tolist()} and {high.tolist()}. Noise, random "
            "actions and squashing need the box: give env a bounded action space."
        )
    return low.astype(np.float32), high.astype(np.float32)


def count_actions(env: Any, env_params: Any) -> int:
    """Count the discrete actions of an environment, for methods that sum over them.

    Shapes: a Python int.

    Args:
        env: the environment.
        env_params: its parameters, shared or with one row for each environment.

    Returns:
        The number of actions.

    Raises:
        TypeError: if an action is not one whole number from 0 on.
    """
    space = env.action_space(single_params(env, env_params))
    if not hasattr(space, "n") or getattr(space, "shape", ()) != () or getattr(space, "start", 0) != 0:
        raise TypeError(
            f"env must have discrete actions, one whole number from 0 on, got the action space {space}. For actions in "
            "a box take sac, td3 or ddpg, or wrap env."
        )
    return int(space.n)


def _finite(low: np.ndarray, high: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(low) & np.isfinite(high) & (low < high)))


def _bounds(env: Any, env_params: Any, shape: tuple[int, ...]) -> Bounds:
    """The bounds of a box, the outermost ones where environments differ."""

    def bounds(params: Any) -> tuple[Any, Any]:
        space = env.action_space(params)
        return jnp.broadcast_to(jnp.asarray(space.low), shape), jnp.broadcast_to(jnp.asarray(space.high), shape)

    axes = _row_axes(env, env_params)
    try:
        with jax.ensure_compile_time_eval():
            if not jax.tree.leaves(axes):
                low, high = (np.asarray(bound) for bound in bounds(env_params))
                return low, high
            low, high = (np.asarray(bound) for bound in jax.vmap(bounds, in_axes=(axes,))(env_params))
            return low.min(axis=0), high.max(axis=0)
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            "env_params must be concrete where they set the bounds of the actions, got traced ones: the bounds are "
            "fields of the network. Make the network outside jit and vmap."
        ) from error


def _row_axes(env: Any, env_params: Any) -> Any:
    """0 for each leaf of env_params that holds one row for each environment, None for the others."""
    default = getattr(env, "default_params", None)
    structures: list[Any] = [jax.tree.structure(default), jax.tree.structure(env_params)]
    if structures[0] != structures[1]:
        return None
    return jax.tree.map(lambda leaf, shared: 0 if jnp.ndim(leaf) > jnp.ndim(shared) else None, env_params, default)
