"""The one place that raises for shapes, dtypes and values that are known while tracing.

Every message names the argument, says what came, what is expected, and what to do.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def floating(name: str, x: Any, *, ndim_at_least: int = 0) -> Array:
    """Return ``x`` as a floating array of at least float32; raise for other kinds.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        ndim_at_least: the least number of axes.

    Returns:
        The array, bf16 and f16 widened to float32.

    Raises:
        TypeError: if ``x`` is not an array of floating dtype.
        ValueError: if it has too few axes or no element.
    """
    array = as_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{name} must have a floating dtype, got {array.dtype}{list(array.shape)}. "
            f"Cast it where it is made, for instance with {name}.astype(jnp.float32), "
            "or check the order of the arguments."
        )
    _axes_and_size(name, array, ndim_at_least)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def integer(name: str, x: Any) -> Array:
    """Return ``x`` as an integer array; raise for any other kind.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.

    Returns:
        The integer array.

    Raises:
        TypeError: if ``x`` is not of integer dtype.
    """
    array = as_array(name, x)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{name} must be an integer array, got {array.dtype}{list(array.shape)}. "
            "Check the order of the arguments, or cast it where it is made."
        )
    return array


def parameter(name: str, x: Any, *, axes: str = "[..., D]") -> Array:
    """Return the parameter of a distribution as a floating array with the axes that its class needs.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        axes: the expected shape, for the message; the names after the dots are counted.

    Returns:
        The array, bf16 and f16 widened to float32.

    Raises:
        TypeError: if ``x`` is not an array of floating dtype.
        ValueError: if it has too few axes or no element.
    """
    array, least = floating(name, x), axes.count(",")
    if array.ndim < least:
        raise ValueError(
            f"{name} must have shape {axes}, at least {least} axes, got shape {list(array.shape)}. "
            f"Add the axis of the action, for instance with {name}[..., None]."
        )
    return array


def spread(name: str, x: Any, shape: tuple[int, ...], *, of: str) -> Array:
    """Return ``x`` broadcast to ``shape``; raise if ``shape`` would have to grow for it.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        shape: the shape to broadcast to.
        of: the argument that set the shape, for the message.

    Returns:
        The array, of ``shape``, its dtype kept.

    Raises:
        ValueError: if ``x`` does not broadcast to ``shape``.
    """
    array = as_array(name, x)
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError as error:
        raise ValueError(
            f"{name} must broadcast to the shape of {of}, {list(shape)}, got {list(array.shape)}. "
            f"Reshape {name}, or broadcast {of} first if that is the smaller one."
        ) from error


def trailing_shape(name: str, array: Any, expected: tuple[int, ...], *, of: str) -> None:
    """Raise unless the last axes of an array are exactly ``expected``; leading axes are free.

    Broadcasting is refused on purpose: ``[B, 1]`` against ``[B]`` would give ``[B, B]`` silently.

    Args:
        name: the argument's name, for the message.
        array: the array.
        expected: the shape of its last axes.
        of: whose shape it is, for the message.

    Returns:
        None.

    Raises:
        ValueError: if the last axes differ or are missing.
    """
    shape = jnp.shape(array)
    if shape[max(len(shape) - len(expected), 0) :] != tuple(expected):
        raise ValueError(
            f"{name} must end with the shape of {of}, {list(expected)}, got {list(shape)}. "
            "Remove or add a trailing axis; extra leading axes are samples."
        )


def same_class(name: str, x: Any, expected: type) -> None:
    """Raise unless ``x`` is exactly of the expected class.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        expected: the class.

    Returns:
        None.

    Raises:
        TypeError: if ``x`` is of another class, a derived one included.
    """
    if type(x) is not expected:
        raise TypeError(
            f"{name} must be a {expected.__name__}, got {type(x).__name__}. "
            "Both sides of the comparison must be of one class."
        )


def instance(name: str, x: Any, expected: type, *, remedy: str) -> None:
    """Raise unless ``x`` is of the expected class.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        expected: the class.
        remedy: what to do, for the message.

    Returns:
        None.

    Raises:
        TypeError: if ``x`` is of another class.
    """
    if not isinstance(x, expected):
        raise TypeError(f"{name} must be a {expected.__name__}, got {type(x).__name__}. {remedy}")


def boolean(name: str, x: Any, *, like: Array | None = None) -> Array:
    """Return ``x`` as a boolean array; raise for any other dtype.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        like: an array whose shape ``x`` must have.

    Returns:
        The boolean array.

    Raises:
        TypeError: if ``x`` is not boolean.
        ValueError: if its shape is not that of ``like``.
    """
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


def same_shape(reference: str, expected: tuple[int, ...], **arrays: Any) -> None:
    """Raise unless every array has the expected shape.

    Args:
        reference: the name of the argument that set ``expected``.
        expected: the shape.
        **arrays: the arrays by argument name; ``None`` is skipped.

    Returns:
        None.

    Raises:
        ValueError: naming the first array of another shape.
    """
    for name, x in arrays.items():
        if x is not None and jnp.shape(x) != tuple(expected):
            raise ValueError(
                f"{name} must have the shape of {reference}, {list(expected)}, "
                f"got {list(jnp.shape(x))}. Arrays are time-major: [T, B]."
            )


def broadcastable(name: str, x: Any, shape: tuple[int, ...]) -> Array:
    """Return ``x`` if it is a scalar or has exactly ``shape``; raise otherwise.

    A ``[B]`` array is refused on purpose: with ``T == B`` it would broadcast silently along the wrong axis.

    Args:
        name: the argument's name, for the message.
        x: a Python scalar, a scalar array or an array of ``shape``.
        shape: the full shape.

    Returns:
        ``x`` as an array.

    Raises:
        TypeError: if ``x`` is not a number or is boolean.
        ValueError: if it is neither a scalar nor of ``shape``.
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


