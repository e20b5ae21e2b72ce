"""pgjax: policy-gradient estimators in JAX, as pure functions.

Data flows one way: environments -> rollout -> returns -> baselines -> losses -> estimators. The names below are the
core of it; `pgjax.exact` knows the true gradient, `pgjax.recipes` holds whole algorithms.
"""

from pgjax import diagnostics, envs
from pgjax._types import Environment, Policy, RolloutState, Trajectory, Value
from pgjax.baselines import (
    init_moving_mean,
    leave_one_out,
    moving_mean,
    step_mean_with_self,
    update_moving_mean,
    value_baseline,
)
from pgjax.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, TanhNormal, log_prob_of
from pgjax.estimators import actor_critic, estimator, gpomdp, likelihood_ratio, reinforce
from pgjax.losses import (
    clipped_value_loss,
    entropy_loss,
    kl_penalty_loss,
    masked_mean,
    policy_gradient_loss,
    ppo_clip_loss,
    standardize,
    value_loss,
)
from pgjax.minibatch import accumulate, epochs, permutation
from pgjax.returns import (
    affine_recurrence,
    bootstrap_values,
    discount_weight,
    discounted_returns,
    gae,
    lambda_returns,
    n_step_returns,
    retrace,
    upgo,
    vtrace,
)
from pgjax.rollout import evaluate, init_rollout, rollout, unroll_policy

__all__ = sorted(name for name in dir() if not name.startswith("_"))
