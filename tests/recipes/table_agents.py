"""Entries of the recipes for several agents, each with tables of its own: critics of what all see and do."""

from typing import Any

import derivations_maddpg
import derivations_maddpg_more as more_maddpg
import derivations_replay as replayed
import numpy as np
import world
from entry import Entry
from table_replay import NOISE, NOISE_CHANGES, OFF_POLICY, OFF_POLICY_CHANGES, OFF_POLICY_LEARNER, REPLAYED

from pgjax.recipes import maddpg, maddpg_ensemble, maddpg_inference

MADDPG_LEARNER = OFF_POLICY_LEARNER | {"learning_rate": 0.03, "critic_learning_rate": 0.05, "target_rate": 0.2}
MADDPG_LEARNER |= {"noise": 0.7}
OF_TWO: dict[str, Any] = REPLAYED | {
    "world": world.two_agents,
    "functions": {
        "policy": world.deterministic,
        "critic": world.joint_value,
        "init_params": world.init_joint_quadratics,
    },
    "num_updates": 500,  # six features of two actions, which settle more slowly than three
    "memory": derivations_maddpg.memory_of,
    "seen": derivations_maddpg.seen,
    "chosen": lambda rows: np.tanh(rows.min()),  # of the agent that is further off
    "state_values": derivations_maddpg.value_at_modes,
}

ENTRIES = {
    "maddpg": Entry(
        maddpg,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        MADDPG_LEARNER,
        derivations_maddpg.maddpg,
        **OF_TWO,
    ),
    "maddpg_inference": Entry(
        maddpg_inference,
        OFF_POLICY | NOISE | {"guess_learning_rate": 0.05, "entropy_coef": 0.2},
        OFF_POLICY_CHANGES | NOISE_CHANGES | {"guess_learning_rate": (0.0, 0.2), "entropy_coef": (0.0, 0.9)},
        MADDPG_LEARNER | {"entropy_coef": 0.001},
        more_maddpg.of_inference,
        parts=("actor", "critic", "guess"),
        **OF_TWO
        | {
            "functions": OF_TWO["functions"]
            | {"guess": more_maddpg.guess, "init_params": more_maddpg.init_with_guesses},
            "memory": more_maddpg.memory_with_guesses,
            "given": more_maddpg.targets_with_guesses,
        },
    ),
    "maddpg_ensemble": Entry(
        maddpg_ensemble,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        MADDPG_LEARNER,
        more_maddpg.of_ensemble,
        **OF_TWO
        | {
            "settings": replayed.SETTINGS | {"num_policies": more_maddpg.NUM_POLICIES},
            "functions": OF_TWO["functions"] | {"init_params": more_maddpg.init_policies},
            "memory": more_maddpg.memory_of_policies,
            "seen": more_maddpg.seen,
            "state_values": more_maddpg.value_at_modes,
        },
    ),
}
