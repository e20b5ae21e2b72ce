"""Several discrete choices at once, independent given the observation: the last axis is the action."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax._pytree import static, validated_pytree
from pgjax.distributions._base import Base
from pgjax.distributions.categorical import MASKED_LOG_PROB, Categorical, as_action

Array = jax.Array


@validated_pytree
class MultiCategorical(Base):
    """D independent choices, the i-th among K_i actions; the action has D components.

        log π(a) = Σ_i log softmax(l_i)_{a_i}

    Logits of different lengths are padded to the longest: the actions that this adds do not exist. The field
    `logits` holds the padded array, `sizes` the numbers of actions.

    Shapes: logits [..., D, K], or a tuple of D arrays [..., K_i]; actions [..., D] integer.

    Noise: one uniform number in [0, 1) for each component, as in `Categorical`.

    Args:
        logits: [..., D, K] float, or a tuple or list of D arrays [..., K_i], nats.
        sizes: the D numbers of actions K_i where logits is one padded array; None if all are K, or if they follow
            from a tuple of logits. Static.

    Raises:
        TypeError: if a logit array is not floating or a size is no int.
        ValueError: if an axis is missing, the tuple is empty, batch axes differ, or sizes do not fit logits.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.distributions import MultiCategorical
        >>> print(MultiCategorical((jnp.zeros(2), jnp.zeros(8))).log_prob(jnp.array([1, 5])))
        -2.7725887
    """

    logits: Array | Sequence[Array]
    sizes: tuple[int, ...] | None = static(default=None)

    is_differentiable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        logits, sizes = self.logits, self.sizes
        if isinstance(logits, (tuple, list)):
            logits, found = _stack_padded(logits)
            sizes = found if sizes is None else sizes
        logits = _checks.as_parameter("logits", logits, axes="[..., D, K]")
        if sizes is not None:
            sizes = tuple(_checks.as_positive_int("each of sizes", size) for size in sizes)
            if len(sizes) != logits.shape[-2] or max(sizes) > logits.shape[-1]:
                raise ValueError(
                    f"sizes must hold {logits.shape[-2]} numbers of at most {logits.shape[-1]}, as logits "
                    f"{list(logits.shape)} has room for, got {sizes}."
                )
        self._set(logits=logits, sizes=None if sizes == logits.shape[-1:] * logits.shape[-2] else sizes)

    @property
    def _components(self) -> Categorical:
        logits: Any = self.logits
        if self.sizes is None:
            return Categorical(logits)
        exists = np.arange(logits.shape[-1]) < np.asarray(self.sizes)[:, None]
        return Categorical(logits, jnp.broadcast_to(exists, logits.shape))

    @property
    def _sizes(self) -> tuple[int, ...]:
        return self.sizes or self.logits.shape[-1:] * self.logits.shape[-2]  # type: ignore[union-attr]

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
            [...] float, nats; −∞, with zero gradient, if a component lies outside its range.

        Raises:
            TypeError: if action is not of integer dtype.
            ValueError: if action does not end with the distribution's shape.
        """
        action = as_action(action)
        total = jnp.sum(self._components.log_prob(action), axis=-1)
        sizes = jnp.broadcast_to(np.asarray(self._sizes, action.dtype), action.shape)
        return jnp.where(jnp.all((action >= 0) & (action < sizes), axis=-1), total, -jnp.inf)

    def noise_of(self, action: Any) -> Array:
        """Find the middle of the noise that `sample_from` maps to an action; see `Categorical.noise_of`.

        Args:
            action: [..., D] integer, extra leading axes allowed.

        Returns:
            [..., D] float in [0, 1].
        """
        return self._components.noise_of(action)

    def support(self) -> tuple[Array, Array]:
        """List every combination of actions and its probability, at most 65,536 of them.

        Returns:
            (actions [K_1 ... K_D, ..., D] int32, the last component changing first; probabilities [K_1 ... K_D, ...],
            which carry gradients).

        Raises:
            ValueError: if there are more than 65,536.
        """
        self._require_outcomes(math.prod(self._sizes))
        each = np.asarray(list(itertools.product(*map(range, self._sizes))), np.int32)
        each = each.reshape(-1, *(1,) * (len(self.shape) - 1), self.shape[-1])
        actions = jnp.broadcast_to(each, (each.shape[0], *self.shape))
        return actions, jnp.exp(self.log_prob(actions))

    def relaxed_from(self, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample, component by component; see `Categorical.relaxed_from`.

        Args:
            noise: [..., D, K] float in [0, 1], extra leading axes allowed.

        Returns:
            [..., D, K] float, nats; differentiable in logits.
        """
        return self._components.relaxed_from(noise)

    def relaxed_given(self, action: Any, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample given the action that it rounds to; see `Categorical.relaxed_given`.

        Args:
            action: [..., D] integer.
            noise: [..., D, K] float in [0, 1].

        Returns:
            [..., D, K] float, nats; differentiable in logits.
        """
        return self._components.relaxed_given(action, noise)

    def relaxed_path(self, z: Any) -> Array:
        """Return a relaxed sample with the gradient that it has at fixed noise: that of log π.

        Args:
            z: [..., D, K] float, extra leading axes allowed; its own gradient is stopped.

        Returns:
            [..., D, K] float, z.
        """
        return self._components.relaxed_path(z)

    def harden(self, z: Any) -> Array:
        """Round a relaxed sample to the action that it stands for.

        Args:
            z: [..., D, K] float, nats.

        Returns:
            [..., D] int32.
        """
        return self._components.harden(z)

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


def _stack_padded(logits: Sequence[Any]) -> tuple[Array, tuple[int, ...]]:
    """Return a list of [..., K_i] as one [..., D, K], and the K_i."""
    if not logits:
        raise ValueError("logits is an empty sequence; pass at least one array [..., K_i].")
    arrays = [_checks.as_parameter(f"logits[{i}]", x, axes="[..., K]") for i, x in enumerate(logits)]
    batch, longest = arrays[0].shape[:-1], max(x.shape[-1] for x in arrays)
    for i, x in enumerate(arrays):
        _checks.require_shape(f"logits[{i}] without its last axis", x[..., 0], batch, of="the batch axes of logits[0]")

    def padded(x: Array) -> Array:
        widths = [(0, 0)] * len(batch) + [(0, longest - x.shape[-1])]
        return jnp.pad(x, widths, constant_values=MASKED_LOG_PROB)

    return jnp.stack([padded(x) for x in arrays], axis=-2), tuple(x.shape[-1] for x in arrays)
