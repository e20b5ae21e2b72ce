"""Critics: the value that V-trace converges to, and the bias that an inexact value leaves in GAE."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy, checked_states, require_no_horizon
from pgjax.exact.tabular._equations import identity_minus, importance_ratio, running_transition
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.values import value

Array = jax.Array


@compiled()
def vtrace_policy(probs: Array, behaviour: Array, clip_rho: Array | float) -> Array:
    """Compute the policy whose value V-trace converges to: the target, clipped towards the behaviour.

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
    probs, behaviour = _checks.as_floating("probs", probs), _checks.as_floating("behaviour", behaviour)
    _checks.require_same_shape("probs", probs.shape, behaviour=behaviour)
    clipped = behaviour * jnp.minimum(clip_rho, importance_ratio(probs, behaviour))
    return clipped / jnp.sum(clipped, axis=-1, keepdims=True)


@compiled()
def vtrace_value(mdp: TabularMDP, probs: Array, behaviour: Array, *, clip_rho: Array | float = 1.0) -> Array:
    """Compute the fixed point of V-trace: the value of `vtrace_policy`, the same for all λ and c̄.

        V = V^{π_ρ̄}

    Shapes: probs, behaviour [S, A]; result [S].

    Args:
        mdp: the process, a `TabularMDP`.
        probs, behaviour, clip_rho: as for `vtrace_policy`.

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

    Only the part that depends on the action biases the gradient, by `critic_gradient` of this.

    Shapes: probs [S, A]; value_estimate [S]; result [S, A].

    Args:
        mdp, probs: as for `value`; without horizon.
        value_estimate: [S] float, v, reward units; its entries for terminal states are not used.
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
