"""Whole gradients, made of rollouts, returns, baselines and losses.

The body of an estimator says what is minimised: a loss for each step, and the constants in it; or what each trajectory
adds. `estimator` turns the body into a function that returns (gradient, info), with two further forms: `per_trajectory`
returns what each trajectory contributes before the mean, `surrogate` the scalar that is differentiated. The gradient
is a descent direction and goes straight into optax.

Every estimator sums over time and averages over the batch axes. A column of the batch is one trajectory.

Read `surrogate` for the form, `score_function` for the first examples, `actor_critics` and `clipped` for those with a
critic, `expected` and `control` for those that are made of a rule of `pgjax.expectation`, `higher_order` for those
whose surrogates may be differentiated more than once.
"""

from pgjax.estimators.actor_critics import actor_critic, vtrace_actor_critic
from pgjax.estimators.clipped import ppo, ppo_objective
from pgjax.estimators.control import control_variate, linearized_critic
from pgjax.estimators.expected import expected_gradient, sampled_gradient
from pgjax.estimators.higher_order import dice, hessian_vector_product, loaded_dice
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
    "control_variate",
    "dice",
    "estimator",
    "expected_gradient",
    "gpomdp",
    "hessian_vector_product",
    "likelihood_ratio",
    "linearized_critic",
    "loaded_dice",
    "log_prob_taken",
    "ppo",
    "ppo_objective",
    "reinforce",
    "sampled_gradient",
    "vtrace_actor_critic",
]
