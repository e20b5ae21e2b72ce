"""One file for each published algorithm, to be copied and changed: library calls in the order of the paper."""

from pgjax.recipes import a2c, grpo, kl_ppo, ppg, ppo, reinforce
from pgjax.recipes.acting import Functions, Normalized, as_functions, normalized, swap_time
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
    "check_hyper",
    "count_updates",
    "episode_metrics",
    "grpo",
    "kl_ppo",
    "normalized",
    "ppg",
    "ppo",
    "reinforce",
    "require_divisor",
    "swap_time",
    "traced",
    "train",
]
