"""Ratios and means of whole sequences, of unequal lengths and NaN after their ends, against loops over sequences."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)

LENGTHS = (5, 3, 1, 0)
STEPS = np.arange(5)[:, None] < np.array(LENGTHS)


def sequences() -> tuple[Any, Any]:
    """Log-ratios and advantages of unequal sequences, NaN after their ends; some of them are clipped."""
    random = np.random.default_rng(3)
    log_ratio = np.where(STEPS, random.normal(scale=0.4, size=STEPS.shape) + np.array([0.0, 0.6, -0.1, 0.0]), np.nan)
    return log_ratio, np.array([-0.7, 1.3, 0.4, 2.0])


def gspo_by_hand(log_ratio: Any, advantage: Any) -> tuple[float, Any]:
    """Objective and gradient: one sequence at a time, s A by the length at each token unless s A is clipped."""
    value, gradient = 0.0, np.zeros(STEPS.shape)
    for b, length in enumerate(LENGTHS[:3]):
        s = float(np.prod(np.exp(log_ratio[:length, b])) ** (1 / length))
        plain, bound = s * advantage[b], min(max(s, 0.8), 1.2) * advantage[b]
        value += min(plain, bound) / 3
        for t in range(length):
            gradient[t, b] = (plain / length if plain <= bound else 0.0) / 3
    return value, gradient


def test_gspo_is_a_loop_over_sequences_of_unequal_lengths() -> None:
    log_ratio, advantage = sequences()
    mask, each = jnp.asarray(STEPS), jnp.broadcast_to(jnp.asarray(advantage), STEPS.shape)
    value, gradient = gspo_by_hand(log_ratio, advantage)
    assert 0 < np.count_nonzero(gradient) < STEPS.sum()  # one sequence is clipped

    def loss(x: Any, per_token: bool, reduce: Any) -> Any:
        return reduce(pg.ppo_clip_loss(pg.sequence_log_ratio(x, mask, per_token=per_token), each), mask)

    for per_token in (False, True):
        got, slope = jax.value_and_grad(loss)(jnp.asarray(log_ratio), per_token, pg.sequence_mean)
        close(got, -value)
        close(slope, -gradient)
        other = jax.grad(loss)(jnp.asarray(log_ratio), per_token, pg.masked_mean)
        assert np.abs(other + gradient).max() > 0.01  # a mean over tokens weighs the sequences by their lengths


def test_gspo_token_takes_an_advantage_for_each_token() -> None:
    log_ratio, _ = sequences()
    mask, advantage = jnp.asarray(STEPS), np.random.default_rng(4).normal(size=STEPS.shape)
    got = jax.grad(
        lambda x: pg.sequence_mean(
            pg.ppo_clip_loss(pg.sequence_log_ratio(x, mask, per_token=True), jnp.asarray(advantage), clip=9.0), mask
        )
    )(jnp.asarray(log_ratio))
    for b, length in enumerate(LENGTHS):
        s = np.exp(log_ratio[:length, b].mean()) if length else 0.0
        close(got[:length, b], -s * advantage[:length, b] / max(length, 1) / 3)
        close(got[length:, b], 0.0)


def test_sequence_log_ratios_are_bounded_step_by_step() -> None:
    x = jnp.array([[1e4, 1.0], [2.0, -jnp.inf]])
    close(pg.sequence_log_ratio(x), np.array([[11.0, -9.5], [11.0, -9.5]]))
    close(jax.grad(lambda x: pg.sequence_log_ratio(x)[0].sum())(x), np.array([[0.0, 0.5], [0.5, 0.0]]))
    close(pg.sequence_log_ratio(x, jnp.zeros((2, 2), bool)), 0.0)


def test_the_three_reductions_are_their_loops_and_differ() -> None:
    random = np.random.default_rng(5)
    x = np.where(STEPS, random.normal(size=STEPS.shape), np.nan)
    columns = [x[:n, b] for b, n in enumerate(LENGTHS) if n]
    wanted = {
        "own": np.mean([c.mean() for c in columns]),
        "constant": np.mean([c.sum() / 7.0 for c in columns]),
        "tokens": np.concatenate(columns).mean(),
    }
    given, mask = jnp.asarray(x), jnp.asarray(STEPS)
    found = {
        "own": pg.sequence_mean(given, mask),
        "constant": pg.sequence_mean(given, mask, length=7.0),
        "tokens": pg.masked_mean(given, mask),
    }
    for name, value in wanted.items():
        close(found[name], value)
    for a, b in itertools.combinations(wanted.values(), 2):
        assert abs(a - b) > 0.01
    slope = jax.grad(lambda x: pg.sequence_mean(x, mask))(given)
    close(slope, np.where(STEPS, 1.0 / np.maximum(np.array(LENGTHS), 1) / 3, 0.0))
    close(pg.sequence_mean(given, jnp.zeros_like(mask)), 0.0)
    whole = random.normal(size=(4, 3, 2))
    close(pg.sequence_mean(jnp.asarray(whole)), whole.mean())
    close(pg.sequence_mean(jnp.asarray(whole), length=1), whole.sum(0).mean())  # as estimators reduce
    lengths = np.array([[2.0, 4.0], [5.0, 1.0], [3.0, 3.0]])
    close(pg.sequence_mean(jnp.asarray(whole), length=lengths), (whole.sum(0) / lengths).mean())
