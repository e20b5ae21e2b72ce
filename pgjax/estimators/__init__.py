"""Whole gradients, made of rollouts, returns, baselines and losses.

The body of an estimator says what is minimised: a loss for each step, and the constants in it; or what each trajectory
adds. `estimator` turns the body into a function that returns (gradient, info), with two further forms: `per_trajectory`
returns what each trajectory contributes before the mean, `surrogate` the scalar that is differentiated. The gradient
is a descent direction and goes straight into optax.

Every estimator sums over time and averages over the batch axes. A column of the batch is one trajectory.

Read `surrogate` for the form, `score_function` for the first examples, `actor_critics` and `clipped` for those with a
critic, `expected` and `control` for those that are made of a rule of `pgjax.expectation`, `factors` for baselines of
the other factors of an action, `doubly_robust` for data of any policy.
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
from pgjax.estimators.doubly_robust import doubly_robust_gradient
from pgjax.estimators.expected import expected_gradient, sampled_gradient
from pgjax.estimators.factors import counterfactual_baseline, factor_log_probs, factorized_gradient
from pgjax.estimators.score_function import gpomdp, likelihood_ratio, reinforce
from pgjax.estimators.surrogate import Contributions, Estimator, GradientInfo, Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken

__all__ = [
    "Contributions",
    "Estimator",
    "GradientInfo",
    "Surrogate",
    "action_distribution",
    "actor_critic",
    "aggressive_coefficient",
    "conservative_coefficient",
    "control_variate",
    "counterfactual_baseline",
    "doubly_robust_gradient",
    "estimator",
    "expected_gradient",
    "factor_log_probs",
    "factorized_gradient",
    "gpomdp",
    "interpolated_gradient",
    "leave_one_out_coefficient",
    "leave_one_out_control",
    "leave_one_out_covariance",
    "likelihood_ratio",
    "linearized_critic",
    "log_prob_taken",
    "ppo",
    "ppo_objective",
    "reinforce",
    "sampled_gradient",
    "single_sample_covariance",
    "vtrace_actor_critic",
]
