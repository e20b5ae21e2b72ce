"""Proximal policy optimisation's objective: for a recipe's minibatches, and as an estimator by itself."""

from collections.abc import Callable
from typing import Any

import jax

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, RolloutState, Trajectory, Value
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import log_prob_taken, policy_and_value, values_and_next, weighted
from pgjax.losses import clipped_value_loss, entropy_loss, ppo_clip_loss, standardize, value_loss
from pgjax.returns import gae

Array = jax.Array
RatioSurrogate = Callable[[Array, Array], Array]


@compiled()
def ppo_objective(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    advantage: Array,
    value_target: Array,
    old_value: Array | None = None,
    clip: Array | float = 0.2,
    value_clip: Array | float | None = None,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    surrogate: RatioSurrogate | None = None,
    state: RolloutState | None = None,
) -> tuple[Array, dict[str, Array]]:
    """Compute the loss of PPO at each step of a window or a minibatch, to be minimised.

        L_t = -min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t) + c_v ½ (V(s_t) - v_t)² - c_e H(π(·|s_t)),   ρ_t = π/μ

    Shapes: trajectory leaves [T, B, ...] or [N, ...]; results alike.

    Args:
        params: parameters of the policy and the value function.
        trajectory: the rows; log_prob is that of the policy that acted.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        value: value(params, obs) -> [...] float, reward units.
        advantage: A, [T, B] float, standardised or not; a constant.
        value_target: v, [T, B] float, reward units; a constant.
        old_value: [T, B] float, the value before the update; needed with value_clip.
        clip: ε, dimensionless, how far the ratio may count.
        value_clip: how far the value may move in one update, reward units; None does not bound it.
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, per nat; None leaves it out.
        surrogate: surrogate(log_ratio, advantage) -> [T, B], what takes the place of the first term, and of clip, such
            as `spo_loss`; None means `ppo_clip_loss` with clip. It sees every row, behind a mask too: one that looks at
            whole sequences, `sequence_log_ratio`, needs the mask of their steps, bound with `pg.bind`.
        state: for a recurrent policy, the state that the rollout of these columns started from; rows are then [T, B].

    Returns:
        The loss [T, B], and a dict of [T, B] arrays: `policy_loss`, `value_loss`, `log_ratio` and, with an
        entropy_coef, `entropy`.

    Raises:
        TypeError: if an array is not floating, the policy returns no distribution, surrogate is no function, or
            value_clip is given without old_value.
        ValueError: if shapes differ.

    Properties:
        Before the first step of the parameters ρ = 1, and the gradient of the first term is that of `actor_critic`, as
        it is with every surrogate on ratios of this library but that of a mean over a sequence.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones(2), np.zeros(2, bool)
        >>> rows = pg.Trajectory(x[:, None], no.astype(int), x, x[:, None], no, no, jnp.log(0.5 * x), no.astype(int))
        >>> loss, metrics = pg.ppo_objective(
        ...     jnp.zeros(2), rows, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     value=lambda params, obs: 0.0 * obs[..., 0], advantage=x, value_target=x)
        >>> print(loss, metrics["log_ratio"])
        [-0.75 -0.75] [0. 0.]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, eq. 7 and 9.
    """
    distribution, values = policy_and_value(params, trajectory, policy, value, state)
    log_ratio = log_prob_taken(distribution, trajectory) - trajectory.log_prob
    if value_clip is None:
        critic_loss = value_loss(values, value_target)
    else:
        old_value = _checks.as_floating("old_value", old_value)
        critic_loss = clipped_value_loss(values, value_target, old_value=old_value, clip=value_clip)
    if surrogate is None:
        policy_loss = ppo_clip_loss(log_ratio, advantage, clip=clip)
    else:
        _checks.require_callable("surrogate", surrogate)
        policy_loss = surrogate(log_ratio, advantage)
        _checks.require_shape("the result of surrogate", policy_loss, log_ratio.shape, of="trajectory.reward")
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": critic_loss,
        "log_ratio": log_ratio,
    }
    loss = metrics["policy_loss"] + value_coef * critic_loss
    if entropy_coef is not None:
        metrics["entropy"] = distribution.entropy()
        loss += entropy_coef * entropy_loss(metrics["entropy"])
    return loss, metrics


@estimator("standardized", unit_interval=("discount", "lam"))
def ppo(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float = 0.95,
    clip: Array | float = 0.2,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    surrogate: RatioSurrogate | None = None,
    standardized: bool = True,
    step_weight: Array | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of PPO's objective on a whole window, one full-batch step of it: a descent direction.

        Σ_t mean_b L_t of `ppo_objective`, with the generalised advantage estimate under params

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the value function.
        trajectory: the window; log_prob is that of the policy that acted.
        policy: as for `ppo_objective`.
        value: as for `ppo_objective`.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ, scalar or [T, B], in [0, 1].
        clip: ε, dimensionless, how far the ratio may count.
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, per nat; None leaves it out.
        surrogate: as for `ppo_objective`.
        standardized: whether the advantages are standardised over the window, as in practice; static.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        metrics are the means of those of `ppo_objective`.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        On data of the policy itself, not standardised and with the exact value, the actor's part is unbiased for the
        gradient without γ^t, or with w = γ^t for the discounted objective. Standardised advantages look at the
        other trajectories of the batch, and at the own one: biased, and scaled.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(
        ...     x[..., None], no.astype(int), x, x[..., None], ~no, no, jnp.log(0.5 * x), no.astype(int))
        >>> grads, info = pg.ppo(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     value=lambda params, obs: 0.0 * obs[..., 0], discount=0.9, standardized=False)
        >>> print(grads)
        [-1.  1.]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms.
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
    weight = weighted(standardize(advantage, mask) if standardized else advantage, step_weight)

    def loss(params: Params, trajectory: Trajectory, targets: Any, state: Any) -> tuple[Array, dict[str, Array]]:
        return ppo_objective(
            params, trajectory, policy=policy, value=value, state=state, clip=clip,
            advantage=targets["weight"], value_target=targets["value_target"],
            value_coef=value_coef, entropy_coef=entropy_coef, surrogate=surrogate,
        )  # fmt: skip

    targets = {"advantage": advantage, "weight": weight, "value_target": advantage + values}
    return Surrogate(loss, targets, mask, state)
