"""Samples: their law, that they are a function of noise, and rounding at the edges. Compiled as users compile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pgjax.distributions import Bernoulli, Beta, Categorical, Normal, TanhNormal

from .cases import CONTINUOUS, DISCRETE, HIGH, KEY, LOW, NAMES, all_actions, component, examples, quadrature


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
    assert abs(np.corrcoef(samples.T)[0, 1]) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("name", NAMES)
def test_sampling_is_a_function_of_the_noise(name: str) -> None:
    d = examples(7)[name]

    def everything(d, key):  # type: ignore[no-untyped-def]
        return d.sample_and_log_prob(key), d.sample(key), d.sample_from(d.base_noise(key)), d.mode()

    (action, log_prob), again, from_noise, mode = jax.jit(everything)(d, KEY)
    assert action.shape == mode.shape == d.shape
    assert log_prob.shape == (7,)
    np.testing.assert_array_equal(action, again)
    np.testing.assert_array_equal(action, from_noise)
    np.testing.assert_allclose(log_prob, jax.jit(d.log_prob)(action), rtol=2e-4, atol=2e-4)
    kind = jnp.floating if name in CONTINUOUS or "one_hot" in name else jnp.integer
    assert jnp.issubdtype(action.dtype, kind)
    assert jnp.issubdtype(mode.dtype, kind)
    if name == "beta":  # a key for each row
        keys = d.base_noise(KEY)
        assert keys.shape == (7,)
        assert len(np.unique(jax.random.key_data(keys))) == 14
        np.testing.assert_array_equal(
            jax.random.key_data(d.base_noise(jax.random.key_data(KEY))), jax.random.key_data(keys)
        )
    else:
        np.testing.assert_allclose(jax.jit(d.sample)(jax.random.key_data(KEY)), action, rtol=1e-5, atol=1e-6)


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
    a, w = quadrature(d)
    exact = jax.jit(jax.grad(lambda d: jnp.sum(w * a[:, 0] * jnp.exp(d.log_prob(a)))))(d)
    for leaf in leaves:
        sampled = np.asarray(getattr(grads, leaf))
        error = sampled.std() / np.sqrt(sampled.size)
        assert abs(sampled.mean() - float(getattr(exact, leaf)[0])) < 4.5 * error + 1e-10
    assert abs(float(getattr(exact, leaves[0])[0])) > 0.02


@pytest.mark.parametrize("cls", [TanhNormal, Beta])
def test_samples_stay_inside_awkward_bounds_and_finite_under_their_own_density(cls: type) -> None:
    """What rounding makes of a sample is inside the box, and its log-density finite: wide normals, tiny alphas."""
    low, high = jnp.array([-0.1, 0.1, -1e3]), jnp.array([0.2, 0.7, 0.3])
    d = cls(jnp.zeros(3), 20.0, low, high) if cls is TanhNormal else cls(jnp.full(3, 0.05), 0.05, low, high)

    def draw(d, keys):  # type: ignore[no-untyped-def]
        action = jax.vmap(d.sample)(keys)
        return action, [d.log_prob(action.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16, jnp.float16)]

    action, log_probs = jax.jit(draw)(d, jax.random.split(KEY, 2000))
    assert bool(jnp.all((action >= low[None]) & (action <= high[None])))
    assert float(jnp.mean((action == low[None]) | (action == high[None]))) > 0.02
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in log_probs)


def test_tanh_mode_is_the_median_as_documented() -> None:
    d = TanhNormal(jnp.array([0.4]), 1.3, -2.0, 5.0)
    samples = jax.jit(jax.vmap(d.sample))(jax.random.split(KEY, 4000))
    below = float(jnp.mean(samples < d.mode()[None]))
    assert abs(below - 0.5) < 4.0 * 0.5 / np.sqrt(4000)


def test_one_environment_and_one_component_keep_their_axes() -> None:
    """rejax squeezes, which breaks a batch of one."""
    assert Normal(jnp.zeros((1, 1)), 1.0).sample(KEY).shape == (1, 1)
    assert Categorical(jnp.zeros((1, 1))).sample(KEY).shape == (1,)
    assert Bernoulli(jnp.zeros((1, 1))).sample(KEY).shape == (1, 1)
    assert Beta(jnp.ones((1, 1)), 1.0).log_prob(jnp.zeros((1, 1)) + 0.5).shape == (1,)
