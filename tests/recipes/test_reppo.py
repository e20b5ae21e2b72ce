"""What defines relative entropy pathwise policy optimisation, on the tables of its derivation."""

import functools
from typing import Any

import derivations_reppo as tables
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
import world_of_boxes as boxes

import pgjax as pg
from pgjax.recipes import reppo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
FUNCTIONS = {"policy": tables.policy, "critic": tables.logits, "init_params": tables.init_params}
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS, "num_bins": tables.NUM_BINS}
HYPER = {"learning_rate": 0.05, "low_value": -4.0, "high_value": 8.0, "max_grad_norm": np.inf, "temperature": 0.2}
LOW, HIGH = (-1.0, 2.0), (3.0, 2.5)
BOX = {"num_envs": 8, "num_steps": 4, "num_epochs": 2, "num_minibatches": 2, "num_bins": 15}


def in_world(**settings: Any) -> Any:
    env, env_params = world.continuous()
    sizes = SIZES | {"total_steps": 5 * 40, "normalize_rewards": False}
    return reppo.make_train(env, env_params, **FUNCTIONS, **{**sizes, **settings})


@functools.cache
def program(num_epochs: int, num_minibatches: int) -> Any:
    """The first update, of four runs side by side that differ in their numbers."""
    recipe = in_world(num_epochs=num_epochs, num_minibatches=num_minibatches)
    run = jax.jit(jax.vmap(lambda hyper: recipe.update(recipe.init(jax.random.key(1), **hyper))))
    common = HYPER | {"max_kl": 1e-3, "multiplier": 0.5, "entropy_per_action": -0.5, "lam": 0.95}

    def call(**hyper: Any) -> Any:
        return run({name: jnp.broadcast_to(jnp.float32(x), 4) for name, x in (common | hyper).items()})

    return call


def in_box(low: Any, high: Any, pays: Any, **settings: Any) -> Any:
    """A policy and a critic that look at the action alone, in half widths of the box."""
    env, (low, high) = boxes.Box(low, high, pays), (jnp.asarray(low), jnp.asarray(high))

    def policy(actor: Any, obs: Any) -> pg.TanhNormal:
        rows = jnp.broadcast_to(actor, (*obs.shape[:-1], 4))
        return pg.TanhNormal(rows[..., :2], jnp.exp(rows[..., 2:]), low, high)

    def critic(critic: Any, obs: Any, action: Any) -> Any:
        middle, half = (jnp.broadcast_to(x, action.shape) for x in (0.5 * (low + high), 0.5 * (high - low)))
        unit = (action - middle) / half
        return (jnp.concatenate([jnp.ones_like(unit[..., :1]), unit, unit**2], -1) @ critic)[None]

    functions = {"policy": policy, "critic": critic}
    functions["init_params"] = lambda key, obs: (jnp.zeros(4), 0.1 * jax.random.normal(key, (5, BOX["num_bins"])))
    return reppo.make_train(env, env.default_params, **functions, **{**BOX, "total_steps": 5 * 32, **settings})


