"""Distributions that act for a deterministic policy: a point mass, noise around it, random actions at the start.

They are sampled by `rollout` and have a log-probability, not an entropy or a divergence.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import stats

from pgjax import _checks
from pgjax._pytree import validated_pytree
from pgjax.distributions._base import Base, companion

Array = jax.Array


@validated_pytree
class Deterministic(Base):
    """One action without noise, as a distribution: what a deterministic policy returns.

    Shapes: action [..., D].

    Args:
        action: [..., D] float, action units; differentiable.

    Raises:
        TypeError: if action is not floating.
        ValueError: if action has no axis.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> policy = pg.exploration.Deterministic(jnp.ones(2))
        >>> print(policy.sample(jax.random.key(0)), policy.log_prob(jnp.ones(2)), policy.log_prob(jnp.zeros(2)))
        [1. 1.] 0.0 -inf
    """

    action: Array

    def __post_init__(self) -> None:
        self._set(action=_checks.as_parameter("action", self.action))

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.action.shape

    def base_noise(self, key: Array) -> Array:
        """Return zeros: nothing is drawn.

        Args:
            key: a JAX random key; not used.

        Returns:
            [..., D] zeros.
        """
        return jnp.zeros_like(self.action)

    def sample_from(self, noise: Any) -> Array:
        """Return the action, whatever the noise.

        Args:
            noise: [..., D] float, extra leading axes allowed; only its shape is used.

        Returns:
            [..., D] float, action units.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the distribution's shape.
        """
        noise = _checks.as_floating("noise", noise)
        return jnp.broadcast_to(self._broadcast_like("noise", noise).action, noise.shape)

    def log_prob(self, action: Any) -> Array:
        """Return the logarithm of the mass at an action.

        Args:
            action: [..., D] float, action units; extra leading axes allowed.

        Returns:
            [...] float: 0 at the action itself, −∞ elsewhere; no gradient.

        Raises:
            TypeError: if action is not floating.
            ValueError: if action does not end with the distribution's shape.
        """
        action = _checks.as_floating("action", action)
        this = self._broadcast_like("action", action)
        return jnp.where(jnp.all(this.action == action, axis=-1), 0.0, -jnp.inf).astype(action.dtype)

    def mode(self) -> Array:
        """Return the action.

        Returns:
            [..., D] float, action units.
        """
        return self.action


@validated_pytree
class ClippedNormal(Base):
    """An action with Gaussian noise, clipped to the box of actions.

        a = clip(loc + scale · (high − low)/2 · ε, low, high),   ε ~ N(0, 1)

    The noise can be given, which is how `ornstein_uhlenbeck` acts: ``rollout(noise=...)``.

    Shapes: loc, low, high [..., D]; scale broadcasts to them; actions [..., D].

    Args:
        loc: [..., D] float, the action without noise, action units.
        scale: [..., D] float or scalar, standard deviation in half widths of the box, not negative.
        low: [..., D] float or scalar, lower bounds, action units.
        high: [..., D] float or scalar, upper bounds, action units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if loc has no axis or an argument does not broadcast to it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> noisy = pg.exploration.ClippedNormal(jnp.array([0.5]), 0.1, low=-2.0, high=2.0)
        >>> print(noisy.sample_from(jnp.array([1.0])), noisy.sample_from(jnp.array([9.0])))
        [0.7] [2.]

    References:
        Fujimoto, van Hoof and Meger (2018), Addressing function approximation error in actor-critic methods.
    """

    loc: Array
    scale: Array | float
    low: Array | float = -1.0
    high: Array | float = 1.0

    def __post_init__(self) -> None:
        loc = _checks.as_parameter("loc", self.loc)
        rest = {name: companion(name, getattr(self, name), loc, of="loc") for name in ("scale", "low", "high")}
        self._set(loc=loc, **rest)

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.loc.shape

    @property
    def _std(self) -> Array:
        return 0.5 * (jnp.asarray(self.high) - self.low) * self.scale

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
        """Map noise of unit variance to the action.

        Args:
            noise: [..., D] float, extra leading axes allowed.

        Returns:
            [..., D] float within [low, high], action units.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the distribution's shape.
        """
        noise = _checks.as_floating("noise", noise)
        this = self._broadcast_like("noise", noise)
        return jnp.clip(this.loc + this._std * noise, this.low, this.high)

    def log_prob(self, action: Any) -> Array:
        """Compute the log-density of an action inside the box, and the log-mass of one at a bound.

        Args:
            action: [..., D] float, action units; extra leading axes allowed.

        Returns:
            [...] float, nats; −∞ outside the box, and inside it where scale is 0.

        Raises:
            TypeError: if action is not floating.
            ValueError: if action does not end with the distribution's shape.
        """
        action = _checks.as_floating("action", action)
        this = self._broadcast_like("action", action)
        std = jnp.maximum(this._std, jnp.finfo(action.dtype).tiny)
        inside = stats.norm.logpdf(action, this.loc, std)
        below, above = (stats.norm.logcdf(z / std) for z in (this.low - this.loc, this.loc - this.high))
        each = jnp.where(action == this.low, below, jnp.where(action == this.high, above, inside))
        return jnp.sum(jnp.where((action < this.low) | (action > this.high), -jnp.inf, each), axis=-1)

    def mode(self) -> Array:
        """Return the action without noise, within the box.

        Returns:
            [..., D] float, action units.
        """
        return jnp.clip(self.loc, self.low, self.high)


@validated_pytree
class WarmUp(Base):
    """Actions drawn uniformly while a flag is set, else those of another distribution.

    Nothing branches in Python, so that the length of the warm-up may be traced. Where the distribution holds its noise
    for several steps of a rollout, so does the warm-up: an action is then drawn once for all of them.

    Shapes: as the distribution: [..., D] in a box, or discrete.

    Args:
        random: [...] bool or scalar, whether actions are drawn uniformly.
        distribution: what acts afterwards: on a box any of this library, of discrete actions a Categorical.
        low: [..., D] float or scalar, lower bounds of the box, action units; None for discrete actions.
        high: [..., D] float or scalar, upper bounds of the box, action units; None for discrete actions.

    Raises:
        ValueError: if an argument does not broadcast to the shape of the distribution.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> policy = pg.exploration.Deterministic(jnp.ones(2))
        >>> act = lambda random: pg.exploration.WarmUp(random, policy, low=-2.0, high=2.0).sample(jax.random.key(0))
        >>> print(act(jnp.bool_(False)), bool((act(jnp.bool_(True)) != 1.0).all()))
        [1. 1.] True
    """

    random: Any
    distribution: Any
    low: Any = None
    high: Any = None

    def __post_init__(self) -> None:
        shape = self.distribution.shape
        batch = shape[: len(shape) - self.distribution.event_ndim]
        self._set(random=_checks.broadcast_to("random", jnp.asarray(self.random), batch, of="the distribution"))
        if self.low is not None:
            dtype = jax.tree.leaves(self.distribution)[0].dtype
            for name in ("low", "high"):
                bound = jnp.asarray(getattr(self, name), dtype)
                self._set(**{name: _checks.broadcast_to(name, bound, shape, of="the distribution")})

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the actions of one draw."""
        shape: tuple[int, ...] = self.distribution.shape
        return shape

    @property
    def event_ndim(self) -> int:  # type: ignore[override]
        """How many trailing axes of an action are summed over by log_prob: those of the distribution."""
        number: int = self.distribution.event_ndim
        return number

    @property
    def hold(self) -> int:
        """Steps of a rollout that share their noise: those of the distribution, also while actions are random."""
        steps: int = getattr(self.distribution, "hold", 1)
        return steps

    def base_noise(self, key: Array) -> Any:
        """Draw the noise of both: that of a uniform action, and that of the distribution.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            (noise of a uniform action, noise of the distribution).

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        uniform_key, key = jax.random.split(key)
        return self._uniform.base_noise(uniform_key), self.distribution.base_noise(key)

    def sample_from(self, noise: Any) -> Array:
        """Map both noises to the action of the one that acts.

        Args:
            noise: as from `base_noise`, extra leading axes allowed.

        Returns:
            The action.
        """
        uniform, own = noise
        random = self.random[..., None] if self.event_ndim else self.random
        mapped = self._uniform.sample_from(uniform), self.distribution.sample_from(own)
        return jnp.where(jnp.broadcast_to(random, mapped[0].shape), *mapped)

    def log_prob(self, action: Any) -> Array:
        """Compute the log-probability of an action under the one that acts.

        Args:
            action: of the distribution's shape, extra leading axes allowed.

        Returns:
            [...] float, nats.
        """
        each = self._uniform.log_prob(action), self.distribution.log_prob(action)
        return jnp.where(jnp.broadcast_to(self.random, each[0].shape), *each)

    def mode(self) -> Array:
        """Return the mode of the distribution, also while actions are random.

        Returns:
            The action.
        """
        mode: Array = self.distribution.mode()
        return mode

    @property
    def _uniform(self) -> Any:
        if self.low is None:
            return self.distribution.replace(logits=jnp.zeros_like(self.distribution.logits))
        return _Uniform(self.low, self.high)


@validated_pytree
class _Uniform(Base):
    """The uniform distribution on a box."""

    low: Array
    high: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.low.shape

    def base_noise(self, key: Array) -> Array:
        return jax.random.uniform(key, self.shape, self.low.dtype)

    def sample_from(self, noise: Any) -> Array:
        this = self._broadcast_like("noise", noise)
        return this.low + (this.high - this.low) * noise

    def log_prob(self, action: Any) -> Array:
        this = self._broadcast_like("action", action)
        inside = jnp.all((action >= this.low) & (action <= this.high), axis=-1)
        return jnp.where(inside, -jnp.sum(jnp.log(this.high - this.low), axis=-1), -jnp.inf)
