"""Where the variance of a policy gradient comes from, and what is left for an action-dependent baseline; all exact."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._form import Finding, number, panels, verdicts
from pgjax import exact

TITLE = "The mirage of action-dependent baselines"
REFERENCE = (
    "Tucker, Bhupatiraju, Gu, Turner, Ghahramani and Levine (2018), "
    "The mirage of action-dependent baselines in reinforcement learning"
)
CLAIM = (
    "The variance of one step's contribution is a part of the state, a part of the action and a part of the trajectory "
    "that follows. A baseline changes the part of the action alone. A state-value baseline removes most of it, and "
    "what an action-dependent one could still remove is small beside the part of the trajectory."
)
FULL = {
    "horizons": (1, 2, 3, 5, 8, 12, 20, 30, 50, 80),
    "lams": (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0),
    "problems": ("two_state", "chain5", "riverswim6", "garnet8x3", "cliff4x12"),
}
FAST = {"horizons": (1, 3), "lams": (0.0, 1.0), "problems": ("two_state",)}
SMALL = 0.1  # of the variance that the value baseline leaves
PARTS = ("state", "action", "trajectory")
LQR = "LQR"

Array = jax.Array


def measure(size: Any) -> dict[str, Any]:
    """Split the variance on a linear-quadratic system over horizons and λ, and on tabular processes over λ; float64.

    Args:
        size: FULL or FAST.

    Returns:
        The figures.
    """
    horizons, lams = size["horizons"], size["lams"]
    with jax.enable_x64(True):
        by_horizon = [lqr_split(horizon, 1.0) for horizon in horizons]
        along: dict[str, Any] = {LQR: [lqr_split(horizons[-1], lam) for lam in lams]}
        without = {LQR: by_horizon[-1]["action without baseline"]}
        for name in size["problems"]:
            along[name], without[name] = _tabular(name, lams)
    return {
        "horizons": list(horizons),
        "lams": list(lams),
        "by_horizon": by_horizon,
        "by_lam": along,
        "action_without_baseline": without,
    }


def _tabular(name: str, lams: Any) -> tuple[list[dict[str, float]], float]:
    """Split at each λ with the exact value, and the part of the action of returns without a baseline."""
    mdp = exact.tabular_problems()[name]()
    logits = exact.sine_logits(mdp)

    @jax.jit
    def run(lams: Array) -> Any:
        probs = jax.nn.softmax(logits)
        value = exact.value(mdp, probs)
        split = jax.vmap(lambda lam: exact.variance_split(mdp, exact.gae_pair(mdp, probs, value, lam=lam)))(lams)
        return split, exact.variance_split(mdp, exact.gpomdp_pair(mdp, probs)).action

    split, without = run(jnp.asarray(lams))
    return [{part: float(getattr(split, part)[i]) for part in PARTS} for i in range(len(lams))], float(without)


def lqr_split(horizon: int, lam: float) -> dict[str, float]:
    """Split the variance of one step of an episode of the scalar system, drawn with its weight γ^t.

    With the exact value the terms of the advantage are martingale differences, so that its second moment, a
    polynomial of degree four in the state, has a recursion over the steps that are left:

        M_n(x) = E_a[A² + γ² Var V(x') + (γλ)² E M_{n-1}(x')]

    Args:
        horizon: steps of an episode.
        lam: λ of the advantage estimate; 1 is the return minus the value.

    Returns:
        The three parts, and that of the action for returns without a baseline.
    """
    lqr, gain = exact.scalar_lqr()
    lqr = lqr.replace(horizon=horizon)
    matrices, offsets = (np.asarray(x).reshape(-1) for x in exact.lqr.cost_to_go(lqr, gain))
    names = ("A", "B", "Q", "R", "noise_covariance", "action_covariance", "initial_mean", "initial_covariance")
    a, b, q, r, noise, spread, mean, covariance = (np.asarray(getattr(lqr, name)).item() for name in names)
    k, discount = np.asarray(gain).item(), float(lqr.discount)
    nodes, mass = np.polynomial.hermite_e.hermegauss(10)
    mass = mass / mass.sum()
    push = np.sqrt(spread) * nodes[None, :]  # along the second axis: actions

    def given(x: Any, t: int, later: Any) -> tuple[Any, Any, Any]:
        """At states [N] and the nodes of the action: score, Q, and the variance of what follows, [N, 10]."""
        x = x[:, None]
        u = -k * x + push
        after = a * x + b * u
        ahead = matrices[t + 1] * (after**2 + noise) + offsets[t + 1]
        action_value = -(q * x**2 + r * u**2) - discount * ahead
        of_value = discount**2 * matrices[t + 1] ** 2 * (4 * after**2 * noise + 2 * noise**2)
        c0, c2, c4 = later
        fourth = after**4 + 6 * after**2 * noise + 3 * noise**2
        of_later = (discount * lam) ** 2 * (c0 + c2 * (after**2 + noise) + c4 * fourth)
        return -push * x / spread, action_value, of_value + of_later

    def value(x: Any, t: int) -> Any:
        return -(matrices[t] * x**2 + offsets[t])[:, None]

    # M_n is even in the state: three states tell its three coefficients.
    probes, later = np.array([0.0, 1.0, 2.0]), [np.zeros(3)]
    powers = probes[:, None] ** np.array([0, 2, 4])
    for t in reversed(range(horizon)):
        _, action_value, following = given(probes, t, later[-1])
        later.append(np.linalg.solve(powers, ((action_value - value(probes, t)) ** 2 + following) @ mass))

    weights = discount ** np.arange(horizon)
    weights /= weights.sum()
    totals = np.zeros(5)  # E‖E(X|s,a)‖² with the baseline, E‖E(X|s)‖², E X, E Var(X|s,a), E‖E(X|s,a)‖² without it
    for t in range(horizon):
        x = mean + np.sqrt(covariance) * nodes
        score, action_value, following = given(x, t, later[horizon - 1 - t])
        advantage = action_value - value(x, t)
        by_state = (score * advantage) @ mass
        totals += weights[t] * np.array([
            mass @ ((score * advantage) ** 2 @ mass),
            mass @ by_state**2,
            mass @ by_state,
            mass @ (score**2 * following @ mass),
            mass @ ((score * action_value) ** 2 @ mass),
        ])  # fmt: skip
        mean, covariance = (a - b * k) * mean, (a - b * k) ** 2 * covariance + b**2 * spread + noise
    both, state, total, trajectory, bare = (float(x) for x in totals)
    return {
        "state": state - total**2,
        "action": both - state,
        "trajectory": trajectory,
        "action without baseline": bare - state,
    }


def share(split: dict[str, float]) -> float:
    """The part of the action in the variance."""
    return split["action"] / sum(split[part] for part in PARTS)


def verdict(figures: dict[str, Any]) -> str:
    """Say what is left for an action-dependent baseline.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    by_lam, without = figures["by_lam"], figures["action_without_baseline"]
    left = {name: share(rows[-1]) for name, rows in by_lam.items()}
    kept = {name: rows[-1]["action"] / without[name] for name, rows in by_lam.items()}
    longer = [share(split) for split in figures["by_horizon"]]
    grows = all(share(rows[0]) > share(rows[-1]) for rows in by_lam.values()) and longer[0] > longer[-1]
    short = ", ".join(f"{name} {number(100 * share(rows[0]))} %" for name, rows in by_lam.items())
    return verdicts(
        Finding(
            "A state-value baseline removes most of the action's part.",
            all(x < 0.5 for x in kept.values()),
            "it leaves of that part " + ", ".join(f"{name} {number(100 * x)} %" for name, x in kept.items()) + ".",
        ),
        Finding(
            "What it leaves of it is smaller than the part of the trajectory.",
            all(rows[-1]["action"] < rows[-1]["trajectory"] for rows in by_lam.values()),
            "of the trajectory's part it is "
            + ", ".join(f"{n} {number(100 * r[-1]['action'] / r[-1]['trajectory'])} %" for n, r in by_lam.items())
            + ".",
        ),
        Finding(
            f"Beside it an action-dependent baseline could remove little, less than {100 * SMALL:g} % of the variance "
            "(full returns, λ = 1).",
            all(x < SMALL for x in left.values()),
            "it could at most remove " + ", ".join(f"{name} {number(100 * x)} %" for name, x in left.items()) + ".",
        ),
        Finding(
            "There is more for it to remove where less of the trajectory is in the estimate: short horizons, small λ.",
            grows,
            f"on the LQR {number(100 * longer[0])} % at a horizon of {figures['horizons'][0]} and "
            f"{number(100 * longer[-1])} % at {figures['horizons'][-1]}; at λ = {figures['lams'][0]:g} {short}.",
        ),
    )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the parts over the horizon, what is left over λ, and the parts of each problem.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    figure, grid = panels(1, 3, width=4.7, height=3.9)
    over, along, bars = grid[0]
    parts = {
        "trajectory": (COLOURS[0], "-", "trajectory that follows"),
        "state": (COLOURS[2], "-.", "state"),
        "action without baseline": (COLOURS[4], ":", "action, no baseline"),
        "action": (COLOURS[1], "--", "action, value baseline"),
    }
    for part, (colour, line, name) in parts.items():
        row = [split[part] for split in figures["by_horizon"]]
        row = [x if x > 1e-12 * row[-1] else float("nan") for x in row]  # nothing follows the only step
        over.plot(figures["horizons"], row, line, color=colour, marker="o", markersize=3, label=name)
    over.set(
        xscale="log", yscale="log", xlabel="horizon (steps)", ylabel="variance of one step's contribution",
        title="LQR, full returns (λ = 1)",
    )  # fmt: skip
    over.legend(frameon=False, fontsize=8)
    markers = "osD^vP"
    for i, (name, rows) in enumerate(figures["by_lam"].items()):
        along.plot(
            figures["lams"], [100 * share(split) for split in rows], color=COLOURS[i % len(COLOURS)],
            marker=markers[i % len(markers)], markersize=4, label=name,
        )  # fmt: skip
    along.set(
        xlabel="λ of the advantage estimate (1: full returns)", ylim=(0, 100),
        ylabel="share of the variance (%)",
        title="most that an action-dependent baseline\ncan remove beside the value",
    )  # fmt: skip
    along.legend(frameon=False, fontsize=8)
    _draw_bars(bars, figures)
    save(figure, path)


def _draw_bars(panel: Any, figures: dict[str, Any]) -> None:
    names = list(figures["by_lam"])
    full = np.array([[figures["by_lam"][name][-1][part] for part in PARTS] for name in names])
    removed = np.array([figures["action_without_baseline"][name] for name in names]) - full[:, 1]
    rows = np.column_stack([full[:, 2], full[:, 0], full[:, 1], removed])
    rows = 100 * rows / rows.sum(1, keepdims=True)
    labels = ("trajectory", "state", "action: left by the value", "action: removed by the value")
    left = np.zeros(len(names))
    for column, label, colour, hatch in zip(
        rows.T, labels, (COLOURS[0], COLOURS[2], COLOURS[1], COLOURS[4]), ("", "..", "xx", "//"), strict=True
    ):
        panel.barh(names, column, left=left, color=colour, label=label, hatch=hatch, edgecolor="white", linewidth=0)
        left += column
    panel.invert_yaxis()
    panel.set(xlabel="variance without a baseline (%)", xlim=(0, 100), title="full returns (λ = 1)")
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.18))
