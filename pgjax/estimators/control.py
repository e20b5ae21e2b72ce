"""Control variates: what is subtracted may look at the action, if its expectation is added again."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._functions import as_pytree, bind, from_pytree
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.expected import Critic, Noise, as_drawn, by_column
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, weighted
from pgjax.expectation import Rule, gradient_only

Array = jax.Array


@estimator
def control_variate(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    advantage: Array,
    critic: Critic,
    rule: Rule,
    noise: Noise | None = None,
    coefficient: Array | float = 1.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J with a control variate that looks at the action: a descent direction.

        g = -1/B Σ_b Σ_t w_t [(A_t - η φ(s_t, a_t)) ∇log π(a_t|s_t) + η ∇ E_{a~π(·|s_t)} φ(s_t, a)]

    φ = critic and the rule for its expectation make the method: a critic that is linear in the action, with `at_mode`,
    is Q-Prop; one with `pathwise` is a Stein control variate; any critic with `enumerated`, and `doubly_robust_returns`
    as the advantage, is the trajectory-wise control variate. What to choose for η say `leave_one_out_coefficient`,
    `conservative_coefficient` and `aggressive_coefficient`.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window, from the policy itself.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        advantage: A, [T, B] float, reward units; a constant.
        critic: φ, critic(obs, action) -> [...] float, reward units; see `linearized_critic`. `pg.bind` brings its
            parameters along.
        rule: a rule of `pgjax.expectation` that is right for φ.
        noise: what the rule draws, or None.
        coefficient: η, scalar or [T, B]; 1 subtracts φ in full. A constant: it must not depend on the own action.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps that count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if the rule makes no sense for the distribution, or an array is not floating.
        ValueError: if shapes differ.

    Properties:
        Unbiased for whatever it is unbiased for without the control variate, if the rule is unbiased for E φ and φ does
        not depend on what came after the action. Its variance falls as far as φ predicts A.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import enumerated
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> grads, _ = pg.control_variate(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]), advantage=x,
        ...     critic=lambda obs, action: jnp.where(action == 0, 1.0, 0.0) * obs[..., 0], rule=enumerated)
        >>> print(grads)
        [-0.5  0.5]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop. Liu et al. (2018), Action-dependent control
        variates for policy optimization via Stein's identity. Tucker et al. (2018), The mirage of action-dependent
        baselines.
    """
    return _variate(
        trajectory,
        policy,
        advantage,
        critic,
        rule,
        noise,
        coefficient,
        None,
        step_weight=step_weight,
        mask=mask,
        state=state,
    )


