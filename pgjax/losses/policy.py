"""What a policy minimises in each step."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax.losses._pair import as_pair

Array = jax.Array


@compiled()
def policy_gradient_loss(log_prob: Array, advantage: Array) -> Array:
    """Compute the surrogate whose gradient is minus the score-function gradient.

        L_t = -log π(a_t|s_t) · stop(A_t)

    The loss of a weighted likelihood is the same with a weight for A: `exponential_weight` for AWR and CRR,
    `binary_weight` for CRR, `softmax_weight` for MPO and V-MPO, `preference_weight` for PMPO.

    Shapes: log_prob, advantage [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, log-probability of the actions taken, differentiable.
        advantage: [T, ...] float, the weight of each score; a constant here.

    Returns:
        [T, ...] float, the loss of each step. Only its gradient has a meaning.

    Raises:
        TypeError: if an argument is not floating (log_prob of integer dtype is an action passed by mistake).
        ValueError: if shapes differ.

    Properties:
        Unbiased for whatever objective the weights are unbiased for; with those of a weighted likelihood it is no
        gradient of the return, and its fixed point is a regularised improvement of the policy that acted. Must not be
        differentiated twice: the second derivative is not that of the objective.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.policy_gradient_loss(jnp.array([-1.0]), jnp.array([2.0])))
        [2.]

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    log_prob, advantage = as_pair("log_prob", log_prob, "advantage", advantage)
    return -log_prob * jax.lax.stop_gradient(advantage)


@compiled()
def ppo_clip_loss(
    log_ratio: Array,
    advantage: Array,
    *,
    clip: Array | float = 0.2,
    clip_upper: Array | float | None = None,
    dual_clip: Array | float | None = None,
) -> Array:
    """Compute the clipped surrogate of PPO.

        L_t = -min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε_upper) A_t),   ρ = exp(log_ratio)       (paper: eq. 7)
        min(L_t, -c A_t)   where A_t < 0, with dual_clip

    Clip-higher (DAPO) is clip=0.2, clip_upper=0.28. GSPO is this loss of `sequence_log_ratio`. An infinite clip is
    importance weighting, -ρ A.

    Shapes: log_ratio, advantage [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here.
        clip: ε, how far the ratio may fall below 1, and rise above it unless clip_upper is given; scalar or [T, ...].
        clip_upper: how far the ratio may rise above 1; None means clip.
        dual_clip: c, above 1 + ε_upper, usually 3: the ratio that a negative advantage counts with at most; scalar or
            [T, ...]; None sets no bound.

    Returns:
        [T, ...] float, the loss of each step.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        At ratio 1 its gradient is that of `policy_gradient_loss`. The gradient is 0 where A > 0 and ρ > 1 + ε, and
        where A < 0 and ρ < 1 - ε; with dual_clip also where A < 0 and ρ > c, without it that gradient grows with ρ.
        Beyond the first step biased: the ratio corrects the action, not the state.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.ppo_clip_loss(jnp.log(jnp.array([2.0, 0.5])), jnp.ones(2)))
        [-1.2 -0.5]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, eq. 7.
        Ye et al. (2020), Mastering complex control in MOBA games with deep reinforcement learning, on dual_clip.
        Yu et al. (2025), DAPO: an open-source LLM reinforcement learning system at scale, on clip_upper.
    """
    log_ratio, advantage = as_pair("log_ratio", log_ratio, "advantage", advantage)
    clip = _checks.as_scalar_or_shape("clip", clip, log_ratio.shape)
    clip_upper = clip if clip_upper is None else _checks.as_scalar_or_shape("clip_upper", clip_upper, log_ratio.shape)
    advantage = jax.lax.stop_gradient(advantage)
    ratio = ratio_of(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip_upper)
    loss = -jnp.minimum(ratio * advantage, clipped * advantage)
    if dual_clip is None:
        return loss
    dual_clip = _checks.as_scalar_or_shape("dual_clip", dual_clip, log_ratio.shape)
    return jnp.minimum(loss, jnp.where(advantage < 0, -dual_clip * advantage, jnp.inf))


