"""Whole gradients, made of rollouts, returns, baselines and losses.

The body of an estimator says what is minimised: a loss for each step, and the constants in it. `estimator`
turns the body into a function that returns (gradient, info), and gives it a second form, `per_trajectory`, that returns
what each trajectory contributes before the mean. The gradient is a descent direction and goes straight into optax.

Every estimator sums over time and averages over the batch axes. A column of the batch is one trajectory.
"""

from pgjax.estimators.actor_critics import actor_critic
from pgjax.estimators.score_function import gpomdp, likelihood_ratio, reinforce
from pgjax.estimators.surrogate import Estimator, GradientInfo, Surrogate, estimator

__all__ = [
    "Estimator",
    "GradientInfo",
    "Surrogate",
    "actor_critic",
    "estimator",
    "gpomdp",
    "likelihood_ratio",
    "reinforce",
]
