"""One choice among K actions, as a vector with a single 1: the form in which a function of it can be relaxed."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base
from pgjax.distributions.categorical import Categorical

Array = jax.Array


@validated_pytree
class OneHotCategorical(Base):
    """One of K actions as a one-hot vector, with probabilities softmax(logits) over the allowed ones.

        π(e_k) = m_k exp(l_k) / Σ_j m_j exp(l_j),   m = mask, e_k the k-th unit vector

    It is `Categorical` but for the form of the action. A function of vectors can also be evaluated between the unit
    vectors, which `soften` and the rules gumbel_softmax, straight_through and rebar do.

    Shapes: logits, mask [..., K]; actions [..., K] float.

    Noise: one uniform number in [0, 1) for each row, as in `Categorical`.

    Args:
        logits: [..., K] float, unnormalised log-probabilities, nats.
        mask: [..., K] bool or None, True where the action is allowed; broadcast to logits.

    Raises:
        TypeError: if logits is not floating or mask is not boolean.
        ValueError: if logits has no axis or mask does not broadcast to it.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import OneHotCategorical
        >>> print(OneHotCategorical(jnp.array([0.0, 2.0, 1.0])).mode())
        [0. 1. 0.]
    """

    logits: Array
    mask: Array | None = None

    is_differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        checked = Categorical(self.logits, self.mask)
        self._set(logits=checked.logits, mask=checked.mask)

    @property
    def categorical(self) -> Categorical:
        """The same choice as an index."""
        return Categorical(self.logits, self.mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., K], the shape of the actions of one draw."""
        return self.logits.shape

    @property
    def log_probs(self) -> Array:
        """[..., K] float, nats: log π of every action, as `Categorical.log_probs`."""
        return self.categorical.log_probs

    @property
    def probs(self) -> Array:
        """[..., K] float: π of every action, exactly 0 where it is not allowed; the mean of the action."""
        return self.categorical.probs

    def base_noise(self, key: Array) -> Array:
        """Draw one uniform number for each row.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [...] float in [0, 1).

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return self.categorical.base_noise(key)

    def sample_from(self, noise: Any) -> Array:
        """Map uniform noise to the action; see `Categorical.sample_from`.

        Args:
            noise: [...] float in [0, 1], extra leading axes allowed.

        Returns:
            [..., K] float, one-hot.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the batch shape.
        """
        return self._vector(self.categorical.sample_from(noise))

    def log_prob(self, action: Any) -> Array:
        """Compute log π(a).

        Args:
            action: [..., K] one-hot, of any dtype, extra leading axes allowed; constant, so without gradient.

        Returns:
            [...] float, nats. `MASKED_LOG_PROB` for a forbidden action; −∞, with zero gradient, for a vector that is
            not one-hot.

        Raises:
            ValueError: if action does not end with the distribution's shape.
        """
        action = _checks.as_array("action", action)
        chosen = action == 1
        exists = jnp.all(chosen | (action == 0), axis=-1) & (jnp.sum(chosen, axis=-1) == 1)
        log_probs = self._broadcast_like("action", action).log_probs
        return jnp.where(exists, jnp.sum(jnp.where(chosen, log_probs, 0.0), axis=-1), -jnp.inf)

    def noise_of(self, action: Any) -> Array:
        """Find the middle of the noise that `sample_from` maps to an action; see `Categorical.noise_of`.

        Args:
            action: [..., K] one-hot, extra leading axes allowed.

        Returns:
            [...] float in [0, 1].
        """
        return self.categorical.noise_of(self._index(action))

    def support(self) -> tuple[Array, Array]:
        """List the K actions and their probabilities.

        Returns:
            (actions [K, ..., K] float; probabilities [K, ...], which carry gradients).

        Raises:
            ValueError: if there are more than 65,536.
        """
        index, probs = self.categorical.support()
        return self._vector(index), probs

    def entropy(self) -> Array:
        """Compute the entropy over the allowed actions.

        Returns:
            [...] float, nats, in [0, log K].
        """
        return self.categorical.entropy()

    def mode(self) -> Array:
        """Return the most probable action; the first of them in a tie.

        Returns:
            [..., K] float, one-hot.
        """
        return self._vector(self.categorical.mode())

    def kl_divergence(self, other: "OneHotCategorical") -> Array:
        """Compute KL(self || other) over the actions that self allows; see `Categorical.kl_divergence`.

        Args:
            other: a OneHotCategorical of the same shape, or of its last axes.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is not a OneHotCategorical.
            ValueError: if its shape differs.
        """
        return self.categorical.kl_divergence(self._compared(other).categorical)

    def relaxed_from(self, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample whose largest entry is the action; see `Categorical.relaxed_from`.

        Args:
            noise: [..., K] float in [0, 1], extra leading axes allowed.

        Returns:
            [..., K] float, nats; differentiable in logits.
        """
        return self.categorical.relaxed_from(noise)

    def relaxed_given(self, action: Any, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample given the action that it rounds to; see `Categorical.relaxed_given`.

        Args:
            action: [..., K] one-hot.
            noise: [..., K] float in [0, 1].

        Returns:
            [..., K] float, nats, largest at the action; differentiable in logits.
        """
        return self.categorical.relaxed_given(self._index(action), noise)

    def relaxed_path(self, z: Any) -> Array:
        """Return a relaxed sample with the gradient that it has at fixed noise: that of log π.

        Args:
            z: [..., K] float, extra leading axes allowed; its own gradient is stopped.

        Returns:
            [..., K] float, z.
        """
        return self.categorical.relaxed_path(z)

    def soften(self, z: Any, temperature: Any) -> Array:
        """Map a relaxed sample to a point of the simplex, softmax(z / temperature).

        Args:
            z: [..., K] float, nats.
            temperature: scalar, positive, which is not checked; towards 0 the result is `harden(z)`.

        Returns:
            [..., K] float, summing to one.
        """
        return jax.nn.softmax(_checks.as_floating("z", z) / temperature)

    def harden(self, z: Any) -> Array:
        """Round a relaxed sample to the action that it stands for.

        Args:
            z: [..., K] float, nats.

        Returns:
            [..., K] float, one-hot; the first in a tie.
        """
        return self._vector(self.categorical.harden(z))

    def _vector(self, index: Array) -> Array:
        return jax.nn.one_hot(index, self.logits.shape[-1], dtype=self.logits.dtype)

    def _index(self, action: Any) -> Array:
        action = _checks.as_array("action", action)
        _checks.require_trailing_shape("action", action, self.shape, of="the distribution")
        return jnp.argmax(action, axis=-1).astype(jnp.int32)
