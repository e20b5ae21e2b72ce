"""Per-step surrogate losses. No reduction: [T, ...] in, [T, ...] out. The weights they are given are constants.

A loss is minimised: its gradient is a descent direction. `masked_mean` reduces.
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array

# Beyond exp(±20) a ratio carries no information; float32 would overflow at 88.
_MAX_LOG_RATIO = 20.0


@compiled()
def policy_gradient_loss(log_prob: Array, advantage: Array) -> Array:
    """Compute the surrogate whose gradient is minus the score-function gradient.

        L_t = -log π(a_t|s_t) · stop(A_t)

    Shapes: log_prob, advantage [T, ...]; result [T, ...].

    Args:
        log_prob: [T, ...] float, nats, log-probability of the actions taken, differentiable.
        advantage: [T, ...] float, the weight of each score; a constant here.

    Returns:
        [T, ...] float, the loss of each step. Its value means nothing; its gradient does.

    Raises:
        TypeError: if an argument is not floating (log_prob of integer dtype is an action passed by mistake).
        ValueError: if shapes differ.

    Properties:
        Unbiased for whatever objective the weights are unbiased for. Must not be differentiated twice: the
        second derivative is not that of the objective.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.policy_gradient_loss(jnp.array([-1.0]), jnp.array([2.0])))
        [2.]

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    log_prob, advantage = _pair("log_prob", log_prob, "advantage", advantage)
    return -log_prob * jax.lax.stop_gradient(advantage)


@compiled()
def ppo_clip_loss(
    log_ratio: Array, advantage: Array, *, clip: Array | float = 0.2, clip_upper: Array | float | None = None
) -> Array:
    """Compute the clipped surrogate of PPO.

        L_t = -min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε_upper) A_t),   ρ = exp(log_ratio)       (paper: eq. 7)

    Shapes: log_ratio, advantage [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, nats, log π(a|s) - log π_old(a|s), differentiable; beyond ±20 it is taken as ±20.
        advantage: [T, ...] float, a constant here.
        clip: ε, how far the ratio may fall below 1, and rise above it unless clip_upper is given; scalar or [T, ...].
        clip_upper: how far the ratio may rise above 1; None means clip.

    Returns:
        [T, ...] float, the loss of each step.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        At ratio 1 its gradient is that of `policy_gradient_loss`. The gradient is 0 where A > 0 and ρ > 1 + ε, and
        where A < 0 and ρ < 1 - ε. Beyond the first step biased: the ratio corrects the action, not the state.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.ppo_clip_loss(jnp.log(jnp.array([2.0, 0.5])), jnp.ones(2)))
        [-1.2 -0.5]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, eq. 7.
    """
    log_ratio, advantage = _pair("log_ratio", log_ratio, "advantage", advantage)
    clip = _checks.as_scalar_or_shape("clip", clip, log_ratio.shape)
    clip_upper = clip if clip_upper is None else _checks.as_scalar_or_shape("clip_upper", clip_upper, log_ratio.shape)
    advantage = jax.lax.stop_gradient(advantage)
    ratio = jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip_upper)
    return -jnp.minimum(ratio * advantage, clipped * advantage)


@compiled()
def kl_penalty_loss(log_ratio: Array, advantage: Array, *, kl: Array, coefficient: Array | float) -> Array:
    """Compute the surrogate with a penalty on the divergence from the policy that collected the data.

        L_t = -ρ_t A_t + β KL_t                                                              (paper: eq. 8)

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
    """
    log_ratio, advantage = _pair("log_ratio", log_ratio, "advantage", advantage)
    kl = _checks.as_floating("kl", kl)
    _checks.require_same_shape("log_ratio", log_ratio.shape, kl=kl)
    coefficient = _checks.as_scalar_or_shape("coefficient", coefficient, log_ratio.shape)
    ratio = jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))
    return coefficient * kl - ratio * jax.lax.stop_gradient(advantage)


@compiled()
def value_loss(value: Array, target: Array) -> Array:
    """Compute half the squared error of a value prediction.

        L_t = ½ (V(s_t) - stop(target_t))²

    Shapes: value, target [T, ...]; result [T, ...].

    Args:
        value: [T, ...] float, reward units, differentiable.
        target: [T, ...] float, reward units, a constant here.

    Returns:
        [T, ...] float, squared reward units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        A semi-gradient: the bootstrap inside the target is not differentiated.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.value_loss(jnp.zeros(1), jnp.full(1, 2.0)))
        [2.]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 9.3.
    """
    value, target = _pair("value", value, "target", target)
    return 0.5 * jnp.square(value - jax.lax.stop_gradient(target))


