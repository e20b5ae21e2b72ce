"""Baselines against loops, and that they never see the sample that they are subtracted from."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")

RETURNS = hnp.arrays(np.float64, (3, 5), elements=st.floats(-100, 100, width=32))


def mean_of_the_others(g: Any, mask: Any) -> Any:
    """By O(N²) loops over the last axis."""
    out = np.zeros(g.shape)
    for t in range(g.shape[0]):
        for i in range(g.shape[1]):
            others = [g[t, j] for j in range(g.shape[1]) if j != i and mask[t, j]]
            out[t, i] = sum(others) / len(others) if others else 0.0
    return out


@given(RETURNS, hnp.arrays(np.bool_, (3, 5)))
@settings(max_examples=20, deadline=None)
def test_leave_one_out_is_the_mean_of_the_others(g: Any, mask: Any) -> None:
    with jax.enable_x64(True):
        got = pg.leave_one_out(jnp.asarray(g))
        np.testing.assert_allclose(got, mean_of_the_others(g, np.ones_like(mask)), atol=1e-11)
        np.testing.assert_allclose(pg.leave_one_out(jnp.asarray(g.T), axis=0), got.T, atol=1e-11)
        # G - b = N/(N-1) (G - mean)
        np.testing.assert_allclose(g - got, 5 / 4 * (g - g.mean(1, keepdims=True)), atol=1e-11)
        filled = jnp.asarray(np.where(mask, g, np.nan))
        masked = pg.leave_one_out(filled, jnp.asarray(mask))
        np.testing.assert_allclose(masked, mean_of_the_others(g, mask), atol=1e-11)
        np.testing.assert_allclose(
            pg.leave_one_out(filled.T, jnp.asarray(mask.T), axis=0), masked.T, atol=1e-11, equal_nan=False
        )


@pytest.mark.parametrize("other", [1e9, -1e9, np.inf, np.nan])
def test_what_does_not_count_costs_leave_one_out_no_digits(other: float) -> None:
    g, mask = jnp.array([1.0, 2.0, 3.0, other], jnp.float32), jnp.array([True, True, True, False])
    np.testing.assert_allclose(pg.leave_one_out(g, mask), [2.5, 2.0, 1.5, 2.0], rtol=1e-6)


def test_equal_returns_have_themselves_as_the_mean_of_the_others() -> None:
    for constant in (0.1, 1e6 + 0.1, -3e-7):
        g = jnp.full((2, 7), constant, jnp.float32)
        np.testing.assert_array_equal(pg.leave_one_out(g), g)


def test_leave_one_out_does_not_see_its_own_return() -> None:
    g = jnp.array([[1.0, 2.0, 6.0], [3.0, -1.0, 0.5]])
    jacobian = jax.jacobian(pg.leave_one_out)(g)
    for t in range(2):
        for i in range(3):
            own = np.zeros((2, 3))
            own[t] = 0.5
            own[t, i] = 0.0
            np.testing.assert_allclose(jacobian[t, i], own, atol=1e-6)


def test_leave_one_out_needs_others() -> None:
    for alone, axis in ((jnp.ones((4, 1)), -1), (jnp.ones((1, 4)), 0)):
        with pytest.raises(ValueError, match=rf"return_ must hold at least 2 trajectories along axis {axis}"):
            pg.leave_one_out(alone, axis=axis)
    with pytest.raises(TypeError, match="return_ must have a floating dtype"):
        pg.leave_one_out(jnp.arange(3))
    with pytest.raises(TypeError, match="mask must be boolean"):
        pg.leave_one_out(jnp.ones(3), jnp.ones(3))
    with pytest.raises(ValueError, match=r"mask must have shape \[2, 3\], got \[3\]"):
        pg.leave_one_out(jnp.ones((2, 3)), jnp.ones(3, bool))


def test_the_step_mean_is_the_mean_of_each_step() -> None:
    g = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(pg.batch_mean(g), np.tile(g.mean(1, keepdims=True), (1, 3)), rtol=1e-5)
    np.testing.assert_allclose(pg.batch_mean(g, axis=0), np.tile(g.mean(0), (4, 1)), rtol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_a_moving_mean_of_a_constant_is_that_constant_from_the_first_update_on(decay: float) -> None:
    """Debiasing what is stored debiased would give 1, 5.3, 17.8, ... times the constant."""
    state = pg.init_moving_mean()
    assert float(pg.moving_mean(state)) == 0.0
    for _ in range(6):
        state = pg.update_moving_mean(state, jnp.full((4, 2), 3.7), decay=decay)
        np.testing.assert_allclose(pg.moving_mean(state), 3.7, rtol=2e-6)


def test_a_moving_mean_follows_the_weighted_sum_of_all_batches() -> None:
    random = np.random.default_rng(1)
    batches, decay = random.normal(size=(12, 5)).astype(np.float32), 0.8
    state = pg.init_moving_mean()
    for n in range(12):
        before = pg.moving_mean(state)
        weights = [decay ** (n - 1 - k) for k in range(n)]
        expected = sum(w * batches[k].mean() for k, w in enumerate(weights)) / sum(weights) if n else 0.0
        np.testing.assert_allclose(before, expected, rtol=1e-5, atol=1e-6)
        state = pg.update_moving_mean(state, batches[n], decay=decay)
        assert abs(float(pg.moving_mean(state)) - float(before)) > 0


def test_the_moving_mean_read_before_the_update_does_not_depend_on_the_batch() -> None:
    def estimate(batch: Any) -> Any:
        state = pg.update_moving_mean(pg.init_moving_mean(), jnp.array([1.0, 2.0]), decay=0.9)
        baseline = pg.moving_mean(state)
        return baseline, pg.moving_mean(pg.update_moving_mean(state, batch, decay=0.9))

    before, after = jax.jacobian(estimate)(jnp.array([5.0, 6.0]))
    np.testing.assert_array_equal(before, 0.0)
    np.testing.assert_array_equal(after, 0.0)  # no gradient flows through the state either
    assert float(estimate(jnp.array([5.0, 6.0]))[1]) > float(estimate(jnp.array([0.0, 0.0]))[1])


def test_a_moving_mean_can_be_carried_through_a_scan_in_any_precision() -> None:
    for x64 in (False, True):
        with jax.enable_x64(x64):
            decay = jnp.asarray(0.9, float)  # float64 where there is one
            step = lambda s, g: (pg.update_moving_mean(s, g, decay=decay), pg.moving_mean(s))  # noqa: E731, B023
            state, seen = jax.lax.scan(step, pg.init_moving_mean(), jnp.ones((5, 2)))
            np.testing.assert_allclose(seen, [0, 1, 1, 1, 1], rtol=1e-5)
            assert state.total.dtype == jnp.float32


def test_bad_moving_means_are_named() -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\], got 1.5"):
        pg.update_moving_mean(pg.init_moving_mean(), jnp.ones(2), decay=1.5)
    with pytest.raises(TypeError, match="return_ must have a floating dtype"):
        pg.update_moving_mean(pg.init_moving_mean(), jnp.ones(2, int))
    with pytest.raises(ValueError, match="return_ is empty"):
        pg.update_moving_mean(pg.init_moving_mean(), jnp.ones(0))


def window(obs: Any) -> pg.Trajectory:
    shape = obs.shape[:-1]
    no = jnp.zeros(shape, bool)
    return pg.Trajectory(obs, no.astype(int), jnp.ones(shape), obs, no, no, jnp.zeros(shape), no.astype(int))


def test_the_value_baseline_is_the_value_without_gradient() -> None:
    batch = window(jnp.asarray(np.random.default_rng(2).normal(size=(4, 3, 2)).astype(np.float32)))
    value = lambda params, obs: obs @ params  # noqa: E731
    params = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(pg.value_baseline(params, batch, value=value), batch.obs @ params, rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda p: pg.value_baseline(p, batch, value=value).sum())(params), 0.0)
    with pytest.raises(
        ValueError, match=r"the result of value\(params, obs\) must have the shape of trajectory.reward"
    ):
        pg.value_baseline(params, batch, value=lambda p, obs: obs)
    with pytest.raises(TypeError, match=r"the result of value\(params, obs\) must have a floating dtype"):
        pg.value_baseline(params, batch, value=lambda p, obs: jnp.zeros(obs.shape[:-1], int))
    with pytest.raises(TypeError, match="value must be a function"):
        pg.value_baseline(params, batch, value=3)
