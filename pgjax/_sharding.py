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
    entries = [_entry(leaf) for leaf in jax.tree.leaves((carry, *others))]

    def vary(tree: Any) -> Any:
        return jax.tree.map(lambda x: _of_array(lambda x: varying_as(x, *entries), x), tree)

    def varied(*arguments: Any) -> Any:
        result = body(*arguments)
        return (vary(result[0]), result[1]) if len(arguments) > 1 else vary(result)

    return varied, vary(carry)


def as_one_type(tree: Any, *others: Any) -> Any:
    """Give arrays the type of others inside `jax.shard_map`: what `one_type` does to a carry, for a branch."""
    return one_type(lambda x: x, tree, *others)[1]


def _entry(x: Any) -> Array:
    """Something of an array that varies as it does."""
    return _of_array(lambda x: x.ravel()[:1].sum(), jnp.asarray(x), back=False)


def _of_array(function: Callable[[Array], Array], x: Any, *, back: bool = True) -> Any:
    """Apply a function to an array, or to the numbers inside a key."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return function(x)
    found = function(jax.random.key_data(x))
    return jax.random.wrap_key_data(found, impl=jax.random.key_impl(x)) if back else found
