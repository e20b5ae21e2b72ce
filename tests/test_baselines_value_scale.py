"""PopArt: statistics against weighted sums, and outputs that an update does not change."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def test_the_statistics_are_those_of_all_batches_with_weights_that_decay() -> None:
    random, decay = np.random.default_rng(0), 0.8
    batches = 1e4 + random.normal(size=(9, 6, 2)) * np.array([1.0, 30.0])
    state = pg.init_value_scale((2,))
    np.testing.assert_array_equal(state.scale, 1.0)
    for n in range(9):
        state = pg.update_value_scale(state, jnp.asarray(batches[n], jnp.float32), decay=decay)
        weights = decay ** np.arange(n, -1, -1)
        weights /= weights.sum()
        mean = np.einsum("k,kij->j", weights, batches[: n + 1]) / 6
        var = np.einsum("k,kij->j", weights, (batches[: n + 1] - mean) ** 2) / 6
        np.testing.assert_allclose(state.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(state.scale, np.sqrt(var), rtol=5e-3)  # float32 holds 1e4 to 1e-3


def test_the_scale_is_bounded() -> None:
    constant = pg.update_value_scale(pg.init_value_scale(), jnp.full(3, 7.0))
    np.testing.assert_allclose(constant.scale, 1e-4, rtol=1e-6)
    huge = pg.update_value_scale(pg.init_value_scale(), jnp.array([-1e9, 1e9]))
    np.testing.assert_allclose(huge.scale, 1e6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_update_and_a_rescaled_head_change_no_prediction(shape: tuple[int, ...]) -> None:
    """With a Flax Dense head, across several updates in float64; without the rescaling predictions jump."""
    outputs = shape[0] if shape else 1
    with jax.enable_x64(True):
        random = np.random.default_rng(1)
        dense = nn.Dense(outputs, param_dtype=float)
        x = jnp.asarray(random.normal(size=(5, 4)))
        head = jax.tree.map(lambda w: w + 0.3, dense.init(jax.random.key(0), x)["params"])
        state = pg.update_value_scale(pg.init_value_scale(shape), jnp.asarray(random.normal(size=(8, outputs)) * 3 + 5))
        says = jax.jit(lambda state, head: pg.denormalize_value(state, dense.apply({"params": head}, x)))
        before = says(state, head)
        assert float(jnp.std(before)) > 0.1
        for n in range(3):
            returns = jnp.asarray(random.normal(size=(7, outputs)) * 10.0 ** (n + 1) - 50)
            after = pg.update_value_scale(state, returns, decay=0.6)
            assert np.abs(says(after, head) - before).max() > 1.0
            state, head = after, pg.rescale_value_head(head, state, after)
            np.testing.assert_allclose(says(state, head), before, rtol=1e-12)


def test_normalising_is_undone_and_carries_gradients_to_the_value_alone() -> None:
    state = pg.update_value_scale(pg.init_value_scale(), jnp.array([10.0, 14.0, 30.0]))
    g = jnp.array([[3.0, -4.0], [0.0, 50.0]])
    normal = pg.normalize_value(state, g)
    np.testing.assert_allclose(pg.denormalize_value(state, normal), g, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(pg.normalize_value(state, jnp.array([10.0, 14.0, 30.0])).mean(), 0.0, atol=1e-6)
    np.testing.assert_allclose(pg.normalize_value(state, jnp.array([10.0, 14.0, 30.0])).std(), 1.0, rtol=1e-6)
    slopes = jax.grad(lambda s, v: pg.denormalize_value(s, v).sum(), argnums=(0, 1))(state, g)
    np.testing.assert_allclose(slopes[1], state.scale, rtol=1e-6)
    for leaf in jax.tree.leaves(slopes[0]):
        np.testing.assert_array_equal(leaf, 0.0)
    through: Any = jax.grad(lambda g: pg.update_value_scale(state, g).mean)(g)
    np.testing.assert_array_equal(through, 0.0)


def test_bad_scales_are_named() -> None:
    one, three = pg.init_value_scale(), pg.init_value_scale((3,))
    head = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
    for call, error, message in (
        (lambda: pg.update_value_scale(three, jnp.ones((4, 2))), ValueError, "return_ must end with the shape of"),
        (lambda: pg.update_value_scale(one, jnp.ones(0)), ValueError, "return_ is empty"),
        (lambda: pg.update_value_scale(one, jnp.ones(2), decay=1.5), ValueError, r"decay must lie in \[0, 1\]"),
        (lambda: pg.normalize_value(three, jnp.ones(2)), ValueError, "return_ must end with the shape of the state"),
        (lambda: pg.denormalize_value(three, jnp.ones(3, int)), TypeError, "value must have a floating dtype"),
        (lambda: pg.rescale_value_head({"Dense_0": head}, one, one), TypeError, "head must be a dict of kernel and"),
        (lambda: pg.rescale_value_head({**head, "bias": jnp.ones(2)}, three, three), ValueError, "must end with"),
        (lambda: pg.rescale_value_head(head, one, three), ValueError, "old.mean"),
    ):
        with pytest.raises(error, match=message):
            call()
