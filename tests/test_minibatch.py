"""Shuffles are permutations and look random; epochs visit every row once; micro-batches add up to the batch."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from scipy import stats

import pgjax as pg
from pgjax.minibatch import _noise

pytestmark = pytest.mark.usefixtures("quick_to_compile")

SIZES = [1, 2, 3, 5, 9, 16, 17, 47, 97, 256, 257, 4099, 65536, 65537, 100_003]  # the slow test takes all up to 300


def assert_permutation(order: Any, size: int) -> None:
    assert order.shape == (size,)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


# --- permutations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_index_comes_once(size: int) -> None:
    for seed in range(1 if size > 300 else 3):
        assert_permutation(pg.permutation(jax.random.key(seed), size=size), size)


@pytest.mark.slow
@pytest.mark.parametrize("size", range(1, 301))
def test_every_index_comes_once_for_every_small_size_and_many_keys(size: int) -> None:
    orders = jax.vmap(lambda key: pg.permutation(key, size=size))(jax.random.split(jax.random.key(size), 500))
    np.testing.assert_array_equal(np.sort(orders, 1), np.tile(np.arange(size), (500, 1)))


def test_the_sort_is_a_permutation_and_the_key_may_be_a_legacy_one() -> None:
    assert_permutation(pg.permutation(jax.random.key(0), size=100, method="sort"), 100)
    assert_permutation(pg.permutation(jax.random.PRNGKey(0), size=100), 100)


KEYS = 6000


def weak_hash(key: Any, *, size: int) -> Any:
    """Four rounds of multiply, add and xor-shift: a bijection on powers of two that is far from random on few bits."""
    bits, words = (size - 1).bit_length(), jax.random.bits(key, (4, 2), jnp.uint32)
    x = jnp.arange(size, dtype=jnp.uint32)
    for word in words:
        x = (x * (word[0] | 1) + word[1]) & (2**bits - 1)
        x = x ^ (x >> (bits // 2))
    return x.astype(jnp.int32)


def smallest_p_value(permute: Any, size: int) -> float:
    """The smallest p-value of chi-square tests that all places, and all pairs of places, are equally likely."""
    orders = np.asarray(jax.vmap(lambda key: permute(key, size=size))(jax.random.split(jax.random.key(size), KEYS)))
    p_values = []
    for i in range(size):
        p_values.append(stats.chisquare(np.bincount(orders[:, i], minlength=size)).pvalue)
        for j in range(i + 1, size):
            joint = np.bincount(orders[:, i] * size + orders[:, j], minlength=size * size)
            assert not joint[:: size + 1].any()
            p_values.append(stats.chisquare(joint.reshape(size, size)[~np.eye(size, dtype=bool)]).pvalue)
    return min(p_values) * len(p_values)  # Bonferroni


@pytest.mark.parametrize("size", [2, 3, 5, 8, 11])
def test_places_and_pairs_of_places_are_equally_likely(size: int) -> None:
    """6000 keys see it, at size 8, if half of the pairs of places are 1.25 times as likely as the other half."""
    assert smallest_p_value(pg.permutation, size) > 1e-3


@pytest.mark.parametrize("size", [4, 8])
def test_the_test_of_pairs_sees_a_weak_hash(size: int) -> None:
    assert smallest_p_value(weak_hash, size) < 1e-12


def test_all_orders_of_four_are_equally_likely() -> None:
    keys = jax.random.split(jax.random.key(1), KEYS)
    orders = np.asarray(jax.vmap(lambda key: pg.permutation(key, size=4))(keys))
    counts = np.unique(orders @ np.array([64, 16, 4, 1]), return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("size", [1000, 4096, 65536, 65537])
def test_neighbours_are_torn_apart(size: int) -> None:
    orders = np.asarray(
        jax.jit(jax.vmap(lambda key: pg.permutation(key, size=size)))(jax.random.split(jax.random.key(2), 8))
    )
    for order in orders:
        for apart in (1, 2, 16, size // 2):
            gap = (order[apart:] - order[:-apart]) % size
            # Of n random gaps a share of about 1 - 1/e is distinct; an affine map has one.
            share = len(np.unique(gap)) / len(gap)
            expected = -np.expm1(-len(gap) / size) * size / len(gap)
            assert abs(share - expected) < 5 / np.sqrt(len(gap))
            assert stats.chisquare(np.bincount(gap * 32 // size, minlength=32)[1:-1]).pvalue > 1e-6
            assert abs(np.corrcoef(order[apart:], order[:-apart])[0, 1]) < 5.5 / np.sqrt(len(gap))
        assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 5 / np.sqrt(size)
        cells = np.bincount(order // (size // 16 + 1) * 16 + np.arange(size) // (size // 16 + 1), minlength=256)
        assert stats.chi2.sf(((cells - size / 256) ** 2 / (size / 256)).sum(), 225) > 1e-6


def test_other_keys_give_other_orders() -> None:
    orders = np.asarray(jax.vmap(lambda key: pg.permutation(key, size=1000))(jax.random.split(jax.random.key(3), 40)))
    agreements = [(orders[i] == orders[j]).sum() for i in range(40) for j in range(i)]
    # Two random orders agree in a number of places that is Poisson with mean 1.
    assert abs(np.mean(agreements) - 1) < 5 / np.sqrt(len(agreements))
    assert max(agreements) < 12
    same = pg.permutation(jax.random.key(5), size=1000), pg.permutation(jax.random.key(5), size=1000)
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize("place", [0, 2])
def test_no_key_makes_the_hash_collapse(place: int) -> None:
    """Its multipliers are made odd: times 2^31 nothing would be left of a number but its last bit."""
    words = np.array([3_141_592_653, 0, 2_718_281_829], np.uint32)
    words[place] = 2**31
    hashes = _noise(jnp.arange(2**16, dtype=jnp.uint32), jnp.asarray(words), 2**16)
    # Of n cells that n items fall into at random a share of 1 - 1/e is hit.
    assert len(np.unique(hashes)) > 2**16 * 0.2


def test_bad_permutations_are_named() -> None:
    key = jax.random.key(0)
    for size, kind, message in (
        (0, ValueError, "size must be at least 1, got 0"),
        (2**31, ValueError, r"size must be below 2\^31"),
        (3.0, TypeError, "size must be a Python int"),
        (True, TypeError, "size must be a Python int"),
    ):
        with pytest.raises(kind, match=message):
            pg.permutation(key, size=size)
    with pytest.raises(ValueError, match='method must be "hash" or "sort", got \'quick\''):
        pg.permutation(key, size=3, method="quick")  # type: ignore[arg-type]


# --- epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hash", "sort"])
def test_each_epoch_visits_each_row_once_in_a_fresh_order(method: Any) -> None:
    ids = jnp.arange(6 * 4).reshape(6, 4)
    data = {"id": ids, "features": jnp.stack([10.0 * ids, -1.0 * ids], -1), "absent": None}

    def step(carry: Any, batch: Any) -> Any:
        assert batch["features"].shape == (8, 2)
        assert batch["absent"] is None
        return 0.5 * carry + batch["id"].sum(), batch

    carry, seen = pg.epochs(jax.random.key(0), 100.0, data, step=step, num_epochs=4, num_minibatches=3, method=method)
    assert seen["id"].shape == (4, 3, 8)
    for epoch in np.asarray(seen["id"]):
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(24))
    assert len({tuple(epoch.ravel()) for epoch in np.asarray(seen["id"])}) == 4
    np.testing.assert_array_equal(seen["features"], np.stack([10 * seen["id"], -seen["id"]], -1))
    expected = 100.0
    for total in np.asarray(seen["id"]).sum(-1).ravel():
        expected = 0.5 * expected + total
    np.testing.assert_allclose(carry, expected, rtol=1e-6)


def test_sequences_stay_whole_when_one_axis_is_shuffled() -> None:
    data = jnp.arange(12).reshape(4, 3)
    _, seen = pg.epochs(
        jax.random.key(1), 0, data, step=lambda c, x: (c, x), num_epochs=2, num_minibatches=2, num_axes=1
    )
    assert seen.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(np.sort(np.asarray(seen[..., 0]).reshape(2, -1)), [[0, 3, 6, 9]] * 2)
    np.testing.assert_array_equal(seen - seen[..., :1], np.broadcast_to([0, 1, 2], seen.shape))


def test_bad_epochs_are_named() -> None:
    data = jnp.zeros((4, 3))
    good = {"step": lambda c, x: (c, x), "num_epochs": 1, "num_minibatches": 2}
    for change, batch, kind, message in (
        ({"num_minibatches": 5}, data, ValueError, "num_minibatches=5 must divide the 12 rows of data"),
        ({"num_minibatches": 0}, data, ValueError, "num_minibatches must be at least 1"),
        ({"num_epochs": 1.5}, data, TypeError, "num_epochs must be a Python int"),
        ({"num_axes": 0}, data, ValueError, "num_axes must be at least 1"),
        ({"num_axes": 3}, data, ValueError, "data must have 3 leading axes in common"),
        ({"step": 3}, data, TypeError, "step must be a function"),
        ({}, {"a": data, "b": data[:2]}, ValueError, r"data must have 2 leading axes .* got \[\[2, 3\], \[4, 3\]\]"),
        ({}, {"a": data, "b": data[:, 0]}, ValueError, r"data must have 2 leading axes .* got \[\[4\], \[4, 3\]\]"),
        ({}, {}, ValueError, "data must have 2 leading axes"),
        ({}, data[:0], ValueError, "must divide the 0 rows"),
    ):
        with pytest.raises(kind, match=message):
            pg.epochs(jax.random.key(0), 0, batch, **{**good, **change})


# --- micro-batches ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_finding_5_microbatches_of_a_trajectory_average_to_the_gradient_of_the_whole_batch() -> None:
    """Without an axis the environments are split: split along time, a return would end with each part."""
    batch, logits = tabular.random_window(0, 6), tabular.problem("three_state")[1]
    shapes = set()

    def gradient(trajectory: Any) -> Any:
        shapes.add(trajectory.reward.shape)
        grads, info = pg.reinforce(logits, trajectory, policy=tabular.policy, discount=0.9)
        return grads, info.loss, info.num_nonfinite

    whole, whole_loss, _ = gradient(batch)
    for data in (batch, {"batch": batch, "weight": jnp.ones((7, 6))}):
        part = gradient if data is batch else (lambda data: gradient(data["batch"]))
        grads, loss, bad = pg.accumulate(part, data, num_microbatches=2)
        np.testing.assert_allclose(grads, whole, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(loss, whole_loss, rtol=1e-12)
        assert bad == 0
    assert shapes == {(7, 6), (7, 3)}
    along_time, *_ = pg.accumulate(gradient, batch.replace(reward=batch.reward + 1.0), num_microbatches=7, axis=0)
    assert np.linalg.norm(along_time) < 0.5 * np.linalg.norm(whole)  # what the axis of time would give


def test_microbatches_are_cut_along_the_axis_that_is_given() -> None:
    data = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    for parts, axis in itertools.product((1, 2, 6), (0, 1, -1)):
        got = pg.accumulate(jnp.max, data, num_microbatches=parts, axis=axis)
        np.testing.assert_allclose(got, np.mean([x.max() for x in np.split(data, parts, axis)]), rtol=1e-6)


def test_finding_5_microbatches_of_a_rollout_state_are_environments_and_other_arrays_need_an_axis() -> None:
    state = pg.RolloutState(*[jnp.arange(6.0)] * 8)
    got = pg.accumulate(lambda state: state.obs.max(), state, num_microbatches=3)
    np.testing.assert_allclose(got, (1 + 3 + 5) / 3)
    batch = tabular.random_window(0, 6)
    for data, match in (
        (jnp.zeros((4, 6)), "^axis is required where data holds no Trajectory: pass axis=1 for arrays"),
        ({"reward": batch.reward}, "^axis is required where data holds no Trajectory"),
        ((batch, state), "^axis is required where data holds trajectories and states"),
    ):
        with pytest.raises(ValueError, match=match):
            pg.accumulate(lambda x: 0.0, data, num_microbatches=2)
    with pytest.raises(ValueError, match=r"^every leaf of data must have the axis 1, got shape \[4\]"):
        pg.accumulate(lambda x: 0.0, (batch, jnp.zeros(4)), num_microbatches=2)


def test_microbatches_gather_in_float32_and_keep_the_dtype() -> None:
    data = jnp.ones((512, 2), jnp.bfloat16)
    mean, count = pg.accumulate(
        lambda x: (x.mean(), (x > 0).sum(dtype=jnp.int32)), data, num_microbatches=512, axis=0
    )  # in bfloat16 the sum would stop half way
    assert mean.dtype == jnp.bfloat16
    assert mean == 1.0
    assert count.dtype == jnp.float32
    assert count == 2.0


def test_bad_microbatches_are_named() -> None:
    with pytest.raises(ValueError, match="num_microbatches=4 must divide the 6 rows of data"):
        pg.accumulate(lambda x: x.sum(), jnp.zeros((6, 2)), num_microbatches=4, axis=0)
    with pytest.raises(ValueError, match="data must have 1 leading axes in common"):
        pg.accumulate(lambda x: x, {"a": jnp.zeros((6, 2)), "b": jnp.zeros((4, 2))}, num_microbatches=2, axis=0)
    with pytest.raises(TypeError, match="function must be a function"):
        pg.accumulate(3, jnp.zeros((6, 2)), num_microbatches=2, axis=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="num_microbatches must be a Python int"):
        pg.accumulate(lambda x: x, jnp.zeros((6, 2)), num_microbatches=2.0, axis=0)  # type: ignore[arg-type]
