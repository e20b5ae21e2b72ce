"""Minibatches: cheap shuffles, epochs over a batch, and micro-batches for gradients that do not fit in memory."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import RolloutState, Trajectory

Array = jax.Array


@compiled("size", "method")
def permutation(key: Array, *, size: int, method: Literal["hash", "sort"] = "hash") -> Array:
    """Draw a pseudo-random permutation of 0, ..., size - 1.

        hash: i -> f_k(i), a keyed bijection on the cells of a table that just holds size

    Shapes: result [size].

    Args:
        key: a PRNG key, consumed.
        size: number of items, at least 1; static.
        method: "hash" takes a few rounds of arithmetic on the index and no sort; "sort" is
            `jax.random.permutation`, uniform over all permutations. Static.

    Returns:
        [size] int32, each index once.

    Raises:
        TypeError: if size is not an int.
        ValueError: if size is not in [1, 2^31) or method is unknown.
    """
    size = _checks.as_positive_int("size", size)
    if size >= 2**31:
        raise ValueError(f"size must be below 2^31, got {size}. Shuffle in parts.")
    if method == "sort":
        return jax.random.permutation(key, size)
    if method != "hash":
        raise ValueError(f'method must be "hash" or "sort", got {method!r}.')
    root = math.isqrt(size - 1) + 1
    rows = min(range(root, root + root // 4 + 1), key=lambda count: -size % count)  # the fewest cells left over
    table = rows, -(-size // rows)
    # A round leaves two items in one column with probability near 1/columns: small tables need more rounds.
    num_rounds = max(3, 24 // max((size - 1).bit_length(), 1))
    words = jax.random.bits(key, (num_rounds, 2, 3), jnp.uint32)
    index = _move(jnp.arange(size, dtype=jnp.uint32), words, table)
    if size < math.prod(table):
        # An index that lands in a cell beyond size is moved again until it lands below. Moving those few cells
        # backwards finds which ones they are.
        beyond = jnp.arange(size, math.prod(table), dtype=jnp.uint32)
        source = _move_back(beyond, words, table)
        inside = jax.lax.while_loop(
            lambda x: (x >= size).any(),
            lambda x: jnp.where(x >= size, _move(x, words, table), x),
            jnp.where(source < size, beyond, 0),
        )
        index = index.at[source].set(inside, mode="drop")
    return index.astype(jnp.int32)


def _move(index: Array, words: Array, table: tuple[int, int]) -> Array:
    """Permute the cells: turn each column by an amount that its number decides, then each row alike, several times."""
    rows, columns = table
    row, column = index // columns, index % columns
    for word in words:
        row = _add(row, _noise(column, word[0], rows), rows)
        column = _add(column, _noise(row, word[1], columns), columns)
    return row * columns + column


def _move_back(index: Array, words: Array, table: tuple[int, int]) -> Array:
    """Undo `_move`."""
    rows, columns = table
    row, column = index // columns, index % columns
    for word in words[::-1]:
        column = _add(column, columns - _noise(row, word[1], columns), columns)
        row = _add(row, rows - _noise(column, word[0], rows), rows)
    return row * columns + column


def _noise(x: Array, word: Array, below: int) -> Array:
    """A keyed hash of a number under 2^16 to one in [0, below)."""
    x = x * (word[0] | 1) + word[1]
    x = (x ^ (x >> 15)) * (word[2] | 1)
    return ((x >> 16) * jnp.uint32(below)) >> 16


def _add(x: Array, y: Array, modulus: int) -> Array:
    total = x + y
    return jnp.where(total >= modulus, total - modulus, total)


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
        ValueError: if the leading axes differ or are too few, or num_minibatches does not divide the number of rows.
    """
    _checks.require_callable("step", step)
    num_epochs = _checks.as_positive_int("num_epochs", num_epochs)
    num_minibatches = _checks.as_positive_int("num_minibatches", num_minibatches)
    num_axes = _checks.as_positive_int("num_axes", num_axes)
    size = _common_rows(data, num_axes, num_minibatches, "num_minibatches")
    rows = jax.tree.map(lambda x: x.reshape((size, *x.shape[num_axes:])), data)

    def epoch(carry: Any, key: Array) -> tuple[Any, Any]:
        order = permutation(key, size=size, method=method).reshape(num_minibatches, -1)
        # Rows are gathered a minibatch at a time: the shuffled batch is never held as a whole.
        take = lambda index: jax.tree.map(lambda x: x[index], rows)  # noqa: E731
        return jax.lax.scan(lambda carry, index: step(carry, take(index)), carry, order)

    return jax.lax.scan(epoch, carry, jax.random.split(key, num_epochs))


