"""The stochastic duelling network: the mean of its action values over the policy is the value."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def advantage(action: np.ndarray) -> np.ndarray:
    """Far from centred, and no polynomial."""
    return np.sin(2 * action) + 0.4 * action**2 + 3.0


@pytest.mark.parametrize("num_draws", [1, 2])
def test_the_mean_over_the_policy_is_the_value_for_any_number_of_draws(num_draws: int) -> None:
    """By quadrature over the action and the draws; not without the draws, nor with those of another policy."""
    grids = np.meshgrid(*[NODES] * (1 + num_draws), indexing="ij")
    weights = functools.reduce(np.multiply.outer, [WEIGHTS] * (1 + num_draws))
    policy = lambda x: 0.3 + 0.8 * x  # noqa: E731
    value = jnp.full(weights.shape, -1.7)

    def mean(of_draws: np.ndarray) -> float:
        q = pg.stochastic_duelling(value, jnp.asarray(advantage(policy(grids[0]))), of_draws=jnp.asarray(of_draws))
        assert q.shape == weights.shape
        return float(np.sum(weights * q))

    draws = np.stack(grids[1:])
    np.testing.assert_allclose(mean(advantage(policy(draws))), -1.7, atol=1e-9)
    assert abs(mean(0 * draws) + 1.7) > 1
    assert abs(mean(advantage(0.8 * draws)) + 1.7) > 1e-1


def test_it_is_that_of_a_loop_and_a_constant_advantage_is_nothing() -> None:
    random = np.random.default_rng(0)
    value, taken, of_draws = random.normal(size=(3, 4)), random.normal(size=(3, 4)), random.normal(size=(5, 3, 4))
    q = pg.stochastic_duelling(jnp.asarray(value), jnp.asarray(taken), of_draws=jnp.asarray(of_draws))
    for i, j in np.ndindex(3, 4):
        np.testing.assert_allclose(q[i, j], value[i, j] + taken[i, j] - sum(of_draws[:, i, j]) / 5, atol=1e-12)

    def total(value: jax.Array, shift: jax.Array) -> jax.Array:
        return pg.stochastic_duelling(value, jnp.asarray(taken) + shift, of_draws=jnp.asarray(of_draws) + shift).sum()

    slope, by_shift = jax.grad(total, argnums=(0, 1))(jnp.asarray(value), jnp.zeros(()))
    np.testing.assert_array_equal(slope, np.ones((3, 4)))
    np.testing.assert_allclose(by_shift, 0.0, atol=1e-12)


def test_shapes_that_do_not_fit_are_named() -> None:
    x = jnp.ones((3, 4))
    with pytest.raises(ValueError, match="advantage must have the shape of value"):
        pg.stochastic_duelling(x, x[0], of_draws=x[None])
    with pytest.raises(ValueError, match=r"of_draws must have shape \[M, ...\], M actions for each value"):
        pg.stochastic_duelling(x, x, of_draws=x)
    with pytest.raises(ValueError, match="of_draws"):
        pg.stochastic_duelling(x, x, of_draws=jnp.zeros((0, 3, 4)))
