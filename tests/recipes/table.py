"""The table of recipes, and the few compiled programs on which every law is checked.

A new recipe is one entry. All its laws run on one program, `Subject.update`: a vmap over `LANES` runs in the small
world, each with hyper-parameters of its own, so that a law that needs another number needs no other program.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import derivations
import derivations_population as population
import jax
import jax.numpy as jnp
import numpy as np
import world

import pgjax as pg
from pgjax.recipes import a2c, evolution_strategies, finite_differences, ppo, reinforce, svpg

LANES = 16
NUM_UPDATES = 300
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS}
FUNCTIONS = {"policy": world.policy, "value": world.value, "init_params": world.init_params}


def seen_in_window(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The window of one lane as arrays, and its rollout afterwards."""
    rollout, trajectory = run.lane(window(keys[:, 1], before.params, before.rollout), *lane)
    return as_data(trajectory), rollout


def as_data(trajectory: Any) -> SimpleNamespace:
    data = SimpleNamespace(**{k: getattr(trajectory, k) for k in ("obs", "action", "reward", "next_obs", "log_prob")})
    data.terminated, data.done = trajectory.terminated, trajectory.terminated | trajectory.truncated
    return data


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
    world: Callable[[], Any] = world.world
    members: int = 1  # policies that are played side by side, each in num_envs environments
    starts: int = 1  # policies that are started from random parameters
    draws: int | None = None  # keys handed on in an update; None: one for each of `keys` but the next
    trained: str = "params"  # the field of a state that is trained: with a population, leaves [n, ...]
    seen: Callable[..., Any] = seen_in_window  # what an update learns from

    def make(self, **settings: Any) -> pg.recipes.Recipe:
        """The recipe in the small world, or in another; total_steps is that of one member."""
        functions = {name: x for name, x in FUNCTIONS.items() if self.critic or name != "value"}
        total = NUM_UPDATES * SIZES["num_envs"] * SIZES["num_steps"]
        settings = {**SIZES, "total_steps": total, **functions, **self.settings, **settings}
        settings["total_steps"] *= self.members
        return self.module.make_train(*self.world(), **settings)


COMMON = {"learning_rate": 0.05, "discount": 0.9, "max_grad_norm": 1e9, "anneal": 1.0}
CRITIC = {"lam": 0.8, "value_coef": 0.5, "entropy_coef": 0.3}
CHANGES = {"learning_rate": (0.0, 0.2), "discount": (0.0, 1.0), "max_grad_norm": (np.inf, 0.1), "anneal": (0.0, 0.5)}
CRITIC_CHANGES = {"lam": (0.0, 1.0), "value_coef": (0.0, 2.0), "entropy_coef": (0.0, 1.0)}
LEARNER = {"learning_rate": 0.1, "discount": 0.8, "max_grad_norm": 1e9}

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
    "svpg": Entry(
        svpg,
        COMMON | CRITIC | {"temperature": 0.5, "cooling": 0.8, "prior_scale": 2.0},
        CHANGES | CRITIC_CHANGES | {"temperature": (0.0, 3.0), "cooling": (0.0, 1.0), "prior_scale": (np.inf, 0.7)},
        LEARNER | CRITIC | {"entropy_coef": 0.0, "temperature": 0.01, "prior_scale": np.inf},
        population.svpg,
        {"num_particles": population.NUM_PARTICLES},
        members=population.NUM_PARTICLES,
        starts=population.NUM_PARTICLES,
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
        members=2 * population.NUM_PAIRS,
        draws=population.NUM_PAIRS,
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
        members=2 * population.NUM_PARAMS,
        draws=1,
        seen=population.seen_along_entries,
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


@jax.jit
def order(key: jax.Array) -> jax.Array:
    """The rows of each minibatch of PPO, [epochs, minibatches, rows]."""
    rows = jnp.arange(world.NUM_STEPS * world.NUM_ENVS).reshape(world.NUM_STEPS, world.NUM_ENVS)
    settings = {name: RECIPES["ppo"].settings[name] for name in ("num_epochs", "num_minibatches")}
    return pg.epochs(key, 0, rows, step=lambda carry, index: (carry, index), **settings)[1]
