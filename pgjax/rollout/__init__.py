"""From a policy and environments to a trajectory, in one scan on the device."""

from pgjax.rollout.collect import init_rollout, rollout
from pgjax.rollout.evaluation import Evaluation, evaluate
from pgjax.rollout.noise import RolloutNoise, rollout_noise
from pgjax.rollout.policies import unroll_policy

__all__ = [
    "Evaluation",
    "RolloutNoise",
    "evaluate",
    "init_rollout",
    "rollout",
    "rollout_noise",
    "unroll_policy",
]
