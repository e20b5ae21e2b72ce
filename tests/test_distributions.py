"""Distributions against enumeration, quadrature and SciPy in float64; then laws, bad input, other libraries."""

import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from pgjax.distributions import (
    MASKED_LOG_PROB,
    Bernoulli,
    Beta,
    Categorical,
    MultiCategorical,
    Normal,
    TanhNormal,
    action_from_noise,
    log_prob_of,
    sample_action,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    distrax = pytest.importorskip("distrax")

KEY = jax.random.key(0)
LOW, HIGH = np.array([-2.0, 0.5]), np.array([2.0, 0.75])
NO_NOISE = (Beta,)


@pytest.fixture
def foreign() -> Iterator[None]:
    """Let another library promote ranks and warn."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def examples(*lead: int, seed: int = 0) -> dict[str, Any]:
    """One distribution of each class, with the given batch axes."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(*lead, *shape)))  # noqa: E731
    mask = rng.random((*lead, 4)) < 0.6
    mask[..., 1] = True
    return {
        "categorical": Categorical(draw(4)),
        "masked": Categorical(draw(4), jnp.asarray(mask)),
        "multi": MultiCategorical(draw(2, 3)),
        "ragged": MultiCategorical((draw(2), draw(4))),
        "bernoulli": Bernoulli(draw(3)),
        "normal": Normal(draw(2), jnp.exp(draw(2))),
        "tanh": TanhNormal(draw(2), jnp.exp(0.3 * draw(2)), jnp.asarray(LOW), jnp.asarray(HIGH)),
        "beta": Beta(1.2 + jnp.exp(draw(2)), 1.2 + jnp.exp(draw(2)), jnp.asarray(LOW), jnp.asarray(HIGH)),
    }


NAMES = list(examples())
CONTINUOUS = ["normal", "tanh", "beta"]
DISCRETE = [name for name in NAMES if name not in CONTINUOUS]


def all_actions(d: Any) -> np.ndarray:
    """Every action of a discrete distribution without batch axes."""
    if isinstance(d, Categorical):
        return np.arange(d.logits.shape[-1])
    sizes = [2] * d.shape[-1] if isinstance(d, Bernoulli) else [d.logits.shape[-1]] * d.shape[-1]
    return np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))


def component(d: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[..., i : i + 1], d)


def support(d: Any) -> tuple[float, float]:
    if isinstance(d, Normal):
        return float(d.loc[0] - 12 * d.scale[0]), float(d.loc[0] + 12 * d.scale[0])
    return float(d.low[0]), float(d.high[0])


def expectation(d: Any, f: Any) -> float:
    """∫ p f over the support of a one-component distribution, by adaptive quadrature of exp(log_prob)."""
    log_prob = jax.jit(lambda a: d.log_prob(a[None]))
    g = lambda a: float(jnp.exp(log_prob(jnp.float64(a)))) * f(a)  # noqa: E731
    low, high = support(d)
    return integrate.quad(g, low, high, epsabs=1e-11, epsrel=1e-11, limit=400)[0]


# --- exact: normalisation, entropy, divergence, score --------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_probabilities_entropy_and_kl_equal_enumeration(name: str) -> None:
    d, e = examples()[name], examples(seed=1)[name]
    if name == "masked":
        e = Categorical(e.logits, d.mask)
    actions = jnp.asarray(all_actions(d))
    log_p, log_q = np.asarray(d.log_prob(actions)), np.asarray(e.log_prob(actions))
    p = np.exp(log_p)
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-13)
    np.testing.assert_allclose(d.entropy(), -np.sum(special.xlogy(p, p)), rtol=1e-12)
    np.testing.assert_allclose(d.kl_divergence(e), np.sum(p * (log_p - log_q)), rtol=1e-12)
    assert d.kl_divergence(e) > 1e-3
    assert log_p[np.argmax(log_p)] == d.log_prob(d.mode())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("i", [0, 1])
