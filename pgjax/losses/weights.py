"""Weights of log-probabilities that make a better policy the target of maximum likelihood.

The loss is `policy_gradient_loss(log_prob, weight)`. Weights are constants: no gradient flows through them.
"""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of

Array = jax.Array
Axis = int | tuple[int, ...] | None

LEAST_TEMPERATURE = 1e-8
"""Temperatures count as at least this: below it a quotient by them overflows."""


@compiled()
def exponential_weight(
    advantage: Array, *, temperature: Array | float = 1.0, max_weight: Array | float = 20.0
) -> Array:
    """Compute the weight of each action that advantage-weighted regression gives it.

        w_t = min(exp(A_t / β), w_max)

    AWR takes A = R - V with the value of the policy that acted; CRR, in its exponential form, A = Q - V.

    Shapes: advantage [T, ...]; result [T, ...].

    Args:
        advantage: [T, ...] float, reward units.
        temperature: β > 0, reward units, scalar or [T, ...]; below 1e-8 it is taken as 1e-8.
        max_weight: w_max, scalar or [T, ...]; exp(20) is the greatest that has an effect.

    Returns:
        [T, ...] float, dimensionless, a constant.

    Raises:
        TypeError: if advantage is not floating.
        ValueError: if shapes differ.

    Properties:
        With these weights the gradient of the likelihood is not that of the return; for data of the policy itself and
        β to infinity it tends to the policy gradient divided by β. The cap makes it a projection onto another target.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.exponential_weight(jnp.array([0.0, jnp.log(2.0), 100.0])))
        [ 1.  2. 20.]

    References:
        Peng, Kumar, Zhang and Levine (2019), Advantage-weighted regression: simple and scalable off-policy
        reinforcement learning.
        Wang et al. (2020), Critic regularized regression.
    """
    advantage = _checks.as_floating("advantage", advantage)
    temperature = _checks.as_scalar_or_shape("temperature", temperature, advantage.shape)
    max_weight = _checks.as_scalar_or_shape("max_weight", max_weight, advantage.shape)
    exponent = advantage / jnp.maximum(temperature, LEAST_TEMPERATURE)
    return jax.lax.stop_gradient(ratio_of(jnp.minimum(exponent, jnp.log(max_weight))).astype(advantage.dtype))


@compiled()
def binary_weight(advantage: Array) -> Array:
    """Compute the weight 1 of actions that are better than expected, and 0 of the others.

        w_t = 1 where A_t > 0, else 0

    Shapes: advantage [T, ...]; result [T, ...].

    Args:
        advantage: [T, ...] float, reward units, for CRR Q - V.

    Returns:
        [T, ...] float, a constant; NaN where the advantage is NaN.

    Raises:
        TypeError: if advantage is not floating.

    Properties:
        The scale of the rewards does not matter. Its likelihood clones the better actions of whoever acted: biased for
        the gradient of the return.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.binary_weight(jnp.array([2.0, 0.0, -1.0])))
        [1. 0. 0.]

    References:
        Wang et al. (2020), Critic regularized regression.
    """
    return jax.lax.stop_gradient(jnp.heaviside(_checks.as_floating("advantage", advantage), 0.0))


@compiled("axis")
def softmax_weight(value: Array, mask: Array | None = None, *, temperature: Array | float, axis: Axis = None) -> Array:
    """Compute weights in proportion to the exponential of a value, which sum to 1 over the axes named.

        w_i = m_i exp(x_i / η) / Σ_j m_j exp(x_j / η)

    MPO: x = Q [N, T, ...] of N actions drawn in each state, axis=0, so that each state has weights of its own. V-MPO:
    x = A [T, ...], mask=top_half(A), one softmax over the whole batch.

    Shapes: value, mask [...]; result [...].

    Args:
        value: [...] float, reward units: values or advantages.
        mask: [...] bool, the entries that count; None counts all.
        temperature: η > 0, reward units, a scalar; see `softmax_temperature_loss`. Below 1e-8 it is taken as 1e-8.
        axis: axes that the weights sum to 1 over; None means all of them; static.

    Returns:
        [...] float, a constant; 0 outside the mask, where value may be anything.

    Raises:
        TypeError: if value is not floating or mask is not boolean.
        ValueError: if shapes differ, value is empty, or temperature is no scalar.

    Properties:
        A number that is added to all values of a softmax changes nothing. The weights hold 1/N: sum -w log π over the
        axes named, and take the mean over the others. η to 0 gives the greatest all the weight, η to infinity gives
        equal ones. Self-normalised: the likelihood that they make is biased by O(1/N).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.softmax_weight(jnp.array([3.0, 3.0, -1e4]), temperature=1.0))
        [0.5 0.5 0. ]

    References:
        Abdolmaleki et al. (2018), Maximum a posteriori policy optimisation.
        Song et al. (2020), V-MPO: on-policy maximum a posteriori policy optimization for discrete and continuous
        control.
    """
    below, counts, _ = below_greatest(value, mask, axis)
    exponential = jnp.where(counts, jnp.exp(below / as_temperature(temperature)), 0.0)
    total = exponential.sum(axis, keepdims=True)
    return jax.lax.stop_gradient(exponential / jnp.where(total == 0, 1.0, total))


