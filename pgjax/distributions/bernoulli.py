"""Several yes-or-no choices at once, independent given the observation."""

import itertools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base
from pgjax.distributions._relaxed import logistic_given, logit, path

Array = jax.Array


@validated_pytree
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

    is_differentiable: ClassVar[bool] = False

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
            action: [..., D] integer or boolean, extra leading axes allowed.

        Returns:
            [...] float, nats; −∞, with zero gradient, if a component is neither 0 nor 1.

        Raises:
            TypeError: if action is neither integer nor boolean.
            ValueError: if action does not end with the distribution's shape.
        """
        action = self._as_action(action)
        logits = self._broadcast_like("action", action).logits
        total = -jnp.sum(jax.nn.softplus(jnp.where(action == 1, -logits, logits)), axis=-1)
        return jnp.where(jnp.all((action == 0) | (action == 1), axis=-1), total, -jnp.inf)

    def noise_of(self, action: Any) -> Array:
        """Find the middle of the noise that `sample_from` maps to an action, p/2 for 1 and (1 + p)/2 for 0.

        Args:
            action: [..., D] integer or boolean, extra leading axes allowed.

        Returns:
            [..., D] float in [0, 1]. An action of probability 0 has no noise: what comes out belongs to the other.
        """
        action = self._as_action(action)
        p = self._broadcast_like("action", action).probs
        return 0.5 * jnp.where(action == 1, p, 1.0 + p)

    def support(self) -> tuple[Array, Array]:
        """List the 2**D actions and their probabilities, for D up to 16.

        Returns:
            (actions [2**D, ..., D] int32, the last component changing first; probabilities [2**D, ...], which carry
            gradients).

        Raises:
            ValueError: if D is above 16.
        """
        size = self.shape[-1]
        self._require_outcomes(2**size)
        each = np.asarray(list(itertools.product((0, 1), repeat=size)), np.int32)
        each = each.reshape(-1, *(1,) * (len(self.shape) - 1), size)
        actions = jnp.broadcast_to(each, (each.shape[0], *self.shape))
        return actions, jnp.exp(self.log_prob(actions))

    def relaxed_from(self, noise: Any) -> Array:
        """Map uniform noise u to a relaxed sample, z = logits + log u − log(1 − u); z > 0 has probability σ(logits).

        Args:
            noise: [..., D] float in [0, 1], extra leading axes allowed; 0 and 1 count as the nearest numbers inside.

        Returns:
            [..., D] float, nats; differentiable in logits.
        """
        noise = _checks.as_floating("noise", noise)
        return self._broadcast_like("noise", noise).logits + logit(noise)

    def relaxed_given(self, action: Any, noise: Any) -> Array:
        """Map uniform noise to a relaxed sample given the action that it rounds to.

        Averaged over the action it has the law of `relaxed_from`, but other gradients: here noise and action are fixed.

        Args:
            action: [..., D] integer or boolean.
            noise: [..., D] float in [0, 1], of the shape of action.

        Returns:
            [..., D] float, nats, positive where action is 1; differentiable in logits.
        """
        action, noise = self._as_action(action), _checks.as_floating("noise", noise)
        _checks.require_shape("noise", noise, action.shape, of="action")
        return logistic_given(self._broadcast_like("action", action).logits, action == 1, noise)

    def relaxed_path(self, z: Any) -> Array:
        """Return a relaxed sample with the gradient that it has at fixed noise: that of logits.

        Args:
            z: [..., D] float, extra leading axes allowed; its own gradient is stopped.

        Returns:
            [..., D] float, z.
        """
        z = _checks.as_floating("z", z)
        return path(z, self._broadcast_like("z", z).logits)

    def soften(self, z: Any, temperature: Any) -> Array:
        """Map a relaxed sample to a point of the cube, σ(z / temperature).

        Args:
            z: [..., D] float, nats.
            temperature: scalar, positive, which is not checked; towards 0 the result is `harden(z)`.

        Returns:
            [..., D] float in [0, 1].
        """
        return jax.nn.sigmoid(_checks.as_floating("z", z) / temperature)

    def harden(self, z: Any) -> Array:
        """Round a relaxed sample to the action that it stands for, 1 where z > 0.

        Args:
            z: [..., D] float, nats.

        Returns:
            [..., D] int32.
        """
        return (_checks.as_floating("z", z) > 0.0).astype(jnp.int32)

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

    def _as_action(self, action: Any) -> Array:
        action = _checks.as_array("action", action)
        return action.astype(jnp.int32) if action.dtype == jnp.bool_ else _checks.as_integer("action", action)
