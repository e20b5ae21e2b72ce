"""One file for each published algorithm, to be copied and changed: library calls in the order of the paper."""

from pgjax.recipes import (
    a2c,
    average_reward_actor_critic,
    eligibility_traces,
    off_pac,
    one_step_actor_critic,
    ppo,
    reinforce,
)
from pgjax.recipes.acting import Functions, Normalized, as_functions, normalized, require_feed_forward, swap_time
from pgjax.recipes.recipe import (
    Recipe,
    check_hyper,
    count_updates,
    episode_metrics,
    require_divisor,
    traced,
    train,
)

__all__ = [
    "Functions",
    "Normalized",
    "Recipe",
    "a2c",
    "as_functions",
    "average_reward_actor_critic",
    "check_hyper",
    "count_updates",
    "eligibility_traces",
    "episode_metrics",
    "normalized",
    "off_pac",
    "one_step_actor_critic",
    "ppo",
    "reinforce",
    "require_divisor",
    "require_feed_forward",
    "swap_time",
    "traced",
    "train",
]
