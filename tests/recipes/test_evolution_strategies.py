"""Forms of evolution strategies and of finite differences, in whole episodes, against their library functions."""

import types
from typing import Any

import derivations_population as population
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from table import RECIPES

import pgjax as pg
from pgjax import expectation as ex
from pgjax.recipes import evolution_strategies, finite_differences

pytestmark = pytest.mark.usefixtures("quick_to_compile")
FUNCTIONS = {"policy": world.policy, "init_params": world.init_params}
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": 2, "total_steps": 10_000}


def cost(key: Any, params: Any) -> Any:
    env, env_params = world.brief()
    episodes = pg.evaluate(
        key, params, policy=world.policy, env=env, env_params=env_params, num_episodes=world.NUM_ENVS, max_steps=2,
        greedy=True,
    )  # fmt: skip
    return -episodes.episode_return.mean()


def first_update(module: Any, hyper: dict[str, float], **settings: Any) -> tuple[Any, Any, Any]:
    recipe = module.make_train(*world.brief(), **SIZES, **FUNCTIONS, **settings)
    before = recipe.init(jax.random.key(2), anneal=0.0, **hyper)
    return before, *recipe.update(before)


def test_ars_takes_a_plain_step_along_the_best_directions() -> None:
    before, after, metrics = first_update(
        evolution_strategies, {"learning_rate": 0.2, "scale": 0.5}, method="ars", num_pairs=5, num_top=2
    )
    grads, info = ex.ars(
        jax.random.split(before.key)[1], before.params, cost, num_pairs=5, num_top=2, scale=0.5, keyed=True
    )
    for x, start, g in zip(*map(jax.tree.leaves, (after.params, before.params, grads)), strict=True):
        np.testing.assert_allclose(x - start, -0.2 * g, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], info.value, rtol=1e-5)
    np.testing.assert_allclose(metrics["episode_return"], -info.value, rtol=1e-5)
    assert after.log_scale is None


def test_pgpe_trains_the_scale_of_each_parameter_along_with_the_middle() -> None:
    before, after, _ = first_update(
        evolution_strategies, {"learning_rate": 0.2, "scale": 0.5}, method="pgpe", num_pairs=5
    )
    np.testing.assert_allclose(np.exp(before.log_scale.actor), 0.5, rtol=1e-6)
    (of_mean, of_scale), _ = ex.pgpe(
        jax.random.split(before.key)[1], before.params, cost, num_pairs=5, scale=0.5, keyed=True
    )
    step = lambda g: -0.2 * g / (np.abs(g) + 1e-5)  # noqa: E731  the first of Adam
    np.testing.assert_allclose(after.params.actor - before.params.actor, step(of_mean.actor), atol=1e-4)
    np.testing.assert_allclose(after.log_scale.actor - before.log_scale.actor, step(0.5 * of_scale.actor), atol=1e-4)


@pytest.mark.parametrize(("method", "along"), [("spsa", ex.spsa), ("regression", ex.regressed_difference)])
def test_differences_along_random_directions(method: str, along: Any) -> None:
    before, after, metrics = first_update(
        finite_differences, {"learning_rate": 0.2, "epsilon": 1.0}, method=method, num_pairs=5
    )
    grads, _ = along(jax.random.split(before.key)[1], before.params, cost, num_pairs=5, epsilon=1.0, keyed=True)
    flat = population.vector_of(grads)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(flat), rtol=1e-4)
    moved = population.vector_of(after.params) - population.vector_of(before.params)
    far = np.abs(flat) > 1e-3
    np.testing.assert_allclose(moved[far], (-0.2 * flat / (np.abs(flat) + 1e-5))[far], atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"shaping": None}])
def test_an_episode_that_was_given_up_counts_for_nothing(settings: dict[str, Any]) -> None:
    """The endless kind, not cut by its environment: its return within the limit is never taken for a whole one."""
    env, env_params = world.world()
    rows = env_params.replace(max_steps_in_episode=jnp.full(world.NUM_ENVS, 10**6))
    recipe = evolution_strategies.make_train(env, rows, **SIZES, **FUNCTIONS, num_pairs=3, **settings)
    before = recipe.init(jax.random.key(2))
    after, metrics = recipe.update(before)
    np.testing.assert_array_equal(after.params.actor, before.params.actor)
    assert np.isnan(metrics["episode_return"])
    assert metrics["num_nonfinite"] == 6
    assert 0.4 < metrics["finished"] < 0.76  # not the two of eight that are endless
    lottery = 2 * 6 * (1 + 1)
    assert 6 * (2 * 2 + 2 * 2 + 2 * 2) + lottery / 2 <= metrics["env_steps"] <= 6 * 8 * 2


