"""Running statistics against NumPy in float64 on everything seen so far."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjax.envs import (
    init_reward_scale,
    init_statistics,
    normalize,
    scale_reward,
    update_reward_scale,
    update_statistics,
)

F = 3


def drawn(seed: int, *shape: int, offset: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (offset + scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def after(batches: list[Any], like: Any = None) -> Any:
    statistics = init_statistics(np.zeros(F) if like is None else like)
    for batch in batches:
        statistics = update_statistics(statistics, batch)
    return statistics


def check(statistics: Any, batches: list[np.ndarray], rtol: float = 1e-5) -> None:
    everything = np.concatenate([b.reshape(-1, F) for b in batches]).astype(np.float64)
    np.testing.assert_allclose(statistics.count, len(everything))
    spread = everything.std(0).max()
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-6, atol=rtol * spread)
    np.testing.assert_allclose(statistics.var, everything.var(0), rtol=rtol)


@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-2, 1e2), offset=st.floats(-10, 10))
def test_merging_equals_numpy_on_everything(seed: int, scale: float, offset: float) -> None:
    shapes = [(5, 4, F), (1, 1, F), (20, F), (F,)]
    batches = [drawn(seed + i, *shape, scale=scale, offset=offset * (i + 1)) for i, shape in enumerate(shapes)]
    check(after(batches), batches, rtol=1e-4)


def test_the_order_and_the_split_do_not_matter() -> None:
    x = drawn(0, 24, 4, F, scale=3.0)
    whole, halves, backwards = after([x]), after([x[:7], x[7:]]), after([x[7:], x[:7]])
    for other in (halves, backwards):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole, other)


@pytest.mark.parametrize("offset", [1e3, 1e4, 1e6, -1e6])
def test_a_large_offset_costs_no_digits(offset: float) -> None:
    """The sum of squares would lose the variance altogether; even a plain mean of 1e5 numbers loses some."""
    batches = [drawn(i, 50_000, F, offset=offset) for i in range(3)]
    statistics = after(batches)
    check(statistics, batches, rtol=2e-4 if abs(offset) < 1e5 else 1e-2)
    naive = np.float32(np.mean(batches[0] ** 2, 0)) - np.float32(np.mean(batches[0], 0)) ** 2
    assert abs(offset) < 1e4 or np.abs(naive - 1.0).max() > 0.05


def test_the_moments_of_one_large_batch_are_exact_to_the_last_digit() -> None:
    x = drawn(0, 100_000, F, offset=1e6)
    statistics, double = after([x]), x.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, double.mean(0), rtol=0, atol=0.04)  # half a unit in the last place
    np.testing.assert_allclose(statistics.var, double.var(0), rtol=1e-4)


def test_a_pytree_of_observations() -> None:
    like = {"a": np.zeros(()), "b": (np.zeros((2, F)),)}
    batches = [{"a": drawn(i, 6, 2), "b": (drawn(9 + i, 6, 2, 2, F, offset=3),)} for i in range(2)]
    statistics = after(batches, like)
    assert statistics.count == 24
    a, b = (np.concatenate([f(x) for x in batches]) for f in (lambda x: x["a"], lambda x: x["b"][0]))
    np.testing.assert_allclose(statistics.mean["a"], a.mean(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics.var["b"][0], b.var((0, 1)), rtol=1e-4)
    result = normalize(statistics, batches[0])
    expected = (batches[0]["b"][0] - b.mean((0, 1))) / b.std((0, 1))
    np.testing.assert_allclose(result["b"][0], expected, rtol=1e-3, atol=1e-4)
    assert result["a"].shape == (6, 2)


def test_normalised_observations_are_standard_and_clipped() -> None:
    x = drawn(0, 400, 5, F, offset=50.0, scale=7.0)
    statistics = after([x])
    result = np.asarray(normalize(statistics, x), np.float64)
    np.testing.assert_allclose(result.mean((0, 1)), 0.0, atol=1e-4)
    np.testing.assert_allclose(result.std((0, 1)), 1.0, rtol=1e-4)
    for sign in (1.0, -1.0):
        np.testing.assert_array_equal(normalize(statistics, sign * 1e6 * x, clip=2.5), np.full(x.shape, sign * 2.5))
    np.testing.assert_array_equal(normalize(init_statistics(np.zeros(F)), x, clip=1e9), x)  # nothing seen yet


def test_frozen_by_not_being_updated() -> None:
    """At evaluation nothing changes, and nothing of a batch leaks into its own normalisation."""
    statistics = after([drawn(0, 10, F)])
    before = jax.tree.map(np.array, statistics)
    one, other = drawn(1, 4, F), drawn(2, 4, F, offset=100.0)
    alone = normalize(statistics, one)
    together = normalize(statistics, np.concatenate([one, other]))
    np.testing.assert_array_equal(together[:4], alone)
    jax.tree.map(np.testing.assert_array_equal, statistics, before)


def test_statistics_are_constants_and_observations_are_not() -> None:
    statistics, x = after([drawn(0, 10, F)]), jnp.asarray(drawn(1, 4, F))
    total = lambda mean, x: normalize(statistics.replace(mean=mean), x).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(total)(statistics.mean, x), 0.0)
    slope = jax.grad(total, 1)(statistics.mean, x)
    np.testing.assert_allclose(slope, np.broadcast_to(1 / np.sqrt(statistics.var), (4, F)), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e4])
def test_constant_observations_give_no_nan(value: float) -> None:
    x = np.full((50, F), value, np.float32)
    statistics = after([x, x, x[:1]])
    np.testing.assert_allclose(statistics.mean, value)
    np.testing.assert_array_equal(statistics.var, 0.0)
    np.testing.assert_array_equal(normalize(statistics, x), 0.0)
    assert np.isfinite(normalize(statistics, x + 1.0)).all()


def test_the_count_grows_beyond_what_a_float_counts_by_ones() -> None:
    statistics = after([drawn(0, 10, F)]).replace(count=jnp.float32(2.0**24))
    more = update_statistics(statistics, drawn(1, 64, 4, F))
    assert more.count == 2.0**24 + 256
    huge = update_statistics(statistics.replace(count=jnp.float32(2.0**32)), drawn(1, 1024, 8, F, offset=5.0))
    assert huge.count == 2.0**32 + 8192
    assert np.all(huge.mean > statistics.mean)


def test_whole_numbers_and_half_precision_are_computed_in_float32() -> None:
    whole = np.arange(4 * F, dtype=np.uint8).reshape(4, F)
    for x in (whole, whole.astype(jnp.bfloat16), whole.astype(bool)):
        statistics = after([x])
        assert {leaf.dtype.name for leaf in jax.tree.leaves(statistics)} == {"float32"}
        np.testing.assert_allclose(statistics.mean, x.astype(np.float64).mean(0), rtol=1e-6)
        assert normalize(statistics, x).dtype == jnp.float32


def test_runs_in_a_scan_and_under_vmap() -> None:
    x = jnp.asarray(drawn(0, 3, 5, 4, F))
    step = lambda statistics, batch: (update_statistics(statistics, batch), None)  # noqa: E731
    scanned, _ = jax.lax.scan(step, init_statistics(np.zeros(F)), x)
    check(scanned, list(np.asarray(x)))
    mapped = jax.vmap(lambda batch: after([batch]))(x)
    for i in range(3):
        check(jax.tree.map(lambda leaf, i=i: leaf[i], mapped), [np.asarray(x[i])])


# Rewards


def loop(reward: np.ndarray, done: np.ndarray, discount: float, running: np.ndarray) -> tuple[list[Any], np.ndarray]:
    seen = []
    for t in range(len(reward)):
        running = discount * running + reward[t]
        seen.append(running.copy())
        running = np.where(done[t], 0.0, running)
    return seen, running


def test_the_reward_scale_equals_a_loop_over_windows() -> None:
    random, running, seen = np.random.default_rng(0), np.zeros(4), []
    scale = init_reward_scale(num_envs=4)
    for i in range(3):
        reward, done = drawn(i, 7, 4, offset=1.0), random.random((7, 4)) < 0.2
        more, running = loop(reward.astype(float), done, 0.9, running)
        seen += more
        scale = update_reward_scale(scale, reward, done=done, discount=0.9)
    np.testing.assert_allclose(scale.statistics.var, np.var(seen), rtol=1e-5)
    np.testing.assert_allclose(scale.running_return, running, rtol=1e-5)
    np.testing.assert_allclose(scale_reward(scale, reward), reward / np.std(seen), rtol=1e-5)
    np.testing.assert_allclose(scale_reward(scale, 1e6 * reward, clip=3.0), 3.0 * np.sign(reward))


def test_before_the_first_window_rewards_come_back_as_they_are() -> None:
    np.testing.assert_allclose(scale_reward(init_reward_scale(num_envs=2), drawn(0, 3, 2)), drawn(0, 3, 2), rtol=1e-6)


def test_rewards_keep_their_sign_and_their_zero() -> None:
    """Subtracting a mean would change the task: it would pay for long or for short episodes."""
    reward = drawn(0, 20, 2, offset=5.0)
    scale = update_reward_scale(init_reward_scale(num_envs=2), reward, done=np.zeros((20, 2), bool), discount=0.5)
    np.testing.assert_array_equal(np.sign(scale_reward(scale, reward)), np.sign(reward))
    assert scale_reward(scale, jnp.zeros(1)) == 0.0


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_one_step_of_one_environment_is_finite(reward: float) -> None:
    window, done = np.full((1, 1), reward, np.float32), np.ones((1, 1), bool)
    scale = update_reward_scale(init_reward_scale(num_envs=1), window, done=done, discount=0.9)
    np.testing.assert_array_equal(scale_reward(scale, window), 10.0 * reward)  # clipped: it never varied


SCALE = init_reward_scale(num_envs=2)
NO = np.zeros((3, 2), bool)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: after([drawn(0, 4, F + 1)]),
            ValueError,
            r"^obs must end with the shape of the statistics, \[3\], got \[4, 4\]",
        ),
        (lambda: after([np.float32(1.0)]), ValueError, "^obs must end with the shape of the statistics"),
        (lambda: after([np.zeros((0, F), np.float32)]), ValueError, "^obs is empty"),
        (lambda: after([{"a": drawn(0, 4, F)}]), ValueError, "^obs must have the tree structure of the statistics"),
        (
            lambda: after([(drawn(0, 4, F), drawn(0, 5, F))], (np.zeros(F), np.zeros(F))),
            ValueError,
            r"^the leaves of obs must have the same batch axes, got \[\[4\], \[5\]\]",
        ),
        (lambda: normalize(after([]), drawn(0, 4, 1)), ValueError, "^obs must end with the shape of the statistics"),
        (lambda: normalize(after([]), (drawn(0, F),)), ValueError, "^obs must have the tree structure"),
        (lambda: init_reward_scale(num_envs=0), ValueError, "^num_envs must be at least 1"),
        (lambda: init_reward_scale(num_envs=2.0), TypeError, "^num_envs must be a Python int"),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 3, 4), done=np.zeros((3, 4), bool), discount=0.9),
            ValueError,
            r"^reward must end with the shape of the state's running_return, \[2\], got \[3, 4\]",
        ),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 2), done=NO[0], discount=0.9),
            ValueError,
            "^reward must have at least 2",
        ),
        (
            lambda: update_reward_scale(SCALE, NO, done=NO, discount=0.9),
            TypeError,
            "^reward must have a floating dtype",
        ),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 3, 2), done=1.0 * NO, discount=0.9),
            TypeError,
            "^done must be bool",
        ),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 3, 2), done=NO[:2], discount=0.9),
            ValueError,
            "^done must have shape",
        ),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 3, 2), done=NO, discount=1.9),
            ValueError,
            "^discount must lie in",
        ),
        (
            lambda: update_reward_scale(SCALE, drawn(0, 3, 2), done=NO, discount=np.ones(2)),
            ValueError,
            "^discount must be a",
        ),
        (lambda: scale_reward(SCALE, np.ones(2, int)), TypeError, "^reward must have a floating dtype"),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()
