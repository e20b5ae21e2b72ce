"""Linear systems with quadratic costs: objectives, gradients and variances for continuous actions, in closed form.

In the order in which to read: `LQR`, the problem (system); its `cost`, `value` and so on (values), finite if the
feedback is `stable` (stability); the gradient (gradients); the optimal feedback (optimal); what estimators of the
gradient have for mean and variance (moments); and the problem as something to roll out (environment).
"""

from pgjax.exact.lqr.environment import LQREnvironment, LQRParams, LQRState
from pgjax.exact.lqr.gradients import cost_gradient, policy_gradient
from pgjax.exact.lqr.moments import lqr_gpomdp_moments, lqr_pathwise_moments, lqr_reinforce_moments
from pgjax.exact.lqr.optimal import riccati
from pgjax.exact.lqr.stability import check_stable, closed_loop, stable
from pgjax.exact.lqr.system import LQR
from pgjax.exact.lqr.values import (
    action_value,
    cost,
    cost_matrix,
    cost_to_go,
    moments_over_time,
    objective,
    state_moment,
    value,
)

__all__ = [
    "LQR",
    "LQREnvironment",
    "LQRParams",
    "LQRState",
    "action_value",
    "check_stable",
    "closed_loop",
    "cost",
    "cost_gradient",
    "cost_matrix",
    "cost_to_go",
    "lqr_gpomdp_moments",
    "lqr_pathwise_moments",
    "lqr_reinforce_moments",
    "moments_over_time",
    "objective",
    "policy_gradient",
    "riccati",
    "stable",
    "state_moment",
    "value",
]
