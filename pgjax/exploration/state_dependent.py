"""Generalised state-dependent exploration: noise that is a function of the state for several steps."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._pytree import static, validated_pytree
from pgjax.distributions import Normal, TanhNormal
from pgjax.distributions._base import Base, companion

Array = jax.Array


@validated_pytree
class StateDependentNormal(Base):
    """A normal whose noise is a linear function of features of the state, drawn anew only now and then.

        a_j = loc_j + Σ_i φ_i deviation_ij E_ij,   E_ij ~ N(0, 1)
        a_j ~ N(loc_j, scale_j²),   scale_j² = Σ_i (φ_i deviation_ij)²

    A rollout draws one matrix E for each environment and holds it for `hold` steps: within them the same state always
    leads to the same action, and what is done changes smoothly from state to state. Log-probability, entropy and
    divergence are those of the second line, of each action by itself, so that every estimator for a `Normal` takes
    this one as it is.

    Shapes: loc [..., D]; features [..., F]; deviation [..., F, D]; actions [..., D] float; noise [..., F, D].

    Noise: one standard normal number for each feature and component; samples carry gradients to loc, features and
    deviation.

    Args:
        loc: [..., D] float, the means, action units.
        features: [..., F] float, φ of the state. Where all are 0 there is no noise and no density. Stop their
            gradient to let the noise shape the deviations alone.
        deviation: [..., F, D] float, the standard deviation of each weight of the noise, broadcast to the batch axes of
            loc. It must be positive: that is not checked.
        hold: steps of a rollout that share a matrix; each window begins with a new one. Static.

    Raises:
        TypeError: if an argument is not floating, or hold is not an int.
        ValueError: if loc or features have no axis, an argument does not broadcast to the others, or hold < 1.

    Properties:
        Cov(a_t, a_u) = Σ_i φ_i(t) φ_i(u) deviation_i² for two steps that share a matrix, 0 for others. Where actions
        are drawn one at a time, as `sample` and `evaluate` do, each has a matrix of its own. A rollout holds T·B·F·D
        numbers of noise while it runs.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> policy = pg.exploration.StateDependentNormal(
        ...     jnp.zeros((3, 1)), jnp.ones((3, 4)), jnp.full((4, 1), 0.5), hold=2)
        >>> noise = pg.distributions.draw_noise(policy, jax.random.key(0), num_draws=4)
        >>> steps = [policy.sample_from(noise[t]) for t in range(4)]
        >>> print(policy.scale[0], bool((steps[0] == steps[1]).all()), bool((steps[1] == steps[2]).any()))
        [1.] True False

    References:
        Raffin, Kober and Stulp (2021), Smooth exploration for robotic reinforcement learning.
        Rückstieß, Felder and Schmidhuber (2008), State-dependent exploration for policy gradient methods.
    """

    loc: Array
    features: Array
    deviation: Array
    hold: int = static(default=1)

    def __post_init__(self) -> None:
        loc = _checks.as_parameter("loc", self.loc)
        features = _checks.as_parameter("features", self.features, axes="[..., F]")
        deviation = _checks.as_floating("deviation", self.deviation)
        shape = (*loc.shape[:-1], features.shape[-1])
        self._set(
            loc=loc,
            features=_checks.broadcast_to("features", features, shape, of="loc, with the axis of features"),
            deviation=_checks.broadcast_to("deviation", deviation, (*shape, loc.shape[-1]), of="features and loc"),
            hold=_checks.as_positive_int("hold", self.hold),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """[..., D], the shape of the actions of one draw."""
        return self.loc.shape

    @property
    def scale(self) -> Array:
        """[..., D], the standard deviation of each component of one action."""
        return jnp.sqrt(jnp.sum(jnp.square(self._weights), axis=-2))

    @property
    def marginal(self) -> Any:
        """The law of one action by itself."""
        return Normal(self.loc, self.scale)

    def base_noise(self, key: Array) -> Array:
        """Draw a matrix of standard normal numbers for each row.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [..., F, D] float.

        Raises:
            TypeError: by JAX, if key is not a random key.
        """
        return jax.random.normal(key, self.deviation.shape, self.loc.dtype)

    def sample_from(self, noise: Any) -> Array:
        """Map matrices of standard normal numbers to the action.

        Args:
            noise: [..., F, D] float, extra leading axes allowed.

        Returns:
            [..., D] float, action units; differentiable in loc, features, deviation and noise.

        Raises:
            TypeError: if noise is not floating.
            ValueError: if noise does not end with the shape of deviation.
        """
        noise = _checks.as_floating("noise", noise)
        _checks.require_trailing_shape("noise", noise, self.deviation.shape, of="deviation")
        this = self._lifted(noise.shape[: noise.ndim - self.deviation.ndim])
        return this.loc + jnp.sum(this._weights * noise, axis=-2)

    def log_prob(self, action: Any) -> Array:
        """Compute the log-density of one action by itself.

        Args:
            action: [..., D] float, action units; extra leading axes allowed.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if action is not floating.
            ValueError: if action does not end with the distribution's shape.
        """
        log_prob: Array = self.marginal.log_prob(action)
        return log_prob

    def entropy(self) -> Array:
        """Compute the differential entropy of one action by itself.

        Returns:
            [...] float, nats.
        """
        entropy: Array = self.marginal.entropy()
        return entropy

    def mode(self) -> Array:
        """Return the action without noise.

        Returns:
            [..., D] float, action units.
        """
        mode: Array = self.marginal.mode()
        return mode

    def kl_divergence(self, other: "StateDependentNormal") -> Array:
        """Compute KL(self || other) of one action by itself.

        Args:
            other: of the same class and shape, or of its last axes; its features may be others.

        Returns:
            [...] float, nats.

        Raises:
            TypeError: if other is of another class.
            ValueError: if its shape differs.
        """
        divergence: Array = self.marginal.kl_divergence(self._compared(other).marginal)
        return divergence

    def tempered(self, temperature: Array | float) -> Self:
        """Flatten by a temperature above 1: the law of one action by itself is that of a tempered normal.

        Args:
            temperature: τ, positive, dimensionless.

        Returns:
            The distribution with deviation √τ.
        """
        return dataclasses.replace(self, deviation=self.deviation * temperature**0.5)

    @property
    def _weights(self) -> Array:
        return self.features[..., None] * self.deviation


@validated_pytree
class StateDependentTanhNormal(StateDependentNormal):
    """A `StateDependentNormal` squashed by tanh into the box from low to high.

        u_j = loc_j + Σ_i φ_i deviation_ij E_ij,   a = low + (high − low) (1 + tanh u) / 2

    Log-probability, entropy and divergence are those of the `TanhNormal` of one action by itself. What it did before
    squashing is kept as `trajectory.raw_action`.

    Shapes: loc, low, high [..., D]; features [..., F]; deviation [..., F, D]; actions [..., D]; noise [..., F, D].

    Args:
        loc: as of `StateDependentNormal`, before squashing, like the next three.
        features: φ of the state.
        deviation: the standard deviation of each weight of the noise.
        hold: steps of a rollout that share a matrix. Static.
        low: [..., D] float or scalar, lower bounds, action units.
        high: [..., D] float or scalar, upper bounds, action units.

    Raises:
        TypeError: as `StateDependentNormal`.
        ValueError: as `StateDependentNormal`, or if a bound does not broadcast to loc.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> policy = pg.exploration.StateDependentTanhNormal(
        ...     jnp.zeros(1), jnp.ones(4), jnp.ones((4, 1)), low=-2.0, high=2.0)
        >>> print(policy.mode(), abs(policy.squash(jnp.array([50.0]))))
        [0.] [2.]
    """

    low: Array | float = -1.0
    high: Array | float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(**{name: companion(name, getattr(self, name), self.loc, of="loc") for name in ("low", "high")})

    @property
    def marginal(self) -> TanhNormal:
        """The law of one action by itself."""
        return TanhNormal(self.loc, self.scale, self.low, self.high)

    def raw_from(self, noise: Any) -> Array:
        """Map matrices of standard normal numbers to the action before squashing.

        Args:
            noise: [..., F, D] float, extra leading axes allowed.

        Returns:
            [..., D] float, u.
        """
        return super().sample_from(noise)

    def sample_raw(self, key: Array) -> Array:
        """Draw the action before squashing.

        Args:
            key: a JAX random key; it is consumed.

        Returns:
            [..., D] float, u.
        """
        return self.raw_from(self.base_noise(key))

    def squash(self, raw: Any) -> Array:
        """Map an action before squashing to the action.

        Args:
            raw: [..., D] float, u.

        Returns:
            [..., D] float within [low, high], action units.
        """
        return self.marginal.squash(raw)

    def sample_from(self, noise: Any) -> Array:
        """Map matrices of standard normal numbers to the action.

        Args:
            noise: [..., F, D] float, extra leading axes allowed.

        Returns:
            [..., D] float within [low, high], action units.
        """
        return self.squash(self.raw_from(noise))

    def log_prob_raw(self, raw: Any) -> Array:
        """Compute the log-density of the action squash(u), given u; exact and finite at any u.

        Args:
            raw: [..., D] float, u; extra leading axes allowed.

        Returns:
            [...] float, nats per action unit.
        """
        return self.marginal.log_prob_raw(raw)
