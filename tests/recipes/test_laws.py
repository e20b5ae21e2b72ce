"""Laws that hold for every recipe there is and will be: see `table` for how one is added."""

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import world
from derivations import Adam, flat
from table import NUM_UPDATES, RECIPES, as_numpy, subject, window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
CHANGES = [(name, change, x) for name, e in RECIPES.items() for change, values in e.changes.items() for x in values]
CRITICS = [name for name, entry in RECIPES.items() if entry.critic]


def derived(name: str, lane: tuple[str, Any], number: str = "first", adam: Adam | None = None) -> Any:
    """(tables, adam, metrics, rollout) after an update, re-derived from the state before it."""
    run = subject(name)
    before = getattr(run, number)[0]
    keys = jax.vmap(lambda key: run.entry.split(run.entry, key))(before.key)
    start = jax.vmap(run.entry.start)(keys, before.rollout)
    rollout, trajectory = run.lane(window(keys[:, 1], before.params, start), *lane)
    data = SimpleNamespace(**{k: getattr(trajectory, k) for k in ("obs", "action", "reward", "next_obs", "log_prob")})
    data.terminated, data.done = trajectory.terminated, trajectory.terminated | trajectory.truncated
    state = run.lane(before, *lane)
    tables = (state.params.actor, state.params.critic)
    size = flat(tables).size
    adam = adam or Adam(0, np.zeros(size), np.zeros(size))
    hyper, progress = state.hyper._asdict(), state.update / NUM_UPDATES
    more = run.entry.given(run.entry, keys[0], state)
    return *run.entry.derive(tables, adam, data, hyper, progress, **more), rollout


def assert_update(name: str, lane: tuple[str, Any], number: str, expected: Any) -> None:
    """The change of the parameters, and each metric, are those of the derivation."""
    run = subject(name)
    before, after, metrics = (run.lane(x, *lane) for x in getattr(run, number))
    tables, _, wanted, rollout = expected
    old, new = (flat((x.params.actor, x.params.critic)) for x in (before, after))
    np.testing.assert_allclose(new - old, flat(tables) - old, rtol=1e-3, atol=2e-6)
    finished = ~np.isnan(rollout.episode_return)
    wanted = wanted | {"finished": finished.mean(), "episode_return": np.mean(rollout.episode_return)}
    assert wanted.keys() == metrics.keys()
    for key, x in wanted.items():
        np.testing.assert_allclose(metrics[key], x, rtol=2e-4, atol=2e-6, err_msg=key)
    jax.tree.map(np.testing.assert_array_equal, after.rollout, rollout)
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


@pytest.mark.parametrize("name", RECIPES)
def test_without_a_learning_rate_nothing_is_learned(name: str) -> None:
    run = subject(name)
    before, after = (run.lane(x.params, "learning_rate", 0.0) for x in (run.first[0], run.second[1]))
    np.testing.assert_array_equal(before.actor, after.actor)
    np.testing.assert_array_equal(before.critic, after.critic)


@pytest.mark.parametrize("name", CRITICS)
def test_without_a_weight_the_critic_stays(name: str) -> None:
    run = subject(name)
    before, after = (run.lane(x.params, "value_coef", 0.0) for x in (run.first[0], run.second[1]))
    np.testing.assert_array_equal(before.critic, after.critic)
    assert np.abs(before.actor - after.actor).max() > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_the_return_rises(name: str) -> None:
    """The action that earns 1 where the other earns -1, from a toss of a coin to nearly always."""
    run = subject(name)
    before, after = (run.lane(x.params, "learner").actor[world.CHOICE_CELL] for x in (run.start(), run.trained[0]))
    expected = [np.tanh((logits[1] - logits[0]) / 2) for logits in (before, after)]  # of ±1
    assert expected[0] < 0.5
    assert expected[1] > 0.9
    assert (
        run.lane(run.trained[0].rollout.episode_return, "learner")[2 * world.CHOICE : 2 * world.CHOICE + 2] == 1
    ).all()


