"""FastTD3: what it shares with TD3, observations standardised by frozen statistics, warm-up, default networks."""

from typing import Any

import derivations_fasttd3
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from derivations import flat
from derivations_d4pg import action_logits
from entry import as_numpy
from table import RECIPES
from table_replay import SUPPORT

import pgjax as pg
from pgjax.recipes import fasttd3

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENTRY = RECIPES["fasttd3"]


def normal_logits(table: Any, obs: Any, action: Any) -> Any:
    """Those of a normal of unit variance around a critic that is a number, on 49 atoms from -12 to 12."""
    q = world.action_value(table, obs, action)[..., None]
    return -0.5 * jnp.square(jnp.broadcast_to(jnp.linspace(-12.0, 12.0, 49), (*q.shape[:-1], 49)) - q)


def init_two(key: Any, obs: Any) -> Any:
    return world.init_quadratics(key, obs, num_critics=2)


def test_with_many_atoms_and_one_scale_of_noise_a_step_is_that_of_td3() -> None:
    """All of a run where targets are new parameters, and with two critics that differ where the actor rests.

    Not with a target actor that lags, nor with noise that differs between the environments.
    """
    td3 = RECIPES["td3"].make(window=1, policy_delay=1, init_params=init_two)
    settings = {"window": 1, "policy_delay": 1, "num_atoms": 49, "init_params": init_two, "critic": normal_logits}
    fast = ENTRY.make(**settings)
    hyper = {"critic_learning_rate": 0.1, "discount": 0.8, "smoothing": 0.3, "smoothing_clip": 0.4, "noise_theta": 0.5}
    atoms = {"low_value": -12.0, "high_value": 12.0, "weight_decay": 0.0}

    def end(recipe: Any, equal: bool, **numbers: float) -> Any:
        state = recipe.init(jax.random.key(0), **hyper, **numbers)
        if equal:
            critic = state.params.critic.at[1].set(state.params.critic[0])
            target = state.target._replace(critic=critic) if recipe is td3 else critic
            state = state.replace(params=state.params._replace(critic=critic), target=target)
        for _ in range(3):
            state, metrics = recipe.update(state)
        parts = (state.params[:2], state.rollout.obs, metrics["action_value"], metrics["grad_norm"])
        return flat([as_numpy(x) for x in jax.tree.leaves(parts)])

    for equal, rate, target_rate in ((True, 0.05, 1.0), (False, 0.0, 0.3)):
        numbers = {"learning_rate": rate, "target_rate": target_rate}
        wanted = end(td3, equal, noise=0.3, **numbers)
        same = end(fast, equal, smallest_noise=0.3, largest_noise=0.3, **numbers, **atoms)
        np.testing.assert_allclose(same, wanted, rtol=1e-3, atol=1e-4)
        spread = end(fast, equal, smallest_noise=0.2, largest_noise=0.4, **numbers, **atoms)
        assert np.abs(spread - wanted).max() > 0.01
    lagging = {"learning_rate": 0.05, "target_rate": 0.3}
    ends = [end(td3, True, noise=0.3, **lagging)]
    ends.append(end(fast, True, smallest_noise=0.3, largest_noise=0.3, **lagging, **atoms))
    assert np.abs(ends[0] - ends[1]).max() > 0.01


def test_observations_are_standardised_by_what_was_known_before_the_update() -> None:
    """As if networks saw standardised observations themselves; the statistics afterwards are those of all that acted.

    While it warms up the statistics are gathered and nothing is learned.
    """
    recipe = ENTRY.make(normalize_observations=True, warmup=world.NUM_ENVS * world.NUM_STEPS)
    start = recipe.init(jax.random.key(0), **ENTRY.base)
    state, metrics = recipe.update(start)
    assert np.isnan(metrics["loss"])
    np.testing.assert_array_equal(flat(start.params[:2]), flat(state.params[:2]))
    statistics = state.params.statistics
    assert float(statistics.count) == world.NUM_ENVS * world.NUM_STEPS

    def standard(obs: Any) -> Any:
        return pg.envs.normalize(statistics, obs)

    plain = ENTRY.make(
        policy=lambda actor, obs: world.deterministic(actor, standard(obs)),
        critic=lambda critic, obs, action: action_logits(critic, standard(obs), action),
    )
    after, told = recipe.update(state)
    wanted, metrics = plain.update(state.replace(params=state.params._replace(statistics=None)))
    np.testing.assert_allclose(flat(after.params[:2]), flat(wanted.params[:2]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told["loss"], metrics["loss"], rtol=1e-5)
    acted = recipe.policy(state.params, state.rollout.obs).mode()
    np.testing.assert_allclose(acted, plain.policy(state.params, state.rollout.obs).mode(), rtol=1e-6)
    assert np.abs(acted - world.deterministic(state.params.actor, state.rollout.obs).mode()).max() > 0.01
    seen = as_numpy(after.replay.experience.obs)[:, : 2 * world.NUM_STEPS].reshape(-1, world.NUM_CELLS)
    np.testing.assert_allclose(after.params.statistics.mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(after.params.statistics.var, seen.var(0), rtol=1e-4, atol=1e-6)


def test_the_default_networks_give_the_atoms_and_what_does_not_fit_is_named() -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    sizes = {"num_envs": 2, "total_steps": 4, "warmup": 10, "capacity": 40, "batch_size": 4}
    recipe = fasttd3.make_train(env, env_params, **sizes, num_atoms=11, num_critics=3)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    after, _ = jax.eval_shape(recipe.update, state)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state)]
    assert {x.shape[0] for x in jax.tree.leaves(state.params.critic)} == {3}
    assert {x.shape[-1] for x in jax.tree.leaves(state.params.critic)} == {128, 11}
    with pytest.raises(ValueError, match="num_atoms must be at least 2, got 1"):
        fasttd3.make_train(env, env_params, num_atoms=1)
    with pytest.raises(ValueError, match="policy_delay must be at least 1, got 0"):
        fasttd3.make_train(env, env_params, policy_delay=0)
    with pytest.raises(ValueError, match="largest_noise must lie in"):
        recipe.init(jax.random.key(0), largest_noise=-1.0)
    other = ENTRY.make(num_atoms=derivations_fasttd3.SETTINGS["num_atoms"] + 1)
    with pytest.raises(ValueError, match="atoms"):
        other.update(other.init(jax.random.key(0), **SUPPORT))
    with pytest.raises(TypeError, match="box"):
        fasttd3.make_train(*gymnax.make("CartPole-v1"))