def test_without_a_bound_the_actor_follows_the_gradient_of_soft_actor_critic() -> None:
    """At an equal critic, by differentiating both; with a bound only where the divergence is below it."""
    actor, critic = tables.init_params(jax.random.key(0), None)
    obs, noise = jnp.eye(world.NUM_CELLS), jax.random.normal(jax.random.key(1), (world.NUM_CELLS, 1))
    moved, atoms = actor + 0.2 * jax.random.normal(jax.random.key(2), actor.shape), jnp.linspace(-4.0, 8.0, 12)
    old, temperature = tables.policy(actor, obs), 0.3
    kl = old.kl_divergence(tables.policy(moved, obs))

    def drawn(actor: Any) -> Any:
        new = tables.policy(actor, obs)
        action, log_prob = new.sample_from(noise), new.log_prob_raw(new.raw_from(noise))
        return log_prob, jax.nn.softmax(tables.logits(critic, obs, action)[0]) @ atoms, new

    def soft(actor: Any) -> Any:
        log_prob, q, _ = drawn(actor)
        return temperature * log_prob - q

    def bounded(actor: Any, multiplier: Any, max_kl: float) -> Any:
        log_prob, q, new = drawn(actor)
        numbers = {"temperature": temperature, "multiplier": multiplier, "max_kl": max_kl}
        return reppo.actor_objective(log_prob, q, old.kl_divergence(new), **numbers)

    wanted = jax.grad(lambda x: soft(x).sum())(moved)
    grad = jax.grad(lambda *x: bounded(*x).sum(), argnums=(0, 1))
    np.testing.assert_allclose(grad(moved, 0.5, 1e9)[0], wanted, rtol=1e-5, atol=1e-7)
    bound = float(jnp.median(kl))
    along, dual = grad(moved, 0.5, bound)
    back = jax.grad(lambda x: old.kl_divergence(tables.policy(x, obs)).sum())(moved)
    near = np.asarray(kl < bound)
    assert 0 < near.sum() < len(near)
    np.testing.assert_allclose(along, np.where(near[:, None], wanted, 0.5 * back), rtol=1e-5, atol=1e-7)
    assert np.abs(along - wanted)[~near].max() > 0.1
    np.testing.assert_allclose(dual, np.sum(bound - kl), rtol=1e-4)


def test_in_the_first_minibatch_nothing_has_moved_and_the_multiplier_has_no_part() -> None:
    multiplier = np.array([0.1, 0.1, 10.0, 10.0])
    state, metrics = program(1, 1)(multiplier=multiplier)
    assert np.abs(metrics["kl"]).max() < 1e-6
    np.testing.assert_array_equal(metrics["held_fraction"], 0.0)
    np.testing.assert_array_equal(state.params.actor[0], state.params.actor[2])
    state, metrics = program(2, 4)(multiplier=multiplier)
    assert (metrics["kl"] > 1e-3).all()
    assert (metrics["held_fraction"] > 0.1).all()
    assert np.abs(state.params.actor[0] - state.params.actor[2]).max() > 1e-3


def test_the_multiplier_rises_above_the_bound_and_the_temperature_falls_above_the_entropy_asked_for() -> None:
    hyper = {"max_kl": np.array([1e-6, 1e-6, 10.0, 10.0]), "entropy_per_action": np.array([-9.0, 9.0, -9.0, 9.0])}
    state, metrics = program(2, 4)(**hyper)
    rises = metrics["kl"] > hyper["max_kl"]
    np.testing.assert_array_equal(rises, [True, True, False, False])
    np.testing.assert_array_equal(metrics["multiplier"] > 0.5, rises)
    np.testing.assert_array_equal(metrics["temperature"] < 0.2, metrics["entropy"] > hyper["entropy_per_action"])
    np.testing.assert_array_equal(metrics["temperature"] < 0.2, [True, False, True, False])
    np.testing.assert_allclose(jnp.exp(state.log_multiplier), metrics["multiplier"], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(state.log_temperature), metrics["temperature"], rtol=1e-6)


def test_with_lambda_0_the_target_is_that_of_one_soft_step() -> None:
    loss = program(1, 1)(lam=np.array([0.0, 0.8, 0.0, 0.8]))[1]["loss"]
    (env, env_params), state = world.continuous(), in_world(num_minibatches=1).init(jax.random.key(1), **HYPER)
    _, act_key, target_key, *_ = jax.random.split(state.key, 5)
    actor, critic = state.params
    _, window = pg.rollout(
        act_key, actor, state.rollout, policy=tables.policy, env=env, env_params=env_params, num_steps=world.NUM_STEPS
    )
    edges = jnp.linspace(-4.0, 8.0, tables.NUM_BINS + 1)
    atoms = edges[:-1] + 0.5
    action, log_prob = tables.policy(actor, window.next_obs).sample_and_log_prob(target_key)
    q = pg.categorical_value(tables.logits(critic, window.next_obs, action)[0], atoms=atoms)
    y = window.reward + 0.99 * (1 - window.terminated) * (q - 0.2 * log_prob)
    wanted = pg.categorical_loss(
        tables.logits(critic, window.obs, window.action)[0], pg.hl_gauss_target(y, edges=edges, sigma=0.75)
    ).mean()
    np.testing.assert_allclose(loss[0], wanted, rtol=1e-5)
    assert abs(loss[1] - wanted) > 1e-3


