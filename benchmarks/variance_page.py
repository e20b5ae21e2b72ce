"""The page and the figure of `variance_reduction.py`, written from its figures."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from certificates_page import number, table
from common import COLOURS, axes, save
from variance_noise import EQUAL

PAGE = """# Variance reduction, measured

What baselines, critics and other estimators are worth on real environments, at equal numbers of environment
steps and of seconds. *This page is written by `make variance DOCS=1`; do not edit it.* Measured on {processor}
({device}), Python {python}, jax {jax}, gymnax {gymnax}, pgjax {pgjax}, on {date}.

The policy is one that PPO has partly trained. The objective is the expected return of a whole episode, discounted
by {discount}; the window is as long as the environment's limit, so that none is cut. Each estimate is made of the
first episodes of {num_envs} environments; the evolution strategy plays as many, in pairs, with a deviation of 0.02.

The critic is a network of the observation and of the time, fitted by least squares to the discounted returns of
{critic_steps} further steps of the same policy, which are not counted below. Two rows take the critic that PPO
left instead, which has learned from the rewards of changing policies.

How to read the tables. *Variance*: the trace of the covariance of one estimate, relative to plain REINFORCE; *per
second*, times the seconds of rollout and estimate. *Cosine*: of one estimate to the reference; *at equal seconds*:
of a mean of as many estimates n as the time of {equal} of plain REINFORCE allows, ⟨E g, r⟩ / (|r| √(|E g|² +
tr Cov / n)); a dash where one alone takes longer. *Bias*: the distance of the expected estimate from the reference,
relative to its length; an interval from 0 says that none was found. One interval in twenty misses the truth: that of
an unbiased estimator that leaves out 0 is such a one. REINFORCE and GPOMDP are the same estimates, and
so are the value baseline and λ = 1: their equal rows check the measurement. A standardised advantage changes the
length of the gradient, hence its variance and its bias: there the cosines tell.

Seconds are {kind} of the fastest of {num_rounds} rounds, without compilation. Brackets hold 95 % bootstrap intervals
over {num_pairs} pairs of independent estimates{fewer};
all estimators see the same keys. The reference is the mean of REINFORCE with the fitted critic as baseline, which is
unbiased, over as many steps as each section says.

{findings}

{sections}"""

SECTION = """## {name}

PPO has trained the policy for {train_steps:,} steps; its discounted objective is {objective:.4g}. A window has
{num_steps} steps, {share:.0%} of them in first episodes; each estimate plays {steps:,} steps, the reference
{reference_steps:,}: it errs by {error:.2g} % of its length. Of the variance of the returns the fitted critic explains
{explained:.0%}, PPO's {explained_by_ppo:.0%}.

![Cosine and variance of every estimator on {name}](variance_reduction/{name}.png)

