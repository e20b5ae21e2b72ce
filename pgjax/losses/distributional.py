"""Critics that predict a distribution of returns: over fixed atoms, by quantiles, or over bins.

The atoms, quantiles or bins are the last axis. An ensemble of critics is a leading axis, [E, ...].
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Transition
from pgjax.losses.action_value import reward_and_discount

Array = jax.Array

FARTHEST = 1e18
"""Distances in standard deviations count as at most this: all mass is in the end bin long before."""


@compiled()
def project_categorical(probs: Array, values: Array, *, atoms: Array) -> Array:
    """Project a distribution over any locations onto fixed atoms.

        m_i = Σ_j p_j h_i(clip(x_j, z_1, z_K))

    h_i is 1 at atom z_i, falls linearly to 0 at the atoms beside it, and is 0 beyond them: each location shares its
    mass between the two atoms around it, in proportion to its nearness.

    Shapes: probs, values [..., M]; atoms [K]; result [..., K].

    Args:
        probs: [..., M] float, the mass of each location.
        values: [..., M] float, reward units, the locations, in any order.
        atoms: [K] float, reward units, increasing; they need not be equally spaced.

    Returns:
        [..., K] float, the mass of each atom, differentiable in probs, and in values between the atoms.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if probs and values differ in shape, or atoms is no vector.

    Properties:
        Keeps the mass; keeps the mean where no location lies beyond the ends, and never lowers the variance there.
        What lies beyond an end goes to its atom. A location on an atom is one-hot. Time and memory O(M K).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> atoms = jnp.array([0.0, 1.0, 3.0])
        >>> print(pg.project_categorical(jnp.array([0.5, 0.5]), jnp.array([2.0, 9.0]), atoms=atoms))
        [0.   0.25 0.75]

    References:
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
    """
    probs = _checks.as_parameter("probs", probs, axes="[..., M]")
    values = _checks.as_floating("values", values)
    _checks.require_same_shape("probs", probs.shape, values=values)
    atoms = _as_vector("atoms", atoms)
    values, end = jnp.clip(values, atoms[0], atoms[-1]), jnp.ones_like(atoms[:1])
    # One row for each gap, [K - 1]: how far a location has come from its lower to its upper atom.
    gap, lower = _along_last(jnp.diff(atoms), values.ndim), _along_last(atoms[:-1], values.ndim)
    come = jnp.clip((values[..., None] - lower) / gap, 0.0, 1.0)
    edge = jnp.broadcast_to(_along_last(end, values.ndim), (*values.shape, 1))
    # Having reached atom i and not come on: the two atoms around a location get weights that sum to 1.
    reached, passed = jnp.concatenate([edge, come], -1), jnp.concatenate([come, 0.0 * edge], -1)
    return (probs[..., None] * (reached - passed)).sum(-2)


@compiled()
def categorical_target(transition: Transition, next_probs: Array, *, atoms: Array) -> Array:
    """Compute the distribution over atoms that a critic learns from a transition and the distribution after it.

        m = stop(projection of R + Γ z onto z),   z with the probabilities of next_obs

    Shapes: transition leaves [N, ...]; next_probs [..., N, K]; atoms [K]; result [..., N, K].

    Args:
        transition: `Transition`, of `fold` for instance; reward R [N], reward units, and discount Γ [N].
        next_probs: [..., N, K] float, the probabilities of the atoms at next_obs, for the action of the policy; leading
            axes are those of an ensemble.
        atoms: [K] float, reward units, increasing. They must hold the returns: their scale is that of the rewards.

    Returns:
        [..., N, K] float, probabilities, a constant; for `categorical_loss`.

    Raises:
        TypeError: if transition is no Transition, or an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Its mean is R + Γ V, that of `td_target`, where no atom is moved beyond the ends. All mass at R where Γ is 0,
        whatever next_probs is there. With several steps biased as `td_target` is.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> obs = jnp.zeros((1, 1))
        >>> row = pg.Transition(obs, obs, reward=jnp.ones(1), discount=jnp.full(1, 0.5), next_obs=obs)
        >>> print(pg.categorical_target(row, jnp.array([[0.5, 0.0, 0.5]]), atoms=jnp.array([0.0, 1.0, 2.0])))
        [[0.  0.5 0.5]]

    References:
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
        Barth-Maron et al. (2018), Distributed distributional deterministic policy gradients.
    """
    reward, weight = reward_and_discount(transition)
    atoms = _as_vector("atoms", atoms)
    next_probs = _checks.as_floating("next_probs", next_probs)
    shape = (*reward.shape, *atoms.shape)
    _checks.require_trailing_shape("next_probs", next_probs, shape, of="transition.reward and atoms")
    values = reward[..., None] + weight[..., None] * _along_last(atoms, reward.ndim)
    values, over = (jnp.broadcast_to(x, next_probs.shape) for x in (values, weight[..., None] == 0))
    # Where nothing follows, all locations are R, and the probabilities may be anything, also NaN.
    probs = jnp.where(over, 1.0 / atoms.size, next_probs)
    return jax.lax.stop_gradient(project_categorical(probs, values, atoms=atoms))


@compiled()
def categorical_loss(logits: Array, target_probs: Array) -> Array:
    """Compute the cross-entropy of a predicted distribution to a target.

        L = -Σ_i stop(m_i) log p_i,   p = softmax(logits)

    Shapes: logits [..., K]; target_probs [..., K]; result [...].

    Args:
        logits: [..., K] float, differentiable. It may have more leading axes than target_probs: those of an ensemble.
        target_probs: [..., K] float, probabilities, of `categorical_target` or `hl_gauss_target`; a constant here.

    Returns:
        [...] float, nats.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ, or target_probs has no axis of atoms.

    Properties:
        Its gradient is p - m. Least at p = m, where it is the entropy of the target; the divergence KL(m ‖ p) differs
        from it by that constant. Target probabilities of 0 add nothing, even where p is 0 too.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> print(jax.grad(pg.categorical_loss)(jnp.zeros(2), jnp.array([1.0, 0.0])))
        [-0.5  0.5]

    References:
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
    """
    target_probs = _checks.as_parameter("target_probs", target_probs, axes="[..., K]")
    logits = _checks.as_floating("logits", logits)
    _checks.require_trailing_shape("logits", logits, target_probs.shape, of="target_probs")
    target = jax.lax.stop_gradient(jnp.broadcast_to(target_probs, logits.shape))
    log_probs = jnp.where(target == 0, 0.0, jax.nn.log_softmax(logits))
    return -(target * log_probs).sum(-1)


@compiled()
def categorical_value(logits: Array, *, atoms: Array) -> Array:
    """Compute the mean of a predicted distribution.

        V = Σ_i z_i p_i,   p = softmax(logits)

    Shapes: logits [..., K]; atoms [K]; result [...].

    Args:
        logits: [..., K] float, differentiable.
        atoms: [K] float, reward units; for `hl_gauss_target` the middles of the bins.

    Returns:
        [...] float, reward units: the action value that a policy maximises in D4PG.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if logits does not end with the shape of atoms.

    Properties:
        Lies between the first and the last atom: a return beyond them cannot be predicted.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.categorical_value(jnp.zeros(3), atoms=jnp.array([0.0, 1.0, 5.0])))
        2.0

    References:
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
        Barth-Maron et al. (2018), Distributed distributional deterministic policy gradients.
    """
    atoms = _as_vector("atoms", atoms)
    logits = _checks.as_floating("logits", logits)
    _checks.require_trailing_shape("logits", logits, atoms.shape, of="atoms")
    return (jax.nn.softmax(logits) * _along_last(atoms, logits.ndim - 1)).sum(-1)


@compiled()
def quantile_loss(quantiles: Array, target: Array, *, kappa: Array | float = 1.0) -> Array:
    """Compute the quantile regression loss of predicted quantiles against samples of the target.

        L = Σ_i mean_j |τ_i - 1[u_ij < 0]| H(u_ij) / κ,   u_ij = stop(y_j) - θ_i,   τ_i = (2 i - 1) / (2 K)
        H(u) = ½ u² where |u| <= κ, κ (|u| - ½ κ) beyond;   H(u) / κ = |u| for κ = 0

    Shapes: quantiles [..., K]; target [..., M]; result [...].

    Args:
        quantiles: [..., K] float, reward units, predictions θ of the quantiles at τ, in that order; differentiable. It
            may have more leading axes than target: those of an ensemble.
        target: [..., M] float, reward units, samples y in any order, for instance R + Γ times the quantiles at
            next_obs; a constant here.
        kappa: κ >= 0, reward units, scalar: within it errors are squared; 0 is plain quantile regression.

    Returns:
        [...] float, reward units: summed over quantiles, averaged over the samples.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if the batch axes differ, or kappa is no scalar.

    Properties:
        With κ = 0 least where each θ_i is a quantile of the samples at τ_i; the mean of the quantiles then tends to
        that of the samples as K grows. With κ > 0 it is least at quantiles that are drawn towards the mean. The slope
        in each θ is at most 1; a sample that equals θ adds none.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.quantile_loss(jnp.zeros(2), jnp.array([4.0, -4.0]), kappa=0.0))
        4.0

    References:
        Dabney, Rowland, Bellemare and Munos (2018), Distributional reinforcement learning with quantile regression.
    """
    quantiles = _checks.as_parameter("quantiles", quantiles, axes="[..., K]")
    target = jax.lax.stop_gradient(_checks.as_parameter("target", target, axes="[..., M]"))
    _checks.require_trailing_shape(
        "the batch of quantiles", quantiles[..., 0], target.shape[:-1], of="target without its last axis"
    )
    kappa = jnp.maximum(_checks.as_scalar_or_shape("kappa", kappa, ()), 0.0)
    target = jnp.broadcast_to(target, (*quantiles.shape[:-1], target.shape[-1]))
    error = target[..., None, :] - quantiles[..., :, None]
    size = jnp.abs(error)
    squared = 0.5 * jnp.square(size) / jnp.where(kappa > 0, kappa, 1.0)
    huber = jnp.where(size <= kappa, squared, size - 0.5 * kappa)
    count = quantiles.shape[-1]
    levels = ((jnp.arange(count) + 0.5) / count).astype(quantiles.dtype)
    side = jnp.abs(_along_last(levels, quantiles.ndim - 1)[..., None] - (error < 0))
    return (side * huber).mean(-1).sum(-1)


@compiled()
def hl_gauss_target(target: Array, *, edges: Array, sigma: Array | float) -> Array:
    """Compute probabilities of bins under a normal around a number: regression by classification.

        p_k = [Φ((e_{k+1} - y) / σ) - Φ((e_k - y) / σ)] / [Φ((e_{K+1} - y) / σ) - Φ((e_1 - y) / σ)]

    Shapes: target [...]; edges [K + 1]; result [..., K].

    Args:
        target: [...] float, reward units, y, for instance of `td_target`.
        edges: [K + 1] float, reward units, increasing: the bins lie between them.
        sigma: σ > 0, reward units, scalar; 0.75 times the width of a bin is common.

    Returns:
        [..., K] float, probabilities, a constant; for `categorical_loss`.

    Raises:
        TypeError: if target or edges is not floating.
        ValueError: if edges is no vector of at least two, or sigma is no scalar.

    Properties:
        Sums to 1. A number beyond the edges is that of the truncated normal still, which gathers in the end bin; so
        does an infinite one. `categorical_value` with the middles of the bins as atoms gives y back nearly: for bins
        of width w and y some σ inside the edges the error is at most about (w / π) exp(-2 π² σ² / w²).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.hl_gauss_target(jnp.array([0.5, 1e9]), edges=jnp.array([0.0, 1.0, 2.0]), sigma=0.05))
        [[1. 0.]
         [0. 1.]]

    References:
        Imani and White (2018), Improving regression performance with distributional losses.
        Farebrother et al. (2024), Stop regressing: training value functions via classification for scalable deep RL.
    """
    target = _checks.as_floating("target", target)
    edges = _as_vector("edges", edges, at_least=2)
    sigma = _checks.as_scalar_or_shape("sigma", sigma, ())
    y, ends = target[..., None], _along_last(edges, target.ndim)
    below = jax.scipy.special.ndtr((ends - y) / sigma)
    inside = jnp.diff(below) / (below[..., -1:] - below[..., :1])
    # Outside, both differences vanish. What counts is the tail beyond each edge relative to that beyond the nearest,
    # P(x > d + o) / P(x > d) = exp(-o (d + o / 2)) M(d + o) / M(d), with Mills's ratio M = P(x > .) / density.
    above = y > edges[-1]
    distance = jnp.clip(jnp.where(above, y - edges[-1], edges[0] - y) / sigma, 0.0, FARTHEST)
    offset = jnp.where(above, edges[-1] - ends, ends - edges[0]) / sigma
    tail = jnp.exp(-offset * (distance + 0.5 * offset)) * _mills(distance + offset) / _mills(distance)
    outside = jnp.abs(jnp.diff(tail)) / jnp.abs(tail[..., -1:] - tail[..., :1])
    return jax.lax.stop_gradient(jnp.where(above | (y < edges[0]), outside, inside))


def _mills(x: Array) -> Array:
    """Return (1 - Φ(x)) / φ(x) for x >= 0, where neither of the two can be formed far out."""
    near, far = jnp.minimum(x, 3.0), jnp.maximum(x, 3.0)
    fraction = far
    for n in range(30, 0, -1):  # Laplace's continued fraction, exact in float64 from 3 on
        fraction = far + n / fraction
    density = jnp.exp(-0.5 * jnp.square(near)) / jnp.sqrt(2.0 * jnp.pi)
    return jnp.where(x < 3.0, jax.scipy.special.ndtr(-near) / density, 1.0 / fraction)


def _as_vector(name: str, x: Array, *, at_least: int = 1) -> Array:
    """Return x as a floating vector of at least so many entries."""
    array = _checks.as_floating(name, x)
    if array.ndim != 1 or array.size < at_least:
        raise ValueError(
            f"{name} must be a vector of at least {at_least} increasing numbers, got shape {list(array.shape)}. "
            "Make it with jnp.linspace."
        )
    return array


def _along_last(x: Array, ndim: int) -> Array:
    """Return a vector as the last axis after `ndim` axes of size 1."""
    return x.reshape((1,) * ndim + x.shape)
