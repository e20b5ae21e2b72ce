"""Independent normal components: the last axis is the action."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base, companion

Array = jax.Array


@validated_pytree
class Normal(Base):
    """D independent normal components, N(loc_i, scale_i²).

        log π(a) = −Σ_i [ z_i² / 2 + log scale_i + log(2π) / 2 ],   z = (a − loc) / scale

    Shapes: loc, scale [..., D]; actions [..., D] float.

    Noise: one standard normal number for each component; the action is loc + scale · noise, so samples
    carry gradients to loc and scale.

    Args:
        loc: [..., D] float, the means, action units.
        scale: [..., D] float or scalar, the standard deviations, broadcast to loc. It must be positive:
            that is not checked, and no floor is added; make it with exp or softplus.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if loc has no axis or scale does not broadcast to it.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> print(Normal(jnp.zeros(2), 1.0).log_prob(jnp.zeros(2)))
        -1.837877
    """

    loc: Array
    scale: Array

    def __post_init__(self) -> None:
        loc = _checks.as_parameter("loc", self.loc)
        self._set(loc=loc, scale=companion("scale", self.scale, loc, of="loc"))

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.loc.shape

    def base_noise(self, key: Array) -> Array:
        """Draw one standard normal number for each component.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [..., D] float.

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return jax.random.normal(key, self.shape, self.loc.dtype)

    def sample_from(self, noise: Any) -> Array:
        """Map standard normal noise to the action, loc + scale · noise.

        Args:
            noise: [..., D] float, extra leading axes allowed.

        Returns:
            [..., D] float, action units; differentiable in loc, scale and noise.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the distribution's shape.
        """
        noise = _checks.as_floating("noise", noise)
        this = self._broadcast_like("noise", noise)
        return this.loc + this.scale * noise

    def noise_of(self, action: Any) -> Array:
        """Find the noise that `sample_from` maps to an action, (action − loc) / scale.

        Args:
            action: [..., D] float, action units; extra leading axes allowed.

        Returns:
            [..., D] float; differentiable in action, loc and scale.
        """
        action = _checks.as_floating("action", action)
        this = self._broadcast_like("action", action)
        return (action - this.loc) / this.scale

    def log_prob(self, action: Any) -> Array:
        """Compute the log-density, summed over the components.

        Args:
            action: [..., D] float, action units; extra leading axes allowed.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if action is not floating.
            ValueError: if action does not end with the distribution's shape.
        """
        action = _checks.as_floating("action", action)
        this = self._broadcast_like("action", action)
        z = (action - this.loc) / this.scale
        return -jnp.sum(0.5 * jnp.square(z) + jnp.log(this.scale) + 0.5 * math.log(2.0 * math.pi), axis=-1)

    def entropy(self) -> Array:
        """Compute the differential entropy.

            H = Σ_i [ log scale_i + log(2πe) / 2 ]

        Returns:
            [...] float, nats; negative where the scale is small.
        """
        return jnp.sum(jnp.log(self.scale) + 0.5 * math.log(2.0 * math.pi * math.e), axis=-1)

    def mode(self) -> Array:
        """Return the mean, where the density is highest.

        Returns:
            [..., D] float, action units.
        """
        return self.loc

    def kl_divergence(self, other: "Normal") -> Array:
        """Compute KL(self || other).

            KL = Σ_i [ log(s'_i / s_i) + (s_i² + (m_i − m'_i)²) / (2 s'_i²) − 1/2 ]

        Args:
            other: a Normal of the same shape, or of its last axes.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is not a Normal.
            ValueError: if its shape differs.
        """
        other = self._compared(other)
        ratio = self.scale / other.scale
        distance = (self.loc - other.loc) / other.scale
        return jnp.sum(0.5 * (jnp.square(ratio) + jnp.square(distance) - 1.0) - jnp.log(ratio), axis=-1)
