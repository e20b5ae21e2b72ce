"""What code needs to run inside `jax.shard_map` as well as outside."""

import jax
import jax.numpy as jnp

Array = jax.Array


def varying_as(x: Array, *others: Array) -> Array:
    """Return x with the type of one that varies over every mesh axis that x or the others vary over.

    The carry of a loop must have one type throughout: zeros, which are the same on every device, are not of the type of
    sums over the device's own data. Outside `jax.shard_map` nothing changes; the selection below is compiled away.
    """
    for other in others:
        entry = jax.lax.stop_gradient(other.ravel()[0]).astype(x.dtype)
        x = jnp.where(jnp.zeros((), bool), entry, x)
    return x
