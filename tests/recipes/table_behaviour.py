"""Entries of the recipes whose data come from other parameters than those that are trained."""

from typing import Any

import derivations_a3c
import derivations_acer
import derivations_acer_continuous
import derivations_impala
import jax
import numpy as np
import world
from entry import Entry
from table_shared import CHANGES, COMMON, CRITIC, CRITIC_CHANGES, LEARNER

from pgjax.recipes import a3c, acer, acer_continuous, impala

IMPALA_LAG = 3
REPLAY = {"replay_ratio": 2, "capacity": 4}


def impala_acting(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """The parameters after update - lag, where they are kept."""
    row = (state.update - IMPALA_LAG) % (IMPALA_LAG + 1)
    return world.policy, jax.tree.map(lambda x: x[row], state.past), state.rollout


def a3c_acting(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """The worker whose turn it is."""
    return world.policy, *jax.tree.map(lambda x: x[state.update % 4], (state.workers, state.rollout))


ENTRIES = {
    "impala": Entry(
        impala,
        COMMON | CRITIC | {"clip_rho": 1.0, "clip_c": 0.9, "clip_pg_rho": 1.0},
        CHANGES | CRITIC_CHANGES | dict.fromkeys(("clip_rho", "clip_c", "clip_pg_rho"), (np.inf, 0.5)),
        LEARNER | CRITIC | {"entropy_coef": 0.0},
        derivations_impala.impala,
        {"lag": IMPALA_LAG},
        acting=impala_acting,
    ),
    "a3c": Entry(
        a3c,
        COMMON | CRITIC | {"learning_rate": 0.02, "decay": 0.9, "eps": 1e-3},
        CHANGES | CRITIC_CHANGES | {"decay": (0.0, 0.5), "eps": (1e-6, 1.0)},
        LEARNER | CRITIC | {"learning_rate": 0.05, "entropy_coef": 0.0},
        derivations_a3c.a3c,
        {"num_workers": 4},
        acting=a3c_acting,
        stepped=lambda state, update: jax.tree.map(lambda x: x[int(update) % 4], state.rollout),
        start_keys=5,
    ),
    "acer": Entry(
        acer,
        COMMON | CRITIC | {"clip_rho": 1.0, "max_divergence": 0.005, "average_decay": 0.9},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "max_divergence": (np.inf, 0.001), "average_decay": (0.0, 0.5)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip_rho": 2.0, "max_divergence": 1.0},
        derivations_acer.acer,
        REPLAY | {"init_params": derivations_acer.init_params},
        ("next", "act", "replay"),
        given=lambda entry, keys, state, data: derivations_acer.replayed(keys, state, data, REPLAY),
        state_values=lambda params: np.sum(params.critic * jax.nn.softmax(params.actor), -1),
    ),
    "acer_continuous": Entry(
        acer_continuous,
        COMMON | CRITIC | {"clip_rho": 1.0, "max_divergence": 0.005, "average_decay": 0.9},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "max_divergence": (np.inf, 0.001), "average_decay": (0.0, 0.5)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip_rho": 2.0, "max_divergence": 1.0},
        derivations_acer_continuous.acer_continuous,
        derivations_acer_continuous.SETTINGS,
        ("next", "act", "replay", "noise"),
        derivations_acer_continuous.FUNCTIONS,
        world=world.continuous,
        acting=lambda keys, state: (derivations_acer_continuous.policy, state.params, state.rollout),
        draws=2,  # the third makes noise
        plays_itself=False,  # a sample of a continuum earns about 1, and not 1
        given=derivations_acer_continuous.replayed,
        chosen=lambda row: np.tanh(row[0]),
        state_values=lambda params: params.critic[:, 0],
    ),
}
