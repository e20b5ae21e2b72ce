"""The one place that raises for shapes, dtypes and values that are known while tracing.

Every message names the argument, says what came, what is expected, and what to do. Two forms: `require_*` raises or
returns nothing, `as_*` returns the argument as an array of the wanted kind.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def as_array(name: str, x: Any) -> Array:
    """Return x as an array; TypeError for None and for what is not numeric."""
    if x is None:
        raise TypeError(f"{name} is required, got None.")
    try:
        return jnp.asarray(x)
    except TypeError as error:
        raise TypeError(f"{name} must be an array, got {type(x).__name__}.") from error


def widened(x: Array) -> Array:
    """Return a floating array in at least float32: bf16 and f16 become float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def as_dtype_of(old: Array, new: Array) -> Array:
    """Return new in the dtype of old, weak types made strong, so that what a loop carries never changes its type."""
    return jnp.asarray(new, old.dtype)


def as_floating(name: str, x: Any, *, ndim_at_least: int = 0) -> Array:
    """Return x as a floating array of at least float32; TypeError for another kind, ValueError if it is empty."""
    array = as_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must have a floating dtype, got {array.dtype}{list(array.shape)}. "
            f"Cast it where it is made, for instance with {name}.astype(jnp.float32), "
            "or check the order of the arguments."
        )
    if array.ndim < ndim_at_least:
        raise ValueError(f"{name} must have at least {ndim_at_least} axes (time first), got shape {list(array.shape)}.")
    require_nonempty(name, array)
    return widened(array)


def as_integer(name: str, x: Any) -> Array:
    """Return x as an integer array; TypeError for another kind."""
    array = as_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be an integer array, got {array.dtype}{list(array.shape)}. "
            "Check the order of the arguments, or cast it where it is made."
        )
    return array


def as_boolean(name: str, x: Any, *, like: Array | None = None) -> Array:
    """Return x as a boolean array, of the shape of `like` if that is given."""
    array = as_array(name, x)
    if array.dtype != jnp.bool_:
        raise TypeError(
            f"{name} must be boolean, got {array.dtype}{list(array.shape)}. "
            f"Compare explicitly, for instance {name} > 0.5; a discount is passed as discount=..."
        )
    if like is not None and array.shape != like.shape:
        raise ValueError(
            f"{name} must have shape {list(like.shape)}, got {list(array.shape)}. Arrays are time-major: [T, B]."
        )
    return array


def as_parameter(name: str, x: Any, *, axes: str = "[..., D]") -> Array:
    """Return the parameter of a distribution, with at least the axes that are named after the dots of `axes`."""
    array, least = as_floating(name, x), axes.count(",")
    if array.ndim < least:
        raise ValueError(
            f"{name} must have shape {axes}, at least {least} axes, got shape {list(array.shape)}. "
            f"Add the axis of the action, for instance with {name}[..., None]."
        )
    return array


def as_scalar_or_shape(name: str, x: Any, shape: Sequence[int]) -> Array:
    """Return x as an array if it is a scalar or has exactly `shape`.

    A [B] array is refused on purpose: with T = B it would broadcast silently along the wrong axis.
    """
    array = as_array(name, x)
    if array.dtype == jnp.bool_:
        raise TypeError(f"{name} must be a number, got bool{list(array.shape)}. Masks are passed by their own names.")
    if array.ndim and array.shape != tuple(shape):
        raise ValueError(
            f"{name} must be a scalar or have shape {list(shape)}, got {list(array.shape)}. "
            f"Broadcast it explicitly with jnp.broadcast_to({name}, {list(shape)})."
        )
    return array


def as_positive_int(name: str, x: Any, *, at_least: int = 1) -> int:
    """Return x as a Python int of at least `at_least`."""
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name} must be a Python int (it sets a shape), got {type(x).__name__}.")
    if x < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {x}.")
    return int(x)


