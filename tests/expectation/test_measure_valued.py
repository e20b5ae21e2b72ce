"""The measure-valued rule: sample by sample against the papers, the laws of its samples, and its variance."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import pgjax as pg
from pgjax import expectation as ex
from pgjax.expectation import nodes

from .over_nodes import estimates, moments

RNG = np.random.default_rng(3)


def smooth(a: Any) -> Any:
    return jnp.sin(2.0 * a[..., 0]) + a[..., 0] ** 2


def of_two(p: Any) -> Any:
    return pg.Normal(p[:1], p[1:])


def test_measure_valued_is_the_formula_of_the_papers_sample_by_sample() -> None:
    """Two components that f joins, with loops: one changed at a time, the others at their sample."""
    loc, scale = np.array([0.3, -0.6]), np.array([0.7, 1.2])
    z, w = RNG.normal(size=(10, 2)), np.abs(RNG.normal(size=(10, 2)))
    f = lambda a: jnp.cos(a[..., 0] * a[..., 1]) + a[..., 1] ** 3  # noqa: E731
    params = np.concatenate([loc, scale])
    value, grads = estimates(ex.measure_valued, lambda p: pg.Normal(p[:2], p[2:]), f, params, {"x": z, "w": w})
    for row in range(10):
        x = loc + scale * z[row]
        np.testing.assert_allclose(value[row], f(x), rtol=1e-12)
        for i in range(2):
            at = lambda y, i=i, x=x: float(f(np.where(np.arange(2) == i, y, x)))  # noqa: E731
            step = scale[i] * w[row, i]
            by_loc = (at(loc[i] + step) - at(loc[i] - step)) / (scale[i] * math.sqrt(2.0 * math.pi))
            far = math.copysign(math.hypot(z[row, i], w[row, i]), z[row, i])
            by_scale = (at(loc[i] + scale[i] * far) - f(x)) / scale[i]
            np.testing.assert_allclose(grads[row, [i, 2 + i]], [by_loc, by_scale], rtol=1e-10)


def test_the_coupled_samples_have_their_laws_and_coupling_lowers_the_variance() -> None:
    """sign(z) √(z² + w²) is two-sided Maxwell. Against independent samples on both sides, by the same nodes."""
    d, params = pg.Normal(np.zeros(1), 1.0), np.array([0.4, 0.8])
    noise, p = nodes(ex.measure_valued, d)
    z, w = noise["x"][:, 0], noise["w"][:, 0]
    m = np.sign(z) * np.hypot(z, w)
    np.testing.assert_allclose([p @ m**k for k in range(1, 7)], [0, 3, 0, 15, 0, 105], atol=1e-10)
    np.testing.assert_allclose(p @ np.exp(-(m**2)), 3.0**-1.5, rtol=1e-12)
    _, grads = estimates(ex.measure_valued, of_two, smooth, params, noise)
    coupled = p @ (grads - p @ grads) ** 2
    f = lambda a: np.asarray(smooth(params[0] + params[1] * a[:, None]))  # noqa: E731
    variance = lambda x, q: q @ x**2 - (q @ x) ** 2  # noqa: E731
    by_loc = (variance(f(w), p) + variance(f(-w), p)) / (2.0 * np.pi * params[1] ** 2)
    by_scale = (variance(f(m), p) + variance(f(z), p)) / params[1] ** 2
    assert coupled[0] < 0.8 * by_loc
    assert coupled[1] < 0.8 * by_scale


def test_identity_20_score_function_path_and_measure_have_one_mean_and_stein_joins_the_first_two() -> None:
    """On a smooth f of a normal: E[ψ f] = E[∇f ∇x] = the difference of two laws; the variances differ."""
    params = np.array([0.4, 0.8])
    found = {of.name: moments(of, of_two, smooth, params) for of in (ex.score_function, ex.pathwise, ex.measure_valued)}
    m, s = params
    damped = math.exp(-2.0 * s**2)
    exact = [2.0 * math.cos(2.0 * m) * damped + 2.0 * m, -4.0 * s * math.sin(2.0 * m) * damped + 2.0 * s]
    for name, (mean, variance, _) in found.items():
        np.testing.assert_allclose(mean, exact, atol=1e-11, err_msg=name)
        assert variance > 0.1
    assert found["pathwise"][1] < found["score_function"][1]
    step = lambda a: 1.0 * (a[..., 0] > 0.9)  # noqa: E731
    noise, p = nodes(ex.measure_valued, of_two(params), size={"x": 24, "w": 400})
    _, jumped = estimates(ex.measure_valued, of_two, step, params, noise)
    assert (p @ jumped)[0] == pytest.approx(stats.norm.pdf(0.9, m, s), abs=0.01)
    assert np.abs(moments(ex.pathwise, of_two, step, params)[0]).max() == 0.0  # the path misses a jump
