"""Gradients of doubly robust values of an episode, from data of any policy that is known."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.expected import Critic, Noise, as_drawn, by_column
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.expectation import Rule, gradient_only
from pgjax.returns import discount_weight, doubly_robust_returns
from pgjax.returns._window import checked_window
from pgjax.returns.recurrence import weigh

Array = jax.Array


@estimator(unit_interval=("discount",))
def doubly_robust_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    critic: Critic,
    rule: Rule,
    discount: Array | float,
    noise: Noise | None = None,
    critic_gradient: Callable[[Any, Any, Any], Array] | None = None,
    next_value: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by that of the doubly robust value of each episode: a descent direction.

        g = -1/B Σ_b Σ_{t: step_t = 0} ∇ V_t,   V_t = E_{a~π} q(s_t, a) + ρ_t (r_t + γ V_{t+1} - q(s_t, a_t))

    with ρ_t = π(a_t|s_t) / μ(a_t|s_t), through which the gradient flows, μ the policy that acted as
    `trajectory.log_prob` tells, and q = critic. On data of the policy itself it is the trajectory-wise control variate;
    with a critic of 0, the gradient of per-decision importance sampling; with a critic of the observation alone, that
    with a baseline.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window, from any policy whose log-probabilities it holds.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        critic: q, critic(obs, action) -> [...] float, reward units; a constant in params. `pg.bind` brings its
            parameters along.
        rule: a rule of `pgjax.expectation` for E q, right for this critic: `enumerated`, or `at_mode` with a
            `linearized_critic`. The noise of one that draws must not be that of the action taken.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        noise: what the rule draws, or None.
        critic_gradient: a function (params, obs, action) -> [...] whose gradient with respect to params stands for that
            of q; its value is not used. None holds q fixed.
        next_value: [T, B] float, E q of the observation that each step led to, used where an episode or the window is
            cut; a constant. None means 0.
        mask: [T, B] bool, steps that count; an episode adds something if its first step does. None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, averaged over the batch; and `GradientInfo`, whose loss is minus the doubly
        robust value, summed over the episodes of a column.

    Raises:
        TypeError: if the rule makes no sense for the distribution, or an array is not floating.
        ValueError: if shapes differ, or discount is a number outside [0, 1].

    Properties:
        Unbiased for the discounted objective with whole episodes, for any critic and any critic_gradient, off policy
        too, as long as no ratio exceeds e^20. The variance falls as the critic nears the action value and
        critic_gradient its gradient; without the latter what it leaves is that of the products of ratios. An episode
        that began before the window adds nothing. One backward pass through time.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import enumerated
        >>> x, no, start = jnp.ones((2, 1)), np.zeros((2, 1), bool), np.array([[0], [1]])
        >>> trajectory = pg.Trajectory(x[..., None], 0 * start, x, x[..., None], no, no, jnp.log(0.5 * x), start)
        >>> grads, info = pg.doubly_robust_gradient(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]), discount=0.5,
        ...     critic=lambda obs, action: obs[..., 0], rule=enumerated)
        >>> print(grads, info.loss)
        [-0.25  0.25] -1.5

    References:
        Huang and Jiang (2020), From importance sampling to doubly robust policy gradient. Cheng, Yan and Boots (2019),
        Trajectory-wise control variates for variance reduction in policy gradient methods.
    """
    shape = trajectory.reward.shape
    reward = _checks.as_floating("trajectory.reward", trajectory.reward)
    discount = _checks.as_scalar_or_shape("discount", discount, shape)
    discount = jnp.broadcast_to(discount, shape).astype(reward.dtype)
    next_value = jnp.zeros_like(reward) if next_value is None else _checks.as_floating("next_value", next_value)
    _checks.require_same_shape("trajectory.reward", shape, next_value=next_value)
    if critic_gradient is not None:
        _checks.require_callable("critic_gradient", critic_gradient)

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        discount, next_value, noise = targets
        distribution = action_distribution(params, t, policy=policy, state=state)

        value_of = functools.partial(_value_of, critic, critic_gradient, params, t.obs)
        state_return, _ = doubly_robust_returns(
            t.reward,
            value_of(t.action),
            rule.given(as_drawn(rule, noise, t.reward.ndim), distribution, value_of),
            log_ratio=log_prob_taken(distribution, t) - t.log_prob,
            terminated=t.terminated,
            truncated=t.truncated,
            discount=discount,
            next_value=next_value,
        )
        return -jnp.where(t.step == 0, state_return, 0.0)

    return Surrogate(loss, (discount, next_value, by_column(rule, noise or {}, len(shape))), mask, state)


