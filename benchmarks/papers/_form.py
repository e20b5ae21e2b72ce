"""What the modules about papers share."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from pgjax import expectation

FOUND, NOT_FOUND = "**Found again.**", "**Not found.**"


class Finding(NamedTuple):
    """A claim of a paper and what was measured."""

    claim: str  # a sentence that the measurement can refute
    holds: bool
    measured: str  # a sentence with our figures, true whichever way it went


def verdicts(*findings: Finding) -> str:
    """Say of each finding whether it was found again, and what was measured: a Markdown list."""
    return "\n".join(f"- {FOUND if f.holds else NOT_FOUND} {f.claim} *Here:* {f.measured}" for f in findings)


def number(x: float) -> str:
    """Write a number in three digits, large and small ones with an exponent that Markdown leaves alone."""
    x = float(x)
    if not np.isfinite(x) or x == 0.0 or 1e-3 <= abs(x) < 1e5:
        return f"{x:.3g}" if abs(x) < 1000 else f"{x:.0f}"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.3, **options: Any) -> tuple[Any, Any]:
    """Make a grid of panels in the house style: (figure, axes [rows, columns])."""
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False, **options
    )
    for panel in grid.ravel():
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
    return figure, grid


def legend_below(figure: Any, panel: Any, columns: int) -> None:
    """One legend for all panels, below them, from the labels of one."""
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def moments(estimates: Any, weights: Any) -> tuple[Any, Any]:
    """Mean and variance of weighted estimates: [N, ...], [N] -> ([...], [...])."""
    weights = jnp.reshape(jnp.asarray(weights), (-1,) + (1,) * (jnp.ndim(estimates) - 1))
    mean = jnp.sum(weights * estimates, axis=0)
    return mean, jnp.sum(weights * jnp.square(estimates - mean[None]), axis=0)


def gradients(rule: expectation.Rule, noise: Any, distribution: Any, f: Any, params: Any) -> Any:
    """The gradient that a rule gives at each node of its noise, with respect to what made the distribution.

    Args:
        rule: with its options fixed.
        noise: leaves [N, ...].
        distribution: a function of params.
        f: of an action.
        params: a pytree.

    Returns:
        Like params, leaves [N, ...].
    """
    one = jax.grad(lambda p, noise: rule.given(noise, distribution(p), f))
    return jax.vmap(one, in_axes=(None, 0))(params, noise)
