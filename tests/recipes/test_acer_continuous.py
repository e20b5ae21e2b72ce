"""ACER for continuous actions: what is stored and what comes back; `tests/estimators` has its estimator."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
import world_of_boxes as boxes
from table import RECIPES

import pgjax as pg
from pgjax.recipes import acer_continuous

pytestmark = pytest.mark.usefixtures("quick_to_compile")
BOX = {"low": (-1.0, 2.0), "high": (3.0, 2.5)}
SIZES = {"num_envs": 4, "num_steps": 3, "total_steps": 60, "capacity": 3, "replay_ratio": 1, "num_draws": 2}


def squashed(params: Any, obs: Any) -> pg.TanhNormal:
    row = obs @ params.actor
    return pg.TanhNormal(row[..., :1], jnp.exp(row[..., 1:]))


def beta(params: Any, obs: Any) -> pg.Beta:
    row = 1.0 + jax.nn.softplus(obs @ params.actor)
    return pg.Beta(row[..., :1], row[..., 1:], low=-1.0, high=1.0)


@pytest.mark.parametrize(("policy", "names"), [(squashed, ("loc", "scale")), (beta, ("alpha", "beta"))])
def test_the_new_window_is_stored_with_what_acted_and_its_ratios_are_one(policy: Any, names: Any) -> None:
    """Statistics and log-probabilities are those of the parameters before the update; squashed actions stay whole."""
    recipe = RECIPES["acer_continuous"].make(policy=policy, capacity=3)
    state = recipe.init(jax.random.key(0), learning_rate=0.1)
    for number in range(4):
        before, state = state, recipe.update(state)[0]
        window = jax.tree.map(lambda x: x[number % 3], state.windows)  # noqa: B023
        now, moved = (recipe.policy(x.params, window.obs) for x in (before, state))
        assert set(window.extras) == set(names)
        assert (window.raw_action is None) == (policy is beta)
        np.testing.assert_allclose(pg.log_prob_taken(now, window), window.log_prob, atol=1e-5)
        for name in names:
            np.testing.assert_allclose(getattr(now, name), window.extras[name], atol=1e-5)
            assert np.abs(getattr(moved, name) - window.extras[name]).max() > 1e-3


def held(params: Any, obs: Any) -> pg.exploration.StateDependentTanhNormal:
    row = obs @ params.actor
    deviation = jnp.exp(row[..., 1:])[..., None]
    return pg.exploration.StateDependentTanhNormal(row[..., :1], jnp.ones_like(row[..., :1]), deviation, hold=3)


def test_with_noise_that_is_held_it_stores_and_learns_what_one_action_by_itself_would() -> None:
    """The same numbers as with the normal that each action by itself is, but for the noise: one number a window."""
    made = [RECIPES["acer_continuous"].make(policy=policy, num_steps=3) for policy in (held, squashed)]
    states = [recipe.init(jax.random.key(0), learning_rate=0.1) for recipe in made]
    (one, other), rows = [recipe.update(x)[0] for recipe, x in zip(made, states, strict=True)], slice(0, 1)
    np.testing.assert_allclose(one.windows.extras["scale"][rows], other.windows.extras["scale"][rows], rtol=1e-5)
    window = jax.tree.map(lambda x: x[0], one.windows)
    noise = (window.raw_action - window.extras["loc"]) / window.extras["scale"]
    np.testing.assert_allclose(noise, jnp.broadcast_to(noise[:1], noise.shape), atol=1e-4)
    assert len(np.unique(np.round(noise[0, :, 0], 4))) == noise.shape[1]
    # What is learned from one and the same window is the same.
    law = squashed(states[0].params, window.obs)
    np.testing.assert_allclose(law.log_prob_raw(window.raw_action), window.log_prob, atol=1e-5)


def test_without_replay_it_learns_from_new_windows_alone() -> None:
    """The result does not depend on what the replay holds; with a replay it does, and a NaN in it is counted."""
    for replay_ratio, same in ((0, True), (1, False)):
        recipe = RECIPES["acer_continuous"].make(replay_ratio=replay_ratio)
        state = recipe.update(recipe.init(jax.random.key(0), learning_rate=0.1))[0]
        other = state.replace(windows=state.windows.replace(reward=state.windows.reward + 5.0))
        ends = [recipe.update(x)[0].params.actor for x in (state, other)]
        assert np.array_equal(*ends) == same
        broken = state.replace(windows=state.windows.replace(reward=jnp.nan * state.windows.reward))
        assert (recipe.update(broken)[1]["num_nonfinite"] == 0) == same


def test_the_default_networks_fit_a_box_with_bounds_of_its_own_for_each_coordinate() -> None:
    env = boxes.Box(**BOX)
    recipe = acer_continuous.make_train(env, boxes.BoxParams(), **SIZES)
    state = recipe.init(jax.random.key(0))
    own = recipe.policy(state.params, state.rollout.obs)
    np.testing.assert_allclose(own.loc, np.broadcast_to([1.0, 2.25], (4, 2)), atol=0.05)
    np.testing.assert_allclose(own.scale, np.broadcast_to([1.0, 0.125], (4, 2)), rtol=1e-5)
    after, metrics = recipe.update(state)
    assert after.windows.extras["loc"].shape == (3, 3, 4, 2)
    assert recipe.value(after.params, after.rollout.obs).shape == (4,)
    assert metrics["num_nonfinite"] == 0
    for name in ("actor", "critic"):  # policy and value; the advantage beside them
        old, new = (jax.tree.leaves(x.params["params"]["base"][name]) for x in (state, after))
        assert max(np.abs(x - y).max() for x, y in zip(old, new, strict=True)) > 1e-5
    old, new = (jax.tree.leaves(x.params["params"]["critic"]) for x in (state, after))
    assert max(np.abs(x - y).max() for x, y in zip(old, new, strict=True)) > 1e-5


def test_more_draws_are_other_draws_and_what_cannot_be_is_refused() -> None:
    ends = []
    for num_draws in (3, 4):
        recipe = RECIPES["acer_continuous"].make(num_draws=num_draws)
        ends.append(recipe.update(recipe.init(jax.random.key(0), learning_rate=0.1))[0].params.critic)
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    pendulum = gymnax.make("Pendulum-v1")
    for change, error, message in (
        ({"num_draws": 0}, ValueError, "num_draws must be at least 1, got 0"),
        ({"replay_ratio": -1}, ValueError, "replay_ratio must be at least 0, got -1"),
        ({"capacity": 0}, ValueError, "capacity must be at least 1, got 0"),
        ({"model": pg.networks.default_actor_critic(*pendulum)}, TypeError, "ActorCritic lacks advantage"),
    ):
        with pytest.raises(error, match=message):
            acer_continuous.make_train(*pendulum, **SIZES | change)
    with pytest.raises(TypeError, match="critic must be a function, got NoneType"):
        RECIPES["acer_continuous"].make(critic=None)
    categorical = RECIPES["acer_continuous"].make(policy=lambda params, obs: world.policy(params, obs))
    with pytest.raises(TypeError, match="must be a Normal, TanhNormal or Beta, got Categorical"):
        categorical.init(jax.random.key(0))
