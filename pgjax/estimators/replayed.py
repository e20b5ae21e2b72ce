"""Estimators for windows that come back from a replay: ACER, and the trust region that it puts on each step."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax._types import Params, Policy, Trajectory
from pgjax.distributions import Categorical
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, values_and_next
from pgjax.expectation.terms import through
from pgjax.losses import value_loss
from pgjax.returns import retrace
from pgjax.rollout.policies import apply_policy

Array = jax.Array
stop = jax.lax.stop_gradient


@compiled()
def project_to_halfspace(gradient: Array, normal: Array, *, bound: Array | float) -> Array:
    """Project each row of a gradient onto the half-space in which a linear constraint holds.

        minimise ½ ‖z - g‖²  subject to  kᵀz <= δ:      z = g - max(0, (kᵀg - δ) / ‖k‖²) k

    ACER: g is the gradient of the objective with respect to the parameters of the distribution in one state, k that of
    the divergence from an averaged policy there, so that a step along z changes it by at most δ, to first order.

    Shapes: gradient, normal [..., D]; result [..., D].

    Args:
        gradient: g, [..., D] float.
        normal: k, [..., D] float; a row of zeros leaves its gradient as it is.
        bound: δ, scalar or [...]; infinity leaves everything as it is.

    Returns:
        [..., D] float, z.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes differ.

    Properties:
        The nearest point that is allowed: z = g where kᵀg <= δ, and kᵀz = δ elsewhere. A projection of each row by
        itself; not the trust region of TRPO, which is one for all states and in the space of the weights.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.project_to_halfspace(jnp.array([3.0, 1.0]), jnp.array([2.0, 0.0]), bound=1.0))
        [0.5 1. ]

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay.
    """
    gradient, normal = _checks.as_floating("gradient", gradient, ndim_at_least=1), _checks.as_floating("normal", normal)
    _checks.require_same_shape("gradient", gradient.shape, normal=normal)
    bound = _checks.as_scalar_or_shape("bound", bound, gradient.shape[:-1])
    square = jnp.sum(jnp.square(normal), -1)
    excess = jnp.maximum(jnp.sum(normal * gradient, -1) - bound, 0.0)
    scale = jnp.where(square > 0, excess / jnp.where(square > 0, square, 1.0), 0.0)
    return gradient - scale[..., None] * normal


@estimator(unit_interval=("discount", "lam"))
def acer(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    critic: Any,
    behaviour: Any,
    average_params: Params | None = None,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip_rho: Array | float = 10.0,
    max_divergence: Array | float = 1.0,
    value_coef: Array | float = 0.5,
    entropy_coef: Array | float | None = None,
    mask: Array | None = None,
    last_obs: Any = None,
) -> Surrogate:
    """Estimate the gradient of a discrete actor and its critic from replayed windows, by ACER: a descent direction.

        g_t = ∂/∂φ [min(c, ρ_t) (Q*_t - V_t) log π(a_t|φ) + Σ_a (π(a) - c μ(a))⁺ (Q(a) - V_t) log π(a|φ) + c_e H(φ)]
        z_t = g_t projected to kᵀz <= δ,   k = ∂/∂φ KL(π_average ‖ π(·|φ))
        descent direction:  -1/B Σ_b Σ_t [(∂φ/∂θ)ᵀ z_t - c_v ∂/∂θ ½ (Q(s_t, a_t) - Q*_t)²]

    with φ the parameters of the distribution in s_t (logits), ρ = π/μ, V = E_π Q, and Q* the Retrace(λ) target. The
    ratio of the action taken is truncated at c, and what that leaves out is added as a sum over all actions.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy and the critic.
        trajectory: the window, of any policy; each column is one trajectory. Its log_prob are those of behaviour.
        policy: policy(params, obs) -> `Categorical` or (Categorical, extras), feed-forward.
        critic: critic(params, obs) -> [..., K] float, the value of every action, reward units.
        behaviour: μ, the Categorical that acted, leaves [T, B, K].
        average_params: parameters of the averaged policy; None sets no trust region.
        discount: γ, scalar or [T, B], in [0, 1], per environment step.
        lam: λ of Retrace, scalar or [T, B], in [0, 1].
        clip_rho: c, bound of the ratio of the action taken; infinity leaves the correction out.
        max_divergence: δ, nats, how far one step of size 1 may change the divergence; infinity sets no bound.
        value_coef: c_v, weight of the critic's loss, per reward unit.
        entropy_coef: c_e, weight of the entropy, reward units per nat; None leaves it out.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        last_obs: [B, ...] observation after the window, needed if the trajectory keeps no next_obs.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        targets hold `value_target` and `action_value` [T, B] and `direction` z [T, B, K], and whose metrics hold the
        means of `policy_loss`, `value_loss`, `entropy`, and with average_params `kl` and ``projected_fraction``.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy or behaviour is not Categorical.
        ValueError: if shapes differ, the window is empty, or discount or lam is a number outside [0, 1].

    Properties:
        With Q* and Q both the action values of π, the two parts together are the importance-weighted gradient without
        truncation, in expectation over μ: the correction is biased as far as the critic is wrong, the other part is
        not. With c infinite it is Off-PAC with a Retrace target. States come as the replay gives them, which is not
        corrected for.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> half = pg.Categorical(jnp.zeros((2, 1, 2)))
        >>> trajectory = pg.Trajectory(
        ...     x[..., None], no.astype(int), x, x[..., None], ~no, no, jnp.log(0.5 * x), no.astype(int))
        >>> grads, info = pg.acer(
        ...     jnp.zeros(2), trajectory, policy=lambda logits, obs: pg.Categorical(obs @ logits[None]),
        ...     critic=lambda params, obs: jnp.zeros((*obs.shape[:-1], 2)), behaviour=half, discount=0.9)
        >>> print(grads)
        [-1.  1.]

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay.
    """
    distribution = as_categorical("what policy returns", action_distribution(params, trajectory, policy=policy))
    behaviour = as_categorical("behaviour", behaviour)
    _checks.require_shape("logits of behaviour", behaviour.logits, distribution.logits.shape, of="those of the policy")

    def state_value(params: Params, obs: Any) -> Array:
        return expected_value(apply_policy(policy, params, obs, None)[0], critic(params, obs))

    action_values = critic(params, trajectory.obs)
    _checks.require_shape("the result of critic", action_values, distribution.logits.shape, of="the policy's logits")
    values, next_values = values_and_next(params, trajectory, policy, state_value, None, last_obs)
    log_ratio = log_prob_taken(distribution, trajectory) - trajectory.log_prob
    taken = _of_action(action_values, trajectory.action)
    target = retrace(
        trajectory.reward, taken, next_values, log_ratio=log_ratio, terminated=trajectory.terminated,
        truncated=trajectory.truncated, discount=discount, lam=lam,
    )  # fmt: skip
    weight = stop(jnp.minimum(clip_rho, ratio_of(log_ratio)) * (target - values))
    truncated = jnp.where(behaviour.probs > 0, clip_rho * behaviour.probs, 0.0)  # infinity times 0 would be NaN
    correction = stop(jnp.maximum(distribution.probs - truncated, 0.0) * (action_values - values[..., None]))

    def objective(d: Categorical) -> Array:
        return weight * d.log_prob(trajectory.action) + jnp.sum(correction * d.log_probs, -1)

    def gradient_of(f: Any) -> Array:
        return jax.grad(lambda logits: jnp.sum(f(distribution.replace(logits=logits))))(stop(distribution.logits))

    bonus = 0.0 if entropy_coef is None else entropy_coef
    direction = gradient_of(lambda d: objective(d) + bonus * d.entropy())
    targets = {"value_target": target, "action_value": taken, "policy_loss": -objective(distribution)}
    if average_params is not None:
        average = stop(action_distribution(average_params, trajectory, policy=policy))
        free, normal = direction, gradient_of(average.kl_divergence)
        direction = project_to_halfspace(free, normal, bound=max_divergence)
        targets["kl"] = average.kl_divergence(distribution)
        bound = jnp.asarray(max_divergence, free.dtype)
        targets["projected_fraction"] = (jnp.sum(normal * free, -1) > bound).astype(target.dtype)
    targets["direction"] = direction
    shown = ("policy_loss", "kl", "projected_fraction")

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> tuple[Array, dict[str, Array]]:
        distribution = action_distribution(params, t, policy=policy)
        metrics = {name: targets[name] for name in shown if name in targets}
        metrics["value_loss"] = value_loss(_of_action(critic(params, t.obs), t.action), targets["value_target"])
        metrics["entropy"] = distribution.entropy()
        return value_coef * metrics["value_loss"] - through(distribution, {"logits": targets["direction"]}), metrics

    return Surrogate(loss, targets, mask)


def expected_value(distribution: Categorical, action_values: Array) -> Array:
    """Compute the value of a state, E_π Q(s, ·).

    Args:
        distribution: π, batch axes [...].
        action_values: [..., K] float, reward units.

    Returns:
        [...] float, reward units.
    """
    return jnp.sum(distribution.probs * action_values, -1)


def _of_action(action_values: Array, action: Any) -> Array:
    """Choose the value of the action taken; by a sum, since the gradient of an indexed read is a scatter."""
    index = jax.lax.broadcasted_iota(jnp.int32, action_values.shape, action_values.ndim - 1)
    chosen = jnp.asarray(action)[..., None] == index
    return jnp.sum(jnp.where(chosen, action_values, 0.0), -1)


def as_categorical(name: str, distribution: Any) -> Categorical:
    """Check that a distribution is Categorical.

    Args:
        name: what it is, for the message.
        distribution: whatever was given.

    Returns:
        The same.

    Raises:
        TypeError: if it is of another class.
    """
    if not isinstance(distribution, Categorical):
        raise TypeError(f"{name} must be a Categorical, got {type(distribution).__name__}: ACER lists all actions.")
    return distribution
