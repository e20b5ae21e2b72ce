"""Directions for other objectives: the average reward, and the one that drops the discount of the states.

Everything here is an *ascent* direction for a tabular softmax policy; for other policies, give the
sensitivity to `policy_gradient_of`.
"""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_logits, checked_policy
from pgjax.exact.tabular._equations import identity_minus, softmax_pull_back
from pgjax.exact.tabular.chain import state_transition
from pgjax.exact.tabular.horizon import advantages_over_time, visitation_over_time
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.values import advantage, differential_action_value, differential_value, stationary_distribution

Array = jax.Array


@compiled()
def average_reward_sensitivity(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the sensitivity of the average reward to the probability of each action.

        w(s, a) = d_∞(s) [Q(s, a) - h(s)],  Q and h the differential values

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `stationary_distribution`.

    Returns:
        [S, A] float, reward units per step.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    differential = differential_action_value(mdp, probs) - differential_value(mdp, probs)[:, None]
    return stationary_distribution(mdp, probs)[:, None] * differential


@compiled()
def average_reward_gradient(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the gradient of the average reward for a tabular softmax policy (ascent).

        ∇ρ = Σ_s d_∞(s) Σ_a ∇π(a | s) Q(s, a),  the limit of (1 - γ) ∇J as γ → 1

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`; discount, horizon and initial distribution are not used.

    Returns:
        [S, A] float, reward units per step.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, theorem 1.
    """
    _, probs = checked_logits(mdp, logits)
    return softmax_pull_back(probs, average_reward_sensitivity(mdp, probs))


@compiled()
def dropped_discount_sensitivity(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the weights of actions when visits are not discounted but advantages are.

        w(s, a) = d_1(s) A_γ(s, a)    d_1: expected visits in an episode, if something ends episodes;
                                      the stationary distribution, if nothing does

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `value`.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    probs = checked_policy(mdp, probs)
    if mdp.horizon is not None:
        plain = mdp.replace(discount=jnp.ones_like(mdp.discount))
        return jnp.einsum("ts,tsa->sa", visitation_over_time(plain, probs), advantages_over_time(mdp, probs))
    ended = terminal_states(mdp)
    episodic = jnp.any(ended)
    chain = state_transition(mdp, probs)
    # One of two linear systems: visits until the end, or the distribution that the chain keeps.
    until_end = identity_minus(jnp.where(ended[:, None] | ended[None, :], 0.0, chain))
    matrix = jnp.where(episodic, until_end, identity_minus(chain) + 1.0)
    start = jnp.where(episodic, mdp.initial, 1.0)
    return jnp.linalg.solve(matrix.T, start)[:, None] * advantage(mdp, probs)


@compiled()
def dropped_discount_gradient(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the direction that most code follows: discounted advantages on states that are not discounted.

        g = Σ_s d_1(s) Σ_a ∇π(a | s) A_γ(s, a)

    It is the gradient of no function: its Jacobian is not symmetric, and it can lead to the worst policy.

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`; see `dropped_discount_sensitivity` for d_1.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].

    References:
        Nota and Thomas (2020), Is the policy gradient a gradient?
    """
    _, probs = checked_logits(mdp, logits)
    return softmax_pull_back(probs, dropped_discount_sensitivity(mdp, probs))