@compiled("function", "num_microbatches", "axis")
def accumulate(function: Callable[[Any], Any], data: Any, *, num_microbatches: int, axis: int | None = None) -> Any:
    """Average a function over micro-batches, one after the other, where the whole batch does not fit.

        1/M Σ_m f(data_m)

    Shapes: data leaves [..., N, ...] with N along axis; the result like that of function.

    Args:
        function: function(microbatch) -> a pytree of arrays, for instance a gradient; static.
        data: a pytree whose leaves share the length N of axis.
        num_microbatches: M, at least 1; must divide N; static.
        axis: the axis to split; static. It may be left out where data holds a `Trajectory` or a `RolloutState`,
            whose environments are split: axis 1 of the one, axis 0 of the other. It must be given otherwise.

    Returns:
        The mean over micro-batches, gathered in at least float32: for a gradient that averages over axis, that of the
        whole batch. Floating leaves keep their dtype; the mean of integers is float32.

    Raises:
        TypeError: if num_microbatches is not an int.
        ValueError: if it does not divide N, if the lengths differ, or if axis is needed.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> batch = jnp.arange(6.0)
        >>> print(pg.accumulate(jnp.mean, batch, num_microbatches=3, axis=0))
        2.5
    """
    _checks.require_callable("function", function)
    num_microbatches = _checks.as_positive_int("num_microbatches", num_microbatches)
    axis = _axis_of_environments(data) if axis is None else axis
    for leaf in jax.tree.leaves(data):
        if not -jnp.ndim(leaf) <= axis < jnp.ndim(leaf):
            raise ValueError(
                f"every leaf of data must have the axis {axis}, got shape {list(jnp.shape(leaf))}. "
                "Choose another axis, or bind what is not to be split to function."
            )
    moved = jax.tree.map(lambda x: jnp.moveaxis(x, axis, 0), data)
    _common_rows(moved, 1, num_microbatches, "num_microbatches")
    parts = jax.tree.map(lambda x: x.reshape((num_microbatches, -1, *x.shape[1:])), moved)
    restore = lambda part: jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), part)  # noqa: E731
    one = jax.eval_shape(lambda: function(restore(jax.tree.map(lambda x: x[0], parts))))
    wide = lambda x: jnp.promote_types(x.dtype, jnp.float32)  # noqa: E731

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(lambda t, x: t + x.astype(t.dtype), total, function(restore(part))), None

    total, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros_like(x, wide(x)), one), parts)
    keep = lambda x: x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else wide(x)  # noqa: E731
    return jax.tree.map(lambda t, x: (t / num_microbatches).astype(keep(x)), total, one)


def _axis_of_environments(data: Any) -> int:
    """The batch axis of the trajectories or rollout states in a pytree."""
    known = {Trajectory: 1, RolloutState: 0}
    nodes = jax.tree.leaves(data, is_leaf=lambda x: type(x) in known)
    axes = {known[type(x)] for x in nodes if type(x) in known}
    if len(axes) != 1:
        raise ValueError(
            f"axis is required where data holds {'trajectories and states' if axes else 'no Trajectory'}: pass axis=1 "
            "for arrays [T, B, ...], whose axis 0 is time, and axis=0 for rows [N, ...]."
        )
    return axes.pop()


def _common_rows(data: Any, num_axes: int, parts: int, name: str) -> int:
    shapes = {jnp.shape(leaf)[:num_axes] for leaf in jax.tree.leaves(data)}
    if len(shapes) != 1 or len(min(shapes)) < num_axes:
        raise ValueError(
            f"data must have {num_axes} leading axes in common in every leaf, got {sorted(map(list, shapes))}. "
            "Set num_axes to the number of axes that hold rows."
        )
    size = math.prod(shapes.pop())
    _checks.as_divisor(name, parts, size, of="rows of data")
    return size
