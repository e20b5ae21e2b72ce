"""Data from another policy: Off-PAC, emphatic weighting, V-trace and the bias of GAE.

The excursion objective weighs the value of each state by where the *behaviour* leads, times an
interest in it: J_μ = Σ_s d_μ(s) i(s) V_π(s). ``state_weights`` is d_μ i. For a continuing process d_μ is
`stationary_distribution(mdp, behaviour)`; for an episodic one, the visits of an episode, normalised.
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.exact.gradients import checked_logits, softmax_pull_back
from pgjax.exact.horizon import require_no_horizon
from pgjax.exact.mdp import (
    TabularMDP,
    checked_policy,
    checked_states,
    identity_minus,
    running_transition,
    terminal_states,
)
from pgjax.exact.values import advantage, running_visitation, value

Array = jax.Array


@compiled()
def excursion_objective(mdp: TabularMDP, probs: Array, state_weights: Array) -> Array:
    """Compute the excursion objective, the value of a policy on the states of another.

        J_μ = Σ_s d_μ(s) i(s) V_π(s)

    Shapes: probs [S, A]; state_weights [S]; result scalar.

    Args:
        mdp: the process.
        probs: [S, A] float, the policy.
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
        mdp: the process, without horizon.
        probs: [S, A] float, the policy.
        state_weights: [S] float, d_μ i.

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
        mdp: the process, without horizon.
        probs: [S, A] float, the policy.
        state_weights: [S] float, d_μ i.

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
        mdp: the process, without horizon.
        logits: [S, A] float, θ; the policy is its softmax.
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
        mdp: the process, without horizon.
        probs: [S, A] float, the policy.
        state_weights: [S] float, d_μ i.

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
        mdp: the process, without horizon.
        logits: [S, A] float, θ; the policy is its softmax.
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


def importance_ratio(probs: Array, behaviour: Array) -> Array:
    """Compute π / μ; zero where the behaviour never acts so.

    Args:
        probs: [S, A] float, the policy π.
        behaviour: [S, A] float, the policy μ that collected the data.

    Returns:
        [S, A] float.
    """
    acts = behaviour > 0
    return jnp.where(acts, probs / jnp.where(acts, behaviour, 1.0), 0.0)


@compiled()
def spectral_radius(matrix: Array) -> Array:
    """Compute the largest modulus of the eigenvalues of a square matrix, on any backend.

        ρ(M) = lim_k ‖M^k‖^{1/k},  along k = 2^n, rescaled at each squaring

    Shapes: matrix [N, N]; result scalar.

    Args:
        matrix: [N, N] float.

    Returns:
        Scalar float, to rounding error; 0 for a nilpotent matrix.

    Raises:
        TypeError: if matrix is not floating.
        ValueError: if matrix is not square.

    References:
        Gelfand (1941), Normierte Ringe.
    """
    matrix = _checks.floating("matrix", matrix, ndim_at_least=2)
    _checks.has_shape("matrix", matrix, (matrix.shape[0], matrix.shape[0]), "[N, N]")

    def square(power: Array, _: None) -> tuple[Array, Array]:
        norm = jnp.linalg.norm(power)
        unit = power / jnp.where(norm > 0, norm, 1.0)
        return unit @ unit, jnp.log(norm)

    # The norm taken at the n-th squaring belongs to the power 2^n, and so counts 2^-n.
    _, logs = jax.lax.scan(square, matrix, length=60)
    return jnp.exp(jnp.sum(logs * 0.5 ** jnp.arange(60, dtype=matrix.dtype)))


