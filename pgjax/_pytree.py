"""Classes that are pytrees: checked where a person builds one, and not where jax does."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

C = TypeVar("C", bound=type)


def static(*, default: Any) -> Any:
    """Make a field that is no leaf: a hashable value that selects the program."""
    return dataclasses.field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static,))
def validated_pytree(cls: C) -> C:
    """Make a class a frozen dataclass and a pytree whose leaves are its fields, without those made by `static`.

    The constructor may check and convert its arguments in `__post_init__`. Rebuilding from leaves does not, because
    transformations put anything there: tracers, axis numbers, shapes, booleans, slices of the arrays. Two objects are
    equal if they are the same one, since arrays have no single answer to a comparison.

    Args:
        cls: the class, with annotated fields.

    Returns:
        The class, registered with JAX.

    Raises:
        ValueError: by JAX, if the class is registered already.
    """
    made: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(made)
    leaves = [field.name for field in fields if "static" not in field.metadata]
    rest = [field.name for field in fields if "static" in field.metadata]

    def flatten(x: Any) -> tuple[Any, Any]:
        return tuple(getattr(x, name) for name in leaves), tuple(getattr(x, name) for name in rest)

    def flatten_with_keys(x: Any) -> tuple[Any, Any]:
        children, aux = flatten(x)
        return tuple(zip(map(jax.tree_util.GetAttrKey, leaves), children, strict=True)), aux

    def unflatten(aux: Any, children: Any) -> Any:
        x = object.__new__(made)
        for name, child in zip((*leaves, *rest), (*children, *aux), strict=True):
            object.__setattr__(x, name, child)
        return x

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


def concrete(*arrays: Any) -> bool:
    """Tell whether the values of all arrays are known, so that they can be checked.

    Args:
        *arrays: arrays or tracers.

    Returns:
        False if any of them is being traced.
    """
    return not any(isinstance(x, jax.core.Tracer) for x in arrays)
