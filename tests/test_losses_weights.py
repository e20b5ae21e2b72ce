"""Weighted likelihoods and their duals against closed forms, limits and loops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
ADVANTAGE = np.array([[-3.0, 0.0, 0.4], [2.0, 5.0, -0.1]])


# --- weights ----------------------------------------------------------------------------------------------------------


def test_exponential_weights_are_capped_and_never_overflow() -> None:
    close(pg.exponential_weight(jnp.asarray(ADVANTAGE), temperature=0.5), np.minimum(np.exp(ADVANTAGE / 0.5), 20.0))
    each = np.array([[1.0, 2.0, 0.5], [3.0, 1.0, 1.0]])
    close(pg.exponential_weight(jnp.asarray(ADVANTAGE), temperature=each), np.minimum(np.exp(ADVANTAGE / each), 20.0))
    far = jnp.array([1e30, -1e30, np.inf, -np.inf, 0.0], jnp.float32)
    for options in ({}, {"temperature": 1e-30}, {"temperature": 0.0}):
        np.testing.assert_allclose(pg.exponential_weight(far, **options), [20.0, 0.0, 20.0, 0.0, 1.0], 1e-5, 1e-8)
    np.testing.assert_allclose(pg.exponential_weight(far, max_weight=np.inf)[0], np.exp(20.0), 1e-5)
    assert np.isnan(pg.exponential_weight(jnp.array([jnp.nan]))).all()


def test_binary_weights_select_what_is_better() -> None:
    np.testing.assert_array_equal(pg.binary_weight(jnp.asarray(ADVANTAGE)), (ADVANTAGE > 0).astype(float))
    assert np.isnan(pg.binary_weight(jnp.array([jnp.nan]))).all()


def test_weights_are_constants() -> None:
    x = jnp.asarray(ADVANTAGE)
    for weight in (
        pg.exponential_weight,
        functools.partial(pg.softmax_weight, temperature=1.0),
        lambda x: pg.exponential_weight(jnp.ones(2), temperature=x[0, 1] + 2.0),
        lambda x: pg.softmax_weight(jnp.arange(2.0), temperature=x[0, 1] + 2.0),
    ):
        close(jax.grad(lambda x, f=weight: jnp.sin(f(x)).sum())(x), 0.0)


def test_advantage_weighted_regression_tends_to_the_policy_gradient_as_1_over_the_temperature() -> None:
    """β E_π[w ψ] = E_π[A ψ] + E_π[A² ψ] / (2 β) + ..., since E_π[ψ] = 0."""
    logits, action_value = np.array([0.3, -0.5, 1.0]), np.array([1.0, -2.0, 0.7])
    probs = np.exp(logits) / np.exp(logits).sum()
    advantage = action_value - probs @ action_value
    score = np.eye(3) - probs

    def gradient(temperature: float) -> Any:
        weight = pg.exponential_weight(jnp.asarray(advantage), temperature=temperature)
        loss = lambda x: probs @ pg.policy_gradient_loss(jax.nn.log_softmax(x), weight)  # noqa: E731
        return -temperature * jax.jit(jax.grad(loss))(jnp.asarray(logits))

    limit, second = (probs * advantage) @ score, (probs * advantage**2) @ score / 2
    for temperature in (1e3, 1e5):
        close(temperature * (gradient(temperature) - limit), second, rtol=0.0, atol=10.0 / temperature)
    assert np.abs(gradient(1.0) - limit).max() > 0.1  # near the limit only
    assert np.abs(second).max() > 0.1


def test_softmax_weights_sum_to_1_in_each_state_or_over_the_batch() -> None:
    random = np.random.default_rng(0)
    value, mask = random.normal(size=(5, 4, 3)), random.random((5, 4, 3)) < 0.7
    mask[:, 0, 0] = False
    filled = jnp.asarray(np.where(mask, value, np.nan))
    for axis in (0, None, (1, 2)):
        raised = np.where(mask, np.exp(value / 0.3), 0.0)
        total = raised.sum(axis, keepdims=True)
        got = pg.softmax_weight(filled, jnp.asarray(mask), temperature=0.3, axis=axis)
        close(got, raised / np.where(total == 0, 1.0, total))
        close(got.sum(axis, keepdims=True), total > 0)
    close(pg.softmax_weight(jnp.asarray(value), temperature=1e9), 1 / 60, rtol=1e-8)  # hot: all alike


@pytest.mark.parametrize("shift", [3.0, -1e6])
def test_softmax_weights_and_the_better_half_do_not_see_a_shift(shift: float) -> None:
    advantage = np.random.default_rng(1).integers(-64, 64, size=(6, 5)) / 16  # exact after the shift
    here, there = jnp.asarray(advantage), jnp.asarray(advantage + shift)
    np.testing.assert_array_equal(pg.top_half(there), pg.top_half(here))
    weights = [pg.softmax_weight(x, pg.top_half(x), temperature=0.4) for x in (here, there)]
    np.testing.assert_array_equal(*weights)
    duals = [pg.softmax_temperature_loss(x, pg.top_half(x), temperature=0.4, max_kl=0.1) for x in (here, there)]
    close(duals[1] - duals[0], shift, rtol=1e-9)
    unlike = pg.softmax_weight(2.0 * here, pg.top_half(here), temperature=0.4)
    assert np.abs(unlike - weights[0]).max() > 0.01  # a scale they do see


def test_the_better_half_keeps_ties_and_counts_what_counts() -> None:
    half = lambda x, mask=None: np.asarray(pg.top_half(jnp.asarray(x), mask)).tolist()  # noqa: E731
    assert half([4.0, 1.0, 3.0, 2.0]) == [True, False, True, False]
    assert half([4.0, 1.0, 3.0, 2.0, 0.0]) == [True, False, True, True, False]  # the median is in it
    assert half([1.0, 1.0, 1.0, 0.0]) == [True, True, True, False]  # a tie with the last that was selected
    assert half([2.0, 2.0, 1.0, 1.0]) == [True, True, False, False]
    assert half([5.0]) == [True]
    mask = jnp.array([False, True, True, False, True])
    assert half([9.0, 1.0, 3.0, jnp.nan, 2.0], mask) == [False, False, True, False, True]
    assert half([9.0, 1.0], jnp.zeros(2, bool)) == [False, False]
    assert half([jnp.nan, 1.0, 2.0, 0.0])[0]  # not hidden
    random = np.random.default_rng(2)
    for size in (6, 7):
        x = random.normal(size=size)
        assert half(x) == (x >= np.median(x)).tolist()


def test_preference_weights_are_a_difference_of_two_means() -> None:
    random = np.random.default_rng(3)
    log_prob, accepted, mask = random.normal(size=(6, 4)), random.random((6, 4)) < 0.5, random.random((6, 4)) < 0.8
    accepted[:, 1] = True  # nothing rejected in one state
    mask[:, 2] = False
    for axis in (0, None):
        weight = pg.preference_weight(jnp.asarray(accepted), jnp.asarray(mask), balance=0.3, axis=axis)
        loss = np.asarray(pg.policy_gradient_loss(jnp.asarray(log_prob), weight)).sum(axis)
        columns = [slice(None)] if axis is None else range(4)
        for column, got in zip(columns, np.atleast_1d(loss), strict=True):
            x, yes, counts = (y[:, column] for y in (log_prob, accepted, mask))
            good, bad = x[yes & counts], x[~yes & counts]
            close(got, -0.3 * (good.mean() if good.size else 0.0) + 0.7 * (bad.mean() if bad.size else 0.0))
    assert np.asarray(pg.preference_weight(jnp.asarray(accepted))).dtype == np.float64


# --- the temperature's dual -------------------------------------------------------------------------------------------


def golden_root(curvature: float = 2.0, distance: float = 1.5, bound: float = 0.1) -> float:
    """The η where KL(q ‖ N(0, 1)) = bound, for q in proportion to N(0, 1) exp(-curvature (a - distance)² / (2 η))."""

    def excess(eta: float) -> float:
        var = 1.0 / (1.0 + curvature / eta)
        mean = var * curvature / eta * distance
        return 0.5 * (var + mean**2 - 1.0 - np.log(var)) - bound

    return float(optimize.brentq(excess, 0.1, 100.0, xtol=1e-14))


def test_identity_26_the_temperature_spends_the_divergence_that_it_may() -> None:
    """A normal prior by a million quantiles, a quadratic action value: the dual's root, and what the weights make."""
    root = golden_root()
    close(root, 5.5635643, rtol=1e-8)
    action = jnp.asarray(stats.norm.ppf((np.arange(1_000_000) + 0.5) / 1_000_000))
    value = -jnp.square(action - 1.5)
    of_temperature = jax.jit(jax.grad(lambda eta, x: pg.softmax_temperature_loss(x, temperature=eta, max_kl=0.1)))
    slope = lambda eta: float(of_temperature(eta, value))  # noqa: E731
    found = optimize.brentq(slope, 5.0, 6.0, xtol=1e-9)
    close(found, root, rtol=1e-6)
    assert slope(0.5 * root) < -0.05 < 0.02 < slope(2.0 * root)  # convex: it is the minimum
    weight = np.asarray(pg.softmax_weight(value, temperature=root))
    mean = weight @ np.asarray(action)
    precision = 1.0 / (weight @ (np.asarray(action) - mean) ** 2)
    close(weight.sum(), 1.0)
    close(precision, 1.0 + 2.0 / root, rtol=1e-5)  # 1/s² + m/η
    close(mean, 2.0 / root * 1.5 / precision, rtol=1e-5)
    stopped = jax.grad(  # the mistake: a temperature whose gradient does not pass through x / η
        lambda eta: eta * (0.1 + jnp.log(jnp.mean(jnp.exp(value / jax.lax.stop_gradient(eta)))))
    )
    assert abs(float(stopped(root))) > 0.1


