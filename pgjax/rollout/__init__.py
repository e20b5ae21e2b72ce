"""From a policy and environments to a trajectory, in one scan on the device."""

from pgjax.rollout.branches import branch_returns, rollout_with_states
from pgjax.rollout.collect import init_rollout, rollout
from pgjax.rollout.evaluation import Evaluation, evaluate
from pgjax.rollout.noise import RolloutNoise, rollout_noise
from pgjax.rollout.policies import unroll_policy

__all__ = [
    "Evaluation",
    "RolloutNoise",
    "branch_returns",
    "evaluate",
    "init_rollout",
    "rollout",
    "rollout_noise",
    "rollout_with_states",
    "unroll_policy",
]
