"""Environments on the host through the adapter: rollouts against Gymnasium's own loop, and recipes that train there."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.envs import HostState, from_gymnasium

pytest.importorskip("gymnasium")

import gymnasium as gym
from hosted import blind, rolled, seeds_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")
LIMIT = 14  # of CartPole here: under random actions some episodes end by themselves before, some at it


def own_loop(make: Any, seeds: Any, actions: Any) -> Any:
    """Gymnasium's loop: an environment at a time, reset where an episode has ended."""
    rows: Any = {name: [] for name in ("obs", "next_obs", "reward", "terminated", "truncated")}
    for i, seed in enumerate(seeds):
        env = make()
        obs, _ = env.reset(seed=seed)
        for t in range(len(actions)):
            last, reward, terminated, truncated, _ = env.step(actions[t, i])
            for name, x in zip(rows, (obs, last, reward, terminated, truncated), strict=True):
                rows[name].append(x)
            obs = env.reset()[0] if terminated or truncated else last
        env.close()
    by_env = {name: np.stack(x).reshape(len(seeds), len(actions), *np.shape(x[0])) for name, x in rows.items()}
    return {name: x.swapaxes(0, 1) for name, x in by_env.items()}


@pytest.fixture(scope="module")
def cart_pole() -> Any:
    """(key, actions, what Gymnasium's loop gives) of three CartPoles with a limit of their own."""
    key, actions = jax.random.key(3), np.random.default_rng(0).integers(0, 2, (60, 3))
    make = lambda: gym.make("CartPole-v1", max_episode_steps=LIMIT)  # noqa: E731
    own = own_loop(make, seeds_of(key, 3), actions)
    assert own["terminated"].any()
    assert own["truncated"].any()
    return key, actions, own


