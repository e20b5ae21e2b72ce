"""Laws that hold for every recipe there is and will be: see `table` for how one is added."""

import collections
import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from derivations import flat
from entry import as_numpy
from table import OF_EACH_KIND, RECIPES, subject

import pgjax as pg
from pgjax.recipes import windows

pytestmark = pytest.mark.usefixtures("quick_to_compile")
CHANGES = [(name, change, x) for name, e in RECIPES.items() for change, values in e.changes.items() for x in values]
CRITICS = [name for name, entry in RECIPES.items() if entry.critic]


def having(name: str) -> list[str]:
    """The recipes with a hyper-parameter of this name."""
    return [recipe for recipe, entry in RECIPES.items() if name in entry.base]


def derived(name: str, lane: tuple[str, Any], number: str = "first", memory: Any = None) -> Any:
    """(tables, memory, metrics, rollout) after an update, re-derived from the state before it."""
    run = subject(name)
    before = getattr(run, number)[0]
    keys = jax.vmap(lambda key: run.entry.split(run.entry, key))(before.key)
    data, rollout = run.entry.seen(run, before, keys, lane)
    state = run.lane(before, *lane)
    tables = run.tables(state)
    memory = run.entry.memory(tables) if memory is None else memory
    hyper, progress = state.hyper._asdict(), state.update / run.entry.num_updates
    more = run.entry.given(run.entry, keys[0], state, data)
    return *run.entry.derive(tables, memory, data, hyper, progress, **more), rollout


def assert_update(name: str, lane: tuple[str, Any], number: str, expected: Any) -> None:
    """The change of the parameters, and each metric, are those of the derivation."""
    run = subject(name)
    before, after, metrics = (run.lane(x, *lane) for x in getattr(run, number))
    tables, _, wanted, rollout = expected
    old, new = (flat(run.tables(x)) for x in (before, after))
    np.testing.assert_allclose(new - old, flat(tables) - old, rtol=1e-3, atol=2e-6)
    known = rollout if run.entry.stepped is None else after.rollout
    wanted = wanted | {"finished": np.mean(~np.isnan(known.episode_return))}
    wanted["episode_return"] = np.mean(known.episode_return)
    assert wanted.keys() == metrics.keys()
    for key, x in wanted.items():
        np.testing.assert_allclose(metrics[key], x, rtol=2e-4, atol=2e-6, err_msg=key)
    if run.entry.stepped is not None:
        jax.tree.map(np.testing.assert_array_equal, run.entry.stepped(after, before.update), rollout)
    assert after.update == before.update + 1


@pytest.mark.parametrize("name", RECIPES)
def test_one_update_is_the_update_of_the_paper(name: str) -> None:
    assert_update(name, ("base", None), "first", derived(name, ("base", None)))


@pytest.mark.parametrize(("name", "change", "number"), CHANGES)
def test_each_hyper_parameter_does_what_the_paper_says(name: str, change: str, number: float) -> None:
    """Also in the second update, where the ratio of PPO has moved, Adam remembers and the learning rate has fallen."""
    first = derived(name, (change, number))
    assert_update(name, (change, number), "first", first)
    assert_update(name, (change, number), "second", derived(name, (change, number), "second", first[1]))


@pytest.mark.parametrize(("name", "change", "number"), CHANGES)
def test_each_hyper_parameter_moves_the_result(name: str, change: str, number: float) -> None:
    """In the parameters or, where Adam undoes a scale, in the metrics."""
    run = subject(name)
    moved = []
    for tree in (run.second[1].params, run.second[2]):
        base, other = (run.lane(tree, *lane) for lane in (("base", None), (change, number)))
        moved += [np.abs(x - y).max() for x, y in zip(jax.tree.leaves(base), jax.tree.leaves(other), strict=True)]
    binds = (change, number) != ("max_grad_norm", np.inf)  # the base has no bound either
    assert (max(moved) > 1e-4) == binds


@pytest.mark.parametrize("name", sorted({*having("learning_rate")} - {*having("critic_learning_rate")}))
def test_without_a_learning_rate_nothing_is_learned(name: str) -> None:
    run = subject(name)
    before, after = (run.tables(run.lane(x, "learning_rate", 0.0)) for x in (run.first[0], run.second[1]))
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("name", having("value_coef"))
def test_without_a_weight_the_critic_stays(name: str) -> None:
    run = subject(name)
    before, after = (run.tables(run.lane(x, "value_coef", 0.0)) for x in (run.first[0], run.second[1]))
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0] - after[0]).max() > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_the_return_rises(name: str) -> None:
    """The action that earns 1 where the other earns -1, from a toss of a coin to nearly always."""
    run = subject(name)
    before, after = (
        run.lane(x.params, "learner").actor[..., world.CHOICE_CELL, :] for x in (run.start(), run.trained[0])
    )
    expected = [run.entry.chosen(row) for row in (before, after)]
    assert expected[0] < 0.5
    assert expected[1] > 0.9
    if run.entry.plays_itself:
        returns = run.lane(run.trained[0].rollout.episode_return, "learner")
        assert (returns[..., 2 * world.CHOICE : 2 * world.CHOICE + 2] == 1).all()


