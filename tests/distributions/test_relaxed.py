"""Enumerating a distribution, going back from action to noise, and relaxed samples."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from pgjax.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, OneHotCategorical, TanhNormal

from .cases import DISCRETE, all_actions, double_exponential, examples

pytestmark = pytest.mark.usefixtures("quick_to_compile")
RELAXABLE = DISCRETE
HALVES = ["bernoulli", "one_hot", "one_hot_masked"]


def relaxed_shape(d: Any) -> tuple[int, ...]:
    return d.logits.shape


# --- support and noise ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DISCRETE)
def test_support_lists_every_action_with_its_probability(name: str) -> None:
    one, batch = examples()[name], examples(2, 3)[name]

    def of(d: Any) -> Any:
        actions, probs = d.support()
        weights = jnp.cos(jnp.arange(probs.size).reshape(probs.shape))
        by_log_prob = lambda l: jnp.sum(weights * jnp.exp(d.replace(logits=l).log_prob(actions)))  # noqa: E731
        by_support = lambda l: jnp.sum(weights * d.replace(logits=l).support()[1])  # noqa: E731
        return actions, probs, d.log_prob(actions), jax.grad(by_support)(d.logits), jax.grad(by_log_prob)(d.logits)

    actions, probs, log_probs, slope, other = map(np.asarray, jax.jit(of)(one))
    np.testing.assert_array_equal(actions, all_actions(one))
    np.testing.assert_allclose(probs, np.exp(log_probs), rtol=1e-13)
    np.testing.assert_allclose(probs.sum(), 1.0, rtol=1e-13)
    np.testing.assert_allclose(slope, other, atol=1e-14)
    actions, probs, log_probs, slope, other = map(np.asarray, jax.jit(of)(batch))
    assert actions.shape[1:] == batch.shape
    assert probs.shape == (len(all_actions(one)), 2, 3)
    np.testing.assert_allclose(probs, np.exp(log_probs), rtol=1e-13)
    np.testing.assert_allclose(probs.sum(0), 1.0, rtol=1e-13)
    np.testing.assert_allclose(slope, other, atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DISCRETE)
def test_noise_of_an_action_is_the_middle_of_what_maps_to_it(name: str) -> None:
    d = examples(5)[name]

    def of(d: Any) -> Any:
        actions, probs = d.support()
        noise = d.noise_of(actions)
        return actions, probs, noise, d.sample_from(noise)

    actions, probs, noise, back = map(np.asarray, jax.jit(of)(d))
    possible = probs > 0.0
    np.testing.assert_array_equal(back[possible], actions[possible])
    if name in ("categorical", "one_hot"):
        np.testing.assert_allclose(noise, np.cumsum(probs, axis=0) - probs / 2.0, rtol=1e-12)
    if name == "bernoulli":
        p = special.expit(np.asarray(d.logits))[None]
        np.testing.assert_allclose(noise, np.where(actions == 1, p / 2.0, (1.0 + p) / 2.0), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["normal", "tanh"])
def test_noise_of_a_continuous_action_inverts_the_sample(name: str) -> None:
    d = examples(5)[name]
    noise = np.random.default_rng(3).normal(size=(4, 5, 2))
    action, back, again = jax.jit(lambda d, n: (a := d.sample_from(n), n := d.noise_of(a), d.sample_from(n)))(d, noise)
    np.testing.assert_allclose(back, noise, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(again, action, rtol=1e-12)
    if name == "tanh":
        np.testing.assert_allclose(d.noise_of_raw(d.raw_from(100.0 * noise)), 100.0 * noise, rtol=1e-12, atol=1e-12)


def test_what_cannot_be_listed_or_inverted_says_so() -> None:
    with pytest.raises(ValueError, match=r"Bernoulli has 1099511627776 actions, too many to enumerate: at most 65536"):
        Bernoulli(jnp.zeros(40)).support()
    with pytest.raises(ValueError, match=r"MultiCategorical has 100000 actions, too many"):
        MultiCategorical(jnp.zeros((5, 10))).support()
    with pytest.raises(ValueError, match=r"Categorical has 70000 actions, too many"):
        Categorical(jnp.zeros(70_000)).support()
    for d in (Normal(jnp.zeros(2), 1.0), TanhNormal(jnp.zeros(2), 1.0), Beta(jnp.ones(2), 1.0)):
        with pytest.raises(TypeError, match=f"{type(d).__name__} cannot be enumerated: its actions are continuous"):
            d.support()
    with pytest.raises(TypeError, match="An action of a Beta does not determine the noise"):
        Beta(jnp.ones(2), 1.0).noise_of(jnp.zeros(2))
    assert not any(hasattr(Normal, method) for method in ("relaxed_from", "relaxed_given", "soften", "harden"))


# --- relaxed samples ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RELAXABLE)
def test_a_relaxed_sample_given_an_action_rounds_to_it(name: str) -> None:
    d = examples()[name]
    v = np.random.default_rng(0).uniform(size=(200, *relaxed_shape(d)))

    def of(d: Any, v: Any) -> Any:
        actions, probs = d.support()
        many = jax.vmap(lambda a: d.harden(d.relaxed_given(jnp.broadcast_to(a, v.shape[:1] + a.shape), v)))
        return actions, probs, many(actions), d.relaxed_from(v), d.harden(d.relaxed_from(v))

    actions, probs, hard, z, free = map(np.asarray, jax.jit(of)(d, v))
    expected = np.broadcast_to(actions[:, None], hard.shape)
    np.testing.assert_array_equal(hard[probs > 0], expected[probs > 0])
    if name == "bernoulli":
        np.testing.assert_array_equal(free, v > 1.0 - special.expit(np.asarray(d.logits)))
        np.testing.assert_allclose(z, np.asarray(d.logits) + special.logit(v), rtol=1e-12)
    elif name == "categorical":
        np.testing.assert_allclose(z, np.asarray(d.log_probs) - np.log(-np.log(v)), rtol=1e-12)
        np.testing.assert_array_equal(free, z.argmax(-1))
    assert free.dtype == actions.dtype


@pytest.mark.usefixtures("x64")
def test_relaxed_samples_given_an_action_are_as_in_the_papers() -> None:
    """Tucker et al. (2017) and Grathwohl et al. (2018), the formulas as they stand there."""
    l, v = np.array([0.4, -1.2, 2.0]), np.array([0.3, 0.9, 0.05])
    p = special.expit(l)
    for b in (0, 1):
        u = v * p + (1.0 - p) if b else v * (1.0 - p)
        z = special.logit(p) + special.logit(u)
        np.testing.assert_allclose(Bernoulli(l).relaxed_given(np.full(3, b), v), z, rtol=1e-12)
    p = special.softmax(l)
    for k in range(3):
        z = -np.log(-np.log(v) / p - np.log(v[k]))
        z[k] = -np.log(-np.log(v[k]))
        np.testing.assert_allclose(Categorical(l).relaxed_given(k, v), z, rtol=1e-12)
        np.testing.assert_allclose(OneHotCategorical(l).relaxed_given(np.eye(3)[k], v), z, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_relaxed_samples_given_the_action_make_up_the_relaxed_law() -> None:
    """Identity 36, the law of z: the mean over actions of the mean given the action is the plain mean."""
    u, w = double_exponential(0.0, 1.0, 100)
    pairs, weights = np.stack(np.meshgrid(u, u, indexing="ij"), -1).reshape(-1, 2), np.outer(w, w).ravel()
    for d, noise, weight in (
        (Bernoulli(np.array([0.7])), u[:, None], w),
        (Categorical(np.array([0.7, -0.4])), pairs, weights),
        (OneHotCategorical(np.array([0.7, -0.4])), pairs, weights),
        (MultiCategorical(np.array([[0.7, -0.4]])), pairs[:, None], weights),
    ):

        def means(d: Any, noise: Any, weight: Any) -> Any:
            g = lambda z: jnp.sin(z[..., -1].reshape(z.shape[0])) + jnp.tanh(z.reshape(z.shape[0], -1)[:, 0]) ** 3  # noqa: E731
            actions, probs = d.support()
            given = jax.vmap(lambda a: g(d.relaxed_given(jnp.broadcast_to(a, noise.shape[:1] + a.shape), noise)))
            return g(d.relaxed_from(noise)) @ weight, probs @ (given(actions) @ weight)

        plain, split = jax.jit(means)(d, noise, weight)
        np.testing.assert_allclose(split, plain, atol=1e-11)
        assert abs(plain) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", RELAXABLE)
def test_a_relaxed_path_has_the_gradient_at_fixed_noise(name: str) -> None:
    d = examples(2)[name]
    u = np.random.default_rng(1).uniform(size=relaxed_shape(d))

    def of(d: Any, u: Any) -> Any:
        make = lambda l: d.replace(logits=l)  # noqa: E731
        z = d.relaxed_from(u)
        direct = jax.jacobian(lambda l: make(l).relaxed_from(u))(d.logits)
        carried = jax.jacobian(lambda l: make(l).relaxed_path(make(l).relaxed_from(u)))(d.logits)
        return z, d.relaxed_path(z), direct, carried, jax.grad(lambda z: d.relaxed_path(z).sum())(z)

    z, same, direct, carried, own = map(np.asarray, jax.jit(of)(d, u))
    np.testing.assert_array_equal(same, z)
    np.testing.assert_allclose(carried, direct, atol=1e-15)
    np.testing.assert_array_equal(own, 0.0)
    assert np.abs(direct).max() > 0.1


@pytest.mark.parametrize("name", HALVES)
def test_soft_actions_lie_between_the_actions_and_harden_as_it_grows_cold(name: str) -> None:
    d = examples(2)[name]
    z = d.relaxed_from(np.random.default_rng(1).uniform(size=(50, *d.shape)).astype(np.float32))
    soft, cold, hard, half = jax.jit(
        lambda d, z: (d.soften(z, 0.5), d.soften(z, 1e-4), d.harden(z), d.soften(2.0 * z, 1.0))
    )(d, z)
    scaled = np.asarray(z, np.float64) / 0.5
    expected = special.expit(scaled) if name == "bernoulli" else special.softmax(scaled, axis=-1)
    np.testing.assert_allclose(soft, expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(soft, half)
    np.testing.assert_allclose(cold, hard, atol=1e-6)


@pytest.mark.parametrize("name", RELAXABLE)
def test_relaxed_samples_are_finite_at_the_ends(name: str) -> None:
    """Noise of exactly 0 and 1, logits of ±1e4, actions that cannot happen: finite, and so are the gradients."""
    d = examples()[name]
    noise = np.array([0.0, 1.0, np.finfo(np.float32).tiny, 1.0 - 2.0**-24, 0.5], np.float32)
    noise = np.stack(np.meshgrid(*[noise] * min(3, d.logits.size), indexing="ij"), -1).reshape(
        -1, min(3, d.logits.size)
    )
    noise = np.tile(noise, (1, math.ceil(d.logits.size / noise.shape[1])))[:, : d.logits.size].reshape(
        -1, *d.logits.shape
    )

    def of(logits: Any, temperature: Any) -> Any:
        e = d.replace(logits=logits)
        actions, _ = e.support()
        z = [e.relaxed_from(noise), e.relaxed_path(e.relaxed_from(noise))]
        z += [e.relaxed_given(jnp.broadcast_to(a, noise.shape[:1] + a.shape), noise) for a in actions]
        soft = [e.soften(x, temperature) for x in z] if hasattr(e, "soften") else []
        return sum(jnp.sum(x * jnp.sin(jnp.arange(x.size).reshape(x.shape))) for x in (*z, *soft)), (z, soft)

    all_of = jax.jit(jax.value_and_grad(of, (0, 1), has_aux=True))
    for scale in (1.0, 1e4):
        found = all_of(scale * jnp.sign(d.logits), 0.5)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(found))


def test_bad_input_of_relaxed_samples_is_named() -> None:
    z = jnp.zeros((3, 2))
    for call, message in (
        (lambda: Categorical(z).relaxed_from(jnp.zeros(3)), r"noise must end with the shape of logits, \[3, 2\]"),
        (lambda: Categorical(z).relaxed_given(jnp.zeros(2, int), z), r"action must have the shape of noise without"),
        (lambda: Categorical(z).relaxed_path(jnp.zeros(2)), "z must end with the shape of logits"),
        (lambda: Bernoulli(z).relaxed_given(jnp.zeros(2, int), z), r"noise must have the shape of action, \[2\]"),
        (lambda: Bernoulli(z).relaxed_from(jnp.zeros(2)), "noise must end with the shape of the distribution"),
        (lambda: OneHotCategorical(z).relaxed_given(jnp.zeros(2), z), "action must end with"),
        (lambda: Categorical(z).noise_of(jnp.zeros(2, int)), "action must end with"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="noise must have a floating dtype"):
        Categorical(z).relaxed_from(jnp.zeros((3, 2), int))