def test_the_dual_is_its_formula_state_by_state_and_its_slope_a_divergence() -> None:
    random = np.random.default_rng(4)
    value, mask = random.normal(size=(7, 3, 2)), random.random((7, 3, 2)) < 0.6
    mask[:, 0, 0], mask[:2, 1, 0] = False, True
    given, counts = jnp.asarray(np.where(mask, value, np.nan)), jnp.asarray(mask)
    dual = lambda eta, x: pg.softmax_temperature_loss(x, counts, temperature=eta, max_kl=0.2, axis=0)  # noqa: E731
    got, slope = dual(0.7, given), jax.jacfwd(dual)(0.7, given)
    for s, b in np.ndindex(3, 2):
        x = value[mask[:, s, b], s, b]
        if not x.size:
            close((got[s, b], slope[s, b]), (0.7 * 0.2, 0.2))
            continue
        close(got[s, b], 0.7 * 0.2 + 0.7 * np.log(np.mean(np.exp(x / 0.7))))
        w = np.exp(x / 0.7) / np.exp(x / 0.7).sum()
        close(slope[s, b], 0.2 - np.sum(w * np.log(w * x.size)))
    close(jax.jit(jax.grad(lambda eta: dual(eta, given).sum()))(0.7), slope.sum())
    close(jax.jit(jax.grad(lambda x: dual(0.7, x).sum()))(given), 0.0)  # values are constants
    whole = pg.softmax_temperature_loss(given, counts, temperature=0.7, max_kl=0.2)
    close(whole, 0.7 * 0.2 + 0.7 * np.log(np.mean(np.exp(value[mask] / 0.7))))