{table}
{notes}"""

UNBIASED = ("likelihood ratio", "REINFORCE", "GPOMDP", "actor-critic λ=1")  # by what their docstrings say
SCALED = "PPO, first step, standardised"
OWN = ", PPO's critic"


def page(found: dict[str, Any], size: dict[str, Any], setting: dict[str, str], *, discount: float, kind: str) -> str:
    """Write the page.

    Args:
        found: the figures of each environment.
        size: the counts that were measured with.
        setting: what they were measured on.
        discount: γ.
        kind: what the seconds are.

    Returns:
        Markdown.
    """
    told = {name: f"{x:,}" if isinstance(x, int) else x for name, x in size.items()}
    counts = {x: row["num_pairs"] for result in found.values() for x, row in result["rows"].items()}
    fewer = [f"{count} of {x}" for x, count in counts.items() if count < max(counts.values())]
    return PAGE.format(
        **setting, **told, num_pairs=max(counts.values()), fewer=f" ({', '.join(fewer)})" if fewer else "",
        equal=EQUAL, discount=discount, kind=kind,
        findings="\n".join(f"- {_findings(name, result)}" for name, result in found.items()),
        sections="\n".join(_section(name, result) for name, result in found.items()),
    )  # fmt: skip


def _spread(x: list[float]) -> str:
    return "–" if np.isnan(x[0]) else f"{number(x[0])} [{number(x[1])}, {number(x[2])}]"


def _section(name: str, result: dict[str, Any]) -> str:
    columns = [
        ("Estimator", lambda row: row[0]),
        ("variance", lambda row: _spread(row[1]["variance"])),
        ("variance per second", lambda row: _spread(row[1]["variance_per_second"])),
        ("cosine", lambda row: _spread(row[1]["cosine"])),
        ("cosine at equal seconds", lambda row: _spread(row[1]["cosine_equal_seconds"])),
        ("bias", lambda row: _spread(row[1]["bias"])),
        ("seconds", lambda row: number(row[1]["seconds"])),
    ]
    rows = sorted(result["rows"].items(), key=lambda item: item[1]["variance"][0])
    heavy = [f"{x} ({row['largest_pair']:.0%})" for x, row in rows if row["largest_pair"] > 0.5]
    notes = (
        f"\nOne pair alone makes more than half of the variance of {', '.join(heavy)}: a heavy tail, so that the\n"
        "sample tells little of the variance, and its interval is too narrow.\n"
        if heavy
        else ""
    )
    told = {key: x for key, x in result.items() if key != "rows"}
    error = 100 * result["reference_error"]
    return SECTION.format(**told, name=name, error=error, table=table(columns, rows), notes=notes)


def _percent(x: float) -> str:
    return f"{number(100 * x)} %"


def _findings(name: str, result: dict[str, Any]) -> str:
    """What the figures of one environment come to."""
    rows = {x: row for x, row in result["rows"].items() if x != SCALED}
    of = lambda x, key: rows[x][key][0]  # noqa: E731
    least = lambda names: min(names, key=lambda x: of(x, "variance"))  # noqa: E731
    unbiased = [x for x in rows if x.split(",")[0] in UNBIASED]
    biased = [x for x in rows if x not in unbiased and x.startswith(("actor-critic", "UPGO"))]
    best = least(unbiased)
    text = [
        f"**{name}.** Of the estimators without bias, {best} has the least variance, {_percent(of(best, 'variance'))} "
        "of plain REINFORCE's."
    ]
    if right := [x for x in biased if rows[x]["bias"][1] == 0.0]:
        x = least(right)
        text.append(
            f"Of those that bootstrap, {x} has {_percent(of(x, 'variance'))}, and its bias is not told from noise: the "
            f"interval reaches from 0 to {_percent(rows[x]['bias'][2])} of the gradient's length."
        )
    if wrong := [x for x in biased if x not in right and not x.endswith(OWN)]:
        x = least(wrong)
        text.append(
            f"{x} has a variance of {_percent(of(x, 'variance'))}, at a bias of {_percent(of(x, 'bias'))} and a cosine "
            f"of {of(x, 'cosine'):.3f}."
        )
    first = max(rows, key=lambda x: np.nan_to_num(of(x, "cosine_equal_seconds"), nan=-1.0))
    text.append(
        f"At equal seconds {first} comes closest to the direction of the gradient, with a cosine of "
        f"{of(first, 'cosine_equal_seconds'):.3f}; plain REINFORCE has "
        f"{_spread(rows['REINFORCE']['cosine_equal_seconds'])}."
    )
    step, baseline = "actor-critic λ=0", "REINFORCE, value baseline"
    if {step + OWN, baseline + OWN} <= rows.keys():
        text.append(
            f"A bootstrap is as good as its critic: the bias of {step} is {_percent(of(step, 'bias'))} of the "
            f"gradient's length with the fitted critic, and {_percent(of(step + OWN, 'bias'))}, at a cosine of "
            f"{of(step + OWN, 'cosine'):.3f}, with PPO's, which explains {_percent(result['explained_by_ppo'])} of the "
            f"variance of the returns. As a baseline either leaves the mean alone, with "
            f"{_percent(of(baseline, 'variance'))} and {_percent(of(baseline + OWN, 'variance'))} of the variance."
        )
    return textwrap.fill(" ".join(text), 116, subsequent_indent="  ", break_on_hyphens=False)


def draw(name: str, result: dict[str, Any], path: Path) -> None:
    """Draw cosine and variance of every estimator on one environment."""
    ordered = sorted(result["rows"].items(), key=lambda item: item[1]["cosine"][0])
    at = np.arange(len(ordered))
    figure, (left, right) = axes(2, width=4.8, height=1.3 + 0.25 * len(at))
    for panel, key, colour in ((left, "cosine", COLOURS[0]), (right, "variance", COLOURS[1])):
        mean, low, high = np.array([row[key] for _, row in ordered]).T
        errors = [np.maximum(mean - low, 0.0), np.maximum(high - mean, 0.0)]
        panel.errorbar(mean, at, xerr=errors, fmt="o", color=colour, markersize=4, linewidth=1.2, label="one estimate")
    equal = np.array([row["cosine_equal_seconds"][0] for _, row in ordered])
    label = f"their mean, in the time of {EQUAL} of REINFORCE"
    left.plot(equal, at, "|", color=COLOURS[6], markersize=9, label=label)
    left.set_yticks(at, [estimator for estimator, _ in ordered], fontsize=8)
    left.axvline(0.0, color="0.4", linewidth=0.8)
    lowest = min(*equal[np.isfinite(equal)], *(row["cosine"][1] for _, row in ordered))
    left.set(xlim=(min(lowest, 0.0) - 0.05, 1.05), xlabel="cosine to the gradient, 95 % interval")
    figure.legend(*left.get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=2, frameon=False)
    right.axvline(1.0, color="0.4", linewidth=0.8)
    right.set_yticks(at, [])
    right.set(xscale="log", xlabel="variance relative to REINFORCE")
    figure.suptitle(f"{name}: estimates of {result['steps']:,} steps each", fontsize=11)
    save(figure, path)