def test_steps_of_an_episode_that_was_given_up_are_counted() -> None:
    episodes = types.SimpleNamespace(
        episode_return=jnp.array([[1.0, 3.0], [jnp.nan, 4.0]]), episode_length=jnp.array([[2.0, 5.0], [jnp.nan, 3.0]])
    )
    info = ex.SearchInfo(jnp.float32(-2.0), jnp.int32(1), episodes)
    metrics = pg.recipes.search_metrics(info, {"a": jnp.array([3.0, 4.0])}, num_steps=7, env_steps=jnp.int32(100))
    assert (int(metrics["env_steps"]), float(metrics["finished"])) == (100 + 2 + 5 + 7 + 3, 0.75)
    assert (float(metrics["grad_norm"]), float(metrics["loss"]), int(metrics["num_nonfinite"])) == (5.0, -2.0, 1)
    assert np.isnan(metrics["episode_return"])


def test_bad_forms_are_named() -> None:
    make = evolution_strategies.make_train
    with pytest.raises(ValueError, match='method must be "evolution_strategy", "pgpe" or "ars", got \'cma\''):
        make(*world.brief(), **SIZES, **FUNCTIONS, method="cma")
    with pytest.raises(ValueError, match='method must be "central", "spsa" or "regression", got \'forward\''):
        finite_differences.make_train(*world.brief(), **SIZES, **FUNCTIONS, method="forward")
    for count, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="num_pairs must be"):
            make(*world.brief(), **SIZES, **FUNCTIONS, num_pairs=count)
        with pytest.raises(error, match="num_pairs must be"):
            finite_differences.make_train(*world.brief(), **SIZES, **FUNCTIONS, method="spsa", num_pairs=count)
    with pytest.raises(ValueError, match="num_top"):
        jax.eval_shape(RECIPES["evolution_strategies"].make(method="ars", num_top=0), jax.random.key(0))
    assert make(*world.brief(), total_steps=64 * 4 * 2, **FUNCTIONS, num_envs=8, num_pairs=4).num_updates == 4
    assert pg.recipes.longest_episode(*world.brief()) == 2
    assert pg.recipes.longest_episode(world.World(), None) == 10**6
    with pytest.raises(ValueError, match="env_params has no max_steps_in_episode"):
        pg.recipes.longest_episode(object(), {"gravity": 9.8})
    with pytest.raises(ValueError, match=r"scale must lie in \(0, inf\], got 0"):
        RECIPES["evolution_strategies"].make().init(jax.random.key(0), scale=0.0)


def test_the_default_policy_of_finite_differences_is_linear() -> None:
    import gymnax

    env, env_params = gymnax.make("CartPole-v1")
    model = finite_differences.linear_policy(env, env_params)
    params = model.init(jax.random.key(0), jnp.zeros((1, 4)), method="policy")
    assert sum(x.size for x in jax.tree.leaves(params)) == 4 * 2 + 2
    logits = lambda obs: model.apply(params, obs, method="policy").logits  # noqa: E731
    obs = jnp.array([[0.3, -1.0, 0.2, 2.0]])
    np.testing.assert_allclose(logits(obs) + logits(-obs), 2 * logits(0 * obs), atol=1e-6)
    recipe = finite_differences.make_train(env, env_params, num_envs=2, total_steps=3 * 20 * 2 * 500)
    assert recipe.num_updates == 3


def test_the_two_sides_of_a_pair_have_common_random_numbers() -> None:
    """With a perturbation of nothing both sides earn the same in every environment, lotteries among them."""
    key, params = jax.random.key(5), world.init_params(jax.random.key(1))
    _, returns, _ = population.pairs(key[None], jax.tree.map(lambda x: x[None], params), jnp.full(1, 1e-12))
    np.testing.assert_array_equal(returns[0, :, 0], returns[0, :, 1])
    assert np.any(returns[0, 0] != returns[0, 1])  # another pair has other numbers
