"""Weighted means over other trajectories against loops, and what they never see."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
T, B = 4, 5
RETURNS = hnp.arrays(np.float64, (T, B), elements=st.floats(-100, 100, width=32))
WEIGHTS = hnp.arrays(np.float64, (T, B), elements=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
STEPS = hnp.arrays(np.int32, (T, B), elements=st.integers(0, 3))
FOLDS = (None, 1, 2, 3, 5)
optimal = {folds: jax.jit(lambda g, w, folds=folds: pg.optimal_baseline(g, w, num_folds=folds)) for folds in FOLDS}
by_step = {folds: jax.jit(lambda g, s, w, folds=folds: pg.step_baseline(g, s, w, num_folds=folds)) for folds in FOLDS}


def others(column: int, folds: int | None) -> list[int]:
    """The columns in other folds, which are runs of neighbours; all for one fold."""
    if folds == 1:
        return list(range(B))
    cuts = [] if folds is None else np.array_split(np.arange(B), folds)
    runs = {2: [[0, 1, 2], [3, 4]], 3: [[0, 1], [2, 3], [4]]}.get(folds or 0, [[b] for b in range(B)])
    assert not cuts or len(cuts) == len(runs)
    own = next(run for run in runs if column in run)
    return [b for b in range(B) if b not in own]


def by_loops(g: Any, w: Any, step: Any, folds: int | None) -> Any:
    """The mean over the rows of the other columns whose step is the same; without steps, of the same row."""
    out = np.zeros((T, B))
    for t, b in np.ndindex(T, B):
        if step is None:
            rows = [(t, j) for j in others(b, folds)]
        else:
            rows = [(k, j) for j in others(b, folds) for k in range(T) if step[k, j] == step[t, b]]
        total = sum(w[row] for row in rows)
        out[t, b] = sum(w[row] * g[row] for row in rows) / total if total > 0 else 0.0
    return out


@given(RETURNS, WEIGHTS, STEPS)
@settings(max_examples=15, deadline=None)
def test_weighted_means_of_the_other_folds_agree_with_loops(g: Any, w: Any, step: Any) -> None:
    for folds in FOLDS:
        with jax.enable_x64(True):
            np.testing.assert_allclose(optimal[folds](g, w), by_loops(g, w, None, folds), atol=1e-11)
            np.testing.assert_allclose(by_step[folds](g, step, w), by_loops(g, w, step, folds), atol=1e-11)


def test_special_cases_have_their_old_names() -> None:
    g = np.random.default_rng(0).normal(size=(T, B))
    rows = np.tile(np.arange(T)[:, None], (1, B))
    np.testing.assert_allclose(optimal[None](g, np.ones_like(g)), pg.leave_one_out(g), atol=1e-13)
    np.testing.assert_allclose(optimal[1](g, np.ones_like(g)), pg.batch_mean(g), atol=1e-13)
    np.testing.assert_allclose(pg.step_baseline(g, rows), pg.leave_one_out(g), atol=1e-13)
    np.testing.assert_allclose(pg.optimal_baseline(g.T, np.ones_like(g.T), axis=0).T, pg.leave_one_out(g), atol=1e-13)


def test_no_baseline_sees_the_column_that_it_is_subtracted_from_unless_nothing_is_left_out() -> None:
    random = np.random.default_rng(1)
    g, w, step = random.normal(size=(T, B)), random.uniform(0.1, 2.0, size=(T, B)), random.integers(3, size=(T, B))
    for folds in FOLDS:
        for function in (functools.partial(optimal[folds], w=w), functools.partial(by_step[folds], s=step, w=w)):
            jacobian = np.asarray(jax.jacobian(function)(g))
            own = max(np.abs(jacobian[:, b, :, b]).max() for b in range(B))
            assert own > 0.05 if folds == 1 else own == 0.0
            assert np.abs(jacobian).max() > 0.1


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1, -3e-7])
def test_equal_returns_have_themselves_as_their_baseline(constant: float) -> None:
    with jax.enable_x64(False):
        g = jnp.full((2, 7), constant, jnp.float32)
        w = jnp.asarray(np.random.default_rng(2).uniform(0.1, 3.0, size=(2, 7)), jnp.float32)
        np.testing.assert_array_equal(pg.optimal_baseline(g, w), g)
        np.testing.assert_array_equal(pg.step_baseline(g, jnp.tile(jnp.arange(7), (2, 1)) // 4, w), g)


def test_a_large_weight_costs_the_others_no_digits() -> None:
    with jax.enable_x64(False):
        g, w = jnp.array([[1.0, 2.0, 4.0]]), jnp.array([[1.0, 3.0, 1e9]])
        np.testing.assert_allclose(pg.optimal_baseline(g, w)[0, 2], 1.75, rtol=1e-6)
        np.testing.assert_allclose(pg.step_baseline(g, jnp.zeros((1, 3), int), w)[0, 2], 1.75, rtol=1e-6)


def test_only_trajectories_are_compared_where_agents_share_environments() -> None:
    """Returns [T, B, A]: agents of one environment are not independent of one another."""
    g = np.random.default_rng(3).normal(size=(T, B, 3))
    w, step = np.ones_like(g), np.tile(np.arange(T)[:, None, None], (1, B, 3))
    alone = np.stack([pg.leave_one_out(g[..., a]) for a in range(3)], -1)
    for got in (pg.leave_one_out(g, axis=1), pg.optimal_baseline(g, w, axis=1)):
        np.testing.assert_allclose(got, alone, atol=1e-13)
    np.testing.assert_allclose(pg.batch_mean(g, axis=1)[..., 0], pg.batch_mean(g[..., 0]), atol=1e-13)
    pooled = (g.sum((1, 2), keepdims=True) - g.sum(2, keepdims=True)) / (3 * (B - 1))
    np.testing.assert_allclose(pg.step_baseline(g, step), np.broadcast_to(pooled, g.shape), atol=1e-13)


def test_an_estimator_with_leave_one_out_is_right_with_agents() -> None:
    batch = tabular.random_window(4, 5, 2)
    logits = tabular.problem("three_state")[1]
    kwargs = {"policy": tabular.policy, "discount": 0.9}
    others = functools.partial(pg.leave_one_out, axis=1)
    grads, _ = pg.reinforce.per_trajectory(logits, batch, baseline=others, **kwargs)
    for agent in range(2):
        one = jax.tree.map(lambda x, agent=agent: x[:, :, agent], batch)
        want, _ = pg.reinforce.per_trajectory(logits, one, baseline=pg.leave_one_out, **kwargs)
        np.testing.assert_allclose(grads[:, agent], want, atol=1e-12)


def test_bad_arguments_are_refused_by_name() -> None:
    g, w, step = jnp.ones((T, B)), jnp.ones((T, B)), jnp.zeros((T, B), int)
    for call, error, message in (
        (lambda: pg.optimal_baseline(g[:, :1], w[:, :1]), ValueError, "num_folds=None leaves each .* got 1"),
        (lambda: pg.optimal_baseline(g, w, num_folds=6), ValueError, "num_folds=6 must not exceed the 5 trajectories"),
        (lambda: pg.optimal_baseline(g, w, num_folds=0), ValueError, "num_folds must be at least 1, got 0"),
        (lambda: pg.optimal_baseline(g, w, num_folds=2.0), TypeError, "num_folds must be a Python int"),
        (lambda: pg.optimal_baseline(g, w[0]), ValueError, "square_score must have the shape of return_"),
        (lambda: pg.step_baseline(g[:, :1], step[:, :1]), ValueError, "num_folds=None leaves each .* got 1"),
        (lambda: pg.step_baseline(g, g), TypeError, "step must be an integer array"),
        (lambda: pg.step_baseline(g, step[0]), ValueError, "step must have the shape of return_"),
        (lambda: pg.step_baseline(g[0], step[0]), ValueError, "return_ must have at least 2 axes"),
    ):
        with pytest.raises(error, match=message):
            call()
