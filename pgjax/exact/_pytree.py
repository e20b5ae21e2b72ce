"""Pytrees that validate what a person passes, and nothing that jax passes."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

C = TypeVar("C", bound=type)


@dataclass_transform(frozen_default=True)
def validated_pytree(*static: str) -> Callable[[C], C]:
    """Return a decorator that makes a class a frozen pytree, checked by `__post_init__` only where a person builds it.

    jax rebuilds pytrees around tracers, gradients and placeholders, for which no check on shapes or
    values holds; it therefore goes around the constructor.

    Args:
        *static: names of the fields that select the program rather than feed it.

    Returns:
        A decorator for classes.
    """

    def wrap(cls: C) -> C:
        data: Any = dataclasses.dataclass(frozen=True)(cls)
        leaves = tuple(f.name for f in dataclasses.fields(data) if f.name not in static)

        def flatten_with_keys(x: Any) -> tuple[Any, Any]:
            keyed = tuple((jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in leaves)
            return keyed, tuple(getattr(x, name) for name in static)

        def unflatten(aux: Any, children: Any) -> Any:
            x = object.__new__(data)
            for name, child in (*zip(leaves, children, strict=True), *zip(static, aux, strict=True)):
                object.__setattr__(x, name, child)
            return x

        jax.tree_util.register_pytree_with_keys(data, flatten_with_keys, unflatten)
        return data

    return wrap


def concrete(*arrays: Any) -> bool:
    """Tell whether the values of all arrays are known, so that they can be checked.

    Args:
        *arrays: arrays or tracers.

    Returns:
        False if any of them is being traced.
    """
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)
