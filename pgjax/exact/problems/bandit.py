"""Closed forms for problems of one step: leave-one-out baselines, and a quadratic under normal noise."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._pytree import validated_pytree
from pgjax.exact.variance.moments import Moments

Array = jax.Array


@compiled("num_samples")
def leave_one_out_moments(logits: Array, reward: Array, *, num_samples: int) -> Moments:
    """Compute the exact mean and covariance of REINFORCE with the leave-one-out baseline, on a softmax bandit (ascent).

        g = (1/N) Σ_i ψ_i (R_i - mean_{j≠i} R_j),   the sample covariance of R and ψ
        Cov g = [E ψψᵀ(R - V)² - ∇J ∇Jᵀ] / N + [∇J ∇Jᵀ + Var(R) E ψψᵀ] / (N (N - 1))

    The second term comes from estimating V by the other samples.

    Shapes: logits, reward [K]; result [K] and [K, K].

    Args:
        logits: [K] float, of the arms.
        reward: [K] float, what each arm pays, without noise.
        num_samples: N, draws in a group; static.

    Returns:
        Moments.

    Raises:
        TypeError: if an array is not floating or num_samples is not an int.
        ValueError: if shapes differ or num_samples < 2.

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!
    """
    logits, reward = _checks.as_floating("logits", logits, ndim_at_least=1), _checks.as_floating("reward", reward)
    _checks.require_same_shape("logits", logits.shape, reward=reward)
    n = _checks.as_positive_int("num_samples", num_samples, at_least=2)
    probs = jax.nn.softmax(logits)
    score = jnp.eye(len(probs), dtype=probs.dtype) - probs[None, :]
    centred = reward - probs @ reward
    gradient = probs * centred
    fisher = jnp.einsum("k,kp,kq->pq", probs, score, score)
    weighted = jnp.einsum("k,kp,kq->pq", probs * centred**2, score, score)
    square = jnp.outer(gradient, gradient)
    from_estimate = (square + (probs @ centred**2) * fisher) / (n - 1)
    return Moments(gradient, (weighted - square + from_estimate) / n)


@validated_pytree
class QuadraticBandit:
    """A quadratic pay-off under a normal policy, a = μ + σ ε, with closed forms for several gradient estimators.

        f(a) = f_0 + gᵀ(a - μ) + ½ (a - μ)ᵀ M (a - μ)

    Shapes: value scalar; gradient [D]; curvature [D, D]; scale scalar.

    Args:
        value: f_0, scalar, the pay-off at μ.
        gradient: [D] float, g, its slope there; also the gradient of the objective with respect to μ.
        curvature: [D, D] float, M, symmetric.
        scale: σ, scalar, the same in every direction.

    Returns:
        A frozen pytree.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes disagree.
    """

    value: Any
    gradient: Any
    curvature: Any
    scale: Any

    def __post_init__(self) -> None:
        gradient = _checks.as_floating("gradient", self.gradient, ndim_at_least=1)
        size = gradient.shape[0]
        _checks.require_shape("gradient", gradient, (size,), "[D]")
        curvature = _checks.as_floating("curvature", self.curvature)
        _checks.require_shape("curvature", curvature, (size, size), "[D, D]")
        object.__setattr__(self, "gradient", gradient)
        object.__setattr__(self, "curvature", curvature)
        for name in ("value", "scale"):
            scalar = _checks.as_scalar_or_shape(name, getattr(self, name), ())
            object.__setattr__(self, name, scalar.astype(gradient.dtype))

    @property
    def size(self) -> int:
        """D, the number of dimensions of an action."""
        return int(self.gradient.shape[0])

    @property
    def objective(self) -> Array:
        """Scalar: E f(a) = f_0 + ½ σ² tr M."""
        return self.value + 0.5 * self.scale**2 * jnp.trace(self.curvature)

    @property
    def log_scale_gradient(self) -> Array:
        """Scalar: the gradient of the objective with respect to log σ (ascent), σ² tr M."""
        return self.scale**2 * jnp.trace(self.curvature)

    @property
    def optimal_baseline(self) -> Array:
        """Scalar: the baseline of least variance, f_0 + σ² (D + 2) tr M / (2 D); not the mean pay-off."""
        return self.value + self.scale**2 * (self.size + 2) * jnp.trace(self.curvature) / (2 * self.size)

    def score_function_variance(self, baseline: Array | float = 0.0) -> Array:
        """Compute the trace of the covariance of the score-function estimator, (f(a) - b) (a - μ) / σ².

            E‖·‖² = [D f̃² + σ² (D + 2) (‖g‖² + f̃ tr M) + ¼ σ⁴ (D + 4) ((tr M)² + 2 tr M²)] / σ²,  f̃ = f_0 - b

        Args:
            baseline: b, scalar.

        Returns:
            Scalar float; grows without bound as σ → 0 unless the baseline is f_0.

        Raises:
            TypeError: if baseline is not a number.
            ValueError: if baseline is not a scalar.
        """
        d, variance = self.size, self.scale**2
        rest = self.value - _checks.as_scalar_or_shape("baseline", baseline, ())
        trace, square = jnp.trace(self.curvature), jnp.sum(self.curvature**2)
        slope = self.gradient @ self.gradient
        second = d * rest**2 + variance * (d + 2) * (slope + rest * trace)
        second = second + 0.25 * variance**2 * (d + 4) * (trace**2 + 2 * square)
        return second / variance - slope

    @property
    def pathwise_variance(self) -> Array:
        """Scalar: the trace of the covariance of the pathwise estimator ∇f(a), σ² tr M²."""
        return self.scale**2 * jnp.sum(self.curvature**2)

    @property
    def antithetic_variance(self) -> Array:
        """Scalar: that of the antithetic estimator [f(μ + σε) - f(μ - σε)] ε / (2σ), (D + 1) ‖g‖²."""
        return (self.size + 1) * (self.gradient @ self.gradient)