def broadcast_to(name: str, x: Any, shape: tuple[int, ...], *, of: str) -> Array:
    """Return x broadcast to `shape`, the shape of the argument `of`, its dtype kept."""
    array = as_array(name, x)
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError as error:
        raise ValueError(
            f"{name} must broadcast to the shape of {of}, {list(shape)}, got {list(array.shape)}. "
            f"Reshape {name}, or broadcast {of} first if that is the smaller one."
        ) from error


def as_divisor(name: str, x: Any, size: int, *, of: str) -> int:
    """Return x as a Python int that divides `size`, the number of what `of` says."""
    count = as_positive_int(name, x)
    if size == 0 or size % count:
        raise ValueError(f"{name}={count} must divide the {size} {of}. Choose a divisor of {size}.")
    return count


def require_shape(name: str, x: Any, shape: Sequence[int], axes: str = "", *, of: str = "") -> None:
    """Raise unless x has exactly `shape`: that of the argument `of`, or of the named `axes`, such as "[S, A]"."""
    if jnp.shape(x) != tuple(shape):
        wanted = f"the shape of {of}, {list(shape)}" if of else f"shape {axes} = {list(shape)}"
        remedy = "Arrays are time-major: [T, B]." if of else "Check the order of its axes, and which problem it is for."
        raise ValueError(f"{name} must have {wanted}, got {list(jnp.shape(x))}. {remedy}")


def require_same_shape(reference: str, shape: Sequence[int], **arrays: Any) -> None:
    """Raise unless every array, by argument name, has the shape of the argument `reference`; None is skipped."""
    for name, x in arrays.items():
        if x is not None:
            require_shape(name, x, shape, of=reference)


def require_trailing_shape(name: str, array: Any, expected: Sequence[int], *, of: str) -> None:
    """Raise unless the last axes of an array are exactly `expected`; leading axes are free.

    Broadcasting is refused on purpose: [B, 1] against [B] would give [B, B] silently.
    """
    shape = jnp.shape(array)
    if shape[max(len(shape) - len(expected), 0) :] != tuple(expected):
        raise ValueError(
            f"{name} must end with the shape of {of}, {list(expected)}, got {list(shape)}. "
            "Remove or add a trailing axis; extra leading axes are samples."
        )


def require_leading_shape(name: str, x: Any, shape: Sequence[int], *, of: str) -> None:
    """Raise unless the first axes of x are those of the argument `of`."""
    if jnp.shape(x)[: len(shape)] != tuple(shape):
        raise ValueError(
            f"{name} must start with the shape of {of}, {list(shape)}, got {list(jnp.shape(x))}. "
            "Arrays are time-major: [T, B, ...]."
        )


def require_one_each(name: str, x: Any, batch: Sequence[int]) -> None:
    """Raise unless x is one number for each environment."""
    if jnp.shape(x) != tuple(batch):
        raise ValueError(
            f"the {name} must be one number for each environment, shape {list(batch)}, got {list(jnp.shape(x))}. "
            "Sum over, or squeeze, the axes that are too many where it is made; add the batch axes that are missing."
        )


def require_nonempty(name: str, array: Array) -> None:
    """Raise if an array has no element."""
    if array.size == 0:
        raise ValueError(
            f"{name} is empty, shape {list(array.shape)}: at least one step and one environment are needed."
        )


