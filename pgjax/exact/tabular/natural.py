"""The Fisher matrix, the natural gradient and the compatible critic, by explicit matrices."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax._compile import compiled
from pgjax._types import Params
from pgjax.exact.tabular._arguments import checked_logits, checked_policy, require_no_horizon
from pgjax.exact.tabular.gradients import policy_gradient_of
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.scores import PolicyProbs, score_of
from pgjax.exact.tabular.values import advantage, visitation

Array = jax.Array


def _state_distribution(mdp: TabularMDP, probs: Array) -> Array:
    """Normalised discounted visits d̄; zero in terminal states, where no action is chosen.

    With discount 1 a terminal state would take all of the mass; there the others share it.
    """
    visits = visitation(mdp, probs)
    total = jnp.sum(jnp.where(jnp.isfinite(visits), visits, 0.0))
    return jnp.where(terminal_states(mdp), 0.0, visits) / total


@compiled("policy_probs")
def fisher_matrix_of(mdp: TabularMDP, params: Params, policy_probs: PolicyProbs) -> Array:
    """Compute the Fisher matrix of any differentiable policy under its own discounted state distribution.

        F = Σ_s d̄(s) Σ_a π(a | s) ψ(s, a) ψ(s, a)ᵀ,  d̄ = d / Σ_s d(s)

    Shapes: result [P, P], P the number of parameters.

    Args:
        mdp, params, policy_probs: as for `policy_gradient_of`.

    Returns:
        [P, P] float, symmetric and positive semidefinite; axes are params raveled.

    Raises:
        TypeError: if policy_probs is not a function or its result is not floating.
        ValueError: if its result has not shape [S, A].

    References:
        Kakade (2001), A natural policy gradient.
    """
    score = score_of(params, policy_probs)
    probs = checked_policy(mdp, policy_probs(params), "policy_probs(params)")
    return jnp.einsum("s,sa,sap,saq->pq", _state_distribution(mdp, probs), probs, score, score)


@compiled()
def fisher_matrix(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the Fisher matrix of a tabular softmax policy under its own discounted state distribution.

        F(sa, s'b) = 1[s = s'] d̄(s) (π(a | s) 1[a = b] - π(a | s) π(b | s)),  d̄ = d / Σ_s d(s)

    Shapes: logits [S, A]; result [S, A, S, A].

    Args:
        mdp, logits: as for `policy_gradient`.

    Returns:
        [S, A, S, A] float; singular: a constant added to the logits of a state changes nothing.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].

    References:
        Kakade (2001), A natural policy gradient.
    """
    logits, _ = checked_logits(mdp, logits)
    return fisher_matrix_of(mdp, logits, jax.nn.softmax).reshape(logits.shape * 2)


@compiled("policy_probs")
def natural_gradient_of(mdp: TabularMDP, params: Params, policy_probs: PolicyProbs) -> Params:
    """Compute the natural gradient of the objective for any differentiable policy (ascent).

        F⁺ ∇J,  F⁺ the pseudo-inverse of the Fisher matrix

    Shapes: result like params.

    Args:
        mdp, params, policy_probs: as for `policy_gradient_of`; a matrix of P by P parameters is built.

    Returns:
        A pytree like params.

    Raises:
        TypeError: if policy_probs is not a function or its result is not floating.
        ValueError: if its result has not shape [S, A].

    Properties:
        The policy moves in the same direction however it is parametrised.

    References:
        Kakade (2001), A natural policy gradient.
    """
    gradient, unravel = ravel_pytree(policy_gradient_of(mdp, params, policy_probs))
    return unravel(jnp.linalg.pinv(fisher_matrix_of(mdp, params, policy_probs), hermitian=True) @ gradient)


@compiled()
def natural_gradient(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the natural gradient of the objective for a tabular softmax policy (ascent).

        F⁺ ∇J = (A - mean_a A) / (1 - γ)  in every state that is visited

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`.

    Returns:
        [S, A] float.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].

    References:
        Kakade (2001), A natural policy gradient.
        Agarwal, Kakade, Lee and Mahajan (2021), On the theory of policy gradient methods.
    """
    logits, _ = checked_logits(mdp, logits)
    return natural_gradient_of(mdp, logits, jax.nn.softmax)


@compiled("policy_probs")
def compatible_critic_of(mdp: TabularMDP, params: Params, policy_probs: PolicyProbs) -> Params:
    """Fit the advantage by the scores, in least squares under the policy's own distribution.

        w = argmin_w Σ_s d̄(s) Σ_a π(a | s) [A(s, a) - wᵀ ψ(s, a)]²

    Shapes: result like params.

    Args:
        mdp, params, policy_probs: as for `policy_gradient_of`; without horizon.

    Returns:
        A pytree like params, the weights of least norm.

    Raises:
        TypeError: if policy_probs is not a function or its result is not floating.
        ValueError: if its result has not shape [S, A] or mdp has a horizon.

    Properties:
        wᵀψ in place of A leaves the policy gradient exact, and w is the natural gradient times 1 - γ.

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, theorem 2.
    """
    require_no_horizon(mdp, "compatible_critic")
    _, unravel = ravel_pytree(params)
    score = score_of(params, policy_probs)
    probs = checked_policy(mdp, policy_probs(params), "policy_probs(params)")
    scale = jnp.sqrt(_state_distribution(mdp, probs)[:, None] * probs)
    features, target = scale[..., None] * score, scale * advantage(mdp, probs)
    weights, *_ = jnp.linalg.lstsq(features.reshape(-1, features.shape[-1]), target.ravel())
    return unravel(weights)


@compiled()
def compatible_critic(mdp: TabularMDP, logits: Array) -> Array:
    """Fit the advantage by the scores of a tabular softmax policy, in least squares.

        w = argmin_w Σ_s d̄(s) Σ_a π(a | s) [A(s, a) - wᵀ ψ(s, a)]²

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`; without horizon.

    Returns:
        [S, A] float, the weights of least norm.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A] or mdp has a horizon.

    Properties:
        See `compatible_critic_of`.

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, theorem 2.
    """
    logits, _ = checked_logits(mdp, logits)
    return compatible_critic_of(mdp, logits, jax.nn.softmax)
