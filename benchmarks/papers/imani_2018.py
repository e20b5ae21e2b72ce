"""Leaving out the gradient of Q off-policy: Off-PAC abandons a good policy that emphatic weights keep."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._flow import NEAR, draw_flow, ends, flow, lists, logit, percent, times
from papers._form import Finding, panels, verdicts
from pgjax import exact

TITLE = "The off-policy semi-gradient leaves good policies; emphatic weights keep them"
REFERENCE = "Imani, Graves and White (2018), An off-policy policy gradient theorem using emphatic weightings"
CLAIM = (
    "Off-PAC weighs the states as the behaviour visits them and leaves out the gradient of Q. Where the policy cannot "
    "tell two states apart it moves to a suboptimal policy; the gradient of the excursion objective, whose states "
    "are weighed by their emphasis, moves to the best one."
)
FULL = {"num_points": 600, "starts": (0.1, 0.5, 0.9)}
FAST = {"num_points": 60, "starts": (0.5, 0.9)}

Array = jax.Array


def measure(size: Any) -> dict[str, Any]:
    """Follow Off-PAC and the emphatic gradient exactly, in float64, on the process with two aliased states.

    Args:
        size: FULL or FAST; starts are probabilities of the better action, everywhere.

    Returns:
        The figures.
    """
    with jax.enable_x64(True):
        mdp, policy = exact.alias_offpolicy()
        behaviour = jnp.tile(jnp.array([0.25, 0.75]), (4, 1))
        visits = jnp.where(exact.terminal_states(mdp), 0.0, exact.visitation(mdp, behaviour))
        weights = visits / visits.sum()  # d_μ, with interest 1 in every state

        def objective(params: Array) -> Array:
            return exact.excursion_objective(mdp, policy(params), weights)

        def along(sensitivity: Callable[..., Array]) -> Callable[[Array], Array]:
            def field(params: Array) -> Array:
                found = sensitivity(mdp, policy(params), weights)
                return exact.policy_gradient_of(mdp, params, policy, weights=found)

            return field

        fields = {"emphatic": along(exact.emphatic_sensitivity), "off_pac": along(exact.off_pac_sensitivity)}
        starts = jnp.array([[[logit(x), 0.0]] * 2 for x in size["starts"]])
        logits = (-800.0, *np.linspace(-8.0, 8.0, 33), 800.0)
        everywhere = jnp.array([[[x, 0.0], [y, 0.0]] for x in logits for y in logits])

        @jax.jit
        def run(starts: Array, everywhere: Array) -> Any:
            found = {
                name: jax.lax.map(lambda s, f=field: flow(f, s, size["num_points"], objective), starts)
                for name, field in fields.items()
            }
            return found, jax.lax.map(objective, starts), jax.lax.map(objective, everywhere)

        found, start, grid = lists(run(starts, everywhere))
    return {
        "time": times(size["num_points"]).tolist(),
        "starts": list(size["starts"]),
        "along": found,
        "at_start": start,
        "range": [min(grid), max(grid)],
    }


def verdict(figures: dict[str, Any]) -> str:
    """Say whether Off-PAC leaves the good policy, and whether emphatic weights lead to the best.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    low, high = figures["range"]
    off_pac, emphatic = (ends(figures["along"][name], low, high) for name in ("off_pac", "emphatic"))
    began = [(x - low) / (high - low) for x in figures["at_start"]]
    good = int(np.argmax(began))
    near = [row for row in zip(emphatic, off_pac, figures["starts"], strict=True) if row[2] >= 0.5]
    starts = ", ".join(f"{x:g}" for x in figures["starts"])
    return verdicts(
        Finding(
            "From a policy near the best one, Off-PAC moves to a worse one.",
            off_pac[good] < began[good] - NEAR,
            f"of the range of the excursion objective from the worst policy to the best, it begins at "
            f"{percent(began[good])} and ends at {percent(off_pac[good])}; it does "
            f"{'' if off_pac[good] < NEAR else 'not '}end at the worst policy.",
        ),
        Finding(
            "From the uniform policy and from near the best, emphatic weights lead to the best policy that the aliased "
            "states allow, Off-PAC to a suboptimal one.",
            all(x > 1.0 - NEAR and y < 1.0 - NEAR for x, y, _ in near),
            f"from starts with probability {starts} of its actions, at {percent(began)} of the range, emphatic weights "
            f"end at {percent(emphatic)} and Off-PAC at {percent(off_pac)}.",
        ),
    )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the excursion objective along both flows.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    figure, ((panel,),) = panels(1, 1, width=6.2, height=4.0)
    names = {"emphatic": "emphatic weights", "off_pac": "Off-PAC"}
    curves = {names[name]: rows for name, rows in figures["along"].items()}
    starts = ", ".join(f"{x:g}" for x in figures["starts"])
    draw_flow(
        panel, figures["time"], curves, figures["range"], COLOURS, ylabel="excursion objective (reward units)",
        title=f"Two aliased states; each line a start, with probability {starts}\nof the action of the best policy",
    )  # fmt: skip
    panel.title.set_fontsize(9)
    save(figure, path)
