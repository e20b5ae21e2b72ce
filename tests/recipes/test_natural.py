"""Recipes that follow the natural gradient: the trust region holds, ratios start at 1, and what they refuse."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recall
import world
from table import RECIPES, subject

import pgjax as pg
from pgjax.recipes import acktr, natural_actor_critic, natural_policy_gradient, trpo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
NATURAL = {
    "natural_policy_gradient": natural_policy_gradient,
    "natural_actor_critic": natural_actor_critic,
    "trpo": trpo,
}


def test_no_update_of_trpo_leaves_its_trust_region_and_none_makes_the_objective_worse() -> None:
    """In each lane of hyper-parameters, at every update; the plain natural gradient with a long step does leave it."""
    for name, holds in (("trpo", True), ("natural_policy_gradient", False)):
        run = subject(name)
        state = run.start()
        hyper = state.hyper._replace(max_kl=jnp.full_like(state.hyper.max_kl, 0.05))
        if not holds:
            hyper = hyper._replace(learning_rate=jnp.full_like(hyper.max_kl, jnp.inf))
        state = state.replace(hyper=hyper)
        kls, gains = [], []
        for _ in range(30):
            state, metrics = run.update(state)
            kls.append(metrics["kl"])
            gains.append(metrics.get("improvement", 0.0))
        assert (np.max(kls) <= 0.05 * (1 + 1e-4)) == holds
        assert np.max(kls) > 0.02
        assert np.min(gains) >= 0.0


@pytest.mark.parametrize("name", NATURAL)
def test_squashed_and_normalised_the_objective_starts_at_ratio_one(name: str) -> None:
    """The mean of standardised advantages is 0: so is the objective of TRPO before its step, after several updates."""
    settings = {"num_epochs": 2, "num_minibatches": 2}
    recipe = NATURAL[name].make_train(*recall.task(), **recall.SIZES, **recall.WITHOUT, **settings, total_steps=64 * 4)
    state, metrics = recipe(jax.random.key(0))
    assert all(np.isfinite(x).all() for key, x in metrics.items() if key != "episode_return")
    assert (metrics["kl"] > 1e-6).all()
    if name == "trpo":
        np.testing.assert_allclose(metrics["loss"], 0.0, atol=1e-6)
    assert float(jnp.abs(state.params.statistics.mean).max()) > 1.0  # far from 0, as the task's observations are


@pytest.mark.parametrize("name", NATURAL)
def test_where_policy_and_value_share_parameters_the_fit_of_the_value_leaves_the_policy(name: str) -> None:
    def init_params(key: Any) -> Any:
        trunk_key, head_key = jax.random.split(key)
        heads = 0.3 * jax.random.normal(head_key, (4, world.NUM_ACTIONS + 1))
        return {
            "trunk": 0.3 * jax.random.normal(trunk_key, (world.NUM_CELLS, 4)),
            "policy": heads[:, :-1],
            "value": heads[:, -1],
        }

    shared = {
        "policy": lambda params, obs: pg.Categorical(jnp.tanh(obs @ params["trunk"]) @ params["policy"]),
        "value": lambda params, obs: jnp.tanh(obs @ params["trunk"]) @ params["value"],
        "init_params": init_params,
    }
    ends = []
    for num_epochs in (1, 5):
        recipe = RECIPES[name].make(**shared, num_epochs=num_epochs)
        ends.append(recipe.update(recipe.init(jax.random.key(0), max_kl=0.05)))
    (once, first), (often, second) = ends
    for part in ("trunk", "policy"):
        np.testing.assert_allclose(once.params[part], often.params[part], rtol=1e-6)
    assert np.abs(once.params["value"] - often.params["value"]).max() > 1e-3
    assert second["value_loss"] < first["value_loss"]
    assert name != "trpo" or 0.01 < second["kl"] <= 0.05 * (1 + 1e-4)


def test_acktr_learns_from_drawn_factors_as_well() -> None:
    entry = RECIPES["acktr"]
    recipe = entry.make(exact_factors=False, total_steps=150 * 40)
    state, metrics = recipe(jax.random.key(0), **{**entry.base, **entry.learner})
    logits = state.params.actor[world.CHOICE_CELL]
    assert np.tanh((logits[1] - logits[0]) / 2) > 0.8
    assert (metrics["kl"] > 0).all()


@pytest.mark.parametrize("module", [*NATURAL.values(), acktr])
def test_a_memory_is_refused_by_name(module: Any) -> None:
    remembering = pg.networks.RecurrentActorCritic(pg.networks.DiscretePolicy(num_actions=2))
    with pytest.raises(TypeError, match="feed-forward policies only"):
        module.make_train(*world.world(), num_envs=8, num_steps=2, total_steps=32, model=remembering)


def test_acktr_refuses_a_policy_without_dense_layers() -> None:
    functions = {"policy": world.policy, "value": world.value, "init_params": world.init_params}
    recipe = acktr.make_train(*world.world(), num_envs=8, num_steps=2, total_steps=32, **functions)
    with pytest.raises(ValueError, match=r"policy calls no flax.linen.Dense"):
        recipe.init(jax.random.key(0))
