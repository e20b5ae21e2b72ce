"""The linear baseline against least squares by NumPy, and that it is fitted to other trajectories."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
T, B, F = 6, 5, 3
RANDOM = np.random.default_rng(0)
PHI, G, W = RANDOM.normal(size=(T, B, F)), RANDOM.normal(size=(T, B)), RANDOM.uniform(0.1, 2.0, size=(T, B))
TWO_HALVES = ([0, 1, 2], [3, 4])


def least_squares(phi: Any, g: Any, w: Any, ridge: float = 0.0) -> Any:
    """By stacking the penalty as further rows, an algorithm without normal equations."""
    phi, g, root = phi.reshape(-1, F), g.ravel(), np.sqrt(w.ravel())
    penalty = np.diag(np.sqrt(ridge * (w.ravel() @ phi**2)))
    rows = np.concatenate([root[:, None] * phi, penalty])
    return np.linalg.lstsq(rows, np.concatenate([root * g, np.zeros(F)]), rcond=None)[0]


@pytest.mark.parametrize("ridge", [0.0, 1e-5, 0.3])
def test_the_fit_is_ridge_regression(ridge: float) -> None:
    want = least_squares(PHI, G, W, ridge)
    np.testing.assert_allclose(pg.fit_linear_baseline(PHI, G, W, ridge=ridge), want, atol=1e-12)
    np.testing.assert_allclose(pg.linear_baseline(PHI, want), PHI @ want, atol=1e-12)
    plain = least_squares(PHI, G, np.ones_like(G), ridge)
    np.testing.assert_allclose(pg.fit_linear_baseline(PHI, G, ridge=ridge), plain, atol=1e-12)
    # The penalty is a share: other units of a feature change nothing of the prediction.
    units = np.array([1.0, 1e3, 1e-4])
    got = pg.fit_linear_baseline(PHI * units, G, W, ridge=ridge)
    np.testing.assert_allclose(got * units, want, rtol=1e-7)


def test_every_fold_is_predicted_from_the_others() -> None:
    got = {k: np.asarray(pg.cross_fitted_baseline(PHI, G, W, num_folds=k, ridge=1e-3)) for k in (None, 1, 2)}
    for b in range(B):
        own = next(half for half in TWO_HALVES if b in half)
        for folds, rest in (
            (None, [j for j in range(B) if j != b]),
            (1, list(range(B))),
            (2, [j for j in range(B) if j not in own]),
        ):
            want = PHI[:, b] @ least_squares(PHI[:, rest], G[:, rest], W[:, rest], 1e-3)
            np.testing.assert_allclose(got[folds][:, b], want, atol=1e-11)
    agents = np.stack([PHI, PHI[::-1]], 2), np.stack([G, G[::-1]], 2), np.stack([W, W[::-1]], 2)
    shared = pg.cross_fitted_baseline(*agents, ridge=1e-3)  # the same rows twice: weights of the others are the same
    np.testing.assert_allclose(shared[:, :, 0], got[None], atol=1e-11)
    np.testing.assert_allclose(shared[:, :, 1], got[None][::-1], atol=1e-11)


def test_what_has_no_data_is_predicted_as_zero() -> None:
    phi = PHI.copy()
    phi[..., 1] = 0.0
    beta = pg.fit_linear_baseline(phi, G)
    assert float(beta[1]) == 0.0
    np.testing.assert_allclose(beta[jnp.array([0, 2])], pg.fit_linear_baseline(phi[..., [0, 2]], G), atol=1e-12)
    one_hot = jax.nn.one_hot(jnp.arange(B) % 5, 5, dtype=float)[None]  # each column a state that no other one visits
    np.testing.assert_array_equal(pg.cross_fitted_baseline(one_hot, G[:1]), 0.0)


def test_no_gradient_flows_through_a_linear_baseline() -> None:
    both = lambda phi, g: pg.cross_fitted_baseline(phi, g).sum() + pg.linear_baseline(phi, g[0, :F]).sum()  # noqa: E731
    for grads in jax.grad(both, argnums=(0, 1))(jnp.asarray(PHI), jnp.asarray(G)):
        np.testing.assert_array_equal(grads, 0.0)


def test_time_features_are_those_of_the_classic_baseline() -> None:
    obs, step = np.array([[[0.5, -12.0]], [[3.0, 11.0]]]), np.array([[0], [250]])
    want = [
        [0.5, -10.0, 0.25, 100.0, 0.0, 0.0, 0.0, 1.0],
        [3.0, 10.0, 9.0, 100.0, 2.5, 6.25, 15.625, 1.0],
    ]
    np.testing.assert_allclose(pg.time_features(obs, step)[:, 0], want, rtol=1e-12)


def test_bad_arguments_are_refused_by_name() -> None:
    for call, error, message in (
        (lambda: pg.fit_linear_baseline(PHI[0], G), ValueError, r"features must have shape \[..., F\] = \[6, 5, 3\]"),
        (lambda: pg.fit_linear_baseline(PHI, G, W[0]), ValueError, "weight must have the shape of return_"),
        (lambda: pg.linear_baseline(PHI, np.ones(2)), ValueError, r"beta must have shape \[F\] = \[3\], got \[2\]"),
        (lambda: pg.cross_fitted_baseline(PHI[:, :1], G[:, :1]), ValueError, "num_folds=None leaves each .* got 1"),
        (lambda: pg.cross_fitted_baseline(PHI[:, 0], G[:, 0]), ValueError, r"return_ must have shape \[T, B, ...\]"),
        (lambda: pg.time_features(PHI, G), TypeError, "step must be an integer array"),
        (lambda: pg.time_features(PHI, np.zeros(T, int)), ValueError, r"obs must have shape \[T, B, D\]"),
    ):
        with pytest.raises(error, match=message):
            call()
