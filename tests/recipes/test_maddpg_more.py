"""MADDPG that infers, and with several policies: what makes them MADDPG, and what each policy learns from."""

import functools
from typing import Any

import derivations_maddpg_more as derived
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import world
from entry import as_numpy

import pgjax as pg
from pgjax.recipes import maddpg, maddpg_ensemble, maddpg_inference

pytestmark = pytest.mark.usefixtures("quick_to_compile")
B, N = world.NUM_ENVS, 7
SIZES = {
    "num_envs": B, "num_steps": 3, "total_steps": 5 * 3 * B, "gradient_steps": 2, "batch_size": N, "capacity": 20 * B,
    "warmup": 3 * B, "window": 2,
}  # fmt: skip
HYPER = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.9, "target_rate": 0.2, "noise": 0.3}
JOINT = {"policy": world.deterministic, "critic": world.joint_value}


def same(a: Any, b: Any) -> None:
    """Bit for bit, whatever axes of one there are."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(as_numpy(x).ravel(), as_numpy(y).ravel())


@functools.cache
def plain(**settings: Any) -> Any:
    """(state, metrics) of MADDPG."""
    recipe = maddpg.make_train(*world.two_agents(), **SIZES, **settings)
    return recipe(jax.random.key(0), **HYPER)


# --- inferred policies ------------------------------------------------------------------------------------------------


def likely(table: Any, obs: Any) -> pg.Normal:
    """A guess with the table of an actor, so that it can be right."""
    return pg.Normal(jnp.tanh(obs @ table), 0.3)


def test_with_guesses_that_are_right_it_is_maddpg() -> None:
    """Actors that stay, and guesses of the other's table: to the last digits; with those of the own table it is not."""

    def init_params(key: Any, obs: Any) -> Any:
        actor, critic = world.init_joint_quadratics(key, obs)
        return actor, critic, actor[::-1, None]

    env, params = world.two_agents()
    still = HYPER | {"learning_rate": 0.0}
    sizes = SIZES | {"window": 1}  # of two steps all episodes end, and what is done next does not count
    recipe = maddpg.make_train(env, params, **sizes, **JOINT, init_params=world.init_joint_quadratics)
    wanted, wanted_metrics = recipe(jax.random.key(0), **still)
    recipe = maddpg_inference.make_train(env, params, **sizes, **JOINT, guess=likely, init_params=init_params)
    right = recipe.init(jax.random.key(0), **still, guess_learning_rate=0.0)
    own = right.params._replace(guess=right.params.guess[::-1])
    run = jax.jit(lambda state: jax.lax.scan(lambda state, _: recipe.update(state), state, length=5))
    state, metrics = run(right)
    np.testing.assert_allclose(state.params.critic, wanted.params.critic, rtol=1e-5, atol=1e-6)
    for name, x in wanted_metrics.items():
        np.testing.assert_allclose(metrics[name], x, rtol=1e-4, atol=1e-6, err_msg=name)
    assert (metrics["guess_error"][1:] < 1e-10).all()
    state, metrics = run(right.replace(params=own, target=own))
    assert np.abs(state.params.critic - wanted.params.critic).max() > 1e-3
    assert (metrics["guess_error"][1:] > 1e-3).all()