@compiled()
def followon_spectral_radius(mdp: TabularMDP, probs: Array, behaviour: Array) -> Array:
    """Compute the factor by which the second moment of the followon trace grows in the long run.

        radius of γ² Σ_a μ(a | s) ρ(s, a)² P(s' | s, a),  ρ = π / μ

    Shapes: probs, behaviour [S, A]; result scalar.

    Args:
        mdp: the process.
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


@compiled()
def vtrace_policy(probs: Array, behaviour: Array, clip_rho: Array | float) -> Array:
    """Compute the policy whose value V-trace learns: the target, clipped towards the behaviour.

        π_ρ̄(a | s) = min(ρ̄ μ(a | s), π(a | s)) / Σ_b min(ρ̄ μ(b | s), π(b | s))    (paper: eq. 3)

    Shapes: probs, behaviour [S, A]; clip_rho scalar; result [S, A].

    Args:
        probs: [S, A] float, the policy π.
        behaviour: [S, A] float, the policy μ that collected the data.
        clip_rho: ρ̄, scalar, above 0; infinity gives π where μ acts, and small values give μ.

    Returns:
        [S, A] float.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes differ.

    References:
        Espeholt et al. (2018), IMPALA, eq. 3.
    """
    probs, behaviour = _checks.floating("probs", probs), _checks.floating("behaviour", behaviour)
    _checks.same_shape("probs", probs.shape, behaviour=behaviour)
    clipped = behaviour * jnp.minimum(clip_rho, importance_ratio(probs, behaviour))
    return clipped / jnp.sum(clipped, axis=-1, keepdims=True)


@compiled()
def vtrace_value(mdp: TabularMDP, probs: Array, behaviour: Array, *, clip_rho: Array | float = 1.0) -> Array:
    """Compute the fixed point of V-trace: the value of `vtrace_policy`, whatever λ and c̄ are.

        V = V^{π_ρ̄}

    Shapes: probs, behaviour [S, A]; result [S].

    Args:
        mdp: the process.
        probs: [S, A] float, the policy π.
        behaviour: [S, A] float, the policy μ that collected the data.
        clip_rho: ρ̄, scalar, above 0.

    Returns:
        [S] float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs or behaviour has not shape [S, A].

    References:
        Espeholt et al. (2018), IMPALA, section 4.1.
    """
    probs, behaviour = checked_policy(mdp, probs), checked_policy(mdp, behaviour, "behaviour")
    return value(mdp, vtrace_policy(probs, behaviour, clip_rho))


@compiled(unit_interval=("lam",))
def gae_bias(mdp: TabularMDP, probs: Array, value_estimate: Array, *, lam: Array | float) -> Array:
    """Compute the bias of generalised advantage estimation with an inexact value function.

        E[Â | s, a] - A(s, a) = -e(s) + γ (1 - λ) Σ_s' P(s' | s, a) [(I - γ λ P_π)^{-1} e](s'),   e = v - V

    Only the part that depends on the action biases the gradient: `critic_gradient` of this is the bias of it.

    Shapes: probs [S, A]; value_estimate [S]; result [S, A].

    Args:
        mdp: the process, without horizon.
        probs: [S, A] float, the policy.
        value_estimate: [S] float, v, reward units; terminal states count as 0 whatever it says.
        lam: λ, scalar in [0, 1]; with 1 the bias depends on the state alone.

    Returns:
        [S, A] float, reward units; zero in terminal states.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if probs has not shape [S, A], value_estimate has not shape [S], lam is a number outside
            [0, 1], or mdp has a horizon.

    References:
        Schulman, Moritz, Levine, Jordan and Abbeel (2016), High-dimensional continuous control using
        generalized advantage estimation (the estimator).
    """
    require_no_horizon(mdp, "gae_bias")
    ended = terminal_states(mdp)
    error = jnp.where(ended, 0.0, checked_states(mdp, value_estimate, "value_estimate") - value(mdp, probs))
    carry = mdp.discount * lam * running_transition(mdp, checked_policy(mdp, probs))
    ahead = jnp.linalg.solve(identity_minus(carry), error)
    bias = mdp.discount * (1.0 - lam) * (mdp.transition @ ahead) - error[:, None]
    return jnp.where(ended[:, None], 0.0, bias)