def unit_interval(name: str, x: Any) -> None:
    """Raise if ``x`` is a concrete Python number outside [0, 1]; traced values are not inspected.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.

    Returns:
        None.

    Raises:
        ValueError: if ``x`` is a Python or NumPy scalar outside [0, 1].
    """
    if isinstance(x, (int, float, np.number)) and not 0.0 <= float(x) <= 1.0:
        raise ValueError(f"{name} must lie in [0, 1], got {float(x)}. Check that two arguments are not swapped.")


def positive_int(name: str, x: Any, *, at_least: int = 1) -> int:
    """Return ``x`` if it is an integer of at least ``at_least``; raise otherwise.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.
        at_least: the smallest value allowed.

    Returns:
        ``x`` as a Python int.

    Raises:
        TypeError: if ``x`` is not a Python or NumPy integer.
        ValueError: if it is too small.
    """
    if isinstance(x, bool) or not isinstance(x, (int, np.integer)):
        raise TypeError(f"{name} must be a Python int (it sets a shape), got {type(x).__name__}.")
    if x < at_least:
        raise ValueError(f"{name} must be at least {at_least}, got {x}.")
    return int(x)


def hashable(name: str, x: Any) -> None:
    """Raise unless ``x`` can be hashed, as jit requires of what selects a program.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.

    Returns:
        None.

    Raises:
        TypeError: if ``x`` is not hashable.
    """
    try:
        hash(x)
    except TypeError as error:
        raise TypeError(
            f"{name} must be hashable because it selects the compiled program, got {type(x).__name__}: {error}. "
            "Pass a function, a bound method of a module whose fields are tuples rather than lists, or an integer."
        ) from error


def function(name: str, x: Any) -> None:
    """Raise unless ``x`` can be called.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.

    Returns:
        None.

    Raises:
        TypeError: if ``x`` is not callable.
    """
    if not callable(x):
        raise TypeError(f"{name} must be a function, got {type(x).__name__}. Pass the function itself, not its result.")


