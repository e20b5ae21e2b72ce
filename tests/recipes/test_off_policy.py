"""What the recipes with a replay share, and what makes TD3 of DDPG."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
import world_of_boxes as boxes

import pgjax as pg
from pgjax.recipes import ddpg, off_policy, td3

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SHORT = {"num_envs": 4, "num_steps": 2, "gradient_steps": 2, "batch_size": 8, "capacity": 64}
LOW, HIGH = (-1.0, 2.0), (3.0, 2.5)


def box(pays: Any = jnp.sum) -> dict[str, Any]:
    env = boxes.Box(LOW, HIGH, pays)
    model = pg.networks.default_actor_with_critics(env, env.default_params, features=(8,))
    return {"env": env, "env_params": env.default_params, "model": model}


def quadratics(num_critics: int) -> dict[str, Any]:
    env, env_params = world.continuous()

    def init_params(key: Any, obs: Any) -> Any:
        actor, critic = world.init_quadratics(key, obs)
        return actor, jnp.repeat(critic, num_critics, axis=0)

    functions = {"policy": world.deterministic, "critic": world.action_value, "init_params": init_params}
    return {"env": env, "env_params": env_params, "num_envs": world.NUM_ENVS, **functions}


def assert_same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.params.actor, b.params.actor)
    np.testing.assert_array_equal(a.params.critic[0], b.params.critic[0])
    np.testing.assert_array_equal(a.target.critic[0], b.target.critic[0])
    jax.tree.map(np.testing.assert_array_equal, a.rollout, b.rollout)


def test_identity_30_td3_without_noise_delay_and_second_critic_is_ddpg_bit_for_bit() -> None:
    """One critic, or two that are the same from the start; noise, a delay or other critics make a difference."""
    sizes = {"num_steps": 2, "total_steps": 10 * 16, "gradient_steps": 3, "batch_size": 8, "capacity": 200}
    sizes["warmup"] = 32
    recipe = ddpg.make_train(**quadratics(1), **sizes)
    plain, _ = recipe(jax.random.key(2))
    assert np.abs(plain.params.actor - recipe.init(jax.random.key(2)).params.actor).max() > 1e-3
    twin = td3.make_train(**quadratics(2), **sizes, policy_delay=1)
    for recipe in (twin, td3.make_train(**quadratics(1), **sizes, policy_delay=1)):
        assert_same(plain, recipe(jax.random.key(2), smoothing=0.0)[0])
    slower = td3.make_train(**quadratics(2), **sizes, policy_delay=2)
    for other in (slower(jax.random.key(2), smoothing=0.0)[0], twin(jax.random.key(2), smoothing=0.2)[0]):
        assert np.abs(plain.params.actor - other.params.actor).max() > 1e-6


@pytest.mark.parametrize("module", [ddpg, td3])
def test_actions_keep_within_bounds_of_their_own_and_warm_up_at_random_without_learning(module: Any) -> None:
    recipe = module.make_train(**box(), **SHORT, total_steps=20 * 8, warmup=40)
    state, seen = recipe.init(jax.random.key(0), noise=0.5), []
    start = state.params
    for number in range(20):
        before, (state, metrics) = state, recipe.update(state)
        rows = np.asarray(before.replay.position) + np.arange(2)
        seen.append(np.asarray(state.replay.experience.action)[:, rows % 16])
        if number < 5:  # 40 steps of 8 in an update
            jax.tree.map(np.testing.assert_array_equal, state.params, start)
            assert np.isnan(metrics["loss"])
            assert metrics["num_nonfinite"] == 0
    assert np.isfinite(metrics["loss"])
    assert any(
        np.abs(x - y).max() > 0 for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(start), strict=True)
    )
    random, own = np.concatenate(seen[:5], 1), np.concatenate(seen[5:], 1)
    for actions in (random, own):
        assert (actions >= LOW).all()
        assert (actions <= HIGH).all()
    width = np.subtract(HIGH, LOW)
    np.testing.assert_allclose((random.reshape(-1, 2).std(0) / width), 12**-0.5, rtol=0.3)
    assert (own.reshape(-1, 2).std(0) > 0.05 * width).all()


def test_the_trained_policy_is_the_actor_without_noise_in_the_box() -> None:
    """Each coordinate is paid for a place of its own."""
    goal = jnp.array([2.0, 2.1])
    settings = box(lambda action: -jnp.sum(jnp.abs(action - goal) / jnp.array([4.0, 0.5])))
    recipe = td3.make_train(**settings, **{**SHORT, "gradient_steps": 8, "batch_size": 32, "capacity": 4000},
                            total_steps=400 * 8, warmup=400)  # fmt: skip
    state, _ = recipe(jax.random.key(0), discount=0.0, noise=0.3, learning_rate=3e-3, critic_learning_rate=1e-2)
    action = recipe.policy(state.params, jnp.zeros((1, 2))).sample(jax.random.key(0))[0]
    assert (np.abs(action - goal) < [0.4, 0.05]).all()  # a tenth of each width


def test_rewards_that_are_no_numbers_are_counted() -> None:
    recipe = ddpg.make_train(**box(lambda action: jnp.where(action[0] > 1.0, jnp.nan, 0.0)), **SHORT, total_steps=80)
    state = recipe.init(jax.random.key(0))
    state, metrics = recipe.update(state)
    wrong = np.isnan(state.replay.experience.reward[:, :2]).sum()
    assert metrics["num_nonfinite"] == wrong
    assert wrong > 0


@pytest.mark.parametrize("module", [ddpg, td3])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"batch_size": 9, "warmup": 0},
            ValueError,
            r"batch_size=9 must not be larger than what is stored .*: 8 windows",
        ),
        ({"capacity": 3}, ValueError, "capacity=3 must leave a window of 1 steps for each of 4"),
        ({"window": 3, "warmup": 0}, ValueError, "warmup=0 and capacity=64 must leave a window of 3 steps"),
        ({"capacity": 8, "batch_size": 16}, ValueError, "batch_size=16 must not be larger .* 8 windows"),
        ({"gradient_steps": 0}, ValueError, "gradient_steps must be at least 1"),
        ({"warmup": -1}, ValueError, "warmup must be at least 0"),
        ({"warmup": 1e3}, TypeError, "warmup must be a Python int"),
        ({"env": boxes.Box((-np.inf,), (1.0,))}, ValueError, "env must have bounded actions"),
        ({"env": gymnax.make("CartPole-v1")[0]}, TypeError, "env must have actions in a box"),
    ],
)
def test_bad_settings_are_named(module: Any, change: Any, error: type, message: str) -> None:
    settings = {**box(), **SHORT, "total_steps": 80, "warmup": 40, **change}
    if "env" in change:
        settings = settings | {"env_params": change["env"].default_params, "model": None}
    with pytest.raises(error, match=message):
        module.make_train(**settings)


def test_warm_up_is_counted_in_whole_updates() -> None:
    count = lambda warmup: off_policy.count_warmup(warmup, 8, 800, num_envs=4, num_steps=2)  # noqa: E731
    assert [count(x) for x in (0, 1, 8, 9)] == [0, 1, 1, 2]


def test_a_state_of_other_dtypes_is_refused() -> None:
    """As after a run in float64, or with other observations: not cast in silence."""
    recipe = ddpg.make_train(**box(), **SHORT, total_steps=80)
    state = recipe.init(jax.random.key(0))
    experience = state.replay.experience
    wrong = experience.replace(obs=experience.obs.astype(jnp.float16))
    with pytest.raises(TypeError, match="float16"):
        recipe.update(state.replace(replay=state.replay.replace(experience=wrong)))
