"""The table of recipes, and the few compiled programs on which every law is checked.

A new recipe is one entry. All its laws run on one program, `Subject.update`: a vmap over `LANES` runs in the small
world, each with hyper-parameters of its own, so that a law that needs another number needs no other program.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import derivations
import derivations_groups
import derivations_penalty
import derivations_ppg
import jax
import jax.numpy as jnp
import numpy as np
import world

import pgjax as pg
from pgjax.recipes import a2c, grpo, kl_ppo, ppg, ppo, reinforce

LANES = 16
NUM_UPDATES = 300
ROWS = world.NUM_ENVS * world.NUM_STEPS
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS}
FUNCTIONS = {"policy": world.policy, "value": world.value, "init_params": world.init_params}


@dataclass(frozen=True)
class Entry:
    """What is particular to a recipe."""

    module: ModuleType
    base: dict[str, float]  # hyper-parameters under which every term counts
    changes: dict[str, tuple[float, ...]]  # other values of each: first the neutral one
    learner: dict[str, float]  # hyper-parameters under which the small world is learned
    derive: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ("next", "act")  # what the key of a state is split into
    critic: bool = True
    split: Callable[..., Any] = lambda entry, key: jax.random.split(key, len(entry.keys))
    given: Callable[..., dict[str, Any]] = lambda entry, keys, state: {}  # what else derive is told: draws, memories
    start: Callable[..., Any] = lambda key, rollout: rollout  # where the rollout of an update starts

    def make(self, **settings: Any) -> pg.recipes.Recipe:
        """The recipe in the small world, or in another."""
        functions = {name: x for name, x in FUNCTIONS.items() if self.critic or name != "value"}
        total = NUM_UPDATES * SIZES["num_envs"] * SIZES["num_steps"]
        return self.module.make_train(
            *world.world(), **{**SIZES, "total_steps": total, **functions, **self.settings, **settings}
        )


def shuffled(entry: Entry, keys: Any, state: Any) -> dict[str, Any]:
    """The order of the rows, of a recipe that goes through them in minibatches."""
    counts = {name: entry.settings[name] for name in ("num_epochs", "num_minibatches")}
    return {"order": np.asarray(order(keys[entry.keys.index("shuffle")], **counts))}


def split_for_phases(entry: Entry, key: jax.Array) -> jax.Array:
    """The keys of an update with two phases: that of the second is split from what the first leaves."""
    left, act_key, shuffle_key = jax.random.split(key, 3)
    next_key, aux_key = jax.random.split(left)
    return jnp.stack([next_key, act_key, shuffle_key, aux_key])


def shuffled_twice(entry: Entry, keys: Any, state: Any) -> dict[str, Any]:
    """The order of the rows in both phases."""
    counts = {"num_epochs": entry.settings["num_aux_epochs"], "num_minibatches": entry.settings["num_minibatches"]}
    return shuffled(entry, keys, state) | {"aux_order": np.asarray(order(keys[3], **counts))}


def grouped(keys: Any, rollout: Any) -> Any:
    """New episodes, the same in both members of each pair of environments."""
    env, env_params = world.world()
    start = pg.init_rollout(keys[2], env, env_params, num_envs=world.NUM_ENVS)
    first = world.NUM_ENVS // 2 * [0, 1]
    return jax.tree.map(lambda x: x[jnp.arange(world.NUM_ENVS) - jnp.array(first)], start)


def whole_episodes(entry: Entry, keys: Any, state: Any) -> dict[str, Any]:
    """The order of the environments."""
    counts = {name: entry.settings[name] for name in ("num_epochs", "num_minibatches")}
    return {"order": np.asarray(order(keys[3], size=world.NUM_ENVS, **counts))}


COMMON = {"learning_rate": 0.05, "discount": 0.9, "max_grad_norm": 1e9, "anneal": 1.0}
CRITIC = {"lam": 0.8, "value_coef": 0.5, "entropy_coef": 0.3}
CHANGES = {"learning_rate": (0.0, 0.2), "discount": (0.0, 1.0), "max_grad_norm": (np.inf, 0.1), "anneal": (0.0, 0.5)}
CRITIC_CHANGES = {"lam": (0.0, 1.0), "value_coef": (0.0, 2.0), "entropy_coef": (0.0, 1.0)}
LEARNER = {"learning_rate": 0.1, "discount": 0.8, "max_grad_norm": 1e9}

RECIPES = {
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
        a2c, COMMON | CRITIC, CHANGES | CRITIC_CHANGES, LEARNER | CRITIC | {"entropy_coef": 0.0}, derivations.a2c
    ),
    "ppo": Entry(
        ppo,
        COMMON | CRITIC | {"clip": 0.05, "value_clip": 0.04},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "value_clip": (np.inf, 0.01)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "value_clip": np.inf},
        derivations.ppo,
        {"num_epochs": 2, "num_minibatches": 4, "normalize_rewards": False},
        ("next", "act", "shuffle"),
        given=shuffled,
    ),
    "kl_ppo": Entry(
        kl_ppo,
        COMMON | CRITIC | {"kl_coef": 0.5, "kl_target": 0.03, "kl_factor": 3.0},
        CHANGES | CRITIC_CHANGES | {"kl_coef": (0.0, 20.0), "kl_target": (np.inf, 1e-4), "kl_factor": (1.0, 5.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "kl_coef": 1.0, "kl_target": 0.01, "kl_factor": 2.0},
        derivations_penalty.kl_ppo,
        {"num_epochs": 2, "num_minibatches": 4, "normalize_rewards": False},
        ("next", "act", "shuffle"),
        given=lambda entry, keys, state: shuffled(entry, keys, state) | {"kl_coef": state.kl_coef},
    ),
    "ppg": Entry(
        ppg,
        COMMON | CRITIC | {"clip": 0.05, "clone_coef": 1.5},
        CHANGES | CRITIC_CHANGES | {"clip": (1e9, 0.02), "clone_coef": (0.0, 10.0)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "clip": 0.2, "clone_coef": 10.0},
        derivations_ppg.ppg,
        {
            "num_iterations": 1,
            "num_epochs": 2,
            "num_minibatches": 4,
            "num_aux_epochs": 2,
            "normalize_rewards": False,
            "auxiliary": world.auxiliary,
        },
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
        start=grouped,
        given=whole_episodes,
    ),
}


class Subject:
    """A recipe in the small world, compiled once, and its lanes: base, one for each change, and one that learns."""

    def __init__(self, entry: Entry):
        self.entry = entry
        self.recipe = entry.make()
        lanes = {("base", None): entry.base, ("learner", None): {**entry.base, **entry.learner}}
        for name, values in entry.changes.items():
            lanes |= {(name, x): {**entry.base, name: x} for x in values}
        lanes |= {("spare", i): entry.base for i in range(max(LANES - len(lanes), 0))}
        self.lanes = lanes
        self.init = jax.jit(jax.vmap(lambda key, hyper: self.recipe.init(key, **hyper)))
        self.update = jax.jit(jax.vmap(self.recipe.update))

    def start(self) -> Any:
        """All lanes at the same start."""
        hyper = {name: np.array([lane[name] for lane in self.lanes.values()], np.float32) for name in self.entry.base}
        return self.init(jnp.broadcast_to(jax.random.key(7), len(self.lanes)), hyper)

    def lane(self, tree: Any, name: str, number: float | None = None) -> Any:
        """One lane of a state or of metrics, on the host, in float64."""
        i = list(self.lanes).index((name, number))
        return jax.tree.map(lambda x: as_numpy(x[i]), tree)

    @functools.cached_property
    def first(self) -> Any:
        """(state before, state after, metrics) of the first update."""
        before = self.start()
        return before, *self.update(before)

    @functools.cached_property
    def second(self) -> Any:
        """The same of an update in the middle of the run: the learning rate has fallen, the optimiser has a memory."""
        before = self.first[1]
        half = before.replace(update=jnp.full_like(before.update, NUM_UPDATES // 2))
        return half, *self.update(half)

    @functools.cached_property
    def trained(self) -> Any:
        """The last state, and metrics [num_updates, lanes] of the whole run."""
        state, rows = self.start(), []
        for _ in range(NUM_UPDATES):
            state, metrics = self.update(state)
            rows.append(metrics)
        return state, jax.tree.map(lambda *x: np.stack(x), *rows)


def as_numpy(x: Any) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x))
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype == np.float32 else x


@functools.cache
def subject(name: str) -> Subject:
    return Subject(RECIPES[name])


@jax.jit
@jax.vmap
def window(key: jax.Array, params: Any, rollout: Any) -> Any:
    """The rollout of each lane, from the key that acts."""
    env, env_params = world.world()
    return pg.rollout(
        key, params, rollout, policy=world.policy, env=env, env_params=env_params, num_steps=world.NUM_STEPS
    )


@functools.partial(jax.jit, static_argnames=("num_epochs", "num_minibatches", "size"))
def order(key: jax.Array, *, num_epochs: int, num_minibatches: int, size: int = ROWS) -> jax.Array:
    """The rows of each minibatch, [epochs, minibatches, rows]."""
    rows = jnp.arange(size)
    return pg.epochs(
        key, 0, rows, step=lambda carry, index: (carry, index), num_epochs=num_epochs, num_minibatches=num_minibatches,
        num_axes=1,
    )[1]  # fmt: skip
