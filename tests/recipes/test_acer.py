"""ACER: what is stored, what comes back, and what the default networks judge; `tests/estimators` has its estimator."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry import as_numpy
from table import RECIPES

import pgjax as pg
from pgjax.recipes import acer, windows

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_the_new_window_is_stored_with_what_acted_and_its_ratios_are_one() -> None:
    """Full distributions, to the bit those of the parameters before the update."""
    recipe = RECIPES["acer"].make(capacity=3)
    state = recipe.init(jax.random.key(0), learning_rate=0.1)
    for number in range(5):
        before, state = state, recipe.update(state)[0]
        window = jax.tree.map(lambda x: x[number % 3], state.windows)  # noqa: B023
        now = recipe.policy(before.params, window.obs)
        np.testing.assert_allclose(now.log_prob(window.action), window.log_prob, atol=1e-6)
        np.testing.assert_allclose(now.logits, window.extras["logits"], atol=1e-6)
        moved = recipe.policy(state.params, window.obs)
        assert np.abs(moved.logits - window.extras["logits"]).max() > 1e-3


def test_windows_come_back_whole_each_column_from_a_row_of_its_own() -> None:
    kept: Any = {"x": jnp.zeros((2, 3, 4))}
    new = [{"x": 100.0 * i + np.arange(12.0).reshape(3, 4)} for i in range(3)]
    for i, window in enumerate(new):
        kept = windows.add_window(kept, jnp.int32(i), window)
    np.testing.assert_array_equal(kept["x"], np.stack([new[2]["x"], new[1]["x"]]))
    taken = windows.take_windows(kept, jnp.array([0, 1, 1, 0]))["x"]
    for b, i in enumerate((2, 1, 1, 2)):
        np.testing.assert_array_equal(taken[:, b], new[i]["x"][:, b])
    rows = as_numpy(windows.draw_windows(jax.random.key(0), jnp.int32(3), num_draws=200, num_envs=2))
    assert rows.shape == (200, 2)
    assert set(rows.ravel()) == {0, 1, 2}
    assert (rows[:, 0] != rows[:, 1]).any()


def test_without_replay_it_learns_from_new_windows_alone() -> None:
    """The result does not depend on what the replay holds; with a replay it does."""
    for replay_ratio, same in ((0, True), (1, False)):
        recipe = RECIPES["acer"].make(replay_ratio=replay_ratio)
        state = recipe.update(recipe.init(jax.random.key(0), learning_rate=0.1))[0]
        other = state.replace(windows=state.windows.replace(reward=state.windows.reward + 5.0))
        ends = [recipe.update(x)[0].params.actor for x in (state, other)]
        assert np.array_equal(*ends) == same


def test_the_default_networks_judge_every_action_and_actions_must_be_discrete() -> None:
    for name, num_actions in (("CartPole-v1", 2), ("Breakout-MinAtar", 3)):
        recipe = acer.make_train(*gymnax.make(name), num_envs=2, num_steps=3, total_steps=6, capacity=2)
        state = jax.eval_shape(recipe.init, jax.random.key(0))
        after, _ = jax.eval_shape(recipe.update, state)
        assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state)]
        assert state.windows.extras["logits"].shape == (2, 3, 2, num_actions)
        assert jax.eval_shape(recipe.value, state.params, state.rollout.obs).shape == (2,)
    with pytest.raises(
        TypeError, match="env must have discrete actions, one whole number from 0 on, got the action space"
    ):
        acer.make_train(*gymnax.make("Pendulum-v1"))
    env, env_params = gymnax.make("CartPole-v1")
    with pytest.raises(TypeError, match="feed-forward policies only"):
        acer.make_train(env, env_params, model=pg.networks.default_recurrent_actor_critic(env, env_params))
    with pytest.raises(ValueError, match="replay_ratio must be at least 0, got -1"):
        RECIPES["acer"].make(replay_ratio=-1)
