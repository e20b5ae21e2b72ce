"""One choice among K actions, with an optional mask of the actions that are allowed."""

import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base
from pgjax.distributions._relaxed import gumbel, gumbel_given, path

Array = jax.Array

MASKED_LOG_PROB = -1e9
"""Log-probability given to an action that cannot happen: its probability is exactly 0, and differences stay finite."""

_UNROLL = 64  # up to so many actions, adding the probabilities one by one beats a cumulative sum on CPU


@validated_pytree
class Categorical(Base):
    """One of K actions, with probabilities softmax(logits) over the allowed ones.

        π(a) = m_a exp(l_a) / Σ_k m_k exp(l_k),   m = mask

    An action with mask False has probability exactly 0 and log-probability `MASKED_LOG_PROB` (−1e9: finite,
    so that differences of log-probabilities are never NaN). A row whose mask allows nothing is uniform
    over all K actions, with zero gradient. No log-probability is below −1e9; a logit of −∞ works like a mask,
    but a row that has no other logit is NaN: use mask.

    Shapes: logits, mask [..., K]; actions [...] integer.

    Noise: one uniform number in [0, 1) for each row; the action is the first whose cumulated probability
    exceeds it. With the log-probability, that is 1.2 (K = 2) to 6 (K = 18) times faster on CPU than
    one Gumbel number for each action. Probabilities are resolved to 2**-23 in float32.

    Args:
        logits: [..., K] float, unnormalised log-probabilities, nats.
        mask: [..., K] bool or None, True where the action is allowed; broadcast to logits.

    Raises:
        TypeError: if logits is not floating or mask is not boolean.
        ValueError: if logits has no axis or mask does not broadcast to it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> from pgjax.distributions import Categorical
        >>> print(Categorical(jnp.zeros(4), mask=jnp.array([True, True, False, False])).probs)
        [0.5 0.5 0.  0. ]
    """

    logits: Array
    mask: Array | None = None

    event_ndim: ClassVar[int] = 0
    is_differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        logits, mask = _checks.as_parameter("logits", self.logits, axes="[..., K]"), self.mask
        if mask is not None:
            mask = _checks.broadcast_to("mask", _checks.as_boolean("mask", mask), logits.shape, of="logits")
        self._set(logits=logits, mask=mask)

    @property
    def shape(self) -> tuple[int, ...]:
        """[...], the shape of the actions of one draw."""
        return self.logits.shape[:-1]

    @property
    def log_probs(self) -> Array:
        """[..., K] float, nats: log π(a) of every action; `MASKED_LOG_PROB` where a cannot happen."""
        logits = self.logits
        if self.mask is not None:
            possible = jnp.any(self.mask, axis=-1, keepdims=True)
            logits = jnp.where(possible, jnp.where(self.mask, logits, -jnp.inf), 0.0)
        return jnp.maximum(jax.nn.log_softmax(logits), MASKED_LOG_PROB)  # a constant where −∞, so without gradient

    @property
    def probs(self) -> Array:
        """[..., K] float: π(a) of every action, exactly 0 where a is not allowed."""
        return jnp.exp(self.log_probs)

    def base_noise(self, key: Array) -> Array:
        """Draw one uniform number for each row.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [...] float in [0, 1).

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return jax.random.uniform(key, self.shape, self.logits.dtype)

    def sample_from(self, noise: Any) -> Array:
        """Map uniform noise to the action by the inverse of the cumulated probabilities.

            a = min { k : Σ_{j≤k} π(j) > u }

        Args:
            noise: [...] float in [0, 1], extra leading axes allowed. A forbidden action is never the
                result, not even at 0 and 1.

        Returns:
            [...] int32, the action.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the batch shape.
        """
        noise = _checks.as_floating("noise", noise)
        u = jnp.clip(noise, 0.0, 1.0 - jnp.finfo(noise.dtype).eps)  # then u * total < total, in rounding too
        return _inverse_cdf(self._broadcast_like("noise", noise).probs, u)

    def log_prob(self, action: Any) -> Array:
        """Compute log π(a).

        Args:
            action: [...] integer in [0, K), extra leading axes allowed.

        Returns:
            [...] float, nats. `MASKED_LOG_PROB` for a forbidden action; −∞, with zero gradient, for one
            outside [0, K).

        Raises:
            TypeError: if action is not of integer dtype.
            ValueError: if action does not end with the batch shape.
        """
        action = as_action(action)
        this = self._broadcast_like("action", action)
        exists = (action >= 0) & (action < self.logits.shape[-1])
        # A sum over a one-hot selection: the gradient of an indexed read is a scatter, which is slow everywhere.
        chosen = jnp.sum(jnp.where(this._select(action), this.log_probs, 0.0), axis=-1)
        return jnp.where(exists, chosen, -jnp.inf)

    def noise_of(self, action: Any) -> Array:
        """Find the middle of the noise that `sample_from` maps to an action.

            u = Σ_{j<a} π(j) + π(a) / 2

        Args:
            action: [...] integer in [0, K), extra leading axes allowed.

        Returns:
            [...] float in [0, 1]. Rounding limits it: an action less probable than about 2**-22 in float32 may have
            no noise, and what comes out then belongs to a neighbour.
        """
        action = as_action(action)
        this = self._broadcast_like("action", action)
        index = jax.lax.broadcasted_iota(action.dtype, this.logits.shape, this.logits.ndim - 1)
        share = jnp.where(index < action[..., None], 1.0, jnp.where(index == action[..., None], 0.5, 0.0))
        probs = this.probs
        return jnp.sum(share.astype(probs.dtype) * probs, axis=-1) / jnp.sum(probs, axis=-1)

    def support(self) -> tuple[Array, Array]:
        """List the K actions and their probabilities.

        Returns:
            (actions [K, ...] int32; probabilities [K, ...], which carry gradients, exactly 0 for a forbidden action).

        Raises:
            ValueError: if there are more than 65,536.
        """
        size = self.logits.shape[-1]
        self._require_outcomes(size)
        return jax.lax.broadcasted_iota(jnp.int32, (size, *self.shape), 0), jnp.moveaxis(self.probs, -1, 0)

    def relaxed_from(self, noise: Any) -> Array:
        """Map uniform noise u to a relaxed sample, z = log π − log(−log u), whose largest entry is the action.

        Args:
            noise: [..., K] float in [0, 1], one number for each action, extra leading axes allowed; 0 and 1 count as
                the nearest numbers inside.

        Returns:
            [..., K] float, nats; differentiable in logits. About −1e9 for a forbidden action.

        References:
            Maddison, Mnih and Teh (2017), The Concrete distribution.
        """
        noise = _checks.as_floating("noise", noise)
        return self._lifted_to("noise", noise).log_probs + gumbel(noise)

    def relaxed_given(self, action: Any, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample given the action that it rounds to.

        Averaged over the action it has the law of `relaxed_from`, but other gradients: here noise and action are fixed.

        Args:
            action: [...] integer in [0, K).
            noise: [..., K] float in [0, 1].

        Returns:
            [..., K] float, nats, largest at the action; differentiable in logits.

        References:
            Tucker et al. (2017), REBAR, appendix on the conditional marginalisation.
        """
        action, noise = as_action(action), _checks.as_floating("noise", noise)
        this = self._lifted_to("noise", noise)
        _checks.require_shape("action", action, this.shape, of="noise without its last axis")
        return gumbel_given(this.log_probs, this._select(action), noise)

    def relaxed_path(self, z: Any) -> Array:
        """Return a relaxed sample with the gradient that it has at fixed noise: that of log π.

        Args:
            z: [..., K] float, extra leading axes allowed; its own gradient is stopped.

        Returns:
            [..., K] float, z.
        """
        z = _checks.as_floating("z", z)
        return path(z, self._lifted_to("z", z).log_probs)

    def harden(self, z: Any) -> Array:
        """Round a relaxed sample to the action that it stands for, the index of its largest entry.

        Args:
            z: [..., K] float, nats.

        Returns:
            [...] int32; the first in a tie.
        """
        return jnp.argmax(_checks.as_floating("z", z), axis=-1).astype(jnp.int32)

    def entropy(self) -> Array:
        """Compute the entropy over the allowed actions.

            H = −Σ_a π(a) log π(a)

        Returns:
            [...] float, nats, in [0, log K].
        """
        log_probs = self.log_probs
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def mode(self) -> Array:
        """Return the most probable action; the first of them in a tie.

        Returns:
            [...] int32.
        """
        return jnp.argmax(self.log_probs, axis=-1).astype(jnp.int32)

    def kl_divergence(self, other: "Categorical") -> Array:
        """Compute KL(self || other) over the actions that self allows.

            KL = Σ_a π(a) [log π(a) − log π'(a)]

        Args:
            other: a Categorical of the same shape, or of its last axes.

        Returns:
            [...] float, nats. Where other forbids an action that self allows, the divergence is infinite;
            it comes out as about 1e9 π(a), finite on purpose.

        Raises:
            TypeError: if other is not a Categorical.
            ValueError: if its shape or its number of actions differs.
        """
        other, log_probs = self._compared(other), self.log_probs
        return jnp.sum(jnp.exp(log_probs) * (log_probs - other.log_probs), axis=-1)

    def _select(self, action: Array) -> Array:
        """[..., K] bool: which of the actions it is; action has exactly the batch shape."""
        return action[..., None] == jax.lax.broadcasted_iota(action.dtype, self.logits.shape, self.logits.ndim - 1)

    def _lifted_to(self, name: str, x: Array) -> "Categorical":
        """Check that x ends with the shape of logits; return the distribution with x's leading axes."""
        _checks.require_trailing_shape(name, x, self.logits.shape, of="logits")
        return self._lifted(x.shape[: x.ndim - self.logits.ndim])


def as_action(action: Any) -> Array:
    """Give integer actions a dtype that can count to any K.

    Args:
        action: integers.

    Returns:
        The same, of at least 32 bits.

    Raises:
        TypeError: if action is no integer array.
    """
    action = _checks.as_integer("action", action)
    return action if action.dtype.itemsize >= 4 else action.astype(jnp.int32)


def _inverse_cdf(probs: Array, u: Array) -> Array:
    """Return the first action whose cumulated probability exceeds u, as int32; never one of probability 0."""
    num_actions = probs.shape[-1]
    if num_actions <= _UNROLL:  # summed one by one, a probability of 0 leaves the sum as it is
        partial = list(itertools.accumulate(probs[..., k] for k in range(num_actions)))
        threshold = u * partial[-1]
        return sum(((c <= threshold).astype(jnp.int32) for c in partial[:-1]), jnp.zeros(threshold.shape, jnp.int32))
    # A parallel sum rounds each entry by itself, so it may rise at a probability of 0: look at the others only.
    sums = jnp.where(probs > 0.0, jnp.cumsum(probs, axis=-1), 0.0)
    threshold = u * jnp.max(sums, axis=-1)
    return jnp.argmax(sums > threshold[..., None], axis=-1).astype(jnp.int32)
