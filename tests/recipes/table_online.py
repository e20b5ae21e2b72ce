"""Entries of the recipes that take a step after each environment step, or learn from what another policy does."""

import functools
from typing import Any

import derivations_online
import numpy as np
import world
from entry import Entry
from table_shared import CHANGES, COMMON, CRITIC, CRITIC_CHANGES, LEARNER

import pgjax as pg
from pgjax.recipes import average_reward_actor_critic, eligibility_traces, off_pac, one_step_actor_critic

ONE_STEP = {name: CRITIC[name] for name in ("value_coef", "entropy_coef")}
OTHER_DATA = {
    "behaviour_temperature": 1.5,
    "emphatic_lam": 1.0,
    "clip_rho": np.inf,
    "clip_c": 1.0,
    "clip_pg_rho": np.inf,
}


def without_discount(hyper: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in hyper.items() if name != "discount"}


ENTRIES = {
    "one_step_actor_critic": Entry(
        one_step_actor_critic,
        COMMON | ONE_STEP,
        CHANGES | {name: CRITIC_CHANGES[name] for name in ONE_STEP},
        LEARNER | ONE_STEP | {"entropy_coef": 0.0},
        functools.partial(derivations_online.one_step, weighted=True),
        {"weight_by_discount": True},
        num_steps=1,
        world=functools.partial(world.world, pays_at_once=True),  # it sees no further than to the next observation
        memory=derivations_online.stepping,
    ),
    "eligibility_traces": Entry(
        eligibility_traces,
        COMMON | CRITIC | {"learning_rate": 0.5, "critic_lam": 0.7},
        CHANGES | CRITIC_CHANGES | {"critic_lam": (0.0, 1.0)},
        LEARNER | CRITIC | {"learning_rate": 3.0, "critic_lam": 0.7, "entropy_coef": 0.0},
        functools.partial(derivations_online.traces, dutch=True, weighted=True),
        {"traces": "dutch", "weight_by_discount": True, "normalize_rewards": False},
        num_steps=1,
        memory=derivations_online.traced,
    ),
    "average_reward_actor_critic": Entry(
        average_reward_actor_critic,
        without_discount(COMMON) | CRITIC | {"critic_lam": 0.7, "average_rate": 0.1, "reward_scale": 0.8},
        without_discount(CHANGES)
        | CRITIC_CHANGES
        | {"critic_lam": (0.0, 1.0), "average_rate": (0.0, 0.5), "reward_scale": (1.0, 2.0)},
        without_discount(LEARNER)
        | CRITIC
        | {"critic_lam": 0.7, "average_rate": 0.1, "reward_scale": 1.0, "entropy_coef": 0.0},
        derivations_online.average_reward,
        num_steps=1,
        discounted=False,
        memory=derivations_online.traced,
    ),
    "off_pac": Entry(
        off_pac,
        COMMON
        | CRITIC
        | OTHER_DATA
        | {"behaviour_temperature": 4.0, "clip_rho": 1.05, "clip_c": 1.02, "clip_pg_rho": 1.05},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "clip_c": (np.inf, 0.5), "clip_pg_rho": (np.inf, 0.5)}
        | {"behaviour_temperature": (1.0, 2.0), "emphatic_lam": (0.0, 0.5)},
        LEARNER | CRITIC | OTHER_DATA | {"entropy_coef": 0.0},
        derivations_online.off_pac,
        {"emphatic": True, "normalize_rewards": False},
        acting=lambda keys, state: (pg.bind(world.flattened, state.hyper), state.params, state.rollout),
        memory=derivations_online.followed,
    ),
}
