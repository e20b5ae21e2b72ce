"""Entries of the recipes with deterministic policies in a box, most of which learn from a replay."""

import functools
from typing import Any

import derivations_d4pg
import derivations_dpg
import derivations_fasttd3
import derivations_replay as replayed
import numpy as np
import world
from entry import Entry

from pgjax.recipes import d4pg, ddpg, dpg, fasttd3, td3

OFF_POLICY = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "target_rate": 0.2}
OFF_POLICY_CHANGES = {
    "learning_rate": (0.0, 0.2),
    "critic_learning_rate": (0.0, 0.3),
    "discount": (0.0, 1.0),
    "target_rate": (0.0, 1.0),
}
NOISE = {"noise": 0.3, "noise_theta": 0.5}
NOISE_CHANGES = {"noise": (0.0, 2.0), "noise_theta": (1.0, 0.1)}
OFF_POLICY_LEARNER = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.8, "target_rate": 0.1}
OFF_POLICY_LEARNER |= {"noise": 0.5, "noise_theta": 1.0}
SMOOTHING = {"smoothing": 0.3, "smoothing_clip": 0.4}
# Of critics of the distribution of returns.
SUPPORT = {"low_value": derivations_d4pg.LOW, "high_value": derivations_d4pg.HIGH}
SPREAD = {"smallest_noise": 0.1, "largest_noise": 0.6, "noise_theta": 0.5}
SUPPORT_CHANGES = {"low_value": (-10.0, -0.7), "high_value": (9.0, 0.8)}
REPLAYED: dict[str, Any] = {
    "settings": replayed.SETTINGS,
    "keys": ("next", "act", "learn"),
    "draws": replayed.DRAWS,
    "world": world.continuous,
    "functions": {
        "policy": world.deterministic,
        "critic": world.action_value,
        "init_params": world.init_quadratics,
    },
    "memory": replayed.memory_of,
    "seen": replayed.seen,
    "given": replayed.targets,
    "plays_itself": False,
    "chosen": lambda row: np.tanh(row[0]),
    "state_values": replayed.value_at_mode,
}

ENTRIES = {
    "ddpg": Entry(
        ddpg,
        OFF_POLICY | NOISE,
        OFF_POLICY_CHANGES | NOISE_CHANGES,
        OFF_POLICY_LEARNER,
        replayed.ddpg,
        **REPLAYED,
    ),
    "td3": Entry(
        td3,
        OFF_POLICY | NOISE | SMOOTHING,
        OFF_POLICY_CHANGES | NOISE_CHANGES | {"smoothing": (0.0, 1.0), "smoothing_clip": (np.inf, 0.05)},
        OFF_POLICY_LEARNER | SMOOTHING | {"smoothing": 0.1},
        functools.partial(replayed.td3, delay=2),
        **REPLAYED
        | {
            "functions": REPLAYED["functions"]
            | {"init_params": functools.partial(world.init_quadratics, num_critics=2)},
            "given": lambda *seen: replayed.targets(*seen) | {"count": int(seen[2].num_learned)},
        },
    ),
    "dpg": Entry(
        dpg,
        {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "lam": 0.8} | NOISE,
        {"learning_rate": (0.0, 0.2), "critic_learning_rate": (0.0, 0.3), "discount": (0.0, 1.0), "lam": (0.0, 1.0)}
        | NOISE_CHANGES,
        {"learning_rate": 0.02, "critic_learning_rate": 0.1, "discount": 0.8, "lam": 0.8}
        | {"noise": 0.5, "noise_theta": 1.0},
        derivations_dpg.dpg,
        {"normalize_rewards": False},
        ("next", "noise", "act"),
        {"policy": derivations_dpg.policy, "value": world.value, "init_params": derivations_dpg.init_params},
        world=world.continuous,
        draws=1,
        plays_itself=False,
        chosen=lambda row: np.tanh(row[0]),
        memory=derivations_dpg.memory_of,
        seen=derivations_dpg.seen,
        given=derivations_dpg.given,
    ),
    "d4pg": Entry(
        d4pg,
        OFF_POLICY | NOISE | SUPPORT | {"importance_exponent": 0.7},
        OFF_POLICY_CHANGES | NOISE_CHANGES | SUPPORT_CHANGES | {"importance_exponent": (0.0, 1.0)},
        OFF_POLICY_LEARNER | SUPPORT | {"critic_learning_rate": 0.03},
        derivations_d4pg.d4pg,
        **REPLAYED
        | {
            "settings": derivations_d4pg.SETTINGS,
            "functions": derivations_d4pg.FUNCTIONS,
            "seen": derivations_d4pg.seen,
            "given": derivations_d4pg.targets,
            "state_values": derivations_d4pg.value_at_mode,
        },
    ),
    "fasttd3": Entry(
        fasttd3,
        OFF_POLICY | SMOOTHING | SUPPORT | SPREAD | {"weight_decay": 0.1},
        OFF_POLICY_CHANGES
        | SUPPORT_CHANGES
        | {"smoothing": (0.0, 1.0), "smoothing_clip": (np.inf, 0.05)}
        | {"smallest_noise": (0.0, 0.5), "largest_noise": (0.1, 2.0), "noise_theta": (1.0, 0.1)}
        | {"weight_decay": (0.0, 1.0)},
        {name: x for name, x in OFF_POLICY_LEARNER.items() if name != "noise"}
        | {
            "critic_learning_rate": 0.03,
            "smoothing": 0.1,
            "weight_decay": 0.0,
            "noise_theta": 1.0,
            "largest_noise": 0.8,
        },
        derivations_fasttd3.fasttd3,
        **REPLAYED
        | {
            "settings": derivations_fasttd3.SETTINGS,
            "functions": derivations_fasttd3.FUNCTIONS,
            "seen": derivations_fasttd3.seen,
            "given": derivations_fasttd3.targets,
            "state_values": derivations_d4pg.value_at_mode,
        },
    ),
}
