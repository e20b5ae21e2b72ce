"""Heads: what turns features into a distribution over actions."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, TanhNormal
from pgjax.exploration import Deterministic, HeldCategorical, StateDependentNormal, StateDependentTanhNormal
from pgjax.networks.layers import Head

Array = jax.Array
Bound = float | tuple[float, ...]


class DiscretePolicy(nn.Module):
    """A head that gives a distribution over discrete actions.

    Shapes: [..., F] -> Categorical [..., num_actions], or MultiCategorical for a tuple of numbers.

    Args:
        num_actions: number of actions, or one number for each component of the action.
        scale: gain of the initialisation.
        hold: steps of a rollout that share their noise, see `HeldCategorical`; for one component.
    """

    num_actions: int | tuple[int, ...]
    scale: float = 0.01
    hold: int = 1

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Categorical | MultiCategorical:
        """Return the distribution for features x, [..., F]; mask, [..., num_actions] bool, is for one component."""
        if isinstance(self.num_actions, int):
            logits = Head(self.num_actions, self.scale)(x)
            return Categorical(logits, mask) if self.hold == 1 else HeldCategorical(logits, mask, self.hold)
        if self.hold != 1:
            raise ValueError(f"hold is only defined for a single number of actions, got {self.hold}. Pass hold=1.")
        if mask is not None:
            raise ValueError("mask is only defined for a single number of actions, got several. Pass mask=None.")
        return MultiCategorical([Head(n, self.scale)(x) for n in self.num_actions])


class BernoulliPolicy(nn.Module):
    """A head that gives independent yes-or-no choices.

    Shapes: [..., F] -> Bernoulli [..., action_dim].

    Args:
        action_dim: number of components of the action.
        scale: gain of the initialisation.
    """

    action_dim: int
    scale: float = 0.01

    @nn.compact
    def __call__(self, x: Array) -> Bernoulli:
        """Return the distribution for features x, [..., F]."""
        return Bernoulli(Head(self.action_dim, self.scale)(x))


class GaussianPolicy(nn.Module):
    """A head that gives a Normal whose scale does not depend on the observation.

        loc = centre + half · f(x),   scale = half · exp(log_std),   of the box from low to high

    The box sets the units alone, so that components of different widths learn at the same pace: the Normal reaches
    beyond it. What becomes of an action out there is up to the environment. The standard box, from -1 to 1, leaves
    everything as it is.

    Shapes: [..., F] -> Normal [..., action_dim].

    Args:
        action_dim: number of components of the action.
        init_log_std: the logarithm of the scale at the start, in units of half the width of the box.
        scale: gain of the initialisation of the mean.
        low: lower bounds of the box, one number or one for each component.
        high: upper bounds.
    """

    action_dim: int
    init_log_std: float = 0.0
    scale: float = 0.01
    low: Bound = -1.0
    high: Bound = 1.0

    @nn.compact
    def __call__(self, x: Array) -> Normal:
        """Return the distribution for features x, [..., F]."""
        loc = Head(self.action_dim, self.scale)(x)
        log_std = self.param("log_std", nn.initializers.constant(self.init_log_std), (self.action_dim,), jnp.float32)
        low, high = (jnp.broadcast_to(_bound(bound), loc.shape) for bound in (self.low, self.high))
        half = 0.5 * (high - low)
        return Normal(0.5 * (low + high) + half * loc, half * jnp.broadcast_to(jnp.exp(log_std), loc.shape))


class TanhGaussianPolicy(nn.Module):
    """A head that gives a TanhNormal on a box; mean and scale depend on the observation.

    The logarithm of the scale is kept between two numbers by a logistic function, not by clipping, so that
    its gradient never vanishes altogether.

    Shapes: [..., F] -> TanhNormal [..., action_dim].

    Args:
        action_dim: number of components of the action.
        low: lower bounds of the action, one number or one for each component.
        high: upper bounds.
        init_log_std: the logarithm of the scale at the start, strictly between the next two.
        min_log_std: its least value.
        max_log_std: its greatest value.
        scale: gain of the initialisation.
    """

    action_dim: int
    low: Bound = -1.0
    high: Bound = 1.0
    init_log_std: float = 0.0
    min_log_std: float = -5.0
    max_log_std: float = 2.0
    scale: float = 0.01

    @nn.compact
    def __call__(self, x: Array) -> TanhNormal:
        """Return the distribution for features x, [..., F]."""
        loc, free = jnp.split(Head(2 * self.action_dim, self.scale)(x), 2, axis=-1)
        start = math.log((self.init_log_std - self.min_log_std) / (self.max_log_std - self.init_log_std))
        log_std = self.min_log_std + (self.max_log_std - self.min_log_std) * jax.nn.sigmoid(free + start)
        return TanhNormal(loc, jnp.exp(log_std), low=_bound(self.low), high=_bound(self.high))


class StateDependentPolicy(nn.Module):
    """A head of generalised state-dependent exploration: its noise is a function of the features for several steps.

        a = centre + half · (f(x) + Eᵀ φ),   E_ij ~ N(0, exp(log_std_ij)²),   φ = (x, 1),   of the box from low to high

    The matrix E is held for several steps of a rollout, see `StateDependentNormal`. The 1 among the features keeps some
    noise where all others are 0. As for `GaussianPolicy` the box sets the units alone, unless the actions are squashed.

    Shapes: [..., F] -> StateDependentNormal [..., action_dim], or StateDependentTanhNormal where squash.

    Args:
        action_dim: number of components of the action.
        hold: steps of a rollout that share a matrix.
        init_log_std: the logarithm of the deviation of each weight at the start, in units of half the width of the box.
        learn_features: whether the gradient of the scale reaches what is before the head.
        squash: whether tanh keeps the actions in the box; then mean and deviations are those before squashing.
        scale: gain of the initialisation of the mean.
        low: lower bounds of the box, one number or one for each component.
        high: upper bounds.
    """

    action_dim: int
    hold: int = 8
    init_log_std: float = -2.0
    learn_features: bool = False
    squash: bool = False
    scale: float = 0.01
    low: Bound = -1.0
    high: Bound = 1.0

    @nn.compact
    def __call__(self, x: Array) -> StateDependentNormal:
        """Return the distribution for features x, [..., F]."""
        x = x.astype(jnp.float32)
        loc = Head(self.action_dim, self.scale)(x)
        features = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)
        features = features if self.learn_features else jax.lax.stop_gradient(features)
        shape = (features.shape[-1], self.action_dim)
        deviation = jnp.exp(self.param("log_std", nn.initializers.constant(self.init_log_std), shape, jnp.float32))
        low, high = _bound(self.low), _bound(self.high)
        if self.squash:
            return StateDependentTanhNormal(loc, features, deviation, self.hold, low, high)
        centre, half = 0.5 * (low + high), 0.5 * (high - low)
        deviation = jnp.broadcast_to(half, shape) * deviation
        centre, half = (jnp.broadcast_to(x, loc.shape) for x in (centre, half))
        return StateDependentNormal(centre + half * loc, features, deviation, self.hold)


class DeterministicPolicy(nn.Module):
    """A head that gives one action in a box, without noise.

        a = centre + half · tanh(f(x)),   of the box from low to high

    Shapes: [..., F] -> Deterministic [..., action_dim].

    Args:
        action_dim: number of components of the action.
        low: lower bounds of the action, one number or one for each component.
        high: upper bounds.
        scale: gain of the initialisation.
    """

    action_dim: int
    low: Bound = -1.0
    high: Bound = 1.0
    scale: float = 0.01

    @nn.compact
    def __call__(self, x: Array) -> Deterministic:
        """Return the action for features x, [..., F]."""
        free = Head(self.action_dim, self.scale)(x)
        low, high = (jnp.broadcast_to(_bound(bound), free.shape) for bound in (self.low, self.high))
        # Rounding may lead past a bound by one unit in the last place; environments assert their bounds.
        return Deterministic(jnp.clip(0.5 * (low + high) + 0.5 * (high - low) * jnp.tanh(free), low, high))


class BetaPolicy(nn.Module):
    """A head that gives a Beta on a box, with one peak: both parameters are 1 + softplus.

    Shapes: [..., F] -> Beta [..., action_dim].

    Args:
        action_dim: number of components of the action.
        low: lower bounds of the action, one number or one for each component.
        high: upper bounds.
        scale: gain of the initialisation.
    """

    action_dim: int
    low: Bound = 0.0
    high: Bound = 1.0
    scale: float = 0.01

    @nn.compact
    def __call__(self, x: Array) -> Beta:
        """Return the distribution for features x, [..., F]."""
        alpha, beta = jnp.split(1.0 + jax.nn.softplus(Head(2 * self.action_dim, self.scale)(x)), 2, axis=-1)
        return Beta(alpha, beta, low=_bound(self.low), high=_bound(self.high))


def _bound(x: Bound) -> Array:
    return jnp.asarray(x, jnp.float32)
