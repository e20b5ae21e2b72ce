"""What a network sees of an observation: one vector of features, whatever the environment shows."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@dataclass(frozen=True)
class Features:
    """Turn an observation, any pytree of arrays, into one vector: whole numbers one-hot, the rest flattened.

    Shapes: leaves [..., *leaf] -> [..., F] float32 at least.

    Args:
        leaves: for each leaf of an observation, in the order of `jax.tree.leaves`: the number of its axes without batch
            axes, and, for a whole number that only names one of N cases, N; else None. Such a leaf may come as a
            floating array, as a rollout gives it; outside 0 ... N - 1 it gives zeros.

    Returns:
        A function of the observation; equal ones are the same to jit.

    Raises:
        ValueError: when called, if the observation has another number of leaves, or one has too few axes.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.networks import Features
        >>> print(Features(((0, 3),))(jnp.array([0, 2])))
        [[1. 0. 0.]
         [0. 0. 1.]]
    """

    leaves: tuple[tuple[int, int | None], ...]

    def __call__(self, obs: Any) -> Array:
        arrays = jax.tree.leaves(obs)
        if len(arrays) != len(self.leaves):
            raise ValueError(
                f"obs must have {len(self.leaves)} arrays, got {len(arrays)}. Pass it as env.reset gives it."
            )
        parts = [_features(jnp.asarray(x), *leaf) for x, leaf in zip(arrays, self.leaves, strict=True)]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)


def _features(x: Array, ndim: int, num_values: int | None) -> Array:
    if x.ndim < ndim:
        raise ValueError(f"obs must have at least {ndim} axes, got shape {list(x.shape)}: batch axes come before them.")
    if num_values is not None:
        return jax.nn.one_hot(x.astype(jnp.int32), num_values, dtype=jnp.float32)
    return x.reshape(*x.shape[: x.ndim - ndim], -1).astype(jnp.promote_types(x.dtype, jnp.float32))


def features_of(obs: Any, space: Any) -> Features:
    """Say how observations become vectors.

    Args:
        obs: one observation without batch axes, or its shapes.
        space: the observation space, for the numbers of cases in it; its parts are found by the names in obs. None
            takes every leaf for a number.

    Returns:
        The function.
    """
    leaves = jax.tree_util.tree_leaves_with_path(obs)
    return Features(tuple((leaf.ndim, _num_values(path, leaf, space)) for path, leaf in leaves))


def _num_values(path: Any, leaf: Any, space: Any) -> int | None:
    for entry in path:
        name = next(getattr(entry, kind) for kind in ("key", "name", "idx") if hasattr(entry, kind))
        try:
            space = space.spaces[name]
        except (AttributeError, KeyError, IndexError):
            return None
    num_values = getattr(space, "n", None)
    return int(num_values) if num_values is not None and leaf.ndim == 0 else None
