"""What defines the actor-critics that learn at each step, and the off-policy one.

The entries of the table have dutch traces and steps weighted by γ^t; the plain forms are followed here.
"""

import dataclasses
import functools
import itertools
from typing import Any

import derivations_online
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import world
from entry import FUNCTIONS, Subject, as_data, window
from table import RECIPES, subject

import pgjax as pg
from pgjax import exact, networks
from pgjax.recipes import a2c, average_reward_actor_critic, eligibility_traces, off_pac, one_step_actor_critic

pytestmark = pytest.mark.usefixtures("quick_to_compile")
STEP = {"num_envs": world.NUM_ENVS, "num_steps": 1, "total_steps": 40 * world.NUM_ENVS}


def assert_same(a: Any, b: Any, rtol: float = 1e-5) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_with_an_exact_critic_and_the_weight_the_expected_one_step_gradient_is_that_of_the_objective() -> None:
    """Over every trajectory of an episodic process; without the weight γ^t it is not."""
    mdp = exact.alias_offpolicy()[0].replace(discount=0.7)
    logits = np.random.default_rng(0).normal(size=(4, 2))
    probs = jax.nn.softmax(logits)
    batch, weights = exact.trajectories(mdp, probs, 2)
    params = world.Tables(jnp.asarray(logits), exact.value(mdp, probs))

    def expected(step_weight: Any) -> np.ndarray:
        grads, _ = pg.actor_critic.per_trajectory(
            params, batch, policy=world.policy, value=world.value, discount=0.7, lam=0.0, step_weight=step_weight
        )
        return -np.einsum("n,nsa->sa", weights, grads.actor)

    truth = np.asarray(exact.policy_gradient(mdp, logits))
    np.testing.assert_allclose(expected(pg.discount_weight(batch.step, 0.7)), truth, atol=1e-13)
    assert np.abs(expected(None) - truth).max() > 0.01


def test_without_the_weight_a_step_is_that_of_a2c_over_one_step() -> None:
    """With λ = 0, observations and rewards normalised: after each of several steps, both kinds of end among them."""
    both = {"normalize_observations": True, "normalize_rewards": True}
    recipes = [x.make_train(*world.world(), **STEP, **FUNCTIONS, **both) for x in (one_step_actor_critic, a2c)]
    hyper = {"learning_rate": 0.05, "entropy_coef": 0.1, "anneal": 0.5}
    one, other = recipes[0].init(jax.random.key(2), **hyper), recipes[1].init(jax.random.key(2), lam=0.0, **hyper)
    for _ in range(8):
        (one, metrics), (other, more) = recipes[0].update(one), recipes[1].update(other)
        assert_same(one.params, other.params)
        assert_same(metrics, {name: more[name] for name in metrics})
    assert one.rollout.num_episodes.sum() > 8


@pytest.mark.parametrize(
    "module", [one_step_actor_critic, average_reward_actor_critic], ids=lambda x: x.__name__.rpartition(".")[2]
)
def test_one_update_is_so_many_steps_after_each_other(module: Any) -> None:
    env, env_params = world.world()
    sizes = {**STEP, **FUNCTIONS}
    single = module.make_train(env, env_params, **sizes)
    several = module.make_train(env, env_params, **{**sizes, "num_steps": 4})
    state, rows = single.init(jax.random.key(3), anneal=0.0), []
    for _ in range(4):
        state, metrics = single.update(state)
        rows.append(metrics)
    together, metrics = several.update(several.init(jax.random.key(3), anneal=0.0))
    assert_same((state.params, state.rollout), (together.params, together.rollout))
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(together.key))
    assert int(together.update) == 1
    np.testing.assert_allclose(metrics["loss"], np.mean([row["loss"] for row in rows]), rtol=1e-5)


@functools.cache
def plain_traces() -> Subject:
    """Accumulating traces without γ^t, and rewards that are scaled."""
    entry = RECIPES["eligibility_traces"]
    return Subject(dataclasses.replace(entry, settings={"normalize_rewards": True}, derive=derivations_online.traces))


