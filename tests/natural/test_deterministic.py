"""The critic that is compatible with a deterministic policy, against its Jacobian."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
RANDOM = np.random.default_rng(0)
OBS = RANDOM.normal(size=(6, 3))
ACTION = RANDOM.normal(size=(6, 2))
PARAMS = {"w": RANDOM.normal(size=(3, 2)), "b": RANDOM.normal(size=2)}
GOAL = RANDOM.normal(size=(6, 2))


def policy(params: Any, obs: Any) -> Any:
    return pg.exploration.Deterministic(
        jnp.tanh(obs @ params["w"] + jnp.broadcast_to(params["b"], (*obs.shape[:-1], 2)))
    )


def jacobian() -> tuple[Any, Any, Any]:
    """(actions [N, D], Jacobian [N, D, P], the way back to a tree)."""
    vector, back = ravel_pytree(PARAMS)
    mean = lambda vector: policy(back(vector), OBS).mode()  # noqa: E731
    return np.asarray(mean(vector)), np.asarray(jax.jacobian(mean)(vector)), back


def test_it_is_linear_in_the_weights_with_the_slope_that_the_policy_can_follow() -> None:
    mean, matrix, back = jacobian()
    weights = RANDOM.normal(size=matrix.shape[-1])
    value, slope = pg.natural.deterministic_compatible_value(back(weights), PARAMS, OBS, action=ACTION, policy=policy)
    np.testing.assert_allclose(slope, matrix @ weights, rtol=1e-12)
    np.testing.assert_allclose(value, np.sum((ACTION - mean) * (matrix @ weights), -1), rtol=1e-12)
    at_mean, _ = pg.natural.deterministic_compatible_value(back(weights), PARAMS, OBS, action=mean, policy=policy)
    np.testing.assert_array_equal(at_mean, 0.0)


def test_fitted_to_the_slope_of_the_true_critic_it_leaves_the_policy_gradient_as_it_is() -> None:
    """Theorem 3 of Silver et al.: Σ Jᵀ J w = Σ Jᵀ ∇_a Q, and w is the natural gradient; other weights do not."""
    mean, matrix, back = jacobian()
    true_slope = GOAL - mean  # of Q = -½ |a - goal|²
    flat = matrix.reshape(-1, matrix.shape[-1])
    weights = np.linalg.lstsq(flat, true_slope.ravel(), rcond=None)[0]
    exact = flat.T @ true_slope.ravel()
    assert np.abs(flat @ weights - true_slope.ravel()).max() > 0.1  # the fit itself is far from perfect

    def followed(weights: Any) -> Any:
        def objective(params: Any) -> Any:
            return jnp.sum(policy(params, OBS).mode() * jax.lax.stop_gradient(slope))

        _, slope = pg.natural.deterministic_compatible_value(back(weights), PARAMS, OBS, action=ACTION, policy=policy)
        return ravel_pytree(jax.grad(objective)(PARAMS))[0]

    np.testing.assert_allclose(followed(weights), exact, rtol=1e-9, atol=1e-12)
    assert np.abs(followed(weights + 0.1) - exact).max() > 1e-2
    np.testing.assert_allclose(np.linalg.solve(flat.T @ flat, exact), weights, rtol=1e-8)


def test_at_the_mode_the_expected_gradient_of_a_deterministic_policy_is_the_deterministic_policy_gradient() -> None:
    mean, matrix, _ = jacobian()
    rows = np.zeros((1, 6))
    trajectory = pg.Trajectory(OBS[None], ACTION[None], rows, OBS[None], rows > 0, rows > 0, rows, rows.astype(int))
    gradient, _ = pg.expected_gradient(
        PARAMS, trajectory, policy=policy, rule=pg.expectation.at_mode,
        critic=lambda obs, action: -0.5 * jnp.sum((action - GOAL[None]) ** 2, -1),
    )  # fmt: skip
    exact = np.einsum("ndp,nd->p", matrix, GOAL - mean) / 6
    np.testing.assert_allclose(-ravel_pytree(gradient)[0], exact, rtol=1e-10)


@pytest.mark.parametrize(
    ("weights", "action", "error", "message"),
    [
        ({"w": PARAMS["w"]}, ACTION, ValueError, "weights"),
        (PARAMS, ACTION[:, :1], ValueError, "action"),
        (PARAMS, ACTION.astype(int), TypeError, "action must have a floating dtype"),
    ],
)
def test_bad_input_is_named(weights: Any, action: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        pg.natural.deterministic_compatible_value(weights, PARAMS, OBS, action=action, policy=policy)
