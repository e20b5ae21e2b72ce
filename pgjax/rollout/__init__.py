"""From a policy and environments to a trajectory, in one scan on the device."""

from pgjax.rollout.collect import init_rollout, rollout
from pgjax.rollout.evaluation import Evaluation, evaluate
from pgjax.rollout.policies import unroll_policy

__all__ = [
    "Evaluation",
    "evaluate",
    "init_rollout",
    "rollout",
    "unroll_policy",
]
