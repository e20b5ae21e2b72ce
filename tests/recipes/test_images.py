"""MinAtar's planes, seen through convolutions with normalised observations and with a memory, train in each recipe."""

import inspect
from typing import Any

import gymnax
import jax
import numpy as np
import pytest

from pgjax.networks import default_actor_critic, default_recurrent_actor_critic
from pgjax.recipes import a2c, impala, ppg, ppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENV, ENV_PARAMS = gymnax.make("Breakout-MinAtar")
MODELS = {
    "images": default_actor_critic(ENV, ENV_PARAMS, features=(4,)),
    "images and a memory": default_recurrent_actor_critic(ENV, ENV_PARAMS, hidden=3, features=(4,)),
}
SMALL = {
    "num_envs": 2,
    "num_steps": 3,
    "total_steps": 18,
    "num_epochs": 1,
    "num_minibatches": 2,
    "num_iterations": 1,
    "num_aux_epochs": 1,
}


def kernels(params: Any) -> list[Any]:
    """The first kernels of the convolutions."""
    found = jax.tree_util.tree_leaves_with_path(params)
    return [x for path, x in found if all(word in jax.tree_util.keystr(path) for word in ("Conv_0", "kernel"))]


@pytest.mark.parametrize(
    ("module", "model"),
    [
        *((module, "images and a memory") for module in (a2c, ppo, ppg, impala)),
        (ppo, "images"),
        *(pytest.param(module, "images", marks=pytest.mark.slow) for module in (a2c, ppg, impala)),
    ],
)
def test_planes_and_a_memory_are_learned_from(module: Any, model: str) -> None:
    takes = inspect.signature(module.make_train).parameters
    sizes = {name: number for name, number in SMALL.items() if name in takes}
    assert "normalize_observations" in takes
    recipe = module.make_train(ENV, ENV_PARAMS, model=MODELS[model], normalize_observations=True, **sizes)
    before = recipe.init(jax.random.key(0))
    after, metrics = recipe(jax.random.key(0))
    assert metrics["loss"].shape == (3,)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((metrics["loss"], after.params)))
    assert kernels(before.params)
    for old, new in zip(kernels(before.params), kernels(after.params), strict=True):
        assert old.shape[:3] == (3, 3, 4)
        assert (np.asarray(old) != new).any()
    assert after.params.statistics.count == SMALL["total_steps"]
