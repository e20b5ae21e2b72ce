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
    return np.minimum(1.0 / (1.0 + np.exp(-2.0 * x)), 1.0 - 2.0**-53), w / w.sum()


def normal(n: int) -> Rule:
    """A rule for the standard normal law: up to 24 nodes Gauss's, exact for polynomials of degree below 2n.

    From 25 on the trapezium rule, which is as good for these and far better for functions with poles, such as tanh.
    """
    if n <= 24:
        x, w = np.polynomial.hermite_e.hermegauss(n)
    else:
        x = np.linspace(-1.0, 1.0, n) * min(10.0, np.sqrt(np.pi * n))
        w = np.exp(-0.5 * x**2)
    return x, w / w.sum()


def two_sided_maxwell(n: int) -> Rule:
    """The density m² exp(−m²/2) / √(2π), by a rule for the normal law."""
    x, w = normal(n)
    w = w * x**2
    return x, w / w.sum()


def rayleigh(n: int) -> Rule:
    """The uniform rule, mapped by √(−2 log u); up to 24 nodes Gauss's, exact for polynomials of degree below 2n."""
    u, w = tanh_sinh(max(n, 600) if n <= 24 else n)
    x = np.sqrt(-2.0 * np.log(u))
    return _gauss(x, w, n) if n <= 24 else (x, w)


def _gauss(x: np.ndarray, w: np.ndarray, n: int) -> Rule:
    """Gauss's rule with n nodes for a law that many nodes stand for: Stieltjes's recursion, then the Jacobi matrix."""
    before, p, beta = np.zeros_like(x), np.ones_like(x), 0.0
    diagonal, beside = np.empty(n), np.empty(n)
    for i in range(n):
        diagonal[i] = w @ (x * p * p)
        following = (x - diagonal[i]) * p - beta * before
        beside[i] = beta = np.sqrt(w @ following**2)
        before, p = p, following / beta
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1))
    weights = vectors[0] ** 2
    return nodes, weights / weights.sum()


def pieces(breaks: np.ndarray, n: int) -> Rule:
    """A rule for the uniform law on (0, 1) and functions that are polynomials of degree below 2n between breaks."""
    ends = np.unique(np.clip(np.concatenate([[0.0], breaks, [1.0]]), 0.0, 1.0))
    ends = np.append(ends[:-1][np.diff(ends) > 1e-15], 1.0)
    x, w = np.polynomial.legendre.leggauss(n)
    low, width = ends[:-1, None], np.diff(ends)[:, None]
    weights = (0.5 * width * w).ravel()
    return (low + 0.5 * width * (1.0 + x)).ravel(), weights / weights.sum()


def signs(n: int) -> Rule:
    """Both signs, whatever n is."""
    return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
