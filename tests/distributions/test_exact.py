"""Distributions against enumeration, quadrature and SciPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from pgjax.distributions import Beta, Categorical, Normal, OneHotCategorical, TanhNormal

from .cases import CONTINUOUS, DISCRETE, HIGH, LOW, all_actions, component, examples, quadrature

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")


def report(d: Any, e: Any, actions: Any) -> Any:
    return d.log_prob(actions), e.log_prob(actions), d.entropy(), d.kl_divergence(e), d.log_prob(d.mode())


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_probabilities_entropy_and_kl_equal_enumeration(name: str) -> None:
    d, e = examples()[name], examples(seed=1)[name]
    if "masked" in name:
        e = e.replace(mask=d.mask)
    log_p, log_q, entropy, divergence, at_mode = map(np.asarray, jax.jit(report)(d, e, all_actions(d)))
    p = np.exp(log_p)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-13)
    np.testing.assert_allclose(entropy, -np.sum(special.xlogy(p, p)), rtol=1e-12)
    np.testing.assert_allclose(divergence, np.sum(p * (log_p - log_q)), rtol=1e-12)
    assert divergence > 1e-3
    assert at_mode == log_p.max()
    logits = np.asarray(d.logits)
    if name in ("categorical", "one_hot"):
        np.testing.assert_allclose(p, special.softmax(logits), rtol=1e-13)
    if name == "bernoulli":
        yes = special.expit(logits)
        np.testing.assert_allclose(p, np.prod(np.where(all_actions(d) == 1, yes, 1.0 - yes), axis=-1), rtol=1e-13)
    if name == "multi":
        each = special.softmax(logits, axis=-1)
        np.testing.assert_allclose(p, (each[0][:, None] * each[1]).ravel(), rtol=1e-13)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("i", [0, 1])
def test_density_integrates_to_one_and_gives_entropy_and_kl(name: str, i: int) -> None:
    d, e = component(examples()[name], i), component(examples(seed=1)[name], i)
    a, w = quadrature(d)
    log_p, log_q, entropy, divergence, _ = map(np.asarray, jax.jit(report)(d, e, a))
    p = w * np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    # The entropy of a squashed normal is itself a sum over nodes, good to 1e-7 by its own docstring.
    assert entropy == pytest.approx(-p @ log_p, abs=1e-7 if name == "tanh" else 1e-11)
    assert divergence == pytest.approx(p @ (log_p - log_q), abs=1e-11)
    assert divergence > 1e-3


def test_log_prob_sums_over_the_last_axis_and_agrees_with_scipy() -> None:
    d = examples(5)
    a = LOW + (HIGH - LOW) * np.random.default_rng(1).uniform(0.1, 0.9, (5, 2))
    n, b, t = d["normal"], d["beta"], d["tanh"]
    np.testing.assert_allclose(n.log_prob(a), stats.norm(n.loc, n.scale).logpdf(a).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(n.entropy(), stats.norm(n.loc, n.scale).entropy().sum(-1), rtol=1e-12)
    oracle = stats.beta(b.alpha, b.beta, LOW, HIGH - LOW)
    np.testing.assert_allclose(b.log_prob(a), oracle.logpdf(a).sum(-1), rtol=1e-10)
    np.testing.assert_allclose(b.entropy(), oracle.entropy().sum(-1), rtol=1e-9)
    x = 2.0 * (a - LOW) / (HIGH - LOW) - 1.0
    slope = np.log((1.0 - x**2) * (HIGH - LOW) / 2.0)
    np.testing.assert_allclose(
        t.log_prob(a), (stats.norm(t.loc, t.scale).logpdf(np.arctanh(x)) - slope).sum(-1), rtol=1e-10
    )


@pytest.mark.parametrize("name", DISCRETE)
def test_score_has_mean_zero_and_its_second_moment_is_the_fisher_matrix(name: str) -> None:
    d = examples()[name]
    actions = all_actions(d)

    def both(logits: Any, actions: Any) -> Any:
        made = lambda x: d.replace(logits=x)  # noqa: E731
        score = jax.jacobian(lambda x: made(x).log_prob(actions))(logits)
        return d.log_prob(actions), score, jax.hessian(lambda x: d.kl_divergence(made(x)))(logits)

    log_p, score, fisher = map(np.asarray, jax.jit(both)(d.logits, actions))
    p, score = np.exp(log_p), score.reshape(len(actions), -1)
    np.testing.assert_allclose(p @ score, 0.0, atol=1e-14)
    fisher = fisher.reshape(score.shape[1], -1)
    np.testing.assert_allclose(np.einsum("a,ai,aj->ij", p, score, score), fisher, atol=1e-13)
    if name in ("categorical", "one_hot"):
        np.testing.assert_allclose(score, np.eye(len(p)) - p, atol=1e-14)


@pytest.mark.parametrize("squashed", [False, True])
def test_normal_score_by_gauss_hermite(squashed: bool) -> None:
    z, w = np.polynomial.hermite_e.hermegauss(16)
    loc, scale = jnp.array([0.3]), jnp.array([0.7])
    raw = jnp.asarray(0.3 + 0.7 * z)[:, None]

    def log_prob(theta: jax.Array) -> jax.Array:
        if squashed:
            return TanhNormal(theta[:1], jnp.exp(theta[1:]), -3.0, 3.0).log_prob_raw(raw)
        return Normal(theta[:1], jnp.exp(theta[1:])).log_prob(raw)

    score = np.asarray(jax.jit(jax.jacobian(log_prob))(jnp.concatenate([loc, jnp.log(scale)])))
    w = w / w.sum()
    np.testing.assert_allclose(w @ score, 0.0, atol=1e-13)
    np.testing.assert_allclose(np.einsum("n,ni,nj->ij", w, score, score), np.diag([0.7**-2, 2.0]), atol=1e-12)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.01, 1e-8), (0.5, 1e-7), (2.0, 1e-7), (4.0, 1e-4), (8.0, 5e-3)])
def test_tanh_entropy_is_as_exact_as_it_says(scale: float, tolerance: float) -> None:
    loc = np.array([0.0, 0.37, 3.0])
    entropy = lambda scale: TanhNormal(jnp.asarray(loc)[:, None], scale, -1.5, 0.5).entropy()  # noqa: E731
    z = np.linspace(-12.0, 12.0, 200_001)
    u = loc[:, None] + scale * z
    log_p = stats.norm(loc[:, None], scale).logpdf(u) + 2.0 * np.logaddexp(u, -u) - 2.0 * np.log(2.0)
    exact = -integrate.trapezoid(log_p * stats.norm.pdf(z), z)
    step = 1e-5
    value, slope, up, down = jax.jit(
        lambda s: (entropy(s), jax.jacobian(entropy)(s), entropy(s + step), entropy(s - step))
    )(scale)
    np.testing.assert_allclose(value, exact, rtol=0.0, atol=tolerance)
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-4, atol=1e-8)


def test_tanh_entropy_is_not_that_of_the_base_and_never_above_the_uniform() -> None:
    d = TanhNormal(jnp.array([[0.0], [0.0], [4.0]]), jnp.array([[0.87], [3.0], [1.0]]), 1.0, 3.0)
    entropy, base = map(np.asarray, jax.jit(lambda d: (d.entropy(), d.base.entropy()))(d))
    assert np.all(entropy < np.log(2.0))
    assert np.all(np.abs(entropy - base) > 0.1)


def test_beta_mode() -> None:
    cases = {(3.0, 2.0): 2.0 / 3.0, (0.5, 2.0): 0.0, (1.0, 2.0): 0.0, (2.0, 1.0): 1.0, (0.5, 0.5): 0.5, (1.0, 1.0): 0.5}
    a, b = np.array(list(cases)).T
    mode = jax.jit(lambda a, b: Beta(a, b, -1.0, 3.0).mode())(a, b)
    np.testing.assert_allclose(mode, -1.0 + 4.0 * np.array(list(cases.values())), rtol=1e-12)


def test_one_hot_is_categorical_but_for_the_form_of_the_action() -> None:
    d, e = examples(5)["one_hot_masked"], examples(5, seed=1)["one_hot_masked"]
    e = e.replace(mask=d.mask)
    index = np.array([1, 0, 2, 3, 1])
    noise = np.random.default_rng(0).random(5)

    def of(d: Any, e: Any, action: Any) -> Any:
        same = d.log_prob(action), d.entropy(), d.kl_divergence(e), d.probs, d.log_probs, d.noise_of(action)
        return same, (d.mode(), d.sample_from(noise), d.harden(d.relaxed_from(np.full((5, 4), 0.3)))), d.support()[1]

    make = lambda x: Categorical(x.logits, x.mask)  # noqa: E731
    ours, vectors, probs = jax.jit(of)(d, e, np.eye(4)[index])
    theirs, indices, other_probs = jax.jit(of)(make(d), make(e), index)
    for x, y in zip((*ours, probs), (*theirs, other_probs), strict=True):
        np.testing.assert_array_equal(x, y)
    for vector, i in zip(vectors, indices, strict=True):
        np.testing.assert_array_equal(vector, np.eye(4)[np.asarray(i)])
    assert isinstance(d.categorical, Categorical)
    assert OneHotCategorical(jnp.zeros((2, 3))).shape == (2, 3)


def test_ragged_logits_equal_separate_categoricals() -> None:
    from pgjax.distributions import MultiCategorical

    a, b = np.array([[0.3, -1.0]]), np.array([[0.0, 2.0, 0.5, -1.0]])
    action = np.array([[1, 2]])

    def whole(a: Any, b: Any) -> Any:
        d = MultiCategorical([a, b])
        return d.log_prob(action), d.entropy()

    def apart(a: Any, b: Any) -> Any:
        one, two = Categorical(a), Categorical(b)
        return one.log_prob(action[:, 0]) + two.log_prob(action[:, 1]), one.entropy() + two.entropy()

    both = lambda f: jax.jit(lambda a, b: (f(a, b), jax.jacobian(f)(a, b)))(a, b)  # noqa: E731
    for x, y in zip(jax.tree.leaves(both(whole)), jax.tree.leaves(both(apart)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-15)
    d = MultiCategorical([a, b])
    assert d.sizes == (2, 4)
    assert d.probs[0, 0, 2] == 0.0
    padded = MultiCategorical(np.stack([np.pad(a, ((0, 0), (0, 2)), constant_values=7.0), b], 1), sizes=(2, 4))
    np.testing.assert_array_equal(padded.log_prob(action), d.log_prob(action))
    assert MultiCategorical([a, a]).sizes is None
