"""Values and visits of a policy: discounted, episodic and average-reward."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular._equations import identity_minus, running_transition, running_visitation
from pgjax.exact.tabular.chain import state_transition
from pgjax.exact.tabular.horizon import action_values_over_time, values_over_time, visitation_over_time
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


@compiled()
def value(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the value of each state: the expected discounted return that follows it.

        V = r_π + γ P_π V              without horizon, by a linear solve
        V = V_0 of `values_over_time`  with horizon H: all H steps are to come

    Shapes: probs [S, A]; result [S].

    Args:
        mdp: the process, a `TabularMDP`.
        probs: [S, A] float, the policy: π(a | s), rows sum to one.

    Returns:
        [S] float, reward units; zero in terminal states. NaN if discount is 1 and an episode may never end.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].

    Example:
        >>> import jax.numpy as jnp, pgjax.exact as exact
        >>> print(exact.value(exact.two_state(), jnp.full((2, 2), 0.5)).round(3))
        [6.306 6.629]
    """
    probs = checked_policy(mdp, probs)
    if mdp.horizon is not None:
        return values_over_time(mdp, probs)[0]
    reward = jnp.sum(probs * mdp.reward, axis=1)
    return jnp.linalg.solve(identity_minus(mdp.discount * running_transition(mdp, probs)), reward)


@compiled()
def action_value(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the value of each action in each state.

        Q(s, a) = r(s, a) + γ Σ_s' P(s' | s, a) V(s'),  at the first step if there is a horizon

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `value`; the policy is followed after the first action.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    if mdp.horizon is not None:
        return action_values_over_time(mdp, probs)[0]
    return mdp.reward + mdp.discount * mdp.transition @ value(mdp, probs)


@compiled()
def advantage(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the advantage of each action: how much better it is than the policy's average.

        A(s, a) = Q(s, a) - V(s),  so that Σ_a π(a | s) A(s, a) = 0

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `value`.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    return action_value(mdp, probs) - value(mdp, probs)[:, None]


@compiled()
def visitation(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the discounted number of visits to each state, not normalised.

        d(s) = Σ_t γ^t Pr(s_t = s) = [(I - γ P_πᵀ)^{-1} μ_0](s);  the sum stops at H with horizon H

    Shapes: probs [S, A]; result [S].

    Args:
        mdp, probs: as for `value`.

    Returns:
        [S] float, expected visits; sums to 1 / (1 - γ) without horizon. With discount 1 a terminal state that
        is reached is visited infinitely often.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    if mdp.horizon is not None:
        return jnp.sum(visitation_over_time(mdp, probs), axis=0)
    visits = running_visitation(mdp, probs)
    entries = mdp.initial + mdp.discount * visits @ state_transition(mdp, probs)
    stay = 1.0 - mdp.discount
    forever = jnp.where(stay > 0, entries / jnp.where(stay > 0, stay, 1.0), jnp.where(entries > 0, jnp.inf, 0.0))
    return jnp.where(terminal_states(mdp), forever, visits)


@compiled()
def objective(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the objective of a policy: the expected discounted return of an episode.

        J = Σ_s μ_0(s) V(s) = Σ_{s,a} d(s) π(a | s) r(s, a)

    Shapes: probs [S, A]; result scalar.

    Args:
        mdp, probs: as for `value`.

    Returns:
        Scalar float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    return mdp.initial @ value(mdp, probs)


@compiled()
def stationary_distribution(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the distribution of the state in the long run.

        dᵀ P_π = dᵀ,  Σ_s d(s) = 1,  from  dᵀ (I - P_π + 1 1ᵀ) = 1ᵀ

    Shapes: probs [S, A]; result [S].

    Args:
        mdp: the process, a `TabularMDP`; its discount, horizon and initial distribution are not used.
        probs: [S, A] float, the policy; its chain must have one recurrent class.

    Returns:
        [S] float.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    matrix = identity_minus(state_transition(mdp, probs)) + 1.0
    return jnp.linalg.solve(matrix.T, jnp.ones_like(mdp.initial))


@compiled()
def average_reward(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the average reward per step in the long run.

        ρ(π) = Σ_s d_∞(s) Σ_a π(a | s) r(s, a)

    Shapes: probs [S, A]; result scalar.

    Args:
        mdp, probs: as for `stationary_distribution`.

    Returns:
        Scalar float, reward units per step.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    return stationary_distribution(mdp, probs) @ jnp.sum(checked_policy(mdp, probs) * mdp.reward, axis=1)


@compiled()
def differential_value(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the differential value: how much more than the average is earned from each state on.

        h = (I - P_π + 1 d_∞ᵀ)^{-1} (r_π - ρ),  so that h = r_π - ρ + P_π h and d_∞ᵀ h = 0

    Shapes: probs [S, A]; result [S].

    Args:
        mdp, probs: as for `stationary_distribution`.

    Returns:
        [S] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    stationary = stationary_distribution(mdp, probs)
    reward = jnp.sum(checked_policy(mdp, probs) * mdp.reward, axis=1)
    matrix = identity_minus(state_transition(mdp, probs)) + stationary[None, :]
    return jnp.linalg.solve(matrix, reward - stationary @ reward)


@compiled()
def differential_action_value(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the differential value of each action in each state.

        Q(s, a) = r(s, a) - ρ + Σ_s' P(s' | s, a) h(s')

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `stationary_distribution`.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    return mdp.reward - average_reward(mdp, probs) + mdp.transition @ differential_value(mdp, probs)
