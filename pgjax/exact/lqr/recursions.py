"""The recursions behind `LQR`: costs backwards in time, moments forwards, Lyapunov and Riccati equations."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from pgjax.exact.lqr.system import LQR

Array = jax.Array


def first_moment(lqr: "LQR") -> Array:
    """E x_0 x_0ᵀ."""
    return lqr.initial_covariance + jnp.outer(lqr.initial_mean, lqr.initial_mean)


def step_noise(lqr: "LQR") -> Array:
    """The covariance that one step adds to the state."""
    return lqr.B @ lqr.action_covariance @ lqr.B.T + lqr.noise_covariance


def action_cost(lqr: "LQR") -> Array:
    """What exploration costs in one step."""
    return jnp.trace(lqr.R @ lqr.action_covariance)


def backward_costs(lqr: "LQR", gain: Array) -> tuple[Array, Array]:
    """P_t and c_t of the cost-to-go at every step, [H + 1, n, n] and [H + 1]."""
    drift, step_cost = lqr.closed_loop(gain), lqr.Q + gain.T @ lqr.R @ gain
    noise = step_noise(lqr)

    def step(after: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        matrix, offset = after
        ahead = lqr.discount * (offset + jnp.trace(matrix @ noise))
        now = (step_cost + lqr.discount * drift.T @ matrix @ drift, action_cost(lqr) + ahead)
        return now, now

    end = (jnp.zeros_like(lqr.Q), jnp.zeros((), lqr.Q.dtype))
    _, rest = jax.lax.scan(step, end, length=lqr.horizon)
    return jax.tree.map(lambda last, x: jnp.concatenate([x[::-1], last[None]]), end, rest)


def forward_moments(lqr: "LQR", gain: Array) -> Array:
    """γ^t E x_t x_tᵀ, [H, n, n]."""
    drift, noise = lqr.closed_loop(gain), step_noise(lqr)

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        moment, weight = carry
        return (drift @ moment @ drift.T + noise, lqr.discount * weight), weight * moment

    start = (first_moment(lqr), jnp.ones_like(lqr.discount))
    return jax.lax.scan(step, start, length=lqr.horizon)[1]


def discounted_lyapunov(drift: Array, source: Array, discount: Array) -> Array:
    """Solve X = source + γ drift X driftᵀ, as one linear system for the entries of X."""
    size = drift.shape[0]
    system = jnp.eye(size**2, dtype=drift.dtype) - discount * jnp.kron(drift, drift)
    return jnp.linalg.solve(system, source.ravel()).reshape(size, size)


def riccati_fixed_point(lqr: "LQR") -> tuple[Array, Array]:
    """The optimal gain and its cost matrix."""

    def gain_of(matrix: Array) -> Array:
        ahead = lqr.discount * lqr.B.T @ matrix
        return jnp.linalg.solve(lqr.R + ahead @ lqr.B, ahead @ lqr.A)

    def improve(matrix: Array) -> Array:
        better = lqr.Q + lqr.discount * lqr.A.T @ matrix @ lqr.closed_loop(gain_of(matrix))
        return 0.5 * (better + better.T)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        matrix, before, count = carry
        change = jnp.max(jnp.abs(matrix - before))
        return (count < 10_000) & (change > 4 * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(matrix)))

    zero = jnp.zeros_like(lqr.Q)
    if lqr.horizon is not None:
        last = jax.lax.fori_loop(0, lqr.horizon - 1, lambda _, matrix: improve(matrix), zero)
        return gain_of(last), improve(last)
    start = (improve(zero), zero, jnp.zeros((), int))
    matrix, *_ = jax.lax.while_loop(unfinished, lambda carry: (improve(carry[0]), carry[0], carry[2] + 1), start)
    return gain_of(matrix), matrix
