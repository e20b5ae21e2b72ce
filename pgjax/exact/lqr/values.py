"""Costs and values of a feedback, and the second moment of the state under it."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.exact.lqr._record import LQRRecord, checked_gain
from pgjax.exact.lqr._recursions import backward_costs, discounted_lyapunov, forward_moments
from pgjax.exact.lqr.stability import closed_loop, stable

Array = jax.Array


@compiled()
def cost_to_go(lqr: LQRRecord, gain: Array) -> tuple[Array, Array]:
    """Compute the cost-to-go at every step of an episode, xᵀ P_t x + c_t.

        P_H = 0, P_t = Q + Kᵀ R K + γ (A - B K)ᵀ P_{t+1} (A - B K)
        c_H = 0, c_t = tr(R Σ_u) + γ [c_{t+1} + tr(P_{t+1} (B Σ_u Bᵀ + W))]

    Shapes: gain [m, n]; result [H + 1, n, n] and [H + 1].

    Args:
        lqr: the problem, an `LQR` with a horizon.
        gain: [m, n] float, K.

    Returns:
        (P, c), [H + 1, n, n] and [H + 1] float, cost units.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n] or there is no horizon.
    """
    if lqr.horizon is None:
        raise ValueError("cost_to_go needs a horizon, got None. Set it with lqr.replace(horizon=...).")
    drift, step_cost = closed_loop(lqr, gain), _step_cost(lqr, gain)
    options = {"discount": lqr.discount, "horizon": lqr.horizon}
    return backward_costs(drift, step_cost, _step_noise(lqr), _exploration_cost(lqr), **options)


@compiled()
def moments_over_time(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the discounted second moment of the state at every step of an episode.

        Σ_0 = E x_0 x_0ᵀ,  Σ_{t+1} = (A - B K) Σ_t (A - B K)ᵀ + B Σ_u Bᵀ + W;   the result is γ^t Σ_t

    Shapes: gain [m, n]; result [H, n, n].

    Args:
        lqr, gain: as for `cost_to_go`.

    Returns:
        [H, n, n] float, symmetric in the last two axes.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n] or there is no horizon.
    """
    if lqr.horizon is None:
        raise ValueError("moments_over_time needs a horizon, got None. Set it with lqr.replace(horizon=...).")
    options = {"discount": lqr.discount, "horizon": lqr.horizon}
    return forward_moments(closed_loop(lqr, gain), _first_moment(lqr), _step_noise(lqr), **options)