def test_a_box_in_other_units_and_rewards_in_other_units_are_the_same_problem() -> None:
    """But for the rewards where they are not scaled."""
    middle, half = 0.5 * np.add(LOW, HIGH), 0.5 * np.subtract(HIGH, LOW)
    unit = lambda action: -jnp.sum(jnp.square((action - middle) / half - 0.3))  # noqa: E731
    plain = in_box((-1.0, -1.0), (1.0, 1.0), lambda action: -jnp.sum(jnp.square(action - 0.3)))
    hyper = HYPER | {"low_value": -10.0}
    wanted, metrics = plain(jax.random.key(0), **hyper)
    assert np.abs(wanted.params.actor).max() > 0.1
    state, found = in_box(LOW, HIGH, lambda action: 1e3 * unit(action))(jax.random.key(0), **hyper)
    np.testing.assert_allclose(state.params.actor, wanted.params.actor, rtol=1e-3, atol=1e-4)
    for name in ("loss", "entropy", "temperature", "multiplier"):
        np.testing.assert_allclose(found[name], metrics[name], rtol=1e-3, err_msg=name)
    state, _ = in_box(LOW, HIGH, lambda action: 1e3 * unit(action), normalize_rewards=False)(jax.random.key(0), **hyper)
    assert np.abs(state.params.actor - wanted.params.actor).max() > 0.01


def test_the_default_network_learns_a_place_within_bounds_of_their_own() -> None:
    goal = jnp.array([2.0, 2.1])
    env = boxes.Box(LOW, HIGH, lambda action: -jnp.sum(jnp.abs(action - goal) / jnp.array([4.0, 0.5])))
    model = pg.networks.default_actor_with_critics(
        env, env.default_params, head="tanh_normal", features=(16,), num_critics=1, num_outputs=21, layer_norm=True
    )
    sizes = {"num_envs": 16, "num_steps": 8, "num_bins": 21, "total_steps": 60 * 128, "num_minibatches": 4}
    recipe = reppo.make_train(env, env.default_params, model=model, **sizes)
    state, metrics = recipe(jax.random.key(0), discount=0.0, learning_rate=1e-2)
    action = recipe.policy(state.params, jnp.zeros((1, 2))).mode()[0]
    assert (np.abs(action - goal) < [0.4, 0.05]).all()  # a tenth of each width
    assert (metrics["num_nonfinite"] == 0).all()


def test_rewards_that_are_no_numbers_are_counted() -> None:
    recipe = in_box(LOW, HIGH, lambda action: jnp.where(action[0] > 1.0, jnp.nan, 0.0), normalize_rewards=False)
    assert recipe.update(recipe.init(jax.random.key(0)))[1]["num_nonfinite"] > 0


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_bins": 1}, ValueError, "num_bins must be at least 2"),
        ({"num_bins": 21.0}, TypeError, "num_bins must be a Python int"),
        ({"num_minibatches": 3}, ValueError, "num_minibatches=3 must divide the 32 rows"),
        ({"env": boxes.Box((-np.inf,), (1.0,))}, ValueError, "env must have bounded actions"),
        ({"env": gymnax.make("CartPole-v1")[0]}, TypeError, "env must have actions in a box"),
    ],
)
def test_bad_settings_are_named(change: Any, error: type, message: str) -> None:
    env = change.get("env", boxes.Box(LOW, HIGH))
    settings = {**BOX, "total_steps": 64, "env": env, "env_params": env.default_params, **change}
    with pytest.raises(error, match=message):
        reppo.make_train(**settings)
