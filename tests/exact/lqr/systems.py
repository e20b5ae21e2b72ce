"""A system without symmetry for the tests, and its cost by loops in NumPy."""

from typing import Any

import numpy as np

from pgjax import exact


def system(horizon: int | None = None, discount: float = 0.9) -> tuple[exact.LQR, np.ndarray]:
    """Three states, two actions, nothing symmetric."""
    lqr = exact.LQR(
        A=np.array([[0.9, 0.2, 0.0], [-0.1, 0.8, 0.3], [0.0, 0.1, 0.7]]),
        B=np.array([[0.5, 0.0], [0.1, 0.4], [-0.2, 0.3]]),
        Q=np.diag([1.0, 0.5, 0.2]),
        R=np.array([[0.3, 0.05], [0.05, 0.2]]),
        noise_covariance=np.array([[0.1, 0.02, 0.0], [0.02, 0.05, 0.0], [0.0, 0.0, 0.0]]),
        action_covariance=np.array([[0.2, 0.03], [0.03, 0.1]]),
        initial_mean=np.array([1.0, -0.5, 0.2]),
        initial_covariance=0.3 * np.eye(3),
        discount=discount,
        horizon=horizon,
    )
    return lqr, np.array([[0.4, 0.1, -0.1], [0.0, 0.3, 0.2]])


def single(drift: float, discount: float, horizon: int | None = None) -> tuple[exact.LQR, np.ndarray]:
    """One state and one action; under the gain, which is not zero, the drift is as given."""
    one = np.ones((1, 1))
    lqr = exact.LQR((drift + 0.3) * one, one, one, 0.5 * one, 0.1 * one, 0.2 * one, np.ones(1), one, discount, horizon)
    return lqr, 0.3 * one


def loop_cost(lqr: exact.LQR, gain: Any, steps: int) -> tuple[float, np.ndarray]:
    """The cost of ``steps`` steps, and γ^t E x_t x_tᵀ of each, by the recursion of the moments."""
    mean, k, moments, total = np.asarray(lqr.initial_mean), np.asarray(gain), [], 0.0
    a, b, q, r = (np.asarray(x) for x in (lqr.A, lqr.B, lqr.Q, lqr.R))
    w, e = np.asarray(lqr.noise_covariance), np.asarray(lqr.action_covariance)
    moment, gamma, weight = np.asarray(lqr.initial_covariance) + np.outer(mean, mean), float(lqr.discount), 1.0
    for _ in range(steps):
        moments.append(moment)  # γ^t is in it, so that it stays finite where the cost does
        total += np.trace(q @ moment) + np.trace(r @ (k @ moment @ k.T + weight * e))
        moment = gamma * ((a - b @ k) @ moment @ (a - b @ k).T + weight * (b @ e @ b.T + w))
        weight *= gamma
    return total, np.stack(moments)
