"""Independent Beta components on a box: bounded support without squashing."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma, gammaln

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base, companion, outside_box

Array = jax.Array


@validated_pytree
class Beta(Base):
    """D independent Beta components, stretched to the box from low to high.

        x ~ Beta(α, β),   a = low + (high − low) x
        log π(a) = Σ_i [ (α_i − 1) log x_i + (β_i − 1) log(1 − x_i) − log B(α_i, β_i) − log(high_i − low_i) ]

    Unlike a normal that is clipped to the box, it loses no mass at the bounds. α = β = 1 is uniform.

    Shapes: alpha, beta, low, high [..., D]; actions [..., D] float.

    Noise: one key for each row, since the sampler rejects. Samples carry gradients to α and β all the same, by
    implicit reparameterisation of the gamma sampler.

    Args:
        alpha: [..., D] float, positive, which is not checked; dimensionless. Above 1 together with beta,
            for instance 1 + softplus(...), the density has one peak.
        beta: [..., D] float or scalar, positive, broadcast to alpha.
        low: [..., D] float or scalar, lower bounds, action units.
        high: [..., D] float or scalar, upper bounds, action units; above low, which is not checked.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if alpha has no axis or an argument does not broadcast to it.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import Beta
        >>> print(Beta(jnp.array([3.0]), 1.0, low=-2.0, high=2.0).mode())
        [2.]

    References:
        Chou, Maturana and Scherer (2017), Improving stochastic policy gradients in continuous control
        with deep reinforcement learning using the Beta distribution.
        Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients.
    """

    alpha: Array
    beta: Array
    low: Array | float = 0.0
    high: Array | float = 1.0

    def __post_init__(self) -> None:
        alpha = _checks.as_parameter("alpha", self.alpha)
        rest = {name: companion(name, getattr(self, name), alpha, of="alpha") for name in ("beta", "low", "high")}
        self._set(alpha=alpha, **rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.alpha.shape

    def base_noise(self, key: Array) -> Array:
        """Split a key into one for each row.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [...] typed random keys.

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        keys = jax.random.split(key, self.shape[:-1])
        return keys if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(keys)

    def sample_from(self, noise: Any) -> Array:
        """Draw the action of each row by its own key.

        Args:
            noise: [...] typed random keys, extra leading axes allowed.

        Returns:
            [..., D] float within [low, high], action units; differentiable in alpha and beta.

        Raises:
            TypeError: if noise is not an array of typed keys.
            ValueError: if noise does not end with the batch shape.
        """
        if not jnp.issubdtype(getattr(noise, "dtype", jnp.float32), jax.dtypes.prng_key):
            raise TypeError(
                f"noise of a Beta must be typed random keys, one for each row, got {type(noise).__name__}. "
                "Draw it with base_noise(key)."
            )
        batch = self.shape[:-1]
        _checks.require_trailing_shape("noise", noise, batch, of="the batch axes of the distribution")
        this = self._lifted(noise.shape[: noise.ndim - len(batch)])
        draw = lambda key, a, b: jax.random.beta(key, a, b, dtype=a.dtype)  # noqa: E731
        for _ in noise.shape:
            draw = jax.vmap(draw)
        x = _inside(draw(noise, this.alpha, this.beta))
        return jnp.clip(this.low + (this.high - this.low) * x, this.low, this.high)

    def log_prob(self, action: Any) -> Array:
        """Compute the log-density, summed over the components; finite at the bounds.

        Args:
            action: [..., D] float, action units; extra leading axes allowed. At a bound, where rounding leads, it
                counts as the nearest number inside.

        Returns:
            [...] float, nats per action unit; −∞, with zero gradient, outside the box.

        Raises:
            TypeError: if action is not floating.
            ValueError: if action does not end with the distribution's shape.
        """
        came, action = _checks.as_array("action", action), _checks.as_floating("action", action)
        this = self._broadcast_like("action", action)
        width = this.high - this.low
        x = _inside((action - this.low) / width)
        kernel = (this.alpha - 1.0) * jnp.log(x) + (this.beta - 1.0) * jnp.log1p(-x)
        total = jnp.sum(kernel - _log_beta(this.alpha, this.beta) - jnp.log(width), axis=-1)
        return jnp.where(outside_box(came, this.low, this.high), -jnp.inf, total)

    def entropy(self) -> Array:
        """Compute the differential entropy, with ψ the digamma function.

            H = Σ_i [ log B(α, β) − (α − 1) ψ(α) − (β − 1) ψ(β) + (α + β − 2) ψ(α + β) + log(high − low) ]

        Returns:
            [...] float, nats; at most Σ_i log(high_i − low_i).
        """
        a, b = self.alpha, self.beta
        unit = _log_beta(a, b) - (a - 1.0) * digamma(a) - (b - 1.0) * digamma(b) + (a + b - 2.0) * digamma(a + b)
        return jnp.sum(unit + jnp.log(self.high - self.low), axis=-1)

    def mode(self) -> Array:
        """Return the action of highest density.

            low + (high − low) (α − 1) / (α + β − 2)     where α > 1 and β > 1

        With only α ≤ 1 it is low, with only β ≤ 1 high. With both ≤ 1 there is no single peak: the mean.

        Returns:
            [..., D] float within [low, high], action units.
        """
        a, b = self.alpha, self.beta
        peaked = (a > 1.0) & (b > 1.0)
        peak = (a - 1.0) / jnp.where(peaked, a + b - 2.0, 1.0)
        edge = jnp.where(a > b, 1.0, 0.0)
        x = jnp.where(peaked, peak, jnp.where((a <= 1.0) & (b <= 1.0), a / (a + b), edge))
        return self.low + (self.high - self.low) * x

    def kl_divergence(self, other: "Beta") -> Array:
        """Compute KL(self || other), with ψ the digamma function.

            KL = Σ_i [ log B'/B + (α − α') ψ(α) + (β − β') ψ(β) + (α' − α + β' − β) ψ(α + β) ]

        Args:
            other: a Beta of the same shape, or of its last axes, with the same bounds; the bounds are
                values, so they are not compared.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is not a Beta.
            ValueError: if its shape differs.
        """
        other = self._compared(other)
        a, b = self.alpha, self.beta
        da, db = a - other.alpha, b - other.beta
        mass = _log_beta(other.alpha, other.beta) - _log_beta(a, b)
        return jnp.sum(mass + da * digamma(a) + db * digamma(b) - (da + db) * digamma(a + b), axis=-1)


def _log_beta(a: Array, b: Array) -> Array:
    """log B(a, b). In float64 JAX's betaln is off by up to 1e-6 from 8 on; in float32 it is the better one."""
    return gammaln(a) + gammaln(b) - gammaln(a + b) if a.dtype == jnp.float64 else betaln(a, b)


def _inside(x: Array) -> Array:
    """Move x from the ends of [0, 1] to the nearest numbers inside, so that both logarithms stay finite."""
    info = jnp.finfo(x.dtype)
    return jnp.clip(x, info.tiny, 1.0 - info.epsneg)