@compiled()
def cost_matrix(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the quadratic part of the cost-to-go, P: V(x) = -(xᵀ P x + c).

        P = Q + Kᵀ R K + γ (A - B K)ᵀ P (A - B K);  with a horizon, of the first step

    Shapes: gain [m, n]; result [n, n].

    Args:
        lqr: the problem, an `LQR`.
        gain: [m, n] float, K.

    Returns:
        [n, n] float, symmetric, cost units; NaN where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    if lqr.horizon is not None:
        return cost_to_go(lqr, gain)[0][0]
    matrix = discounted_lyapunov(closed_loop(lqr, gain).T, _step_cost(lqr, gain), lqr.discount)
    # The linear system has a solution for unstable gains too; it is not the cost.
    return jnp.where(stable(lqr, gain), matrix, jnp.nan)


@compiled()
def state_moment(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the discounted second moment of the state, Σ = E Σ_t γ^t x_t x_tᵀ.

        Σ = Σ_0 + γ (A - B K) Σ (A - B K)ᵀ + γ / (1 - γ) (B Σ_u Bᵀ + W),  Σ_0 the second moment of x_0

    Shapes: gain [m, n]; result [n, n].

    Args:
        lqr, gain: as for `cost_matrix`; with a horizon the sum stops there.

    Returns:
        [n, n] float, symmetric; NaN where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    if lqr.horizon is not None:
        return jnp.sum(moments_over_time(lqr, gain), axis=0)
    source = _first_moment(lqr) + lqr.discount / (1.0 - lqr.discount) * _step_noise(lqr)
    matrix = discounted_lyapunov(closed_loop(lqr, gain), source, lqr.discount)
    return jnp.where(stable(lqr, gain), matrix, jnp.nan)


@compiled()
def cost(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the expected discounted cost of a feedback.

        C(K) = tr(P Σ_0) + [tr(R Σ_u) + γ tr(P (B Σ_u Bᵀ + W))] / (1 - γ);  with a horizon, tr(P_0 Σ_0) + c_0

    Shapes: gain [m, n]; result scalar.

    Args:
        lqr, gain: as for `cost_matrix`.

    Returns:
        Scalar float, cost units; infinite where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    matrix, offset = _at_step(lqr, gain, 0)
    total = jnp.trace(matrix @ _first_moment(lqr)) + offset
    return jnp.where(stable(lqr, gain), total, jnp.inf)


@compiled()
def objective(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the objective of a feedback, minus the cost.

        J(K) = -C(K) = E V(x_0)

    Shapes: gain [m, n]; result scalar.

    Args:
        lqr, gain: as for `cost_matrix`.

    Returns:
        Scalar float, cost units; minus infinity where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    return -cost(lqr, gain)


@compiled()
def value(lqr: LQRRecord, gain: Array, x: Array) -> Array:
    """Compute the value of a state, minus its cost-to-go.

        V(x) = -(xᵀ P x + c);  with a horizon, at the first step

    Shapes: gain [m, n]; x [..., n]; result [...].

    Args:
        lqr, gain: as for `cost_matrix`.
        x: [..., n] float, states.

    Returns:
        [...] float, cost units.

    Raises:
        TypeError: if gain or x is not floating.
        ValueError: if gain has not shape [m, n] or x does not end with [n].
    """
    matrix, offset = _at_step(lqr, gain, 0)
    return -(_quadratic(matrix, _checked(lqr, "x", x)) + offset)


@compiled()
def action_value(lqr: LQRRecord, gain: Array, x: Array, *, u: Array) -> Array:
    """Compute the value of an action in a state.

        Q(x, u) = -(xᵀ Q x + uᵀ R u) + γ E V(A x + B u + w);  with a horizon, at the first step

    Shapes: gain [m, n]; x [..., n]; u [..., m]; result [...].

    Args:
        lqr, gain, x: as for `value`; the gain is followed afterwards.
        u: [..., m] float, actions.

    Returns:
        [...] float, cost units.

    Raises:
        TypeError: if gain, x or u is not floating.
        ValueError: if gain has not shape [m, n], x does not end with [n], or u with [m].
    """
    x, u = _checked(lqr, "x", x), _checked(lqr, "u", u)
    matrix, offset = _at_step(lqr, gain, 1)
    ahead = _quadratic(matrix, x @ lqr.A.T + u @ lqr.B.T) + jnp.trace(matrix @ lqr.noise_covariance) + offset
    return -(_quadratic(lqr.Q, x) + _quadratic(lqr.R, u) + lqr.discount * ahead)


def _at_step(lqr: LQRRecord, gain: Array, step: int) -> tuple[Array, Array]:
    """P and c of one step; without horizon they are the same at all."""
    if lqr.horizon is not None:
        matrices, offsets = cost_to_go(lqr, gain)
        return matrices[step], offsets[step]
    matrix = cost_matrix(lqr, gain)
    total = _exploration_cost(lqr) + lqr.discount * jnp.trace(matrix @ _step_noise(lqr))
    return matrix, total / (1.0 - lqr.discount)


def _step_cost(lqr: LQRRecord, gain: Array) -> Array:
    """Q + Kᵀ R K."""
    gain = checked_gain(lqr, gain)
    return lqr.Q + gain.T @ lqr.R @ gain


def _exploration_cost(lqr: LQRRecord) -> Array:
    """What exploration costs in one step."""
    return jnp.trace(lqr.R @ lqr.action_covariance)


def _first_moment(lqr: LQRRecord) -> Array:
    """E x_0 x_0ᵀ."""
    return lqr.initial_covariance + jnp.outer(lqr.initial_mean, lqr.initial_mean)


def _step_noise(lqr: LQRRecord) -> Array:
    """The covariance that one step adds to the state."""
    return lqr.B @ lqr.action_covariance @ lqr.B.T + lqr.noise_covariance


def _quadratic(matrix: Array, x: Array) -> Array:
    return jnp.einsum("...i,ij,...j->...", x, matrix, x)


def _checked(lqr: LQRRecord, name: str, x: Array) -> Array:
    """States or actions as floats with the right last axis."""
    x = _checks.as_floating(name, x)
    like = "lqr.initial_mean" if name == "x" else "the columns of lqr.B"
    _checks.require_trailing_shape(name, x, (lqr.B.shape[0 if name == "x" else 1],), of=like)
    return x
