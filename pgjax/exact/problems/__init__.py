"""Small problems whose objectives, gradients and variances are known exactly.

In the order in which to read: tabular processes, `two_state` first (tabular, gridworlds); linear-quadratic ones (lqr);
and problems of one step with closed forms (bandit).
"""

from pgjax.exact.problems.bandit import QuadraticBandit, leave_one_out_moments
from pgjax.exact.problems.gridworlds import cliff4x12, windy7x10
from pgjax.exact.problems.lqr import double_integrator, scalar_lqr
from pgjax.exact.problems.tabular import (
    AliasedSoftmax,
    alias_discount,
    alias_offpolicy,
    chain5,
    garnet8x3,
    random_garnet,
    riverswim6,
    sine_logits,
    softmax_bandit,
    softmax_bandit_logits,
    tabular_problems,
    two_state,
    two_state_behaviour,
    two_state_logits,
)

__all__ = [
    "AliasedSoftmax",
    "QuadraticBandit",
    "alias_discount",
    "alias_offpolicy",
    "chain5",
    "cliff4x12",
    "double_integrator",
    "garnet8x3",
    "leave_one_out_moments",
    "random_garnet",
    "riverswim6",
    "scalar_lqr",
    "sine_logits",
    "softmax_bandit",
    "softmax_bandit_logits",
    "tabular_problems",
    "two_state",
    "two_state_behaviour",
    "two_state_logits",
    "windy7x10",
]
