"""MADDPG: what makes it DDPG, whose action is fresh, and that agents have no order."""

import functools
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import world
from entry import as_numpy

import pgjax as pg
from pgjax.recipes import ddpg, maddpg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
B, N = world.NUM_ENVS, 8
SIZES = {
    "num_envs": B, "num_steps": 2, "total_steps": 4 * 2 * B, "gradient_steps": 2, "batch_size": N, "capacity": 20 * B,
    "warmup": 2 * B,
}  # fmt: skip
HYPER = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "target_rate": 0.2, "noise": 0.3}


class Lonely(world.ContinuousWorld):
    """The continuous world for one agent, with the axis of agents."""

    agents = (1,)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, after, reward, *rest = super().step_env(key, state, action[0], params)
        return obs, after, reward[None], *rest

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Any:
        return super().get_obs(state, params)[None]


def drop(tree: Any, axis: int) -> Any:
    return jax.tree.map(lambda x: as_numpy(x).squeeze(axis), tree)


@functools.cache
def run(module: Any, env: Any, **settings: Any) -> Any:
    """(state after four updates, metrics [4])."""
    params = world.continuous()[1]
    return module.make_train(env, params, **SIZES, **settings)(jax.random.key(0), **HYPER)


@pytest.mark.parametrize("centralized", [True, False])
def test_identity_30_with_one_agent_it_is_ddpg(centralized: bool) -> None:
    """The same numbers throughout: parameters, targets, Adam's memory, replay, noise, metrics, warm-up and all."""
    alone, wanted = run(
        ddpg, world.ContinuousWorld(), policy=world.deterministic, critic=world.action_value,
        init_params=world.init_quadratics,
    )  # fmt: skip

    def init_params(key: Any, obs: Any) -> Any:
        return jax.tree.map(lambda x: x[None], world.init_quadratics(key, obs))

    def joint(critic: Any, obs: Any, action: Any) -> Any:
        return world.action_value(critic, obs[..., 0, :], action[..., 0, :])

    state, metrics = run(
        maddpg, Lonely(), policy=world.deterministic, critic=joint if centralized else world.action_value,
        init_params=init_params, centralized=centralized,
    )  # fmt: skip
    assert np.isnan(metrics["loss"][0])
    assert np.isfinite(metrics["loss"][1:]).all()
    for name, x in wanted.items():
        np.testing.assert_allclose(metrics[name], x, rtol=1e-6, err_msg=name)
    same = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    for name in ("params", "target", "opt_state"):
        jax.tree.map(same, drop(getattr(state, name), 0), jax.tree.map(as_numpy, getattr(alone, name)))
    for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated"):
        same(drop(getattr(state.replay.experience, name), 2), getattr(alone.replay.experience, name))
    same(drop(state.noise, 1), alone.noise)
    np.testing.assert_array_equal(as_numpy(state.key), as_numpy(alone.key))


# Of each agent the weights of a_0², a_1² and a_0 a_1 in its value: Q_i = -a_i² + 2 a_i a_j.
GAME = jnp.array([[-1.0, 0.0, 2.0], [0.0, -1.0, 2.0]])


def of_game(weights: Any, obs: Any, action: Any) -> Any:
    a, b = action[..., 0, 0], action[..., 1, 0]
    return (weights[0] * a**2 + weights[1] * b**2 + weights[2] * a * b)[None]


def constant(actor: Any, obs: Any) -> Any:
    return pg.exploration.Deterministic(jnp.broadcast_to(actor, (*obs.shape[:-1], 1)))