@compiled()
def top_half(advantage: Array, mask: Array | None = None) -> Array:
    """Select the better half of a batch.

        A_i >= the ⌈n/2⌉-th greatest of the n that count

    Shapes: advantage, mask [...]; result [...].

    Args:
        advantage: [...] float, reward units.
        mask: [...] bool, the entries that count; None counts all.

    Returns:
        [...] bool. Entries that tie with the last one selected are selected too, so that it may be more than half; NaN
        is kept among them, and shows in what is made of it.

    Raises:
        TypeError: if advantage is not floating or mask is not boolean.
        ValueError: if shapes differ or advantage is empty.

    Properties:
        The half of all entries given, over all axes: where the batch is split over devices, gather the advantages
        first. Couples the samples: the likelihood of the half is biased for the gradient of the return.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.top_half(jnp.array([3.0, 1.0, 2.0])))
        [ True False  True]

    References:
        Song et al. (2020), V-MPO: on-policy maximum a posteriori policy optimization for discrete and continuous
        control.
    """
    advantage = _checks.as_floating("advantage", advantage)
    counts = jnp.ones(advantage.shape, bool) if mask is None else _checks.as_boolean("mask", mask, like=advantage)
    ordered = jnp.sort(jnp.where(counts, -advantage, jnp.inf).ravel())
    last = -ordered[jnp.maximum((counts.sum() + 1) // 2 - 1, 0)]
    return counts & ~(advantage < last)


@compiled("axis")
def preference_weight(
    accepted: Array, mask: Array | None = None, *, balance: Array | float = 0.5, axis: Axis = None
) -> Array:
    """Compute weights that raise the likelihood of accepted actions and lower that of rejected ones.

        w_i = α / n_accepted  where accepted,   -(1 - α) / n_rejected  where rejected

    so that Σ w log π = α mean_accepted log π - (1 - α) mean_rejected log π. PMPO adds β KL(reference ‖ π) to its loss.

    Shapes: accepted, mask [...]; result [...].

    Args:
        accepted: [...] bool, the actions that are preferred, for instance `top_half` of their values.
        mask: [...] bool, the entries that count; None counts all.
        balance: α, in [0, 1], a scalar; 1 learns from what was accepted alone.
        axis: axes that are counted over, 0 for N actions drawn in each state; None means all of them; static.

    Returns:
        [...] float, a constant; 0 outside the mask.

    Raises:
        TypeError: if accepted or mask is not boolean.
        ValueError: if shapes differ, accepted is empty, or balance is no scalar.

    Properties:
        Sum -w log π over the axes named. With α < 1 that has no least value: a divergence from a reference must bound
        it. Where nothing is accepted, or nothing rejected, that part is 0. Biased for the gradient of the return.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.preference_weight(jnp.array([True, False, False])))
        [ 0.5  -0.25 -0.25]

    References:
        Abdolmaleki et al. (2025), Learning from negative feedback, or positive feedback or both.
    """
    accepted = _checks.as_boolean("accepted", accepted)
    _checks.require_nonempty("accepted", accepted)
    counts = jnp.ones(accepted.shape, bool) if mask is None else _checks.as_boolean("mask", mask, like=accepted)
    balance = _checks.as_scalar_or_shape("balance", balance, ())
    good, bad = accepted & counts, ~accepted & counts
    share = lambda chosen: chosen / jnp.maximum(chosen.sum(axis, keepdims=True), 1)  # noqa: E731
    return jax.lax.stop_gradient(balance * share(good) - (1.0 - balance) * share(bad))


def as_temperature(temperature: Array | float) -> Array:
    """Return a temperature that can be divided by; ValueError if it is no scalar."""
    return jnp.maximum(_checks.as_scalar_or_shape("temperature", temperature, ()), LEAST_TEMPERATURE)


def below_greatest(value: Array, mask: Array | None, axis: Axis) -> tuple[Array, Array, Array]:
    """Return values less the greatest over the axes, 0 where they do not count; the mask; the greatest, axes kept."""
    value = _checks.as_floating("value", value)
    counts = jnp.ones(value.shape, bool) if mask is None else _checks.as_boolean("mask", mask, like=value)
    top = jnp.where(counts, value, -jnp.inf).max(axis, keepdims=True)
    top = jnp.where(top == -jnp.inf, 0.0, top)
    return jnp.where(counts, value - top, 0.0), counts, top
