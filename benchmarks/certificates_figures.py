"""The figures of the certificates."""

from pathlib import Path
from typing import Any

import numpy as np
from common import COLOURS, axes, save
from matplotlib.ticker import NullFormatter, NullLocator

CROWDED = "PPO, first step, standardised"  # its label has to go below, where no curve is


def draw_all(figures: dict[str, Any], names: dict[str, str], folder: Path) -> None:
    """Draw what certificates.py has measured."""
    trade_off(figures["trade_off"], folder / "bias_variance.png")
    variance(figures["batches"], names, folder / "variance_batch.png")
    cosine(figures["batches"], names, folder / "cosine_envs.png")
    speed(figures["per_second"], names, folder / "variance_second.png")
    rules(figures["rules"], folder / "rules.png")


def trade_off(found: dict[str, Any], path: Path) -> None:
    """Bias along, variance up: one curve of λ for each value function, and the estimators without a critic."""
    figure, (panel,) = axes(width=7.4, height=4.6)
    lams = [lam for lam, _ in found["lams"]]
    for series, colour in (("wrong value", COLOURS[1]), ("exact value", COLOURS[2])):
        x, y = np.array(found[series]).T
        panel.plot(x, y, "o-", color=colour, markersize=5, linewidth=1.6, clip_on=False, zorder=3)
    bias, trace = np.array(found["wrong value"]).T
    for lam, x, y in zip(lams, bias, trace, strict=True):
        if lam in (0.0, 0.4, 0.8):
            panel.annotate(f"λ = {lam:g}", (x, y), (7, 3), textcoords="offset points", color=COLOURS[1], fontsize=9)
    panel.annotate(
        "GAE, wrong value function", (bias[0], trace[0]), (-30, -18), textcoords="offset points", color=COLOURS[1]
    )
    panel.annotate(
        "GAE, exact value, λ = 0 … 1", (0.0, found["exact value"][0][1]), (10, -2),
        textcoords="offset points", color=COLOURS[2],
    )  # fmt: skip
    shown = {
        "likelihood ratio": "likelihood ratio",
        "REINFORCE": "REINFORCE",
        "REINFORCE, leave-one-out": "leave-one-out of 2",
        "REINFORCE without γ^t": "REINFORCE without γᵗ",
        "REINFORCE, mean with self": "mean of 2, own return included",
        CROWDED: "PPO, standardised over 2",
    }
    for name, label in shown.items():
        if name not in found:  # in the fast form
            continue
        x, y = found[name][0]
        panel.plot(x, y, "s", color=COLOURS[0], markersize=6, clip_on=False, zorder=4)
        offset, side = {"REINFORCE, mean with self": ((-9, -3), "right"), CROWDED: ((-2, -17), "center")}.get(
            name, ((9, -3), "left")
        )
        panel.annotate(label, (x, y), offset, textcoords="offset points", color=COLOURS[0], ha=side)
    panel.set(
        yscale="log", xlim=(0, 0.56), ylim=(0.5, 24), xlabel="bias, relative to the length of the gradient",
        ylabel="variance of one trajectory, tr Cov", title=f"{found['problem']}: exact bias and variance",
    )  # fmt: skip
    _plain_ticks(panel.yaxis, [0.5, 1, 2, 5, 10, 20])
    save(figure, path)


def variance(found: dict[str, Any], names: dict[str, str], path: Path) -> None:
    """Variance against batch size: markers from rollouts, lines from the exact recursion."""
    figure, (panel,) = axes(width=7.4, height=4.6)
    sizes = np.array(found["sizes"])
    colours = dict(zip(names, COLOURS, strict=False))
    for name, traces in found["traces"].items():
        panel.plot(sizes, traces, "o", color=colours[name], markersize=5)
        line = found["exact_traces"].get(name)
        along = np.array(traces) if line is None else line / sizes
        panel.plot(sizes, along, "--" if line is None else "-", color=colours[name], linewidth=1.4)
    at = _spread({name: np.log10(traces[-1]) for name, traces in found["traces"].items()}, 0.17)
    for name, y in at.items():
        panel.annotate(
            names[name], (sizes[-1], found["traces"][name][-1]), (sizes[-1] * 1.9, 10**y), color=colours[name],
            va="center", fontsize=9, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colours[name], "linewidth": 0.7, "shrinkB": 4},
        )  # fmt: skip
    panel.set(
        xscale="log", yscale="log", xlabel="batch size, trajectories", ylabel="variance of the estimate, tr Cov",
        title=f"{found['problem']}; dots: rollouts, lines: exact (dashed: measured)", xlim=(1.7, sizes[-1] * 1.1),
    )  # fmt: skip
    _plain_ticks(panel.xaxis, found["sizes"])
    save(figure, path)