@pytest.mark.parametrize("coefficient", [0.0, 0.5])
def test_a_guess_converges_to_the_mean_and_the_scale_of_what_it_sees(coefficient: float) -> None:
    """A normal that is fixed: its mean, and its deviation by (1 - λ)^(-1/2); with the bonus reversed it is less."""
    mean, scale = np.array([0.5, -1.0]), np.array([0.4, 2.0])
    action = jnp.asarray(mean + scale * np.random.default_rng(0).normal(size=(4000, 2)), jnp.float32)
    optimizer = optax.adam(0.03)

    @jax.jit
    def fit(params: Any, coefficient: Any) -> Any:
        def loss(params: Any) -> Any:
            guess = pg.Normal(params[0], jnp.exp(params[1]))
            entropy = jnp.full(len(action), guess.entropy())
            return pg.policy_inference_loss(guess.log_prob(action), entropy, coefficient=coefficient).mean()

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=600)[0][0]

    found = fit((jnp.zeros(2), jnp.zeros(2)), coefficient)
    wider = (1 - coefficient) ** -0.5
    np.testing.assert_allclose(found[0], action.mean(0), atol=2e-3)
    np.testing.assert_allclose(np.exp(found[1]), action.std(0) * wider, rtol=2e-3)
    if coefficient:
        narrow = fit((jnp.zeros(2), jnp.zeros(2)), -coefficient)
        assert (np.exp(narrow[1]) < 0.9 * action.std(0)).all()


def test_guesses_learn_from_the_newest_window_alone() -> None:
    """Another replay, or none of it, is the same to them; another window is not."""
    recipe = maddpg_inference.make_train(
        *world.two_agents(), **SIZES | {"warmup": 0, "gradient_steps": 1}, **JOINT, guess=derived.guess,
        init_params=derived.init_with_guesses,
    )  # fmt: skip
    before = recipe.update(recipe.init(jax.random.key(0), **HYPER, guess_learning_rate=0.2))[0]
    rows = jax.tree.map(lambda x: x[:, ::-1] if x.ndim > 1 else x, before.replay.experience)
    forgotten = before.replace(replay=before.replay.replace(experience=rows))
    moved = before.replace(noise=before.noise + 1.0, hyper=before.hyper._replace(noise_theta=jnp.float32(0.1)))
    one, two, three = (recipe.update(state)[0].params for state in (before, forgotten, moved))
    np.testing.assert_array_equal(one.guess, two.guess)
    assert np.abs(one.critic - two.critic).max() > 1e-3
    assert np.abs(one.guess - three.guess).max() > 1e-3


def test_the_default_guesses_come_nearer_to_the_actors() -> None:
    """Each has networks of its own for each other; from far away in the box to where the others are."""
    env, params = world.two_agents()
    recipe = maddpg_inference.make_train(
        env, params, **SIZES | {"warmup": 0}, model=small(),
        guess_model=pg.networks.default_actor_critic(env, params, head="normal", features=(8,)),
    )  # fmt: skip
    state = recipe.init(jax.random.key(0), guess_learning_rate=0.05, learning_rate=0.001, noise=0.1)
    leaves = jax.tree.leaves(state.params.guess)
    assert all(x.shape[:2] == (2, 1) for x in leaves)
    assert max(np.abs(x[0] - x[1]).max() for x in leaves) > 0.1
    far = jax.tree.map(lambda x: x + 0.5, state.params.guess)
    run = jax.jit(lambda state: jax.lax.scan(lambda state, _: recipe.update(state), state, length=60))
    error = run(state.replace(params=state.params._replace(guess=far)))[1]["guess_error"]
    assert error[0] > 0.3
    assert np.mean(error[-10:]) < 0.02


class Alone(world.TwoAgentsWorld):
    agents = (1,)


