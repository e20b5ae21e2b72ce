"""Per-step losses on arrays, and what reduces them. No loss reduces: [T, ...] in, [T, ...] out.

A loss is minimised: its gradient is a descent direction. The weights and targets that it is given are constants.
`masked_mean` reduces.
"""

from pgjax.losses.kl import kl_k1, kl_k2, kl_k3
from pgjax.losses.policy import entropy_loss, kl_penalty_loss, policy_gradient_loss, ppo_clip_loss
from pgjax.losses.reductions import masked_mean, standardize
from pgjax.losses.value import clipped_value_loss, value_loss

__all__ = [
    "clipped_value_loss",
    "entropy_loss",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "kl_penalty_loss",
    "masked_mean",
    "policy_gradient_loss",
    "ppo_clip_loss",
    "standardize",
    "value_loss",
]
