"""Entries of the recipes whose policy is stochastic and paid for its entropy, with a replay or without."""

import functools

import derivations_reppo
import derivations_sac as soft
import numpy as np
import world
from entry import Entry
from table_replay import OFF_POLICY, OFF_POLICY_CHANGES, OFF_POLICY_LEARNER, REPLAYED
from table_shared import CHANGES, SHUFFLED

from pgjax.recipes import reppo, sac, sac_discrete

SOFT = OFF_POLICY | {"temperature": 0.3}
SOFT_CHANGES = OFF_POLICY_CHANGES | {"critic_learning_rate": (0.0, 0.2), "temperature": (0.0, 2.0)}
SOFT_LEARNER = {name: OFF_POLICY_LEARNER[name] for name in OFF_POLICY}
SOFT_REPLAYED = REPLAYED | {
    "settings": soft.SETTINGS,
    "functions": {"policy": world.squashed, "critic": world.action_value, "init_params": world.init_squashed},
    "memory": soft.memory,
    "seen": soft.seen,
    "given": soft.given,
    "state_values": soft.value_at_location,
}
DISCRETE = SOFT_REPLAYED | {
    "world": functools.partial(world.world, pays_at_once=True),
    "functions": {"policy": world.logits, "critic": world.action_values, "init_params": world.init_logits},
    "seen": functools.partial(soft.seen, discrete=True),
    "chosen": lambda row: np.tanh((row[1] - row[0]) / 2),
    "state_values": soft.value_of_tables,
}

ENTRIES = {
    "sac": Entry(
        sac,
        SOFT | {"entropy_per_action": -1.0},
        SOFT_CHANGES | {"entropy_per_action": (0.5, -3.0)},
        # The entropy is always above this: the temperature falls to nothing, and values are those of the reward.
        SOFT_LEARNER | {"entropy_per_action": -50.0},
        functools.partial(soft.sac, learned=True),
        **SOFT_REPLAYED,
    ),
    "sac, fixed temperature": Entry(
        sac,
        SOFT,
        SOFT_CHANGES,
        SOFT_LEARNER | {"temperature": 0.005},
        functools.partial(soft.sac, learned=False),
        **SOFT_REPLAYED | {"settings": soft.SETTINGS | {"learn_temperature": False}},
    ),
    "sac_discrete": Entry(
        sac_discrete,
        SOFT | {"entropy_share": 0.5},
        SOFT_CHANGES | {"entropy_share": (0.0, 1.0)},
        SOFT_LEARNER | {"entropy_share": 0.0},
        functools.partial(soft.sac_discrete, learned=True),
        **DISCRETE,
    ),
    "sac_discrete, fixed temperature": Entry(
        sac_discrete,
        SOFT,
        SOFT_CHANGES,
        SOFT_LEARNER | {"temperature": 0.005},
        functools.partial(soft.sac_discrete, learned=False),
        **DISCRETE | {"settings": soft.SETTINGS | {"learn_temperature": False}},
    ),
    # Action values are learned of each window, without a replay.
    "reppo": Entry(
        reppo,
        {"learning_rate": 0.05, "discount": 0.9, "lam": 0.8, "max_kl": 0.05, "entropy_per_action": -0.5}
        | {"temperature": 0.2, "multiplier": 0.5, "sigma": 0.75, "max_grad_norm": 1e9}
        | derivations_reppo.BINS,
        {name: CHANGES[name] for name in ("learning_rate", "discount", "max_grad_norm")}
        | {"lam": (0.0, 1.0), "max_kl": (1e3, 0.005), "entropy_per_action": (0.5, -3.0)}
        | {"temperature": (1e-3, 1.0), "multiplier": (1e-3, 5.0)}
        | {"low_value": (-8.0, 0.2), "high_value": (12.0, 0.8), "sigma": (0.5, 2.0)},
        # The entropy is always above what is asked for: the temperature falls to nothing, values are those of rewards.
        {"discount": 0.8, "entropy_per_action": -50.0, "temperature": 0.01, "max_kl": 0.2},
        derivations_reppo.reppo,
        SHUFFLED | {"num_bins": derivations_reppo.NUM_BINS},
        ("next", "act", "target", "shuffle", "draw"),
        {
            "policy": derivations_reppo.policy,
            "critic": derivations_reppo.logits,
            "init_params": derivations_reppo.init_params,
        },
        world=world.continuous,
        acting=derivations_reppo.acting,
        draws=2,  # the others go to distributions
        plays_itself=False,  # a sample of a continuum earns nearly 1, and not 1
        chosen=lambda row: np.tanh(row[0]),
        memory=derivations_reppo.memory_of,
        given=derivations_reppo.given,
        state_values=derivations_reppo.value_at_location,
    ),
}
