"""The recursions of a linear-quadratic problem on plain arrays: costs backwards in time, moments forwards."""

import jax
import jax.numpy as jnp

Array = jax.Array


def backward_costs(
    drift: Array, step_cost: Array, noise: Array, action_cost: Array, *, discount: Array, horizon: int
) -> tuple[Array, Array]:
    """P_t and c_t of the cost-to-go xᵀ P_t x + c_t at every step, [H + 1, n, n] and [H + 1]; zero at the end."""

    def step(after: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        matrix, offset = after
        ahead = discount * (offset + jnp.trace(matrix @ noise))
        now = (step_cost + discount * drift.T @ matrix @ drift, action_cost + ahead)
        return now, now

    end = (jnp.zeros_like(step_cost), jnp.zeros((), step_cost.dtype))
    _, rest = jax.lax.scan(step, end, length=horizon)
    return jax.tree.map(lambda last, x: jnp.concatenate([x[::-1], last[None]]), end, rest)


def forward_moments(drift: Array, first: Array, noise: Array, *, discount: Array, horizon: int) -> Array:
    """γ^t E x_t x_tᵀ at every step, [H, n, n], from the second moment of the first state."""

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        moment, weight = carry
        return (drift @ moment @ drift.T + noise, discount * weight), weight * moment

    start = (first.astype(drift.dtype), jnp.ones((), drift.dtype))
    return jax.lax.scan(step, start, length=horizon)[1]


def discounted_lyapunov(drift: Array, source: Array, discount: Array) -> Array:
    """Solve X = source + γ drift X driftᵀ, as one linear system for the entries of X."""
    size = drift.shape[0]
    system = jnp.eye(size**2, dtype=drift.dtype) - discount * jnp.kron(drift, drift)
    return jnp.linalg.solve(system, source.ravel()).reshape(size, size)
