"""Minibatches: shuffles that cost next to nothing, epochs, and micro-batches for gradients that do not fit."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled("size", "method")
def permutation(key: Array, *, size: int, method: Literal["hash", "sort"] = "hash") -> Array:
    """Draw a pseudo-random permutation of 0, ..., size - 1.

        hash: i -> f_k(i), a keyed bijection on the next power of two, walked until it falls below size

    Shapes: result [size].

    Args:
        key: a PRNG key, consumed.
        size: number of items, at least 1; static.
        method: "hash" takes four rounds of multiply, add and xor-shift over the index and no sort; "sort" is
            `jax.random.permutation`, uniform over all permutations. Static.

    Returns:
        [size] int32, each index once.

    Raises:
        TypeError: if size is not an int.
        ValueError: if size is not in [1, 2^31) or method is unknown.
    """
    size = _checks.positive_int("size", size)
    if size >= 2**31:
        raise ValueError(f"size must be below 2^31, got {size}. Shuffle in parts.")
    if method == "sort":
        return jax.random.permutation(key, size)
    if method != "hash":
        raise ValueError(f'method must be "hash" or "sort", got {method!r}.')
    bits = max((size - 1).bit_length(), 1)
    words = jax.random.bits(key, (4, 2), jnp.uint32)
    mask = jnp.uint32(2**bits - 1)
    shift = jnp.uint32(max(bits // 2, 1))

    def mix(x: Array) -> Array:
        for word in words:  # each of the three maps is a bijection on `bits` bits
            x = (x * (word[0] | 1) + word[1]) & mask
            x = x ^ (x >> shift)
        return x

    index = mix(jnp.arange(size, dtype=jnp.uint32))
    if size != 2**bits:
        index = jax.lax.while_loop(
            lambda x: (x >= size).any(), lambda x: jnp.where(x >= size, mix(x), x), index
        )
    return index.astype(jnp.int32)


@compiled("step", "num_epochs", "num_minibatches", "num_axes", "method")
def epochs(
    key: Array,
    carry: Any,
    data: Any,
    *,
    step: Callable[[Any, Any], tuple[Any, Any]],
    num_epochs: int,
    num_minibatches: int,
    num_axes: int = 2,
    method: Literal["hash", "sort"] = "hash",
) -> tuple[Any, Any]:
    """Go through a batch several times in shuffled minibatches.

        for each epoch: for each minibatch of a fresh shuffle: carry, out = step(carry, minibatch)

    Shapes: data leaves [T, B, ...]; minibatch leaves [T·B / num_minibatches, ...].

    Args:
        key: a PRNG key, consumed.
        carry: what step carries, for instance parameters and optimiser state.
        data: a pytree with num_axes leading axes in common.
        step: step(carry, minibatch) -> (carry, out); static.
        num_epochs: passes over the data, at least 1; static.
        num_minibatches: minibatches in each pass, at least 1; must divide the number of rows; static.
        num_axes: leading axes that are shuffled together as one: 2 mixes time and environments. To keep
            sequences whole, put the environments first and pass 1. Static.
        method: see `permutation`.

    Returns:
        The final carry, and the outs stacked, leaves [num_epochs, num_minibatches, ...].

    Raises:
        TypeError: if a count is not an int.
        ValueError: if the leading axes differ or num_minibatches does not divide the number of rows.
    """
    _checks.function("step", step)
    num_epochs = _checks.positive_int("num_epochs", num_epochs)
    num_minibatches = _checks.positive_int("num_minibatches", num_minibatches)
    size = _common_rows(data, num_axes, num_minibatches, "num_minibatches")
    rows = jax.tree.map(lambda x: x.reshape((size, *x.shape[num_axes:])), data)

    def epoch(carry: Any, key: Array) -> tuple[Any, Any]:
        order = permutation(key, size=size, method=method).reshape(num_minibatches, -1)
        # Rows are gathered a minibatch at a time: the shuffled batch is never held as a whole.
        take = lambda index: jax.tree.map(lambda x: x[index], rows)  # noqa: E731
        return jax.lax.scan(lambda carry, index: step(carry, take(index)), carry, order)

    return jax.lax.scan(epoch, carry, jax.random.split(key, num_epochs))


@compiled("function", "num_microbatches", "axis")
def accumulate(
    function: Callable[[Any], Any], data: Any, *, num_microbatches: int, axis: int = 0
) -> Any:
    """Average a function over micro-batches, one after the other, where the whole batch does not fit.

        1/M Σ_m f(data_m)

    Shapes: data leaves [..., N, ...] with N along axis; the result like that of function.

    Args:
        function: function(microbatch) -> a pytree of arrays, for instance a gradient; static.
        data: a pytree whose leaves share the length N of axis.
        num_microbatches: M, at least 1; must divide N; static.
        axis: the axis to split; static.

    Returns:
        The mean over micro-batches: for a gradient that averages over axis, that of the whole batch.

    Raises:
        TypeError: if num_microbatches is not an int.
        ValueError: if it does not divide N, or the lengths differ.
    """
    _checks.function("function", function)
    num_microbatches = _checks.positive_int("num_microbatches", num_microbatches)
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), data)
    _common_rows(moved, 1, num_microbatches, "num_microbatches")
    parts = jax.tree.map(lambda x: x.reshape((num_microbatches, -1, *x.shape[1:])), moved)
    restore = lambda part: jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), part)  # noqa: E731
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: function(restore(jax.tree.map(lambda x: x[0], parts))))
    )

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(lambda t, x: t + x / num_microbatches, total, function(restore(part))), None

    return jax.lax.scan(add, zeros, parts)[0]


def _common_rows(data: Any, num_axes: int, parts: int, name: str) -> int:
    shapes = {jnp.shape(leaf)[:num_axes] for leaf in jax.tree.leaves(data)}
    if len(shapes) != 1:
        raise ValueError(
            f"data must have {num_axes} leading axes in common in every leaf, got {sorted(map(list, shapes))}."
        )
    size = math.prod(shapes.pop())
    if size == 0 or size % parts:
        raise ValueError(f"{name}={parts} must divide the {size} rows of data. Choose a divisor of {size}.")
    return size
