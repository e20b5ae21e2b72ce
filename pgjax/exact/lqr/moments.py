"""Exact mean and variance of gradient estimators on linear-quadratic problems with a horizon.

Everything is a polynomial in normal variables. For a scalar system, moments given the state are
polynomials in it, and one step back is a polynomial in the state x and the exploration noise ε, of which
the mean over ε is taken. The pathwise gradient is a quadratic form in all of the noise, for any size.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._compile import compiled
from pgjax.exact.lqr._record import LQRRecord, checked_gain
from pgjax.exact.lqr.stability import closed_loop
from pgjax.exact.variance.moments import Moments

Array = jax.Array

# The highest power is that of the squared contribution of a step: score² cost², of degree 2 + 4 in x and in ε.
_DEGREE = 6


def _normal_moments(mean: Array, scale: Array) -> Array:
    """E x^n for x normal and n = 0 ... _DEGREE, by the recursion of its moments."""
    moments = [jnp.ones_like(mean), mean]
    for n in range(2, _DEGREE + 1):
        moments.append(mean * moments[-1] + (n - 1) * scale**2 * moments[-2])
    return jnp.stack(moments)


# [a, b, c] is one where x^a x^b = x^c.
_SUM = np.equal(np.add.outer(np.arange(_DEGREE + 1), np.arange(_DEGREE + 1))[..., None], np.arange(_DEGREE + 1))


def _times(p: Array, q: Array) -> Array:
    """The product of two polynomials in (x, ε), whose coefficients are [..., power of x, power of ε]."""
    powers = jnp.asarray(_SUM, p.dtype)
    return jnp.einsum("...ab,...cd,ace,bdf->...ef", p, q, powers, powers)


def _powers(p: Array, one: Array) -> Array:
    return jnp.stack([one, p, _times(p, p)])


class _Scalar:
    """A scalar system as polynomials: reward, score, the step to the next state, and the mean over ε."""

    def __init__(self, lqr: LQRRecord, gain: Array) -> None:
        if lqr.horizon is None or lqr.B.shape != (1, 1):
            raise ValueError(
                f"lqr must be a scalar system with a horizon, got B of shape {list(lqr.B.shape)} and "
                f"horizon={lqr.horizon}. For other sizes enumerate a quadrature with gauss_hermite."
            )
        drift, k = closed_loop(lqr, gain)[0, 0], gain[0, 0]
        scale = jnp.sqrt(lqr.action_covariance[0, 0]).astype(drift.dtype)
        zero = jnp.zeros((_DEGREE + 1, _DEGREE + 1), drift.dtype)
        self.one = zero.at[0, 0].set(1.0)
        action = zero.at[1, 0].set(-k).at[0, 1].set(scale)
        square = zero.at[2, 0].set(lqr.Q[0, 0])
        self.reward = -(square + lqr.R[0, 0] * _times(action, action))
        # ∂ log π / ∂k = -ε x / σ, as u + k x = σ ε.
        self.score = zero.at[1, 1].set(-1.0 / scale)
        self.noise = _normal_moments(jnp.zeros_like(drift), jnp.ones_like(drift))
        self.step = self._step_matrix(drift, lqr.B[0, 0] * scale, jnp.sqrt(lqr.noise_covariance[0, 0]))
        self._initial = _normal_moments(lqr.initial_mean[0], jnp.sqrt(lqr.initial_covariance[0, 0]))

    def _step_matrix(self, drift: Array, push: Array, noise: Array) -> Array:
        """E (drift x + push ε + noise η)^n over η, as coefficients [n, power of x, power of ε]."""
        size = _DEGREE + 1
        n, i, j = np.indices((size, size, size))
        rest = np.maximum(n - i - j, 0)
        factorial = np.vectorize(math.factorial)
        count = np.where(n >= i + j, factorial(n) / (factorial(i) * factorial(j) * factorial(rest)), 0.0)
        return jnp.asarray(count, drift.dtype) * drift**i * push**j * noise**rest * self.noise[rest]

    def ahead(self, p: Array) -> Array:
        """A polynomial in the next state -> its mean, as one in (x, ε)."""
        return jnp.einsum("n,nij->ij", p, self.step)

    def mean(self, p: Array) -> Array:
        """A polynomial in (x, ε) -> its mean over ε, one in x."""
        return p @ self.noise

    def start(self, p: Array) -> Array:
        """The mean of a polynomial in x over the first state."""
        return p @ self._initial


@compiled()
def lqr_reinforce_moments(lqr: LQRRecord, gain: Array) -> Moments:
    """Compute the exact mean and variance of REINFORCE with the return of the episode, for a scalar system (ascent).

        S R,  S = Σ_t ψ_t,  R = -Σ_t γ^t cost_t;   E[S^i R^j | x] by the binomial formula, backwards in time

    Shapes: gain [1, 1]; result [1] and [1, 1].

    Args:
        lqr: an `LQR` with one state, one action and a horizon.
        gain: [1, 1] float, K.

    Returns:
        Moments; the mean is `policy_gradient`.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if the system is not scalar or has no horizon, or gain has not shape [1, 1].
    """
    system = _Scalar(lqr, gain)
    # What a step multiplies S'^k R'^m by in S^i R^j: C(i, k) C(j, m) γ^m score^(i - k) reward^(j - m).
    scores, rewards = (_powers(x, system.one) for x in (system.score, system.reward))
    choose = jnp.array([[float(math.comb(n, m)) for m in range(3)] for n in range(3)], scores.dtype)
    rest = np.maximum(np.subtract.outer(np.arange(3), np.arange(3)), 0)
    by_score = choose[..., None, None] * scores[rest]
    by_reward = (choose * lqr.discount ** np.arange(3)[None, :])[..., None, None] * rewards[rest]

    def step(after: Array, _: None) -> tuple[Array, None]:
        ahead = jnp.einsum("kmn,nab->kmab", after, system.step)
        inner = _times(by_reward[:, None, :], ahead[None])  # [j, k, m]
        return jnp.einsum("ijab,b->ija", _times(by_score[:, None], inner.sum(2)[None]).sum(2), system.noise), None

    end = jnp.zeros((3, 3, _DEGREE + 1), system.one.dtype).at[0, 0, 0].set(1.0)
    moments = jax.lax.scan(step, end, length=lqr.horizon)[0]
    return _moments(system.start(moments[1, 1]), system.start(moments[2, 2]))


@compiled()
def lqr_gpomdp_moments(lqr: LQRRecord, gain: Array, *, baseline: tuple[Array, Array] | None = None) -> Moments:
    """Compute the exact mean and variance of reward-to-go with a quadratic baseline, for a scalar system (ascent).

        Σ_t γ^t ψ_t (G_t - b_t(x_t)),   b_t(x) = -(p_t x² + c_t);   the pair of recurrences of `AffinePair`

    Shapes: gain [1, 1]; result [1] and [1, 1].

    Args:
        lqr: an `LQR` with one state, one action and a horizon.
        gain: [1, 1] float, K.
        baseline: (p, c), [H + 1, 1, 1] and [H + 1] float; with those of `cost_to_go`, b is the value. None is zero.

    Returns:
        Moments; the mean is `policy_gradient`.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if the system is not scalar or has no horizon, or gain has not shape [1, 1].
    """
    system = _Scalar(lqr, gain)
    reward, score, g = system.reward, system.score, lqr.discount
    square = _times(score, score)

    def step(after: list[Array], level: tuple[Array, Array]) -> tuple[list[Array], None]:
        a, y, aa, ay, yy = (system.ahead(m) for m in after)
        e = reward.at[2, 0].add(level[0]).at[0, 0].add(level[1])
        now = (
            reward + g * a,
            _times(score, e + g * a) + g * y,
            _times(reward, reward + 2 * g * a) + g**2 * aa,
            _times(score, _times(reward, e) + g * _times(reward + e, a) + g**2 * aa) + g * (_times(reward, y) + g * ay),
            _times(square, _times(e, e + 2 * g * a) + g**2 * aa)
            + 2 * g * _times(score, _times(e, y) + g * ay)
            + g**2 * yy,
        )
        return [system.mean(m) for m in now], None

    zero = jnp.zeros(_DEGREE + 1, system.one.dtype)
    none = jnp.zeros(lqr.horizon or 0, system.one.dtype)
    levels = (none, none) if baseline is None else (baseline[0][:-1, 0, 0], baseline[1][:-1])
    moments = jax.lax.scan(step, [zero] * 5, levels, reverse=True)[0]
    return _moments(system.start(moments[1]), system.start(moments[4]))


@compiled()
def lqr_pathwise_moments(lqr: LQRRecord, gain: Array) -> Moments:
    """Compute the exact mean and covariance of the pathwise gradient, through the system and at fixed noise (ascent).

        R = -(ξᵀ M(K) ξ + m(K)ᵀ ξ + c(K)),  ξ all noise of an episode, standard normal
        Cov(∂_h R, ∂_k R) = 2 tr(∂_h M ∂_k M) + ∂_h mᵀ ∂_k m

    Shapes: gain [m, n]; result [m * n] and [m * n, m * n].

    Args:
        lqr: an `LQR` of any size with a horizon.
        gain: [m, n] float, K.

    Returns:
        Moments over the entries of the gain, raveled; the mean is `policy_gradient`.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if there is no horizon or gain has not shape [m, n].
    """
    if lqr.horizon is None:
        raise ValueError("lqr must have a horizon, got None. Set it with lqr.replace(horizon=...).")
    gain = checked_gain(lqr, gain)
    slopes = jax.jacfwd(lambda k: _quadratic_return(lqr, k.reshape(gain.shape)))(gain.ravel())
    matrix, linear, constant = (jnp.moveaxis(x, -1, 0) for x in slopes)
    mean = jnp.trace(matrix, axis1=1, axis2=2) + constant
    return Moments(mean, 2 * jnp.einsum("hij,kji->hk", matrix, matrix) + linear @ linear.T)


def _quadratic_return(lqr: LQRRecord, gain: Array) -> tuple[Array, Array, Array]:
    """The return as a quadratic in standard normal noise: its matrix, its vector and its constant."""
    (n, m), horizon = lqr.B.shape, lqr.horizon or 0
    steps = jnp.eye(horizon, dtype=lqr.A.dtype)
    explore = jnp.einsum("th,ij->tihj", steps, _root(lqr.action_covariance)).reshape(horizon, m, horizon * m)
    disturb = jnp.einsum("th,ij->tihj", steps, _root(lqr.noise_covariance)).reshape(horizon, n, horizon * n)
    explore = jnp.pad(explore, ((0, 0), (0, 0), (n, horizon * n)))
    disturb = jnp.pad(disturb, ((0, 0), (0, 0), (n + horizon * m, 0)))
    size = n + horizon * (m + n)
    # x_t = base + spread ξ, with the constant 1 put in front of ξ.
    state = jnp.concatenate([lqr.initial_mean[:, None], _root(lqr.initial_covariance)], axis=1)
    state = jnp.pad(state, ((0, 0), (0, size - n))).astype(jnp.result_type(state, gain))

    def step(carry: tuple[Array, Array], noise: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        state, weight = carry
        action = jnp.pad(noise[0], ((0, 0), (1, 0))) - gain @ state
        cost = weight * (state.T @ lqr.Q @ state + action.T @ lqr.R @ action)
        after = lqr.A @ state + lqr.B @ action + jnp.pad(noise[1], ((0, 0), (1, 0)))
        return (after, lqr.discount * weight), cost

    _, costs = jax.lax.scan(step, (state, jnp.ones((), state.dtype)), (explore, disturb))
    total = -jnp.sum(costs, axis=0)
    return total[1:, 1:], 2 * total[0, 1:], total[0, 0]


def _root(covariance: Array) -> Array:
    """A square root of a covariance, which may be singular."""
    values, vectors = jnp.linalg.eigh(covariance)
    return vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None, :]


def _moments(mean: Array, second: Array) -> Moments:
    return Moments(mean[None], (second - mean**2)[None, None])
