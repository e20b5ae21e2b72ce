"""Episodes of H steps: values, visits and advantages that depend on time."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy, require_horizon
from pgjax.exact.tabular.chain import state_transition
from pgjax.exact.tabular.mdp import TabularMDP

Array = jax.Array


@compiled()
def values_over_time(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the value of each state at each step of an episode of H steps.

        V_H = 0,  V_t = r_π + γ P_π V_{t+1}

    Shapes: probs [S, A]; result [H + 1, S].

    Args:
        mdp: the process, a `TabularMDP` whose horizon is set.
        probs: [S, A] float, the policy.

    Returns:
        [H + 1, S] float, reward units; the last row is zero.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A] or mdp has no horizon.
    """
    horizon = require_horizon(mdp, "values_over_time")
    probs = checked_policy(mdp, probs)
    chain, reward = state_transition(mdp, probs), jnp.sum(probs * mdp.reward, axis=1)

    def step(value: Array, _: None) -> tuple[Array, Array]:
        value = reward + mdp.discount * chain @ value
        return value, value

    end = jnp.zeros_like(reward)
    _, values = jax.lax.scan(step, end, length=horizon)
    return jnp.concatenate([values[::-1], end[None]])


@compiled()
def action_values_over_time(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the value of each action in each state at each step of an episode of H steps.

        Q_t(s, a) = r(s, a) + γ Σ_s' P(s' | s, a) V_{t+1}(s')

    Shapes: probs [S, A]; result [H, S, A].

    Args:
        mdp, probs: as for `values_over_time`.

    Returns:
        [H, S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A] or mdp has no horizon.
    """
    values = values_over_time(mdp, probs)
    return mdp.reward[None] + mdp.discount * jnp.einsum("sau,tu->tsa", mdp.transition, values[1:])


@compiled()
def advantages_over_time(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the advantage of each action in each state at each step of an episode of H steps.

        A_t(s, a) = Q_t(s, a) - V_t(s)

    Shapes: probs [S, A]; result [H, S, A].

    Args:
        mdp, probs: as for `values_over_time`.

    Returns:
        [H, S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A] or mdp has no horizon.
    """
    return action_values_over_time(mdp, probs) - values_over_time(mdp, probs)[:-1, :, None]


@compiled()
def visitation_over_time(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the discounted probability of each state at each step of an episode of H steps.

        d_0 = μ_0,  d_{t+1} = γ P_πᵀ d_t,  so that d_t(s) = γ^t Pr(s_t = s)

    Shapes: probs [S, A]; result [H, S].

    Args:
        mdp, probs: as for `values_over_time`.

    Returns:
        [H, S] float, row t sums to γ^t.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A] or mdp has no horizon.
    """
    horizon = require_horizon(mdp, "visitation_over_time")
    chain = state_transition(mdp, probs)

    def step(visits: Array, _: None) -> tuple[Array, Array]:
        return mdp.discount * visits @ chain, visits

    return jax.lax.scan(step, mdp.initial.astype(chain.dtype), length=horizon)[1]
