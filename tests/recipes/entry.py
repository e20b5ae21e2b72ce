"""What the laws need to know of a recipe, and the few compiled programs on which every law is checked.

All laws of a recipe run on one program, `Subject.update`: a vmap over `LANES` runs in the small world, each with
hyper-parameters of its own, so that a law that needs another number needs no other program.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import derivations
import jax
import jax.numpy as jnp
import numpy as np
import world

import pgjax as pg

LANES = 16
NUM_UPDATES = 300
ROWS = world.NUM_ENVS * world.NUM_STEPS
FUNCTIONS = {"policy": world.policy, "value": world.value, "init_params": world.init_params}


def of_the_state(state: Any, update: Any) -> Any:
    """The environments that were stepped in an update."""
    return state.rollout


def own_policy(keys: Any, state: Any) -> tuple[Any, Any, Any]:
    """What acts in most recipes: (policy, parameters, state of the environments)."""
    return world.policy, state.params, state.rollout


def seen_in_window(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The window of one lane as arrays, and its rollout afterwards."""
    params, rollout, trajectory = run.lane(window(run.entry)(keys, before), *lane)
    data = as_data(trajectory)
    data.following, data.acting = rollout.obs, (params.actor, params.critic)
    return data, rollout


def as_data(trajectory: Any) -> SimpleNamespace:
    """The window as a derivation reads it."""
    names = ("obs", "action", "reward", "next_obs", "log_prob", "terminated", "truncated")
    data = SimpleNamespace(**{name: getattr(trajectory, name) for name in names})
    data.done = trajectory.terminated | trajectory.truncated
    return data


@dataclass(frozen=True, eq=False)
class Entry:
    """What is particular to a recipe."""

    module: ModuleType
    base: dict[str, float]  # hyper-parameters under which every term counts
    changes: dict[str, tuple[float, ...]]  # other values of each: first the neutral one
    learner: dict[str, float]  # hyper-parameters under which the small world is learned
    derive: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ("next", "act")  # what the key of a state is split into
    functions: dict[str, Any] = field(default_factory=lambda: FUNCTIONS)  # what acts and what judges
    critic: bool = True
    discounted: bool = True  # its critic is that of the discounted objective
    num_steps: int = world.NUM_STEPS  # 1 where each environment step is followed by a step of the parameters
    num_updates: int = NUM_UPDATES
    members: int = 1  # policies that are played side by side, each in num_envs environments
    # How it is run.
    world: Callable[[], Any] = world.world
    acting: Callable[[Any, Any], tuple[Any, Any, Any]] = own_policy
    stepped: Callable[[Any, Any], Any] | None = of_the_state  # (state, update before); None if a state keeps none
    plays_itself: bool = True  # the episodes that a state remembers are those of the policy that is trained
    split: Callable[..., Any] = lambda entry, key: jax.random.split(key, len(entry.keys))
    start_keys: int = 2  # handed on at the start: to the network and to the environments
    draws: int | None = None  # keys handed on in an update; None: one for each of `keys` but the next
    once: bool = True  # each key is handed on once, not to all that are compared under common random numbers
    # How it is derived.
    seen: Callable[..., Any] = seen_in_window  # what an update learns from
    memory: Callable[..., Any] = derivations.adam_of  # memory(tables): what derive remembers, at the start
    given: Callable[..., dict[str, Any]] = lambda entry, keys, state, data: {}  # what else derive is told: draws, ...
    trained: str = "params"  # the field of a state that is trained: with a population, leaves [n, ...]
    parts: tuple[str, ...] = ("actor", "critic")  # of what is trained: the tables
    state_values: Callable[[Any], np.ndarray] = lambda params: (
        params.critic
    )  # [..., cells], of a critic that is a table
    chosen: Callable[[Any], Any] = lambda logits: np.tanh((logits[1] - logits[0]) / 2)  # the expected choice, of ±1

    def make(self, **settings: Any) -> Any:
        """The recipe in the small world, or in another; total_steps is that of one member."""
        functions = {name: x for name, x in self.functions.items() if self.critic or name != "value"}
        sizes = {"num_envs": world.NUM_ENVS, "num_steps": self.num_steps}
        sizes["total_steps"] = self.num_updates * world.NUM_ENVS * self.num_steps
        settings = {**sizes, **functions, **self.settings, **settings}
        if isinstance(settings["total_steps"], int):
            settings["total_steps"] *= self.members
        return self.module.make_train(*self.world(), **settings)


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
        return jax.tree.map(lambda x: as_numpy(x, i), tree)

    def tables(self, state: Any) -> tuple[Any, ...]:
        """Actor and critic that are trained, and what else is; of a population [n, ...]."""
        trained = getattr(state, self.entry.trained)
        return tuple(getattr(trained, part) for part in self.entry.parts)

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


def as_numpy(x: Any, at: Any = ...) -> np.ndarray:
    """An array on the host, or a part of it: taken there, because on the device each shape needs a program."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(x))[at]
    x = np.asarray(np.asarray(x)[at])
    return x.astype(np.float64) if x.dtype == np.float32 else x


@functools.cache
def window(entry: Entry) -> Callable[..., Any]:
    """Make the rollout of each lane: (keys, state) -> (parameters that acted, state of the rollout, trajectory)."""
    env, env_params = entry.world()

    def of_lane(keys: jax.Array, state: Any) -> Any:
        policy, params, rollout = entry.acting(keys, state)
        return params, *pg.rollout(
            keys[1], params, rollout, policy=policy, env=env, env_params=env_params, num_steps=entry.num_steps
        )

    return jax.jit(jax.vmap(of_lane))


@functools.partial(jax.jit, static_argnames=("num_epochs", "num_minibatches", "size"))
def order(key: jax.Array, *, num_epochs: int, num_minibatches: int, size: int = ROWS) -> jax.Array:
    """The rows of each minibatch, [epochs, minibatches, rows]."""
    rows = jnp.arange(size)
    return pg.epochs(
        key, 0, rows, step=lambda carry, index: (carry, index), num_epochs=num_epochs, num_minibatches=num_minibatches,
        num_axes=1,
    )[1]  # fmt: skip


def shuffled(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The order of the rows, of a recipe that goes through them in minibatches."""
    counts = {name: entry.settings[name] for name in ("num_epochs", "num_minibatches")}
    return {"order": np.asarray(order(keys[entry.keys.index("shuffle")], **counts))}
