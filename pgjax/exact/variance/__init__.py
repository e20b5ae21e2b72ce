"""Exact means and variances of gradient estimators, without sampling.

In the order in which to read: estimators that are one backward pass, an `AffinePair`, and its moments (moments); the
coefficients of well-known ones (pairs, offpolicy_pairs); baselines of least variance (state_baselines); and REINFORCE
with the return of the whole episode (total_return).
"""

from pgjax.exact.variance.moments import AffinePair, Moments, VarianceSplit, pair_moments, pair_variance, variance_split
from pgjax.exact.variance.offpolicy_pairs import off_pac_pair, pdis_pair, vtrace_pair
from pgjax.exact.variance.pairs import all_action_pair, gae_pair, gpomdp_pair
from pgjax.exact.variance.state_baselines import per_step_optimal_baseline, trajectory_optimal_baseline
from pgjax.exact.variance.total_return import (
    ReturnMoments,
    optimal_parameter_baseline,
    optimal_return_baseline,
    reinforce_moments,
    return_moments,
)

__all__ = [
    "AffinePair",
    "Moments",
    "ReturnMoments",
    "VarianceSplit",
    "all_action_pair",
    "gae_pair",
    "gpomdp_pair",
    "off_pac_pair",
    "optimal_parameter_baseline",
    "optimal_return_baseline",
    "pair_moments",
    "pair_variance",
    "pdis_pair",
    "per_step_optimal_baseline",
    "reinforce_moments",
    "return_moments",
    "trajectory_optimal_baseline",
    "variance_split",
    "vtrace_pair",
]