@pytest.mark.parametrize("temperature", [1e-3, 1e-7, 0.0, -1.0])
def test_cold_temperatures_and_large_values_are_finite(temperature: float) -> None:
    value = jnp.array([1e6, -1e6, 3e5, 1e6, jnp.nan], jnp.float32)
    mask = jnp.array([True, True, True, True, False])
    dual = lambda eta: pg.softmax_temperature_loss(value, mask, temperature=eta, max_kl=0.1)  # noqa: E731
    got, slope = jax.value_and_grad(dual)(jnp.float32(temperature))
    np.testing.assert_allclose(got, 1e6, rtol=1e-6)
    np.testing.assert_allclose(
        slope, 0.1 - np.log(2.0) if temperature > 1e-8 else 0.0, rtol=1e-5
    )  # two of four share it
    np.testing.assert_array_equal(pg.softmax_weight(value, mask, temperature=temperature), [0.5, 0.0, 0.0, 0.5, 0.0])
    none = jnp.zeros(5, bool)
    np.testing.assert_array_equal(pg.softmax_weight(value, none, temperature=1.0), 0.0)


# --- the multiplier of a divergence -----------------------------------------------------------------------------------


def test_a_multiplier_rises_while_its_bound_is_broken_and_the_policy_pays_for_it() -> None:
    kl, multiplier = np.array([0.5, 0.01]), np.array([2.0, 3.0])
    loss = lambda kl, a: pg.kl_constraint_loss(kl, multiplier=a, max_kl=0.1).sum()  # noqa: E731
    of_policy, of_multiplier = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.asarray(kl), jnp.asarray(multiplier))
    close(of_policy, multiplier)
    close(of_multiplier, 0.1 - kl)
    close(pg.kl_constraint_loss(jnp.asarray(kl), multiplier=multiplier, max_kl=0.1), multiplier * 0.1)


