"""Leaving out the discount of the states: a direction that is no gradient, and can lead to the worst policy."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._flow import NEAR, draw_flow, ends, flow, lists, logit, percent, times
from papers._form import Finding, panels, verdicts
from pgjax import exact

TITLE = "Without γ^t the policy gradient can lead to the worst policy"
REFERENCE = "Nota and Thomas (2020), Is the policy gradient a gradient?"
CLAIM = (
    "The update that most algorithms use leaves out the weight γ^t of the states while its advantages are discounted. "
    "It is not the gradient of any function, and its fixed point can be the policy that is worst for the discounted "
    "and for the undiscounted return alike."
)
FULL = {"num_points": 600, "starts": (0.1, 0.5, 0.9)}
FAST = {"num_points": 60, "starts": (0.1, 0.9)}

Array = jax.Array


def measure(size: Any) -> dict[str, Any]:
    """Follow both directions on a process with two aliased states, and compare their Jacobians on another; float64.

    Args:
        size: FULL or FAST; starts are probabilities of the better action.

    Returns:
        The figures.
    """
    with jax.enable_x64(True):
        mdp, policy = exact.alias_discount()
        plain = mdp.replace(discount=1.0)

        def returns(params: Array) -> dict[str, Array]:
            probs = policy(params)
            return {"discounted": exact.objective(mdp, probs), "undiscounted": exact.objective(plain, probs)}

        def with_weight(params: Array) -> Array:
            return exact.policy_gradient_of(mdp, params, policy)

        def without(params: Array) -> Array:
            weights = exact.dropped_discount_sensitivity(mdp, policy(params))
            return exact.policy_gradient_of(mdp, params, policy, weights=weights)

        # Row 0 is what the aliased states share; all policies that differ are those of its one logit.
        starts = jnp.array([[[0.0, logit(x)], [0.0, 0.0]] for x in size["starts"]])
        everywhere = jnp.array([[[0.0, z], [0.0, 0.0]] for z in (-800.0, *np.linspace(-8.0, 8.0, 161), 800.0)])

        @jax.jit
        def run(starts: Array, everywhere: Array) -> Any:
            along = {
                name: jax.lax.map(lambda s, f=field: flow(f, s, size["num_points"], returns), starts)
                for name, field in (("with", with_weight), ("without", without))
            }
            return along, jax.lax.map(returns, everywhere), _asymmetries()

        along, grid, asymmetry = lists(run(starts, everywhere))
    return {
        "time": times(size["num_points"]).tolist(),
        "starts": list(size["starts"]),
        "along": along,
        "range": {name: [min(x), max(x)] for name, x in grid.items()},
        "asymmetry": asymmetry,
    }


def _asymmetries() -> dict[str, Array]:
    """‖K - Kᵀ‖ / ‖K‖ of the Jacobians on `two_state`: 0 for the Hessian of a function."""
    mdp, logits = exact.two_state(), exact.two_state_logits()
    fields = {"with": exact.policy_gradient, "without": exact.dropped_discount_gradient}
    found = {}
    for name, field in fields.items():
        jacobian = jax.jacfwd(lambda x, f=field: f(mdp, x).ravel())(logits).reshape(4, 4)
        found[name] = jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian)
    return found


def verdict(figures: dict[str, Any]) -> str:
    """Say whether the flow without the weight ends at the worst policy, and whether it is a gradient.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    at = {
        (direction, kind): ends(figures["along"][direction][kind], *figures["range"][kind])
        for direction in ("with", "without")
        for kind in ("discounted", "undiscounted")
    }
    worst = all(x < NEAR for kind in ("discounted", "undiscounted") for x in at["without", kind])
    best = all(x > 1.0 - NEAR for x in at["with", "discounted"])
    asymmetry = figures["asymmetry"]
    return verdicts(
        Finding(
            "The flow without γ^t ends at the policy that is worst for both returns, that with it at the best.",
            worst and best,
            f"from {len(figures['starts'])} starts, of the range from the worst policy (0 %) to the best (100 %): "
            f"without γ^t {percent(at['without', 'discounted'])} of the discounted return and "
            f"{percent(at['without', 'undiscounted'])} of the undiscounted one; with it "
            f"{percent(at['with', 'discounted'])} of the discounted one.",
        ),
        Finding(
            "The direction without γ^t is the gradient of no function.",
            asymmetry["without"] > 1e-3 and asymmetry["with"] < 1e-9,
            f"on a second process the Jacobian K has ‖K − Kᵀ‖/‖K‖ = {asymmetry['without']:.2g} without the weight, and "
            f"{asymmetry['with']:.0e} with it.",
        ),
    )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw both returns along both flows.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    figure, grid = panels(1, 2, width=5.2, height=3.8)
    names = {"with": "policy gradient", "without": "weight γ^t left out"}
    for panel, kind in zip(grid[0], ("discounted", "undiscounted"), strict=True):
        curves = {names[name]: rows[kind] for name, rows in figures["along"].items()}
        draw_flow(
            panel, figures["time"], curves, figures["range"][kind], COLOURS, ylabel=f"{kind} return (reward units)"
        )
    starts = ", ".join(f"{x:g}" for x in figures["starts"])
    figure.suptitle(
        f"Two aliased states, γ = 0.5; each line a start, with probability {starts} of the better action", fontsize=9
    )
    save(figure, path)
