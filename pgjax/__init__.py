"""pgjax: policy-gradient estimators in JAX, as pure functions.

Data flows one way: environments -> rollout -> returns -> baselines -> losses -> estimators. The names below are the
core of it; `pgjax.exact` knows the true gradient, `pgjax.recipes` holds whole algorithms.
"""

import importlib
from types import ModuleType

from pgjax import diagnostics, distributions, envs, expectation
from pgjax._functions import bind
from pgjax._types import Environment, Policy, RolloutState, Trajectory, Transition, Value
from pgjax.baselines import batch_mean, init_moving_mean, leave_one_out, moving_mean, update_moving_mean, value_baseline
from pgjax.comparison import compare_estimators, pair_statistics
from pgjax.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhNormal,
    log_prob_of,
)
from pgjax.estimators import (
    Contributions,
    Surrogate,
    action_distribution,
    actor_critic,
    control_variate,
    dice,
    estimator,
    expected_gradient,
    gpomdp,
    hessian_vector_product,
    likelihood_ratio,
    linearized_critic,
    loaded_dice,
    log_prob_taken,
    ppo,
    ppo_objective,
    reinforce,
    sampled_gradient,
    vtrace_actor_critic,
)
from pgjax.losses import (
    clipped_value_loss,
    entropy_loss,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalty_loss,
    masked_mean,
    policy_gradient_loss,
    ppo_clip_loss,
    standardize,
    value_loss,
)
from pgjax.minibatch import accumulate, epochs, permutation
from pgjax.reference import merge_references, reference_gradient
from pgjax.returns import (
    affine_recurrence,
    bootstrap_values,
    discount_weight,
    discounted_returns,
    fold,
    gae,
    lambda_returns,
    n_step_returns,
    retrace,
    upgo,
    vtrace,
)
from pgjax.rollout import evaluate, init_rollout, rollout, unroll_policy

__all__ = [
    "Bernoulli",
    "Beta",
    "Categorical",
    "Contributions",
    "Environment",
    "MultiCategorical",
    "Normal",
    "OneHotCategorical",
    "Policy",
    "RolloutState",
    "Surrogate",
    "TanhNormal",
    "Trajectory",
    "Transition",
    "Value",
    "accumulate",
    "action_distribution",
    "actor_critic",
    "affine_recurrence",
    "batch_mean",
    "bind",
    "bootstrap_values",
    "certify",
    "clipped_value_loss",
    "compare_estimators",
    "control_variate",
    "diagnostics",
    "dice",
    "discount_weight",
    "discounted_returns",
    "distributions",
    "entropy_loss",
    "envs",
    "epochs",
    "estimator",
    "evaluate",
    "exact",
    "expectation",
    "expected_gradient",
    "fold",
    "gae",
    "gpomdp",
    "hessian_vector_product",
    "init_moving_mean",
    "init_rollout",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty_loss",
    "lambda_returns",
    "leave_one_out",
    "likelihood_ratio",
    "linearized_critic",
    "loaded_dice",
    "log_prob_of",
    "log_prob_taken",
    "masked_mean",
    "merge_references",
    "moving_mean",
    "n_step_returns",
    "networks",
    "pair_statistics",
    "permutation",
    "policy_gradient_loss",
    "ppo",
    "ppo_clip_loss",
    "ppo_objective",
    "recipes",
    "reference_gradient",
    "reinforce",
    "retrace",
    "rollout",
    "sampled_gradient",
    "standardize",
    "unroll_policy",
    "update_moving_mean",
    "upgo",
    "value_baseline",
    "value_loss",
    "vtrace",
    "vtrace_actor_critic",
]

_ON_DEMAND = ("certify", "exact", "networks", "recipes")  # not everybody needs them, and they take a while to import


def __getattr__(name: str) -> ModuleType:
    if name in _ON_DEMAND:
        return importlib.import_module(f"pgjax.{name}")
    raise AttributeError(f"module 'pgjax' has no attribute {name!r}")
