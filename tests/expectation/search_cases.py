"""Functions of two parameters that searches are tried on, and where."""

import functools
from typing import Any

import jax
import numpy as np

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
KEY = jax.random.key(3)
THETA, SLOPE = np.array([0.4, -0.7]), np.array([1.5, -0.6])
CURVATURE, HEIGHT, SIGMA = np.array([[0.9, 0.4], [0.4, -1.3]]), 0.8, 0.3


def quadratic(x: Any) -> Any:
    d = x - THETA
    return HEIGHT + SLOPE @ d + 0.5 * d @ CURVATURE @ d


def quartic(x: Any) -> Any:
    return x[0] ** 4 + x[0] * x[1] ** 2
