"""What is subtracted from a return.

A baseline never sees the return that it is subtracted from, unless its name says so, or its argument: num_folds=1.

A baseline is an array [T, B], or a function `baseline(return_) -> [T, B]` that an estimator calls. State and
update are apart: use the state from before the batch as the baseline, then update it with the batch. What is fitted to
returns comes in three forms: fitted to an earlier batch, to the other folds of this one, or to the other trajectories.
"""

from pgjax.baselines.greedy import greedy_baseline
from pgjax.baselines.group import batch_mean, grpo_advantages, leave_one_out
from pgjax.baselines.linear import cross_fitted_baseline, fit_linear_baseline, linear_baseline, time_features
from pgjax.baselines.moving_mean import MovingMean, init_moving_mean, moving_mean, update_moving_mean
from pgjax.baselines.optimal import optimal_baseline, step_baseline
from pgjax.baselines.value import value_baseline
from pgjax.baselines.value_scale import (
    ValueScale,
    denormalize_value,
    init_value_scale,
    normalize_value,
    rescale_value_head,
    update_value_scale,
)

__all__ = [
    "MovingMean",
    "ValueScale",
    "batch_mean",
    "cross_fitted_baseline",
    "denormalize_value",
    "fit_linear_baseline",
    "greedy_baseline",
    "grpo_advantages",
    "init_moving_mean",
    "init_value_scale",
    "leave_one_out",
    "linear_baseline",
    "moving_mean",
    "normalize_value",
    "optimal_baseline",
    "rescale_value_head",
    "step_baseline",
    "time_features",
    "update_moving_mean",
    "update_value_scale",
    "value_baseline",
]