def test_the_own_action_is_fresh_and_the_others_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slope at the batch is -2 a_i + 2 a_j: a_i of the actor now, a_j of the actor and its noise then."""
    monkeypatch.setattr(optax, "adam", optax.sgd)
    sizes = SIZES | {"gradient_steps": 1, "total_steps": 4 * B, "num_steps": 4, "warmup": 0}
    env, params = world.two_agents()
    start = jnp.array([[0.2], [-0.4]])
    recipe = maddpg.make_train(
        env, params, **sizes, policy=constant, critic=of_game, init_params=lambda key, obs: (start, GAME)
    )
    before = recipe.init(jax.random.key(0), learning_rate=0.1, critic_learning_rate=0.0, noise=0.5)
    after, metrics = recipe.update(before)
    replay = pg.replay.make_replay(num_envs=B, capacity=sizes["capacity"], batch_size=N)
    key = jax.random.split(jax.random.split(before.key, 3)[2], 1)[0]
    replayed = np.asarray(replay.sample(key, after.replay).action)[0, ..., 0]
    fresh = np.array([0.2, -0.4])
    slope = np.array([-2 * fresh[i] + 2 * replayed[:, 1 - i].mean() for i in (0, 1)])
    np.testing.assert_allclose(after.params.actor[:, 0] - fresh, 0.1 * slope, rtol=1e-4)
    np.testing.assert_array_equal(after.params.critic, GAME)
    value = [(-(fresh[i] ** 2) + 2 * fresh[i] * replayed[:, 1 - i]).mean() for i in (0, 1)]
    np.testing.assert_allclose(metrics["actor_loss"], -np.mean(value), rtol=1e-5)
    all_fresh = -2 * fresh + 2 * fresh[::-1]
    all_replayed = np.array([(-2 * replayed[:, i] + 2 * replayed[:, 1 - i]).mean() for i in (0, 1)])
    assert np.abs(slope - all_fresh).min() > 0.02
    assert np.abs(slope - all_replayed).min() > 0.02


class Renumbered(world.TwoAgentsWorld):
    """The same, the second agent first."""

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, after, reward, *rest = super().step_env(key, state, action[::-1], params)
        reward = jnp.broadcast_to(reward, (2,))[::-1]
        return obs, after, reward, *rest

    def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Any:
        return super().get_obs(state, params)[::-1]


def test_agents_have_no_order() -> None:
    """Renumbered, with their parameters and what their critics read first, they learn the same."""
    sizes = SIZES | {"warmup": 0}
    params = world.two_agents()[1]

    def reversed_init(key: Any, obs: Any) -> Any:
        return jax.tree.map(lambda x: x[::-1], world.init_joint_quadratics(key, obs))

    def reversed_value(critic: Any, obs: Any, action: Any) -> Any:
        return world.joint_value(critic, obs[..., ::-1, :], action[..., ::-1, :])

    ends = [
        maddpg.make_train(env, params, **sizes, policy=world.deterministic, critic=critic, init_params=init)(
            jax.random.key(0), **HYPER | {"noise": 0.0}
        )
        for env, critic, init in (
            (world.TwoAgentsWorld(), world.joint_value, world.init_joint_quadratics),
            (Renumbered(), reversed_value, reversed_init),
        )
    ]
    (state, metrics), (other, same) = ends
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(x, y[::-1], rtol=1e-5, atol=1e-6)
        assert np.abs(x - y).max() > 0.1
    for name, x in metrics.items():
        np.testing.assert_allclose(x, same[name], rtol=1e-5, err_msg=name)


def test_independent_critics_see_their_own_agent_only() -> None:
    """They are joint critics that look at one row; and what a joint critic sees of the others counts."""
    env, params = world.two_agents()

    def init_own(key: Any, obs: Any) -> Any:
        own = [world.init_quadratics(each, obs) for each in jax.random.split(key)]
        return jax.tree.map(lambda *x: jnp.stack(x), *own)

    def init_indexed(key: Any, obs: Any) -> Any:
        actor, critic = init_own(key, obs)
        return actor, (critic, jnp.arange(2.0))

    def indexed(critic: Any, obs: Any, action: Any) -> Any:
        i = critic[1].astype(int)
        return world.action_value(critic[0], jnp.take(obs, i, axis=-2), jnp.take(action, i, axis=-2))

    def make(**settings: Any) -> Any:
        recipe = maddpg.make_train(env, params, **SIZES, policy=world.deterministic, **settings)
        return recipe(jax.random.key(0), **HYPER)[0].params

    own = make(critic=world.action_value, init_params=init_own, centralized=False)
    looks = make(critic=indexed, init_params=init_indexed)
    np.testing.assert_allclose(own.actor, looks.actor, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.critic, looks.critic[0], rtol=1e-5, atol=1e-6)


class Wide(world.TwoAgentsWorld):
    """Two components of the action, of which the first counts, in a box of unequal sides."""

    def action_space(self, params: Any = None) -> Any:
        return gymnax.environments.spaces.Box(jnp.array([-1.0, 3.0]), jnp.array([1.0, 7.0]), (2,))


@pytest.mark.parametrize(("centralized", "inputs"), [(True, 2 * (world.NUM_CELLS + 2)), (False, world.NUM_CELLS + 2)])
def test_the_default_networks_are_one_for_each_agent(centralized: bool, inputs: int) -> None:
    """Critics read the rows of all agents, or of one."""
    recipe = maddpg.make_train(Wide(), world.two_agents()[1], **SIZES, centralized=centralized)
    params = jax.eval_shape(recipe.init, jax.random.key(0)).params
    kernels = [
        [x.shape for path, x in jax.tree_util.tree_leaves_with_path(tree) if "kernel" in jax.tree_util.keystr(path)]
        for tree in params
    ]
    assert kernels[0][0] == (2, world.NUM_CELLS, 128)
    assert (2, 1, inputs, 128) in kernels[1]


def test_a_model_is_made_for_each_agent_and_all_actions_lie_in_the_box() -> None:
    """Random ones and others, in bounds of their own for each component."""
    env, params = Wide(), world.two_agents()[1]
    model = pg.networks.default_actor_with_critics(env, params, features=(4,), num_critics=1, joint=True)
    recipe = maddpg.make_train(env, params, **SIZES, model=model)
    state = recipe.init(jax.random.key(0), noise=0.5)
    for path, x in jax.tree_util.tree_leaves_with_path(state.params):
        assert ("kernel" in jax.tree_util.keystr(path)) == (np.abs(x[0] - x[1]).max() > 0), path
    obs = jnp.stack([state.rollout.obs] * 3)
    modes = recipe.policy(state.params, obs).mode()
    assert modes.shape == (3, B, 2, 2)
    for i in (0, 1):
        own = model.apply(jax.tree.map(lambda x: x[i], state.params.actor), obs[..., i, :], method="policy")  # noqa: B023
        np.testing.assert_allclose(modes[..., i, :], own.mode(), rtol=1e-5)
    start = state.params
    state, _ = recipe.update(state)
    jax.tree.map(np.testing.assert_array_equal, state.params, start)  # acts at random and learns nothing
    state, _ = recipe.update(state)
    assert np.abs(jax.tree.leaves(state.params)[0] - jax.tree.leaves(start)[0]).max() > 0
    action = np.asarray(state.replay.experience.action)
    for rows in (action[:, :2], action[:, 2:4]):
        assert (rows >= [-1.0, 3.0]).all()
        assert (rows <= [1.0, 7.0]).all()
        assert (np.ptp(rows, axis=(0, 1)) > [0.5, 1.0]).all()


@pytest.mark.parametrize(
    ("env", "settings", "error", "match"),
    [
        (world.ContinuousWorld(), {}, ValueError, r"^env.agents must be \(A,\), one axis of agents, got \(\)"),
        (world.World(), {}, ValueError, r"^env.agents must be"),
        (
            world.TwoAgentsWorld(),
            {"policy": constant, "critic": of_game, "init_params": lambda key, obs: (jnp.ones((2, 1)), jnp.ones(3))},
            ValueError,
            r"^init_params made \[3\] at .*a row for each of the 2 agents",
        ),
    ],
)
def test_what_has_no_agents_is_named(env: Any, settings: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        maddpg.make_train(env, world.two_agents()[1], **SIZES, **settings).init(jax.random.key(0))
