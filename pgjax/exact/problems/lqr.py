"""Two linear-quadratic problems of the suite."""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.exact.lqr.system import LQR

Array = jax.Array


def double_integrator() -> tuple[LQR, Array]:
    """Build the noisy double integrator and a stable gain.

    Returns:
        (lqr, gain): two states, one action, γ = 0.95, no horizon; gain [1, 2].
    """
    lqr = LQR(
        A=np.array([[1.0, 0.1], [0.0, 1.0]]),
        B=np.array([[0.0], [0.1]]),
        Q=np.diag(np.array([1.0, 0.1])),
        R=np.array([[0.01]]),
        noise_covariance=0.01 * np.eye(2),
        action_covariance=np.array([[0.1]]),
        initial_mean=np.zeros(2),
        initial_covariance=np.eye(2),
        discount=0.95,
    )
    return lqr, jnp.array([[1.0, 1.5]])


def scalar_lqr() -> tuple[LQR, Array]:
    """Build the scalar system that the exact variances of estimators are stated for, and its gain.

        x' = 0.9 x + 0.5 u + 0.3 w,  u = -0.4 x + 0.5 ε,  cost x² + 0.2 u²

    Returns:
        (lqr, gain): one state, one action, γ = 0.95, horizon 5; gain [1, 1].
    """
    lqr = LQR(
        A=np.array([[0.9]]),
        B=np.array([[0.5]]),
        Q=np.array([[1.0]]),
        R=np.array([[0.2]]),
        noise_covariance=np.array([[0.09]]),
        action_covariance=np.array([[0.25]]),
        initial_mean=np.array([1.0]),
        initial_covariance=np.array([[0.16]]),
        discount=0.95,
        horizon=5,
    )
    return lqr, jnp.array([[0.4]])
