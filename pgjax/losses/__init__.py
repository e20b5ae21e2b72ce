"""Per-step losses on arrays, and what reduces them. No loss reduces: [T, ...] in, [T, ...] out.

A loss is minimised: its gradient is a descent direction. The weights and targets that it is given are constants.
`masked_mean` and `sequence_mean` reduce; the dual of a temperature runs over the axes of its softmax. A surrogate is
called with (log_ratio, advantage), so that one can stand for another; a weight makes `policy_gradient_loss` a weighted
likelihood. Critics' losses take an ensemble as leading axes; atoms, quantiles and bins are the last one.
"""

from pgjax.losses.action_value import (
    clipped_double_q,
    expected_soft_value,
    soft_policy_loss,
    soft_value,
    td_target,
    temperature_loss,
)
from pgjax.losses.distributional import (
    categorical_loss,
    categorical_target,
    categorical_value,
    hl_gauss_target,
    project_categorical,
    quantile_loss,
)
from pgjax.losses.duals import adapt_kl_coefficient, kl_constraint_loss, softmax_temperature_loss
from pgjax.losses.duelling import stochastic_duelling
from pgjax.losses.kl import kl_k1, kl_k2, kl_k3
from pgjax.losses.policy import (
    entropy_loss,
    kl_penalty_loss,
    policy_gradient_loss,
    policy_inference_loss,
    ppo_clip_loss,
)
from pgjax.losses.reductions import masked_mean, sequence_mean, standardize
from pgjax.losses.surrogates import discovered_loss, importance_weighted_loss, sequence_log_ratio, spo_loss
from pgjax.losses.value import clipped_value_loss, value_loss
from pgjax.losses.weights import binary_weight, exponential_weight, preference_weight, softmax_weight, top_half

__all__ = [
    "adapt_kl_coefficient",
    "binary_weight",
    "categorical_loss",
    "categorical_target",
    "categorical_value",
    "clipped_double_q",
    "clipped_value_loss",
    "discovered_loss",
    "entropy_loss",
    "expected_soft_value",
    "exponential_weight",
    "hl_gauss_target",
    "importance_weighted_loss",
    "kl_constraint_loss",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty_loss",
    "masked_mean",
    "policy_gradient_loss",
    "policy_inference_loss",
    "ppo_clip_loss",
    "preference_weight",
    "project_categorical",
    "quantile_loss",
    "sequence_log_ratio",
    "sequence_mean",
    "soft_policy_loss",
    "soft_value",
    "softmax_temperature_loss",
    "softmax_weight",
    "spo_loss",
    "standardize",
    "stochastic_duelling",
    "td_target",
    "temperature_loss",
    "top_half",
    "value_loss",
]
