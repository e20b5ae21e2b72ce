"""Estimates of a rule for given noise, sample by sample, and their moments over its nodes."""

from typing import Any

import jax
import numpy as np

from pgjax.expectation import Rule, nodes

WEIGHTS = np.array([[0.5, -1.0, 0.3], [0.2, 0.7, -0.4], [1.0, 0.1, -0.6]])  # of a quadratic function


def estimates(of: Rule, make: Any, f: Any, params: Any, noise: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values [N] and gradients [N, P] for noise with a leading axis [N]."""
    one = jax.value_and_grad(lambda p, n: of.given(n, make(p), f, **options))
    value, grads = jax.jit(jax.vmap(one, (None, 0)))(params, noise)
    return np.asarray(value), np.asarray(grads).reshape(len(value), -1)


def moments(of: Rule, make: Any, f: Any, params: Any, size: Any = None, **options: Any) -> tuple[np.ndarray, Any, Any]:
    """Over the nodes: the mean gradient [P], its total variance, and the variance of the value."""
    noise, w = nodes(of, make(params), size=size, **options)
    value, grads = estimates(of, make, f, params, noise, **options)
    mean = w @ grads
    return mean, w @ ((grads - mean) ** 2).sum(1), w @ (value - w @ value) ** 2