@estimator(unit_interval=("share",))
def interpolated_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    advantage: Array,
    critic: Critic,
    rule: Rule,
    share: Array | float,
    noise: Noise | None = None,
    coefficient: Array | float = 0.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J between that of what was earned and that of a critic: a descent direction.

        g = -1/B Σ_b Σ_t w_t [(1 - ν) ((A_t - η φ(s_t, a_t)) ∇log π(a_t|s_t) + η ∇ E φ) + ν ∇ E φ],   E φ over a ~ π

    ν = share. ν = 0 is `control_variate`, which for η = 0 is the score function alone; ν = 1 is `expected_gradient`.
    With η = 1 the critic's gradient has the full weight for any ν.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        As `control_variate`, and:
        share: ν, scalar or [T, B], in [0, 1]: the part of the critic. A constant.
        coefficient: η, scalar or [T, B]: the part of φ that is subtracted as a control variate; 0 or 1 in the paper.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if the rule makes no sense for the distribution, or an array is not floating.
        ValueError: if shapes differ, or share is a number outside [0, 1].

    Properties:
        The bias is ν times that of `expected_gradient` with this critic: none for ν = 0, or where the critic is the
        action value. The mean is linear in ν. To take the critic's part in the states of other data, add
        `expected_gradient` of these by hand, with step_weight=ν, to this with share=0 and step_weight=1 - ν.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> from pgjax.expectation import enumerated
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> trajectory = pg.Trajectory(x[..., None], no.astype(int), x, x[..., None], no, no, x, no.astype(int))
        >>> grads, _ = pg.interpolated_gradient(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]), advantage=x,
        ...     critic=lambda obs, action: jnp.where(action == 0, 1.0, 0.0) * obs[..., 0], rule=enumerated, share=0.5)
        >>> print(grads)
        [-0.75  0.75]

    References:
        Gu, Lillicrap, Turner, Ghahramani, Schölkopf and Levine (2017), Interpolated policy gradient: merging on-policy
        and off-policy gradient estimation for deep reinforcement learning.
    """
    return _variate(
        trajectory,
        policy,
        advantage,
        critic,
        rule,
        noise,
        coefficient,
        share,
        step_weight=step_weight,
        mask=mask,
        state=state,
    )


def linearized_critic(critic: Critic, point: Any) -> Critic:
    """Return a critic made linear in the action around a point: the control variate of Q-Prop.

        φ(s, a) = Q(s, m) + ∇_a Q(s, m)ᵀ (a - m),   m = point(s), a constant

    Its expectation under a normal policy with mean m is Q(s, m), and the gradient of that is the rule `at_mode`'s;
    under a squashed policy it is not, and the rule must be another.

    Shapes: as critic.

    Args:
        critic: Q, critic(obs, action) -> [...], differentiable in the action.
        point: point(obs) -> action, for instance lambda obs: policy(params, obs).mode().

    Returns:
        φ, a function (obs, action) -> [...]; a pytree, if critic or point own arrays.

    Raises:
        TypeError: if critic or point is not a function.
    """
    _checks.require_callable("critic", critic)
    _checks.require_callable("point", point)
    return bind(_linear, as_pytree("critic", critic), as_pytree("point", point))


def _linear(critic: Any, point: Any, obs: Any, action: Any) -> Array:
    at = jax.lax.stop_gradient(from_pytree(point)(obs))
    value, slope = jax.jvp(lambda a: from_pytree(critic)(obs, a), (at,), (action - at,))
    return value + slope


def _variate(
    trajectory: Trajectory,
    policy: Policy,
    advantage: Array,
    critic: Critic,
    rule: Rule,
    noise: Noise | None,
    coefficient: Array | float,
    share: Array | float | None,
    *,
    step_weight: Array | None,
    mask: Array | None,
    state: RolloutState | None,
) -> Surrogate:
    """The control variate; with a share ν, 1 - ν of it and ν of the gradient of the critic's expectation."""
    advantage = _checks.as_floating("advantage", advantage)
    _checks.require_same_shape("trajectory.reward", trajectory.reward.shape, advantage=advantage)
    coefficient = _checks.as_scalar_or_shape("coefficient", coefficient, advantage.shape)
    coefficient = jnp.broadcast_to(coefficient, advantage.shape).astype(advantage.dtype)
    _require_own_column(critic, trajectory)
    if share is not None:
        share = _checks.as_scalar_or_shape("share", share, advantage.shape)
        share = jnp.broadcast_to(share, advantage.shape).astype(advantage.dtype)

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        weight, advantage, coefficient, share, noise = targets
        distribution = action_distribution(params, t, policy=policy, state=state)
        score = gradient_only(log_prob_taken(distribution, t))
        noise = as_drawn(rule, noise, t.reward.ndim)
        expected = rule.given(noise, distribution, lambda action: critic(t.obs, action))
        left = advantage - coefficient * critic(t.obs, t.action)
        estimate = left * score + coefficient * gradient_only(expected)
        if share is not None:
            estimate = (1.0 - share) * estimate + share * gradient_only(expected)
        return -weighted(estimate, weight)

    weight = weighted(jnp.ones_like(advantage), step_weight)
    noise = by_column(rule, noise or {}, advantage.ndim)
    return Surrogate(loss, (weight, advantage, coefficient, share, noise), mask, state)


def _require_own_column(critic: Critic, trajectory: Trajectory) -> None:
    """Refuse a critic that reads an array of the whole window, which shows in what it gives for one column of it."""
    if trajectory.reward.ndim < 2 or trajectory.reward.shape[1] < 2:
        return
    obs, action = jax.tree.map(lambda x: jnp.asarray(x)[:, :1], (trajectory.obs, trajectory.action))
    try:
        found = jax.eval_shape(lambda obs, action: critic(obs, action), obs, action)
    except Exception:  # the call on the whole window says what is wrong
        return
    wanted = (trajectory.reward.shape[0], 1, *trajectory.reward.shape[2:])
    if getattr(found, "shape", wanted) == trajectory.reward.shape:
        raise ValueError(
            f"critic must look at the observation and the action alone: for one column of the window, {list(wanted)}, "
            f"it gives all of it, {list(found.shape)}. What it reads there, such as what was earned after the action, "
            "would bias the estimate. Put what it needs into the observation, or subtract it as a baseline."
        )
