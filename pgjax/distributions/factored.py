"""Several discrete choices at once, independent given the observation: the last axis is the action."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax.distributions._base import Base, distribution
from pgjax.distributions.categorical import MASKED_LOG_PROB, Categorical

Array = jax.Array


@distribution
class MultiCategorical(Base):
    """D independent choices, the i-th among K_i actions; the action has D components.

        log π(a) = Σ_i log softmax(l_i)_{a_i}

    Logits of different lengths are padded to the longest with −1e9: those actions have probability
    exactly 0. The field `logits` holds the padded array.

    Shapes: logits [..., D, K], or a tuple of D arrays [..., K_i]; actions [..., D] integer.

    Noise: one uniform number in [0, 1) for each component, as in `Categorical`.

    Args:
        logits: [..., D, K] float, or a tuple or list of D arrays [..., K_i], nats.

    Raises:
        TypeError: if a logit array is not floating.
        ValueError: if an axis is missing, the tuple is empty, or batch axes differ.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import MultiCategorical
        >>> print(MultiCategorical((jnp.zeros(2), jnp.zeros(8))).log_prob(jnp.array([1, 5])))
        -2.7725887
    """

    logits: Array | Sequence[Array]

    def __post_init__(self) -> None:
        logits = _stack_padded(self.logits) if isinstance(self.logits, (tuple, list)) else self.logits
        self._set(logits=_checks.as_parameter("logits", logits, axes="[..., D, K]"))

    @property
    def _components(self) -> Categorical:
        return Categorical(self.logits)  # type: ignore[arg-type]

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self._components.shape

    @property
    def log_probs(self) -> Array:
        """[..., D, K] float, nats: the log-probability of each action of each component."""
        return self._components.log_probs

    @property
    def probs(self) -> Array:
        """[..., D, K] float: the probability of each action of each component."""
        return self._components.probs

    def base_noise(self, key: Array) -> Array:
        """Draw one uniform number for each component.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [..., D] float in [0, 1).

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return self._components.base_noise(key)

    def sample_from(self, noise: Any) -> Array:
        """Map uniform noise to the action, component by component; see `Categorical.sample_from`.

        Args:
            noise: [..., D] float in [0, 1], extra leading axes allowed.

        Returns:
            [..., D] int32.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the distribution's shape.
        """
        return self._components.sample_from(noise)

    def log_prob(self, action: Any) -> Array:
        """Compute log π(a), summed over the components.

        Args:
            action: [..., D] integer, the i-th in [0, K_i); extra leading axes allowed.

        Returns:
            [...] float, nats; −1e9 or less if a component lies outside its range.

        Raises:
            TypeError: if action is not of integer dtype.
            ValueError: if action does not end with the distribution's shape.
        """
        return jnp.sum(self._components.log_prob(action), axis=-1)

    def entropy(self) -> Array:
        """Compute the entropy, the sum of those of the components.

        Returns:
            [...] float, nats.
        """
        return jnp.sum(self._components.entropy(), axis=-1)

    def mode(self) -> Array:
        """Return the most probable action of each component.

        Returns:
            [..., D] int32.
        """
        return self._components.mode()

    def kl_divergence(self, other: "MultiCategorical") -> Array:
        """Compute KL(self || other), the sum over the components.

        Args:
            other: a MultiCategorical of the same shape, or of its last axes.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is not a MultiCategorical.
            ValueError: if its shape or its number of actions differs.
        """
        return jnp.sum(self._components.kl_divergence(self._compared(other)._components), axis=-1)


