"""What is subtracted from a return.

A baseline never sees the return that it is subtracted from, unless its name says so.

A baseline is an array [T, B], or a function `baseline(return_) -> [T, B]` that an estimator calls. State and
update are apart: use the state from before the batch as the baseline, then update it with the batch.
"""

from pgjax.baselines.group import batch_mean, leave_one_out
from pgjax.baselines.moving_mean import MovingMean, init_moving_mean, moving_mean, update_moving_mean
from pgjax.baselines.value import value_baseline

__all__ = [
    "MovingMean",
    "batch_mean",
    "init_moving_mean",
    "leave_one_out",
    "moving_mean",
    "update_moving_mean",
    "value_baseline",
]