def cosine(found: dict[str, Any], names: dict[str, str], path: Path) -> None:
    """Mean cosine to the true gradient against the number of environments."""
    figure, (panel,) = axes(width=7.4, height=4.6)
    sizes = np.array(found["sizes"])
    colours = dict(zip(names, COLOURS, strict=False))
    for name, cosines in found["cosines"].items():
        panel.plot(sizes, cosines, "o-", color=colours[name], markersize=4, linewidth=1.6)
    panel.axhline(0.9, color="0.5", linewidth=0.8, linestyle=":")
    panel.annotate("0.9", (sizes[0], 0.9), (2, 3), textcoords="offset points", color="0.4", fontsize=9)
    lines = dict(zip(found["cosines"], panel.get_lines(), strict=False))
    order = sorted(lines, key=lambda name: -found["cosines"][name][min(1, sizes.size - 1)])
    panel.legend([lines[name] for name in order], [names[name] for name in order], frameon=False, loc="lower right")
    limit = found["exact_cosines"]["actor-critic λ=0, wrong value"]
    panel.annotate(
        f"bias: never above {limit:.3f}",
        (sizes[-1], limit),
        (0, -14),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    panel.set(
        xscale="log", ylim=(0, 1.02), xlabel="number of environments, one episode each",
        ylabel="mean cosine to the true gradient", title=found["problem"], xlim=(1.7, sizes[-1] * 1.1),
    )  # fmt: skip
    _plain_ticks(panel.xaxis, found["sizes"])
    save(figure, path)


def speed(found: dict[str, Any], names: dict[str, str], path: Path) -> None:
    """The variance that is left after one second of rollout and estimation."""
    figure, (panel,) = axes(width=7.4, height=3.6)
    ordered = sorted(found["estimators"].items(), key=lambda item: -item[1]["variance"])
    values = [1e6 * row["variance"] for _, row in ordered]
    bars = panel.barh([names[name] for name, _ in ordered], values, color=COLOURS[0], height=0.62)
    for bar, (name, _), value in zip(bars, ordered, values, strict=True):
        label = f" {value:.3g}" + ("  (biased)" if "wrong" in name else "")
        panel.text(bar.get_width(), bar.get_y() + bar.get_height() / 2, label, va="center", fontsize=9)
    panel.grid(axis="y", visible=False)
    panel.set(
        xlabel="variance of the estimate after one second, tr Cov × 10⁶ (less is better)", xlim=(0, 1.2 * max(values)),
        title=f"{found['problem']}, batches of {found['batch_size']}: rollout and estimator",
    )  # fmt: skip
    save(figure, path)


def rules(found: dict[str, dict[str, list[float]]], path: Path) -> None:
    """The variance of each rule by that of the score function, on each expectation; biased rules are drawn light."""
    height = 1.2 + 0.3 * max(len(rows) for rows in found.values())
    figure, panels = axes(columns=len(found), width=4.9, height=height)
    for panel, (problem, rows) in zip(panels, found.items(), strict=True):
        unit = rows["score function"][0]
        order = sorted(rows, key=lambda name: -rows[name][0])
        values = [100.0 * rows[name][0] / unit for name in order]
        shades = [COLOURS[1] if rows[name][1] > 0.0 else COLOURS[0] for name in order]
        bars = panel.barh([name.replace(", ", ",\n", 1) for name in order], values, color=shades, height=0.62)
        for bar, name, value in zip(bars, order, values, strict=True):
            biased = f"  (bias {100.0 * rows[name][1]:.0f} %)" if rows[name][1] > 0.0 else ""
            at = (bar.get_width(), bar.get_y() + bar.get_height() / 2)
            panel.text(*at, f" {value:.3g}{biased}", va="center", fontsize=8)
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", labelsize=8)
        panel.set(title=problem, xlim=(0, 1.6 * max(values)), xlabel="variance, % of the score function's")
    save(figure, path)


def _spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Move labels apart that would overlap, keeping their order and their mean height where they crowd."""
    order = sorted(heights, key=heights.__getitem__)
    at = np.array([heights[name] for name in order])
    for _ in range(200):
        for i in range(len(at) - 1):
            lack = gap - (at[i + 1] - at[i])
            if lack > 0:
                at[i] -= lack / 2
                at[i + 1] += lack / 2
    return dict(zip(order, at.tolist(), strict=True))


def _plain_ticks(axis: Any, ticks: list[float]) -> None:
    axis.set_major_locator(NullLocator())
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
