"""Actor-critics whose advantages come from other returns than the λ-return: n steps, and upgoing."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._ratios import ratio_of
from pgjax._types import Params, Policy, RolloutState, Trajectory, Value
from pgjax.estimators.actor_critics import joint_loss
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import log_prob_taken, policy_and_value, values_and_next, weighted
from pgjax.returns import lambda_returns, n_step_returns, upgo

Array = jax.Array


@estimator("n", unit_interval=("discount",))
def n_step_actor_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    n: int,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of an actor and a critic from n-step returns: a descent direction.

        L = -1/B Σ_b Σ_t [w_t (G_t - V(s_t)) log π(a_t|s_t) - c_v ½ (V(s_t) - G_t)² + c_e H(π(·|s_t))]
        G_t = Σ_{k<m} γ^k r_{t+k} + γ^m V(s_{t+m}),   m = min(n, steps to the next cut),   G - V and G constants

    n = 1 is the one-step actor-critic, `actor_critic` with λ = 0. With n at least the length of the window it is the
    advantage actor-critic (A2C), in which each step looks to the end of the window: `actor_critic` with λ = 1.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        As `actor_critic`, but in place of lam:
        n: rewards before the bootstrap, at least 1, environment steps; static.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B], and whose metrics are those of `actor_critic`.

    Raises:
        TypeError: if n is not an int, a mask is not boolean, an array not floating, or the policy returns no
            distribution.
        ValueError: if n < 1, shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        With the error e = V - V^π of the value function, the actor's part errs by w_t γ^m E[e(s_{t+m}) ∇log π] at each
        step: it is unbiased for the discounted objective with w = γ^t where V is exact, or n reaches the end of every
        episode. The mixture Σ_n (1 - λ) λ^(n-1) of the gradients over all n is that of `actor_critic` with λ.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> grads, info = pg.n_step_actor_critic(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     value=lambda params, obs: 2.0 + 0.0 * obs[..., 0], discount=0.5, n=2)
        >>> print(info.targets["value_target"][:, 0], grads)
        [2. 2.] [0. 0.]

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 7.1.
    """
    values, next_values = values_and_next(params, trajectory, policy, value, state, last_obs)
    ends: dict[str, Any] = {"terminated": trajectory.terminated, "truncated": trajectory.truncated}
    target = n_step_returns(trajectory.reward, next_values, **ends, discount=discount, n=n)
    advantage = target - values
    targets = {"advantage": advantage, "weight": weighted(advantage, step_weight), "value_target": target}
    return Surrogate(joint_loss(policy, value, value_coef, entropy_coef), targets, mask, state)


@estimator(unit_interval=("discount", "lam"))
def upgo_actor_critic(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip_pg_rho: Array | float | None = None,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of an actor from upgoing returns, and of a critic from λ-returns: a descent direction.

        L = -1/B Σ_b Σ_t [w_t ρ_t (G_t - V(s_t)) log π(a_t|s_t) - c_v ½ (V(s_t) - v_t)² + c_e H(π(·|s_t))]
        G_t = r_t + γ G_{t+1}  if r_{t+1} + γ V(s_{t+2}) >= V(s_{t+1}),  else  r_t + γ V(s_{t+1})

    The actor learns from what went better than expected, and bootstraps where it went worse. v is the λ-return, since
    a critic that learnt G would expect too much; ρ_t = min(clip_pg_rho, π/μ), and all of them are constants.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        As `actor_critic`, and:
        lam: λ of the critic's target alone, scalar or [T, B], in [0, 1].
        clip_pg_rho: bound of the ratio to the policy that acted, as `trajectory.log_prob` tells; None means ρ = 1, for
            data of the policy itself.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `advantage`, `weight` and `value_target` [T, B], and whose metrics are those of `actor_critic`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        Biased upwards by construction, for an exact value function too. A value far below what can be earned makes the
        actor's part that of `actor_critic` with λ = 1, one far above that with λ = 0.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> grads, info = pg.upgo_actor_critic(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     value=lambda params, obs: 9.0 + 0.0 * obs[..., 0], discount=0.5)
        >>> print(info.targets["advantage"][:, 0], info.targets["value_target"][:, 0])
        [-3.5 -3.5] [3.75 5.5 ]

    References:
        Vinyals et al. (2019), Grandmaster level in StarCraft II using multi-agent reinforcement learning.
    """
    distribution, values = policy_and_value(params, trajectory, policy, value, state)
    _, next_values = values_and_next(params, trajectory, policy, value, state, last_obs)
    ends = {"terminated": trajectory.terminated, "truncated": trajectory.truncated}
    window: dict[str, Any] = {**ends, "discount": discount}
    advantage = upgo(trajectory.reward, values, next_values, **window) - values
    weight = weighted(advantage, step_weight)
    if clip_pg_rho is not None:
        ratio = ratio_of(log_prob_taken(distribution, trajectory) - trajectory.log_prob)
        weight = jnp.minimum(ratio, clip_pg_rho) * weight
    targets = {
        "advantage": advantage,
        "weight": weight,
        "value_target": lambda_returns(trajectory.reward, next_values, **window, lam=lam),
    }
    return Surrogate(joint_loss(policy, value, value_coef, entropy_coef), targets, mask, state)