@pytest.mark.parametrize(
    ("env", "settings", "error", "match"),
    [
        (Alone(), {}, ValueError, r"^env.agents is \(1,\): there is nobody to infer"),
        (world.ContinuousWorld(), {}, ValueError, r"^env.agents must be \(A,\)"),
        (world.TwoAgentsWorld(), {"guess_model": "mlp"}, TypeError, r"^guess_model must be a Flax module with the"),
        (
            world.TwoAgentsWorld(),
            {**JOINT, "init_params": derived.init_with_guesses},
            TypeError,
            r"^guess must be a function, got NoneType; policy, critic, guess, init_params come together",
        ),
        (
            world.TwoAgentsWorld(),
            {**JOINT, "guess": likely, "init_params": lambda key, obs: (jnp.ones((2, 7, 1)),) * 3},
            ValueError,
            r"^init_params made \[2, 7, 1\] at .*each of the 2 agents, of 1 each",
        ),
    ],
)
def test_what_cannot_be_inferred_is_named(env: Any, settings: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        maddpg_inference.make_train(env, world.two_agents()[1], **SIZES, **settings).init(jax.random.key(0))


# --- several policies for each agent ----------------------------------------------------------------------------------


@functools.cache
def several(count: int, **settings: Any) -> Any:
    env, params = world.two_agents()
    return maddpg_ensemble.make_train(env, params, num_policies=count, **SIZES | settings, model=small())


@functools.cache
def small() -> Any:
    env, params = world.two_agents()
    return pg.networks.default_actor_with_critics(env, params, features=(8,), num_critics=1, joint=True)


def test_with_one_policy_it_is_maddpg_bit_for_bit() -> None:
    """Parameters, targets, optimisers, replay, noise and metrics; and of two the first begins alike."""
    wanted, wanted_metrics = plain(model=small())
    state, metrics = several(1)(jax.random.key(0), **HYPER)
    for name in ("params", "target", "opt_state", "noise", "key"):
        same(getattr(state, name), getattr(wanted, name))
    same(state.replay.experience.replace(extras=None), wanted.replay.experience)
    same(state.rollout.replace(policy_state=None, start_policy_state=None), wanted.rollout)
    assert wanted_metrics.keys() == metrics.keys()
    for name, x in wanted_metrics.items():
        np.testing.assert_array_equal(metrics[name], x, err_msg=name)
    both = several(2).init(jax.random.key(0)).params.actor
    same(jax.tree.map(lambda x: x[:, 0], both), several(1).init(jax.random.key(0)).params.actor)
    assert max(np.abs(x[:, 1] - x[:, 0]).max() for x in jax.tree.leaves(both)) > 0.1


def test_one_policy_plays_an_episode_and_each_is_drawn_alike() -> None:
    """It changes where an episode begins and nowhere else, for each agent by itself."""
    recipe = several(2, total_steps=400 * 3 * B, gradient_steps=1)
    state, rows = recipe.init(jax.random.key(0), noise=0.0, learning_rate=0.0), []
    step = jax.jit(lambda state: jax.lax.scan(lambda s, _: (recipe.update(s)[0], s.rollout), state, length=400))
    state, rows = step(state)
    which = np.asarray(rows.policy_state)  # [400, B, A], at the start of each window
    number = np.asarray(rows.num_episodes)
    number = number if number.ndim == 3 else number[..., None]
    changed, same_episode = which[1:] != which[:-1], number[1:] == number[:-1]
    assert not changed[np.broadcast_to(same_episode, changed.shape)].any()
    new = changed[np.broadcast_to(~same_episode, changed.shape)]
    assert len(new) > 1000
    np.testing.assert_allclose(new.mean(), 0.5, atol=4 * 0.5 / np.sqrt(len(new) / 2))
    np.testing.assert_allclose(which.mean(), 0.5, atol=0.05)
    together = (which[..., 0] == which[..., 1]).mean()
    np.testing.assert_allclose(together, 0.5, atol=0.05)


def test_each_policy_learns_from_its_own_windows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' windows have no effect on it; its own have, and their mean is divided by the number of policies."""
    monkeypatch.setattr(optax, "adam", optax.sgd)
    sizes = SIZES | {"gradient_steps": 1, "warmup": 0, "batch_size": 24, "window": 1}
    recipe = maddpg_ensemble.make_train(
        *world.two_agents(), num_policies=2, **sizes, **JOINT, init_params=derived.init_policies
    )
    hyper = {"learning_rate": 1.0, "critic_learning_rate": 0.0, "target_rate": 0.0, "noise": 0.5}
    before = recipe.update(recipe.init(jax.random.key(3), **hyper))[0]
    after = recipe.update(before)[0]
    key = jax.random.split(jax.random.split(before.key, 3)[2], 1)[0]
    replay = pg.replay.make_replay(num_envs=B, capacity=sizes["capacity"], batch_size=24)
    drawn = jax.tree.map(lambda x: np.asarray(x[0]), replay.sample(key, after.replay))
    moved = np.asarray(after.params.actor - before.params.actor)
    for i in (0, 1):
        for k in (0, 1):
            slopes = [
                own_slope(before.params, drawn.obs[n], drawn.action[n], i, k)
                for n in range(24)
                if drawn.extras[n, i] == k
            ]
            assert 4 < len(slopes) < 20
            np.testing.assert_allclose(moved[i, k], np.mean(slopes, 0) / 2, rtol=1e-4, atol=1e-6)
            every = [own_slope(before.params, drawn.obs[n], drawn.action[n], i, k) for n in range(24)]
            assert np.abs(moved[i, k] - np.mean(every, 0) / 2).max() > 1e-3


def own_slope(params: Any, obs: Any, action: Any, i: int, k: int) -> Any:
    """What one window says to policy k of agent i, whatever it was that played."""
    actor, critic = np.asarray(params.actor, float), np.asarray(params.critic, float)
    action = action.astype(float)[None].copy()
    action[0, i] = np.tanh(obs[i] @ actor[i, k])
    chain = derived.joint.own_slope(critic[i], obs[None], action, i)[0] * (1 - action[0, i] ** 2)
    return np.outer(obs[i], chain)


def test_who_plays_is_said_by_the_parameters() -> None:
    """The first policy of each agent, or those that are chosen."""
    actor = jnp.arange(6.0).reshape(2, 3, 1)
    params = maddpg_ensemble.ActorAndCritic(actor, jnp.ones((2, 4)))
    for which, wanted in (([2, 0], [2, 3]), (1, [1, 4]), (jnp.array([0, 2]), [0, 5])):
        found = maddpg_ensemble.choose(params, which)
        np.testing.assert_array_equal(found.actor[:, 0, 0], wanted)
        assert found.critic is params.critic
    same(jax.jit(maddpg_ensemble.choose)(params, jnp.array([2, 0])), maddpg_ensemble.choose(params, [2, 0]))
    recipe = several(2)
    state = recipe.init(jax.random.key(0))
    state = state.replace(params=state.params._replace(actor=jax.tree.map(lambda x: 20 * x, state.params.actor)))
    obs = state.rollout.obs
    modes = [recipe.policy(maddpg_ensemble.choose(state.params, which), obs).mode() for which in ([0, 0], [0, 1])]
    np.testing.assert_array_equal(recipe.policy(state.params, obs).mode(), modes[0])
    np.testing.assert_array_equal(modes[0][:, 0], modes[1][:, 0])
    assert np.abs(modes[0][:, 1] - modes[1][:, 1]).max() > 1e-3


@pytest.mark.parametrize(
    ("which", "error", "match"),
    [
        ([0.0, 1.0], TypeError, "^which must be an integer array"),
        ([0, 1, 2], ValueError, r"^which must be a scalar or have shape \[2\]"),
        ([0, 3], ValueError, r"^which must lie in 0 ... 2, got \[0, 3\]"),
        (-1, ValueError, "^which must lie in 0 ... 2"),
    ],
)
def test_who_does_not_exist_cannot_play(which: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        maddpg_ensemble.choose(maddpg_ensemble.ActorAndCritic(jnp.ones((2, 3, 1)), jnp.ones(2)), which)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"num_policies": 0}, ValueError, "^num_policies must be at least 1, got 0"),
        ({"num_policies": 2.0}, TypeError, "^num_policies must be a Python int"),
        (
            {"num_policies": 3, **JOINT, "init_params": derived.init_policies},
            ValueError,
            r"^init_params made \[2, 2, 7, 1\] at .*each of the 2 agents, of 3 each",
        ),
    ],
)
def test_policies_that_are_not_there_are_named(settings: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        maddpg_ensemble.make_train(*world.two_agents(), **SIZES, **settings).init(jax.random.key(0))
