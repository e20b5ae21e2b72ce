"""The linear-quadratic regulator: exact cost, gradient, values, and the optimal gain.

    x' = A x + B u + w,   u = -K x + e,   cost xᵀ Q x + uᵀ R u,   J = -E Σ_t γ^t cost_t

w and e are normal with covariances ``noise_covariance`` and ``action_covariance``. Costs are minimised
and objectives maximised: `objective` is minus `cost`, and `policy_gradient` minus `cost_gradient`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax.exact._pytree import concrete, validated_pytree
from pgjax.exact._spectrum import spectral_radius
from pgjax.exact.lqr.recursions import (
    action_cost,
    backward_costs,
    discounted_lyapunov,
    first_moment,
    forward_moments,
    riccati_fixed_point,
    step_noise,
)

Array = jax.Array


@validated_pytree("horizon")
class LQR:
    """A linear system with quadratic cost and normal noise; the policy is normal around a linear feedback.

    Shapes: n the size of the state, m that of the action; a gain is [m, n].

    Args:
        A: [n, n] float, the drift.
        B: [n, m] float, the effect of the action.
        Q: [n, n] float, cost of the state, symmetric.
        R: [m, m] float, cost of the action, symmetric.
        noise_covariance: [n, n] float, of w.
        action_covariance: [m, m] float, of the exploration noise e.
        initial_mean: [n] float, mean of the first state.
        initial_covariance: [n, n] float, covariance of the first state.
        discount: γ, scalar in [0, 1], per environment step.
        horizon: number of steps in an episode, or None for infinitely many; static.

    Returns:
        A frozen pytree.

    Raises:
        TypeError: if an array is not floating or horizon is not an int.
        ValueError: if shapes disagree, if discount lies outside [0, 1], or is 1 without horizon.

    Example:
        >>> import pgjax.exact as exact
        >>> lqr, gain = exact.double_integrator()
        >>> print(f"{lqr.cost(gain):.3f}")
        12.959
    """

    A: Any
    B: Any
    Q: Any
    R: Any
    noise_covariance: Any
    action_covariance: Any
    initial_mean: Any
    initial_covariance: Any
    discount: Any
    horizon: int | None = None

    def __post_init__(self) -> None:
        n, m = _checks.as_floating("B", self.B, ndim_at_least=2).shape
        shapes = {
            "A": (n, n),
            "B": (n, m),
            "Q": (n, n),
            "R": (m, m),
            "noise_covariance": (n, n),
            "action_covariance": (m, m),
            "initial_mean": (n,),
            "initial_covariance": (n, n),
        }
        for name, shape in shapes.items():
            array = _checks.as_floating(name, getattr(self, name))
            _checks.require_shape(name, array, shape, f"[{', '.join('n' if k == n else 'm' for k in shape)}]")
            object.__setattr__(self, name, array)
        discount = _checks.as_scalar_or_shape("discount", self.discount, ()).astype(self.A.dtype)
        object.__setattr__(self, "discount", discount)
        if self.horizon is not None:
            _checks.as_positive_int("horizon", self.horizon)
        if concrete(discount):
            _checks.require_unit_interval("discount", float(discount))
            if self.horizon is None and float(discount) == 1.0:
                raise ValueError("discount must be below 1 without horizon, got 1.0. Set horizon=...")

    def replace(self, **changes: Any) -> "LQR":
        """Return a copy with some fields replaced, validated anew.

        Args:
            **changes: new values by field name.

        Returns:
            The new problem.

        Raises:
            TypeError: as the constructor does, or for a field that does not exist.
            ValueError: as the constructor does.
        """
        return dataclasses.replace(self, **changes)

    def closed_loop(self, gain: Array) -> Array:
        """Compute the drift under a feedback, A - B K.

        Args:
            gain: [m, n] float, K.

        Returns:
            [n, n] float.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        gain = _checks.as_floating("gain", gain)
        _checks.require_shape("gain", gain, self.B.shape[::-1], "[m, n]")
        return self.A - self.B @ gain

    def stable(self, gain: Array) -> Array:
        """Tell whether the cost of a gain is finite: √γ ρ(A - B K) < 1, or there is a horizon.

        Args:
            gain: [m, n] float, K.

        Returns:
            Scalar bool.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        radius = spectral_radius(self.closed_loop(gain))
        return (jnp.sqrt(self.discount) * radius < 1.0) | (self.horizon is not None)

    def check_stable(self, gain: Array) -> None:
        """Raise if the cost of a gain is infinite.

        Args:
            gain: [m, n] float, K, concrete.

        Returns:
            None.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n], or does not stabilise the discounted system.
        """
        if not bool(self.stable(gain)):
            raise ValueError(
                f"gain must satisfy sqrt(discount) * radius(A - B gain) < 1, got a radius of "
                f"{float(spectral_radius(self.closed_loop(gain)))}. Choose a gain nearer to that of lqr.riccati()."
            )

    def cost_matrix(self, gain: Array) -> Array:
        """Compute the quadratic part of the cost-to-go, P: V(x) = -(xᵀ P x + c).

            P = Q + Kᵀ R K + γ (A - B K)ᵀ P (A - B K);  with a horizon, of the first step

        Args:
            gain: [m, n] float, K.

        Returns:
            [n, n] float, symmetric; NaN where the gain is not stable.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        if self.horizon is not None:
            return self.cost_to_go(gain)[0][0]
        drift = self.closed_loop(gain)
        step_cost = self.Q + gain.T @ self.R @ gain
        matrix = discounted_lyapunov(drift.T, step_cost, self.discount)
        # A linear solve answers for unstable gains too, with a matrix that means nothing.
        return jnp.where(self.stable(gain), matrix, jnp.nan)

    def state_moment(self, gain: Array) -> Array:
        """Compute the discounted second moment of the state, Σ = E Σ_t γ^t x_t x_tᵀ.

            Σ = Σ_0 + γ (A - B K) Σ (A - B K)ᵀ + γ / (1 - γ) (B Σ_u Bᵀ + W),  Σ_0 the second moment of x_0

        Args:
            gain: [m, n] float, K.

        Returns:
            [n, n] float, symmetric; NaN where the gain is not stable.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        if self.horizon is not None:
            return jnp.sum(forward_moments(self, gain), axis=0)
        source = first_moment(self) + self.discount / (1.0 - self.discount) * step_noise(self)
        matrix = discounted_lyapunov(self.closed_loop(gain), source, self.discount)
        return jnp.where(self.stable(gain), matrix, jnp.nan)

    def cost(self, gain: Array) -> Array:
        """Compute the expected discounted cost of a feedback.

            C(K) = E V-cost(x_0) = tr(P Σ_0) + [tr(R Σ_u) + γ tr(P (B Σ_u Bᵀ + W))] / (1 - γ)

        Args:
            gain: [m, n] float, K.

        Returns:
            Scalar float, cost units; infinite where the gain is not stable.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        matrix, offset = self._at_step(gain, 0)
        total = jnp.trace(matrix @ first_moment(self)) + offset
        return jnp.where(self.stable(gain), total, jnp.inf)

    def cost_gradient(self, gain: Array) -> Array:
        """Compute the gradient of the cost with respect to the gain (descent follows its opposite).

            ∇C = 2 [(R + γ Bᵀ P B) K - γ Bᵀ P A] Σ;  with a horizon, the sum over steps with P_{t+1} and Σ_t

        Args:
            gain: [m, n] float, K.

        Returns:
            [m, n] float; NaN where the gain is not stable.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        if self.horizon is None:
            return self._gain_slope(gain, self.cost_matrix(gain)) @ self.state_moment(gain)
        slopes = jax.vmap(lambda matrix: self._gain_slope(gain, matrix))(self.cost_to_go(gain)[0][1:])
        return jnp.einsum("tmi,tin->mn", slopes, forward_moments(self, gain))

    def objective(self, gain: Array) -> Array:
        """Compute the objective of a feedback, minus the cost.

        Args:
            gain: [m, n] float, K.

        Returns:
            Scalar float; minus infinity where the gain is not stable.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        return -self.cost(gain)

    def policy_gradient(self, gain: Array) -> Array:
        """Compute the gradient of the objective with respect to the gain (ascent), minus that of the cost.

        Args:
            gain: [m, n] float, K.

        Returns:
            [m, n] float.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        return -self.cost_gradient(gain)

    def value(self, gain: Array, x: Array) -> Array:
        """Compute the value of a state, V(x) = -(xᵀ P x + c).

        Args:
            gain: [m, n] float, K.
            x: [..., n] float, states.

        Returns:
            [...] float; with a horizon, at the first step.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        matrix, offset = self._at_step(gain, 0)
        return -(_quadratic(matrix, x) + offset)

    def action_value(self, gain: Array, x: Array, u: Array) -> Array:
        """Compute the value of an action in a state, Q(x, u) = -(xᵀ Q x + uᵀ R u) + γ E V(A x + B u + w).

        Args:
            gain: [m, n] float, K, the feedback that is followed afterwards.
            x: [..., n] float, states.
            u: [..., m] float, actions.

        Returns:
            [...] float; with a horizon, at the first step.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n].
        """
        matrix, offset = self._at_step(gain, 1)
        ahead = _quadratic(matrix, x @ self.A.T + u @ self.B.T) + jnp.trace(matrix @ self.noise_covariance) + offset
        return -(_quadratic(self.Q, x) + _quadratic(self.R, u) + self.discount * ahead)

    def riccati(self) -> tuple[Array, Array]:
        """Compute the optimal gain and its cost matrix by iterating the Riccati equation.

            K = (R + γ Bᵀ P B)^{-1} γ Bᵀ P A,   P ← Q + γ Aᵀ P (A - B K),   from P = 0

        Returns:
            (K, P), [m, n] and [n, n] float; with a horizon those of the first step, as the optimum then
            depends on time.
        """
        return riccati_fixed_point(self)

    def cost_to_go(self, gain: Array) -> tuple[Array, Array]:
        """Compute the cost-to-go at every step of an episode, xᵀ P_t x + c_t; needs a horizon.

            P_H = 0, P_t = Q + Kᵀ R K + γ (A - B K)ᵀ P_{t+1} (A - B K)
            c_H = 0, c_t = tr(R Σ_u) + γ [c_{t+1} + tr(P_{t+1} (B Σ_u Bᵀ + W))]

        Args:
            gain: [m, n] float, K.

        Returns:
            (P, c), [H + 1, n, n] and [H + 1] float.

        Raises:
            TypeError: if gain is not floating.
            ValueError: if gain has not shape [m, n] or there is no horizon.
        """
        if self.horizon is None:
            raise ValueError("cost_to_go needs a horizon, got None. Set it with lqr.replace(horizon=...).")
        return backward_costs(self, gain)

    def _at_step(self, gain: Array, step: int) -> tuple[Array, Array]:
        """P and c of one step; without horizon they are the same at all."""
        if self.horizon is not None:
            matrices, offsets = self.cost_to_go(gain)
            return matrices[step], offsets[step]
        matrix = self.cost_matrix(gain)
        total = action_cost(self) + self.discount * jnp.trace(matrix @ step_noise(self))
        return matrix, total / (1.0 - self.discount)

    def _gain_slope(self, gain: Array, matrix: Array) -> Array:
        return 2.0 * (self.R @ gain - self.discount * self.B.T @ matrix @ self.closed_loop(gain))


def _quadratic(matrix: Array, x: Array) -> Array:
    return jnp.einsum("...i,ij,...j->...", x, matrix, x)
