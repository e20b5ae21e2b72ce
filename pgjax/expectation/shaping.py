"""Shaping of values: what a search weighs in their place."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import _checks

Array = jax.Array
Shaping = Callable[[Array], Array]


def centered_ranks(values: Array) -> Array:
    """Replace values by their ranks, spread evenly over [-½, ½].

        u_i = (number of values below v_i) / (n - 1) - ½,   the mean over those that are equal

    Shapes: values [n]; result [n].

    Args:
        values: [n] float, to be minimised; what is not a number counts as infinite.

    Returns:
        [n] float: -½ for the lowest, ½ for the highest; 0 if all are equal, or n is 1.

    Raises:
        TypeError: if values is not floating.
        ValueError: if it is not [n].

    Properties:
        The same for every increasing function of the values. They sum to 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.expectation import centered_ranks
        >>> print(centered_ranks(jnp.array([30.0, -1.0, 2.0])))
        [ 0.5 -0.5  0. ]

    References:
        Salimans, Ho, Chen, Sidor and Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
        learning.
    """
    values = _row(values)
    number = values.shape[0]
    return _by_rank(
        values, jnp.linspace(-0.5, 0.5, number, dtype=values.dtype) if number > 1 else jnp.zeros_like(values)
    )


def nes_utilities(values: Array) -> Array:
    """Replace values by the utilities of natural evolution strategies, which look at the better half alone.

        u_i = 1/n - max(0, log(n/2 + 1) - log k_i) / Σ_k max(0, log(n/2 + 1) - log k),   k_i the rank, 1 for the lowest

    That is minus the utility of the paper, whose f is maximised. Values that are equal get the mean over their ranks.

    Shapes: values [n]; result [n].

    Args:
        values: [n] float, to be minimised; what is not a number counts as infinite.

    Returns:
        [n] float: lowest for the lowest value, and 1/n for all beyond the better half; 0 if all are equal.

    Raises:
        TypeError: if values is not floating.
        ValueError: if it is not [n].

    Properties:
        The same for every increasing function of the values. They sum to 0, and their spread falls like 1/n: a step
        with them is a sum over the samples of the paper, of which n times this is the mean.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.expectation import nes_utilities
        >>> [f"{u:.2f}" for u in nes_utilities(jnp.array([30.0, -1.0, 2.0, 5.0]))]
        ['0.25', '-0.48', '-0.02', '0.25']

    References:
        Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber (2014), Natural evolution strategies.
    """
    values = _row(values)
    number = values.shape[0]
    rank = jnp.arange(1, number + 1, dtype=values.dtype)
    raw = jnp.maximum(0.0, jnp.log(number / 2 + 1) - jnp.log(rank))
    return _by_rank(values, 1.0 / number - raw / jnp.sum(raw))


def shaped(shaping: Shaping, values: Array) -> Array:
    """Apply a shaping to all values together, whatever their shape; the shape stays.

    Args:
        shaping: of values [n], gives [n].
        values: [...] float.

    Returns:
        [...] float.

    Raises:
        TypeError: if shaping is no function.
        ValueError: if it does not give one number for each value.
    """
    _checks.require_callable("shaping", shaping)
    row = values.ravel()
    result = _checks.as_floating("the result of shaping", shaping(row))
    _checks.require_shape("the result of shaping", result, row.shape, "[n]")
    return result.reshape(values.shape)


def _row(values: Array) -> Array:
    values = _checks.as_floating("values", values)
    if values.ndim != 1:
        raise ValueError(f"values must have shape [n], got {list(values.shape)}. Rank all values together: ravel them.")
    return jnp.where(jnp.isnan(values), jnp.inf, values)


def _by_rank(values: Array, table: Array) -> Array:
    """Entry of the table [n] at the rank of each value, the mean over the ranks of those that are equal."""
    order = jnp.sort(values)
    first, end = (jnp.searchsorted(order, values, side=side) for side in ("left", "right"))
    sums = jnp.concatenate([jnp.zeros(1, table.dtype), jnp.cumsum(table)])
    return (sums[end] - sums[first]) / (end - first)
