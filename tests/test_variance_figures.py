"""What the page of variance reduction says of estimators whose noise and bias are known."""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import variance_noise  # noqa: E402

REFERENCE = {"x": jnp.array([2.0, 0.0, 0.0]), "y": jnp.array([2.0, 1.0])}  # of length 3
SIDE = {"x": jnp.array([0.0, 1.5, 0.0]), "y": jnp.array([0.0, 0.0])}  # at a right angle to it, of half its length


def estimator(noise: float, side: float = 0.0) -> Any:
    """The reference, what leads away from it, and normal noise on each of the 5 entries."""

    def estimate(key: jax.Array, params: Any) -> Any:
        flat = noise * jax.random.normal(key, (5,))
        return jax.tree.map(lambda r, s, e: r + side * s + e, REFERENCE, SIDE, {"x": flat[:3], "y": flat[3:]})

    return estimate


@pytest.fixture(scope="module")
def pairs() -> dict[str, dict[str, np.ndarray]]:
    compared = {"plain": estimator(1.0), "quiet": estimator(0.5), "biased": estimator(0.3, side=1.0)}
    return variance_noise.draw_pairs(compared, REFERENCE, REFERENCE, num_rounds=4, num_pairs=500)[0]


def test_variances_are_relative_to_the_plain_estimator(pairs: Any) -> None:
    found = variance_noise.figures(pairs["quiet"], pairs["plain"], cost=3.0, error=0.0)
    assert found["variance"] == pytest.approx([0.25] * 3, rel=1e-3), "on the same keys the noise is the same"
    assert found["variance_per_second"] == pytest.approx([0.75] * 3, rel=1e-3)
    assert pairs["plain"]["variance"].mean() == pytest.approx(5 * 1.0**2 / 3.0**2, rel=0.05)


def test_the_bias_is_relative_to_the_reference_and_without_the_error_of_it(pairs: Any) -> None:
    of = lambda name, error: variance_noise.figures(pairs[name], pairs["plain"], cost=1.0, error=error)["bias"]  # noqa: E731
    assert of("biased", 0.0) == pytest.approx([0.5] * 3, abs=0.02)
    assert of("biased", 0.3)[0] == pytest.approx(0.4, abs=0.02)
    assert of("biased", 0.3)[2] == pytest.approx(0.5, abs=0.02), "the error may have been none"
    assert of("plain", 0.0)[1] == 0.0, "an unbiased estimator may have none"


@pytest.mark.parametrize(("name", "cost"), [("plain", 1.0), ("quiet", 0.5), ("biased", 5.0)])
def test_the_cosine_at_equal_seconds_is_that_of_a_mean_of_so_many_estimates(pairs: Any, name: str, cost: float) -> None:
    found = variance_noise.figures(pairs[name], pairs["plain"], cost=cost, error=0.0)["cosine_equal_seconds"]
    noise, side = {"plain": (1.0, 0.0), "quiet": (0.5, 0.0), "biased": (0.3, 1.0)}[name]
    keys = jax.random.split(jax.random.key(5), (2000, int(variance_noise.EQUAL / cost)))
    means = jax.vmap(jax.vmap(lambda key: jnp.concatenate(list(estimator(noise, side)(key, None).values()))))(
        keys
    ).mean(1)
    target = jnp.concatenate(list(REFERENCE.values()))
    along, length = means @ target / 3.0, jnp.linalg.norm(means, axis=1)
    # What is computed is the ratio of the root mean squares, which lies within a per cent of the mean of the ratios.
    assert found[0] == pytest.approx(float((along / length).mean()), abs=0.01)
    assert found[1] < found[0] < found[2]


def test_there_is_no_cosine_at_equal_seconds_where_one_estimate_takes_longer(pairs: Any) -> None:
    cost = variance_noise.EQUAL + 0.1
    found = variance_noise.figures(pairs["quiet"], pairs["plain"], cost=cost, error=0.0)["cosine_equal_seconds"]
    assert np.isnan(found).all()
