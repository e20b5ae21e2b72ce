"""IMPALA: without a lag it is A2C; actors outside JAX, and every way in which a run of theirs may end."""

import functools
import signal
import threading
import time
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import outside
import pytest
import recall
import world
from entry import FUNCTIONS, as_numpy
from outside import Choice, interrupt, within
from table import RECIPES

import pgjax as pg
from pgjax.recipes import a2c, impala, impala_host

SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS}
pytestmark = pytest.mark.usefixtures("quick_to_compile")
HYPER = {"learning_rate": 0.02, "discount": 0.9, "lam": 0.8, "entropy_coef": 0.1, "max_grad_norm": 0.3}
HOST: dict[str, Any] = {
    **outside.FUNCTIONS, "num_actors": 2, "envs_per_actor": 2, "num_steps": 4, "num_windows": 2, "learning_rate": 0.05,
}  # fmt: skip
STEPS = 2 * 2 * 4  # of one update


def leaves(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("carried", ["tables", "memory and normalisers"])
def test_without_a_lag_it_is_the_synchronous_actor_critic(carried: str) -> None:
    """Three updates, every parameter and metric; with a lag it is another algorithm from the second one on."""
    task, settings = (world.world(), {**FUNCTIONS, **SIZES, "normalize_rewards": False})
    if carried != "tables":
        task, settings = recall.task(), {**recall.SIZES, **recall.WITH_MEMORY}
    steps = 3 * settings["num_envs"] * settings["num_steps"]
    ends = [
        module.make_train(*task, total_steps=steps, **settings, **more)(jax.random.key(1), **HYPER)
        for module, more in ((a2c, {}), (impala, {"lag": 0}), (impala, {"lag": 2}))
    ]
    (state, metrics), (same, equal), (lagged, other) = ends
    np.testing.assert_allclose(leaves(same.params), leaves(state.params), rtol=1e-4, atol=1e-6)
    for name, x in metrics.items():
        np.testing.assert_allclose(equal[name], x, rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(equal["kl"], 0.0, atol=1e-12)
    assert np.abs(leaves(lagged.params) - leaves(state.params)).max() > 1e-4
    np.testing.assert_allclose(other["kl"][0], 0.0, atol=1e-12)
    assert (other["kl"][1:] > 1e-7).all()


@pytest.mark.parametrize("lag", [1, 2])
def test_what_acts_are_the_parameters_of_so_many_updates_ago(lag: int) -> None:
    """To the bit, in each of six updates, from the parameters that the learner had, and none before the first."""
    recipe = RECIPES["impala"].make(lag=lag)
    state = recipe.init(jax.random.key(1), learning_rate=0.1)
    learned = [state.params]
    for number in range(6):
        row = (number + 1) % (lag + 1)
        acting = jax.tree.map(lambda x: x[row], state.past)  # noqa: B023
        for x, y in zip(acting, learned[max(number - lag, 0)], strict=True):
            np.testing.assert_array_equal(x, y)
        state = recipe.update(state)[0]
        learned.append(state.params)


def test_a_lag_is_checked_and_planes_go_through_convolutions() -> None:
    with pytest.raises(ValueError, match="lag must be at least 0, got -1"):
        RECIPES["impala"].make(lag=-1)
    env, env_params = gymnax.make("Breakout-MinAtar")
    recipe = impala.make_train(env, env_params, num_envs=2, num_steps=3, total_steps=6)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    assert any("Conv" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params))
    after, metrics = jax.eval_shape(recipe.update, state)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(state)]
    assert metrics["loss"].shape == ()


