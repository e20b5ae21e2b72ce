"""Distributional critics against rlax, loops, closed forms and tails computed by logarithms."""

import functools
import importlib.util
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
E, N, K, M = 2, 4, 6, 5
EQUAL = np.linspace(-2.0, 3.0, K)
UNEQUAL = np.array([-2.0, -1.5, 0.1, 0.2, 2.0, 3.0])


def distribution(seed: int, *shape: int) -> np.ndarray:
    mass = np.random.default_rng(seed).uniform(0.1, 1.0, size=shape)
    return mass / mass.sum(-1, keepdims=True)


def locations(seed: int, atoms: np.ndarray, *, beyond: float) -> np.ndarray:
    """[N, M] locations; the first row on atoms, the last on both ends."""
    values = np.random.default_rng(seed).uniform(-2.0 - beyond, 3.0 + beyond, size=(N, M))
    values[0] = atoms[[3, 0, 5, 1, 3]]
    values[-1] = atoms[[0, -1, 0, -1, 0]]
    return values


def projected(probs: np.ndarray, values: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """One location at a time, by a search for the atoms around it."""
    out = np.zeros((*probs.shape[:-1], atoms.size))
    for index in np.ndindex(probs.shape):
        x = min(max(values[index], atoms[0]), atoms[-1])
        upper = min(max(int(np.searchsorted(atoms, x)), 1), atoms.size - 1)
        share = (x - atoms[upper - 1]) / (atoms[upper] - atoms[upper - 1])
        out[index[:-1]][upper] += probs[index] * share
        out[index[:-1]][upper - 1] += probs[index] * (1 - share)
    return out


def transition(reward: Any, discount: Any) -> pg.Transition:
    obs = jnp.zeros((len(reward), 2))
    return pg.Transition(obs, obs, jnp.asarray(reward), jnp.asarray(discount), obs)


def project(probs: Any, values: Any, atoms: Any) -> np.ndarray:
    return np.asarray(pg.project_categorical(jnp.asarray(probs), jnp.asarray(values), atoms=jnp.asarray(atoms)))


# --- categorical ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beyond", [0.0, 2.0])
def test_the_projection_equals_the_loop(beyond: float) -> None:
    probs = distribution(0, N, M)
    for atoms in (EQUAL, UNEQUAL):
        values = locations(1, atoms, beyond=beyond)
        close(project(probs, values, atoms), projected(probs, values, atoms))


@pytest.mark.skipif(importlib.util.find_spec("rlax") is None, reason="rlax comes with the extra `test`")
def test_the_projection_equals_that_of_rlax() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports; an error is one
        import rlax
    probs, ordered = distribution(0, N, M), np.sort(locations(1, EQUAL, beyond=2.0))
    ordered[0] += 1e-3 * np.arange(M)  # no two locations alike, as rlax wants it
    ordered[-1] += 1e-3 * np.arange(M)
    with jax.numpy_rank_promotion("allow"):
        theirs = jax.vmap(lambda z, p: rlax.categorical_l2_project(z, p, jnp.asarray(EQUAL)))(ordered, probs)
    close(project(probs, ordered, EQUAL), theirs, atol=1e-9)


def test_identity_27_the_projection_keeps_mass_and_mean_and_an_atom_is_one_hot() -> None:
    probs = distribution(2, N, M)
    for atoms in (EQUAL, UNEQUAL):
        for beyond in (0.0, 2.0):
            values = locations(3, atoms, beyond=beyond)
            mass = project(probs, values, atoms)
            close(mass.sum(-1), 1.0)
            assert np.all(mass >= 0)
            inside = ((values >= atoms[0]) & (values <= atoms[-1])).all(-1)
            mean, kept = (probs * values).sum(-1), mass @ atoms
            close(kept[inside], mean[inside])
            assert inside.all() == (beyond == 0)
            assert np.all(np.abs(kept - mean)[~inside] > 1e-3)  # what lies beyond the ends moves the mean
            if beyond == 0:
                spread = mass @ atoms**2 - kept**2 - ((probs * values**2).sum(-1) - mean**2)
                assert np.all(spread > -1e-12)
                assert spread.max() > 0.05
        one_hot = project(np.ones((K, 1)), atoms[:, None], atoms)
        np.testing.assert_array_equal(one_hot, np.eye(K))
    for far in (1e30, np.inf):
        np.testing.assert_array_equal(project(np.ones((2, 1)), np.array([[-far], [far]]), EQUAL), np.eye(K)[[0, -1]])
    np.testing.assert_array_equal(project(probs, probs, np.ones(1)), probs.sum(-1, keepdims=True))  # a single atom


def test_identity_27_a_single_target_is_two_hot_around_that_of_the_td_error() -> None:
    reward, discount, value = np.array([0.3, -0.4, 1.0, 0.1]), np.array([0.9, 0.5, 0.0, 1.0]), EQUAL[[2, 4, 1, 3]]
    row = transition(reward, discount)
    one_hot = jnp.asarray((value[:, None] == EQUAL).astype(float))
    got = np.asarray(pg.categorical_target(row, one_hot, atoms=jnp.asarray(EQUAL)))
    y = pg.td_target(row, jnp.asarray(value))
    close(got @ EQUAL, y)
    assert np.all((got > 0).sum(-1) <= 2)
    assert np.all(np.abs(EQUAL - np.asarray(y)[:, None])[got > 0] < 1.0)
    assert (got > 0).sum() > N  # not all of them on an atom


def test_the_categorical_target_of_an_ensemble_is_that_of_a_loop() -> None:
    reward, discount, probs = np.array([0.3, -9.0, 1.0, 0.1]), np.array([0.9, 0.5, 0.0, 1.0]), distribution(4, E, N, K)
    for atoms in (EQUAL, UNEQUAL):
        values = np.broadcast_to(reward[:, None] + discount[:, None] * atoms, (E, N, K))
        want = projected(probs, values, atoms)
        got = pg.categorical_target(transition(reward, discount), jnp.asarray(probs), atoms=jnp.asarray(atoms))
        close(got, want)
        broken = jnp.asarray(probs).at[:, 2].set(jnp.nan)  # after a terminal state
        close(pg.categorical_target(transition(reward, discount), broken, atoms=jnp.asarray(atoms)), want)


def test_agents_are_one_more_axis() -> None:
    (reward, discount), probs = np.random.default_rng(13).uniform(size=(2, N, 3)), distribution(14, E, N, 3, K)
    target = functools.partial(pg.categorical_target, atoms=jnp.asarray(EQUAL))
    got = target(transition(reward, discount), jnp.asarray(probs))
    alone = [target(transition(reward[:, a], discount[:, a]), jnp.asarray(probs[:, :, a])) for a in range(3)]
    close(got, np.stack(alone, 2))


def test_the_cross_entropy_has_the_gradient_p_less_m() -> None:
    logits, target = np.random.default_rng(5).normal(size=(E, N, K)), distribution(6, N, K)
    target[0] = np.eye(K)[2]
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    loss = pg.categorical_loss(jnp.asarray(logits), jnp.asarray(target))
    want = [[-sum(target[i, k] * np.log(probs[j, i, k]) for k in range(K)) for i in range(N)] for j in range(E)]
    close(loss, want)
    total = lambda x, y: pg.categorical_loss(x, y).sum()  # noqa: E731
    by_logits, by_target = jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.asarray(logits), jnp.asarray(target))
    close(by_logits, probs - target)
    assert not np.any(by_target)
    low = jnp.array([0.0, -jnp.inf, 0.0])  # an atom that neither has
    value, slope = jax.jit(jax.value_and_grad(pg.categorical_loss))(low, jnp.array([0.25, 0.0, 0.75]))
    close(value, np.log(2.0))
    close(slope, [0.25, 0.0, -0.25])


