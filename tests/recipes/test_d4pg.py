"""D4PG: its targets, its limit in DDPG, what importance weights undo, its warm-up and its default networks."""

import dataclasses
from typing import Any

import derivations_d4pg
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from derivations import flat
from entry import as_numpy
from gymnax.environments import spaces
from table import RECIPES
from table_replay import SUPPORT

import pgjax as pg
from pgjax.recipes import d4pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
ENTRY = RECIPES["d4pg"]


class Recorded:
    """A small run, with what each of its targets is made of: (reward, discount, next_probs, atoms, target)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        function, self.made = pg.categorical_target, []

        def recorded(transition: Any, next_probs: Any, *, atoms: Any) -> Any:
            target = function(transition, next_probs, atoms=atoms)
            parts = (transition.reward, transition.discount, next_probs, atoms, target)
            jax.debug.callback(lambda *x: self.made.append([np.asarray(part, np.float64) for part in x]), *parts)
            return target

        monkeypatch.setattr(pg, "categorical_target", recorded)
        env, env_params = world.continuous()  # rewards of 1 and -1 alone
        kind = jnp.where(env_params.kind == world.CHOICE, world.LOTTERY, env_params.kind)
        sizes = {"num_envs": world.NUM_ENVS, "num_steps": 5, "total_steps": 40, "gradient_steps": 2, "batch_size": 32}
        sizes |= {"warmup": 0, "window": 1, "num_atoms": derivations_d4pg.NUM_ATOMS}
        self.recipe = d4pg.make_train(env, env_params.replace(kind=kind), **sizes, **derivations_d4pg.FUNCTIONS)

    def __call__(self, critic: Any = None, **hyper: float) -> Any:
        """The parts of all targets of an update from a critic, rows of both gradient steps."""
        state = self.recipe.init(jax.random.key(0), critic_learning_rate=0.0, **hyper)
        if critic is not None:
            state = state.replace(
                params=state.params._replace(critic=critic), target=state.target._replace(critic=critic)
            )
        self.made.clear()
        self.recipe.update(state)
        jax.effects_barrier()
        assert len(self.made) == 2
        reward, discount, probs, _, target = (np.concatenate(x) for x in zip(*self.made, strict=True))
        return reward, discount, probs, self.made[0][3], target


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return Recorded(monkeypatch)


def test_identities_27_and_30_the_target_is_that_of_ddpg(targets: Recorded) -> None:
    """The mass is 1. The mean is R + Γ Q while the atoms hold it. A point mass that lands on an atom stays one."""
    for high, holds in ((9.0, True), (0.5, False)):
        reward, discount, probs, atoms, target = targets(low_value=-high, high_value=high, discount=0.8)
        np.testing.assert_allclose(atoms, np.linspace(-high, high, 7), rtol=1e-6)
        np.testing.assert_allclose(target.sum(-1), 1.0, rtol=1e-6)
        error = np.abs(target @ atoms - (reward + discount * (probs @ atoms)))
        assert (error.max() < 1e-5) == holds
    at = jnp.array([5, 3, 5, 5, 1, 1, 3])  # the atom of each cell: 1, 0, 1, 1, -1, -1 and 0
    critic = 1e4 * jax.nn.one_hot(at, 7)[None, :, None] * jnp.array([1.0, 0.0, 0.0])[None, None, :, None]
    for discount, on_the_atoms in ((0.5, True), (0.45, False)):
        reward, discounts, probs, atoms, target = targets(critic, low_value=-1.5, high_value=1.5, discount=discount)
        assert (probs.max(-1) == 1.0).all()
        assert (target.max(-1) > 1 - 1e-6).all() == on_the_atoms
        if on_the_atoms:
            wanted = reward + discounts * (probs @ atoms)
            np.testing.assert_allclose(atoms[target.argmax(-1)], wanted, atol=1e-6)
            assert len(set(wanted)) >= 4


def test_identity_30_with_many_atoms_it_is_ddpg() -> None:
    """The logits are those of a normal of unit variance around DDPG's critic: its gradient is the mean less the target.

    With atoms half a deviation apart their mean is the number up to rounding; with five they are too few.
    """
    settings: dict[str, Any] = {"window": 1, "init_params": world.init_quadratics}
    hyper = {"learning_rate": 0.05, "critic_learning_rate": 0.1, "discount": 0.8, "target_rate": 0.3, "noise": 0.3}

    def end(recipe: Any, **hyper: Any) -> Any:
        state = recipe.init(jax.random.key(0), **hyper)
        for _ in range(4):
            state, metrics = recipe.update(state)
        return state.params, state.target, state.rollout.obs, metrics["actor_loss"], metrics["grad_norm"]

    def normal(num_atoms: int) -> Any:
        atoms = jnp.linspace(-12.0, 12.0, num_atoms)

        def critic(table: Any, obs: Any, action: Any) -> Any:
            q = world.action_value(table, obs, action)[..., None]
            return -0.5 * jnp.square(jnp.broadcast_to(atoms, (*q.shape[:-1], num_atoms)) - q)

        recipe = ENTRY.make(critic=critic, **settings, num_atoms=num_atoms, prioritized=False)
        return end(recipe, **hyper, low_value=-12.0, high_value=12.0)

    ends = [end(RECIPES["ddpg"].make(**settings), **hyper), normal(49), normal(5)]
    wanted, many, few = (flat([as_numpy(x) for x in jax.tree.leaves(x)]) for x in ends)
    np.testing.assert_allclose(many, wanted, rtol=1e-3, atol=1e-4)
    assert np.abs(few - wanted).max() > 0.01


def test_weights_with_exponent_1_undo_the_prioritised_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stored window, weighted by its probability and its weight: in proportion to the gradient of the mean.

    The gradient is read off the first moment of the optimiser. With exponent 0 the two point elsewhere.
    """
    make = pg.replay.make_prioritized_replay(**derivations_d4pg.SIZES, num_steps=2, exponent=0.6)
    recipe = ENTRY.make(gradient_steps=1)
    state = recipe.init(jax.random.key(0), **ENTRY.base)
    state, _ = recipe.update(state)
    half, held = state.replay.node.size // 2, derivations_d4pg.SIZES["capacity"] // world.NUM_ENVS
    rows = np.flatnonzero(state.replay.node[half:])
    uneven = np.random.default_rng(0).lognormal(size=len(rows))
    state = state.replace(replay=make.update(state.replay, rows, np.float32(uneven)))
    power = as_numpy(state.replay.node)[half + rows]
    np.testing.assert_allclose(power, uneven**0.6, rtol=1e-4)

    def everything(key: Any, memory: Any, exponent: Any) -> Any:
        """All windows once; their weights stand where their priorities were."""
        time = (rows[:, None] % held + np.arange(2)) % held
        drawn = jax.tree.map(lambda x: jnp.swapaxes(x[rows[:, None] // held, time], 0, 1), memory.replay.experience)
        return pg.replay.Replayed(drawn, memory.node[half + rows], jnp.asarray(rows, jnp.int32))

    def unchanged(memory: Any, *_: Any) -> Any:
        return memory

    whole = dataclasses.replace(make, add=unchanged, sample=everything, update=unchanged)
    monkeypatch.setattr(pg.replay, "make_prioritized_replay", lambda **_: whole)
    patched, gradients = ENTRY.make(gradient_steps=1), {}
    fresh = state.replace(opt_state=recipe.init(jax.random.key(0), **ENTRY.base).opt_state)
    for name, exponent in (("uniform", None), ("undone", 1.0), ("not undone", 0.0)):
        weight = np.ones(len(rows))
        if exponent is not None:
            drawn = make.sample(jax.random.key(1), state.replay, exponent)
            wanted = as_numpy(state.replay.node)[half + np.asarray(drawn.rows)] ** -exponent
            np.testing.assert_allclose(drawn.weight, wanted / wanted.max(), rtol=1e-4)
            weight = power / power.sum() * power**-exponent
        memory = state.replay.replace(node=state.replay.node.at[half + rows].set(weight))
        after, _ = patched.update(fresh.replace(replay=memory))
        moments = [x for x in jax.tree.leaves(after.opt_state[1]) if jnp.ndim(x)]
        gradients[name] = as_numpy(moments[0]).ravel()
    cosine = {
        name: gradients["uniform"] @ x / np.linalg.norm(gradients["uniform"]) / np.linalg.norm(x)
        for name, x in gradients.items()
    }
    assert cosine["undone"] > 1 - 1e-6
    assert cosine["not undone"] < 1 - 1e-3


def test_while_it_warms_up_actions_are_uniform_in_a_box_of_any_bounds_and_nothing_is_learned() -> None:
    class Wide(world.ContinuousWorld):
        def action_space(self, params: Any = None) -> spaces.Box:
            return spaces.Box(jnp.array([-1.0, 2.0]), jnp.array([1.0, 8.0]), (2,))

    env_params = world.continuous()[1]
    sizes = {"num_envs": world.NUM_ENVS, "num_steps": 25, "total_steps": 400, "warmup": 200, "batch_size": 8}
    model = pg.networks.default_actor_with_critics(Wide(), env_params, features=(4,), num_critics=1, num_outputs=5)
    recipe = d4pg.make_train(Wide(), env_params, **sizes, gradient_steps=2, num_atoms=5, model=model)
    start = recipe.init(jax.random.key(0), noise=5.0)
    warm, metrics = recipe.update(start)
    assert np.isnan([metrics[name] for name in ("loss", "actor_loss", "action_value", "grad_norm", "end_mass")]).all()
    jax.tree.map(np.testing.assert_array_equal, (start.params, start.opt_state), (warm.params, warm.opt_state))
    action = as_numpy(warm.replay.replay.experience.action)[:, :25].reshape(-1, 2)
    unit = (action - [-1.0, 2.0]) / [2.0, 6.0]
    assert (abs(np.sort(unit, 0) - np.linspace(0, 1, 200)[:, None]) < 0.15).all()
    learned, metrics = recipe.update(warm)
    assert np.isfinite(metrics["loss"])
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (warm.params, learned.params)), strict=True))
    acted = as_numpy(learned.replay.replay.experience.action)[:, 25:50].reshape(-1, 2)
    assert (acted.min(0) == [-1.0, 2.0]).all()  # noise of 5 half widths, clipped at either bound
    assert (acted.max(0) == [1.0, 8.0]).all()
    priority = as_numpy(learned.replay.node)[-len(learned.replay.node) // 2 :]
    assert len(set(priority[priority > 0])) > 2


def test_the_default_networks_give_the_atoms_and_what_does_not_fit_is_named() -> None:
    env, env_params = gymnax.make("Pendulum-v1")
    sizes = {"num_envs": 2, "total_steps": 4, "warmup": 10, "capacity": 40, "batch_size": 4}
    recipe = d4pg.make_train(env, env_params, **sizes, num_atoms=11)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    after, _ = jax.eval_shape(recipe.update, state)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state)]
    assert {x.shape[-1] for x in jax.tree.leaves(state.params.critic)} == {128, 11}
    with pytest.raises(ValueError, match="num_atoms must be at least 2, got 1"):
        d4pg.make_train(env, env_params, num_atoms=1)
    with pytest.raises(ValueError, match=r"exponent must lie in \[0, 1\]"):
        d4pg.make_train(env, env_params, priority_exponent=2.0)
    with pytest.raises(ValueError, match="importance_exponent must lie in"):
        recipe.init(jax.random.key(0), importance_exponent=2.0)
    other = ENTRY.make(num_atoms=derivations_d4pg.NUM_ATOMS + 1)
    with pytest.raises(ValueError, match="next_probs must"):
        other.update(other.init(jax.random.key(0), **SUPPORT))
    with pytest.raises(TypeError, match="box"):
        d4pg.make_train(*gymnax.make("CartPole-v1"))
