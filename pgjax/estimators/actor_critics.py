"""Estimators that train an actor and a critic together."""

from typing import Any

import jax

from pgjax._types import Params, Policy, Trajectory, Value
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import log_prob_taken, weighted
from pgjax.losses import entropy_loss, policy_gradient_loss, value_loss
from pgjax.returns import bootstrap_values, gae
from pgjax.rollout import apply_policy

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
    entropy_coef: Array | float = 0.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
) -> Surrogate:
    """Estimate the gradient of an actor and a critic together from one window: a descent direction.

        L = -1/B Σ_b Σ_t [w_t stop(A_t) log π(a_t|s_t) - c_v ½ (V(s_t) - stop(A_t + v_t))² + c_e H(π(·|s_t))]

    with A the generalised advantage estimate. λ = 1 gives the advantage actor-critic, λ = 0 the one-step one.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the value function, shared or side by side in one pytree.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        value: value(params, obs) -> [...] float, reward units; static.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ, scalar or [T, B], in [0, 1].
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; 0 asks for no entropy.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B].

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
    values, next_values = bootstrap_values(params, trajectory, value=value, last_obs=last_obs)
    advantage = gae(
        trajectory.reward,
        values,
        next_values,
        terminated=trajectory.terminated,
        truncated=trajectory.truncated,
        discount=discount,
        lam=lam,
    )
    targets = {
        "advantage": advantage,
        "weight": weighted(advantage, step_weight),
        "value_target": advantage + values,
    }
    entropy_wanted = not (isinstance(entropy_coef, (int, float)) and entropy_coef == 0)

    def loss(params: Params, trajectory: Trajectory, targets: Any, state: Any) -> Array:
        distribution = apply_policy(policy, params, trajectory.obs, None)[0]
        total = policy_gradient_loss(log_prob_taken(distribution, trajectory), targets["weight"])
        total += value_coef * value_loss(value(params, trajectory.obs), targets["value_target"])
        return total + entropy_coef * entropy_loss(distribution.entropy()) if entropy_wanted else total

    return Surrogate(loss, targets, mask)