def test_actors_outside_jax_learn_the_choice_and_the_value_at_both_kinds_of_end() -> None:
    """In half of the environments the end is a cut: there the critic counts what would follow."""
    made: list[Choice] = []
    seen: list[Any] = []

    def make_env(index: int) -> Choice:
        made.append(Choice(index, cut=index % 2 == 1))
        return made[-1]

    with within(120):
        state, metrics = impala_host.train(
            jax.random.key(0), make_env, **HOST, total_steps=150 * STEPS, drop=False, entropy_coef=0.0, discount=0.5,
            report=lambda state, m: seen.append((int(state.update), m)),
        )  # fmt: skip
    assert sorted(env.index for env in made) == [0, 1, 2, 3]
    assert all(env.closed for env in made)
    assert [count for count, _ in seen] == list(range(1, 151))
    assert len(metrics) == 150
    assert metrics[-1]["finished"] == 1.0
    assert metrics[-1]["episode_return"] == 1.0
    assert metrics[-1]["dropped"] == 0
    assert all(0 <= row["waiting"] <= 4 and row["staleness"] >= 0 for row in metrics)
    assert max(row["staleness"] for row in metrics) > 0
    np.testing.assert_allclose(state.params["critic"][:2], [0.5, 1.0], atol=0.1)


def test_windows_from_outside_say_what_happened() -> None:
    """Row by row: observations before resets, both kinds of end, returns of whole episodes, log-probabilities."""
    from pgjax.recipes.host import Actor

    actor = Actor(0, lambda i: Choice(i, cut=i == 1), 2, jax.random.key(3), outside.policy, None)
    params = outside.init_params(jax.random.key(0))
    windows: list[Any] = []

    class Kept:
        stopped = False

        def put(self, item: Any) -> None:
            windows.append(item)
            self.stopped = isinstance(item, tuple)  # the first is the observations

    kept = Kept()
    with within(60):
        actor.run(kept, kept, kept, [(7, params)], 12)
    t, window = windows[1].trajectory, windows[1]
    assert (window.version, window.actor) == (7, 0)
    np.testing.assert_array_equal(windows[0], np.eye(3)[[0, 0]])
    np.testing.assert_array_equal(t.obs, np.eye(3)[np.arange(12) % 2][:, None].repeat(2, 1))
    np.testing.assert_array_equal(t.next_obs, np.eye(3)[np.arange(12) % 2 + 1][:, None].repeat(2, 1))
    np.testing.assert_array_equal(t.terminated, np.stack([np.arange(12) % 2 == 1, np.zeros(12, bool)], 1))
    np.testing.assert_array_equal(t.truncated, np.stack([np.zeros(12, bool), np.arange(12) % 2 == 1], 1))
    np.testing.assert_array_equal(t.step, (np.arange(12) % 2)[:, None].repeat(2, 1))
    np.testing.assert_array_equal(t.reward[1::2], 2.0 * t.action[::2] - 1.0)
    np.testing.assert_array_equal(window.episode_return, t.reward[-1])
    np.testing.assert_allclose(t.log_prob, outside.policy(params, t.obs).log_prob(t.action), rtol=1e-5)
    assert {x.dtype for x in (t.obs, t.reward, t.log_prob)} == {np.dtype(np.float32)}
    assert (t.action[::2].min(0) < t.action[::2].max(0)).all()  # drawn anew in each episode


def run(**settings: Any) -> Any:
    make_env = settings.pop("make_env", Choice)
    return impala_host.train(jax.random.key(0), make_env, **{**HOST, "total_steps": 40 * STEPS, **settings})


def fail(*_: Any) -> None:
    raise ZeroDivisionError("planted")


def planted(step: int, what: Any = fail) -> Any:
    """Environments of which number 2 meets a fault before one of its steps."""
    return functools.partial(Choice, planted=lambda index, n: what() if (index, n) == (2, step) else None)


FAULTS = {
    "make_env": {"make_env": lambda index: fail() if index == 3 else Choice(index)},
    "environment, first step": {"make_env": planted(0)},
    "environment, later": {"make_env": planted(9)},
    "actor": {"policy": fail},
    "learner": {"value": fail},
    "report": {"report": fail},
    "parameters": {"init_params": lambda key: fail()},
}


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("where", FAULTS)
def test_an_exception_anywhere_stops_all_and_is_raised(where: str, drop: bool) -> None:
    with within(60), pytest.raises(ZeroDivisionError, match="planted") as caught:
        run(**FAULTS[where], drop=drop, queue_size=2)
    in_thread = where in ("make_env", "environment, first step", "environment, later", "actor")
    assert ("in the thread 'actor" in str(getattr(caught.value, "__notes__", ""))) == in_thread


