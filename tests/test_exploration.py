"""Noise around deterministic policies: exact laws, units of the box, and random actions before anything is learned."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import pgjax as pg
from pgjax.exploration import (
    ClippedNormal,
    Deterministic,
    WarmUp,
    ornstein_uhlenbeck,
    smooth_action,
    spread_of_scales,
)

pytestmark = pytest.mark.usefixtures("quick_to_compile")
KEY = jax.random.key(3)
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)  # half widths 2 and 0.5


def test_a_point_mass_acts_alike_whatever_is_drawn_and_its_mass_is_one() -> None:
    point = Deterministic(jnp.array([[0.5, -1.0], [2.0, 0.0]]))
    action, log_prob = point.sample_and_log_prob(KEY)
    np.testing.assert_array_equal(action, point.action)
    np.testing.assert_array_equal(point.mode(), point.action)
    np.testing.assert_array_equal(log_prob, 0.0)
    np.testing.assert_array_equal(point.log_prob(action.at[1, 1].add(1e-3)), [0.0, -np.inf])
    slope = jax.grad(lambda a: jnp.sum(Deterministic(a).sample(KEY) ** 2))(jnp.array([3.0]))
    np.testing.assert_array_equal(slope, [6.0])


def test_noise_is_in_half_widths_of_the_box_and_stays_inside() -> None:
    noisy = ClippedNormal(jnp.array([1.0, 0.5]), 0.3, LOW, HIGH)
    np.testing.assert_allclose(noisy.sample_from(jnp.array([1.0, 1.0])), [1.0 + 0.6, 0.5 + 0.15], rtol=1e-6)
    np.testing.assert_array_equal(noisy.sample_from(jnp.array([9.0, -9.0])), [2.0, 0.0])
    drawn = np.asarray(jax.vmap(noisy.sample)(jax.random.split(KEY, 4000)))
    inside = (drawn > LOW) & (drawn < HIGH)
    for i, std in enumerate((0.6, 0.15)):
        a, b = (LOW[i] - noisy.loc[i]) / std, (HIGH[i] - noisy.loc[i]) / std
        share = scipy.stats.norm.cdf(b) - scipy.stats.norm.cdf(a)
        assert abs(inside[:, i].mean() - share) < 4 * math.sqrt(share * (1 - share) / 4000) + 1e-3
        wanted = scipy.stats.truncnorm(a, b, noisy.loc[i], std).std()
        assert abs(drawn[inside[:, i], i].std() / wanted - 1) < 0.06


def test_the_log_probability_is_a_density_inside_and_a_mass_at_the_bounds() -> None:
    noisy = ClippedNormal(jnp.array([1.0]), 0.3, LOW[:1], HIGH[:1])
    law = scipy.stats.norm(1.0, 0.6)
    wanted = [law.logpdf(0.3), law.logcdf(-2.0), law.logsf(2.0), -np.inf]
    log_prob = jax.jit(ClippedNormal.log_prob)
    np.testing.assert_allclose(log_prob(noisy, jnp.array([[0.3], [-2.0], [2.0], [2.1]])), wanted, rtol=2e-5)
    grid = np.linspace(-2, 2, 4001)[1:-1]
    total = np.exp(log_prob(noisy, jnp.asarray(grid[:, None], jnp.float32))).sum() * (grid[1] - grid[0])
    assert abs(total + np.exp(wanted[1]) + np.exp(wanted[2]) - 1) < 1e-3
    silent = ClippedNormal(jnp.array([1.0]), 0.0, LOW[:1], HIGH[:1])
    np.testing.assert_array_equal(silent.sample(KEY), [1.0])
    slope = jax.jit(jax.grad(lambda loc: ClippedNormal(loc, 0.3).log_prob(jnp.ones(1))))(jnp.zeros(1))
    assert np.isfinite(slope).all()


def test_the_mode_is_inside_the_box() -> None:
    np.testing.assert_array_equal(ClippedNormal(jnp.array([3.0, -1.0]), 0.3, LOW, HIGH).mode(), [2.0, 0.0])


@pytest.mark.parametrize("random", [True, False])
def test_in_a_warm_up_actions_are_uniform_in_a_box_and_afterwards_those_of_the_policy(random: bool) -> None:
    policy = Deterministic(jnp.broadcast_to(jnp.array([1.5, 0.25]), (500, 2)))
    acting = WarmUp(jnp.bool_(random), policy, LOW, HIGH)
    drawn = np.asarray(jax.vmap(acting.sample)(jax.random.split(KEY, 8))).reshape(-1, 2)
    log_prob = acting.log_prob(jnp.asarray(drawn[:500]))
    np.testing.assert_array_equal(acting.mode(), policy.action)
    if not random:
        np.testing.assert_array_equal(drawn[:500], policy.action)
        np.testing.assert_array_equal(log_prob, 0.0)
        return
    for i in range(2):
        uniform = scipy.stats.uniform(LOW[i], HIGH[i] - LOW[i])
        assert scipy.stats.kstest(drawn[:, i], uniform.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 4 / math.sqrt(len(drawn))
    np.testing.assert_allclose(log_prob, -math.log(4.0), rtol=1e-6)
    outside = jnp.broadcast_to(jnp.array([0.0, 1.5]), (500, 2))
    np.testing.assert_array_equal(acting.log_prob(outside), -np.inf)


def test_in_a_warm_up_discrete_actions_are_uniform_and_a_mask_still_holds() -> None:
    mask = jnp.array([True, False, True, True])
    policy = pg.Categorical(jnp.broadcast_to(jnp.array([9.0, 0.0, 0.0, 0.0]), (3000, 4)), jnp.tile(mask, (3000, 1)))
    counts = np.bincount(WarmUp(True, policy).sample(KEY), minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-3
    np.testing.assert_allclose(WarmUp(True, policy).log_prob(jnp.zeros(3000, jnp.int32)), -math.log(3), rtol=1e-6)
    assert np.bincount(WarmUp(False, policy).sample(KEY), minlength=4)[0] > 2900


def test_a_rollout_acts_with_given_noise_and_at_random_in_the_rows_that_warm_up() -> None:
    """Row by row: the flag is an array, not a branch."""
    rows = jnp.arange(4) < 2
    acting = WarmUp(rows, ClippedNormal(jnp.zeros((4, 2)), 0.5, LOW, HIGH), LOW, HIGH)
    uniform, normal = jnp.full((4, 2), 0.75), jnp.ones((4, 2))
    action = acting.sample_from((uniform, normal))
    np.testing.assert_allclose(action[:2], np.broadcast_to([1.0, 0.75], (2, 2)))
    np.testing.assert_allclose(action[2:], np.broadcast_to([1.0, 0.25], (2, 2)))
    np.testing.assert_array_equal(action, jax.jit(lambda d, n: d.sample_from(n))(acting, (uniform, normal)))


@pytest.mark.parametrize("theta", [0.15, 1.0])
def test_the_process_is_stationary_and_forgets_at_its_rate(theta: float) -> None:
    """Against the recursion by hand, and its covariance over many rows."""
    start = jax.random.normal(KEY, (20_000, 1))
    state, noise = ornstein_uhlenbeck(jax.random.key(5), start, num_steps=4, theta=theta)
    fresh, x = np.asarray(jax.random.normal(jax.random.key(5), (4, 20_000, 1))), np.asarray(start)
    for t in range(4):
        x = (1 - theta) * x + math.sqrt(1 - (1 - theta) ** 2) * fresh[t]
        np.testing.assert_allclose(noise[t], x, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(state, noise[-1])
    covariance = np.cov(np.concatenate([start[None], noise])[..., 0])
    distance = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    np.testing.assert_allclose(covariance, (1 - theta) ** distance, atol=5 / math.sqrt(20_000))


def test_where_an_episode_starts_the_process_forgets_everything() -> None:
    restart = jnp.array([True, False])
    ends = [ornstein_uhlenbeck(KEY, jnp.full((2, 3), x), num_steps=2, restart=restart)[1] for x in (0.0, 50.0)]
    np.testing.assert_array_equal(ends[0][:, 0], ends[1][:, 0])
    assert (ends[1][0, 1] - ends[0][0, 1] > 40).all()
    np.testing.assert_array_equal(ends[0][0, 0], jax.random.normal(KEY, (2, 2, 3))[0, 0])


def test_smoothing_shifts_the_value_of_a_quadratic_by_the_variance_of_clipped_noise() -> None:
    """E Q(a + ε) - Q(a) = -m/2 Var ε, with ε clipped normal noise in units of the box (half width 2)."""
    sigma, clip, m = 0.4, 0.5, 3.0
    action = jnp.zeros((100_000, 1))
    smoothed = smooth_action(KEY, action, scale=sigma, clip=clip, low=-2.0, high=2.0)
    x = np.linspace(-8, 8, 200_001)
    variance = np.trapezoid(np.clip(sigma * x, -clip, clip) ** 2 * scipy.stats.norm.pdf(x), x) * 4.0
    shift = np.mean(-0.5 * m * smoothed**2)
    assert abs(shift / (-0.5 * m * variance) - 1) < 0.02
    assert np.abs(smoothed).max() == pytest.approx(2 * clip)


def test_smoothing_keeps_within_the_box_and_without_noise_changes_no_bit() -> None:
    action = jax.random.uniform(KEY, (1000, 2), minval=LOW, maxval=HIGH)
    smoothed = np.asarray(smooth_action(KEY, action, scale=2.0, clip=5.0, low=LOW, high=HIGH))
    assert ((smoothed >= LOW) & (smoothed <= HIGH)).all()
    np.testing.assert_array_equal(smooth_action(KEY, action, scale=0.0, low=LOW, high=HIGH), action)


def test_scales_are_spread_from_the_first_environment_to_the_last() -> None:
    np.testing.assert_allclose(
        spread_of_scales(5, smallest=0.1, largest=0.5)[:, 0], np.linspace(0.1, 0.5, 5), rtol=1e-6
    )
    np.testing.assert_allclose(spread_of_scales(1, smallest=0.1, largest=0.5), [[0.3]], rtol=1e-6)
    noisy = ClippedNormal(jnp.zeros((5, 2)), spread_of_scales(5, smallest=0.0, largest=0.4), LOW, HIGH)
    np.testing.assert_allclose(noisy.sample_from(jnp.ones((5, 2)))[:, 0], np.linspace(0.0, 0.8, 5), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Deterministic(jnp.zeros(2, int)), TypeError, "action must have a floating dtype"),
        (lambda: Deterministic(jnp.zeros(())), ValueError, "action must have shape"),
        (lambda: ClippedNormal(jnp.zeros(2), jnp.ones(3)), ValueError, "scale"),
        (lambda: WarmUp(jnp.ones(3, bool), Deterministic(jnp.zeros((2, 1))), -1.0, 1.0), ValueError, "random"),
        (lambda: WarmUp(True, Deterministic(jnp.zeros((2, 1))), jnp.zeros(3), 1.0), ValueError, "low"),
        (lambda: ornstein_uhlenbeck(KEY, jnp.zeros((2, 1)), num_steps=0), ValueError, "num_steps must be at least 1"),
        (
            lambda: ornstein_uhlenbeck(KEY, jnp.zeros((2, 1)), num_steps=2.0),
            TypeError,
            "num_steps must be a Python int",
        ),
        (
            lambda: ornstein_uhlenbeck(KEY, jnp.zeros((2, 1)), num_steps=1, restart=jnp.ones(3, bool)),
            ValueError,
            "state",
        ),
        (lambda: smooth_action(KEY, jnp.zeros((2, 1)), scale=jnp.ones(2)), ValueError, "scale must be a scalar"),
        (lambda: smooth_action(KEY, jnp.zeros(2, int)), TypeError, "action must have a floating dtype"),
        (lambda: spread_of_scales(0, smallest=0.1, largest=0.2), ValueError, "num_envs must be at least 1"),
        (lambda: spread_of_scales(3, smallest=0.3, largest=0.2), ValueError, "smallest <= largest"),
    ],
)
def test_bad_input_is_named(call: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()
