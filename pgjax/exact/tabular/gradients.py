"""The exact gradient of the objective of a tabular process, in all its forms.

Everything here is an *ascent* direction, the gradient of the objective itself.

An objective J enters through its *sensitivity* w(s, a), its derivative with respect to the probability
π(a | s) up to a constant in each state, which cancels because probabilities sum to one. The gradient for
any policy is then Σ_{s,a} w(s, a) ∇π(a | s): the policy gradient theorem is the statement that
w(s, a) = d(s) A(s, a), without a derivative of d.
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params
from pgjax.exact.tabular._arguments import checked_logits, checked_policy
from pgjax.exact.tabular._equations import identity_minus, running_transition, running_visitation, softmax_pull_back
from pgjax.exact.tabular.chain import state_transition
from pgjax.exact.tabular.horizon import advantages_over_time, visitation_over_time
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.tabular.scores import PolicyProbs
from pgjax.exact.tabular.values import advantage, objective

Array = jax.Array


@compiled()
def sensitivity(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the sensitivity of the objective to the probability of each action.

        w(s, a) = d(s) A(s, a)            without horizon, d the discounted visits
        w(s, a) = Σ_t d_t(s) A_t(s, a)    with horizon

    Shapes: probs [S, A]; result [S, A].

    Args:
        mdp, probs: as for `value`.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, theorem 1.
    """
    if mdp.horizon is None:
        return running_visitation(mdp, probs)[:, None] * advantage(mdp, probs)
    return jnp.einsum("ts,tsa->sa", visitation_over_time(mdp, probs), advantages_over_time(mdp, probs))


@compiled()
def policy_gradient(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the gradient of the objective for a tabular softmax policy (ascent), by the policy gradient theorem.

        ∇J = Σ_s d(s) Σ_a ∇π(a | s) A(s, a);  ∂J/∂θ(s, a) = d(s) π(a | s) A(s, a)

    With a horizon, the sum over its steps. With discount 1, the gradient of the episodic objective.

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp: the process, a `TabularMDP`.
        logits: [S, A] float, θ; the policy is its softmax.

    Returns:
        [S, A] float, ∇J, reward units; rows sum to zero.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].

    Properties:
        Equal to `policy_gradient_autodiff` and `policy_gradient_unrolled`. Differentiable. One solve of size S.

    Example:
        >>> import jax.numpy as jnp, pgjax.exact as exact
        >>> print(exact.policy_gradient(exact.two_state(), jnp.zeros((2, 2))).round().astype(int).tolist())
        [[1, -1], [-3, 3]]

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, theorem 1.
    """
    _, probs = checked_logits(mdp, logits)
    return softmax_pull_back(probs, sensitivity(mdp, probs))


@compiled()
def policy_gradient_autodiff(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the gradient of the objective for a tabular softmax policy (ascent), by differentiating the solve.

        ∇J = ∇_θ μ_0ᵀ (I - γ P_π)^{-1} r_π

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`.

    Returns:
        [S, A] float, ∇J, reward units.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].
    """
    logits, _ = checked_logits(mdp, logits)
    return jax.grad(lambda x: objective(mdp, jax.nn.softmax(x)))(logits)


@compiled("num_steps")
def value_gradient(mdp: TabularMDP, logits: Array, *, num_steps: int | None = None) -> Array:
    """Compute the gradient of the value of every state by unrolling its own recursion (ascent).

        ∇V(s) = φ(s) + γ Σ_x P_π(x | s) ∇V(x) = Σ_k γ^k Σ_x ρ(s → x, k) φ(x),   φ(x) = Σ_a ∇π(a | x) Q(x, a)

    Shapes: logits [S, A]; result [S, S, A].

    Args:
        mdp, logits: as for `policy_gradient`.
        num_steps: the number of terms of the sum, k < num_steps; None takes all of them: H with a horizon,
            otherwise infinitely many, as the fixed point of the recursion; static.

    Returns:
        [S, S, A] float, row s the gradient of V(s), reward units.

    Raises:
        TypeError: if logits is not floating or num_steps is not an int.
        ValueError: if logits has not shape [S, A], or num_steps < 1 or exceeds the horizon.

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with
        function approximation, proof of theorem 1.
    """
    _, probs = checked_logits(mdp, logits)
    if num_steps is not None:
        _checks.as_positive_int("num_steps", num_steps)
    chain = running_transition(mdp, probs) if mdp.horizon is None else state_transition(mdp, probs)
    if mdp.horizon is None:
        sources = _states_to_logits(softmax_pull_back(probs, advantage(mdp, probs)))
        if num_steps is None:
            return jnp.einsum("sx,xyb->syb", jnp.linalg.inv(identity_minus(mdp.discount * chain)), sources)
        sources = jnp.broadcast_to(sources, (num_steps, *sources.shape))
    else:
        steps = mdp.horizon if num_steps is None else num_steps
        if steps > mdp.horizon:
            raise ValueError(f"num_steps must not exceed mdp.horizon={mdp.horizon}, got {steps}.")
        advantages = advantages_over_time(mdp, probs)[:steps]
        sources = jax.vmap(lambda a: _states_to_logits(softmax_pull_back(probs, a)))(advantages)

    def unroll(gradient: Array, source: Array) -> tuple[Array, None]:
        return source + mdp.discount * jnp.einsum("sx,xyb->syb", chain, gradient), None

    return jax.lax.scan(unroll, jnp.zeros_like(sources[0]), sources, reverse=True)[0]


