"""Forbidden actions, actions that do not exist, and actions outside a box."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from pgjax.distributions import (
    MASKED_LOG_PROB,
    Bernoulli,
    Beta,
    Categorical,
    MultiCategorical,
    OneHotCategorical,
    TanhNormal,
)

from .cases import KEY

pytestmark = pytest.mark.usefixtures("quick_to_compile")


@jax.jit
def mask_report(logits: jax.Array, others: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
    d, other = Categorical(logits, mask), Categorical(others, mask)
    return d.probs, d.log_prob(jnp.arange(5)), d.entropy(), d.kl_divergence(other), d.mode()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2**5 - 1))
def test_masking_equals_leaving_the_actions_out(seed: int, bits: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(5)], bool)
    logits, others = 5 * np.random.default_rng(seed).normal(size=(2, 5)).astype(np.float32)
    probs, log_prob, entropy, divergence, mode = map(np.asarray, mask_report(logits, others, mask))
    p, q = special.softmax(logits[mask]), special.softmax(others[mask])
    np.testing.assert_allclose(probs[mask], p, rtol=1e-5)
    np.testing.assert_array_equal(probs[~mask], 0.0)
    np.testing.assert_allclose(log_prob[mask], np.log(p), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(log_prob[~mask], MASKED_LOG_PROB)
    np.testing.assert_allclose(entropy, stats.entropy(p), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence, stats.entropy(p, q), rtol=1e-4, atol=1e-5)
    assert mode == np.flatnonzero(mask)[np.argmax(p)]


@pytest.mark.parametrize("cls", [Categorical, OneHotCategorical])
def test_a_masked_logit_is_never_seen(cls: type) -> None:
    mask = jnp.array([True, False, True])
    name = (lambda i: i) if cls is Categorical else (lambda i: jnp.eye(3)[i])

    def everything(logits: jax.Array) -> jax.Array:
        d, other = cls(logits, mask), cls(logits + jnp.array([0.4, 0.0, 0.3]), mask)
        z = d.relaxed_from(jnp.full(3, 0.7))
        relaxed = jnp.tanh(z).sum() + jnp.tanh(d.relaxed_given(name(0), jnp.full(3, 0.6))).sum() + d.relaxed_path(z)[0]
        mean = d.support()[1] @ jnp.array([1.0, 5.0, -2.0])
        return d.log_prob(name(0)) + d.log_prob(name(1)) + d.entropy() + d.kl_divergence(other) + relaxed + mean

    all_of = jax.jit(lambda x: (everything(x), jax.grad(everything)(x), jax.hessian(everything)(x)))
    reference = all_of(jnp.array([0.1, 0.0, -0.3]))
    assert reference[1][1] == 0.0
    assert np.all(np.asarray(reference[1])[[0, 2]] != 0.0)
    for value in (1e4, -1e4, np.inf, -np.inf, np.nan):
        for x, y in zip(all_of(jnp.array([0.1, value, -0.3])), reference, strict=True):
            np.testing.assert_array_equal(x, y)


def test_an_all_masked_row_is_uniform_with_zero_gradient() -> None:
    mask = np.zeros((2, 4), bool)
    mask[1, 2] = True

    def everything(logits: jax.Array) -> Any:
        d = Categorical(logits, mask)
        total = jnp.sum(d.log_prob(np.array([3, 2])) + d.entropy())  # −log 4 + log 4, then 0
        return total, (d.probs, jax.vmap(d.sample)(jax.random.split(KEY, 100)))

    logits = jnp.array([[1.0, -5.0, np.inf, np.nan], [1.0, 2.0, 3.0, 4.0]])
    (value, (probs, samples)), grad = jax.jit(jax.value_and_grad(everything, has_aux=True))(logits)
    np.testing.assert_allclose(probs, [[0.25] * 4, [0, 0, 1, 0]], rtol=1e-6)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_array_equal(grad, 0.0)
    assert set(np.asarray(samples)[:, 0]) == {0, 1, 2, 3}


def test_forbidding_what_the_other_allows_is_large_and_finite() -> None:
    d, narrow = Categorical(jnp.zeros(2)), Categorical(jnp.zeros(2), jnp.array([True, False]))
    assert 1e8 < float(d.kl_divergence(narrow)) < np.inf
    np.testing.assert_allclose(narrow.kl_divergence(d), np.log(2.0), rtol=1e-6)


L = np.array([0.3, -1.0, 0.7], np.float32)
IMPOSSIBLE = {
    "categorical below": (Categorical, (L,), np.int32(-1)),
    "categorical above": (Categorical, (L,), np.int32(3)),
    "categorical far above": (Categorical, (L,), np.int32(2**31 - 1)),
    "categorical masked": (Categorical, (L, np.array([True, False, True])), np.int32(7)),
    "multi": (MultiCategorical, (L.reshape(1, 3).repeat(2, 0),), np.array([1, 3])),
    "ragged": (lambda a: MultiCategorical((a, a[:2])), (L,), np.array([1, 2])),
    "ragged below": (lambda a: MultiCategorical((a, a[:2])), (L,), np.array([-1, 0])),
    "bernoulli": (Bernoulli, (L,), np.array([0, 1, 2])),
    "bernoulli below": (Bernoulli, (L,), np.array([-1, 1, 1])),
    "one hot twice": (OneHotCategorical, (L,), np.array([1.0, 1.0, 0.0], np.float32)),
    "one hot never": (OneHotCategorical, (L,), np.zeros(3, np.float32)),
    "one hot between": (OneHotCategorical, (L,), np.array([0.5, 0.5, 0.0], np.float32)),
    "one hot two": (OneHotCategorical, (L,), np.array([0.0, 2.0, 0.0], np.float32)),
    "one hot in integers": (OneHotCategorical, (L,), np.array([1, 0, -1])),
    "beta below": (Beta, (1.5 + L**2, 2.0 + L), np.array([-1e-3, 0.5, 0.5], np.float32)),
    "beta above": (Beta, (1.5 + L**2, 2.0 + L), np.array([0.5, 0.5, 1.001], np.float32)),
    "beta narrow": (lambda a: Beta(a**2, 0.5), (L,), np.array([0.5, np.inf, 0.5], np.float32)),
    "tanh above": (lambda a: TanhNormal(a, 0.5, -2.0, 2.0), (L,), np.array([0.0, 2.001, 0.0], np.float32)),
    "tanh below": (lambda a: TanhNormal(a, 0.5, -2.0, 2.0), (L,), np.array([0.0, 0.0, -7.0], np.float32)),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_finding_12_actions_out_of_range_have_probability_zero_and_no_gradient(case: str) -> None:
    make, parameters, action = IMPOSSIBLE[case]

    arrays = [x for x in parameters if x.dtype != bool]
    masks = [x for x in parameters if x.dtype == bool]
    continuous = case.startswith(("beta", "tanh"))

    def log_prob(arrays: Any, action: Any) -> Any:
        return make(*arrays, *masks).log_prob(action)

    argnums = (0, 1) if continuous else (0,)
    value, grads = jax.jit(jax.value_and_grad(log_prob, argnums))(arrays, action)
    assert value == -np.inf
    assert value.shape == ()
    for grad in jax.tree.leaves(grads):
        np.testing.assert_array_equal(grad, 0.0)


def test_only_the_row_that_is_out_of_range_is_impossible() -> None:
    logits = jnp.asarray(np.stack([L, 2 * L]))
    d = Bernoulli(logits)
    action = np.array([[0, 1, 5], [1, 0, 1]])
    finite = lambda l: jnp.where(jnp.isinf(x := Bernoulli(l).log_prob(action)), 0.0, x).sum()  # noqa: E731
    value, grad = jax.jit(jax.value_and_grad(finite))(logits)
    np.testing.assert_allclose(value, d.log_prob(np.array([[1, 0, 1]] * 2))[1], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(grad) != 0.0, [[False] * 3, [True] * 3])


@pytest.mark.parametrize("action", [-2.0, 2.0])
def test_tanh_log_prob_is_finite_at_the_bounds(action: float) -> None:
    f = lambda loc, a: TanhNormal(loc, 0.5, -2.0, 2.0).log_prob(a)  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(jnp.zeros(1), jnp.array([action]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (value, *grads))


@pytest.mark.parametrize("action", [0.0, 1.0])
def test_beta_log_prob_is_finite_at_the_bounds(action: float) -> None:
    f = lambda alpha, a: Beta(alpha, 0.5).log_prob(a)  # noqa: E731
    value, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(jnp.array([0.5]), jnp.array([action]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (value, *grads))


@pytest.mark.parametrize("cls", [TanhNormal, Beta])
def test_an_action_that_is_no_number_is_not_hidden(cls: type) -> None:
    assert np.isnan(cls(jnp.ones(1), 1.0).log_prob(jnp.array([np.nan])))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint32, np.int32])
def test_actions_are_counted_in_any_integer_dtype(dtype: Any) -> None:
    """Three hundred actions do not fit into a byte: the index that they are compared with must not wrap."""
    d = Categorical(jnp.asarray(np.linspace(-1.0, 1.0, 300), jnp.float32))
    np.testing.assert_allclose(d.log_prob(np.array([5], dtype)), np.asarray(d.log_probs)[5:6], rtol=1e-6)