def test_ctrl_c_stops_all_in_report_and_while_slow_actors_are_waited_for() -> None:
    with within(60), pytest.raises(KeyboardInterrupt):
        run(report=lambda *_: signal.raise_signal(signal.SIGINT))
    slow = functools.partial(Choice, planted=lambda *_: time.sleep(0.2))
    interrupt(1.0)
    with within(60), pytest.raises(KeyboardInterrupt):
        run(make_env=slow, num_steps=100, total_steps=10**6)


def test_a_slow_actor_holds_nobody_up_for_good_and_one_that_hangs_is_left_behind() -> None:
    hangs, free = threading.Event(), threading.Event()

    def wait() -> None:
        hangs.set()
        free.wait(30)

    with within(60):
        with pytest.warns(UserWarning, match="actor 1 did not stop within 0.2 s and was left behind"):
            state, _ = run(make_env=planted(5, wait), patience=0.2)
        assert hangs.is_set()
        free.set()
        time.sleep(0.3)
    assert int(state.update) == 40


def test_a_full_queue_says_what_it_dropped() -> None:
    with within(60):
        _, lossy = run(report=lambda *_: time.sleep(0.05), queue_size=2, total_steps=8 * STEPS)
        _, patient = run(report=lambda *_: time.sleep(0.05), queue_size=2, total_steps=8 * STEPS, drop=False)
    counts = [row["dropped"] for row in lossy]
    assert counts == sorted(counts)
    assert counts[-1] > 0
    assert [row["dropped"] for row in patient] == [0] * 8


def test_report_may_stop_a_run_and_it_goes_on_from_its_state() -> None:
    with within(60):
        state, metrics = run(report=lambda state, _: state.update >= 3)
        assert (int(state.update), len(metrics)) == (3, 3)
        after, metrics = run(state=state, total_steps=5 * STEPS)
        assert (int(after.update), len(metrics)) == (5, 2)
        done, metrics = run(state=after, total_steps=5 * STEPS)
    assert metrics == []
    np.testing.assert_array_equal(as_numpy(done.params["actor"]), as_numpy(after.params["actor"]))


def test_actors_outside_jax_carry_a_memory_and_normalisers() -> None:
    """Its task is recalled: shapes, memories set back at each start, statistics of what was learnt from."""
    starts: list[Any] = []

    def policy(params: Any, obs: Any, memory: Any) -> Any:
        jax.debug.callback(lambda m: starts.append(np.array(m)), memory)
        memory = memory + 1.0
        return pg.Categorical(obs @ params["actor"]), obs @ params["critic"], memory

    functions = {**outside.FUNCTIONS, "policy": policy, "value": lambda params, obs, memory: obs @ params["critic"]}
    with within(60):
        state, _ = run(
            **functions, policy_state=jnp.zeros((2, 1)), normalize_observations=True, total_steps=2 * STEPS, drop=False
        )
    assert float(state.params.statistics.count) == 2 * STEPS
    assert {float(x.max()) for x in starts} == {0.0, 1.0}  # never carried across an end


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_actors": 0}, ValueError, "num_actors must be at least 1, got 0"),
        ({"queue_size": 0}, ValueError, "queue_size must be at least 1, got 0"),
        ({"total_steps": 3}, ValueError, "total_steps must allow one update"),
        ({"policy": None, "value": None, "init_params": None}, TypeError, "model must be given"),
        ({"discount": 2.0}, ValueError, r"discount must lie in \[0, 1\]"),
    ],
)
def test_bad_settings_from_outside_are_named(change: Any, error: type, message: str) -> None:
    with within(60), pytest.raises(error, match=message):
        run(**change)


def test_cartpole_of_gymnasium_is_learned_from() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    model = pg.networks.ActorCritic(pg.networks.DiscretePolicy(num_actions=2), features=(16,))
    with within(120):
        _, metrics = impala_host.train(
            jax.random.key(0), lambda i: gymnasium.make("CartPole-v1"), model=model, total_steps=5 * 128
        )
    assert len(metrics) == 5
    assert all(np.isfinite(row["loss"]) for row in metrics)