def test_the_categorical_value_is_the_mean() -> None:
    logits = np.random.default_rng(7).normal(size=(E, N, K))
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    close(pg.categorical_value(jnp.asarray(logits), atoms=jnp.asarray(UNEQUAL)), probs @ UNEQUAL)
    slope = jax.grad(lambda x: pg.categorical_value(x, atoms=jnp.asarray(UNEQUAL)).sum())(jnp.asarray(logits))
    close(slope, probs * (UNEQUAL - (probs @ UNEQUAL)[..., None]))


# --- quantiles --------------------------------------------------------------------------------------------------------


def quantile_loop(quantiles: np.ndarray, target: np.ndarray, kappa: float) -> np.ndarray:
    out = np.zeros(quantiles.shape[:-1])
    count, samples = quantiles.shape[-1], target.shape[-1]
    for *lead, i, j in np.ndindex(*quantiles.shape, samples):
        u = target[(*lead[-(target.ndim - 1) :], j)] - quantiles[(*lead, i)]
        level = (2 * (i + 1) - 1) / (2 * count)
        size = abs(u)
        if kappa > 0:
            size = (0.5 * u * u if size <= kappa else kappa * (size - 0.5 * kappa)) / kappa
        out[tuple(lead)] += (1 - level if u < 0 else level) * size / samples
    return out


