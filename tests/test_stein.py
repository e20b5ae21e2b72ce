"""Stein variational directions: closed forms, a loop, symmetries, and the distribution that particles settle in."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
SHAPES = {"w": (2, 3), "b": (4,)}


def particles(number: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.normal(size=(number, *shape)) for name, shape in SHAPES.items()}


def rows(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(tree[name]).reshape(len(tree[name]), -1) for name in SHAPES], 1)


def log_prior(theta: Any) -> Any:
    return -0.5 * sum(jnp.sum(jnp.square(x - 0.3)) for x in theta.values()) / 1.7


def derived(grads: np.ndarray, theta: np.ndarray, alpha: float, prior: np.ndarray, h: float) -> np.ndarray:
    """Liu et al. (2017), the direction of ascent of each particle, in loops."""
    result = np.zeros_like(theta)
    for i in range(len(theta)):
        for j in range(len(theta)):
            k = np.exp(-np.sum((theta[j] - theta[i]) ** 2) / h)
            along_k = -2 / h * (theta[j] - theta[i]) * k  # of k(θ_j, θ_i) with respect to θ_j
            result[i] += ((-grads[j] / alpha + prior[j]) * k + along_k) / len(theta)
    return result


def median_by_hand(theta: np.ndarray) -> float:
    number = len(theta)
    distances = [np.linalg.norm(theta[i] - theta[j]) for i in range(number) for j in range(i)]
    return float(np.median(distances) ** 2 / np.log(number + 1))


@pytest.mark.parametrize("bandwidth", [None, 3.0])
def test_the_direction_is_that_of_the_paper_times_the_temperature(bandwidth: float | None) -> None:
    theta, grads = particles(5), particles(5, seed=1)
    h = median_by_hand(rows(theta)) if bandwidth is None else bandwidth
    got = pg.svgd_direction(grads, theta, temperature=0.7, log_prior=log_prior, bandwidth=bandwidth)
    wanted = derived(rows(grads), rows(theta), 0.7, -(rows(theta) - 0.3) / 1.7, h)
    np.testing.assert_allclose(rows(got), -0.7 * wanted, rtol=1e-10, atol=1e-12)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, theta)


def test_identity_29_one_particle_follows_the_gradient_and_the_prior() -> None:
    theta, grads = particles(1), particles(1, seed=1)
    got = pg.svgd_direction(grads, theta, temperature=0.7, log_prior=log_prior)
    ascent = -rows(grads) / 0.7 - (rows(theta) - 0.3) / 1.7  # ∇J/α + ∇log q₀
    np.testing.assert_allclose(-rows(got) / 0.7, ascent, rtol=1e-12)
    np.testing.assert_array_equal(rows(pg.svgd_direction(grads, theta, temperature=0.7)), rows(grads))


def test_identity_29_repulsion_is_antisymmetric_and_sums_to_zero() -> None:
    theta = particles(6)
    apart = rows(pg.svgd_direction(particles(6), theta, temperature=1.0)) - rows(
        pg.svgd_direction(particles(6), theta, temperature=0.0)
    )
    assert np.abs(apart).max() > 1e-2
    np.testing.assert_allclose(apart.sum(0), 0.0, atol=1e-14)
    two = particles(2)
    first, second = rows(pg.svgd_direction(jax.tree.map(np.zeros_like, two), two))
    np.testing.assert_allclose(first, -second, rtol=1e-12)
    line = rows(two)[0] - rows(two)[1]
    assert np.dot(-first, line) > 0  # descending along it the first goes away from the second


def test_permuted_particles_have_permuted_directions() -> None:
    theta, grads, order = particles(6), particles(6, seed=1), np.array([3, 0, 5, 1, 4, 2])
    straight = pg.svgd_direction(grads, theta, temperature=0.7, log_prior=log_prior)
    moved = [jax.tree.map(lambda x: x[order], tree) for tree in (grads, theta)]
    np.testing.assert_allclose(
        rows(pg.svgd_direction(*moved, temperature=0.7, log_prior=log_prior)), rows(straight)[order], rtol=1e-11
    )


def test_the_bandwidth_is_the_median_and_has_no_gradient() -> None:
    theta = particles(5)
    np.testing.assert_allclose(pg.median_bandwidth(theta), median_by_hand(rows(theta)), rtol=1e-12)
    assert float(pg.median_bandwidth(particles(1))) == 1.0
    assert float(pg.median_bandwidth(jax.tree.map(lambda x: np.repeat(x[:1], 4, 0), theta))) == 1.0
    assert not np.any(rows(jax.grad(pg.median_bandwidth)(theta)))
    together = jax.tree.map(lambda x: np.repeat(x[:1], 4, 0), theta)
    np.testing.assert_allclose(rows(pg.svgd_direction(together, together)), rows(together), rtol=1e-12)


def settled(grad: Any, number: int, *, temperature: float, log_prior: Any = None, rate: float, steps: int) -> Any:
    """Where particles stand after many steps of exact gradients, from a normal start."""
    start = jnp.asarray(np.random.default_rng(1).normal(size=(number, 1)))

    def step(_: int, theta: Any) -> Any:
        direction = pg.svgd_direction(grad(theta), theta, temperature=temperature, log_prior=log_prior)
        return theta - rate * direction

    return np.asarray(jax.jit(lambda x: jax.lax.fori_loop(0, steps, step, x))(start))[:, 0]


def test_identity_29_particles_settle_in_a_normal_target_and_spread_a_little_less() -> None:
    """J = -(θ - 1)²/2 at α = 0.7 has the target Normal(1, variance 0.7); thirty particles have 0.91 of its variance."""
    got = settled(lambda theta: theta - 1.0, 30, temperature=0.7, rate=0.3, steps=1_500)
    np.testing.assert_allclose(got.mean(), 1.0, atol=1e-3)
    np.testing.assert_allclose(got.var(), 0.632, atol=0.01)
    plain = settled(lambda theta: theta - 1.0, 30, temperature=0.0, rate=0.3, steps=1_500)
    assert plain.var() < 1e-2


def test_identity_29_at_a_high_temperature_the_particles_are_those_of_the_prior() -> None:
    prior = lambda theta: -0.5 * jnp.sum(jnp.square(theta + 2.0)) / 0.25  # noqa: E731  Normal(-2, variance 0.25)
    grad = lambda theta: theta - 5.0  # noqa: E731  J draws to 5
    got = settled(grad, 30, temperature=1e4, log_prior=prior, rate=1.2e-5, steps=1_000)
    np.testing.assert_allclose(got.mean(), -2.0, atol=5e-3)
    np.testing.assert_allclose(got.var(), 0.25 * 0.632 / 0.7, atol=5e-3)
    cold = settled(grad, 30, temperature=0.1, log_prior=prior, rate=0.1, steps=1_000)
    assert cold.mean() > 1.5  # where both count it is elsewhere: (5/0.1 - 2/0.25)/(1/0.1 + 1/0.25) = 3


ARMS = np.array([1.0, -1.0])  # of a bandit: J(θ) = tanh(θ/2), the logits ±θ/2


def test_on_a_bandit_the_particles_are_a_sample_of_the_tilted_prior() -> None:
    """Against exp(J/α) q₀ on a grid, q₀ = Normal(0, 4): mean, variance and quartiles; not so a plain gradient."""
    alpha, number = 0.5, 50
    grid = np.linspace(-12, 12, 20_001)
    weight = np.exp(np.tanh(grid / 2) / alpha - grid**2 / 8)
    weight /= weight.sum()
    mean = weight @ grid
    spread = weight @ (grid - mean) ** 2
    wanted = grid[np.searchsorted(np.cumsum(weight), [0.25, 0.5, 0.75])]

    def grad(theta: Any) -> Any:  # exact: -d/dθ of Σ_a π(a) r(a)
        def minus_j(x: Any) -> Any:
            probabilities = pg.Categorical(jnp.stack([x, -x]) / 2).probs
            return -jnp.sum(probabilities * ARMS)

        return jax.vmap(jax.grad(minus_j))(theta[:, 0])[:, None]

    prior = lambda theta: -jnp.sum(jnp.square(theta)) / 8  # noqa: E731
    got = settled(grad, number, temperature=alpha, log_prior=prior, rate=1.0, steps=1_000)
    np.testing.assert_allclose([got.mean(), *np.quantile(got, [0.25, 0.5, 0.75])], [mean, *wanted], atol=0.12)
    assert 0.85 < got.var() / spread < 0.95  # the shrinkage of fifty particles
    alone = settled(grad, 1, temperature=alpha, log_prior=prior, rate=1.0, steps=1_000)  # climbs to the mode
    np.testing.assert_allclose(alone, grid[np.argmax(weight)], atol=1e-3)
    assert np.abs(alone - wanted).max() > 0.5  # as all particles of a population without repulsion do
    climbed = settled(grad, number, temperature=0.0, rate=1.0, steps=1_000)  # a population of plain gradients
    assert climbed.mean() > mean + 2


def test_bad_arguments_are_named() -> None:
    theta = particles(3)
    with pytest.raises(ValueError, match="grads must have the tree structure of params"):
        pg.svgd_direction({"w": theta["w"]}, theta)
    with pytest.raises(ValueError, match="leaves of params must have one axis for the particles"):
        pg.svgd_direction(theta, {"w": theta["w"], "b": theta["b"][:2]})
    with pytest.raises(ValueError, match="grads and params must have the same shapes"):
        pg.svgd_direction(particles(4), theta)
    with pytest.raises(TypeError, match="log_prior must be a function"):
        pg.svgd_direction(theta, theta, log_prior=1.0)
    with pytest.raises(TypeError, match="must have a floating dtype"):
        pg.svgd_direction(theta, jax.tree.map(lambda x: x.astype(int), theta))
