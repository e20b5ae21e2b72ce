"""Surrogates on the ratio of the policy to the one that acted, beside PPO's; each takes (log_ratio, advantage)."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import bounded, ratio_of
from pgjax.losses._pair import as_pair
from pgjax.losses.reductions import masked_mean

Array = jax.Array


@compiled()
def importance_weighted_loss(
    log_ratio: Array,
    advantage: Array,
    *,
    lower: Array | float | None = None,
    upper: Array | float | None = None,
) -> Array:
    """Compute the surrogate whose gradient is the score times the advantage times a ratio between bounds.

        L_t = -stop(clip(ρ_t, lower, upper) A_t) log ρ_t,   ρ = exp(log_ratio)

    Without bounds it is the importance-sampled policy gradient. Truncated importance sampling, and the actor of
    V-trace, is upper=c. CISPO is lower=1 - ε_low, upper=1 + ε_high.

    Shapes: log_ratio, advantage [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here.
        lower: the least ratio that counts, scalar or [T, ...]; None sets no bound.
        upper: the greatest ratio that counts, itself and not its distance from 1, scalar or [T, ...]; None sets none.

    Returns:
        [T, ...] float, the loss of each step. Only its gradient has a meaning: -ρ A itself, as a loss, is
        `ppo_clip_loss` with an infinite clip.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Unlike a clipped surrogate it lets no step go without a gradient: ρ is bounded, not left out. Without bounds
        unbiased for actions of the other policy, in the states that the other policy visits; its variance grows with
        that of ρ. A bound that is reached makes it biased. At ratio 1 its gradient is that of `policy_gradient_loss`.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> loss = lambda x: pg.importance_weighted_loss(x, jnp.ones(2), upper=1.5).sum()
        >>> print(jax.grad(loss)(jnp.log(jnp.array([2.0, 0.5]))))
        [-1.5 -0.5]

    References:
        Espeholt et al. (2018), IMPALA: scalable distributed deep-RL with importance weighted actor-learner
        architectures, on the truncated ratio.
        MiniMax (2025), MiniMax-M1: scaling test-time compute efficiently with lightning attention, on CISPO.
    """
    log_ratio, advantage = as_pair("log_ratio", log_ratio, "advantage", advantage)
    ratio = ratio_of(log_ratio)
    if lower is not None:
        ratio = jnp.maximum(ratio, _checks.as_scalar_or_shape("lower", lower, log_ratio.shape))
    if upper is not None:
        ratio = jnp.minimum(ratio, _checks.as_scalar_or_shape("upper", upper, log_ratio.shape))
    return -jax.lax.stop_gradient(ratio * advantage) * bounded(log_ratio)


@compiled()
def spo_loss(log_ratio: Array, advantage: Array, *, clip: Array | float = 0.2) -> Array:
    """Compute the surrogate of simple policy optimisation: a parabola in the ratio in place of a clip.

        L_t = -ρ_t A_t + |A_t| (ρ_t - 1)² / (2 ε),   ρ = exp(log_ratio)

    Shapes: log_ratio, advantage [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here.
        clip: ε, how far from 1 the ratio is best, scalar or [T, ...].

    Returns:
        [T, ...] float, the loss of each step.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Least at ρ = 1 + ε where A > 0 and at ρ = 1 - ε where A < 0; beyond them the gradient leads back, where PPO's
        is 0. At ratio 1 its gradient is that of `policy_gradient_loss`. Beyond the first step biased.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.spo_loss(jnp.log(jnp.array([1.5, 0.5])), jnp.ones(2), clip=0.5))
        [-1.25 -0.25]

    References:
        Xie et al. (2024), Simple policy optimization.
    """
    log_ratio, advantage = as_pair("log_ratio", log_ratio, "advantage", advantage)
    clip = _checks.as_scalar_or_shape("clip", clip, log_ratio.shape)
    advantage = jax.lax.stop_gradient(advantage)
    ratio = ratio_of(log_ratio)
    return jnp.abs(advantage) * jnp.square(ratio - 1.0) / (2.0 * clip) - ratio * advantage


@compiled()
def discovered_loss(
    log_ratio: Array, advantage: Array, *, alpha: Array | float = 2.0, beta: Array | float = 0.6
) -> Array:
    """Compute the surrogate of discovered policy optimisation, whose drift was found by meta-learning.

        L_t = -ρ_t A_t + f(x_t),   f(x) = x - s tanh(x / s) where x > 0, and 0 elsewhere,   ρ = exp(log_ratio)
        x_t = (ρ_t - 1) A_t,  s = α   where A_t >= 0
        x_t = A_t log ρ_t,    s = β   where A_t < 0

    Shapes: log_ratio, advantage [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here; the constants α and β go with standardised advantages.
        alpha: α, in units of the advantage, how much improvement the drift allows where A >= 0; scalar or [T, ...].
        beta: β, in units of the advantage, the same where A < 0; scalar or [T, ...].

    Returns:
        [T, ...] float, the loss of each step.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        The drift and its gradient are 0 at ratio 1, where the gradient is that of `policy_gradient_loss`, and wherever
        the ratio has moved against the advantage. Beyond the first step biased. Not direct preference optimisation.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.discovered_loss(jnp.log(jnp.array([1.0, 0.5])), jnp.ones(2)))
        [-1.  -0.5]

    References:
        Lu, Kuba, Letcher, Metz, Schroeder de Witt and Foerster (2022), Discovered policy optimisation.
    """
    log_ratio, advantage = as_pair("log_ratio", log_ratio, "advantage", advantage)
    alpha = _checks.as_scalar_or_shape("alpha", alpha, log_ratio.shape)
    beta = _checks.as_scalar_or_shape("beta", beta, log_ratio.shape)
    advantage = jax.lax.stop_gradient(advantage)
    ratio = ratio_of(log_ratio)
    gain = jnp.where(advantage >= 0, ratio - 1.0, bounded(log_ratio)) * advantage
    scale = jnp.where(advantage >= 0, alpha, beta)
    drift = jnp.where(gain > 0, gain - scale * jnp.tanh(gain / scale), 0.0)
    return drift - ratio * advantage


@compiled("per_token")
def sequence_log_ratio(log_ratio: Array, mask: Array | None = None, *, per_token: bool = False) -> Array:
    """Compute the mean log-ratio of each sequence, to give to a surrogate in place of that of each step.

        x̄ = Σ_t m_t log ρ_t / Σ_t m_t
        x̄                                 at every step, or
        log ρ_t + stop(x̄ - log ρ_t)       with per_token

    GSPO is `ppo_clip_loss` of it and one advantage for each sequence, reduced with `sequence_mean`; GSPO-token is the
    same with per_token and any advantages.

    Shapes: log_ratio, mask [T, ...]; result [T, ...]. A column is a sequence.

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 a step's is taken as
            ±20.
        mask: [T, ...] bool, the steps of each sequence; None counts all.
        per_token: whether the gradient at a step is that of its own log-ratio; static.

    Returns:
        [T, ...] float, nats; 0 outside the mask, where log_ratio may be NaN or infinite without harm.

    Raises:
        TypeError: if log_ratio is not floating or mask is not boolean.
        ValueError: if shapes differ or log_ratio is empty.

    Properties:
        Its exponential is the geometric mean of the ratios, not the ratio of the sequence, which is its power by the
        length: biased, with a variance that does not grow with the length. Both forms have the same value, and where
        all steps of a sequence have one advantage the same gradient of the mean over its steps. Summed over the
        steps in place of that mean, longer sequences weigh more.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.sequence_log_ratio(jnp.array([1.0, 2.0, jnp.nan]), jnp.array([True, True, False])))
        [1.5 1.5 0. ]

    References:
        Zheng et al. (2025), Group sequence policy optimization.
    """
    log_ratio = _checks.as_floating("log_ratio", log_ratio, ndim_at_least=1)
    counts = jnp.ones(log_ratio.shape, bool) if mask is None else _checks.as_boolean("mask", mask, like=log_ratio)
    own = bounded(jnp.where(counts, log_ratio, 0.0))
    mean = jnp.broadcast_to(masked_mean(own, counts, axis=0), own.shape)
    result = own + jax.lax.stop_gradient(mean - own) if per_token else mean
    return jnp.where(counts, result, 0.0)