def has_shape(name: str, x: Any, shape: tuple[int, ...], axes: str) -> None:
    """Raise unless ``x`` has exactly ``shape``.

    Args:
        name: the argument's name, for the message.
        x: an array.
        shape: the shape expected.
        axes: what the axes are, for the message, for instance "[S, A]".

    Returns:
        None.

    Raises:
        ValueError: if the shape is another.
    """
    if jnp.shape(x) != tuple(shape):
        raise ValueError(
            f"{name} must have shape {axes} = {list(shape)}, got {list(jnp.shape(x))}. "
            "Check the order of its axes, and that it belongs to this problem."
        )


def distribution(name: str, x: Array, *, tolerance: float = 1e-5) -> None:
    """Raise unless the last axis of a concrete array holds probabilities that sum to one.

    Args:
        name: the argument's name, for the message.
        x: [..., N] float, concrete.
        tolerance: how far a sum may be from one.

    Returns:
        None.

    Raises:
        ValueError: if an entry is negative or not a number, or a sum is not one.
    """
    values = np.asarray(x)
    error = float(np.max(np.abs(values.sum(-1) - 1.0)))
    if not (np.all(values >= 0) and error <= tolerance):
        raise ValueError(
            f"{name} must hold probabilities that sum to one over its last axis, got a smallest entry of "
            f"{values.min()} and a sum that is off by {error}. Divide it by {name}.sum(-1, keepdims=True), "
            "or check the order of its axes."
        )


def one_each(name: str, x: Any, batch: tuple[int, ...]) -> None:
    """Raise unless ``x`` is one number for each environment.

    Args:
        name: what it is, for the message.
        x: an array.
        batch: the batch axes.

    Returns:
        None.

    Raises:
        ValueError: if ``x`` has more or fewer axes, or other lengths.
    """
    if jnp.shape(x) != tuple(batch):
        raise ValueError(
            f"the {name} must be one number for each environment, shape {list(batch)}, got {list(jnp.shape(x))}. "
            "Sum over, or squeeze, the axes that are too many where it is made; add the batch axes that are missing."
        )


def same_structure(name: str, x: Any, expected: Any, *, of: str) -> None:
    """Raise unless two pytrees have the same structure.

    Args:
        name: the argument's name, for the message.
        x: a pytree.
        expected: a pytree of the structure wanted.
        of: whose structure it is, for the message.

    Returns:
        None.

    Raises:
        ValueError: if the structures differ.
    """
    came: Any = jax.tree.structure(x)
    wanted: Any = jax.tree.structure(expected)
    if came != wanted:
        raise ValueError(f"{name} must have the tree structure of {of}, {wanted}, got {came}.")


def not_empty(name: str, array: Array) -> None:
    """Raise if an array has no element.

    Args:
        name: the argument's name, for the message.
        array: the array.

    Returns:
        None.

    Raises:
        ValueError: if the array is empty.
    """
    if array.size == 0:
        raise ValueError(
            f"{name} is empty, shape {list(array.shape)}: at least one step and one environment are needed."
        )


def as_array(name: str, x: Any) -> Array:
    """Return ``x`` as an array; raise for ``None`` and for what is not numeric.

    Args:
        name: the argument's name, for the message.
        x: what the caller passed.

    Returns:
        The array.

    Raises:
        TypeError: if ``x`` is ``None`` or no numeric array can be made of it.
    """
    if x is None:
        raise TypeError(f"{name} is required, got None.")
    try:
        return jnp.asarray(x)
    except TypeError as error:
        raise TypeError(f"{name} must be an array, got {type(x).__name__}.") from error


def _axes_and_size(name: str, array: Array, ndim_at_least: int) -> None:
    if array.ndim < ndim_at_least:
        raise ValueError(f"{name} must have at least {ndim_at_least} axes (time first), got shape {list(array.shape)}.")
    not_empty(name, array)
