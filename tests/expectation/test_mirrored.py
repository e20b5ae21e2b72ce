"""Mirrored rules: what they cancel, what their variance is on a quadratic, and the law of mirrored noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import expectation as ex
from pgjax.expectation import laws, mirrored, nodes

from .over_nodes import WEIGHTS, estimates, moments


def test_identity_23_second_moments_of_a_mirrored_score_function_on_a_quadratic() -> None:
    """For the mean of N(μ, σ² I) the variance is (d + 1) ‖g‖², whatever the curvature, the offset and σ."""
    g, mu = np.array([0.7, -0.4]), np.array([0.2, -0.1])
    for m, sigma, offset in ((WEIGHTS[:2, :2], 0.6, 1.1), (-3.0 * WEIGHTS[1:, 1:], 1.7, -20.0)):
        f = lambda a, m=m, offset=offset: (  # noqa: E731
            offset + (a - mu) @ g + 0.5 * jnp.einsum("...i,ij,...j", a - mu, m, a - mu)
        )
        make = lambda loc, sigma=sigma: pg.Normal(loc, sigma)  # noqa: E731
        mean, variance, _ = moments(mirrored(ex.score_function), make, f, mu, size=12)
        np.testing.assert_allclose(mean, g, atol=1e-11)
        np.testing.assert_allclose(variance, 3.0 * g @ g, rtol=1e-10)
        assert moments(ex.score_function, make, f, mu, size=12)[1] > 2.0 * variance


def test_mirroring_cancels_what_is_odd_in_the_value_and_what_is_even_in_the_gradient() -> None:
    loc = np.array([0.3])
    make = lambda loc: pg.Normal(loc, 0.8)  # noqa: E731
    odd, even = (lambda a: jnp.sin(a[..., 0] - 0.3)), (lambda a: jnp.cos(a[..., 0] - 0.3))
    for of in (ex.pathwise, ex.score_function, ex.measure_valued):
        plain, both = moments(of, make, odd, loc), moments(mirrored(of), make, odd, loc)
        assert plain[2] > 0.1
        assert both[2] < 1e-30
        np.testing.assert_allclose(both[0], plain[0], atol=1e-12)
    assert moments(ex.score_function, make, even, loc)[1] > 0.1
    assert moments(mirrored(ex.score_function), make, even, loc)[1] < 1e-28
    square = lambda a: (a[..., 0] - 0.45) ** 2  # noqa: E731
    fair = moments(mirrored(ex.score_function), pg.Bernoulli, square, np.zeros(1))
    assert fair[1] < 1e-30  # of two equally probable actions both are seen
    np.testing.assert_allclose(fair[0], [0.25 * (0.55**2 - 0.45**2)], atol=1e-15)


def test_a_mirrored_rule_keeps_its_options_its_noise_and_its_program() -> None:
    rule = mirrored(ex.score_function.using(baseline=0.5))
    assert rule.name == "mirrored_score_function"
    assert rule.options == {"baseline": 0.5}
    assert mirrored(ex.score_function).function is rule.function
    traces = []

    @jax.jit
    def run(rule: Any, key: Any) -> Any:
        traces.append(None)
        return rule(key, pg.Normal(jnp.zeros(2), 1.0), lambda a: a.sum(-1))

    for b in (0.1, 0.7):
        run(mirrored(ex.score_function.using(baseline=b)), jax.random.key(0))
    assert len(traces) == 1
    arms = nodes(ex.arm, pg.Bernoulli(np.array([0.4, -0.9])))[0]
    f = lambda a: (a @ np.array([1.0, -2.0])) ** 3  # noqa: E731
    plain, both = (estimates(of, pg.Bernoulli, f, np.array([0.4, -0.9]), arms) for of in (ex.arm, mirrored(ex.arm)))
    for x, y in zip(plain, both, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-14)


@pytest.mark.parametrize("name", ["uniform", "normal", "rayleigh", "two_sided_maxwell", "sign"])
def test_mirrored_noise_has_the_same_law_and_mirrors_back(name: str) -> None:
    law, d = getattr(laws, name), pg.Normal(jnp.zeros(1), 1.0)
    x, w = law.nodes(d, None, {})
    other = np.asarray(law.mirror(jnp.asarray(x), d))
    for k in (1, 2, 3):
        np.testing.assert_allclose(w @ other[:, 0] ** k, w @ x[:, 0] ** k, atol=1e-11)
    inner = (w > 1e-6)[:, None] * np.ones((1, 1), bool)
    np.testing.assert_allclose(np.asarray(law.mirror(jnp.asarray(other), d))[inner], x[inner], rtol=1e-8, atol=1e-8)
    assert np.all((np.argsort(x[:, 0]) == np.argsort(-other[:, 0]))[inner[:, 0]]) or name == "sign"