@pytest.mark.parametrize("name", ["eligibility_traces", "plain_traces", "average_reward_actor_critic", "off_pac"])
def test_a_run_over_many_ends_is_that_of_the_paper(name: str) -> None:
    """Ten updates: what is carried from step to step is cut where it must be, and bootstrapped before."""
    run = plain_traces() if name == "plain_traces" else subject(name)
    state, memory, ends = run.start(), None, np.zeros(2)
    for i in range(10):
        before = run.lane(state, "base")
        keys = jax.vmap(jax.random.split)(state.key)
        _, rollout, trajectory = run.lane(window(run.entry)(keys, state), "base")
        state, metrics = run.update(state)
        after = run.lane(state, "base")
        if name == "plain_traces":
            scale = pg.envs.update_reward_scale(
                before.reward_scale, trajectory.reward, done=trajectory.terminated | trajectory.truncated, discount=0.9
            )
            assert_same(after.reward_scale, scale)
            trajectory = trajectory.replace(reward=np.asarray(pg.envs.scale_reward(scale, trajectory.reward)))
        tables = (before.params.actor, before.params.critic)
        memory = run.entry.memory(tables) if memory is None else memory
        data = as_data(trajectory)
        data.following = rollout.obs
        progress = i / run.entry.num_updates
        tables, memory, wanted = run.entry.derive(tables, memory, data, before.hyper._asdict(), progress)
        np.testing.assert_allclose(after.params.actor, tables[0], rtol=1e-3, atol=5e-6)
        np.testing.assert_allclose(after.params.critic, tables[1], rtol=1e-3, atol=5e-6)
        for key, x in wanted.items():
            np.testing.assert_allclose(run.lane(metrics, "base")[key], x, rtol=1e-3, atol=5e-6, err_msg=key)
        ends += trajectory.terminated.sum(), trajectory.truncated.sum()
    assert (ends >= 6).all()


def test_in_a_continuing_task_the_best_average_reward_is_reached() -> None:
    """In the process of two states, half of the environments cut every three steps: nothing that is learned notices."""
    mdp = exact.two_state()
    env = exact.TabularEnvironment(mdp)
    limits = jnp.where(jnp.arange(32) % 2 == 0, 3, 10**6)
    recipe = average_reward_actor_critic.make_train(
        env, env.default_params.replace(time_limit=limits), num_envs=32, num_steps=100, total_steps=32 * 6000,
        policy=world.policy, value=world.value, init_params=lambda key: world.Tables(jnp.zeros((2, 2)), jnp.zeros(2)),
    )  # fmt: skip
    state, metrics = recipe(
        jax.random.key(0), learning_rate=0.01, average_rate=0.002, lam=0.5, critic_lam=0.5, entropy_coef=0.0
    )
    deterministic = [np.eye(2)[list(actions)] for actions in itertools.product(range(2), repeat=2)]
    averages = [float(exact.average_reward(mdp, probs)) for probs in deterministic]
    probs = jax.nn.softmax(state.params.actor)
    assert sorted(averages)[-1] - sorted(averages)[-2] > 0.1
    assert float(exact.average_reward(mdp, probs)) > max(averages) - 0.01
    np.testing.assert_allclose(state.average_reward, max(averages), atol=0.02)
    np.testing.assert_array_equal(metrics["average_reward"][-1], state.average_reward)
    value = np.asarray(exact.differential_value(mdp, probs))
    critic = np.asarray(state.params.critic)
    np.testing.assert_allclose(critic[1] - critic[0], value[1] - value[0], rtol=0.05)