def require_differentiable(name: str, tree: Any) -> None:
    """Raise unless every leaf of a pytree is floating, so that it can be differentiated with respect to."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise TypeError(
                f"{name}{jax.tree_util.keystr(path)} must have a floating dtype, got {jnp.result_type(leaf)}: the "
                "gradient is taken with respect to every leaf. Keep counters apart, or hand them in with pg.bind."
            )


def require_same_structure(name: str, x: Any, expected: Any, *, of: str) -> None:
    """Raise unless two pytrees have the same structure."""
    came: Any = jax.tree.structure(x)
    wanted: Any = jax.tree.structure(expected)
    if came != wanted:
        raise ValueError(f"{name} must have the tree structure of {of}, {wanted}, got {came}.")


def require_same_class(name: str, x: Any, expected: type) -> None:
    """Raise unless x is exactly of the expected class; a derived one will not do."""
    if type(x) is not expected:
        raise TypeError(
            f"{name} must be a {expected.__name__}, got {type(x).__name__}. "
            "Both sides of the comparison must be of one class."
        )


def require_instance(name: str, x: Any, expected: type | tuple[type, ...], *, remedy: str) -> None:
    """Raise unless x is of the expected class, or of one of several."""
    if not isinstance(x, expected):
        classes = expected if isinstance(expected, tuple) else (expected,)
        raise TypeError(
            f"{name} must be a {' or a '.join(c.__name__ for c in classes)}, got {type(x).__name__}. {remedy}"
        )


def require_callable(name: str, x: Any) -> None:
    """Raise unless x can be called."""
    if not callable(x):
        raise TypeError(f"{name} must be a function, got {type(x).__name__}. Pass the function itself, not its result.")


def require_hashable(name: str, x: Any) -> None:
    """Raise unless x can be hashed, as jit requires of what selects a program."""
    try:
        hash(x)
    except TypeError as error:
        raise TypeError(
            f"{name} must be hashable because it selects the compiled program, got {type(x).__name__}: {error}. "
            "Pass a function, a bound method of a module whose fields are tuples rather than lists, or an integer."
        ) from error


def require_positive(name: str, x: Any, *, remedy: str) -> None:
    """Raise if x is a concrete number that is not above 0; traced values and arrays are not inspected."""
    if isinstance(x, (int, float, np.number)) and not x > 0:
        raise ValueError(f"{name} must be positive, got {x}. {remedy}")


def require_nonnegative(name: str, x: Any) -> None:
    """Raise if x is a concrete number below 0 or NaN; traced values and arrays are not inspected."""
    if isinstance(x, (int, float, np.number)) and not x >= 0:
        raise ValueError(f"{name} must be at least 0, got {x}. Check that two arguments are not swapped.")


def require_open_unit_interval(name: str, x: Any) -> None:
    """Raise if x is a concrete number outside (0, 1); traced values and arrays are not inspected."""
    if isinstance(x, (int, float, np.number)) and not 0.0 < float(x) < 1.0:
        raise ValueError(f"{name} must lie in (0, 1), got {float(x)}. Check that two arguments are not swapped.")


def require_unit_interval(name: str, x: Any) -> None:
    """Raise if x is a concrete number outside [0, 1] or NaN; traced values and arrays are not inspected."""
    if isinstance(x, (int, float, np.number)) and not 0.0 <= float(x) <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {float(x)}. Check that two arguments are not swapped.")


def require_probabilities(name: str, x: Array, *, tolerance: float = 1e-5) -> None:
    """Raise unless the last axis of a concrete array holds probabilities that sum to one."""
    values = np.asarray(x)
    error = float(np.max(np.abs(values.sum(-1) - 1.0)))
    if not (np.all(values >= 0) and error <= tolerance):
        raise ValueError(
            f"{name} must hold probabilities that sum to one over its last axis, got a smallest entry of "
            f"{values.min()} and a sum that is off by {error}. Divide it by {name}.sum(-1, keepdims=True), "
            "or check the order of its axes."
        )


def require_time_first(step: Array) -> None:
    """Raise if `step` runs along the second axis and not along the first: the arrays are then [B, T]."""
    values = np.asarray(step)
    if values.shape[1] < 2 or not np.issubdtype(values.dtype, np.integer):
        return

    def runs_along(axis: int) -> bool:
        x = np.moveaxis(values, axis, 0)
        return bool(np.all((x[1:] == x[:-1] + 1) | (x[1:] == 0)))

    if runs_along(1) and not runs_along(0):
        raise ValueError(
            f"trajectory must be time-major, [T, B], got step of shape {list(values.shape)} that counts along its "
            "second axis. Swap the axes of every leaf: jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), trajectory)."
        )
