"""Means over the entries that count, over steps or over sequences, and advantages of mean 0 and deviation 1."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


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
        A mean over time of episodes of different lengths weighs long episodes more, as the mean over tokens of DAPO is
        meant to do; `sequence_mean` does not. A mean of ratios is biased by O(1/N). The gradient through entries
        outside the mask is 0.

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
def sequence_mean(x: Array, mask: Array | None = None, *, length: Array | float | None = None) -> Array:
    """Sum over the steps of each sequence, divide by its length or by a constant, and average over the sequences.

        mean_b [ Σ_t m x / Σ_t m ],  or  mean_b [ Σ_t m x / length ],  over the columns in which something counts

    The first is the reduction of GRPO and GSPO; a constant length is that of Dr. GRPO. A length of 1 is what
    estimators do, the sum over time and the mean over trajectories. The mean over tokens, of DAPO, is `masked_mean`.

    Shapes: x, mask [T, ...]; result scalar. A column is a sequence.

    Args:
        x: [T, ...] float, for instance the loss of each step.
        mask: [T, ...] bool, the steps of each sequence; None counts all.
        length: steps, what each sum is divided by, scalar or [...]; None takes the number of steps of each sequence.

    Returns:
        The mean, at least float32; 0 if nothing counts. Entries outside the mask may be NaN or infinite without harm.

    Raises:
        TypeError: if x is not floating or mask is not boolean.
        ValueError: if shapes differ or x is empty.

    Properties:
        Divided by their own lengths, steps of short sequences weigh more than those of long ones: biased for the
        gradient of a sum over time, where a constant length changes its scale alone. The gradient through entries
        outside the mask is 0.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> x, mask = jnp.array([[1.0, 3.0], [0.0, 5.0]]), jnp.array([[True, True], [False, True]])
        >>> print(pg.sequence_mean(x, mask), pg.sequence_mean(x, mask, length=4), pg.masked_mean(x, mask))
        2.5 1.125 3.0

    References:
        Liu et al. (2025), Understanding R1-Zero-like training: a critical perspective.
        Shao et al. (2024), DeepSeekMath: pushing the limits of mathematical reasoning in open language models.
    """
    x = _checks.as_floating("x", x, ndim_at_least=1)
    counts = jnp.ones(x.shape, bool) if mask is None else _checks.as_boolean("mask", mask, like=x)
    count = counts.sum(0)
    total = jnp.where(counts, x, 0.0).sum(0)
    if length is None:
        length = jnp.maximum(count, 1).astype(x.dtype)
    return masked_mean(total / _checks.as_scalar_or_shape("length", length, total.shape), count > 0)


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