@distribution
class Bernoulli(Base):
    """D independent yes-or-no choices; the action has D components, each 0 or 1.

        log π(a) = Σ_i a_i log σ(l_i) + (1 − a_i) log σ(−l_i),   σ the logistic function

    Shapes: logits [..., D]; actions [..., D] integer or boolean.

    Noise: one uniform number u in [0, 1) for each component; a = 1 where u < σ(l).

    Args:
        logits: [..., D] float, log-odds of 1, nats.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has no axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> print(Bernoulli(jnp.zeros(3)).log_prob(jnp.array([0, 1, 1])))
        -2.0794415
    """

    logits: Array

    def __post_init__(self) -> None:
        self._set(logits=_checks.as_parameter("logits", self.logits))

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.logits.shape

    @property
    def probs(self) -> Array:
        """[..., D] float: the probability of 1 in each component."""
        return jax.nn.sigmoid(self.logits)

    def base_noise(self, key: Array) -> Array:
        """Draw one uniform number for each component.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [..., D] float in [0, 1).

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return jax.random.uniform(key, self.shape, self.logits.dtype)

    def sample_from(self, noise: Any) -> Array:
        """Map uniform noise to the action: 1 where the noise is below the probability of 1.

        Args:
            noise: [..., D] float in [0, 1], extra leading axes allowed.

        Returns:
            [..., D] int32, 0 or 1.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the distribution's shape.
        """
        noise = _checks.as_floating("noise", noise)
        return (noise < self._broadcast_like("noise", noise).probs).astype(jnp.int32)

    def log_prob(self, action: Any) -> Array:
        """Compute log π(a), summed over the components.

        Args:
            action: [..., D] integer or boolean, extra leading axes allowed; what is not 0 counts as 1.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if action is neither integer nor boolean.
            ValueError: if action does not end with the distribution's shape.
        """
        action = _checks.as_array("action", action)
        if action.dtype != jnp.bool_:
            action = _checks.as_integer("action", action) != 0
        logits = self._broadcast_like("action", action).logits
        return -jnp.sum(jax.nn.softplus(jnp.where(action, -logits, logits)), axis=-1)

    def entropy(self) -> Array:
        """Compute the entropy, the sum of those of the components.

            H = Σ_i p_i softplus(−l_i) + (1 − p_i) softplus(l_i)

        Returns:
            [...] float, nats.
        """
        p, q = self.probs, jax.nn.sigmoid(-self.logits)
        return jnp.sum(p * jax.nn.softplus(-self.logits) + q * jax.nn.softplus(self.logits), axis=-1)

    def mode(self) -> Array:
        """Return the most probable action; 0 in a tie.

        Returns:
            [..., D] int32.
        """
        return (self.logits > 0.0).astype(jnp.int32)

    def kl_divergence(self, other: "Bernoulli") -> Array:
        """Compute KL(self || other), the sum over the components.

        Args:
            other: a Bernoulli of the same shape, or of its last axes.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is not a Bernoulli.
            ValueError: if its shape differs.
        """
        l, m, softplus = self.logits, self._compared(other).logits, jax.nn.softplus
        yes = self.probs * (softplus(-m) - softplus(-l))
        no = jax.nn.sigmoid(-l) * (softplus(m) - softplus(l))
        return jnp.sum(yes + no, axis=-1)


def _stack_padded(logits: Sequence[Any]) -> Array:
    """Return a list of [..., K_i] as one [..., D, K], padded with actions of probability 0."""
    if not logits:
        raise ValueError("logits is an empty sequence; pass at least one array [..., K_i].")
    arrays = [_checks.as_parameter(f"logits[{i}]", x, axes="[..., K]") for i, x in enumerate(logits)]
    batch, longest = arrays[0].shape[:-1], max(x.shape[-1] for x in arrays)
    for i, x in enumerate(arrays):
        _checks.require_shape(f"logits[{i}] without its last axis", x[..., 0], batch, of="the batch axes of logits[0]")

    def padded(x: Array) -> Array:
        widths = [(0, 0)] * len(batch) + [(0, longest - x.shape[-1])]
        return jnp.pad(x, widths, constant_values=MASKED_LOG_PROB)

    return jnp.stack([padded(x) for x in arrays], axis=-2)
