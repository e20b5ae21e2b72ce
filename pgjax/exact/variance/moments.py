"""Exact mean and covariance of estimators that are one backward pass, for any horizon, without enumeration.

Nearly every estimator of a policy gradient from one trajectory is a pair of affine recurrences,

    A_t = δ + c A_{t+1}                       a scalar: the advantage or the return
    Y_t = score (e + f A_{t+1}) + k Y_{t+1}   a vector: what the steps from t on contribute

whose coefficients depend on (s_t, a_t, s_{t+1}). Its first and second moments, given the state, obey
linear equations, which are iterated H times with a horizon and solved without one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax._compile import compiled
from pgjax.exact.spectrum import spectral_radius
from pgjax.exact.tabular._equations import identity_minus, reachable, running_visitation
from pgjax.exact.tabular.horizon import visitation_over_time
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


@struct.dataclass
class AffinePair:
    """The coefficients of an estimator A_t = δ + c A_{t+1}, Y_t = score (e + f A_{t+1}) + k Y_{t+1}.

    Shapes: behaviour [S, A]; score [S, A, P]; delta, carry, offset, slope, decay [S, A, S]. If the process has a
    horizon, the coefficients start with a time axis [H], and the score may. `gpomdp_pair` and others build them.

    Args:
        behaviour: [S, A] float, the policy that collects the data.
        score: [S, A, P] float, or [H, S, A, P], the direction of the contribution of a step.
        delta: [S, A, S] float, δ, what a step adds to the advantage, reward units.
        carry: [S, A, S] float, c, the factor of the next advantage.
        offset: [S, A, S] float, e, what a step contributes by itself, reward units.
        slope: [S, A, S] float, f, the factor of the next advantage in the contribution.
        decay: [S, A, S] float, k, the factor of the contributions of later steps.

    Returns:
        A frozen pytree.
    """

    behaviour: Array
    score: Array
    delta: Array
    carry: Array
    offset: Array
    slope: Array
    decay: Array


@struct.dataclass
class Moments:
    """The exact mean and covariance of an estimator, from one trajectory.

    Shapes: mean [P]; covariance [P, P].

    Args:
        mean: [P] float, an ascent direction.
        covariance: [P, P] float; that of a mean over B independent trajectories is 1 / B of it.

    Returns:
        A frozen pytree.
    """

    mean: Array
    covariance: Array

    @property
    def trace(self) -> Array:
        """Scalar float: the trace of the covariance, the expected squared distance from the mean."""
        return jnp.trace(self.covariance)


def _equations(
    joint: Array, pair: AffinePair, trace: bool
) -> tuple[list[Array], Callable[[Array, Array, Array, Array, Any], list[Array]]]:
    """The equations m_i = source_i(m) + K_i m_i of the moments (A, Y, AA, AY, YY), with their kernels K.

    Source i only depends on moments before i. With ``trace``, YY stands for its trace.
    """
    delta, carry, offset, slope, decay = pair.delta, pair.carry, pair.offset, pair.slope, pair.decay
    score = pair.score

    def onto(x: Array, after: Array) -> Array:
        """Σ_s' of joint weight, coefficient and a moment of s', for each (s, a)."""
        return jnp.einsum("sau,u...->sa...", joint * x, after)

    def over(x: Array) -> Array:
        return jnp.einsum("sau->sa", joint * x)

    def kernel(x: Array) -> Array:
        return jnp.einsum("sau->su", joint * x)

    def outer(x: Array, y: Array) -> Array:
        return jnp.einsum("sap,sap->s", x, y) if trace else jnp.einsum("sap,saq->spq", x, y)

    def sources(a: Array, y: Array, aa: Array, ay: Array, _: Array) -> list[Array]:
        mean = over(offset) + onto(slope, a)
        mixed = over(delta * offset) + onto(delta * slope + carry * offset, a) + onto(carry * slope, aa)
        square = over(offset**2) + onto(2 * offset * slope, a) + onto(slope**2, aa)
        cross = outer(score, onto(decay * offset, y) + onto(decay * slope, ay))
        return [
            over(delta).sum(1),
            jnp.einsum("sap,sa->sp", score, mean),
            (over(delta**2) + onto(2 * delta * carry, a)).sum(1),
            jnp.einsum("sap,sa->sp", score, mixed) + onto(decay * delta, y).sum(1),
            outer(score * square[..., None], score) + (2 * cross if trace else cross + jnp.swapaxes(cross, 1, 2)),
        ]

    return [kernel(x) for x in (carry, decay, carry**2, decay * carry, decay**2)], sources


def _joint(mdp: TabularMDP, pair: AffinePair) -> Array:
    """Pr(a, s' | s) of the collecting policy; zero in terminal states, where nothing more happens."""
    joint = pair.behaviour[:, :, None] * mdp.transition
    return jnp.where(terminal_states(mdp)[:, None, None], 0.0, joint)


def _zeros(mdp: TabularMDP, pair: AffinePair, trace: bool) -> list[Array]:
    states, params = mdp.num_states, pair.score.shape[-1]
    matrix = (states,) if trace else (states, params, params)
    shapes: list[tuple[int, ...]] = [(states,), (states, params), (states,), (states, params), matrix]
    return [jnp.zeros(shape, pair.delta.dtype) for shape in shapes]


def _coefficients(pair: AffinePair) -> dict[str, Array]:
    """What changes from step to step with a horizon."""
    names = ["delta", "carry", "offset", "slope", "decay"] + ["score"] * (pair.score.ndim == 4)
    return {name: getattr(pair, name) for name in names}


def _state_moments(mdp: TabularMDP, pair: AffinePair, trace: bool) -> list[Array]:
    """Moments given the state: [S, ...]; given the state and the time, [H, S, ...], with a horizon."""
    joint, moments = _joint(mdp, pair), _zeros(mdp, pair, trace)
    if mdp.horizon is not None:

        def step(after: list[Array], coefficients: dict[str, Array]) -> tuple[list[Array], list[Array]]:
            kernels, sources = _equations(joint, dataclasses.replace(pair, **coefficients), trace)
            ahead = [jnp.einsum("su,u...->s...", k, m) for k, m in zip(kernels, after, strict=True)]
            now = [source + m for source, m in zip(sources(*after), ahead, strict=True)]
            return now, now

        return jax.lax.scan(step, moments, _coefficients(pair), length=mdp.horizon, reverse=True)[1]
    kernels, sources = _equations(joint, pair, trace)
    for i, kernel in enumerate(kernels):
        source = sources(*moments)[i]
        flat = jnp.linalg.solve(identity_minus(kernel), source.reshape(mdp.num_states, -1))
        moments[i] = flat.reshape(source.shape)
    return moments


def _exist(mdp: TabularMDP, pair: AffinePair) -> tuple[Array, Array]:
    """Whether the mean and the variance are finite: the radii of their kernels, on states that are reached."""
    if mdp.horizon is not None:
        return jnp.asarray(True), jnp.asarray(True)
    joint = _joint(mdp, pair)
    reached = jnp.any(reachable(joint.sum(1)) & (mdp.initial > 0)[:, None], axis=0)
    joint = jnp.where(reached[:, None, None], joint, 0.0)
    kernels, _ = _equations(joint, pair, True)
    bound = 1.0 - 1e3 * jnp.finfo(joint.dtype).eps  # a radius of one is rounded to either side
    stable = jax.vmap(spectral_radius)(jnp.stack(kernels)) < bound
    # Where no contribution contains the advantage of later steps, its moments need not exist.
    unused = jnp.all(jnp.where(joint > 0, pair.slope, 0.0) == 0.0)
    return stable[1] & (stable[0] | unused), stable[4] & (stable[2] | unused)


def _totals(mdp: TabularMDP, pair: AffinePair, trace: bool) -> tuple[Array, Array]:
    moments = _state_moments(mdp, pair, trace)
    first, second = (moments[i] if mdp.horizon is None else moments[i][0] for i in (1, 4))
    has_mean, has_variance = _exist(mdp, pair)
    mean = jnp.tensordot(mdp.initial, first, 1)
    second = jnp.tensordot(mdp.initial, second, 1)
    spread = second - (mean @ mean if trace else jnp.outer(mean, mean))
    return jnp.where(has_mean, mean, jnp.nan), jnp.where(has_mean & has_variance, spread, jnp.inf)


@compiled()
def pair_moments(mdp: TabularMDP, pair: AffinePair) -> Moments:
    """Compute the exact mean and covariance of an estimator from one trajectory.

        m_A  = Σ M (δ + c m_A')              m_Y  = Σ M [score (e + f m_A') + k m_Y']
        m_AA = Σ M (δ² + 2 δ c m_A' + c² m_AA'),  and likewise m_AY and m_YY;  M = μ(a | s) P(s' | s, a)
        mean = μ_0 m_Y,  covariance = μ_0 m_YY - mean meanᵀ

    Shapes: result [P] and [P, P].

    Args:
        mdp: the process, a `TabularMDP`; with a horizon the equations are iterated H times, without one solved.
        pair: the coefficients of the estimator.

    Returns:
        Moments. The covariance is infinite where a spectral radius of the equations of the second moments reaches
        one, and the mean is NaN where one of the first moments does; the linear equations then still have a
        solution, which is not the moment.

    Properties:
        Differentiable in the coefficients. Memory O(S P²).
    """
    return Moments(*_totals(mdp, pair, False))


@compiled()
def pair_variance(mdp: TabularMDP, pair: AffinePair) -> Array:
    """Compute the exact trace of the covariance of an estimator from one trajectory, without the matrix.

        tr Cov = μ_0 tr m_YY - ‖mean‖²

    Shapes: result scalar.

    Args:
        mdp, pair: as for `pair_moments`.

    Returns:
        Scalar float; infinite where a spectral radius of the equations reaches one.

    Properties:
        Differentiable in the coefficients. Memory O(S P).
    """
    return _totals(mdp, pair, True)[1]


@struct.dataclass
class VarianceSplit:
    """The variance of the contribution of one step, split by where it comes from.

    Shapes: state, action, trajectory scalar.

    Args:
        state: scalar, variance over states of the mean given the state.
        action: scalar, mean over states of the variance over actions of the mean given both: the part that a baseline
            changes.
        trajectory: scalar, mean over states and actions of the variance over what follows.

    Returns:
        A frozen pytree.
    """

    state: Array
    action: Array
    trajectory: Array


@compiled()
def variance_split(mdp: TabularMDP, pair: AffinePair) -> VarianceSplit:
    """Split the variance of the contribution of one step, drawn with its discounted weight, into three terms.

        Var X = E Var(X | s, a) + E_s Var_a E(X | s, a) + Var_s E(X | s),   X = score (e + f A_{t+1})

    Shapes: result scalars.

    Args:
        mdp, pair: as for `pair_moments`; the decay is not used.

    Returns:
        VarianceSplit; the sum of its terms is the trace of the covariance of X. The variance of the sum over
        a trajectory also has terms between steps.

    References:
        Tucker et al. (2018), The mirage of action-dependent baselines in reinforcement learning.
    """
    moments = _state_moments(mdp, pair, True)
    names = ("offset", "slope")
    if mdp.horizon is None:
        weights = running_visitation(mdp, pair.behaviour)[None]
        after = [moments[i][None] for i in (0, 2)]
        offset, slope = (getattr(pair, name)[None] for name in names)
    else:
        weights = _running_over_time(mdp, pair.behaviour)
        after = [jnp.concatenate([m[1:], jnp.zeros_like(m[:1])]) for m in (moments[0], moments[2])]
        offset, slope = (getattr(pair, name) for name in names)
    weights = weights / jnp.sum(weights)
    a, aa = (m[:, None, None, :] for m in after)
    score = pair.score if pair.score.ndim == 4 else jnp.broadcast_to(pair.score, (len(weights), *pair.score.shape))
    mean = jnp.einsum("sau,tsau->tsa", mdp.transition, offset + slope * a)
    square = jnp.einsum("sau,tsau->tsa", mdp.transition, offset**2 + 2 * offset * slope * a + slope**2 * aa)
    length = jnp.sum(score**2, axis=-1)
    by_state = jnp.einsum("sa,tsap,tsa->tsp", pair.behaviour, score, mean)
    total = jnp.einsum("ts,tsp->p", weights, by_state)
    by_action = jnp.einsum("ts,sa,tsa,tsa->", weights, pair.behaviour, length, mean**2)
    by_state_square = jnp.einsum("ts,tsp->", weights, by_state**2)
    return VarianceSplit(
        state=by_state_square - total @ total,
        action=by_action - by_state_square,
        trajectory=jnp.einsum("ts,sa,tsa,tsa->", weights, pair.behaviour, length, square - mean**2),
    )


def _running_over_time(mdp: TabularMDP, probs: Array) -> Array:
    return jnp.where(terminal_states(mdp)[None, :], 0.0, visitation_over_time(mdp, probs))
