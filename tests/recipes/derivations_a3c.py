"""One update of A3C from its paper, in NumPy and float64: a gradient at the worker's tables, for the shared ones."""

from typing import Any, NamedTuple

import derivations
import numpy as np
from derivations import flat, unflat


class RMSProp(NamedTuple):
    """Mnih et al. (2016), section 4: g <- α g + (1 - α) Δ², θ <- θ - η Δ / sqrt(g + ε), g shared by all workers."""

    square: Any


class Unclipped:
    """Stands for Adam in `derivations.a2c`: it passes the gradient on, and so gives it away."""

    def step(self, gradient: Any, _: float) -> Any:
        return gradient, self


def a3c(tables: Any, memory: Any, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """data.acting holds the tables of the worker, where the gradient is taken."""
    square = memory.square if isinstance(memory, RMSProp) else 0.0
    moved, _, metrics = derivations.a2c(data.acting, Unclipped(), data, hyper, progress)
    clipped = flat(moved) - flat(data.acting)
    square = hyper["decay"] * square + (1 - hyper["decay"]) * clipped**2
    rate = hyper["learning_rate"] * (1 - hyper["anneal"] * progress)
    change = -rate * clipped / np.sqrt(square + hyper["eps"])
    return unflat(flat(tables) + change, tables), RMSProp(square), metrics
