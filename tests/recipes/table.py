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
import derivations_online
import jax
import jax.numpy as jnp
import numpy as np
import world

import pgjax as pg
from pgjax.recipes import (
    a2c,
    average_reward_actor_critic,
    eligibility_traces,
    off_pac,
    one_step_actor_critic,
    ppo,
    reinforce,
)

LANES = 16
NUM_UPDATES = 300
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
    num_steps: int = world.NUM_STEPS  # 1 where each environment step is followed by a step of the parameters
    num_updates: int = NUM_UPDATES
    looks_further: bool = True  # than to the next observation, so that it can see what a reward two steps later is for
    discounted: bool = True  # its critic is that of the discounted objective
    acting: Callable[..., Any] = world.policy_of  # acting(hyper, params, obs): what acts
    memory: Callable[..., Any] = derivations.adam_of  # memory(tables): what the derivation remembers, at the start

    def make(self, **settings: Any) -> pg.recipes.Recipe:
        """The recipe in the small world, or in another."""
        functions = {name: x for name, x in FUNCTIONS.items() if self.critic or name != "value"}
        sizes = {"num_envs": world.NUM_ENVS, "num_steps": self.num_steps}
        total = self.num_updates * world.NUM_ENVS * self.num_steps
        return self.module.make_train(
            *self.world(), **{**sizes, "total_steps": total, **functions, **self.settings, **settings}
        )

    def world(self) -> Any:
        """The environment and its parameters."""
        return world.world(pays_at_once=not self.looks_further)


COMMON = {"learning_rate": 0.05, "discount": 0.9, "max_grad_norm": 1e9, "anneal": 1.0}
CRITIC = {"lam": 0.8, "value_coef": 0.5, "entropy_coef": 0.3}
CHANGES = {"learning_rate": (0.0, 0.2), "discount": (0.0, 1.0), "max_grad_norm": (np.inf, 0.1), "anneal": (0.0, 0.5)}
CRITIC_CHANGES = {"lam": (0.0, 1.0), "value_coef": (0.0, 2.0), "entropy_coef": (0.0, 1.0)}
LEARNER = {"learning_rate": 0.1, "discount": 0.8, "max_grad_norm": 1e9}
ONE_STEP = {name: CRITIC[name] for name in ("value_coef", "entropy_coef")}
OTHER_DATA = {"temperature": 1.5, "emphatic_lam": 1.0, "clip_rho": np.inf, "clip_c": 1.0, "clip_pg_rho": np.inf}


def without_discount(hyper: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in hyper.items() if name != "discount"}


RECIPES = {
    "reinforce": Entry(reinforce, COMMON, CHANGES, LEARNER, derivations.reinforce, critic=False),
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
    ),
    "one_step_actor_critic": Entry(
        one_step_actor_critic,
        COMMON | ONE_STEP,
        CHANGES | {name: CRITIC_CHANGES[name] for name in ONE_STEP},
        LEARNER | ONE_STEP | {"entropy_coef": 0.0},
        functools.partial(derivations_online.one_step, weighted=True),
        {"weight_by_discount": True},
        num_steps=1,
        looks_further=False,
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
        without_discount(COMMON) | CRITIC | {"critic_lam": 0.7, "average_rate": 0.1},
        without_discount(CHANGES) | CRITIC_CHANGES | {"critic_lam": (0.0, 1.0), "average_rate": (0.0, 0.5)},
        without_discount(LEARNER) | CRITIC | {"critic_lam": 0.7, "average_rate": 0.1, "entropy_coef": 0.0},
        derivations_online.average_reward,
        num_steps=1,
        discounted=False,
        memory=derivations_online.traced,
    ),
    "off_pac": Entry(
        off_pac,
        COMMON | CRITIC | OTHER_DATA | {"temperature": 4.0, "clip_rho": 1.05, "clip_c": 1.02, "clip_pg_rho": 1.05},
        CHANGES
        | CRITIC_CHANGES
        | {"clip_rho": (np.inf, 0.5), "clip_c": (np.inf, 0.5), "clip_pg_rho": (np.inf, 0.5)}
        | {"temperature": (1.0, 2.0), "emphatic_lam": (0.0, 0.5)},
        LEARNER | CRITIC | OTHER_DATA | {"entropy_coef": 0.0},
        derivations_online.off_pac,
        {"emphatic": True, "normalize_rewards": False},
        acting=world.flattened,
        memory=derivations_online.followed,
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
        half = before.replace(update=jnp.full_like(before.update, self.entry.num_updates // 2))
        return half, *self.update(half)

    @functools.cached_property
    def trained(self) -> Any:
        """The last state, and metrics [num_updates, lanes] of the whole run."""
        state, rows = self.start(), []
        for _ in range(self.entry.num_updates):
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


@functools.cache
def window(name: str) -> Callable[..., Any]:
    """Make the rollout of each lane, from the key that acts: (key, state) -> (state of the rollout, trajectory)."""
    entry = RECIPES[name]
    env, env_params = entry.world()

    def of_lane(key: jax.Array, state: Any) -> Any:
        policy = pg.bind(entry.acting, state.hyper)
        return pg.rollout(
            key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=entry.num_steps
        )

    return jax.jit(jax.vmap(of_lane))


@jax.jit
def order(key: jax.Array) -> jax.Array:
    """The rows of each minibatch of PPO, [epochs, minibatches, rows]."""
    rows = jnp.arange(world.NUM_STEPS * world.NUM_ENVS).reshape(world.NUM_STEPS, world.NUM_ENVS)
    settings = {name: RECIPES["ppo"].settings[name] for name in ("num_epochs", "num_minibatches")}
    return pg.epochs(key, 0, rows, step=lambda carry, index: (carry, index), **settings)[1]
