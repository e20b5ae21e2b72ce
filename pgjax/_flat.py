"""A pytree as one vector of at least float32, and back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._types import Params

Array = jax.Array


def flat(tree: Params) -> Array:
    """Concatenate the entries of a pytree.

    Args:
        tree: leaves of floating dtype.

    Returns:
        [P] float, at least float32.
    """
    return ravel_pytree(_widened(tree))[0]


def unflatten(like: Any) -> Callable[[Array], Params]:
    """Return the way back from `flat`.

    Args:
        like: a pytree of arrays, or of their shapes and dtypes.

    Returns:
        A function [P] -> a pytree of that structure, in at least float32.
    """
    return ravel_pytree(_widened(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)))[1]


def _widened(tree: Params) -> Params:
    return jax.tree.map(_checks.widened, tree)