@compiled()
def kl_penalty_loss(log_ratio: Array, advantage: Array, *, kl: Array, coefficient: Array | float) -> Array:
    """Compute the surrogate with a penalty on the divergence from the policy that collected the data.

        L_t = -ρ_t A_t + β KL_t                                                              (paper: eq. 8)

    Mirror descent policy optimisation is the same loss with the divergence the other way round, new.kl_divergence(old).

    Shapes: log_ratio, advantage, kl [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here.
        kl: [T, ...] float, nats, for instance old.kl_divergence(new); differentiable.
        coefficient: β, reward units per nat; scalar or [T, ...].

    Returns:
        [T, ...] float, the loss of each step.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        At the old policy the penalty and its gradient are 0. Biased beyond the first step, like PPO.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.kl_penalty_loss(jnp.zeros(1), jnp.ones(1), kl=jnp.full(1, 0.5), coefficient=2.0))
        [0.]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, eq. 8.
        Tomar, Shani, Efroni and Ghavamzadeh (2020), Mirror descent policy optimization.
    """
    log_ratio, advantage = as_pair("log_ratio", log_ratio, "advantage", advantage)
    kl = _checks.as_floating("kl", kl)
    _checks.require_same_shape("log_ratio", log_ratio.shape, kl=kl)
    coefficient = _checks.as_scalar_or_shape("coefficient", coefficient, log_ratio.shape)
    ratio = ratio_of(log_ratio)
    return coefficient * kl - ratio * jax.lax.stop_gradient(advantage)


@compiled()
def entropy_loss(entropy: Array) -> Array:
    """Compute minus the entropy of the policy in each step, to be multiplied by a coefficient and added.

        L_t = -H(π(·|s_t))

    Shapes: entropy [T, ...]; result [T, ...].

    Args:
        entropy: [T, ...] float, nats, the distribution's own `entropy()`. The sampled -log_prob must not be used:
            its gradient has mean zero.

    Returns:
        [T, ...] float, nats.

    Raises:
        TypeError: if entropy is not floating.

    Properties:
        Regularises each state by itself: it does not add future entropy to the return.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.entropy_loss(jnp.ones(1)))
        [-1.]

    References:
        Williams and Peng (1991), Function optimization using connectionist reinforcement learning algorithms.
    """
    return -_checks.as_floating("entropy", entropy)


@compiled()
def policy_inference_loss(log_prob: Array, entropy: Array, *, coefficient: Array | float) -> Array:
    """Compute the loss by which an approximation of another agent's policy follows what that agent does.

        L_t = -(log μ̂(a_t|o_t) + λ H(μ̂(·|o_t)))                                              (paper: eq. 7)

    Shapes: log_prob, entropy [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, log-probability under the approximation of what the other did, differentiable.
        entropy: [T, ...] float, nats, the approximation's own `entropy()` there, differentiable.
        coefficient: λ, dimensionless, how much the entropy counts; scalar or [T, ...].

    Returns:
        [T, ...] float, nats.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        With λ = 0 maximum likelihood. A normal approximation is at its minimum with the mean of the actions, and with
        a variance 1/(1 - λ) times theirs: the entropy bonus widens it, without bound from λ = 1 on.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.policy_inference_loss(jnp.array([-1.0]), jnp.array([2.0]), coefficient=0.25))
        [0.5]

    References:
        Lowe, Wu, Tamar, Harb, Abbeel and Mordatch (2017), Multi-agent actor-critic for mixed cooperative-competitive
        environments, eq. 7.
    """
    log_prob, entropy = as_pair("log_prob", log_prob, "entropy", entropy)
    return -log_prob - _checks.as_scalar_or_shape("coefficient", coefficient, log_prob.shape) * entropy