def close_to(window: Any, own: Any) -> None:
    for name, x in own.items():
        np.testing.assert_allclose(getattr(window, name), x, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
def test_a_rollout_is_gymnasiums_own_loop(cart_pole: Any, mode: str) -> None:
    """However the VectorEnv resets: no action is lost, and what was seen last comes before the reset."""
    key, actions, own = cart_pole
    vector = gym.make_vec(
        "CartPole-v1", 3, vectorization_mode="sync", max_episode_steps=LIMIT, vector_kwargs={"autoreset_mode": mode}
    )
    # Gymnasium keeps the mode in what the class of the environment shares: this one overwrites it.
    other = {"SameStep": "NextStep"}.get(mode, "SameStep")
    gym.make_vec("CartPole-v1", 1, vectorization_mode="sync", vector_kwargs={"autoreset_mode": other}).close()
    _, window = rolled(key, from_gymnasium(vector), actions)
    close_to(window, own)
    ended = own["terminated"] | own["truncated"]
    np.testing.assert_array_equal(np.abs(window.next_obs[:-1] - window.obs[1:]).max(-1) > 0, ended[:-1])
    assert (window.step.max(0) < LIMIT).all()


def test_the_limit_of_pendulum_truncates_and_its_last_value_counts() -> None:
    key, actions = jax.random.key(1), np.random.default_rng(1).uniform(-2, 2, (203, 2, 1)).astype(np.float32)
    env = from_gymnasium("Pendulum-v1")
    state, window = rolled(key, env, actions)
    close_to(window, own_loop(lambda: gym.make("Pendulum-v1"), seeds_of(key, 2), actions))
    np.testing.assert_array_equal(window.truncated, np.repeat(np.arange(203) == 199, 2).reshape(203, 2))
    assert not window.terminated.any()
    value = lambda params, obs: obs[..., 2]  # noqa: E731
    _, next_value = pg.bootstrap_values(None, window, value=value)
    np.testing.assert_array_equal(next_value[199], window.next_obs[199, :, 2])
    assert (np.abs(window.next_obs[199, :, 2] - window.obs[200, :, 2]) > 1e-3).all()
    np.testing.assert_allclose(state.episode_return, window.reward[:200].sum(0), rtol=1e-4)
    np.testing.assert_array_equal([env.action_space().low, env.action_space().high], [[-2.0], [2.0]])


def test_a_window_goes_on_where_the_last_one_stopped(cart_pole: Any) -> None:
    key, actions, own = cart_pole
    env = from_gymnasium("CartPole-v1", max_episode_steps=LIMIT)
    state = pg.init_rollout(key, env, None, num_envs=3)
    options: Any = {"policy": blind(env), "env": env, "env_params": None, "num_steps": 30}
    windows = []
    for part in (actions[:30], actions[30:]):
        state, window = pg.rollout(key, None, state, actions=part, **options)
        windows.append(window)
    close_to(jax.tree.map(lambda *x: np.concatenate(x), *windows), own)


def test_seeds_under_vmap_are_one_batch(cart_pole: Any) -> None:
    """The same as each alone, in one call of the host for all of them."""
    _, actions, _ = cart_pole
    env = from_gymnasium("CartPole-v1", max_episode_steps=LIMIT)
    keys = jax.random.split(jax.random.key(7), 2)
    _, together = jax.jit(jax.vmap(lambda key: rolled(key, env, actions)))(keys)
    assert [batch.vector.num_envs for batch in env._batches] == [6]
    for i in range(2):
        alone = own_loop(lambda: gym.make("CartPole-v1", max_episode_steps=LIMIT), seeds_of(keys[i], 3), actions)
        close_to(jax.tree.map(lambda x, i=i: x[i], together), alone)


def test_episodes_under_vmap_end_apart() -> None:
    """A loop that has ended for one seed keeps its old rows, while the others go on."""
    env = from_gymnasium("CartPole-v1")
    keys, weights = jax.random.split(jax.random.key(2), 2), jnp.array([1.0, 30.0])
    policy = lambda params, obs: pg.Categorical(params * jnp.stack([-obs[..., 2], obs[..., 2]], -1))  # noqa: E731

    def played(key: Any, weight: Any) -> Any:
        options: Any = {"policy": policy, "env": env, "env_params": None, "num_episodes": 2, "greedy": True}
        return pg.evaluate(key, weight, **options)

    together = jax.vmap(played)(keys, weights * jnp.array([-1.0, 1.0]))
    lengths = np.asarray(together.episode_length)
    assert lengths[0].max() < lengths[1].min()
    for i, sign in enumerate((-1.0, 1.0)):
        np.testing.assert_array_equal(played(keys[i], sign * weights[i]).episode_length, lengths[i])


def test_no_gradient_passes_and_none_is_asked_for() -> None:
    env = from_gymnasium("Pendulum-v1")

    def earned(scale: Any) -> Any:
        state = pg.init_rollout(jax.random.key(0), env, None, num_envs=1)
        policy = lambda params, obs: pg.Normal(params * obs[..., :1], 1.0)  # noqa: E731
        _, window = pg.rollout(jax.random.key(1), scale, state, policy=policy, env=env, env_params=None, num_steps=2)
        return window.reward.sum()

    value, slope = jax.value_and_grad(earned)(1.0)
    assert value < 0
    assert slope == 0


# Recipes.


@pytest.fixture
def pendulum() -> Iterator[Any]:
    env = from_gymnasium("Pendulum-v1")
    yield env
    env.close()


def test_ppo_and_ddpg_train_on_it(pendulum: Any) -> None:
    small: Any = {"num_envs": 2, "num_steps": 4}
    pytest.importorskip("flashbax")
    for module, options in (
        (pg.recipes.ppo, {"num_epochs": 1, "num_minibatches": 1, "total_steps": 16}),
        (pg.recipes.ddpg, {"gradient_steps": 1, "batch_size": 4, "warmup": 8, "capacity": 32, "total_steps": 24}),
    ):
        recipe = module.make_train(pendulum, None, **small, **options)
        start = recipe.init(jax.random.key(0))
        state, metrics = jax.jit(recipe.update)(start)
        state, metrics = jax.jit(recipe.update)(state)
        assert isinstance(state.rollout.env_state, HostState)
        assert int(state.rollout.env_state.time[0]) >= 8
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start.params, state.params)
        assert max(jax.tree.leaves(moved)) > 0
        assert np.isfinite(metrics["loss"])
