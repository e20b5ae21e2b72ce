"""Whole gradients, made of rollouts, returns, baselines and losses.

The body of an estimator says what is minimised: a loss for each step, and the constants in it; or what each trajectory
adds. `estimator` turns the body into a function that returns (gradient, info), with two further forms: `per_trajectory`
returns what each trajectory contributes before the mean, `surrogate` the scalar that is differentiated. The gradient
is a descent direction and goes straight into optax.

Every estimator sums over time and averages over the batch axes. A column of the batch is one trajectory.

Read `surrogate` for the form, `score_function` for the first examples, `actor_critics` and `clipped` for those with a
critic, `expected` and `control` for those that are made of a rule of `pgjax.expectation`, `optimal` for baselines that
are fitted to the scores, `factors` for baselines of the other factors of an action, `doubly_robust` for data of any
policy, `higher_order` for those whose surrogates may be differentiated more than once.
"""

from pgjax.estimators.actor_critics import actor_critic, vtrace_actor_critic
from pgjax.estimators.clipped import ppo, ppo_objective
from pgjax.estimators.coefficients import (
    aggressive_coefficient,
    conservative_coefficient,
    leave_one_out_coefficient,
    leave_one_out_control,
    leave_one_out_covariance,
    single_sample_covariance,
)
from pgjax.estimators.control import control_variate, interpolated_gradient, linearized_critic
from pgjax.estimators.doubly_robust import doubly_robust_gradient, efficient_off_policy_gradient
from pgjax.estimators.expected import expected_gradient, sampled_gradient
from pgjax.estimators.factors import counterfactual_baseline, factor_log_probs, factorized_gradient
from pgjax.estimators.higher_order import dice, hessian_vector_product, loaded_dice
from pgjax.estimators.multistep import n_step_actor_critic, upgo_actor_critic
from pgjax.estimators.optimal import fit_optimal_baseline, optimal_baseline_gradient, square_scores
from pgjax.estimators.pathwise import pathwise_gradient
from pgjax.estimators.recursions import RecursionState, episode_ratio, scale_by_storm, scale_by_svrpg
from pgjax.estimators.replayed import acer, project_to_halfspace
from pgjax.estimators.replayed_continuous import acer_continuous
from pgjax.estimators.score_function import gpomdp, likelihood_ratio, reinforce
from pgjax.estimators.surrogate import Contributions, Estimator, GradientInfo, Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.estimators.traces import accumulating_trace, dutch_trace, scores_and_slopes, trace_gradient

__all__ = [
    "Contributions",
    "Estimator",
    "GradientInfo",
    "RecursionState",
    "Surrogate",
    "accumulating_trace",
    "acer",
    "acer_continuous",
    "action_distribution",
    "actor_critic",
    "aggressive_coefficient",
    "conservative_coefficient",
    "control_variate",
    "counterfactual_baseline",
    "dice",
    "doubly_robust_gradient",
    "dutch_trace",
    "efficient_off_policy_gradient",
    "episode_ratio",
    "estimator",
    "expected_gradient",
    "factor_log_probs",
    "factorized_gradient",
    "fit_optimal_baseline",
    "gpomdp",
    "hessian_vector_product",
    "interpolated_gradient",
    "leave_one_out_coefficient",
    "leave_one_out_control",
    "leave_one_out_covariance",
    "likelihood_ratio",
    "linearized_critic",
    "loaded_dice",
    "log_prob_taken",
    "n_step_actor_critic",
    "optimal_baseline_gradient",
    "pathwise_gradient",
    "ppo",
    "ppo_objective",
    "project_to_halfspace",
    "reinforce",
    "sampled_gradient",
    "scale_by_storm",
    "scale_by_svrpg",
    "scores_and_slopes",
    "single_sample_covariance",
    "square_scores",
    "trace_gradient",
    "upgo_actor_critic",
    "vtrace_actor_critic",
]
