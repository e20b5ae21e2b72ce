"""From a policy and environments to a trajectory, in one scan on the device."""

from pgjax.rollout.branches import branch_returns, rollout_with_states
from pgjax.rollout.collect import init_rollout, rollout
from pgjax.rollout.evaluation import Evaluation, evaluate
from pgjax.rollout.groups import as_groups, repeat_states
from pgjax.rollout.noise import RolloutNoise, rollout_noise
from pgjax.rollout.policies import unroll_policy

__all__ = [
    "Evaluation",
    "RolloutNoise",
    "as_groups",
    "branch_returns",
    "evaluate",
    "init_rollout",
    "repeat_states",
    "rollout",
    "rollout_noise",
    "rollout_with_states",
    "unroll_policy",
]
