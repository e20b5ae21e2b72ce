"""What every distribution shares: how sampling follows from its noise, what is listed, how actions are checked."""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._pytree import static as static
from pgjax._pytree import validated_pytree as distribution  # noqa: F401  what every distribution is made by

Array = jax.Array

MAX_OUTCOMES = 2**16
"""How many actions `support` lists at most."""


class Base:
    """The part of a distribution that is the same for all: a sample is a function of its noise."""

    event_ndim: ClassVar[int] = 1
    """How many trailing axes of an action are summed over by log_prob."""

    has_noise: ClassVar[bool] = True
    """Whether a sample is a function of noise of fixed size."""

    is_differentiable: ClassVar[bool] = True
    """Whether samples carry gradients to the parameters."""

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

    def noise_of(self, action: Any) -> Array:
        """Find noise that `sample_from` maps to an action; a discrete action is stood for by the middle of its noise.

        Args:
            action: of the distribution's `shape`, extra leading axes allowed.

        Returns:
            Noise like that of `base_noise`; differentiable where the action is continuous.

        Raises:
            TypeError: if an action does not determine its noise.
        """
        raise TypeError(
            f"An action of a {type(self).__name__} does not determine the noise that it was made of. "
            "Keep the noise, or use a rule that needs the action only, such as score_function."
        )

    def support(self) -> tuple[Array, Array]:
        """List every action and its probability, at most 65,536 of them.

        Returns:
            (actions, of the distribution's `shape` with a leading axis [K]; probabilities [K, ...], which carry
            gradients and sum to one over the first axis).

        Raises:
            TypeError: if the actions are continuous.
            ValueError: if there are too many.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be enumerated: its actions are continuous. "
            "Sample it, or integrate over its noise."
        )

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

    def _require_outcomes(self, number: int) -> None:
        if number > MAX_OUTCOMES:
            raise ValueError(
                f"{type(self).__name__} has {number} actions, too many to enumerate: at most {MAX_OUTCOMES}. "
                "Sample it, for instance with the rules score_function, score_leave_one_out or relax."
            )

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


def companion(name: str, x: Any, parameter: Array, *, of: str) -> Array:
    """Return a further parameter, broadcast to the first; a Python number takes the dtype of the first."""
    x = jnp.asarray(x, parameter.dtype) if isinstance(x, float) else _checks.as_floating(name, x)
    return _checks.broadcast_to(name, x, parameter.shape, of=of)


def outside_box(action: Array, low: Any, high: Any) -> Array:
    """Whether a component of an action lies outside its bounds, [...] for [..., D]; False for NaN, which goes on.

    The bounds are rounded to the dtype that the action came in, so that a sample stored in half precision stays inside.
    """
    return jnp.any((action < low.astype(action.dtype)) | (action > high.astype(action.dtype)), axis=-1)
