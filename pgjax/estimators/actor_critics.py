"""Estimators that train an actor and a critic together."""

from typing import Any

import jax

from pgjax._types import Params, Policy, RolloutState, Trajectory, Value
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import log_prob_taken, policy_and_value, values_and_next, weighted
from pgjax.losses import entropy_loss, policy_gradient_loss, value_loss
from pgjax.returns import gae, vtrace

Array = jax.Array


@estimator(unit_interval=("discount", "lam"))
def actor_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of an actor and a critic together from one window: a descent direction.

        L = -1/B Σ_b Σ_t [w_t stop(A_t) log π(a_t|s_t) - c_v ½ (V(s_t) - stop(A_t + v_t))² + c_e H(π(·|s_t))]

    with A the generalised advantage estimate. λ = 1 gives the advantage actor-critic, λ = 0 the one-step one.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the value function, shared or side by side in one pytree.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        value: value(params, obs) -> [...] float, reward units.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ, scalar or [T, B], in [0, 1].
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; None leaves it out, so that the distribution
            needs none.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.
        state: for a recurrent policy, the state that the rollout started from. Such a policy returns its value as its
            extras, and value(params, obs, policy_state) takes the memory from before obs.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B], and whose metrics hold the means of `policy_loss`,
        `value_loss` and, with an entropy_coef, `entropy`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        The actor's part is unbiased for the discounted objective with whole episodes, λ = 1 and w = γ^t, for any value
        function; with λ < 1 it is biased unless V is exact. The critic's part is a semi-gradient. An entropy
        bonus changes the objective. Truncated episodes are bootstrapped from their true last observation.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> value = lambda params, obs: params * obs[..., 0]
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.actor_critic(1.0, trajectory, policy=policy, value=value, discount=0.99, lam=0.95)
        >>> info.targets["advantage"].shape
        (8, 4)

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
        Schulman et al. (2016), High-dimensional continuous control using generalized advantage estimation, eq. 16.
    """
    values, next_values = values_and_next(params, trajectory, policy, value, state, last_obs)
    advantage = gae(
        trajectory.reward,
        values,
        next_values,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        discount=discount,
        lam=lam,
    )
    targets = {"advantage": advantage, "weight": weighted(advantage, step_weight), "value_target": advantage + values}
    return Surrogate(joint_loss(policy, value, value_coef, entropy_coef), targets, mask, state)


@estimator(unit_interval=("discount", "lam"))
def vtrace_actor_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip_rho: Array | float = 1.0,
    clip_c: Array | float = 1.0,
    clip_pg_rho: Array | float = 1.0,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of an actor and a critic from data of another policy, by V-trace: a descent direction.

        L = -1/B Σ_b Σ_t [w_t ρ_t (r_t + γ v_{t+1} - V(s_t)) log π(a_t|s_t) - c_v ½ (V(s_t) - v_t)² + c_e H(π(·|s_t))]

    with v the V-trace targets, ρ_t = min(clip_pg_rho, π(a_t|s_t) / μ(a_t|s_t)), all of them constants, and
    μ the policy that acted, as `trajectory.log_prob` tells.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the value function.
        trajectory: the window, of an older or another policy; each column is one trajectory.
        policy: as for `actor_critic`.
        value: as for `actor_critic`.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ, scalar or [T, B], in [0, 1].
        clip_rho: bound of the ratios that weigh temporal differences; decides what value function is learnt.
        clip_c: bound of the ratios that carry them back; decides how fast.
        clip_pg_rho: bound of the ratios in the policy gradient.
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; None leaves it out.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B], and whose metrics are those of `actor_critic`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        With data of the policy itself, λ = 1 and bounds of at least 1, it is `actor_critic` with λ = 1. Actions are
        corrected for, the states in which they were taken are not: without bounds the actor's part is unbiased for the
        sum over the states that the acting policy visits; with bounds it is biased.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(
        ...     x[..., None], no.astype(int), x, x[..., None], ~no, no, jnp.log(0.5 * x), no.astype(int))
        >>> grads, info = pg.vtrace_actor_critic(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     value=lambda params, obs: 0.0 * obs[..., 0], discount=0.9)
        >>> print(grads)
        [-1.  1.]

    References:
        Espeholt et al. (2018), IMPALA: scalable distributed deep-RL with importance weighted actor-learner
        architectures.
    """
    distribution, values = policy_and_value(params, trajectory, policy, value, state)
    _, next_values = values_and_next(params, trajectory, policy, value, state, last_obs)
    value_target, advantage = vtrace(
        trajectory.reward,
        values,
        next_values,
        log_ratio=log_prob_taken(distribution, trajectory) - trajectory.log_prob,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        discount=discount,
        lam=lam,
        clip_rho=clip_rho,
        clip_c=clip_c,
        clip_pg_rho=clip_pg_rho,
    )
    targets = {"advantage": advantage, "weight": weighted(advantage, step_weight), "value_target": value_target}
    return Surrogate(joint_loss(policy, value, value_coef, entropy_coef), targets, mask, state)


def joint_loss(policy: Policy, value: Value, value_coef: Array | float, entropy_coef: Array | float | None) -> Any:
    """Make what an actor and a critic minimise together, given the targets.

    Args:
        policy: policy(params, obs) -> distribution or (distribution, extras).
        value: value(params, obs) -> [...] float, reward units.
        value_coef: weight of the critic's loss, per reward unit.
        entropy_coef: weight of the entropy, reward units per nat; None leaves it out.

    Returns:
        The loss of a `Surrogate` whose targets hold `weight` and `value_target`, [T, B].
    """

    def loss(params: Params, trajectory: Trajectory, targets: Any, state: Any) -> tuple[Array, dict[str, Array]]:
        distribution, values = policy_and_value(params, trajectory, policy, value, state)
        metrics = {
            "policy_loss": policy_gradient_loss(log_prob_taken(distribution, trajectory), targets["weight"]),
            "value_loss": value_loss(values, targets["value_target"]),
        }
        total = metrics["policy_loss"] + value_coef * metrics["value_loss"]
        if entropy_coef is not None:
            metrics["entropy"] = distribution.entropy()
            total += entropy_coef * entropy_loss(metrics["entropy"])
        return total, metrics

    return loss
