"""Finite processes: values, visitations, gradients and more, by linear algebra.

In the order in which to read: `TabularMDP`, the process (mdp); a policy's chain of states (chain); values and visits
(values, and over time with a horizon: horizon); the gradient of the objective (gradients), for any policy with its
score (scores); natural gradients (natural); other objectives (objectives, offpolicy); what critics converge to
(critics); optimal policies (optimal); and processes as something to roll out (environments).
"""

from pgjax.exact.tabular.chain import k_step_visitation, state_transition
from pgjax.exact.tabular.critics import gae_bias, vtrace_policy, vtrace_value
from pgjax.exact.tabular.environments import (
    CounterEnvironment,
    CounterParams,
    TabularEnvironment,
    TabularParams,
    TabularState,
)
from pgjax.exact.tabular.gradients import (
    critic_gradient,
    policy_gradient,
    policy_gradient_autodiff,
    policy_gradient_of,
    policy_gradient_unrolled,
    policy_hessian,
    sensitivity,
    value_gradient,
)
from pgjax.exact.tabular.horizon import (
    action_values_over_time,
    advantages_over_time,
    values_over_time,
    visitation_over_time,
)
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.natural import (
    compatible_critic,
    compatible_critic_of,
    fisher_matrix,
    fisher_matrix_of,
    natural_gradient,
    natural_gradient_of,
)
from pgjax.exact.tabular.objectives import (
    average_reward_gradient,
    average_reward_sensitivity,
    dropped_discount_gradient,
    dropped_discount_sensitivity,
)
from pgjax.exact.tabular.offpolicy import (
    emphasis,
    emphatic_gradient,
    emphatic_sensitivity,
    excursion_objective,
    followon_spectral_radius,
    off_pac_gradient,
    off_pac_sensitivity,
)
from pgjax.exact.tabular.optimal import optimal_policy, optimal_value
from pgjax.exact.tabular.scores import score_of, softmax_score
from pgjax.exact.tabular.values import (
    action_value,
    advantage,
    average_reward,
    differential_action_value,
    differential_value,
    objective,
    stationary_distribution,
    value,
    visitation,
)

__all__ = [
    "CounterEnvironment",
    "CounterParams",
    "TabularEnvironment",
    "TabularMDP",
    "TabularParams",
    "TabularState",
    "action_value",
    "action_values_over_time",
    "advantage",
    "advantages_over_time",
    "average_reward",
    "average_reward_gradient",
    "average_reward_sensitivity",
    "compatible_critic",
    "compatible_critic_of",
    "critic_gradient",
    "differential_action_value",
    "differential_value",
    "dropped_discount_gradient",
    "dropped_discount_sensitivity",
    "emphasis",
    "emphatic_gradient",
    "emphatic_sensitivity",
    "excursion_objective",
    "fisher_matrix",
    "fisher_matrix_of",
    "followon_spectral_radius",
    "gae_bias",
    "k_step_visitation",
    "natural_gradient",
    "natural_gradient_of",
    "objective",
    "off_pac_gradient",
    "off_pac_sensitivity",
    "optimal_policy",
    "optimal_value",
    "policy_gradient",
    "policy_gradient_autodiff",
    "policy_gradient_of",
    "policy_gradient_unrolled",
    "policy_hessian",
    "score_of",
    "sensitivity",
    "softmax_score",
    "state_transition",
    "stationary_distribution",
    "terminal_states",
    "value",
    "value_gradient",
    "values_over_time",
    "visitation",
    "visitation_over_time",
    "vtrace_policy",
    "vtrace_value",
]