def test_the_divergences_of_mean_and_scale_are_decoupled() -> None:
    """As the docstring writes them, against their closed forms; neither moves the parameters of the other."""
    old = pg.Normal(jnp.array([[0.2, -1.0]]), jnp.array([[0.5, 2.0]]))
    loc, scale = np.array([[0.6, -0.5]]), np.array([[0.4, 2.5]])

    def constrained(new: pg.Normal) -> Any:
        parts = pg.Normal(new.loc, old.scale), pg.Normal(old.loc, new.scale)
        return jnp.stack([old.kl_divergence(part)[0] for part in parts])

    new = pg.Normal(jnp.asarray(loc), jnp.asarray(scale))
    of_mean = np.sum((loc - old.loc) ** 2 / (2 * old.scale**2))
    of_scale = np.sum(np.log(scale / old.scale) + old.scale**2 / (2 * scale**2) - 0.5)
    close(constrained(new), [of_mean, of_scale])
    multiplier = jnp.array([3.0, 7.0])
    got = jax.grad(lambda new: pg.kl_constraint_loss(constrained(new), multiplier=multiplier, max_kl=0.1).sum())(new)
    close(got.loc, 3.0 * (loc - old.loc) / old.scale**2)
    close(got.scale, 7.0 * (1 / scale - old.scale**2 / scale**3))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    two, three, ints = jnp.zeros(2), jnp.zeros(3), jnp.zeros(3, jnp.int32)
    with pytest.raises(TypeError, match=r"^advantage must have a floating dtype, got int32"):
        pg.exponential_weight(ints)
    with pytest.raises(TypeError, match=r"^advantage must have a floating dtype"):
        pg.binary_weight(ints)
    for option in ("temperature", "max_weight"):
        with pytest.raises(ValueError, match=rf"^{option} must be a scalar or have shape \[3\], got \[2\]"):
            pg.exponential_weight(three, **{option: two})
    with pytest.raises(ValueError, match=r"^temperature must be a scalar"):
        pg.softmax_weight(three, temperature=three)
    with pytest.raises(ValueError, match=r"^max_kl must be a scalar"):
        pg.softmax_temperature_loss(three, temperature=1.0, max_kl=three)
    with pytest.raises(ValueError, match=r"^mask must have shape \[3\], got \[2\]"):
        pg.softmax_temperature_loss(three, two > 0, temperature=1.0, max_kl=0.1)
    with pytest.raises(TypeError, match=r"^value must have a floating dtype"):
        pg.softmax_weight(ints, temperature=1.0)
    with pytest.raises(TypeError, match=r"^mask must be boolean"):
        pg.top_half(three, three)
    with pytest.raises(TypeError, match=r"^accepted must be boolean"):
        pg.preference_weight(three)
    with pytest.raises(ValueError, match=r"^balance must be a scalar"):
        pg.preference_weight(three > 0, balance=three)
    with pytest.raises(ValueError, match=r"^accepted is empty"):
        pg.preference_weight(jnp.zeros(0, bool))
    with pytest.raises(ValueError, match=r"^multiplier must be a scalar or have shape \[3\], got \[2\]"):
        pg.kl_constraint_loss(three, multiplier=two, max_kl=0.1)
