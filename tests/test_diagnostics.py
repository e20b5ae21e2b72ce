"""Diagnostics against float64 NumPy, at the points where the naive formula breaks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pgjax as pg
from pgjax import diagnostics as d
from pgjax import exact

pytestmark = pytest.mark.usefixtures("quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def tree(rows: Any) -> Any:
    """[N, 6] numbers as a pytree of gradients."""
    return {"w": jnp.asarray(rows[:, :4]).reshape(-1, 2, 2), "b": jnp.asarray(rows[:, 4:])}


def rows_of(seed: int, count: int) -> Any:
    return (np.random.default_rng(seed).normal(size=(count, 6)) + 0.3).astype(np.float32)


# --- noise of gradients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 10])
def test_variance_and_signal_to_noise_agree_with_numpy(count: int) -> None:
    rows = rows_of(count, count)
    wide = rows.astype(np.float64)
    variance = sum(np.var(wide[:, k], ddof=1) for k in range(6))
    close(d.gradient_variance(tree(rows)), variance)
    close(d.signal_to_noise(tree(rows)), (np.sum(wide.mean(0) ** 2) - variance / count) / variance, rtol=1e-4)


def test_the_signal_is_estimated_without_bias() -> None:
    """Over every batch of 3 draws from a law on 4 gradients, |E g|² comes out exactly, and so does the variance."""
    with jax.enable_x64(True):
        law, weights = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2))), jnp.array([0.1, 0.2, 0.3, 0.4])
        indices, batch_weights = exact.groups(weights, 3)
        batches = law[indices]
        variance = jax.vmap(d.gradient_variance)(batches)
        # A batch of three equal draws has no variance and an infinite ratio; its signal is |g|².
        ratio = jax.vmap(d.signal_to_noise)(batches)
        signal = jnp.where(variance > 0, ratio * variance, jnp.sum(batches[:, 0] ** 2, -1))
        mean = weights @ law
        np.testing.assert_allclose(batch_weights @ signal, mean @ mean, rtol=1e-12)
        np.testing.assert_allclose(batch_weights @ variance, weights @ jnp.sum((law - mean[None]) ** 2, 1), rtol=1e-12)
        assert float(ratio.min()) < 0  # it must be free to fall below 0


def test_equal_zero_and_bad_gradients_have_defined_ratios() -> None:
    equal = jnp.tile(jnp.array([0.1, -0.7, 1e6 + 0.1]), (7, 1))
    assert d.gradient_variance(equal) == 0
    assert d.signal_to_noise(equal) == np.inf
    assert d.signal_to_noise(0 * equal) == 0
    close(d.signal_to_noise(jnp.array([[1.0], [-1.0]])), -0.5)  # mean 0, variance 2, signal -1
    assert np.isnan(d.signal_to_noise(equal.at[0, 0].set(jnp.nan)))
    assert np.isnan(d.cosine(equal[0].at[0].set(jnp.nan), equal[0]))


def test_cosines_agree_with_numpy() -> None:
    a, b = rows_of(1, 5), rows_of(2, 5)
    for x, y in zip(a, b, strict=True):
        expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        one = lambda v: jax.tree.map(lambda leaf: leaf[0], tree(v[None]))  # noqa: E731
        close(d.cosine(one(x), one(y)), expected)
    pairs = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    close(d.pairwise_cosine(tree(a)), np.mean(pairs))


def test_the_cosine_does_not_depend_on_the_scale() -> None:
    a, b = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 1.0, 3.0])
    expected = d.cosine(a, b)
    for scale in (1e-30, 1e-12, 1e25, 1e37):
        close(d.cosine(scale * a, b), expected)
        close(d.cosine(scale * a, scale * b), expected)
        close(d.pairwise_cosine(jnp.stack([scale * a, b / 3])), expected)
    close(d.cosine(a, a), 1.0)
    close(d.cosine(a, -a), -1.0)
    assert d.cosine(a, 0 * a) == d.cosine(0 * a, 0 * a) == 0
    close(d.pairwise_cosine(jnp.stack([a, a, 0 * a])), 1 / 3)  # one pair of three agrees


def test_gradients_in_bfloat16_are_judged_in_float32() -> None:
    rows = rows_of(3, 50).astype(jnp.bfloat16)
    wide = rows.astype(np.float64)
    close(d.gradient_variance(tree(rows)), wide.var(0, ddof=1).sum(), rtol=1e-5)
    expected = wide[0] @ wide[1] / np.linalg.norm(wide[0]) / np.linalg.norm(wide[1])
    close(d.cosine(jnp.asarray(rows[0]), jnp.asarray(rows[1])), expected)


def test_two_gradients_are_needed() -> None:
    for function in (d.gradient_variance, d.signal_to_noise, d.pairwise_cosine):
        with pytest.raises(ValueError, match=r"at least 2 gradients along its first axis, got leading lengths \[1\]"):
            function(jnp.ones((1, 3)))
        with pytest.raises(ValueError, match=r"got leading lengths \[2, 3\]"):
            function({"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))})
        with pytest.raises(ValueError, match=r"got leading lengths \[0, 2\]"):
            function({"a": jnp.ones((2, 3)), "b": jnp.ones(())})
    with pytest.raises(ValueError, match=r"second must have the shape of first, \[3\], got \[4\]"):
        d.cosine(jnp.ones(3), jnp.ones(4))


# --- value functions --------------------------------------------------------------------------------------------------


def test_explained_variance_agrees_with_numpy_and_ignores_a_shift() -> None:
    random = np.random.default_rng(4)
    target, value = random.normal(size=(5, 4)).astype(np.float32), random.normal(size=(5, 4)).astype(np.float32)
    close(d.explained_variance(value, target), 1 - np.var(target - value) / np.var(target))
    close(d.explained_variance(target + 3, target), 1.0)
    close(d.explained_variance(np.full_like(target, 7.0), target), 0.0)
    close(d.explained_variance(-target, target), -3.0)


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1, 0.0])
def test_a_constant_target_has_nothing_to_explain(constant: float) -> None:
    target = jnp.full(7, constant, jnp.float32)
    assert d.explained_variance(jnp.arange(7.0), target) == 0
    assert d.explained_variance(target, target) == 0
    assert np.isnan(d.explained_variance(target, target.at[3].set(jnp.nan)))
    with pytest.raises(ValueError, match=r"target must have the shape of value, \[3\], got \[7\]"):
        d.explained_variance(jnp.ones(3), target)


# --- ratios -----------------------------------------------------------------------------------------------------------


def test_approximate_kl_is_k3_and_not_the_divergence_of_jeffreys() -> None:
    x = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
    wide = x.astype(np.float64)
    close(d.approximate_kl(x), np.mean(np.exp(wide) - 1 - wide))
    jeffreys = np.mean((np.exp(wide) - 1) * wide)
    assert abs(float(d.approximate_kl(x)) - jeffreys) > 0.3


def test_approximate_kl_is_unbiased_for_the_divergence_from_the_old_to_the_new_policy() -> None:
    with jax.enable_x64(True):
        old, new = (pg.Categorical(jnp.asarray(np.random.default_rng(s).normal(size=4))) for s in (6, 7))
        log_ratio = new.log_prob(jnp.arange(4)) - old.log_prob(jnp.arange(4))
        sample = jax.vmap(lambda x: d.approximate_kl(x[None]))(log_ratio)
        expected = jnp.exp(old.log_prob(jnp.arange(4))) @ sample
        np.testing.assert_allclose(expected, old.kl_divergence(new), rtol=1e-12)
        assert abs(float(expected - new.kl_divergence(old))) > 1e-3


@given(st.floats(-6, 1.0), st.sampled_from([-1.0, 1.0]))
@settings(max_examples=40, deadline=None)
def test_approximate_kl_keeps_its_digits_near_ratio_1(exponent: float, sign: float) -> None:
    x = np.float32(sign * 10.0**exponent)
    wide = float(x)
    expected = np.expm1(wide) - wide if abs(wide) > 1e-3 else wide**2 / 2 + wide**3 / 6 + wide**4 / 24
    got = float(d.approximate_kl(jnp.array([x])))
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert got > 0


def test_extreme_ratios_are_finite() -> None:
    assert d.approximate_kl(jnp.zeros(3)) == 0
    close(d.approximate_kl(jnp.array([-1e4])), 1e4 - 1)
    close(d.approximate_kl(jnp.array([1e4])), np.expm1(20.0) - 20.0)
    assert d.clip_fraction(jnp.array([1e4, -1e4, 0.0, 0.1])) == 0.5
    assert np.isnan(d.approximate_kl(jnp.array([jnp.nan, 0.0])))


def test_clip_fraction_counts_both_sides() -> None:
    ratio = np.array([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 3.0], np.float32)
    close(d.clip_fraction(jnp.log(ratio)), 4 / 7)
    close(d.clip_fraction(jnp.log(ratio), clip=0.6), 1 / 7)


def test_finding_10_steps_beyond_the_bound_on_log_ratios_are_counted() -> None:
    """The bound is where the loss of PPO with a negative advantage loses its gradient."""
    log_ratio = jnp.array([0.0, 19.9, 20.1, 1e4, -19.9, -20.1, jnp.inf, jnp.nan])
    advantage = jnp.array([-1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0])
    assert d.bound_fraction(log_ratio) == 5 / 8
    assert d.bound_fraction(log_ratio[:2]) == 0
    assert d.lost_gradient_fraction(log_ratio, advantage) == 2 / 8
    finite = log_ratio[:6]
    slope = jax.grad(lambda x: pg.ppo_clip_loss(x, advantage[:6]).sum())(finite)
    lost = (slope == 0) & (advantage[:6] < 0) & (finite > 0)
    assert d.lost_gradient_fraction(finite, advantage[:6]) == lost.mean()
    with pytest.raises(ValueError, match=r"advantage must have the shape of log_ratio, \[2\], got \[3\]"):
        d.lost_gradient_fraction(jnp.zeros(2), jnp.zeros(3))


@given(hnp.arrays(np.float64, (2, 4), elements=st.floats(-30, 30)), st.floats(-1e5, 1e5))
@settings(max_examples=25, deadline=None)
def test_effective_sample_size_agrees_with_numpy_whatever_the_common_factor(log_weight: Any, shift: float) -> None:
    with jax.enable_x64(True):
        weight = np.exp(log_weight)
        expected = weight.sum() ** 2 / (weight**2).sum()
        np.testing.assert_allclose(d.effective_sample_size(jnp.asarray(log_weight)), expected, rtol=1e-9)
        np.testing.assert_allclose(d.effective_sample_size(jnp.asarray(log_weight + shift)), expected, rtol=1e-6)


def test_effective_sample_size_of_extreme_weights() -> None:
    for size in (1e4, -1e4, 1e30, -1e30):
        close(d.effective_sample_size(jnp.full(8, size)), 8.0)
        close(d.effective_sample_size(jnp.array([size, size - 1e3 - abs(size)])), 1.0)
    assert d.effective_sample_size(jnp.full(3, -jnp.inf)) == 0
    close(d.effective_sample_size(jnp.array([0.0, -jnp.inf, 0.0])), 2.0)
    with pytest.raises(ValueError, match="log_weight is empty"):
        d.effective_sample_size(jnp.zeros(0))
    for function in (d.effective_sample_size, d.approximate_kl, d.clip_fraction, d.bound_fraction):
        with pytest.raises(TypeError, match="must have a floating dtype"):
            function(jnp.ones(3, int))
