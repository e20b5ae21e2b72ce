"""Weighted means of the returns of other trajectories: the baseline of least variance, and one for each step."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.baselines._folds import checked_folds, sum_over_others
from pgjax.returns import affine_recurrence

Array = jax.Array


@compiled("num_folds", "axis")
def optimal_baseline(return_: Array, square_score: Array, *, num_folds: int | None = None, axis: int = -1) -> Array:
    """Compute the constant that is best subtracted from returns, from other trajectories than the own.

        b_i = Σ_{j∉fold(i)} ‖ψ_j‖² G_j / Σ_{j∉fold(i)} ‖ψ_j‖²

    num_folds=None leaves out the own trajectory alone, 2 lets two halves swap, 1 leaves out nothing (plug-in).

    Shapes: return_, square_score [T, B] or [..., N]; result alike.

    Args:
        return_: [..., N] float, what the scores are multiplied by, of N independent trajectories along axis.
        square_score: [..., N] float, squared norms of those scores, see `square_scores`; at least 0. Constant ones
            make it the mean of the others, `leave_one_out`.
        num_folds: folds of trajectories that are next to one another, from 1 to N; None is N; static.
        axis: the axis of the independent trajectories, as for `leave_one_out`; static.

    Returns:
        [..., N] float, the baseline of each, the units of return_; 0 where no other score differs from zero.

    Raises:
        TypeError: if an array is not floating or num_folds is not an int.
        ValueError: if shapes differ, or there are fewer trajectories than folds, or one alone to be left out.

    Properties:
        Keeps the gradient unbiased with two folds or more. With num_folds=1 it sees the own return, and the gradient
        is biased by O(1/N): use that on the *next* batch, whose returns it has not seen. With total returns and
        the scores of whole episodes it estimates the constant of least variance for `likelihood_ratio`; row by row,
        with cumulative scores and γ^l r_l, the constants of `gpomdp`, each best by itself.
        `optimal_baseline_gradient` does what is best for all of them together, and for each parameter.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.optimal_baseline(jnp.array([1.0, 2.0, 6.0]), jnp.array([1.0, 1.0, 3.0])))
        [5.  4.75 1.5 ]

    References:
        Weaver and Tao (2001), The optimal reward baseline for gradient-based reinforcement learning.
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning.
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=1)
    square_score = _checks.as_floating("square_score", square_score)
    _checks.require_same_shape("return_", return_.shape, square_score=square_score)
    returns, weight = (jnp.moveaxis(x, axis, 0) for x in (return_, square_score))
    num_folds = checked_folds(num_folds, returns.shape[0])
    origin = jnp.max(returns, 0, keepdims=True, where=weight > 0, initial=-jnp.inf)
    origin = jax.lax.stop_gradient(jnp.where(jnp.isfinite(origin), origin, 0.0))
    total, earned = (sum_over_others(x, num_folds) for x in (weight, weight * (returns - origin)))
    return jnp.moveaxis(_ratio(origin, earned, total), 0, axis)


@compiled("num_folds")
def step_baseline(
    return_: Array, step: Array, square_score: Array | None = None, *, num_folds: int | None = None
) -> Array:
    """Compute, for each row, the mean return of the other trajectories at the same step of their episodes.

        b_i(t) = Σ_{j∉fold(i)} w_j G_j / Σ_{j∉fold(i)} w_j   over the rows j whose step is that of row t

    Shapes: return_, step [T, B]; result alike.

    Args:
        return_: [T, B, ...] float, returns of trajectories along axis 1, independent from one another. Further axes
            share them: rows of one fold are all left out together.
        step: [T, B, ...] int, `trajectory.step`.
        square_score: [T, B, ...] float, w, for instance `square_scores`: the mean becomes the baseline that
            depends on the step alone and has the least variance step by step. None is 1.
        num_folds: as for `optimal_baseline`.

    Returns:
        [T, B, ...] float, the units of return_; 0 where no other trajectory has a row of that step.

    Raises:
        TypeError: if return_ is not floating or step no integer.
        ValueError: if shapes differ, or there are fewer trajectories than folds, or one alone to be left out.

    Properties:
        Keeps the gradient unbiased with two folds or more; biased by O(1/B) with num_folds=1, on its own batch. Where
        all columns are at the same step in every row it is `leave_one_out`; where episodes begin at different rows,
        that compares different steps and this does not. One sort of T B numbers.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.step_baseline(jnp.array([[1.0, 7.0], [5.0, 3.0]]), jnp.array([[0, 1], [1, 0]])))
        [[3. 5.]
         [7. 1.]]

    References:
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients, on baselines that
        depend on the time step.
    """
    return_ = _checks.as_floating("return_", return_, ndim_at_least=2)
    step = _checks.as_integer("step", step)
    weight = jnp.ones_like(return_) if square_score is None else _checks.as_floating("square_score", square_score)
    _checks.require_same_shape("return_", return_.shape, step=step, square_score=weight)
    size = return_.shape[1]
    num_folds = checked_folds(num_folds, size)
    fold = (jnp.arange(size) * num_folds) // size
    fold = jnp.broadcast_to(fold.reshape((1, size) + (1,) * (step.ndim - 2)), step.shape)
    which, pair, goes_on = _ranked(step.ravel(), fold.ravel())
    count = step.size
    origin = _segment_largest(return_.ravel(), weight.ravel() > 0, which, count).reshape(return_.shape)

    def of_the_others(x: Array) -> Array:
        sums = jax.ops.segment_sum(x.ravel(), pair, count)
        if num_folds > 1:
            sums = _beside(sums, goes_on)
        return sums[pair].reshape(x.shape)

    return _ratio(origin, of_the_others(weight * (return_ - origin)), of_the_others(weight))


def _ranked(step: Array, fold: Array) -> tuple[Array, Array, Array]:
    """Number the steps, and the pairs (step, fold) in order; and whether a pair has the step of the pair before it."""
    order = jnp.lexsort((fold, step))
    new_step, new_fold = (jnp.concatenate([jnp.ones(1, bool), jnp.diff(x[order]) != 0]) for x in (step, fold))
    pairs = jnp.cumsum(new_step | new_fold) - 1
    back = jnp.zeros_like(order).at[order]
    goes_on = jnp.ones(step.size, bool).at[pairs].min(~new_step)
    return back.set(jnp.cumsum(new_step) - 1), back.set(pairs), goes_on


def _beside(sums: Array, goes_on: Array) -> Array:
    """For each pair, the sum over the other pairs of its step; nothing is subtracted, as in `sum_over_others`."""
    carry = goes_on.astype(sums.dtype)
    before = affine_recurrence(carry * jnp.roll(sums, 1), carry, reverse=False)
    carry = jnp.roll(carry, -1).at[-1].set(0.0)
    return before + affine_recurrence(carry * jnp.roll(sums, -1), carry)


def _segment_largest(return_: Array, counts: Array, which: Array, size: int) -> Array:
    largest = jax.ops.segment_max(jnp.where(counts, return_, -jnp.inf), which, size)[which]
    return jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0.0))


def _ratio(origin: Array, earned: Array, total: Array) -> Array:
    """Return origin + earned / total; 0 where nothing counts. From an origin, equal returns lose no digit."""
    return jnp.where(total > 0, origin + earned / jnp.where(total > 0, total, 1.0), 0.0)
