"""The phasic policy gradient: what it is without its second phase, and what that phase leaves alone."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recall
import world
from table import RECIPES

import pgjax as pg
from pgjax.networks import ActorCritic, DiscretePolicy
from pgjax.recipes import ppg, ppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENTRY = RECIPES["ppg"]
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS, "total_steps": 40 * 6}
EPOCHS = {"num_epochs": 2, "num_minibatches": 4}
HYPER = {"learning_rate": 0.05, "discount": 0.9}


def network() -> Any:
    return ActorCritic(DiscretePolicy(world.NUM_ACTIONS, scale=1.0), features=(8,))


def test_identity_30_without_an_auxiliary_phase_it_is_ppo_with_separate_networks() -> None:
    """Three rollouts in each update against three updates of PPO, twice, normalisers and all, to a rounding."""
    settings = SIZES | EPOCHS | {"model": network(), "normalize_observations": True}
    plain = ppo.make_train(*world.world(), **settings)
    phasic = ppg.make_train(*world.world(), **settings, num_iterations=3, num_aux_epochs=0)
    ours, theirs = (recipe.init(jax.random.key(1), **HYPER) for recipe in (phasic, plain))
    shared = lambda params: {k: x for k, x in params.network["params"].items() if k != "second_critic"}  # noqa: E731
    for _ in range(2):
        ours, ours_metrics = phasic.update(ours)
        losses = []
        for _ in range(3):
            theirs, metrics = plain.update(theirs)
            losses.append(metrics["loss"])
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, shared(ours.params), shared(theirs.params))
        jax.tree.map(close, ours.rollout, theirs.rollout)
        np.testing.assert_allclose(ours_metrics["loss"], np.mean(losses), rtol=1e-5)
        assert "clone_kl" not in ours_metrics
    assert (phasic.num_updates, plain.num_updates) == (2, 6)


def clone(params: Any, logits: Any, obs: Any) -> Any:
    """The penalty of the second phase: mean of KL(π_old ‖ π)."""
    return jnp.mean(pg.Categorical(logits).kl_divergence(world.policy(params, obs)))


def test_identity_31_at_the_first_auxiliary_step_the_clone_has_no_divergence_and_no_gradient(x64: None) -> None:
    obs = jnp.eye(world.NUM_CELLS, dtype=jnp.float64)
    start = jax.tree.map(lambda x: x.astype(jnp.float64), world.init_params(jax.random.key(0)))
    logits = obs @ start.actor
    assert abs(clone(start, logits, obs)) < 1e-15
    np.testing.assert_allclose(jax.grad(clone)(start, logits, obs).actor, 0.0, atol=1e-15)
    moved = start._replace(actor=start.actor.at[:, 0].add(0.1))
    assert np.abs(jax.grad(clone)(moved, logits, obs).actor).max() > 1e-3


def test_before_the_first_auxiliary_step_the_weight_of_the_clone_does_not_matter() -> None:
    """In the recipe: one step in the second phase is the same for any weight; by the laws, two are not."""
    recipe = ENTRY.make(num_minibatches=1, num_aux_epochs=1)
    weights = jnp.array([0.0, 5.0])
    states = jax.vmap(lambda x: recipe.init(jax.random.key(7), **{**ENTRY.base, "clone_coef": x}))(weights)
    after, metrics = jax.vmap(recipe.update)(states)
    np.testing.assert_allclose(*after.params.actor, rtol=1e-4, atol=1e-5)
    assert np.abs(metrics["clone_kl"]).max() < 1e-6


def test_a_great_weight_keeps_the_policy_while_the_auxiliary_value_is_learned() -> None:
    """Means over a long second phase: without the clone, with it, and without learning."""
    settings = {"num_iterations": 2, "num_epochs": 1, "num_minibatches": 2, "num_aux_epochs": 20}
    recipe = ppg.make_train(*world.world(), **SIZES, **settings, normalize_rewards=False, model=network())
    lanes = jnp.array([[0.0, 0.01], [1e3, 0.01], [0.0, 0.0]])
    init = lambda x: recipe.init(jax.random.key(3), discount=0.9, clone_coef=x[0], learning_rate=x[1])  # noqa: E731
    _, metrics = jax.vmap(recipe.update)(jax.vmap(init)(lanes))
    free, held, _ = metrics["clone_kl"]
    assert held < 1e-3
    assert free > 20 * held
    _, learned, unlearned = metrics["aux_value_loss"]
    assert learned < 0.7 * unlearned


def test_the_default_network_is_initialised_with_the_head_that_only_this_recipe_has() -> None:
    obs = jnp.zeros((3, world.NUM_CELLS))
    model = network()
    both, whole = model.init(jax.random.key(0), obs), model.init(jax.random.key(0), obs, method="phasic")
    extra = whole["params"].pop("second_critic")
    jax.tree.map(np.testing.assert_array_equal, both, whole)
    assert jax.tree.leaves(extra)
    whole["params"]["second_critic"] = extra
    _, value, auxiliary = model.apply(whole, obs + 1.0, method="phasic")
    np.testing.assert_array_equal(value, model.apply(whole, obs + 1.0, method="value"))
    np.testing.assert_array_equal(auxiliary, model.apply(whole, obs + 1.0, method="auxiliary"))
    assert np.abs(value - auxiliary).max() > 1e-3


def test_a_memory_and_normalisers_meet_the_clone_where_they_acted() -> None:
    """Two rollouts of whole sequences: without a learning rate nothing diverges in either phase."""
    settings = {"num_iterations": 2, "num_epochs": 1, "num_minibatches": 2, "num_aux_epochs": 2, "total_steps": 128 * 9}
    recipe = ppg.make_train(*recall.task(), **recall.SIZES, **recall.WITH_MEMORY, **settings)
    state = recipe.init(jax.random.key(2), learning_rate=0.02)
    for _ in range(2):
        state, metrics = recipe.update(state)
        assert metrics["clone_kl"] > 1e-6
        assert metrics["kl"] > 1e-9
    still = state.replace(hyper=state.hyper._replace(learning_rate=jnp.float32(0.0)))
    after, metrics = recipe.update(still)
    assert abs(metrics["clone_kl"]) < 1e-6
    assert metrics["kl"] < 1e-12
    jax.tree.map(np.testing.assert_array_equal, after.params.network, still.params.network)
    with pytest.raises(ValueError, match=r"^auxiliary must be None with a recurrent policy"):
        ppg.make_train(
            *recall.task(), **recall.SIZES, **recall.WITH_MEMORY, **settings, auxiliary=recall.forgetful_value
        )