def test_the_quantile_loss_equals_the_loop() -> None:
    quantiles, target = (
        np.random.default_rng(seed).normal(size=shape) for seed, shape in ((8, (E, N, K)), (9, (N, M)))
    )
    for kappa in (0.0, 0.5, 1.0):
        got = pg.quantile_loss(jnp.asarray(quantiles), jnp.asarray(target), kappa=kappa)
        close(got, quantile_loop(quantiles, target, kappa))
    close(pg.quantile_loss(jnp.asarray(quantiles), jnp.asarray(target)), got)
    total = lambda x, y: pg.quantile_loss(x, y, kappa=0.5).sum()  # noqa: E731
    by_quantiles, by_target = jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.asarray(quantiles), jnp.asarray(target))
    u = target[:, None, :] - quantiles[..., None]
    level = (np.arange(K) + 0.5)[:, None] / K
    close(by_quantiles, -(np.abs(level - (u < 0)) * np.clip(u / 0.5, -1, 1)).mean(-1))
    assert not np.any(by_target)


def test_an_error_and_its_opposite_cost_differently() -> None:
    """The quantile at 1/4 pays 1/4 for lying below a sample and 3/4 for lying above; the one at 3/4 the reverse."""
    sample = jnp.zeros(1)
    for kappa, size in ((0.0, 2.0), (1.0, 1.5), (4.0, 0.5)):
        loss = lambda *x, kappa=kappa: float(pg.quantile_loss(jnp.array(x), sample, kappa=kappa))  # noqa: E731
        close([loss(-2.0, 0.0), loss(2.0, 0.0), loss(0.0, -2.0), loss(0.0, 2.0)], np.array([1, 3, 3, 1]) / 4 * size)
    slope = jax.grad(lambda x: pg.quantile_loss(x, sample, kappa=0.0))
    np.testing.assert_array_equal(slope(jnp.zeros(2)), 0.0)
    np.testing.assert_array_equal(slope(jnp.full(2, -1.0)), [-0.25, -0.75])
    big = jax.grad(lambda x: pg.quantile_loss(x, jnp.zeros(1, jnp.float32)))(jnp.full(2, 1e30, jnp.float32))
    np.testing.assert_array_equal(big, [0.75, 0.25])