def test_density_integrates_to_one_and_gives_entropy_and_kl(name: str, i: int) -> None:
    d, e = component(examples()[name], i), component(examples(seed=1)[name], i)
    assert expectation(d, lambda a: 1.0) == pytest.approx(1.0, abs=1e-7)
    at = lambda x: jax.jit(lambda a: x.log_prob(a[None]))  # noqa: E731
    log_p, log_q = at(d), at(e)
    assert float(d.entropy()) == pytest.approx(expectation(d, lambda a: -float(log_p(a))), abs=1e-6)
    divergence = expectation(d, lambda a: float(log_p(a) - log_q(a)))
    assert float(d.kl_divergence(e)) == pytest.approx(divergence, abs=1e-6)


@pytest.mark.usefixtures("x64")
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DISCRETE)
def test_score_has_mean_zero_and_its_second_moment_is_the_fisher_matrix(name: str) -> None:
    d = examples()[name]
    flat = d.logits.ravel()
    made = lambda x: d.replace(logits=x.reshape(d.logits.shape))  # noqa: E731
    actions = jnp.asarray(all_actions(d))
    score = jax.jit(jax.jacobian(lambda x: made(x).log_prob(actions)))(flat)
    p = np.exp(d.log_prob(actions))
    fisher = jax.jit(jax.hessian(lambda x: d.kl_divergence(made(x))))(flat)
    np.testing.assert_allclose(p @ score, 0.0, atol=1e-14)
    np.testing.assert_allclose(np.einsum("a,ai,aj->ij", p, score, score), fisher, atol=1e-13)
    if name == "categorical":
        np.testing.assert_allclose(score, np.eye(4) - np.asarray(d.probs), atol=1e-14)


@pytest.mark.usefixtures("x64")
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("scale", "tolerance"), [(0.01, 1e-8), (0.5, 1e-7), (2.0, 1e-7), (4.0, 1e-4), (8.0, 5e-3)])
@pytest.mark.parametrize("loc", [0.0, 0.37, 3.0])
def test_tanh_entropy_is_as_exact_as_it_says(loc: float, scale: float, tolerance: float) -> None:
    d = TanhNormal(jnp.array([loc]), scale, -1.5, 0.5)
    z = np.linspace(-12.0, 12.0, 200_001)
    u = loc + scale * z
    log_p = stats.norm(loc, scale).logpdf(u) + 2.0 * np.logaddexp(u, -u) - 2.0 * np.log(2.0)
    exact = -integrate.trapezoid(log_p * stats.norm.pdf(z), z)
    assert float(d.entropy()) == pytest.approx(exact, abs=tolerance)
    step = 1e-5
    up, down = (d.replace(scale=scale + s).entropy() for s in (step, -step))
    slope = jax.grad(lambda s: d.replace(scale=s).entropy())(jnp.float64(scale))
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-4, atol=1e-8)


def test_tanh_entropy_is_not_that_of_the_base_and_never_above_the_uniform() -> None:
    d = TanhNormal(jnp.array([[0.0], [0.0], [4.0]]), jnp.array([[0.87], [3.0], [1.0]]), 1.0, 3.0)
    assert bool(jnp.all(d.entropy() < np.log(2.0)))
    assert bool(jnp.all(jnp.abs(d.entropy() - d.base.entropy()) > 0.1))


# --- the squashed normal far out ------------------------------------------------------------------------------


def test_tanh_log_slope_is_exact_at_fifty() -> None:
    d = TanhNormal(jnp.zeros(1), 1.0)
    log_slope = lambda u: d.base.log_prob(u[None]) - d.log_prob_raw(u[None])  # noqa: E731
    for u in (50.0, -50.0, 9.0):
        value, slope = jax.jit(jax.value_and_grad(log_slope))(jnp.float32(u))
        np.testing.assert_allclose(value, 2.0 * np.log(2.0) - 2.0 * abs(u), rtol=2e-5)
        np.testing.assert_allclose(slope, -2.0 * np.sign(u), rtol=1e-5)


