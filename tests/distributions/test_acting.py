"""How the library acts through a distribution, its own or another library's; what goes in is checked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhNormal,
    action_from_noise,
    draw_noise,
    log_prob_of,
    sample_action,
)

from .cases import KEY, NAMES, examples


@pytest.mark.parametrize("name", NAMES)
def test_acting_through_our_own(name: str) -> None:
    d = examples(5)[name]

    def every_way(d: Any, key: Any) -> Any:
        action, raw, log_prob = sample_action(d, key)
        return (
            (action, raw, log_prob),
            d.sample(key),
            log_prob_of(d, action, raw),
            action_from_noise(d, d.base_noise(key)),
        )

    (action, raw, log_prob), sample, again, from_noise = jax.jit(every_way)(d, KEY)
    np.testing.assert_allclose(action, sample, rtol=1e-6)
    assert (raw is not None) == (name == "tanh")
    np.testing.assert_allclose(log_prob, again, rtol=1e-5)
    for x, y in zip(jax.tree.leaves(from_noise), jax.tree.leaves((action, raw, log_prob)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_a_stored_raw_action_gives_the_exact_log_prob_where_inversion_fails() -> None:
    d = TanhNormal(jnp.array([12.0]), 0.5)
    action, raw, log_prob = sample_action(d, KEY)
    assert action == 1.0
    np.testing.assert_array_equal(log_prob_of(d, action, raw), log_prob)
    assert abs(float(log_prob_of(d, action) - log_prob)) > 10.0


class BySeed:
    def sample(self, sample_shape: tuple[int, ...] = (), seed: Any = None) -> jax.Array:
        return jax.random.normal(seed, (2,))

    def log_prob(self, action: jax.Array) -> jax.Array:
        return -jnp.sum(action**2).astype(jnp.bfloat16)


class ByRng(BySeed):
    def sample(self, *, rng: Any) -> jax.Array:  # type: ignore[override]
        return jax.random.normal(rng, (2,))


class ByKey(BySeed):
    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:  # type: ignore[override]
        return jax.random.normal(key, (2,))


class ByNothing(BySeed):
    def sample(self, shape: Any) -> jax.Array:  # type: ignore[override]
        raise AssertionError


@pytest.mark.parametrize("cls", [BySeed, ByRng, ByKey])
def test_foreign_signatures(cls: type) -> None:
    action, raw, log_prob = sample_action(cls(), KEY)
    np.testing.assert_array_equal(action, jax.random.normal(KEY, (2,)))
    assert raw is None
    assert log_prob.dtype == jnp.float32


def test_foreign_signature_without_a_key() -> None:
    with pytest.raises(TypeError, match="takes a key as one of key, seed, rng, rng_key, got ByNothing"):
        sample_action(ByNothing(), KEY)


def test_noise_is_drawn_for_many_draws_at_once_or_there_is_none() -> None:
    d = examples(2)["beta"]
    noise = draw_noise(d, KEY, num_draws=3)
    assert noise.shape == (3, 2)
    assert draw_noise(ByKey(), KEY, num_draws=3) is None


Z = jnp.zeros((3, 2))
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: Categorical(jnp.zeros((3, 2), int)), TypeError, "logits must have a floating dtype"),
    (lambda: Categorical(None), TypeError, "logits is required"),
    (lambda: Categorical(0.0), ValueError, r"logits must have shape \[\.\.\., K\]"),
    (lambda: Categorical(Z, jnp.ones((3, 2))), TypeError, "mask must be boolean"),
    (lambda: Categorical(Z, jnp.ones(3, bool)), ValueError, "mask must broadcast to the shape of logits"),
    (lambda: Categorical(Z).log_prob(jnp.zeros(3)), TypeError, "action must be an integer array"),
    (lambda: Categorical(Z).log_prob(jnp.zeros(3, bool)), TypeError, "action must be an integer array"),
    (
        lambda: Categorical(Z).log_prob(jnp.zeros((3, 1), int)),
        ValueError,
        r"action must end with .* \[3\], got \[3, 1\]",
    ),
    (lambda: Categorical(Z).log_prob(0), ValueError, "action must end with"),
    (lambda: Categorical(Z).sample_from(jnp.zeros(3, int)), TypeError, "noise must have a floating dtype"),
    (lambda: Categorical(Z).sample_from(jnp.zeros(2)), ValueError, "noise must end with"),
    (lambda: Categorical(Z).kl_divergence(Bernoulli(Z)), TypeError, "other must be a Categorical, got Bernoulli"),
    (lambda: Categorical(Z).kl_divergence(Categorical(jnp.zeros((3, 4)))), ValueError, "logits of other"),
    (lambda: MultiCategorical(jnp.zeros(3)), ValueError, r"logits must have shape \[\.\.\., D, K\]"),
    (lambda: MultiCategorical(()), ValueError, "logits is an empty sequence"),
    (
        lambda: MultiCategorical((jnp.zeros((2, 3)), jnp.zeros((4, 3)))),
        ValueError,
        r"logits\[1\] without its last axis",
    ),
    (lambda: MultiCategorical((Z, jnp.zeros(3, int))), TypeError, r"logits\[1\] must have a floating dtype"),
    (lambda: MultiCategorical(Z).log_prob(jnp.zeros(3)), TypeError, "action must be an integer array"),
    (lambda: MultiCategorical(Z).kl_divergence(Categorical(Z)), TypeError, "other must be a MultiCategorical"),
    (lambda: Bernoulli(jnp.zeros(2, int)), TypeError, "logits must have a floating dtype"),
    (lambda: Bernoulli(0.0), ValueError, r"logits must have shape \[\.\.\., D\]"),
    (lambda: Bernoulli(Z).log_prob(Z), TypeError, "action must be an integer array"),
    (lambda: Bernoulli(Z).log_prob(jnp.zeros(3, int)), ValueError, "action must end with"),
    (lambda: Bernoulli(Z).sample_from(jnp.zeros(3)), ValueError, "noise must end with"),
    (lambda: Normal(0.0, 1.0), ValueError, r"loc must have shape \[\.\.\., D\].*loc\[\.\.\., None\]"),
    (lambda: Normal(Z, 1), TypeError, "scale must have a floating dtype"),
    (lambda: Normal(jnp.zeros((3, 1)), jnp.ones(3)), ValueError, "scale must broadcast to the shape of loc"),
    (lambda: Normal(Z, jnp.ones((4, 3, 2))), ValueError, "scale must broadcast to the shape of loc"),
    (lambda: Normal(Z, 1.0).log_prob(jnp.zeros((3, 2), int)), TypeError, "action must have a floating dtype"),
    (lambda: Normal(jnp.zeros((3, 1)), 1.0).log_prob(jnp.zeros(3)), ValueError, "action must end with"),
    (lambda: Normal(Z, 1.0).kl_divergence(TanhNormal(Z, 1.0)), TypeError, "other must be a Normal, got TanhNormal"),
    (lambda: TanhNormal(Z, 1.0, low=0, high=1.0), TypeError, "low must have a floating dtype"),
    (lambda: TanhNormal(Z, 1.0, high=jnp.ones(3)), ValueError, "high must broadcast to the shape of loc"),
    (lambda: TanhNormal(Z, 1.0).log_prob_raw(jnp.zeros((3, 2), int)), TypeError, "raw must have a floating dtype"),
    (lambda: TanhNormal(Z, 1.0).squash(jnp.zeros(3)), ValueError, "raw must end with"),
    (lambda: Beta(Z + 1, jnp.ones(3)), ValueError, "beta must broadcast to the shape of alpha"),
    (lambda: Beta(1.0, 1.0), ValueError, r"alpha must have shape \[\.\.\., D\]"),
    (lambda: Beta(Z + 1, 1.0).log_prob(jnp.zeros((3, 2), int)), TypeError, "action must have a floating dtype"),
    (
        lambda: Beta(Z + 1, 1.0).sample_from(Z),
        TypeError,
        r"noise of a Beta must be typed random keys.*base_noise\(key\)",
    ),
    (lambda: Beta(Z + 1, 1.0).sample_from(jax.random.split(KEY, 2)), ValueError, "noise must end with .* batch axes"),
    (lambda: MultiCategorical(Z, sizes=(2,)), ValueError, r"sizes must hold 3 numbers of at most 2.* got \(2,\)"),
    (lambda: MultiCategorical(Z, sizes=(2, 1, 3)), ValueError, r"sizes must hold 3 numbers of at most 2"),
    (lambda: MultiCategorical(Z, sizes=(2, 0, 1)), ValueError, "each of sizes must be at least 1"),
    (lambda: OneHotCategorical(Z, jnp.ones((3, 2))), TypeError, "mask must be boolean"),
    (lambda: OneHotCategorical(jnp.zeros((3, 2), int)), TypeError, "logits must have a floating dtype"),
    (lambda: OneHotCategorical(Z).log_prob(jnp.zeros(3)), ValueError, "action must end with"),
    (lambda: OneHotCategorical(Z).kl_divergence(Categorical(Z)), TypeError, "other must be a OneHotCategorical"),
    (lambda: action_from_noise(object(), Z), TypeError, r"object has no sample_from\(noise\)"),
    (lambda: log_prob_of(Z, Z), TypeError, r"must have a method log_prob.*wrap logits in Categorical"),
    (lambda: sample_action(Z, KEY), TypeError, r"must have a method sample that takes a key"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_bad_input_is_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
