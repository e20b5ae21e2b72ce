"""Recipes reach what is published for them. Minutes each: `make test-slow`."""

import gymnax
import jax
import numpy as np
import pytest

import pgjax as pg
from pgjax.recipes import ppo, reinforce


@pytest.mark.slow
def test_ppo_solves_cartpole_in_half_a_million_steps():
    """Interquartile mean over 8 seeds of the training return: 500 at the end, at least 495 over the last tenth."""
    train = ppo.make_train(*gymnax.make("CartPole-v1"), num_envs=4, num_steps=128, total_steps=500_000)
    run = jax.jit(jax.vmap(lambda key: train(key, learning_rate=2.5e-4)))
    _, metrics = run(jax.random.split(jax.random.key(0), 8))
    returns = np.asarray(metrics["episode_return"])
    print("training return, 8 seeds:", returns[:, -1], returns[:, -returns.shape[1] // 10 :].mean(1))
    late = np.sort(returns[:, -returns.shape[1] // 10 :].mean(1))[2:6].mean()
    final = np.sort(returns[:, -1])[2:6].mean()
    assert final == 500
    assert late >= 495


@pytest.mark.slow
def test_ppo_reaches_the_published_return_on_acrobot():
    env, env_params = gymnax.make("Acrobot-v1")
    train = ppo.make_train(env, env_params, num_envs=16, num_steps=32, total_steps=500_000)
    state, _ = jax.jit(jax.vmap(lambda key: train(key, learning_rate=1e-3)))(jax.random.split(jax.random.key(0), 4))
    score = jax.vmap(
        lambda key, params: pg.evaluate(
            key, params, policy=train.policy, env=env, env_params=env_params, num_episodes=64
        ).episode_return.mean()
    )(jax.random.split(jax.random.key(1), 4), state.params)
    print("return, 4 seeds:", score)
    assert np.sort(score)[1:3].mean() > -88


@pytest.mark.slow
def test_reinforce_with_a_baseline_solves_cartpole_with_2048_environments():
    env, env_params = gymnax.make("CartPole-v1")
    train = reinforce.make_train(env, env_params, num_envs=2048, num_steps=128, total_steps=2**24)
    state, _ = jax.jit(train)(jax.random.key(0))
    result = pg.evaluate(
        jax.random.key(1), state.params, policy=train.policy, env=env, env_params=env_params,
        num_episodes=256,
    )  # fmt: skip
    assert result.episode_return.mean() > 475


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head", "least"),
    [
        ("CartPole-v1", None, 475),
        ("Acrobot-v1", None, -95),
        ("Pendulum-v1", "normal", -250),
        ("Pendulum-v1", "tanh_normal", -250),
        ("Pendulum-v1", "beta", -250),
    ],
)
def test_ppo_learns_with_its_defaults(name, head, least):
    """A million steps, one seed; actions are sampled, not greedy."""
    env, env_params = gymnax.make(name)
    model = pg.networks.default_actor_critic(env, env_params, head=head)
    recipe = ppo.make_train(env, env_params, model=model)
    state, _ = recipe(jax.random.key(0))
    result = pg.evaluate(
        jax.random.key(1), state.params, policy=recipe.policy, env=env, env_params=env_params, num_episodes=64
    )
    print(name, head, "return:", result.episode_return.mean())
    assert result.episode_return.mean() > least
