"""Estimators that multiply scores by what was earned: no critic is needed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, weighted
from pgjax.losses import policy_gradient_loss
from pgjax.returns import affine_recurrence, discount_weight, discounted_returns

Array = jax.Array
Baseline = Array | float | Callable[[Array], Array]


@estimator(unit_interval=("discount",))
def reinforce(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    step_weight: Array | None = None,
    next_value: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by REINFORCE with reward-to-go: a descent direction.

        g = -1/B Σ_b Σ_t w_t (G_t - b_t) ∇log π(a_t|s_t),   G_t = r_t + γ G_{t+1} within the episode

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        baseline: b, subtracted from the return: a scalar, an array [T, B], or a function of the returns [T, B],
            such as `leave_one_out`, compiled once for each function object; constant in the gradient. None
            subtracts nothing.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        next_value: [T, B] values to bootstrap from where an episode or the window is cut; None means 0.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        With whole episodes and w_t = γ^t unbiased for the discounted objective; with γ = 1 unbiased for the
        undiscounted one; with γ < 1 and w = 1, as in most practice, unbiased for neither. A baseline that does not
        depend on the own action keeps the mean. One backward pass; `per_trajectory` needs B times the memory of the
        parameters.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.reinforce(1.0, trajectory, policy=policy, discount=0.99, baseline=pg.leave_one_out)
        >>> grads.shape, int(info.num_nonfinite)
        ((), 0)

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.3.
    """
    returns = _to_go(trajectory, discount, next_value)
    weight = weighted(returns - _baseline(baseline, returns), step_weight)
    return Surrogate(_score_loss(policy), weight, mask, state)


@estimator(unit_interval=("discount",))
def likelihood_ratio(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by the likelihood ratio of whole trajectories: a descent direction.

        g = -1/B Σ_b (R_b - b) Σ_t ∇log π(a_t|s_t),   R = Σ_t γ^t r_t of the episode

    The dynamics and the start distribution drop out of the score of a trajectory.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column holds whole episodes. Of an episode that began before the window only
            the rewards inside the window are counted.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B] and equal within an episode, in [0, 1], per environment step, counted from the
            start of the episode.
        baseline: b: a scalar, an array [T, B], or a function of the total returns [T, B]. None subtracts nothing.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes. The member of its family with usually the highest
        variance; it grows with the length of the episode.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.likelihood_ratio(1.0, trajectory, policy=policy, discount=0.99)
        >>> info.targets.shape
        (8, 4)

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Mohamed, Rosca, Figurnov and Mnih (2020), Monte Carlo gradient estimation in machine learning.
    """
    reward = trajectory.reward * discount_weight(trajectory.step, discount)
    carry = 1.0 - trajectory.done.astype(reward.dtype)
    # What was earned before step t in the same episode is the sum up to the row before, cut where that row ended one.
    zero = jnp.zeros_like(reward[:1])
    before = jnp.concatenate([zero, reward[:-1] * carry[:-1]]), jnp.concatenate([zero, carry[:-1]])
    total = affine_recurrence(*before, reverse=False) + affine_recurrence(reward, carry)
    return Surrogate(_score_loss(policy), total - _baseline(baseline, total), mask, state)


@estimator(unit_interval=("discount",))
def gpomdp(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by GPOMDP, each reward times the scores before it: a descent direction.

        g = -1/B Σ_b Σ_l (γ^l r_l - b_l) Σ_{t<=l} ∇log π(a_t|s_t)

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B] and equal within an episode, in [0, 1], per environment step, counted from the
            start of the episode.
        baseline: b_l, one for each *reward*: a scalar or an array [T, B]. It may depend on l and on other trajectories,
            not on s_l, which earlier actions led to. A function, such as `leave_one_out`, is one of the returns
            to go [T, B] instead, subtracted from each with the weight γ^t: rows of different columns are different
            steps of their episodes, so their single rewards do not compare.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes. Without a baseline, or with a function, it is,
        trajectory by trajectory, `reinforce` with the weight γ^t. Where all columns are at the same step, a linear
        function such as `leave_one_out` gives what it gives reward by reward. Where episodes differ in length even
        a constant baseline is biased: whether reward l comes at all depends on the actions before it.

    Example:
        >>> import jax, gymnax, pgjax as pg
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> policy = lambda params, obs: pg.Categorical(obs[..., :2] * params)
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=4)
        >>> _, trajectory = pg.rollout(
        ...     jax.random.key(1), 1.0, state, policy=policy, env=env, env_params=env_params, num_steps=8)
        >>> grads, info = pg.gpomdp(1.0, trajectory, policy=policy, discount=0.99)
        >>> grads.shape
        ()

    References:
        Baxter and Bartlett (2001), Infinite-horizon policy-gradient estimation.
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    weight = discount_weight(trajectory.step, discount)
    if callable(baseline):
        # Rows of different columns are different steps of their episodes, so single rewards do not compare. Returns to
        # go do: what a function of the other columns says of them is independent of the own action, whatever the steps.
        to_go = _to_go(trajectory, discount)
        return Surrogate(_score_loss(policy), weight * (to_go - _baseline(baseline, to_go)), mask, state)
    reward = weight * trajectory.reward
    left = reward - _baseline(baseline, reward)
    return Surrogate(
        _score_loss(policy), affine_recurrence(left, 1.0 - trajectory.done.astype(left.dtype)), mask, state
    )


def _score_loss(policy: Policy) -> Callable[[Params, Trajectory, Any, Any], Array]:
    def loss(params: Params, trajectory: Trajectory, weight: Array, state: RolloutState | None) -> Array:
        distribution = action_distribution(params, trajectory, policy=policy, state=state)
        return policy_gradient_loss(log_prob_taken(distribution, trajectory), weight)

    return loss


def _to_go(trajectory: Trajectory, discount: Array | float, next_value: Array | None = None) -> Array:
    t = trajectory
    return discounted_returns(t.reward, next_value, terminated=t.terminated, truncated=t.truncated, discount=discount)


def _baseline(baseline: Any, returns: Array) -> Array | float:
    if baseline is None:
        return 0.0
    if not callable(baseline):
        return _checks.as_scalar_or_shape("baseline", baseline, returns.shape)
    # A function always sees [T, B]: a mean over the last axis must never run over time.
    batch = jax.lax.stop_gradient(returns if returns.ndim > 1 else returns[:, None])
    value = _checks.as_scalar_or_shape("the result of baseline(return_)", baseline(batch), batch.shape)
    return value.reshape(returns.shape) if value.ndim else value
