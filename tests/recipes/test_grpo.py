"""Groups of episodes from one start state: which episodes count, with what weight, against what reference."""

from types import SimpleNamespace
from typing import Any

import derivations_groups
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recall
import world
from derivations import Adam, flat
from entry import FUNCTIONS, as_numpy, order

import pgjax as pg
from pgjax.recipes import grpo

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KINDS = ("rloo", "grpo", "dr_grpo", "remax")
NAMES = {name: x for name, x in FUNCTIONS.items() if name != "value"}
HYPER = {"learning_rate": 0.05, "discount": 0.9, "clip": 0.1, "max_grad_norm": 1e9}
SIZE, NUM_STEPS = 4, 5


def lotteries() -> tuple[Any, Any]:
    """Eight environments in two groups: rewards of ±1 a step, by what is drawn at the start, to a random end."""
    env, env_params = world.world()
    return env, env_params.replace(kind=jnp.full(8, world.LOTTERY), max_steps_in_episode=jnp.full(8, 10**6))


def make(advantage: str, task: Any = None, **settings: Any) -> pg.recipes.Recipe:
    sizes = {"num_envs": 8, "num_steps": NUM_STEPS, "total_steps": 40 * 100, "num_epochs": 2, "num_minibatches": 2}
    return grpo.make_train(
        *(task or lotteries()), **{**sizes, "group_size": SIZE, **NAMES, **settings}, advantage=advantage
    )


def replayed(recipe: Any, state: Any) -> Any:
    """The window of the next update as arrays, and the greedy returns, with the order of the environments."""
    _, act_key, start_key, shuffle_key, greedy_key = jax.random.split(state.key, 5)
    env, env_params = lotteries()
    start = pg.init_rollout(start_key, env, env_params, num_envs=8)
    start = jax.tree.map(lambda x: x[jnp.array([0, 0, 0, 0, 4, 4, 4, 4])], start)
    arguments = {"policy": recipe.policy, "env": env, "env_params": env_params, "num_steps": NUM_STEPS}
    _, trajectory = pg.rollout(act_key, state.params, start, **arguments)
    greedy = pg.greedy_baseline(greedy_key, state.params, start, **arguments, discount=0.9)
    data = SimpleNamespace(**{k: as_numpy(getattr(trajectory, k)) for k in ("obs", "action", "reward", "log_prob")})
    data.done = np.asarray(trajectory.done)
    return data, as_numpy(greedy), np.asarray(order(shuffle_key, num_epochs=2, num_minibatches=2, size=8))


@pytest.mark.parametrize("kind", KINDS)
def test_each_advantage_is_that_of_its_paper_and_of_no_other(kind: str) -> None:
    recipe = make(kind)
    before = recipe.init(jax.random.key(4), **HYPER)
    after, metrics = recipe.update(before)
    data, greedy, rows = replayed(recipe, before)
    length, returns = derivations_groups.first_episodes(data, 0.9)
    assert len(set(length)) > 2
    tables = (as_numpy(before.params.actor), as_numpy(before.params.critic))
    size = flat(tables).size
    hyper = {name: float(x) for name, x in before.hyper._asdict().items()}
    for other in KINDS:
        weight = derivations_groups.advantages(other, returns, SIZE, greedy)
        wanted, _, expected = derivations_groups.groups(
            tables, Adam(0, np.zeros(size), np.zeros(size)), data, hyper, 0.0, order=rows, weight=weight,
            per_step=other == "grpo", reference=None,
        )  # fmt: skip
        assert np.isclose(metrics["loss"], expected["loss"], rtol=1e-4) == (other == kind)
        if other == kind:
            np.testing.assert_allclose(after.params.actor, wanted[0], rtol=1e-4, atol=3e-6)
            np.testing.assert_allclose(metrics["grad_norm"], expected["grad_norm"], rtol=1e-4)


def test_members_of_a_group_start_alike_and_groups_do_not() -> None:
    """What is drawn at the start of a lottery is all that there is to tell: a group is paid alike at every step."""
    recipe = make("rloo", num_steps=1, num_epochs=1, num_minibatches=1)
    state = recipe.init(jax.random.key(0), **HYPER)
    starts = []
    for _ in range(8):
        state, metrics = recipe.update(state)
        drawn = np.asarray(state.rollout.running_return + jnp.nan_to_num(state.rollout.episode_return)).reshape(2, SIZE)
        assert metrics["equal_groups"] == 1.0
        starts += drawn.mean(1).tolist()
        np.testing.assert_array_equal(drawn, drawn[:, :1] * np.ones(SIZE))
    assert set(starts) == {-1.0, 1.0}


def test_what_follows_the_first_episode_of_a_window_does_not_count() -> None:
    """Choices end after two steps: a window of five steps teaches what one of two teaches."""
    env, env_params = world.world()
    task = env, env_params.replace(kind=jnp.full(8, world.CHOICE), max_steps_in_episode=jnp.full(8, 10**6))
    recipes = [make("rloo", task, num_steps=n, num_epochs=1, num_minibatches=1, total_steps=80) for n in (2, 5)]
    starts = [recipe.init(jax.random.key(4), **HYPER) for recipe in recipes]
    grads = [recipe.update(start)[1]["grad_norm"] for recipe, start in zip(recipes, starts, strict=True)]
    assert grads[0] > 0.01
    np.testing.assert_allclose(*grads, rtol=1e-5)


def test_a_reference_holds_the_policy_back() -> None:
    """With a great weight the policy goes to the reference, without one it does not."""
    reference = derivations_groups.REFERENCE
    recipe = make("rloo", reference=reference)
    init = lambda x: recipe.init(jax.random.key(4), **{**HYPER, "kl_coef": x, "anneal": 0.0})  # noqa: E731
    state, update = jax.vmap(init)(jnp.array([0.0, 10.0])), jax.jit(jax.vmap(recipe.update))
    for _ in range(40):
        state, _ = update(state)
    obs = jnp.eye(world.NUM_CELLS)[5:]
    ends = [world.policy(world.Tables(actor, None), obs) for actor in state.params.actor]
    free, held = (float(end.kl_divergence(world.policy(reference, obs)).max()) for end in ends)
    assert held < 0.02
    assert free > 0.1


def test_with_a_memory_the_ratio_is_one_before_the_first_step() -> None:
    """Also where the mode of the policy is played beside it, from the same memory."""
    recipe = make(
        "remax", recall.task(), num_envs=recall.NUM_ENVS, policy=recall.policy, init_params=recall.init_params,
        policy_state=jnp.zeros((recall.NUM_ENVS, recall.HIDDEN)),
    )  # fmt: skip
    init = lambda x: recipe.init(jax.random.key(4), **{**HYPER, "learning_rate": x})  # noqa: E731
    _, metrics = jax.vmap(recipe.update)(jax.vmap(init)(jnp.array([0.0, 0.05])))
    assert metrics["kl"][0] < 1e-12
    assert metrics["kl"][1] > 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 3}, "group_size must divide num_envs=8, got 3"),
        ({"group_size": 1}, 'advantage="rloo" compares members of a group: group_size must be at least 2, got 1'),
        ({"advantage": "ppo"}, "advantage must be one of rloo, grpo, dr_grpo, remax, got 'ppo'"),
        ({"num_minibatches": 16}, "num_minibatches=16 must divide the 8 rows"),
    ],
)
def test_bad_groups_are_named(change: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make(**{"advantage": "rloo", **change})
    assert make("remax", group_size=1).num_updates == 100
