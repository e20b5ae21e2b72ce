"""Nodes and weights for one number of each law; the weights sum to one."""

import numpy as np

Rule = tuple[np.ndarray, np.ndarray]


def tanh_sinh(n: int) -> Rule:
    """The trapezium rule after a double-exponential change of variable, for the uniform law on (0, 1).

    It bears singularities at the ends, such as those of log u and log(1 − u).
    """
    k = np.linspace(-3.2, 3.2, n)
    x = 0.5 * np.pi * np.sinh(k)
    w = np.cosh(k) / np.cosh(x) ** 2
    return 1.0 / (1.0 + np.exp(-2.0 * x)), w / w.sum()


def hermite(n: int) -> Rule:
    """Gauss's rule for the standard normal law."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return x, w / w.sum()


def two_sided_maxwell(n: int) -> Rule:
    """Gauss's rule for the density m² exp(−m²/2) / √(2π), from its three-term recurrence."""
    k = np.arange(1, n)
    off = np.sqrt(np.where(k % 2 == 1, k + 2.0, k))
    x, v = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return x, v[0] ** 2


def rayleigh(n: int) -> Rule:
    """The uniform rule, mapped by √(−2 log u)."""
    u, w = tanh_sinh(n)
    return np.sqrt(-2.0 * np.log(u)), w


def signs(n: int) -> Rule:
    """Both signs, whatever n is."""
    return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