@pytest.mark.parametrize("name", [name for name in CRITICS if RECIPES[name].discounted])
def test_the_critic_reaches_the_true_value_of_what_ends_and_of_what_is_cut(name: str) -> None:
    run = subject(name)
    critic = run.entry.state_values(run.lane(run.trained[0].params, "learner"))
    truth = np.broadcast_to(world.true_value(run.entry.learner["discount"]), critic[..., :3].shape)  # to each agent
    np.testing.assert_allclose(critic[..., :3], truth, rtol=2e-2)


@pytest.mark.parametrize("name", having("anneal"))
def test_the_learning_rate_has_fallen_to_nothing_at_the_end(name: str) -> None:
    run = subject(name)
    before = run.first[1]
    end = before.replace(update=jnp.full_like(before.update, run.entry.num_updates))
    after, _ = run.update(end)
    still, moved = (
        [run.tables(run.lane(x, *lane))[0] for x in (end, after)] for lane in (("base", None), ("anneal", 0.0))
    )
    np.testing.assert_array_equal(*still)
    assert np.abs(moved[1] - moved[0]).max() > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_no_key_is_used_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the start, of acting, of shuffling, of the environments and of the network, over several updates.

    A key of whole episodes serves all that are compared under common random numbers, each alike.
    """
    entry, used = RECIPES[name], collections.Counter()

    def recorded(function: Any) -> Any:
        @functools.wraps(function)
        def call(key: Any, *args: Any, **kwargs: Any) -> Any:
            note = lambda data: used.update([tuple(np.asarray(data).tolist())])  # noqa: E731
            jax.debug.callback(note, jax.random.key_data(key))  # one call for each member of a population
            return function(key, *args, **kwargs)

        return call

    def recorded_sample(replay: Any) -> Any:
        return dataclasses.replace(replay, sample=recorded(replay.sample))

    for verb in ("init_rollout", "rollout", "epochs", "evaluate"):
        monkeypatch.setattr(pg, verb, recorded(getattr(pg, verb)))
    monkeypatch.setattr(windows, "draw_windows", recorded(windows.draw_windows))
    for name in ("make_replay", "make_prioritized_replay"):
        make = getattr(pg.replay, name)
        monkeypatch.setattr(pg.replay, name, lambda make=make, **sizes: recorded_sample(make(**sizes)))
    init_params = entry.settings.get("init_params", entry.functions["init_params"])
    recipe = entry.make(init_params=recorded(init_params))  # a new one: nothing of it is traced yet

    def keys_of(function: Any, argument: Any) -> tuple[Any, list[Any]]:
        used.clear()
        result = jax.block_until_ready(function(argument))
        jax.effects_barrier()
        assert len(set(used.values())) == 1
        if entry.once:
            assert set(used.values()) == {1}
        return result, list(used)

    key = jax.random.key(3)
    state, keys = keys_of(jax.jit(inspect.unwrap(recipe.init)), key)
    assert len(keys) == entry.start_keys
    keys.append(tuple(as_numpy(key).tolist()))
    step = jax.jit(lambda state: inspect.unwrap(recipe.update)(state)[0].key)  # only keys come out of it
    draws = len(entry.keys) - 1 if entry.draws is None else entry.draws
    for _ in range(4):
        keys.append(tuple(as_numpy(state.key).tolist()))
        key, more = keys_of(step, state)
        assert len(more) == draws
        keys += more
        state = state.replace(key=key)
    assert len(keys) == 1 + entry.start_keys + 4 * (1 + draws)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.slow) for name in RECIPES]
)
def test_vmap_over_hyper_parameters_and_seeds_gives_what_single_runs_give(name: str) -> None:
    """The lanes of the program against one run, through the recipe as it is called eagerly."""
    run = subject(name)
    change, values = list(run.entry.changes.items())[-1]
    for lane in (("base", None), (change, values[-1])):
        state = run.recipe.init(jax.random.key(7), **run.lanes[lane])
        for number in ("first", "second"):
            state = state.replace(update=run.lane(getattr(run, number)[0].update, *lane).astype(np.int32))
            state, metrics = run.recipe.update(state)
            after, together = (run.lane(x, *lane) for x in getattr(run, number)[1:])
            for x, y in zip(jax.tree.leaves(jax.tree.map(as_numpy, state)), jax.tree.leaves(after), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
            for key, x in metrics.items():
                np.testing.assert_allclose(x, together[key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", sorted({*having("clip"), *having("kl_coef")}))
def test_the_ratio_is_one_before_the_first_step(name: str) -> None:
    """To 1e-6, in every row, after 1, 2 and all updates: nothing is learned and nothing lies outside a clip."""
    run = subject(name)
    for state in (run.first[1], run.second[1], run.trained[0]):
        still = {"learning_rate": 0.0, "clip": 1e-6}
        fields = {
            field: jnp.full_like(getattr(state.hyper, field), x)
            for field, x in still.items()
            if field in run.entry.base
        }
        metrics = run.update(state.replace(hyper=state.hyper._replace(**fields)))[1]
        assert np.asarray(metrics["kl"]).max() < 1e-12
        if "clip" in run.entry.base:
            np.testing.assert_array_equal(metrics["clip_fraction"], 0.0)
