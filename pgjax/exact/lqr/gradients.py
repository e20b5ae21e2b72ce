"""The exact gradient of a feedback; `policy_gradient` is that of the objective (ascent)."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.lqr._record import LQRRecord, checked_gain
from pgjax.exact.lqr.stability import closed_loop
from pgjax.exact.lqr.values import cost_matrix, cost_to_go, moments_over_time, state_moment

Array = jax.Array


@compiled()
def cost_gradient(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the gradient of the cost with respect to the gain (descent follows its opposite).

        ∇C = 2 [(R + γ Bᵀ P B) K - γ Bᵀ P A] Σ;  with a horizon, the sum over steps with P_{t+1} and γ^t Σ_t

    Shapes: gain [m, n]; result [m, n].

    Args:
        lqr: the problem, an `LQR`.
        gain: [m, n] float, K.

    Returns:
        [m, n] float, cost units; NaN where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].

    Properties:
        Equal to ``jax.grad`` of `cost` with respect to the gain.

    References:
        Fazel, Ge, Kakade and Mesbahi (2018), Global convergence of policy gradient methods for the linear
        quadratic regulator.
    """
    if lqr.horizon is None:
        return _slope(lqr, gain, cost_matrix(lqr, gain)) @ state_moment(lqr, gain)
    slopes = jax.vmap(lambda matrix: _slope(lqr, gain, matrix))(cost_to_go(lqr, gain)[0][1:])
    return jnp.einsum("tmi,tin->mn", slopes, moments_over_time(lqr, gain))


@compiled()
def policy_gradient(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the gradient of the objective with respect to the gain (ascent).

        ∇J = -∇C

    Shapes: gain [m, n]; result [m, n].

    Args:
        lqr, gain: as for `cost_gradient`.

    Returns:
        [m, n] float, cost units; NaN where the gain is not stable.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    return -cost_gradient(lqr, gain)


def _slope(lqr: LQRRecord, gain: Array, matrix: Array) -> Array:
    """2 [R K - γ Bᵀ P (A - B K)], the slope of one step's cost with P the matrix after it."""
    gain = checked_gain(lqr, gain)
    return 2.0 * (lqr.R @ gain - lqr.discount * lqr.B.T @ matrix @ closed_loop(lqr, gain))
