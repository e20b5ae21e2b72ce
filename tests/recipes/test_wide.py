"""Recipes in 64-bit mode: environments compute in float64 there, networks in float32; no state changes its dtype."""

import inspect
import warnings
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import pytest
from table import RECIPES

import pgjax as pg
from pgjax import recipes

SMALL = {
    **{"num_envs": 4, "num_steps": 4, "total_steps": 1_000_000, "num_minibatches": 1, "num_iterations": 2},
    **{"num_pairs": 2, "num_particles": 3, "group_size": 2, "capacity": 400, "batch_size": 8, "warmup": 40},
}
WINDOWS = {"acer": {"capacity": 3}, "acer_continuous": {"capacity": 3}}  # counted in windows
CONTINUOUS = ("acer_continuous", "d4pg", "ddpg", "dpg", "fasttd3", "reppo", "sac", "td3")
EITHER = ("ppo", "average_reward_actor_critic", "evolution_strategies", "acktr")
NAMES = [name for name in RECIPES if "," not in name]  # what follows a comma is a setting
CASES = [(name, "Pendulum-v1") for name in (*CONTINUOUS, *EITHER)]
CASES += [(name, "CartPole-v1") for name in NAMES if name not in CONTINUOUS and "maddpg" not in name]
CASES += [(name, "MPE_simple_spread_v3") for name in NAMES if "maddpg" in name]


def environment(name: str) -> tuple[Any, Any]:
    if not name.startswith("MPE"):
        return gymnax.make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jaxmarl = pytest.importorskip("jaxmarl")
        return pg.envs.from_jaxmarl(jaxmarl.make(name, action_type="Continuous")), None


@pytest.mark.parametrize(("name", "env_name"), CASES)
def test_an_update_keeps_the_dtypes_of_a_state(name: str, env_name: str) -> None:
    with jax.enable_x64(True):
        make_train = getattr(recipes, name).make_train
        sizes = {**SMALL, **WINDOWS.get(name, {})}
        taken = inspect.signature(make_train).parameters
        recipe = make_train(*environment(env_name), **{size: x for size, x in sizes.items() if size in taken})
        state = jax.eval_shape(recipe.init, jax.random.key(0))
        after, metrics = jax.eval_shape(recipe.update, state)
        described = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after)]
        assert described[0] == described[1]
        assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
        assert {x.shape for x in jax.tree.leaves(metrics)} == {()}