def _states_to_logits(source: Array) -> Array:
    """[S, A] -> [S, S, A]: the source of state x only moves the logits of x."""
    return jnp.eye(source.shape[0], dtype=source.dtype)[:, :, None] * source[:, None, :]


@compiled("num_steps")
def policy_gradient_unrolled(mdp: TabularMDP, logits: Array, *, num_steps: int | None = None) -> Array:
    """Compute the gradient of the objective for a tabular softmax policy (ascent), by the unrolled recursion.

        ∇J = Σ_s μ_0(s) Σ_k γ^k Σ_x ρ(s → x, k) Σ_a ∇π(a | x) Q(x, a)

    Shapes: logits [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`.
        num_steps: the number of terms, see `value_gradient`; None takes all of them; static.

    Returns:
        [S, A] float, ∇J, reward units.

    Raises:
        TypeError: if logits is not floating or num_steps is not an int.
        ValueError: if logits has not shape [S, A], or num_steps < 1 or exceeds the horizon.
    """
    return jnp.einsum("s,syb->yb", mdp.initial, value_gradient(mdp, logits, num_steps=num_steps))


@compiled("policy_probs")
def policy_gradient_of(
    mdp: TabularMDP, params: Params, policy_probs: PolicyProbs, *, weights: Array | None = None
) -> Params:
    """Compute the gradient of an objective for any differentiable policy (ascent).

        ∇J = Σ_{s,a} w(s, a) ∇π(a | s),  w the sensitivity of the objective

    Shapes: weights [S, A]; result like params.

    Args:
        mdp: the process, a `TabularMDP`.
        params: any pytree of parameters.
        policy_probs: params -> [S, A] float, probabilities; states may share parameters. Static.
        weights: [S, A] float, w; None is `sensitivity`, that of the process's own objective. Others are
            `average_reward_sensitivity`, `dropped_discount_sensitivity`, `off_pac_sensitivity`, `emphatic_sensitivity`.

    Returns:
        A pytree like params, ∇J, reward units per unit of the parameter.

    Raises:
        TypeError: if policy_probs is not a function or its result is not floating.
        ValueError: if its result or weights has not shape [S, A].

    Example:
        >>> import jax, jax.numpy as jnp, pgjax.exact as exact
        >>> shared = lambda params: jnp.tile(jax.nn.softmax(params), (2, 1))
        >>> print(exact.policy_gradient_of(exact.two_state(), jnp.zeros(2), shared).round(3))
        [-2.467  2.467]
    """
    _checks.require_callable("policy_probs", policy_probs)
    probs, pull_back = jax.vjp(policy_probs, params)
    probs = checked_policy(mdp, probs, "policy_probs(params)")
    weights = sensitivity(mdp, probs) if weights is None else checked_policy(mdp, weights, "weights")
    return pull_back(weights.astype(probs.dtype))[0]


@compiled()
def critic_gradient(mdp: TabularMDP, logits: Array, action_value: Array) -> Array:
    """Compute what the policy gradient becomes when a critic takes the place of Q (ascent).

        g = Σ_s d(s) Σ_a ∇π(a | s) Q̂(s, a)

    With a horizon, d sums the visits of all steps. Linear in the critic: given the error of a critic, it returns the
    bias of the gradient.

    Shapes: logits, action_value [S, A]; result [S, A].

    Args:
        mdp, logits: as for `policy_gradient`.
        action_value: [S, A] float, Q̂ or an advantage, reward units.

    Returns:
        [S, A] float, reward units.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if an array has not shape [S, A].
    """
    _, probs = checked_logits(mdp, logits)
    action_value = checked_policy(mdp, action_value, "action_value")
    visits = jnp.sum(visitation_over_time(mdp, probs), 0) if mdp.horizon else running_visitation(mdp, probs)
    return softmax_pull_back(probs, visits[:, None] * action_value)


@compiled()
def policy_hessian(mdp: TabularMDP, logits: Array) -> Array:
    """Compute the second derivative of the objective for a tabular softmax policy.

        H = ∇²_θ μ_0ᵀ (I - γ P_π)^{-1} r_π

    Shapes: logits [S, A]; result [S, A, S, A].

    Args:
        mdp, logits: as for `policy_gradient`.

    Returns:
        [S, A, S, A] float, reward units; symmetric under exchange of the two pairs.

    Raises:
        TypeError: if logits is not floating.
        ValueError: if logits has not shape [S, A].
    """
    logits, _ = checked_logits(mdp, logits)
    return jax.hessian(lambda x: objective(mdp, jax.nn.softmax(x)))(logits)
