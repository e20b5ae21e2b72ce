"""Show three ways in which PPO with a clip fails on problems of one step, and what repairs each.

After Hsu, Mendler-Dünner and Hardt (2020), Revisiting design choices in proximal policy optimization: a normal policy
leaves the region in which rewards are paid and does not come back; a softmax policy settles on an action that is not
the best; what a normal policy finds depends on where it starts. Repairs are a Beta or a discretised policy, and a
penalty on the divergence in place of the clip. Each is `recipes.ppo` or `recipes.kl_ppo`, over many seeds.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, axes, quick_to_compile, save, setting, write_json
from flax import struct
from gymnax.environments import environment, spaces

import pgjax as pg

GAUSSIAN, BETA, POINTS, SOFTMAX = "normal", "Beta", "11 points", "softmax"
CLIP, FORWARD, REVERSE = "clip", "forward", "reverse"
NUM_POINTS = 11


@struct.dataclass
class BanditState(environment.EnvState):
    time: Any


class Bandit(environment.Environment[BanditState, environment.EnvParams]):
    """One step: an action, its reward, the end.

    Args:
        reward: reward(action) -> scalar, reward units.
        num_actions: how many there are; None for one number in [-1, 1], beyond which an action is taken as it is.
    """

    def __init__(self, reward: Any, num_actions: int | None = None):
        super().__init__()
        self.reward, self.num_actions = reward, num_actions

    @property
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=10)

    def reset_env(self, key: jax.Array, params: Any) -> tuple[jax.Array, BanditState]:
        return jnp.ones(1), BanditState(time=jnp.int32(0))

    def step_env(self, key: jax.Array, state: BanditState, action: Any, params: Any) -> tuple[Any, ...]:
        reward = self.reward(action if self.num_actions else action[0])
        return jnp.ones(1), BanditState(time=state.time + 1), reward, jnp.bool_(True), {}

    def action_space(self, params: Any = None) -> Any:
        return spaces.Discrete(self.num_actions) if self.num_actions else spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(1.0, 1.0, (1,))


class Policy(NamedTuple):
    """A distribution without an observation: how it starts, and how its parameters make it."""

    start: Any
    of: Any


def normal(mean: float, std: float) -> Policy:
    return Policy(
        {"mean": jnp.full(1, mean), "log_std": jnp.full(1, np.log(std))},
        lambda x: pg.Normal(x["mean"], jnp.exp(x["log_std"])),
    )


def beta() -> Policy:
    """Uniform but for a little: as `networks.BetaPolicy` starts, with both parameters 1 + softplus(0)."""
    return Policy(
        jnp.zeros((2, 1)),
        lambda x: pg.Beta(
            1.0 + jax.nn.softplus(x[..., 0, :]), 1.0 + jax.nn.softplus(x[..., 1, :]), low=-1.0, high=1.0
        ),
    )


def points() -> Policy:
    return Policy(jnp.zeros((1, NUM_POINTS)), lambda x: pg.MultiCategorical([x[..., 0, :]]))


def softmax(num_actions: int) -> Policy:
    return Policy(jnp.zeros(num_actions), pg.Categorical)


def hill(action: jax.Array) -> jax.Array:
    """1 at 0.5, falling by the square of the distance; nothing beyond the box."""
    return jnp.where(jnp.abs(action) <= 1.0, 1.0 - jnp.square(action - 0.5), 0.0)


def rare(action: jax.Array) -> jax.Array:
    """1 for one action of many, 0.5 for some, 0 for the others."""
    return jnp.where(action == 0, 1.0, jnp.where(action <= 10, 0.5, 0.0))


def two_hills(action: jax.Array) -> jax.Array:
    """1 at 0.8, and 0.5 at -0.2."""
    return jnp.exp(-0.5 * jnp.square((action - 0.8) / 0.15)) + 0.5 * jnp.exp(-0.5 * jnp.square((action + 0.2) / 0.15))


@dataclasses.dataclass(frozen=True)
class Failure:
    """A problem, the policies that are tried on it, and how."""

    title: str
    claim: str
    reward: Any
    policies: dict[str, Policy]
    methods: tuple[tuple[str, str], ...]  # (policy, objective); the first is the one that fails
    repairs: tuple[tuple[str, str], ...]  # those of which the paper says so
    num_actions: int | None = None
    make: dict[str, Any] = dataclasses.field(default_factory=dict)
    hyper: dict[str, float] = dataclasses.field(default_factory=dict)


CONTINUOUS = ((GAUSSIAN, CLIP), (BETA, CLIP), (POINTS, CLIP), (GAUSSIAN, FORWARD), (GAUSSIAN, REVERSE))
FAILURES = {
    "bounded": Failure(
        "Rewards that vanish outside a bounded region",
        "A normal policy is carried out of the region by its own steps, where no reward leads back.",
        hill,
        {GAUSSIAN: normal(0.0, 0.5), BETA: beta(), POINTS: points()},
        CONTINUOUS,
        ((BETA, CLIP), (POINTS, CLIP), (GAUSSIAN, FORWARD), (GAUSSIAN, REVERSE)),
        hyper={"learning_rate": 0.1},
    ),
    "rare": Failure(
        "A high reward that is rarely met",
        "A softmax policy settles on an action that is good enough before it has met the best.",
        rare,
        {SOFTMAX: softmax(100)},
        ((SOFTMAX, CLIP), (SOFTMAX, FORWARD), (SOFTMAX, REVERSE)),
        ((SOFTMAX, FORWARD), (SOFTMAX, REVERSE)),
        num_actions=100,
        hyper={"learning_rate": 0.1},
    ),
    "start": Failure(
        "An action that is best nearby, where the policy starts",
        "A normal policy that starts near a lower hill stays on it.",
        two_hills,
        {GAUSSIAN: normal(-0.2, 0.3), BETA: beta(), POINTS: points()},
        CONTINUOUS,
        ((BETA, CLIP), (POINTS, CLIP)),
        hyper={"learning_rate": 0.05},
    ),
}
COMMON: dict[str, Any] = {"num_envs": 32, "num_steps": 1, "num_epochs": 10, "num_minibatches": 1}
HYPER = {"anneal": 0.0, "entropy_coef": 0.0, "max_grad_norm": 1e9}


def recipe_of(failure: Failure, policy: str, objective: str, num_updates: int) -> pg.recipes.Recipe:
    """The run of one line of the figure."""
    start, of = failure.policies[policy]
    env: Any = Bandit(failure.reward, failure.num_actions)
    env_params = env.default_params
    if policy == POINTS:
        env = pg.envs.DiscretizedAction(env, NUM_POINTS)

    def act(params: Any, obs: jax.Array) -> Any:
        return of(jax.tree.map(lambda x: jnp.broadcast_to(x, (*obs.shape[:-1], *x.shape)), params["actor"]))

    make = {**COMMON, **failure.make}
    make |= {"total_steps": num_updates * make["num_envs"] * make["num_steps"], "normalize_rewards": False}
    functions = {
        "policy": act,
        "value": lambda params, obs: jnp.broadcast_to(params["critic"], obs.shape[:-1]),
        "init_params": lambda key: {"actor": start, "critic": jnp.zeros(())},
    }
    if objective == CLIP:
        return pg.recipes.ppo.make_train(env, env_params, **make, **functions)
    return pg.recipes.kl_ppo.make_train(env, env_params, **make, **functions, penalty=objective)


def measure(name: str, seeds: int, num_updates: int) -> dict[str, dict[str, Any]]:
    """Mean reward of each method after each update, and of its last policy, over seeds."""
    failure, found = FAILURES[name], {}
    for policy, objective in failure.methods:
        recipe = recipe_of(failure, policy, objective, num_updates)
        hyper = {**HYPER, **failure.hyper}
        state, metrics = jax.jit(jax.vmap(lambda key, recipe=recipe, hyper=hyper: recipe(key, **hyper)))(
            jax.random.split(jax.random.key(0), seeds)
        )
        final = np.asarray(metrics["episode_return"][:, -10:].mean(1))
        found[f"{policy}, {objective}"] = {
            "curve": np.asarray(metrics["episode_return"].mean(0)).tolist(),
            "final": final.tolist(),
            "solved": float(np.mean(final >= SOLVED)),
        }
    return found


SOLVED = 0.8
