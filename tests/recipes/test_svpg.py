"""A population of policies: what one particle is, which one acts, and what keeps them apart."""

from typing import Any

import derivations_population as population
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from entry import FUNCTIONS
from table import RECIPES, subject

import pgjax as pg
from pgjax.recipes import svpg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS, "total_steps": 3 * world.NUM_ENVS * world.NUM_STEPS}


def test_identity_29_one_particle_without_a_prior_is_reinforce() -> None:
    """At any temperature: it has nobody to keep away from. Against the estimator on the same window."""
    env, env_params = world.world()
    functions = {name: x for name, x in FUNCTIONS.items() if name != "value"}
    recipe = svpg.make_train(env, env_params, **SIZES, num_particles=1, critic=False, **functions)
    before = recipe.init(jax.random.key(2), temperature=5.0, learning_rate=0.1, max_grad_norm=jnp.inf, anneal=0.0)
    after, metrics = recipe.update(before)
    params, start = (jax.tree.map(lambda x: x[0], tree) for tree in (before.particles, before.rollout))
    key = jax.random.split(jax.random.split(before.key)[1], 1)[0]
    _, trajectory = pg.rollout(
        key, params, start, policy=world.policy, env=env, env_params=env_params, num_steps=world.NUM_STEPS
    )
    grads, info = pg.reinforce(params, trajectory, policy=world.policy, discount=0.99, baseline=pg.leave_one_out)
    step = -0.1 * grads.actor / (np.abs(grads.actor) + 1e-5)  # the first of Adam
    np.testing.assert_allclose(after.params.actor - params.actor, step, atol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], info.grad_norm, rtol=1e-4)
    np.testing.assert_array_equal(after.params.critic, params.critic)
    assert float(metrics["spread"]) == 0.0


def test_the_particle_that_acts_is_the_one_that_returned_most() -> None:
    """Whichever it is; but not one whose environments have not all finished an episode, and the first if none has."""
    env, env_params = world.world()
    kind = jnp.full(world.NUM_ENVS, world.CHOICE).at[0].set(world.ENDLESS)
    rows = env_params.replace(kind=kind, max_steps_in_episode=jnp.full(world.NUM_ENVS, 10**6))  # one never ends
    sizes = {**SIZES, "total_steps": 3 * SIZES["total_steps"]}
    recipe = svpg.make_train(env, rows, **sizes, num_particles=3, **FUNCTIONS)
    start = recipe.init(jax.random.key(0), learning_rate=0.0)
    bad, good = jnp.array([9.0, -9.0]), jnp.array([-9.0, 9.0])
    for best in range(3):
        actor = start.particles.actor.at[:, world.CHOICE_CELL].set(bad).at[best, world.CHOICE_CELL].set(good)
        state = start.replace(particles=start.particles._replace(actor=actor))
        after, metrics = recipe.update(state)
        np.testing.assert_array_equal(after.params.actor, actor[0])
        assert np.isnan(metrics["best_return"])
        told = state.rollout.episode_return.at[:, 0].set(0.0)  # an episode that the endless one finished before
        after, metrics = recipe.update(state.replace(rollout=state.rollout.replace(episode_return=told)))
        np.testing.assert_array_equal(after.params.actor, actor[best])
        np.testing.assert_allclose(metrics["best_return"], 7 / 8, rtol=1e-6)
        np.testing.assert_allclose(metrics["episode_return"], -7 / 8 / 3, rtol=1e-5)
        told = told.at[best, 0].set(jnp.nan)
        after, metrics = recipe.update(state.replace(rollout=state.rollout.replace(episode_return=told)))
        np.testing.assert_array_equal(after.params.actor, actor[1 if best == 0 else 0])
        np.testing.assert_allclose(metrics["best_return"], -7 / 8, rtol=1e-6)


def test_particles_keep_apart_at_a_temperature_and_meet_without_one() -> None:
    """The distance between two policies that stand close, after some updates; the negative control is α = 0."""
    run = subject("svpg")
    spread = {}
    for lane in (("temperature", 0.0), ("temperature", 3.0)):
        before, after = (run.lane(x.particles, *lane).actor for x in (run.start(), run.first[1]))
        spread[lane[1]] = [np.sqrt(np.var(x, axis=0).sum()) for x in (before, after)]
    assert spread[0.0][1] < spread[3.0][1]
    assert spread[3.0][1] > spread[3.0][0]


@pytest.mark.parametrize("jitted", [False, True])
def test_leaves_that_a_policy_reads_are_found_by_tracing(jitted: bool) -> None:
    def both(params: Any, obs: Any) -> Any:
        hidden = jnp.tanh(obs @ params["trunk"])
        return pg.Categorical(hidden @ params["actor"]), (hidden @ params["critic"])[..., 0]

    policy = jax.jit(both) if jitted else both
    params = {"trunk": jnp.ones((3, 2)), "actor": jnp.ones((2, 2)), "critic": jnp.ones((2, 1))}
    wanted = {"trunk": True, "actor": True, "critic": False}
    assert pg.recipes.read_by(policy, params, jnp.ones((4, 3))) == wanted
    read, rest = pg.recipes.partition(params, wanted)
    assert (read["critic"], rest["trunk"], rest["actor"]) == (None, None, None)
    assert jax.tree.all(jax.tree.map(lambda x, y: x is y, pg.recipes.combine(read, rest), params))

    def recurrent(params: Any, obs: Any, memory: Any) -> Any:
        after = jnp.tanh(memory + obs @ params["trunk"])
        return pg.Categorical(memory @ params["actor"]), (after @ params["critic"])[..., 0], after

    assert pg.recipes.read_by(recurrent, params, jnp.ones((4, 3)), policy_state=jnp.ones((4, 2))) == wanted


def test_the_default_network_has_a_critic_of_its_own() -> None:
    import gymnax

    env, env_params = gymnax.make("CartPole-v1")
    functions = pg.recipes.as_functions(env, env_params, num_envs=2)
    params = functions.init_params(jax.random.key(0), jnp.zeros((2, 4)), None)
    read = pg.recipes.read_by(functions.policy, params, jnp.zeros((2, 4)))["params"]
    assert {name: set(jax.tree.leaves(part)) for name, part in read.items()} == {
        "actor": {True},
        "critic": {False},
        "head": {True},
    }


def test_the_number_of_particles_is_checked() -> None:
    with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
        RECIPES["svpg"].make(num_particles=0)
    with pytest.raises(ValueError, match=r"temperature must lie in \[0, inf\), got -1"):
        RECIPES["svpg"].make().init(jax.random.key(0), temperature=-1.0)
    assert RECIPES["svpg"].members == population.NUM_PARTICLES
