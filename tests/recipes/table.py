"""The table of recipes: a new recipe is one entry in the module of its family, and all laws hold for it."""

import functools

import table_agents
import table_behaviour
import table_natural
import table_on_policy
import table_online
import table_population
import table_replay
import table_soft
from entry import Entry, Subject

RECIPES: dict[str, Entry] = {
    **table_on_policy.ENTRIES,
    **table_online.ENTRIES,
    **table_behaviour.ENTRIES,
    **table_population.ENTRIES,
    **table_natural.ENTRIES,
    **table_replay.ENTRIES,
    **table_soft.ENTRIES,
    **table_agents.ENTRIES,
}

OF_EACH_KIND = ("ppo", "impala", "d4pg", "svpg")
"""Where a law is the same for all in nature, the default tests take these: states of each kind; others are slow."""


@functools.cache
def subject(name: str) -> Subject:
    """The recipe with its programs."""
    return Subject(RECIPES[name])
