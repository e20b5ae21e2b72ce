"""Laws that hold for every class: pytrees, leading axes, dtypes, extremes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.distributions import Bernoulli, Beta, Categorical, Normal, OneHotCategorical, TanhNormal

from .cases import KEY, NAMES, examples

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def rows(d: Any, action: Any) -> Any:
    return d.log_prob(action), d.entropy(), d.kl_divergence(d)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_pytree_through_jit_vmap_scan_and_map(name: str) -> None:
    d = examples(6)[name]
    action = d.mode()

    def all_ways(d: Any, action: Any) -> Any:
        return rows(d, action), jax.vmap(rows)(d, action), jax.lax.scan(lambda c, x: (c, rows(*x)), 0, (d, action))[1]

    whole, mapped, scanned = jax.jit(all_ways)(d, action)
    one = jax.jit(rows)(*jax.tree.map(lambda x: x[4], (d, action)))
    for x, y, z, first in zip(whole, mapped, scanned, one, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(x, z, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(x[4], first, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(whole[2], 0.0, atol=1e-5)
    assert len(set(np.asarray(whole[0]))) > 1
    returned = jax.vmap(lambda d: d)(d)
    assert jax.tree.structure(returned) == jax.tree.structure(d)
    assert [x.shape for x in jax.tree.leaves(returned)] == [x.shape for x in jax.tree.leaves(d)]
    assert type(jax.tree.map(lambda x: None, d)) is type(d)
    assert all(jax.tree.leaves(jax.tree.map(lambda x: x.shape[0] == 6, d)))


@pytest.mark.parametrize("name", NAMES)
def test_leaves_are_named_after_the_fields(name: str) -> None:
    d = examples(2)[name]
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(d)}
    fields = [field.name for field in dataclasses.fields(d) if not field.metadata]
    expected = {f".{field}": getattr(d, field) for field in fields if getattr(d, field) is not None}
    assert list(named) == list(expected)
    assert all(named[field] is expected[field] for field in named)


def test_the_numbers_of_actions_are_no_leaf_and_survive() -> None:
    d = examples(3)["ragged"]
    assert d.sizes == (2, 4)
    assert len(jax.tree.leaves(d)) == 1
    assert jax.jit(lambda d: d)(d).sizes == jax.vmap(lambda d: d)(d).sizes == d.replace(logits=d.logits).sizes == (2, 4)


def test_vmap_returns_scalar_bounds_and_scale_with_the_batch_axis() -> None:
    make = lambda x: TanhNormal(x, 0.5, -2.0, 2.0)  # noqa: E731
    loc = jnp.arange(12.0).reshape(4, 3)
    mapped, whole = jax.vmap(make)(loc), make(loc)
    np.testing.assert_array_equal(mapped.log_prob_raw(loc), whole.log_prob_raw(loc))


@pytest.mark.parametrize("name", NAMES)
def test_extra_leading_axes_are_samples(name: str) -> None:
    d = examples(3)[name]
    first = jax.tree.map(lambda x: x[0], d)

    def of(d: Any, keys: Any) -> Any:
        noise = jax.vmap(d.base_noise)(keys)
        actions = d.sample_from(noise)
        log_probs = d.log_prob(actions), jnp.stack([d.log_prob(a) for a in actions])
        return actions[1], d.sample_from(noise[1]), *log_probs, d.kl_divergence(first)

    action, alone, log_prob, each, divergence = jax.jit(of)(d, jax.random.split(KEY, 2))
    assert log_prob.shape == (2, 3)
    np.testing.assert_allclose(action, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_prob, each, rtol=1e-5, atol=1e-6)
    assert divergence.shape == (3,)
    np.testing.assert_allclose(divergence[0], 0.0, atol=1e-5)
    assert divergence[1] > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_on_entry(name: str) -> None:
    dtype = jnp.bfloat16
    narrow = jax.tree.map(
        lambda x: x.astype(dtype).astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, examples(4)[name]
    )
    arrays = {k: v for k, v in vars(narrow).items() if hasattr(v, "dtype")}
    d = narrow.replace(**{k: v if v.dtype == bool else v.astype(dtype) for k, v in arrays.items()})
    assert all(x.dtype in (jnp.float32, jnp.bool_) for x in jax.tree.leaves(d))
    action = narrow.mode()
    report = jax.jit(lambda d: (d.log_prob(action), d.entropy(), d.kl_divergence(d)))
    for x, y in zip(report(d), report(narrow), strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_array_equal(x, y)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NAMES)
def test_float64_is_kept(name: str) -> None:
    d = examples(2)[name]

    def of(d: Any) -> Any:
        z = d.relaxed_from(jnp.full(d.logits.shape, 0.4)) if hasattr(d, "logits") else jnp.zeros(1)
        return d.log_prob(d.mode()), d.entropy(), d.kl_divergence(d), z

    assert all(x.dtype == jnp.float64 for x in jax.eval_shape(of, d))


@pytest.mark.parametrize("cls", [Categorical, OneHotCategorical, Bernoulli])
def test_extreme_logits_stay_finite(cls: type) -> None:
    action = {Categorical: np.int32(1), OneHotCategorical: np.eye(3)[1], Bernoulli: np.array([0, 1, 1])}[cls]

    def f(x: jax.Array, other: jax.Array) -> jax.Array:
        d, e = cls(x), cls(other)
        return d.log_prob(action) - e.log_prob(action) + d.entropy() + d.kl_divergence(e) + d.support()[1][1]

    run = jax.jit(jax.value_and_grad(f))
    for scale in (1e-4, 1.0, 1e4):
        logits = scale * jnp.array([1e4, -1e4, 0.0])
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in run(logits, -logits))


def test_a_normal_far_out_is_finite() -> None:
    assert bool(jnp.isfinite(Normal(jnp.zeros(1), 1.0).log_prob(jnp.array([1e8]))))


def test_bernoulli_takes_booleans() -> None:
    d = Bernoulli(jnp.array([0.5, -2.0]))
    np.testing.assert_array_equal(d.log_prob(jnp.array([True, False])), d.log_prob(jnp.array([1, 0])))


# --- mistakes that other libraries make ------------------------------------------------------------------------


def test_tanh_log_slope_is_exact_at_fifty() -> None:
    d = TanhNormal(jnp.zeros(1), 1.0)
    log_slope = jax.jit(jax.value_and_grad(lambda u: d.base.log_prob(u[None]) - d.log_prob_raw(u[None])))
    for u in (50.0, -50.0, 9.0):
        value, slope = log_slope(jnp.float32(u))
        np.testing.assert_allclose(value, 2.0 * np.log(2.0) - 2.0 * abs(u), rtol=2e-5)
        np.testing.assert_allclose(slope, -2.0 * np.sign(u), rtol=1e-5)


def test_the_mean_is_squashed_once_and_the_entropy_is_of_the_squashed() -> None:
    """rlax squashes the mean of its squashed Gaussian twice and gives the entropy of the base."""
    d = TanhNormal(jnp.array([1.5]), 1e-3, -2.0, 2.0)
    np.testing.assert_allclose(d.sample(KEY), 2.0 * np.tanh(1.5), atol=1e-2)
    np.testing.assert_allclose(d.mode(), 2.0 * np.tanh(1.5), rtol=1e-6)
    narrow = d.base.entropy() + np.log(2.0 * (1.0 - np.tanh(1.5) ** 2))
    np.testing.assert_allclose(d.entropy(), narrow, rtol=1e-4)


@pytest.mark.parametrize("cls", [TanhNormal, Beta])
def test_the_scale_of_the_box_enters_the_density(cls: type) -> None:
    """rejax leaves the action scale out of its squashed log-density."""
    one, two = jnp.full(3, 1.5), jnp.full(3, 1.2)
    unit, wide = cls(one, two, -1.0, 1.0), cls(one, two, -5.0, 5.0)
    a = jnp.array([0.1, -0.5, 0.7])
    np.testing.assert_allclose(unit.log_prob(a) - wide.log_prob(5 * a), 3 * np.log(5.0), rtol=1e-5)
    np.testing.assert_allclose(wide.entropy() - unit.entropy(), 3 * np.log(5.0), rtol=1e-5)
