"""What every distribution shares: how it is a pytree, and how sampling follows from its noise."""

import dataclasses
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from pgjax import _checks

Array = jax.Array
C = TypeVar("C", bound=type)


@dataclass_transform(frozen_default=True, eq_default=False)
def distribution(cls: C) -> C:
    """Make a class a frozen dataclass and a pytree whose leaves are its fields.

    The constructor checks and broadcasts its arguments. Rebuilding from leaves does not, because
    transformations put anything there: axis numbers, shapes, booleans, slices of the arrays.

    Args:
        cls: the class, with annotated fields.

    Returns:
        The class, registered with JAX.

    Raises:
        ValueError: by JAX, if the class is registered already.
    """
    made: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    names = tuple(field.name for field in dataclasses.fields(made))

    def flatten_with_keys(x: Any) -> tuple[Any, None]:
        return tuple((jax.tree_util.GetAttrKey(name), getattr(x, name)) for name in names), None

    def flatten(x: Any) -> tuple[Any, None]:
        return tuple(getattr(x, name) for name in names), None

    def unflatten(_: None, leaves: Any) -> Any:
        x: Any = object.__new__(made)
        x._set(**dict(zip(names, leaves, strict=True)))
        return x

    jax.tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made


class Base:
    """The part of a distribution that is the same for all: a sample is a function of its noise."""

    event_ndim: ClassVar[int] = 1
    """How many trailing axes of an action are summed over by log_prob."""

    has_noise: ClassVar[bool] = True
    """Whether a sample is a function of noise of fixed size."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the actions of one draw: batch axes, then the action's own."""
        raise NotImplementedError

    def base_noise(self, key: Array) -> Array:
        """Draw the noise that a sample is made of."""
        raise NotImplementedError

    def sample_from(self, noise: Any) -> Array:
        """Map noise to the action that it stands for."""
        raise NotImplementedError

    def log_prob(self, action: Any) -> Array:
        """Compute the log-probability or log-density of an action."""
        raise NotImplementedError

    def sample(self, key: Array) -> Array:
        """Draw one action for each row; the same as ``sample_from(base_noise(key))``.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            The action, of the distribution's `shape`.

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return self.sample_from(self.base_noise(key))

    def sample_and_log_prob(self, key: Array) -> tuple[Array, Array]:
        """Draw one action for each row, and its log-probability.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            The action, of the distribution's `shape`, and its log-probability, [...], nats.

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        action = self.sample(key)
        return action, self.log_prob(action)

    def replace(self, **fields: Any) -> Self:
        """Return a copy in which the named fields have new values.

        Args:
            **fields: new values by field name, checked as in the constructor.

        Returns:
            The new distribution.

        Raises:
            TypeError: if there is no such field.
        """
        return dataclasses.replace(self, **fields)  # type: ignore[type-var]

    def _set(self, **fields: Any) -> None:
        for name, x in fields.items():
            object.__setattr__(self, name, x)

    def _lifted(self, lead: tuple[int, ...]) -> Self:
        """Return this distribution with leading axes added, so that ranks agree without being promoted."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, lead + x.shape), self) if lead else self

    def _broadcast_like(self, name: str, x: Array) -> Self:
        """Check that x ends with the distribution's shape; return the distribution with x's leading axes."""
        _checks.require_trailing_shape(name, x, self.shape, of="the distribution")
        return self._lifted(x.shape[: x.ndim - len(self.shape)])

    def _compared(self, other: Any) -> Any:
        """Check that a divergence from self to other makes sense; return other with the leading axes of self."""
        _checks.require_same_class("other", other, type(self))
        name = dataclasses.fields(self)[0].name  # type: ignore[arg-type]
        mine, theirs = getattr(self, name), getattr(other, name)
        _checks.require_trailing_shape(f"{name} of this distribution", mine, theirs.shape, of=f"{name} of other")
        return other._lifted(mine.shape[: mine.ndim - theirs.ndim])
