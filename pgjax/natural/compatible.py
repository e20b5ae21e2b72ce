"""Compatible features: the scores of a policy as the features of its critic."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.natural._conjugate import conjugate_gradients
from pgjax.natural.fisher import score_vector_product
from pgjax.rollout.policies import apply_policy

Array = jax.Array

__all__ = ["compatible_features", "compatible_value", "deterministic_compatible_value", "fit_compatible_critic"]


@compiled()
def compatible_features(params: Params, obs: Any, action: Any, *, policy: Policy) -> Params:
    """Compute the score of an action, the features with which a critic is compatible with the policy.

        ψ(s, a) = ∇ log π(a | s)

    Shapes: obs [..., *obs], action [..., *event]; leaves of the result [..., *leaf].

    Args:
        params: parameters of the policy.
        obs: states.
        action: actions, of the shape of the policy's distribution.
        policy: policy(params, obs) -> distribution or (distribution, extras).

    Returns:
        A pytree like params with the batch axes of the distribution in front.

    Raises:
        TypeError: if the policy gives no distribution.

    Properties:
        Their mean under the policy is 0 in each state: a critic that is linear in them is one of advantages. Memory:
        rows times parameters, which `compatible_value` does not need.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.natural.compatible_features(jnp.zeros(2), jnp.ones((1, 1)), jnp.array([1]), policy=policy))
        [[-0.5  0.5]]

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with function
        approximation, theorem 2.
    """

    def log_prob(params: Params) -> Array:
        return apply_policy(policy, params, obs, None)[0].log_prob(action)

    rows, forward = jax.linearize(log_prob, params)
    backward = jax.linear_transpose(forward, params)
    identity = jnp.eye(rows.size, dtype=rows.dtype).reshape(rows.size, *rows.shape)
    features = jax.vmap(lambda row: backward(row)[0])(identity)
    return jax.tree.map(lambda x: x.reshape(*rows.shape, *x.shape[1:]), features)


@compiled()
def compatible_value(
    weights: Params, params: Params, trajectory: Trajectory, *, policy: Policy, state: RolloutState | None = None
) -> Array:
    """Compute what a compatible critic says of the actions that were taken.

        wᵀ ψ_t,   ψ_t = ∇ log π(a_t | s_t)

    Shapes: trajectory leaves [T, B, ...]; result [T, B].

    Args:
        weights: w, like params.
        params: parameters of the policy.
        trajectory: the window.
        policy: policy(params, obs) -> distribution or (distribution, extras); a recurrent one as in `rollout`.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        [T, B] float, an advantage, reward units.

    Raises:
        TypeError: if the policy gives no distribution.
        ValueError: if weights are not like params.

    References:
        Sutton, McAllester, Singh and Mansour (1999), Policy gradient methods for reinforcement learning with function
        approximation, theorem 2.
    """
    _checks.require_same_structure("weights", weights, params, of="params")

    def log_prob(params: Params) -> Array:
        return log_prob_taken(action_distribution(params, trajectory, policy=policy, state=state), trajectory)

    return jax.jvp(log_prob, (params,), (weights,))[1]


@compiled()
def deterministic_compatible_value(
    weights: Params, params: Params, obs: Any, *, action: Array, policy: Policy
) -> tuple[Array, Array]:
    """Compute what a critic says of an action that is compatible with a deterministic policy, and its slope.

        A_w(s, a) = (a - μ_θ(s))ᵀ J w,   ∇_a A_w = J w,   J = ∂μ_θ(s)/∂θ

    Shapes: obs [..., *obs], action [..., D]; results [...] and [..., D].

    Args:
        weights: w, like params; differentiable.
        params: θ, parameters of the policy.
        obs: states.
        action: actions, action units.
        policy: policy(params, obs) -> distribution or (distribution, extras); its mode is μ.

    Returns:
        (A_w, the slope J w): an advantage in reward units, and reward units for each action unit.

    Raises:
        TypeError: if the policy gives no distribution, or action is not floating.
        ValueError: if weights are not like params, or action has not the shape of the policy's.

    Properties:
        Linear in w. Where its slope is the projection of that of the true Q onto the directions J in which the policy
        can move, Jᵀ J w in place of Jᵀ ∇_a Q leaves the deterministic policy gradient as it is; w itself is then its
        natural gradient.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> policy = lambda gain, obs: pg.exploration.Deterministic(gain * obs)
        >>> obs, action = jnp.ones((1, 1)), jnp.full((1, 1), 5.0)
        >>> weights, gain = jnp.array(3.0), jnp.array(1.0)
        >>> print(*pg.natural.deterministic_compatible_value(weights, gain, obs, action=action, policy=policy))
        [12.] [[3.]]

    References:
        Silver, Lever, Heess, Degris, Wierstra and Riedmiller (2014), Deterministic policy gradient algorithms,
        theorem 3.
    """
    _checks.require_same_structure("weights", weights, params, of="params")
    action = _checks.as_floating("action", action)
    mean, slope = jax.jvp(lambda params: apply_policy(policy, params, obs, None)[0].mode(), (params,), (weights,))
    _checks.require_shape("action", action, mean.shape, of="the policy's action")
    return jnp.sum((action - mean) * slope, axis=-1), slope


@compiled("num_iters")
def fit_compatible_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    advantage: Array,
    num_iters: int = 10,
    damping: Array | float = 1e-3,
    state: RolloutState | None = None,
) -> Params:
    """Fit an advantage by the scores of the actions that were taken, in least squares.

        w = argmin mean_t,b (A_t - wᵀ ψ_t)² + ξ |w|²  =  (mean ψψᵀ + ξ)⁻¹ mean ψ A

    Shapes: trajectory leaves [T, B, ...], advantage [T, B]; result like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; its actions must be those of the policy itself.
        policy: policy(params, obs) -> distribution or (distribution, extras); a recurrent one as in `rollout`.
        advantage: A, [T, B] float, reward units.
        num_iters: iterations of conjugate gradients.
        damping: ξ.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        w, like params: an ascent direction, the natural gradient with the Fisher matrix of the sample.

    Raises:
        TypeError: if advantage is not floating, or num_iters is not an int.
        ValueError: if advantage is not [T, B], or num_iters < 1.

    Properties:
        With exact advantages, and states and actions of the policy's own distribution, F w = (1 - γ) ∇J, and wᵀψ in
        place of A leaves the policy gradient as it is.

    References:
        Kakade (2001), A natural policy gradient.
        Peters and Schaal (2008), Natural actor-critic.
    """
    num_iters = _checks.as_positive_int("num_iters", num_iters)
    _checks.require_shape("advantage", advantage, trajectory.reward.shape, of="trajectory.reward")
    advantage = jax.lax.stop_gradient(_checks.as_floating("advantage", advantage))

    def correlation(params: Params) -> Array:
        distribution = action_distribution(params, trajectory, policy=policy, state=state)
        return jnp.mean(advantage * log_prob_taken(distribution, trajectory))

    product = score_vector_product(params, trajectory, policy=policy, state=state)
    damped = lambda v: jax.tree.map(lambda f, x: f + damping * x, product(v), v)  # noqa: E731
    return conjugate_gradients(damped, jax.grad(correlation)(params), num_iters=num_iters)