@compiled()
def clipped_value_loss(value: Array, target: Array, *, old_value: Array, clip: Array | float = 0.2) -> Array:
    """Compute half the squared error of a value prediction that may not move far from the old one.

        L_t = ½ max((V - target)², (old + clip(V - old, -ε, ε) - target)²)

    Shapes: value, target, old_value [T, ...]; result [T, ...].

    Args:
        value: [T, ...] float, reward units, differentiable.
        target: [T, ...] float, reward units, a constant here.
        old_value: [T, ...] float, reward units, the prediction when the data were collected; a constant here.
        clip: ε, reward units, scalar or [T, ...]: unlike the ratio's clip it depends on the scale of the rewards.

    Returns:
        [T, ...] float, squared reward units.

    Raises:
        TypeError: if an argument is not floating.
        ValueError: if shapes differ.

    Properties:
        Equals `value_loss` where value = old_value. Never smaller than it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.clipped_value_loss(jnp.ones(1), jnp.ones(1), old_value=jnp.zeros(1), clip=0.5))
        [0.125]

    References:
        Engstrom et al. (2020), Implementation matters in deep policy gradients: a case study on PPO and TRPO.
    """
    value, target = _pair("value", value, "target", target)
    old_value = _checks.as_floating("old_value", old_value)
    _checks.require_same_shape("value", value.shape, old_value=old_value)
    clip = _checks.as_scalar_or_shape("clip", clip, value.shape)
    target, old_value = jax.lax.stop_gradient((target, old_value))
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(value - target), jnp.square(near - target))


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


@compiled("axis")
def masked_mean(x: Array, mask: Array | None = None, *, axis: int | tuple[int, ...] | None = None) -> Array:
    """Average the entries of x that a mask selects.

        Σ m x / Σ m, and 0 where nothing is selected

    Shapes: x [...], mask alike; result [...] without the axes named.

    Args:
        x: [...] float.
        mask: [...] bool, True for the entries that count; None counts all.
        axis: axes to average over; None means all of them; static.

    Returns:
        The mean, at least float32. Entries outside the mask may be NaN or infinite without harm.

    Raises:
        TypeError: if x is not floating or mask is not boolean.
        ValueError: if shapes differ or x is empty.

    Properties:
        A mean over time of episodes of different lengths weighs long episodes more; a mean of ratios is biased
        by O(1/N). The gradient through entries outside the mask is 0.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.masked_mean(jnp.array([1.0, jnp.nan]), jnp.array([True, False])))
        1.0

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 5.5, on ratios of sums.
    """
    x = _checks.as_floating("x", x)
    if mask is None:
        return x.mean(axis)
    mask = _checks.as_boolean("mask", mask, like=x)
    return jnp.where(mask, x, 0.0).sum(axis) / jnp.maximum(mask.sum(axis), 1).astype(x.dtype)


@compiled()
def standardize(x: Array, mask: Array | None = None, *, eps: Array | float = 1e-8) -> Array:
    """Shift and scale advantages to mean 0 and standard deviation 1 over everything given.

        (x - mean) / (std + eps)

    Shapes: x [...], mask alike; result alike.

    Args:
        x: [...] float, for instance the advantages of a minibatch.
        mask: [...] bool, entries that count; None counts all.
        eps: added to the standard deviation, in units of x.

    Returns:
        [...] float, dimensionless; 0 outside the mask, and 0 everywhere if all entries are equal.

    Raises:
        TypeError: if x is not floating or mask is not boolean.
        ValueError: if shapes differ or x is empty.

    Properties:
        Couples the samples: the gradient that uses it is biased by O(1/N) and its scale is lost. The standard
        deviation is that of the population (divided by N).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.standardize(jnp.array([1.0, 3.0])))
        [-1.  1.]

    References:
        Andrychowicz et al. (2021), What matters in on-policy reinforcement learning? A large-scale empirical study.
    """
    x = _checks.as_floating("x", x)
    if mask is not None:
        mask = _checks.as_boolean("mask", mask, like=x)
        x = jnp.where(mask, x, 0.0)
    # A mean of equal numbers may miss them by a rounding; counted from the first that counts they are exactly 0.
    x = x - jax.lax.stop_gradient(x.ravel()[0 if mask is None else jnp.argmax(mask)])
    centred = x - masked_mean(x, mask)
    variance = masked_mean(jnp.square(centred), mask)
    result = centred / (jnp.sqrt(jnp.where(variance == 0, 1.0, variance)) + eps)
    return result if mask is None else jnp.where(mask, result, 0.0)


def _pair(first_name: str, first: Array, second_name: str, second: Array) -> tuple[Array, Array]:
    first = _checks.as_floating(first_name, first)
    second = _checks.as_floating(second_name, second)
    _checks.require_shape(second_name, second, first.shape, of=first_name)
    return first, second
