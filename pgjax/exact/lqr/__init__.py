"""Linear systems with quadratic costs: the same truths in closed form, for continuous actions."""

from pgjax.exact.lqr.environment import LQREnvironment, LQRParams, LQRState
from pgjax.exact.lqr.moments import lqr_gpomdp_moments, lqr_pathwise_moments, lqr_reinforce_moments
from pgjax.exact.lqr.system import LQR

__all__ = [
    "LQR",
    "LQREnvironment",
    "LQRParams",
    "LQRState",
    "lqr_gpomdp_moments",
    "lqr_pathwise_moments",
    "lqr_reinforce_moments",
]