@pytest.mark.parametrize("action", [-2.0, 2.0, -2.5, 7.0])
def test_tanh_log_prob_is_finite_at_and_beyond_the_bounds(action: float) -> None:
    f = lambda loc, a: TanhNormal(loc, 0.5, -2.0, 2.0).log_prob(a)  # noqa: E731
    value, grads = jax.value_and_grad(f, (0, 1))(jnp.zeros(1), jnp.array([action]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (value, *grads))


@pytest.mark.parametrize("action", [0.0, 1.0])
def test_beta_log_prob_is_finite_at_the_bounds(action: float) -> None:
    f = lambda alpha, a: Beta(alpha, 0.5).log_prob(a)  # noqa: E731
    value, grads = jax.value_and_grad(f, (0, 1))(jnp.array([0.5]), jnp.array([action]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (value, *grads))


def test_squash_stays_inside_awkward_bounds() -> None:
    low, high = jnp.array([-0.1, 0.1, -1e3]), jnp.array([0.2, 0.7, 0.3])
    d = TanhNormal(jnp.zeros(3), 1.0, low, high)
    for u in (-60.0, 60.0):
        a = d.squash(jnp.full(3, u))
        assert bool(jnp.all((a >= low) & (a <= high)))
    b = Beta(jnp.full(3, 0.05), 0.05, low, high)
    a = jax.vmap(b.sample)(jax.random.split(KEY, 500))
    assert bool(jnp.all((a >= low[None]) & (a <= high[None])))


@pytest.mark.usefixtures("x64")
def test_beta_mode() -> None:
    cases = {(3.0, 2.0): 2.0 / 3.0, (0.5, 2.0): 0.0, (1.0, 2.0): 0.0, (2.0, 1.0): 1.0, (0.5, 0.5): 0.5, (1.0, 1.0): 0.5}
    a, b = jnp.asarray(np.array(list(cases)).T)
    np.testing.assert_allclose(Beta(a, b, -1.0, 3.0).mode(), -1.0 + 4.0 * np.array(list(cases.values())), rtol=1e-12)


def test_tanh_mode_is_the_median_as_documented() -> None:
    d = TanhNormal(jnp.array([0.4]), 1.3, -2.0, 5.0)
    samples = jax.vmap(d.sample)(jax.random.split(KEY, 4000))
    below = float(jnp.mean(samples < d.mode()[None]))
    assert abs(below - 0.5) < 4.0 * 0.5 / np.sqrt(4000)


# --- sampling -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_samples_have_the_right_frequencies(name: str) -> None:
    d = examples()[name]
    n = 40_000
    samples = np.asarray(jax.jit(jax.vmap(d.sample))(jax.random.split(KEY, n))).reshape(n, -1)
    actions = all_actions(d).reshape(-1, samples.shape[1])
    p = np.exp(np.asarray(d.log_prob(jnp.asarray(all_actions(d))), np.float64))
    seen = np.array([(samples == a).all(-1).mean() for a in actions])
    assert seen.sum() == pytest.approx(1.0)
    # Four and a half standard errors and a false alarm below 1e-4; the gate sees a shift of 0.02 in any probability.
    error = np.sqrt(p * (1 - p) / n)
    assert np.all(np.abs(seen - p) <= 4.5 * error)
    assert np.all(seen[p == 0.0] == 0.0)
    assert 2 * 4.5 * error.max() < 0.025


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_samples_pass_kolmogorov_smirnov(name: str) -> None:
    d = examples()[name]
    n = 20_000
    samples = np.asarray(jax.jit(jax.vmap(d.sample))(jax.random.split(KEY, n)), np.float64)
    for i in range(2):
        if name == "normal":
            cdf = stats.norm(d.loc[i], d.scale[i]).cdf
        elif name == "beta":
            cdf = stats.beta(d.alpha[i], d.beta[i], LOW[i], HIGH[i] - LOW[i]).cdf
        else:
            cdf = stats.norm(d.loc[i], d.scale[i]).cdf
            x = np.clip(2 * (samples[:, i] - LOW[i]) / (HIGH[i] - LOW[i]) - 1, -1 + 1e-7, 1 - 1e-7)
            samples[:, i] = np.arctanh(x)
        # The bound 0.016 is the 1e-4 quantile at this n; a shift of a tenth of a standard deviation moves it by 0.04.
        assert stats.kstest(samples[:, i], cdf).statistic < 0.016


@pytest.mark.parametrize("name", NAMES)
def test_sampling_is_a_function_of_the_noise(name: str) -> None:
    d = examples(7)[name]
    action, log_prob = d.sample_and_log_prob(KEY)
    assert action.shape == d.shape
    assert log_prob.shape == (7,)
    np.testing.assert_array_equal(action, d.sample(KEY))
    np.testing.assert_allclose(log_prob, d.log_prob(action), rtol=2e-4, atol=2e-4)
    if not isinstance(d, NO_NOISE):
        np.testing.assert_array_equal(action, d.sample_from(d.base_noise(KEY)))
    kind = jnp.integer if name in DISCRETE else jnp.floating
    assert jnp.issubdtype(action.dtype, kind)
    assert jnp.issubdtype(d.mode().dtype, kind)
    assert d.mode().shape == d.shape
    legacy = jax.random.key_data(KEY)
    np.testing.assert_array_equal(d.sample(legacy), action)


@pytest.mark.parametrize("num_actions", [1, 2, 5, 64, 65, 300])
def test_inverse_cdf_is_exact_at_every_edge(num_actions: int) -> None:
    rng = np.random.default_rng(num_actions)
    mask = rng.random((200, num_actions)) < 0.4
    mask[np.arange(200), rng.integers(num_actions, size=200)] = True
    d = Categorical(jnp.asarray(3 * rng.normal(size=(200, num_actions)), jnp.float32), jnp.asarray(mask))
    u = np.concatenate([[0.0, 1.0, 1.0 - 2.0**-24, 1e-30], rng.random(60)]).astype(np.float32)
    noise = jnp.broadcast_to(jnp.asarray(u)[:, None], (u.size, 200))
    chosen = np.asarray(jax.jit(d.sample_from)(noise))
    assert chosen.dtype == np.int32
    assert mask[np.arange(200), chosen].all()
    cdf = np.cumsum(np.asarray(d.probs, np.float64), -1)
    expected = np.array([[np.searchsorted(row / row[-1], x, side="right") for row in cdf] for x in u[4:]])
    # Rounding may move a draw that lies within a few units of a step of the cumulated probability.
    near = np.array([[np.min(np.abs(row / row[-1] - x)) < 2e-6 for row in cdf] for x in u[4:]])
    assert (chosen[4:] == expected)[~near].all()
    assert near.mean() < 0.01


@pytest.mark.parametrize("num_actions", [64, 1000])
def test_rounding_at_the_steps_of_the_cdf_never_chooses_a_forbidden_action(num_actions: int) -> None:
    mask = jax.random.bernoulli(KEY, 0.3, (num_actions,))
    d = Categorical(jax.random.normal(KEY, (num_actions,)), mask)
    steps = np.unique(np.cumsum(np.asarray(d.probs)))
    noise = jnp.asarray((steps[:, None] + np.arange(-12, 13) * 2.0**-25).ravel(), jnp.float32)
    assert bool(jnp.all(mask[jax.jit(d.sample_from)(noise)]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONTINUOUS)
def test_samples_carry_the_pathwise_gradient(name: str) -> None:
    """E[a] differentiated through samples equals its derivative by quadrature of p."""
    d = component(examples()[name], 0)
    keys = jax.random.split(KEY, 20_000)
    grads = jax.jit(jax.vmap(jax.grad(lambda d, key: d.sample(key)[0]), (None, 0)))(d, keys)
    leaves = {"normal": ("loc", "scale"), "tanh": ("loc", "scale"), "beta": ("alpha", "beta")}[name]
    grid = jnp.linspace(*support(d), 4001)[1:-1, None]
    density = lambda d: jnp.exp(d.log_prob(grid))  # noqa: E731
    mean = lambda d: jnp.trapezoid(density(d) * grid[:, 0], grid[:, 0])  # noqa: E731
    exact = jax.jit(jax.grad(mean))(d)
    for leaf in leaves:
        sampled = np.asarray(getattr(grads, leaf))
        error = sampled.std() / np.sqrt(sampled.size)
        truth = float(getattr(exact, leaf)[0])
        assert abs(sampled.mean() - truth) < 4.5 * error + 2e-4
    assert abs(float(getattr(exact, leaves[0])[0])) > 0.02


# --- masks ----------------------------------------------------------------------------------------------------


def mask_report(logits: jax.Array, others: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
    d, other = Categorical(logits, mask), Categorical(others, mask)
    return d.probs, d.log_prob(jnp.arange(5)), d.entropy(), d.kl_divergence(other), d.mode()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2**5 - 1))
def test_masking_equals_leaving_the_actions_out(seed: int, bits: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(5)], bool)
    logits, others = 5 * np.random.default_rng(seed).normal(size=(2, 5)).astype(np.float32)
    probs, log_prob, entropy, divergence, mode = map(np.asarray, jax.jit(mask_report)(logits, others, mask))
    p, q = special.softmax(logits[mask]), special.softmax(others[mask])
    np.testing.assert_allclose(probs[mask], p, rtol=1e-5)
    np.testing.assert_array_equal(probs[~mask], 0.0)
    np.testing.assert_allclose(log_prob[mask], np.log(p), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(log_prob[~mask], MASKED_LOG_PROB)
    np.testing.assert_allclose(entropy, stats.entropy(p), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence, stats.entropy(p, q), rtol=1e-4, atol=1e-5)
    assert mode == np.flatnonzero(mask)[np.argmax(p)]


def test_a_masked_logit_is_never_seen() -> None:
    mask = jnp.array([True, False, True])

    def everything(logits: jax.Array) -> jax.Array:
        d, other = Categorical(logits, mask), Categorical(logits + jnp.array([0.4, 0.0, 0.3]), mask)
        return d.log_prob(0) + d.log_prob(1) + d.entropy() + d.kl_divergence(other)

    all_of = jax.jit(lambda x: (everything(x), jax.grad(everything)(x), jax.hessian(everything)(x)))
    reference = all_of(jnp.array([0.1, 0.0, -0.3]))
    assert reference[1][1] == 0.0
    assert jnp.all(reference[1][:1] != 0.0)
    for value in (1e4, -1e4, np.inf, -np.inf, np.nan):
        for x, y in zip(all_of(jnp.array([0.1, value, -0.3])), reference, strict=True):
            np.testing.assert_array_equal(x, y)


def test_an_all_masked_row_is_uniform_with_zero_gradient() -> None:
    def everything(logits: jax.Array) -> jax.Array:
        d = Categorical(logits, jnp.zeros((2, 4), bool).at[1, 2].set(True))
        return jnp.sum(d.log_prob(jnp.array([3, 2])) + d.entropy())  # −log 4 + log 4, then 0

    logits = jnp.array([[1.0, -5.0, np.inf, np.nan], [1.0, 2.0, 3.0, 4.0]])
    d = Categorical(logits, jnp.zeros((2, 4), bool).at[1, 2].set(True))
    np.testing.assert_allclose(d.probs, [[0.25] * 4, [0, 0, 1, 0]], rtol=1e-6)
    value, grad = jax.jit(jax.value_and_grad(everything))(logits)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_array_equal(grad, 0.0)
    assert set(np.asarray(jax.vmap(d.sample)(jax.random.split(KEY, 100)))[:, 0]) == {0, 1, 2, 3}


def test_actions_that_do_not_exist_have_probability_zero() -> None:
    d = Categorical(jnp.zeros(3))
    np.testing.assert_array_equal(d.log_prob(jnp.array([-1, 3, 100])), MASKED_LOG_PROB)
    ragged = MultiCategorical((jnp.zeros(2), jnp.zeros(5)))
    assert ragged.log_prob(jnp.array([2, 0])) <= MASKED_LOG_PROB
    assert ragged.probs[0, 2] == 0.0


def test_forbidding_what_the_other_allows_is_large_and_finite() -> None:
    d, narrow = Categorical(jnp.zeros(2)), Categorical(jnp.zeros(2), jnp.array([True, False]))
    assert 1e8 < float(d.kl_divergence(narrow)) < np.inf
    np.testing.assert_allclose(narrow.kl_divergence(d), np.log(2.0), rtol=1e-6)


# --- laws for every class -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_is_a_pytree_through_jit_vmap_scan_and_map(name: str) -> None:
    d = examples(6)[name]
    action = jax.jit(d.sample)(KEY)
    rows = lambda d, a: (d.log_prob(a), d.entropy(), d.kl_divergence(d))  # noqa: E731
    whole, one = rows(d, action), jax.jit(rows)
    for mapped in (
        one(d, action),
        jax.jit(jax.vmap(rows))(d, action),
        jax.lax.scan(lambda c, x: (c, rows(*x)), 0, (d, action))[1],
        [
            np.stack(x)
            for x in zip(*[one(*jax.tree.map(lambda x, i=i: x[i], (d, action))) for i in range(6)], strict=True)
        ],
    ):
        for x, y in zip(whole, mapped, strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(whole[2], 0.0, atol=1e-5)
    returned = jax.vmap(lambda d: d)(d)
    assert [x.shape for x in jax.tree.leaves(returned)] == [x.shape for x in jax.tree.leaves(d)]
    assert type(jax.tree.map(lambda x: None, d)) is type(d)
    assert all(jax.tree.leaves(jax.tree.map(lambda x: x.shape[0] == 6, d)))
    assert "loc" in str(jax.tree_util.tree_leaves_with_path(d)[0][0]) or name not in ("normal", "tanh")


def test_vmap_returns_scalar_bounds_and_scale_with_the_batch_axis() -> None:
    make = lambda x: TanhNormal(x, 0.5, -2.0, 2.0)  # noqa: E731
    loc = jnp.arange(12.0).reshape(4, 3)
    mapped, whole = jax.vmap(make)(loc), make(loc)
    np.testing.assert_array_equal(mapped.log_prob_raw(loc), whole.log_prob_raw(loc))


@pytest.mark.parametrize("name", NAMES)
def test_extra_leading_axes_are_samples(name: str) -> None:
    d = examples(3)[name]
    actions = jax.jit(jax.vmap(d.sample))(jax.random.split(KEY, 5))
    log_prob = jax.jit(d.log_prob)
    np.testing.assert_allclose(log_prob(actions), [log_prob(a) for a in actions], rtol=1e-5, atol=1e-6)
    if not isinstance(d, NO_NOISE):
        noise = jax.vmap(d.base_noise)(jax.random.split(KEY, 5))
        np.testing.assert_allclose(d.sample_from(noise), actions, rtol=1e-5, atol=1e-6)
    divergence = jax.jit(d.kl_divergence)(jax.tree.map(lambda x: x[0], d))
    assert divergence.shape == (3,)
    np.testing.assert_allclose(divergence[0], 0.0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened_on_entry(name: str) -> None:
    dtype = jnp.bfloat16
    narrow = jax.tree.map(
        lambda x: x.astype(dtype).astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x, examples(4)[name]
    )
    fields = {k: v if v is None or v.dtype == bool else v.astype(dtype) for k, v in vars(narrow).items()}
    d = type(narrow)(**fields)
    assert all(x.dtype in (jnp.float32, jnp.bool_) for x in jax.tree.leaves(d))
    action = jax.jit(narrow.sample)(KEY)
    report = jax.jit(lambda d: (d.log_prob(action), d.entropy(), d.kl_divergence(d)))
    for x, y in zip(report(d), report(narrow), strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_array_equal(x, y)


def test_extreme_parameters_stay_finite() -> None:
    for scale in (1e-4, 1.0, 1e4):
        logits = scale * jnp.array([1e4, -1e4, 0.0])
        for d, a in ((Categorical(logits), jnp.int32(1)), (Bernoulli(logits), jnp.array([0, 1, 1]))):
            other = type(d)(-logits)
            f = lambda x, d=d, a=a, other=other: (  # noqa: E731
                type(d)(x).log_prob(a) - other.log_prob(a) + type(d)(x).entropy() + type(d)(x).kl_divergence(other)
            )
            value, grad = jax.value_and_grad(f)(logits)
            assert bool(jnp.isfinite(value))
            assert bool(jnp.all(jnp.isfinite(grad)))
        assert bool(jnp.isfinite(Normal(jnp.zeros(1), 1.0).log_prob(jnp.array([1e4 * scale]))))


def test_bernoulli_takes_booleans() -> None:
    d = Bernoulli(jnp.array([0.5, -2.0]))
    np.testing.assert_array_equal(d.log_prob(jnp.array([True, False])), d.log_prob(jnp.array([1, 0])))


def test_ragged_logits_equal_separate_categoricals() -> None:
    a, b = jnp.array([[0.3, -1.0]]), jnp.array([[0.0, 2.0, 0.5, -1.0]])
    d, parts = MultiCategorical([a, b]), (Categorical(a), Categorical(b))
    action = jnp.array([[1, 2]])
    np.testing.assert_allclose(d.log_prob(action), parts[0].log_prob(action[:, 0]) + parts[1].log_prob(action[:, 1]))
    np.testing.assert_allclose(d.entropy(), parts[0].entropy() + parts[1].entropy(), rtol=1e-6)
    grad = jax.jit(jax.grad(lambda x: jnp.sum(MultiCategorical([x, b]).entropy())))(a)
    np.testing.assert_allclose(grad, jax.jit(jax.grad(lambda x: jnp.sum(Categorical(x).entropy())))(a), rtol=1e-5)


# --- errors ---------------------------------------------------------------------------------------------------

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
    (lambda: Beta(Z + 1, 1.0).base_noise(KEY), TypeError, "drive the rollout by actions"),
    (lambda: Beta(Z + 1, 1.0).sample_from(Z), TypeError, "drive the rollout by actions"),
    (lambda: action_from_noise(Beta(Z + 1, 1.0), Z), TypeError, "drive the rollout by actions"),
    (lambda: action_from_noise(object(), Z), TypeError, r"object has no sample_from\(noise\)"),
    (lambda: log_prob_of(Z, Z), TypeError, r"must have a method log_prob.*wrap logits in Categorical"),
    (lambda: sample_action(Z, KEY), TypeError, r"must have a method sample that takes a key"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_bad_input_is_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


# --- acting, and other libraries ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_acting_through_our_own(name: str) -> None:
    d = examples(5)[name]
    action, raw, log_prob = jax.jit(sample_action)(d, KEY)
    np.testing.assert_allclose(action, d.sample(KEY), rtol=1e-6)
    assert (raw is not None) == (name == "tanh")
    np.testing.assert_allclose(log_prob, log_prob_of(d, action, raw), rtol=1e-5)
    if not isinstance(d, NO_NOISE):
        from_noise = action_from_noise(d, d.base_noise(KEY))
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


@pytest.mark.usefixtures("foreign")
def test_agrees_with_distrax_where_distrax_is_right() -> None:
    d = examples(5)
    independent = lambda x: distrax.Independent(x, reinterpreted_batch_ndims=1)  # noqa: E731
    n, b, t = d["normal"], d["beta"], d["tanh"]
    pairs = [
        (d["categorical"], distrax.Categorical(d["categorical"].logits)),
        (d["bernoulli"], independent(distrax.Bernoulli(d["bernoulli"].logits))),
        (n, independent(distrax.Normal(n.loc, n.scale))),
        (Beta(b.alpha, b.beta), independent(distrax.Beta(b.alpha, b.beta))),
    ]
    for ours, theirs in pairs:
        action, raw, log_prob = jax.jit(sample_action)(theirs, KEY)
        assert raw is None
        report = jax.jit(lambda d, a: (log_prob_of(d, a), d.entropy()))
        np.testing.assert_allclose(report(ours, action), report(theirs, action), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(report(ours, action)[0], log_prob, rtol=1e-4, atol=1e-5)
    squashed = distrax.Transformed(distrax.Normal(t.loc, t.scale), distrax.Tanh())
    action = squashed.sample(seed=KEY)
    ours = TanhNormal(t.loc, t.scale)
    np.testing.assert_allclose(ours.log_prob(action), squashed.log_prob(action).sum(-1), rtol=1e-3)


@pytest.mark.usefixtures("foreign")
def test_distrax_is_not_finite_where_ours_is() -> None:
    squashed = distrax.Transformed(distrax.Normal(jnp.zeros(1), jnp.ones(1)), distrax.Tanh())
    edge = jnp.ones(1)
    assert not bool(jnp.all(jnp.isfinite(squashed.log_prob(edge))))
    assert bool(jnp.isfinite(TanhNormal(jnp.zeros(1), 1.0).log_prob(edge)))


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


def test_one_environment_and_one_component_keep_their_axes() -> None:
    """rejax squeezes, which breaks a batch of one."""
    assert Normal(jnp.zeros((1, 1)), 1.0).sample(KEY).shape == (1, 1)
    assert Categorical(jnp.zeros((1, 1))).sample(KEY).shape == (1,)
    assert Beta(jnp.ones((1, 1)), 1.0).log_prob(jnp.zeros((1, 1)) + 0.5).shape == (1,)