@pytest.mark.parametrize("name", CRITICS)
def test_the_critic_reaches_the_true_value_of_what_ends_and_of_what_is_cut(name: str) -> None:
    run = subject(name)
    critic = run.lane(run.trained[0].params, "learner").critic
    np.testing.assert_allclose(critic[:3], world.true_value(run.entry.learner["discount"]), rtol=2e-2)


@pytest.mark.parametrize("name", RECIPES)
def test_the_learning_rate_has_fallen_to_nothing_at_the_end(name: str) -> None:
    run = subject(name)
    before = run.first[1]
    end = before.replace(update=jnp.full_like(before.update, NUM_UPDATES))
    after, _ = run.update(end)
    np.testing.assert_array_equal(run.lane(after.params, "base").actor, run.lane(end.params, "base").actor)
    assert np.abs(run.lane(after.params, "anneal", 0.0).actor - run.lane(end.params, "anneal", 0.0).actor).max() > 1e-3


@pytest.mark.parametrize("name", RECIPES)
def test_no_key_is_used_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the start, of acting, of shuffling, of the environments and of the network, over several updates."""
    used: list[Any] = []

    def recorded(function: Any) -> Any:
        @functools.wraps(function)
        def call(key: Any, *args: Any, **kwargs: Any) -> Any:
            used.append(key)
            return function(key, *args, **kwargs)

        return call

    scan = jax.lax.scan

    def opened(f: Any, init: Any, xs: Any = None, length: int | None = None, **kwargs: Any) -> Any:
        """Run a scan of one step as the body that it is, so that the keys in it can be told."""
        if (length or len(jax.tree.leaves(xs)[0])) > 1:
            return scan(f, init, xs, length, **kwargs)
        carry, out = f(init, jax.tree.map(lambda x: x[0], xs))
        return carry, jax.tree.map(lambda x: x[None], out)

    monkeypatch.setattr(jax.lax, "scan", opened)
    for verb in ("init_rollout", "rollout", "epochs"):
        monkeypatch.setattr(pg, verb, recorded(getattr(pg, verb)))
    recipe = RECIPES[name].make(init_params=recorded(world.init_params))  # a new one: nothing of it is traced yet

    def start(key: Any) -> Any:
        used.clear()
        state = inspect.unwrap(recipe.init)(key)
        return state, list(used)

    def step(state: Any) -> Any:
        used.clear()
        key = inspect.unwrap(recipe.update)(state)[0].key
        return key, list(used)

    state, keys = jax.jit(start)(jax.random.key(3))
    keys = [jax.random.key(3), *keys]
    step = jax.jit(step)  # only keys come out of it: the rest is not even compiled
    for _ in range(4):
        keys.append(state.key)
        key, more = step(state)
        assert len(more) == len(RECIPES[name].keys) - 1
        keys += more
        state = state.replace(key=key)
    data = {tuple(as_numpy(key).tolist()) for key in keys}
    assert len(keys) == 3 + 4 * len(RECIPES[name].keys)
    assert len(data) == len(keys)


@pytest.mark.parametrize("name", RECIPES)
def test_vmap_over_hyper_parameters_and_seeds_gives_what_single_runs_give(name: str) -> None:
    """The lanes of the program against one run, through the recipe as it is called eagerly."""
    run = subject(name)
    for lane in (("base", None), ("discount", 0.0)):
        state = run.recipe.init(jax.random.key(7), **run.lanes[lane])
        for number in ("first", "second"):
            state = state.replace(update=run.lane(getattr(run, number)[0].update, *lane).astype(np.int32))
            state, metrics = run.recipe.update(state)
            after, together = (run.lane(x, *lane) for x in getattr(run, number)[1:])
            for x, y in zip(jax.tree.leaves(jax.tree.map(as_numpy, state)), jax.tree.leaves(after), strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
            for key, x in metrics.items():
                np.testing.assert_allclose(x, together[key], rtol=1e-4, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", [name for name, entry in RECIPES.items() if "shuffle" in entry.keys])
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