def test_identity_27_the_minimiser_of_the_quantile_loss_is_the_empirical_quantiles() -> None:
    samples = np.random.default_rng(10).exponential(size=11)
    ordered = np.sort(samples)
    for count in (3, 4, 11):
        levels = (np.arange(count) + 0.5) / count
        start = np.zeros((samples.size, count, count))  # candidate, which quantile is moved, all quantiles
        for i in range(count):
            start[:, i, i] = ordered
        losses = pg.quantile_loss(
            jnp.asarray(start.reshape(-1, count)), jnp.broadcast_to(samples, (samples.size * count, 11)), kappa=0.0
        )
        best = ordered[np.asarray(losses).reshape(samples.size, count).argmin(0)]
        close(best, np.quantile(samples, levels, method="inverted_cdf"))
        assert np.abs(best - np.quantile(samples, levels[::-1], method="inverted_cdf")).max() > 0.1
    close(best, ordered)  # as many quantiles as samples: the mean is kept too


# --- bins -------------------------------------------------------------------------------------------------------------


def bins(target: Any, edges: Any, sigma: float) -> np.ndarray:
    """The truncated normal by logarithms of the lower tail, each bin seen from the side on which its tail is small."""
    z = (np.asarray(edges, float) - np.asarray(target, float)[..., None]) / sigma
    low, high = z[..., :-1], z[..., 1:]
    mirrored = low + high > 0
    low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    log_mass = special.log_ndtr(high) + np.log1p(-np.exp(special.log_ndtr(low) - special.log_ndtr(high)))
    return np.exp(log_mass - special.logsumexp(log_mass, axis=-1, keepdims=True))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bins_hold_the_mass_of_the_truncated_normal(dtype: Any) -> None:
    edges = np.array([-2.0, -1.0, 0.0, 0.5, 2.0, 3.0])
    target = np.array([[-60.0, -9.0, -4.0, -2.001, -2.0], [-1.99, 0.0, 0.3, 1.1, 2.9], [3.0, 3.001, 5.0, 10.0, 60.0]])
    for sigma in (0.3, 2.0, 20.0):
        got = pg.hl_gauss_target(jnp.asarray(target, dtype), edges=jnp.asarray(edges, dtype), sigma=sigma)
        assert got.dtype == dtype
        tolerance = 1e-11 if dtype == jnp.float64 else 5e-6
        np.testing.assert_allclose(got, bins(target, edges, sigma), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(got.sum(-1), 1.0, rtol=tolerance)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_far_outside_all_mass_is_in_the_end_bin(dtype: Any) -> None:
    edges = jnp.linspace(-2.0, 3.0, K + 1).astype(dtype)
    far = jnp.array([1e4, 1e9, 1e30, jnp.inf], dtype)
    for sigma in (1e-6, 0.6, 10.0):
        above, below = (np.asarray(pg.hl_gauss_target(y, edges=edges, sigma=sigma)) for y in (far, -far))
        np.testing.assert_allclose(above, np.broadcast_to(np.eye(K)[-1], (4, K)), atol=1e-6)
        np.testing.assert_allclose(below, np.broadcast_to(np.eye(K)[0], (4, K)), atol=1e-6)
    assert np.isnan(pg.hl_gauss_target(jnp.asarray(jnp.nan, dtype), edges=edges, sigma=0.6)).all()
    # Far out the truncated normal is exponential: with a distance of 10⁴ σ and bins of 10⁻⁴ σ each bin holds 1/e of
    # the one before.
    fine = jnp.asarray(np.arange(4) * 1e-4, dtype)
    want = np.exp(-np.arange(3.0))
    got = pg.hl_gauss_target(jnp.asarray(-1e4, dtype), edges=fine, sigma=1.0)
    np.testing.assert_allclose(got, want / want.sum(), rtol=1e-5)


def test_the_mean_of_the_bins_is_the_target_nearly() -> None:
    edges = jnp.linspace(-10.0, 10.0, 41)
    middles = (edges[1:] + edges[:-1]) / 2
    target = jnp.linspace(-7.0, 7.0, 30)
    for sigma in (0.375, 0.25):
        bound = 0.5 / np.pi * np.exp(-2 * np.pi**2 * (sigma / 0.5) ** 2)  # the first harmonic of the rounding
        value = pg.categorical_value(jnp.log(pg.hl_gauss_target(target, edges=edges, sigma=sigma)), atoms=middles)
        worst = float(jnp.abs(value - target).max())
        assert 0.9 * bound < worst < 1.001 * bound
    assert not np.any(jax.jit(jax.grad(lambda y: pg.hl_gauss_target(y, edges=edges, sigma=0.4).sum(0)[7]))(target))


def test_what_stands_for_a_target_is_a_constant_and_the_projection_is_not() -> None:
    atoms, probs = jnp.asarray(EQUAL), jnp.asarray(distribution(11, N, K))

    def weighed(rows: Any, probs: Any) -> Any:
        return (pg.categorical_target(transition(rows[0], rows[1]), probs, atoms=atoms) ** 2).sum()

    by_rows, by_probs = jax.jit(jax.grad(weighed, argnums=(0, 1)))(jnp.full((2, N), 0.5), probs)
    assert not np.any(by_rows)
    assert not np.any(by_probs)
    values = jnp.asarray(np.random.default_rng(12).uniform(-1.9, 2.9, size=(N, K)))
    mean = lambda p, x: (pg.project_categorical(p, x, atoms=atoms) @ atoms).sum()  # noqa: E731
    by_mass, by_place = jax.jit(jax.grad(mean, argnums=(0, 1)))(probs, values)
    close(by_mass, values)
    close(by_place, probs)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    atoms, probs, row = jnp.asarray(EQUAL), jnp.ones((N, K)), transition(np.ones(N), np.ones(N))
    with pytest.raises(ValueError, match=r"^values must have the shape of probs, \[4, 6\], got \[6\]"):
        pg.project_categorical(probs, atoms, atoms=atoms)
    with pytest.raises(
        ValueError, match=r"^atoms must be a vector of at least 1 increasing numbers, got shape \[4, 6\]"
    ):
        pg.project_categorical(probs, probs, atoms=probs)
    with pytest.raises(TypeError, match=r"^atoms must have a floating dtype"):
        pg.categorical_value(probs, atoms=jnp.arange(K))
    with pytest.raises(ValueError, match=r"^logits must end with the shape of atoms, \[6\], got \[4, 5\]"):
        pg.categorical_value(probs[:, 1:], atoms=atoms)
    with pytest.raises(TypeError, match=r"^transition must be a Transition, got dict"):
        pg.categorical_target({"reward": 1.0}, probs, atoms=atoms)
    with pytest.raises(
        ValueError, match=r"^next_probs must end with the shape of transition.reward and atoms, \[4, 6\]"
    ):
        pg.categorical_target(row, probs.T, atoms=atoms)
    with pytest.raises(ValueError, match=r"^logits must end with the shape of target_probs, \[4, 6\], got \[6\]"):
        pg.categorical_loss(atoms, probs)
    with pytest.raises(ValueError, match=r"^target_probs must have shape \[..., K\]"):
        pg.categorical_loss(atoms, jnp.asarray(1.0))
    with pytest.raises(ValueError, match=r"^the batch of quantiles must end with the shape of target without its last"):
        pg.quantile_loss(probs, probs[:3])
    with pytest.raises(ValueError, match=r"^kappa must be a scalar or have shape \[\], got \[4\]"):
        pg.quantile_loss(probs, probs, kappa=jnp.ones(N))
    with pytest.raises(ValueError, match=r"^edges must be a vector of at least 2 increasing numbers, got shape \[1\]"):
        pg.hl_gauss_target(probs, edges=jnp.ones(1), sigma=1.0)
    with pytest.raises(ValueError, match=r"^sigma must be a scalar or have shape \[\], got \[4\]"):
        pg.hl_gauss_target(probs, edges=atoms, sigma=jnp.ones(N))