@estimator(unit_interval=("discount",))
def efficient_off_policy_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    density_ratio: Callable[[Any, Trajectory], Array],
    critic: Critic,
    rule: Rule,
    discount: Array | float,
    noise: Noise | None = None,
    critic_gradient: Callable[[Any, Any, Any], Array] | None = None,
    next_value: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J from other data by densities in place of products of ratios: a descent direction.

        g = -1/B Σ_b Σ_t γ^t ∇ [ w_t (r_t - q(s_t, a_t)) + w_{t-1} E_{a~π} q(s_t, a) ],   w_{-1} = 1

    with w_t = density_ratio, how much likelier the pair (s_t, a_t) is at that time under the policy than under the one
    that acted, and q = critic. The gradients of both flow: the four terms ∇w (r - q) - w ∇q + w ∇v + ∇w v of the
    paper. With the products of ratios as w it is `doubly_robust_gradient`.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        As `doubly_robust_gradient`, and:
        density_ratio: w, density_ratio(params, trajectory) -> [T, B] float, at least 0; its value and its gradient with
            respect to params both count.
        discount: γ, scalar, in [0, 1], per environment step.
        mask: [T, B] bool, steps that count. None counts all.

    Returns:
        The gradient, a pytree like params, averaged over the batch; and `GradientInfo`, whose loss is minus the value
        in brackets, summed over the episodes of a column.

    Raises:
        TypeError: if the rule makes no sense for the distribution, if density_ratio is not a function, or an array is
            not floating.
        ValueError: if shapes differ, or discount is a number outside [0, 1].

    Properties:
        Robust in three ways. Unbiased for the discounted objective with whole episodes if (q, critic_gradient), or
        (w and its gradient), or (q and w) are right, whatever the rest is. With all of them right no regular estimator
        has a lower variance as the data grow, and it does not grow with the products of ratios. An episode that began
        before the window adds nothing.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import enumerated
        >>> x, no, start = jnp.ones((2, 1)), np.zeros((2, 1), bool), np.array([[0], [1]])
        >>> trajectory = pg.Trajectory(x[..., None], 0 * start, x, x[..., None], no, no, jnp.log(0.5 * x), start)
        >>> def policy(logits, obs):
        ...     return pg.Categorical(obs @ logits[None])
        >>> def density_ratio(logits, t):  # one state: the actions alone tell the policies apart
        ...     return jnp.exp(policy(logits, t.obs).log_prob(t.action) - t.log_prob)
        >>> grads, info = pg.efficient_off_policy_gradient(
        ...     jnp.zeros(2), trajectory, policy=policy, density_ratio=density_ratio, discount=0.5,
        ...     critic=lambda obs, action: 0.0 * obs[..., 0], rule=enumerated)
        >>> print(grads, info.loss)
        [-0.75  0.75] -1.5

    References:
        Kallus and Uehara (2020), Statistically efficient off-policy policy gradients.
    """
    shape = trajectory.reward.shape
    reward = _checks.as_floating("trajectory.reward", trajectory.reward)
    discount = _checks.as_scalar_or_shape("discount", discount, ()).astype(reward.dtype)
    weight = discount_weight(trajectory.step, discount)
    _checks.require_callable("density_ratio", density_ratio)
    if critic_gradient is not None:
        _checks.require_callable("critic_gradient", critic_gradient)
    if next_value is not None:
        next_value = _checks.as_floating("next_value", next_value)
        _checks.require_same_shape("trajectory.reward", shape, next_value=next_value)
        _, _, discount, cut = checked_window(reward, next_value, trajectory.terminated, trajectory.truncated, discount)
        reward = reward + weigh(jnp.where(cut, discount, 0.0), next_value)

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        weight, reward, noise = targets
        distribution = action_distribution(params, t, policy=policy, state=state)

        value_of = functools.partial(_value_of, critic, critic_gradient, params, t.obs)
        now = density_ratio(params, t)
        _checks.require_same_shape("trajectory.reward", t.reward.shape, **{"what density_ratio returns": now})
        before = jnp.where(t.step == 0, 1.0, jnp.concatenate([jnp.ones_like(now[:1]), now[:-1]]))
        state_value = rule.given(as_drawn(rule, noise, t.reward.ndim), distribution, value_of)
        value = weight * (now * (reward - value_of(t.action)) + before * state_value)
        began = t.step <= jnp.arange(len(now)).reshape(-1, *[1] * (now.ndim - 1))  # within the window
        return -jnp.where(began, value, 0.0)

    return Surrogate(loss, (weight, reward, by_column(rule, noise or {}, len(shape))), mask, state)


def _value_of(critic: Critic, critic_gradient: Any, params: Params, obs: Any, action: Any) -> Array:
    """The critic's value of an action, with the gradient that was given for it."""
    value: Array = critic(obs, action)
    return value if critic_gradient is None else value + gradient_only(critic_gradient(params, obs, action))
