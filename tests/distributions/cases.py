"""One distribution of each class, and what is known about each by other means."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    MultiCategorical,
    Normal,
    OneHotCategorical,
    TanhNormal,
)

KEY = jax.random.key(0)
LOW, HIGH = np.array([-2.0, 0.5]), np.array([2.0, 0.75])


def examples(*lead: int, seed: int = 0) -> dict[str, Any]:
    """One distribution of each class, with the given batch axes."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(*lead, *shape)))  # noqa: E731
    mask = rng.random((*lead, 4)) < 0.6
    mask[..., 1] = True
    return {
        "categorical": Categorical(draw(4)),
        "masked": Categorical(draw(4), jnp.asarray(mask)),
        "one_hot": OneHotCategorical(draw(3)),
        "one_hot_masked": OneHotCategorical(draw(4), jnp.asarray(mask)),
        "multi": MultiCategorical(draw(2, 3)),
        "ragged": MultiCategorical((draw(2), draw(4))),
        "bernoulli": Bernoulli(draw(3)),
        "normal": Normal(draw(2), jnp.exp(draw(2))),
        "tanh": TanhNormal(draw(2), jnp.exp(0.3 * draw(2)), jnp.asarray(LOW), jnp.asarray(HIGH)),
        "beta": Beta(1.2 + jnp.exp(draw(2)), 1.2 + jnp.exp(draw(2)), jnp.asarray(LOW), jnp.asarray(HIGH)),
    }


NAMES = list(examples())
CONTINUOUS = ["normal", "tanh", "beta"]
DISCRETE = [name for name in NAMES if name not in CONTINUOUS]


def all_actions(d: Any) -> np.ndarray:
    """Every action of a discrete distribution without batch axes."""
    if isinstance(d, Categorical):
        return np.arange(d.logits.shape[-1])
    if isinstance(d, OneHotCategorical):
        return np.eye(d.logits.shape[-1], dtype=d.logits.dtype)
    sizes = [2] * d.shape[-1] if isinstance(d, Bernoulli) else d.sizes or [d.logits.shape[-1]] * d.shape[-1]
    return np.array(list(itertools.product(*map(range, sizes))))


def component(d: Any, i: int) -> Any:
    """The i-th component of a continuous distribution, as one of a single component."""
    return jax.tree.map(lambda x: x[..., i : i + 1], d)


def double_exponential(low: float, high: float, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on an interval that bear singularities at both ends."""
    k = np.linspace(-3.1, 3.1, n)
    x = 0.5 * np.pi * np.sinh(k)
    w = 0.5 * np.pi * np.cosh(k) / np.cosh(x) ** 2 * (k[1] - k[0]) * (high - low) / 2.0
    return low + (high - low) / (1.0 + np.exp(-2.0 * x)), w


def quadrature(d: Any) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [N, 1] and weights over the support of a distribution of one component."""
    if isinstance(d, Normal):
        x = np.linspace(-12.0, 12.0, 1201)
        return (float(d.loc[0]) + float(d.scale[0]) * x)[:, None], np.full(1201, 0.02 * float(d.scale[0]))
    x, w = double_exponential(float(d.low[0]), float(d.high[0]))
    return x[:, None], w
