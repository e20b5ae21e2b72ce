"""A3C: one worker is A2C, lag is what it says, and threads that share parameters end together."""

import signal
import threading
from typing import Any

import flax.serialization
import jax
import numpy as np
import optax
import pytest
import recall
import world
from entry import FUNCTIONS
from outside import interrupt, within
from table import RECIPES

from pgjax.recipes import a2c, a3c, a3c_threads

SIZES = {"num_envs": world.NUM_ENVS, "num_steps": world.NUM_STEPS}
pytestmark = pytest.mark.usefixtures("quick_to_compile")
HYPER = {"learning_rate": 0.02, "discount": 0.9, "lam": 0.8, "entropy_coef": 0.1, "max_grad_norm": 0.3}
STEPS = 8 * 5


def leaves(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("carried", ["tables", "memory and normalisers"])
def test_one_worker_is_the_synchronous_algorithm(carried: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rounding: A2C with the optimiser of A3C, from one start."""
    monkeypatch.setattr(optax, "adam", lambda rate, eps: optax.rmsprop(rate, 0.99, eps))
    task, settings = (world.world(), {**FUNCTIONS, **SIZES, "normalize_rewards": False})
    if carried != "tables":
        task, settings = recall.task(), {**recall.SIZES, **recall.WITH_MEMORY}
    total = 3 * settings["num_envs"] * settings["num_steps"]
    synchronous = a2c.make_train(*task, total_steps=total, **settings)
    one, two = (a3c.make_train(*task, total_steps=total, num_workers=n, **settings) for n in (1, 2))
    ours, more = (recipe.init(jax.random.key(1), **HYPER) for recipe in (one, two))
    theirs = synchronous.init(jax.random.key(1), **HYPER)
    theirs = theirs.replace(rollout=jax.tree.map(lambda x: x[0], ours.rollout))
    np.testing.assert_array_equal(leaves(ours.params), leaves(theirs.params))
    for _ in range(3):
        (ours, metrics), (theirs, expected) = one.update(ours), synchronous.update(theirs)
        more = two.update(more)[0]
        for name, x in expected.items():
            np.testing.assert_allclose(metrics[name], x, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(leaves(ours.params), leaves(theirs.params), rtol=1e-5, atol=1e-6)
    assert np.abs(leaves(more.params) - leaves(theirs.params)).max() > 1e-3


@pytest.mark.parametrize(("num_workers", "staleness", "lag"), [(3, None, 2), (3, 1, 1), (3, 0, 0), (1, None, 0)])
def test_a_worker_acts_with_the_parameters_of_so_many_updates_ago(num_workers: int, staleness: Any, lag: int) -> None:
    recipe = RECIPES["a3c"].make(num_workers=num_workers, staleness=staleness)
    state = recipe.init(jax.random.key(1), learning_rate=0.1)
    shared = [state.params]
    for number in range(7):
        turn = number % num_workers
        for x, y in zip(state.workers, shared[max(number - lag, 0)], strict=True):
            np.testing.assert_array_equal(x[turn], y)
        before, (state, _) = state, recipe.update(state)
        for w in range(num_workers):  # only the environments of the worker whose turn it is have moved
            moved = not np.array_equal(before.rollout.running_return[w], state.rollout.running_return[w])
            assert moved == (w == turn) or not moved
        shared.append(state.params)


def test_staleness_is_checked() -> None:
    with pytest.raises(ValueError, match="staleness must be below num_workers = 2, got 2"):
        RECIPES["a3c"].make(num_workers=2, staleness=2)
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        RECIPES["a3c"].make(num_workers=0)


def run(**settings: Any) -> Any:
    base = {**FUNCTIONS, **SIZES, "num_threads": 2, "total_steps": 20 * STEPS, **HYPER}
    return a3c_threads.train(jax.random.key(1), *world.world(), **{**base, **settings})


@pytest.mark.parametrize("locked", [True, False])
def test_one_thread_is_the_simulation_with_one_worker(locked: bool) -> None:
    recipe = RECIPES["a3c"].make(num_workers=1, total_steps=6 * STEPS)
    state, metrics = recipe(jax.random.key(1), **HYPER)
    with within(60):
        shared, rows = run(num_threads=1, locked=locked, total_steps=6 * STEPS)
    np.testing.assert_allclose(leaves(shared.params), leaves(state.params), rtol=1e-4, atol=1e-6)
    for name, x in metrics.items():
        np.testing.assert_allclose([row[name] for row in rows], x, rtol=1e-3, atol=1e-5, err_msg=name)
    assert [row["staleness"] for row in rows] == [0] * 6
    assert shared.update == 6


@pytest.mark.parametrize("locked", [True, False])
def test_threads_learn_the_choice(locked: bool) -> None:
    learner = {"learning_rate": 0.05, "discount": 0.8, "entropy_coef": 0.0, "max_grad_norm": 1e9}
    with within(120):
        state, rows = run(num_threads=3, locked=locked, total_steps=300 * STEPS, **learner)
    assert len(rows) == 300
    assert all(0 <= row["staleness"] < 300 for row in rows)
    logits = np.asarray(state.params.actor)[world.CHOICE_CELL]
    assert np.tanh((logits[1] - logits[0]) / 2) > 0.9


def test_under_the_lock_no_update_is_lost() -> None:
    """Four threads add 500 times each: with decay 0 and ε 0 each addition is the learning rate."""
    from pgjax.recipes.hyper import traced

    hyper = traced(a3c.Hyper, {"learning_rate": 1.0, "decay": 0.0, "eps": 0.0, "anneal": 0.0})
    zeros = np.zeros(2000, np.float32)
    shared = a3c_threads._Shared(a3c_threads.SharedState(zeros, zeros, jax.random.key(0), 0, hyper), 2000)

    def add() -> None:
        for _ in range(500):
            shared.apply(np.ones(2000, np.float32), 0, True)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    state = shared.state(True)
    assert state.update == 2000
    np.testing.assert_array_equal(state.params, -2000.0)


def fail(*_: Any) -> None:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize("where", ["policy", "value", "report", "init_params"])
def test_an_exception_anywhere_stops_all_and_is_raised(where: str) -> None:
    planted = (lambda key: fail()) if where == "init_params" else fail
    with within(60), pytest.raises(ZeroDivisionError, match="planted"):
        run(**{where: planted}, num_threads=3)


def test_an_exception_in_one_thread_of_several_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the fifth update of all, while the others wait for nothing and for the queue."""
    apply = a3c_threads._Shared.apply

    def failing(self: Any, grads: Any, number: int, locked: bool) -> Any:
        return fail() if number == 4 else apply(self, grads, number, locked)

    monkeypatch.setattr(a3c_threads._Shared, "apply", failing)
    with within(60), pytest.raises(ZeroDivisionError, match="planted") as caught:
        run(num_threads=3, total_steps=10**6 * STEPS)
    assert "in the thread 'learner" in str(caught.value.__notes__)


def test_ctrl_c_stops_all_in_report_and_at_any_time() -> None:
    with within(60), pytest.raises(KeyboardInterrupt):
        run(report=lambda *_: signal.raise_signal(signal.SIGINT))
    interrupt(1.0)
    with within(60), pytest.raises(KeyboardInterrupt):
        run(total_steps=10**8 * STEPS)


def test_report_may_stop_a_run_and_it_goes_on_from_its_state() -> None:
    with within(60):
        state, rows = run(report=lambda _, row: True)
        assert len(rows) == 1
        after, rows = run(state=state, total_steps=(state.update + 4) * STEPS)
    assert len(rows) == 4
    assert after.update == state.update + 4
    with pytest.raises(TypeError, match="unknown hyper-parameter learning_rat;"):
        run(state=state, learning_rat=1.0)
    with within(60):
        still, _ = run(state=state, total_steps=(state.update + 4) * STEPS, learning_rate=0.0)
    np.testing.assert_array_equal(leaves(still.params), leaves(state.params))
    read = flax.serialization.from_bytes(state, flax.serialization.to_bytes(state))
    assert jax.tree.structure(read) == jax.tree.structure(state)
    np.testing.assert_array_equal(jax.random.key_data(read.key), jax.random.key_data(state.key))
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        run(num_threads=0)
