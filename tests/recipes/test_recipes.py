"""Recipes learn, are pure functions of their state, and vmap over seeds and hyper-parameters."""

import functools

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.recipes import a2c, ppo, reinforce

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RECIPES = {"a2c": a2c, "ppo": ppo, "reinforce": reinforce}
SMALL = {"num_envs": 8, "num_steps": 16, "total_steps": 3 * 8 * 16}


@functools.cache
def cartpole():
    return gymnax.make("CartPole-v1")


@functools.cache
def small(name):
    return RECIPES[name].make_train(*cartpole(), **SMALL)


def assert_same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.parametrize("name", RECIPES)
def test_vmap_over_seeds_gives_what_the_single_runs_give(name):
    train = jax.jit(small(name))
    keys = jax.random.split(jax.random.key(3), 32)
    together, _ = jax.jit(jax.vmap(small(name)))(keys)
    for i in (0, 7, 31):
        alone, _ = train(keys[i])
        assert_same(jax.tree.map(lambda x, i=i: x[i], together.params), alone.params, rtol=2e-4, atol=2e-6)
        np.testing.assert_array_equal(together.rollout.step[i], alone.rollout.step)


@pytest.mark.parametrize("name", RECIPES)
def test_vmap_over_a_hyper_parameter_gives_what_the_single_runs_give(name):
    key, rates = jax.random.key(0), jnp.array([1e-4, 1e-2])
    together, _ = jax.jit(jax.vmap(lambda rate: small(name)(key, learning_rate=rate)))(rates)
    moved = []
    for i, rate in enumerate(rates):
        alone, _ = jax.jit(lambda rate: small(name)(key, learning_rate=rate))(rate)
        assert_same(jax.tree.map(lambda x, i=i: x[i], together.params), alone.params, rtol=2e-4, atol=2e-6)
        moved.append(alone.params)
    assert not np.allclose(jax.tree.leaves(moved[0])[1], jax.tree.leaves(moved[1])[1])


@pytest.mark.parametrize("name", RECIPES)
def test_the_state_is_all_that_a_run_needs_to_go_on(name):
    """Stopped after one update, taken to the host and back, a run goes on bit for bit."""
    recipe = small(name)
    update = jax.jit(recipe.update)
    state = jax.jit(recipe.init)(jax.random.key(1))
    straight = update(update(update(state)[0])[0])[0]
    saved, structure = jax.tree.flatten(update(state)[0])
    kinds = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in saved]
    on_host = [np.asarray(jax.random.key_data(x) if key else x) for x, key in zip(saved, kinds, strict=True)]
    back = [jax.random.wrap_key_data(x) if key else jnp.asarray(x) for x, key in zip(on_host, kinds, strict=True)]
    resumed = update(update(structure.unflatten(back))[0])[0]
    assert_same(straight, resumed, rtol=0, atol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_calling_a_recipe_is_looping_over_its_updates(name):
    recipe = small(name)
    state, metrics = jax.jit(recipe)(jax.random.key(1))
    assert recipe.num_updates == 3
    assert int(state.update) == 3
    assert all(x.shape == (3,) for x in metrics.values())
    assert np.isfinite(np.asarray(jax.tree.leaves(state.params)[0])).all()


def test_the_reported_return_is_nan_before_the_first_episode_ends_and_never_a_fake_zero():
    train = reinforce.make_train(*cartpole(), num_envs=4, num_steps=4, total_steps=16 * 16)
    _, metrics = jax.jit(train)(jax.random.key(0))
    returns = np.asarray(metrics["episode_return"])
    assert np.isnan(returns[0])
    assert np.all(returns[~np.isnan(returns)] > 0)
    assert metrics["finished"][0] == 0


def test_a_short_run_of_ppo_learns():
    """From about 20 to beyond 120 in 60 k steps: far outside what an untrained policy reaches by luck."""
    train = ppo.make_train(*cartpole(), num_envs=16, num_steps=64, total_steps=60 * 1024)
    state, _ = jax.jit(jax.vmap(lambda key: train(key, learning_rate=1e-3)))(jax.random.split(jax.random.key(0), 2))
    for i in range(2):
        params = jax.tree.map(lambda x, i=i: x[i], state.params)
        result = pg.evaluate(
            jax.random.key(5), params, policy=train.policy, env=cartpole()[0], env_params=cartpole()[1], num_episodes=64
        )
        assert result.episode_return.mean() > 120


def test_bootstrapping_the_time_limit_learns_the_value_of_going_on():
    """A pole balanced for ever is worth 1/(1-γ); a limit taken for the end of the world makes it worth less."""
    env, env_params = cartpole()
    env_params = env_params.replace(max_steps_in_episode=100)
    gamma = 0.95
    push = jnp.array([0.3, 1.0, 10.0, 3.0])
    policy = lambda params, obs: pg.Categorical(10.0 * jnp.stack([-(obs @ push), obs @ push], axis=-1))  # noqa: E731
    value = lambda params, obs: params + 0.0 * obs[..., 0]  # noqa: E731

    def fit(bootstrap):
        def update(carry, key):
            params, state = carry
            state, t = pg.rollout(key, None, state, policy=policy, env=env, env_params=env_params, num_steps=50)
            if not bootstrap:
                t = t.replace(terminated=t.done)
            _, next_value = pg.bootstrap_values(params, t, value=value)
            target = pg.lambda_returns(
                t.reward, next_value, terminated=t.terminated, truncated=t.truncated, discount=gamma, lam=0.9
            )
            return (params + 0.5 * (target.mean() - params), state), None

        state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=32)
        return float(jax.lax.scan(update, (jnp.float32(0.0), state), jax.random.split(jax.random.key(1), 60))[0][0])

    assert fit(bootstrap=True) == pytest.approx(1 / (1 - gamma), rel=1e-3)
    assert fit(bootstrap=False) < 0.9 / (1 - gamma)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"total_steps": 10}, ValueError, "total_steps must allow one update"),
        ({"num_envs": 2.0}, TypeError, "num_envs must be a Python int"),
        ({"num_minibatches": 7}, ValueError, "num_minibatches=7 must divide"),
    ],
)
def test_bad_settings_are_named(change, error, message):
    with pytest.raises(error, match=message):
        ppo.make_train(*cartpole(), **{**SMALL, **change})(jax.random.key(0))


def test_an_unknown_hyper_parameter_is_named_with_those_that_exist():
    with pytest.raises(TypeError, match=r"unknown hyper-parameter learning_rat; this recipe has .*learning_rate"):
        small("ppo")(jax.random.key(0), learning_rat=1.0)


@pytest.mark.parametrize("name", ["Pendulum-v1", "Breakout-MinAtar", "Reacher-misc"])
def test_the_default_network_fits_the_environment(name):
    env, env_params = gymnax.make(name)
    train = ppo.make_train(env, env_params, num_envs=4, num_steps=4, total_steps=16, num_epochs=1, num_minibatches=2)
    state, metrics = jax.jit(train)(jax.random.key(0))
    assert all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(state.params))
    assert np.isfinite(metrics["kl"]).all()
