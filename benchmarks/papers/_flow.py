"""Exact flows along a direction, on a scale of time that is wide enough to see where they end."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Field = Callable[[Array], Array]
FIRST, LAST = 1e-2, 1e5
NEAR = 0.01  # of the range between the worst and the best policy


def times(num_points: int) -> Any:
    """The times at which a flow is looked at, [num_points]."""
    return np.geomspace(FIRST, LAST, num_points)


def flow(field: Field, params: Array, num_points: int, observe: Callable[[Array], Any]) -> Any:
    """Follow dθ/dt = field(θ) by the classical method of order four, with steps that grow with the time.

    Near a deterministic softmax policy its speed falls like 1 / t, so that such steps stay small beside its change.

    Args:
        field: params -> direction.
        params: where it starts, at time 0.
        num_points: number of times.
        observe: what to keep of params.

    Returns:
        What was observed at `times`, leaves [num_points, ...].
    """

    def step(theta: Array, dt: Array) -> tuple[Array, Any]:
        k1 = field(theta)
        k2 = field(theta + dt / 2 * k1)
        k3 = field(theta + dt / 2 * k2)
        k4 = field(theta + dt * k3)
        theta = theta + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return theta, observe(theta)

    return jax.lax.scan(step, params, jnp.asarray(np.diff(times(num_points), prepend=0.0)))[1]


def logit(x: float) -> float:
    """The logit against 0 that gives an action of two the probability x."""
    return float(np.log(x / (1.0 - x)))


def lists(x: Any) -> Any:
    """A tree of arrays as nested lists."""
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), x)


def ends(rows: Any, low: float, high: float) -> list[float]:
    """Where curves end between low, 0, and high, 1."""
    return [(row[-1] - low) / (high - low) for row in rows]


def percent(values: Any) -> str:
    """Write shares as percentages, one or several."""
    return ", ".join(f"{100 * x:.1f}" for x in np.atleast_1d(values)) + " %"


def draw_flow(panel: Any, time: Any, curves: dict[str, Any], bounds: Any, colours: Any, **words: Any) -> None:
    """Draw curves over time, several starts each, between the worst and the best policy.

    Args:
        panel: where.
        time: [N].
        curves: by name [starts, N].
        bounds: of the worst and of the best policy.
        colours: of the curves.
        **words: titles and labels.
    """
    low, high = bounds
    for colour, line, (name, rows) in zip(colours, ("-", "--"), curves.items(), strict=False):
        for i, row in enumerate(rows):
            panel.plot(time, row, line, color=colour, linewidth=1.8, label=None if i else name)
    for level, name, below in ((high, "best policy", False), (low, "worst policy", True)):
        panel.axhline(level, color="black", linewidth=0.8, linestyle=":")
        panel.annotate(
            name, (time[0], level), xytext=(0, -4 if below else 4), textcoords="offset points", fontsize=8,
            va="top" if below else "bottom",
        )  # fmt: skip
    margin = 0.12 * (high - low)
    panel.set(xscale="log", xlabel="time of the exact flow dθ/dt = g(θ)", ylim=(low - margin, high + margin), **words)
    panel.legend(frameon=False, fontsize=8, loc="center right")
