"""One file for each published algorithm, to be copied and changed: library calls in the order of the paper."""

from pgjax.recipes import a2c, evolution_strategies, finite_differences, ppo, reinforce, svpg
from pgjax.recipes.acting import Functions, Normalized, as_functions, combine, normalized, partition, read_by, swap_time
from pgjax.recipes.recipe import (
    Recipe,
    check_hyper,
    count_updates,
    episode_metrics,
    longest_episode,
    require_divisor,
    search_metrics,
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
    "combine",
    "count_updates",
    "episode_metrics",
    "evolution_strategies",
    "finite_differences",
    "longest_episode",
    "normalized",
    "partition",
    "ppo",
    "read_by",
    "reinforce",
    "require_divisor",
    "search_metrics",
    "svpg",
    "swap_time",
    "traced",
    "train",
]
