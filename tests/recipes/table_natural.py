"""Entries of the recipes that follow the natural gradient."""

from typing import Any

import derivations_natural
import world
from entry import Entry, shuffled
from table_shared import CRITIC, CRITIC_CHANGES, SHUFFLED

from pgjax.recipes import acktr, natural_actor_critic, natural_policy_gradient, trpo

NATURAL = {"damping": 0.05, "discount": 0.9, "lam": 0.8, "critic_learning_rate": 0.05}
NATURAL_CHANGES = {
    "damping": (0.02, 1.0),
    "discount": (0.0, 1.0),
    "lam": (0.0, 1.0),
    "critic_learning_rate": (0.0, 0.2),
}
NATURAL_LEARNER = {"discount": 0.8, "critic_learning_rate": 0.1}
FITTED: dict[str, Any] = {
    "settings": SHUFFLED | {"num_iters": 20},
    "keys": ("next", "act", "shuffle"),
    "given": shuffled,
    "memory": derivations_natural.critic_memory,
}

ENTRIES = {
    "natural_policy_gradient": Entry(
        natural_policy_gradient,
        NATURAL | {"learning_rate": 0.3, "max_kl": 0.02},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.001), "learning_rate": (0.0, 0.01)},
        NATURAL_LEARNER | {"learning_rate": 0.3},
        derivations_natural.natural_policy_gradient,
        **FITTED,
    ),
    "natural_actor_critic": Entry(
        natural_actor_critic,
        NATURAL | {"learning_rate": 0.3, "max_kl": 0.02},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.001), "learning_rate": (0.0, 0.01)},
        NATURAL_LEARNER | {"learning_rate": 0.3},
        derivations_natural.natural_actor_critic,
        **FITTED,
    ),
    "trpo": Entry(
        trpo,
        NATURAL | {"max_kl": 0.1, "shrink": 0.7},
        NATURAL_CHANGES | {"max_kl": (0.0, 0.02), "shrink": (0.9, 0.3)},
        NATURAL_LEARNER | {"max_kl": 0.02},
        derivations_natural.trpo,
        # From a policy that is sure of itself the quadratic model asks for too long a step.
        **FITTED | {"settings": FITTED["settings"] | {"init_params": world.init_sharp}},
    ),
    "acktr": Entry(
        acktr,
        {"learning_rate": 0.2, "max_kl": 0.002, "damping": 0.05, "decay": 0.8, "discount": 0.9, "anneal": 1.0} | CRITIC,
        {"learning_rate": (0.0, 0.01), "max_kl": (0.0, 1e-4), "damping": (1e-4, 1.0), "decay": (0.0, 0.99)}
        | {"discount": (0.0, 1.0), "anneal": (0.0, 0.5)}
        | CRITIC_CHANGES,
        {"learning_rate": 1.0, "max_kl": 0.1, "discount": 0.8, "entropy_coef": 0.0},
        derivations_natural.acktr,
        {"normalize_rewards": False, "exact_factors": True}
        | {"policy": world.layers_policy, "value": world.layers_value, "init_params": world.init_layers},
        memory=derivations_natural.no_factors,
    ),
}
