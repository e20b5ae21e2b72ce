"""Data from another policy: Off-PAC and emphatic weighting.

The excursion objective weighs the value of each state by where the *behaviour* leads, times an
interest in it: J_μ = Σ_s d_μ(s) i(s) V_π(s). ``state_weights`` is d_μ i. For a continuing process d_μ is
`stationary_distribution(mdp, behaviour)`; for an episodic one, the visits of an episode, normalised.
"""

import jax

from pgjax._compile import compiled
from pgjax.exact.spectrum import spectral_radius
from pgjax.exact.tabular._arguments import checked_logits, checked_policy, checked_states, require_no_horizon
from pgjax.exact.tabular._equations import importance_ratio, running_transition, running_visitation, softmax_pull_back
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.tabular.values import advantage, value

Array = jax.Array


@compiled()
def excursion_objective(mdp: TabularMDP, probs: Array, state_weights: Array) -> Array:
    """Compute the excursion objective, the value of a policy on the states of another.

        J_μ = Σ_s d_μ(s) i(s) V_π(s)

    Shapes: probs [S, A]; state_weights [S]; result scalar.

    Args:
        mdp, probs: as for `value`.
        state_weights: [S] float, d_μ i; held fixed.

    Returns:
        Scalar float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs has not shape [S, A] or state_weights has not shape [S].
    """
    return checked_states(mdp, state_weights, "state_weights") @ value(mdp, probs)


@compiled()
def emphasis(mdp: TabularMDP, probs: Array, state_weights: Array) -> Array:
    """Compute the emphasis of each state: its weight and the discounted visits of the policy that starts by it.

        m = (I - γ P_πᵀ)^{-1} (d_μ i),  the mean of d_μ(s) F_t given s_t = s, F_t the followon trace

    Shapes: probs [S, A]; state_weights [S]; result [S].

    Args:
        mdp, probs, state_weights: as for `excursion_objective`; without horizon.

    Returns:
        [S] float; zero in terminal states.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs has not shape [S, A], state_weights has not shape [S], or mdp has a horizon.

    References:
        Imani, Graves and White (2018), An off-policy policy gradient theorem using emphatic weightings.
    """
    require_no_horizon(mdp, "emphasis")
    return running_visitation(mdp, probs, checked_states(mdp, state_weights, "state_weights"))


@compiled()
def emphatic_sensitivity(mdp: TabularMDP, probs: Array, state_weights: Array) -> Array:
    """Compute the sensitivity of the excursion objective to the probability of each action.

        w(s, a) = m(s) A_π(s, a)

    Shapes: probs [S, A]; state_weights [S]; result [S, A].

    Args:
        mdp, probs, state_weights: as for `excursion_objective`; without horizon.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs has not shape [S, A], state_weights has not shape [S], or mdp has a horizon.
    """
    return emphasis(mdp, probs, state_weights)[:, None] * advantage(mdp, probs)


@compiled()
def emphatic_gradient(mdp: TabularMDP, logits: Array, state_weights: Array) -> Array:
    """Compute the gradient of the excursion objective for a tabular softmax policy (ascent).

        ∇J_μ = Σ_s m(s) Σ_a ∇π(a | s) Q_π(s, a)

    Shapes: logits [S, A]; state_weights [S]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`; without horizon.
        state_weights: [S] float, d_μ i.

    Returns:
        [S, A] float, ∇J_μ, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if logits has not shape [S, A], state_weights has not shape [S], or mdp has a horizon.

    References:
        Imani, Graves and White (2018), An off-policy policy gradient theorem using emphatic weightings.
    """
    _, probs = checked_logits(mdp, logits)
    return softmax_pull_back(probs, emphatic_sensitivity(mdp, probs, state_weights))


@compiled()
def off_pac_sensitivity(mdp: TabularMDP, probs: Array, state_weights: Array) -> Array:
    """Compute the weights of actions in the off-policy actor-critic, which leaves out the gradient of Q.

        w(s, a) = d_μ(s) i(s) A_π(s, a)

    Shapes: probs [S, A]; state_weights [S]; result [S, A].

    Args:
        mdp, probs, state_weights: as for `excursion_objective`; without horizon.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs has not shape [S, A], state_weights has not shape [S], or mdp has a horizon.
    """
    require_no_horizon(mdp, "off_pac_sensitivity")
    return checked_states(mdp, state_weights, "state_weights")[:, None] * advantage(mdp, probs)


@compiled()
def off_pac_gradient(mdp: TabularMDP, logits: Array, state_weights: Array) -> Array:
    """Compute the semi-gradient that the off-policy actor-critic follows, for a tabular softmax policy (ascent).

        g = Σ_s d_μ(s) i(s) Σ_a ∇π(a | s) Q_π(s, a)

    Not the gradient of the excursion objective unless γ = 0: with aliased states it can point the wrong way.

    Shapes: logits [S, A]; state_weights [S]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`; without horizon.
        state_weights: [S] float, d_μ i.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if logits has not shape [S, A], state_weights has not shape [S], or mdp has a horizon.

    References:
        Degris, White and Sutton (2012), Off-policy actor-critic.
    """
    _, probs = checked_logits(mdp, logits)
    return softmax_pull_back(probs, off_pac_sensitivity(mdp, probs, state_weights))


@compiled()
def followon_spectral_radius(mdp: TabularMDP, probs: Array, behaviour: Array) -> Array:
    """Compute the factor by which the second moment of the followon trace grows in the long run.

        radius of γ² Σ_a μ(a | s) ρ(s, a)² P(s' | s, a),  ρ = π / μ

    Shapes: probs, behaviour [S, A]; result scalar.

    Args:
        mdp: the process, a `TabularMDP`.
        probs: [S, A] float, the policy π.
        behaviour: [S, A] float, the policy μ that collected the data.

    Returns:
        Scalar float; the variance of the trace is finite if it is below 1, and infinite otherwise.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs or behaviour has not shape [S, A].
    """
    probs, behaviour = checked_policy(mdp, probs), checked_policy(mdp, behaviour, "behaviour")
    ratio = importance_ratio(probs, behaviour)
    return spectral_radius(mdp.discount**2 * running_transition(mdp, behaviour * ratio**2))
