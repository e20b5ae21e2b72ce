"""What code needs to run inside `jax.shard_map` as well as outside."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Body = Callable[..., Any]


def varying_as(x: Array, *others: Array) -> Array:
    """Return x with the type of one that varies over every mesh axis that x or the others vary over.

    The carry of a loop must have one type throughout: zeros, which are the same on every device, are not of the type of
    sums over the device's own data. Outside `jax.shard_map` nothing changes; the selection below is compiled away.
    """
    for other in others:
        entry = jax.lax.stop_gradient(other.ravel()[0]).astype(x.dtype)
        x = jnp.where(jnp.zeros((), bool), entry, x)
    return x


def one_type(body: Body, carry: Any, *others: Any) -> tuple[Body, Any]:
    """Give the carry of a loop, before and after its body, one type inside `jax.shard_map`.

    There every leaf comes to vary over all mesh axes that any array at hand varies over. Outside nothing changes, and
    nothing is added to the program.

    Args:
        body: (carry, inputs) -> (carry, row) of a scan, or carry -> carry of a while loop.
        carry: what it starts with.
        others: trees of arrays that the body uses.

    Returns:
        The body and the carry.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return body, carry
    leaves = [_numbers(leaf) for leaf in jax.tree.leaves((carry, *others))]
    everything = varying_as(jnp.zeros(()), *(x for x in leaves if x.size))

    def vary_one(x: Array) -> Array:
        x = jnp.asarray(x)
        varied = varying_as(_numbers(x), everything)
        return jax.random.wrap_key_data(varied, impl=jax.random.key_impl(x)) if _is_key(x) else varied

    def vary(tree: Any) -> Any:
        return jax.tree.map(vary_one, tree)

    def varied(*arguments: Any) -> Any:
        result = body(*arguments)
        return (vary(result[0]), result[1]) if len(arguments) > 1 else vary(result)

    return varied, vary(carry)


def as_one_type(tree: Any, *others: Any) -> Any:
    """Give arrays the type of others inside `jax.shard_map`: what `one_type` does to a carry, for a branch."""
    return one_type(lambda x: x, tree, *others)[1]


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _numbers(x: Any) -> Array:
    """An array, or the numbers of a key."""
    x = jnp.asarray(x)
    return jax.random.key_data(x) if _is_key(x) else x
