"""Entries of the recipes that play many policies side by side."""

import derivations_population as population
import numpy as np
import world
from entry import Entry
from table_shared import CHANGES, COMMON, CRITIC, CRITIC_CHANGES, LEARNER

from pgjax.recipes import evolution_strategies, finite_differences, svpg

ENTRIES = {
    "svpg": Entry(
        svpg,
        COMMON | CRITIC | {"temperature": 0.5, "cooling": 0.8, "prior_scale": 2.0},
        CHANGES | CRITIC_CHANGES | {"temperature": (0.0, 3.0), "cooling": (0.0, 1.0), "prior_scale": (np.inf, 0.7)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "temperature": 0.01, "prior_scale": np.inf},
        population.svpg,
        {"num_particles": population.NUM_PARTICLES},
        members=population.NUM_PARTICLES,
        start_keys=2 * population.NUM_PARTICLES,
        draws=population.NUM_PARTICLES,
        trained="particles",
        seen=population.seen_by_particles,
    ),
    "evolution_strategies": Entry(
        evolution_strategies,
        {"learning_rate": 0.05, "scale": 0.5, "weight_decay": 0.1, "anneal": 1.0},
        {"learning_rate": (0.0, 0.2), "scale": (0.05, 2.0), "weight_decay": (0.0, 1.0), "anneal": (0.0, 0.5)},
        {"learning_rate": 0.1, "weight_decay": 0.0},
        population.evolution_strategies,
        {"num_pairs": population.NUM_PAIRS, "greedy": False},
        ("next", "search"),
        critic=False,
        world=world.brief,
        stepped=None,
        plays_itself=False,
        members=2 * population.NUM_PAIRS,
        draws=population.NUM_PAIRS,
        once=False,
        seen=population.seen_by_pairs,
    ),
    "finite_differences": Entry(
        finite_differences,
        {"learning_rate": 0.05, "epsilon": 1.0, "anneal": 1.0},
        {"learning_rate": (0.0, 0.2), "epsilon": (0.5, 2.0), "anneal": (0.0, 0.5)},
        {"learning_rate": 0.1},
        population.finite_differences,
        {"greedy": False},
        ("next", "search"),
        critic=False,
        world=world.brief,
        stepped=None,
        plays_itself=False,
        members=2 * population.NUM_PARAMS,
        draws=1,
        once=False,
        seen=population.seen_along_entries,
    ),
}
