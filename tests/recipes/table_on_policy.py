"""Entries of the recipes that learn from windows of their own policy, once or in minibatches."""

from typing import Any

import derivations
import derivations_groups
import derivations_penalty
import derivations_ppg
import jax
import jax.numpy as jnp
import numpy as np
import world
from entry import Entry, order, shuffled
from table_shared import CHANGES, COMMON, CRITIC, CRITIC_CHANGES, LEARNER, SHUFFLED

import pgjax as pg
from pgjax.recipes import a2c, grpo, kl_ppo, ppg, ppo, reinforce


def split_for_phases(entry: Entry, key: jax.Array) -> jax.Array:
    """The keys of an update with two phases: that of the second is split from what the first leaves."""
    left, act_key, shuffle_key = jax.random.split(key, 3)
    next_key, aux_key = jax.random.split(left)
    return jnp.stack([next_key, act_key, shuffle_key, aux_key])


def shuffled_twice(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The order of the rows in both phases."""
    counts = {"num_epochs": entry.settings["num_aux_epochs"], "num_minibatches": entry.settings["num_minibatches"]}
    return shuffled(entry, keys, state, data) | {"aux_order": np.asarray(order(keys[3], **counts))}


def grouped(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """New episodes, the same in both members of each pair of environments."""
    env, env_params = world.world()
    start = pg.init_rollout(keys[2], env, env_params, num_envs=world.NUM_ENVS)
    first = world.NUM_ENVS // 2 * [0, 1]
    paired = jax.tree.map(lambda x: x[jnp.arange(world.NUM_ENVS) - jnp.array(first)], start)
    return world.policy, state.params, paired


def whole_episodes(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The order of the environments."""
    counts = {name: entry.settings[name] for name in ("num_epochs", "num_minibatches")}
    return {"order": np.asarray(order(keys[3], size=world.NUM_ENVS, **counts))}


ENTRIES = {
    "reinforce": Entry(reinforce, COMMON, CHANGES, LEARNER, derivations.reinforce, critic=False),
    "reinforce, standardized": Entry(
        reinforce,
        COMMON,
        CHANGES,
        LEARNER,
        derivations.standardized_reinforce,
        {"standardized": True, "baseline": None},
        critic=False,
    ),
    "a2c": Entry(
        a2c,
        COMMON | CRITIC,
        CHANGES | CRITIC_CHANGES,
        LEARNER | CRITIC | {"entropy_coef": 0.0},
        derivations.a2c,
        {"normalize_rewards": False},
    ),
    "ppo": Entry(
        ppo,
        COMMON | CRITIC | {"clip": 0.05, "value_clip": 0.04},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "value_clip": (np.inf, 0.01)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "value_clip": np.inf},
        derivations.ppo,
        SHUFFLED,
        ("next", "act", "shuffle"),
        given=shuffled,
    ),
    "kl_ppo": Entry(
        kl_ppo,
        COMMON | CRITIC | {"kl_coef": 0.5, "kl_target": 0.03, "kl_factor": 3.0},
        CHANGES | CRITIC_CHANGES | {"kl_coef": (0.0, 20.0), "kl_target": (np.inf, 1e-4), "kl_factor": (1.0, 5.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "kl_coef": 1.0, "kl_target": 0.01, "kl_factor": 2.0},
        derivations_penalty.kl_ppo,
        SHUFFLED,
        ("next", "act", "shuffle"),
        given=lambda entry, keys, state, data: shuffled(entry, keys, state, data) | {"kl_coef": state.kl_coef},
    ),
    "ppg": Entry(
        ppg,
        COMMON | CRITIC | {"clip": 0.05, "clone_coef": 1.5},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "clone_coef": (0.0, 10.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "clone_coef": 10.0},
        derivations_ppg.ppg,
        SHUFFLED | {"num_iterations": 1, "num_aux_epochs": 2, "auxiliary": world.auxiliary},
        ("next", "act", "shuffle", "aux"),
        split=split_for_phases,
        given=shuffled_twice,
    ),
    "grpo": Entry(
        grpo,
        COMMON | {"clip": 0.05, "kl_coef": 0.3},
        CHANGES | {"clip": (1e9, 0.02), "kl_coef": (0.0, 5.0)},
        LEARNER | {"clip": 0.2, "kl_coef": 0.0},
        derivations_groups.rloo,
        {
            "group_size": 2,
            "advantage": "rloo",
            "num_epochs": 2,
            "num_minibatches": 2,
            "reference": derivations_groups.REFERENCE,
        },
        ("next", "act", "start", "shuffle"),
        critic=False,
        split=lambda entry, key: jax.random.split(key, 5),
        acting=grouped,
        given=whole_episodes,
    ),
}
