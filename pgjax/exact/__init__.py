"""Ground truth: exact objectives, gradients and moments, to hold estimators against.

Gradients here are those of the objective itself (ascent); estimators elsewhere in the library return the
gradient of minus the objective (descent).
"""

from pgjax.exact.bandit import QuadraticBandit, leave_one_out_moments
from pgjax.exact.critics import gae_bias, vtrace_policy, vtrace_value
from pgjax.exact.enumerate import gauss_hermite, groups, join, trajectories, weighted_moments
from pgjax.exact.environments import CounterEnvironment, CounterParams, TabularEnvironment, TabularParams, TabularState
from pgjax.exact.gradients import (
    critic_gradient,
    policy_gradient,
    policy_gradient_autodiff,
    policy_gradient_of,
    policy_gradient_unrolled,
    policy_hessian,
    sensitivity,
    value_gradient,
)
from pgjax.exact.gridworlds import cliff4x12, windy7x10
from pgjax.exact.horizon import action_values_over_time, advantages_over_time, values_over_time, visitation_over_time
from pgjax.exact.lqr import LQR
from pgjax.exact.lqr_environment import LQREnvironment, LQRParams, LQRState
from pgjax.exact.lqr_moments import lqr_gpomdp_moments, lqr_pathwise_moments, lqr_reinforce_moments
from pgjax.exact.lqr_problems import double_integrator, scalar_lqr
from pgjax.exact.mdp import TabularMDP, k_step_visitation, state_transition, terminal_states
from pgjax.exact.moments import AffinePair, Moments, VarianceSplit, pair_moments, pair_variance, variance_split
from pgjax.exact.natural import (
    compatible_critic,
    compatible_critic_of,
    fisher_matrix,
    fisher_matrix_of,
    natural_gradient,
    natural_gradient_of,
)
from pgjax.exact.objectives import (
    average_reward_gradient,
    average_reward_sensitivity,
    dropped_discount_gradient,
    dropped_discount_sensitivity,
)
from pgjax.exact.offpolicy import (
    emphasis,
    emphatic_gradient,
    emphatic_sensitivity,
    excursion_objective,
    followon_spectral_radius,
    off_pac_gradient,
    off_pac_sensitivity,
)
from pgjax.exact.offpolicy_pairs import off_pac_pair, pdis_pair, vtrace_pair
from pgjax.exact.optimal import optimal_policy, optimal_value
from pgjax.exact.pairs import all_action_pair, gae_pair, gpomdp_pair
from pgjax.exact.problems import (
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
from pgjax.exact.scores import score_of, softmax_score
from pgjax.exact.spectrum import spectral_radius
from pgjax.exact.state_baselines import per_step_optimal_baseline, trajectory_optimal_baseline
from pgjax.exact.total_return import (
    ReturnMoments,
    optimal_parameter_baseline,
    optimal_return_baseline,
    reinforce_moments,
    return_moments,
)
from pgjax.exact.values import (
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
    "LQR",
    "AffinePair",
    "AliasedSoftmax",
    "CounterEnvironment",
    "CounterParams",
    "LQREnvironment",
    "LQRParams",
    "LQRState",
    "Moments",
    "QuadraticBandit",
    "ReturnMoments",
    "TabularEnvironment",
    "TabularMDP",
    "TabularParams",
    "TabularState",
    "VarianceSplit",
    "action_value",
    "action_values_over_time",
    "advantage",
    "advantages_over_time",
    "alias_discount",
    "alias_offpolicy",
    "all_action_pair",
    "average_reward",
    "average_reward_gradient",
    "average_reward_sensitivity",
    "chain5",
    "cliff4x12",
    "compatible_critic",
    "compatible_critic_of",
    "critic_gradient",
    "differential_action_value",
    "differential_value",
    "double_integrator",
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
    "gae_pair",
    "garnet8x3",
    "gauss_hermite",
    "gpomdp_pair",
    "groups",
    "join",
    "k_step_visitation",
    "leave_one_out_moments",
    "lqr_gpomdp_moments",
    "lqr_pathwise_moments",
    "lqr_reinforce_moments",
    "natural_gradient",
    "natural_gradient_of",
    "objective",
    "off_pac_gradient",
    "off_pac_pair",
    "off_pac_sensitivity",
    "optimal_parameter_baseline",
    "optimal_policy",
    "optimal_return_baseline",
    "optimal_value",
    "pair_moments",
    "pair_variance",
    "pdis_pair",
    "per_step_optimal_baseline",
    "policy_gradient",
    "policy_gradient_autodiff",
    "policy_gradient_of",
    "policy_gradient_unrolled",
    "policy_hessian",
    "random_garnet",
    "reinforce_moments",
    "return_moments",
    "riverswim6",
    "scalar_lqr",
    "score_of",
    "sensitivity",
    "sine_logits",
    "softmax_bandit",
    "softmax_bandit_logits",
    "softmax_score",
    "spectral_radius",
    "state_transition",
    "stationary_distribution",
    "tabular_problems",
    "terminal_states",
    "trajectories",
    "trajectory_optimal_baseline",
    "two_state",
    "two_state_behaviour",
    "two_state_logits",
    "value",
    "value_gradient",
    "values_over_time",
    "variance_split",
    "visitation",
    "visitation_over_time",
    "vtrace_pair",
    "vtrace_policy",
    "vtrace_value",
    "weighted_moments",
    "windy7x10",
]
