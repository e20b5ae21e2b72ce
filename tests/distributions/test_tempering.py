"""A tempered distribution is the power of the density, whatever its class."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax.distributions import tempered

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

LOGITS = np.random.default_rng(0).normal(size=(2, 3))
MASK = np.array([[True, True, False], [True, True, True]])
ROWS: dict[str, Any] = {  # made in each test, in float64
    # name: () -> (distribution, three actions of each of its two rows)
    "Categorical": lambda: (pg.Categorical(LOGITS, MASK), np.array([[0, 0], [1, 1], [0, 2]])),
    "OneHotCategorical": lambda: (pg.OneHotCategorical(LOGITS), np.eye(3)[[[0, 0], [1, 1], [2, 2]]]),
    "MultiCategorical": lambda: (
        pg.MultiCategorical(np.stack([LOGITS, -LOGITS], 1), (2, 3)),
        np.array([[[0, 1]] * 2, [[1, 2]] * 2, [[0, 0]] * 2]),
    ),
    "Bernoulli": lambda: (pg.Bernoulli(LOGITS), np.array([[[0, 1, 0]] * 2, [[1, 1, 0]] * 2, [[1, 1, 1]] * 2])),
    "Normal": lambda: (pg.Normal(LOGITS, 0.7), np.random.default_rng(1).normal(size=(3, 2, 3))),
    "Beta": lambda: (
        pg.Beta(np.exp(LOGITS), 2.0, -1.0, 3.0),
        np.random.default_rng(1).uniform(-0.9, 2.9, size=(3, 2, 3)),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_log_probabilities_differ_by_a_constant_from_those_divided_by_the_temperature(name: str) -> None:
    distribution, actions = ROWS[name]()
    flat = tempered(distribution, 1.7)
    gap = np.asarray(flat.log_prob(actions)) - np.asarray(distribution.log_prob(actions)) / 1.7
    np.testing.assert_allclose(gap[1:], gap[:1].repeat(2, 0), rtol=1e-10, atol=1e-10)
    assert type(flat) is type(distribution)
    np.testing.assert_allclose(tempered(distribution, 1.0).log_prob(actions), distribution.log_prob(actions))


def test_a_squashed_normal_is_tempered_before_it_is_squashed() -> None:
    distribution = pg.TanhNormal(LOGITS, 0.7, -2.0, 2.0)
    flat = tempered(distribution, 4.0)
    np.testing.assert_allclose(flat.scale, 1.4 * np.ones((2, 3)))
    np.testing.assert_array_equal(flat.loc, LOGITS)
    np.testing.assert_array_equal(flat.low, distribution.low)


def test_ratios_are_bounded_as_stated() -> None:
    probs = np.asarray(pg.Categorical(np.array([[20.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3.0, 1.0, -2.0]])).probs)
    flat = np.asarray(tempered(pg.Categorical(np.log(probs)), 2.0).probs)
    assert (probs / flat).max() <= 3**0.5
    normal = pg.Normal(np.zeros((1, 2)), 1.0)
    at_the_mode = normal.log_prob(np.zeros((1, 2))) - tempered(normal, 3.0).log_prob(np.zeros((1, 2)))
    np.testing.assert_allclose(jnp.exp(at_the_mode), 3.0)


def test_another_distribution_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="a Other cannot be tempered"):
        tempered(type("Other", (), {})(), 2.0)