def test_emphatic_weights_reach_the_optimum_from_which_the_semi_gradient_goes_away() -> None:
    """With λ_a = 1 and 0 in one program. Two states share what is learned; the behaviour avoids the better of them."""
    mdp, aliased = exact.alias_offpolicy()
    env = exact.TabularEnvironment(mdp)
    first, behaviour = np.log([0.9, 0.1]), np.array([0.25, 0.75])  # the policy in state 0; the behaviour anywhere
    shared = jnp.array([[0.0], [1.0], [1.0], [0.0]])
    of_first = jnp.outer(jnp.array([1.0, 0.0, 0.0, 0.0]), first)
    recipe = off_pac.make_train(
        env, env.default_params, num_envs=64, num_steps=4, total_steps=64 * 4 * 200, emphatic=True,
        behaviour=lambda params, obs: pg.Categorical(jnp.broadcast_to(jnp.log(behaviour), (*obs.shape[:-1], 2))),
        policy=lambda params, obs: pg.Categorical(obs @ (of_first + shared * params.actor)),
        value=world.value, init_params=lambda key: world.Tables(jnp.zeros((1, 2)), jnp.zeros(4)),
        normalize_rewards=False,
    )  # fmt: skip
    hyper = {"learning_rate": 0.05, "discount": 1.0, "entropy_coef": 0.0}
    states, _ = jax.vmap(lambda lam: recipe(jax.random.key(0), emphatic_lam=lam, **hyper))(jnp.array([1.0, 0.0]))
    visits = np.append(np.asarray(exact.visitation(mdp, np.tile(behaviour, (4, 1))))[:3], 0.0) / 2

    def objective(logits: Any) -> float:
        return float(exact.excursion_objective(mdp, aliased(jnp.stack([jnp.asarray(first), logits])), visits))

    best, worst = (objective(1e3 * np.eye(2)[a]) for a in range(2))
    emphatic, semi = (objective(states.params.actor[i, 0]) for i in range(2))
    np.testing.assert_allclose([best, objective(np.zeros(2)), worst], [1.15, 0.7875, 0.425], rtol=1e-6)
    assert emphatic > best - 0.02
    assert semi < worst + 0.02


def test_without_a_temperature_the_ratio_is_one_and_without_emphasis_the_trace_is_left_out() -> None:
    run = subject("off_pac")
    for state in (run.start(), run.first[1], run.second[1]):
        metrics = run.lane(run.update(state)[1], "behaviour_temperature", 1.0)
        np.testing.assert_allclose(metrics["ratio_max"], 1.0, atol=1e-6)
        assert run.lane(run.update(state)[1], "base")["ratio_max"] > 1.01
    plain = RECIPES["off_pac"].make(emphatic=False)
    state, _ = plain.update(plain.init(jax.random.key(7), **run.lanes["emphatic_lam", 0.0]))
    np.testing.assert_allclose(state.params.actor, run.lane(run.first[1].params, "emphatic_lam", 0.0).actor, atol=1e-6)
    np.testing.assert_array_equal(state.followed, 0.0)
    assert (np.asarray(run.first[1].followed) > 0).any()


@pytest.mark.parametrize("module", [one_step_actor_critic, eligibility_traces, average_reward_actor_critic])
def test_noise_is_held_over_the_steps_of_an_update(module: Any) -> None:
    """An episode of six steps that earns 1 or -1 in each: held for six it earns all or nothing, for three a half."""
    env, seen = probes.Probe("action", length=6), {}
    functions: Any = {
        "value": lambda params, obs: 0.0 * obs[..., 0] * params,
        "init_params": lambda key, obs: jnp.float32(1.0),
    }

    def uniform(params: Any, obs: Any, *, hold: int) -> pg.exploration.HeldCategorical:
        return pg.exploration.HeldCategorical(params * jnp.zeros((*obs.shape[:-1], 2)), hold=hold)

    for hold in (1, 3, 6):
        functions["policy"] = functools.partial(uniform, hold=hold)
        recipe = module.make_train(
            env, env.default_params, num_envs=64, num_steps=6, total_steps=3 * 6 * 64, **functions
        )
        state, _ = recipe.update(recipe.init(jax.random.key(1), learning_rate=0.0))
        after, _ = recipe.update(state)
        seen[hold] = {float(x) for x in state.rollout.episode_return}
        assert (np.asarray(state.rollout.episode_return) != np.asarray(after.rollout.episode_return)).any()
    assert seen[6] == {-6.0, 6.0}
    assert seen[3] == {-6.0, 0.0, 6.0}
    assert {-4.0, -2.0, 0.0, 2.0, 4.0} <= seen[1]


def test_settings_that_make_no_sense_are_named() -> None:
    env, env_params = world.world()
    with pytest.raises(ValueError, match='traces must be "accumulating" or "dutch", got \'replacing\''):
        eligibility_traces.make_train(env, env_params, traces="replacing", **STEP, **FUNCTIONS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"behaviour must be a function of \(params, obs\) or None, got int"):
        off_pac.make_train(env, env_params, behaviour=3, **STEP, **FUNCTIONS)  # type: ignore[arg-type]
    model = networks.default_recurrent_actor_critic(env, env_params)
    for module in (eligibility_traces, average_reward_actor_critic, off_pac):
        with pytest.raises(TypeError, match="this recipe takes feed-forward policies only"):
            module.make_train(env, env_params, model=model, **STEP)
