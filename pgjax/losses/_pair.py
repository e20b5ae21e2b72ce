"""Two floating arrays of one shape, which most losses start from."""

import jax

from pgjax import _checks

Array = jax.Array


def as_pair(first_name: str, first: Array, second_name: str, second: Array) -> tuple[Array, Array]:
    """Return both as floating arrays of at least float32; raise by name if they are not, or differ in shape."""
    first = _checks.as_floating(first_name, first)
    second = _checks.as_floating(second_name, second)
    _checks.require_shape(second_name, second, first.shape, of=first_name)
    return first, second
