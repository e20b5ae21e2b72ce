"""From a policy and environments to a trajectory, in one scan on the device."""

from pgjax.rollout.collect import init_rollout, rollout
from pgjax.rollout.evaluation import Evaluation, evaluate
from pgjax.rollout.groups import as_groups, repeat_states
from pgjax.rollout.policies import unroll_policy

__all__ = [
    "Evaluation",
    "as_groups",
    "evaluate",
    "init_rollout",
    "repeat_states",
    "rollout",
    "unroll_policy",
]
