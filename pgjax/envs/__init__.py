"""The boundary: gymnax environments as they are, others through adapters, and running normalisation."""

from pgjax.envs.brax import Brax, from_brax
from pgjax.envs.description import observation_dtype, single_params
from pgjax.envs.gymnasium import Gymnasium, HostState, from_gymnasium
from pgjax.envs.jaxmarl import JaxMARL, from_jaxmarl
from pgjax.envs.normalization import (
    RewardScale,
    RunningStatistics,
    init_reward_scale,
    init_statistics,
    normalize,
    scale_reward,
    update_reward_scale,
    update_statistics,
)
from pgjax.envs.resets import FiveValueAdapter, PooledReset, TimeLimit
from pgjax.envs.wrappers import (
    Choices,
    DiscretizedAction,
    FlattenObservation,
    OneHotObservation,
    RescaledObservation,
    Wrapper,
)

__all__ = [
    "Brax",
    "Choices",
    "DiscretizedAction",
    "FiveValueAdapter",
    "FlattenObservation",
    "Gymnasium",
    "HostState",
    "JaxMARL",
    "OneHotObservation",
    "PooledReset",
    "RescaledObservation",
    "RewardScale",
    "RunningStatistics",
    "TimeLimit",
    "Wrapper",
    "from_brax",
    "from_gymnasium",
    "from_jaxmarl",
    "init_reward_scale",
    "init_statistics",
    "normalize",
    "observation_dtype",
    "scale_reward",
    "single_params",
    "update_reward_scale",
    "update_statistics",
]
