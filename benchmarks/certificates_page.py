"""The page of the documentation that shows the certificates, written from their figures as they stand in the JSON."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from common import markdown

Figures = dict[str, Any]  # of one certificate, as `Certificate.as_dict` gives them

INTRODUCTION = """# Certificates

What each estimator, each rule and each search of the library was found to do, against the exact gradient. *This page
is written by `make certificates DOCS=1`; do not edit it.*

Measured on {processor} ({device}), Python {python}, jax {jax}, pgjax {pgjax}, on {date}.

Each problem is so small that every trajectory can be listed. The estimator itself, the very function that a training
loop calls, is run on all of them, in float64; the probability-weighted mean of what it gives is its exact
expectation, and the weighted covariance its exact covariance. Estimators that look at a group of trajectories are
run on all groups of two. A rule, which estimates the gradient of an expectation E f(x), is run on every node of its
noise, and so is a search, which estimates that of f(θ) from values of f around θ. What cannot be listed is sampled, and
then the bias comes with a test.

Certify an estimator of your own with {{py:func}}`pgjax.exact.certify`; what `group_size`, `claim` and `needs` mean is
said at {{py:class}}`pgjax.exact.Candidate`. A printed certificate is an answer to the question whether a gradient is
right:

{example}
## At a glance

![Bias against variance](certificates/bias_variance.png)

![Variance against batch size](certificates/variance_batch.png)

![Cosine to the true gradient against the number of environments](certificates/cosine_envs.png)

![Variance after one second](certificates/variance_second.png)

![Variance of the rules](certificates/rules.png)

## Bias

Relative to the length of the gradient of the objective. **0** means below 1e-10, exactly computed. A figure in
*italics* was sampled, and **0?** means that the sample shows no bias. A dash: the claim is not about such problems.
∞: the mean does not exist.

"""

CLAIMS = {
    "discounted": "the gradient of the discounted objective",
    "dropped discount": "the direction without γ^t, no gradient of anything",
    "off-policy": "the gradient with the states of the other policy",
    "expectation": "the gradient of E f(x)",
    "exponentiated": "the gradient of log E exp f(x)",
    "plain": "the gradient of f(θ)",
    "smoothed": "the gradient of E f(θ + σε)",
    None: "no direction: the bias is shown",
}

# What certificates are held against: processes, expectations, functions of parameters. Each kind has a table.
TRUTHS = (("discounted",), ("expectation",), ("plain", "smoothed"))

READING = """
## Bias and variance by problem

*Cosine* is that between the expected estimate and the gradient: it tells a change of scale, which standardised
advantages make, from one of direction. *Variance* is the trace of the covariance for one trajectory (of a rule: one
sample): divided by the batch size it is that of the estimate; in *italics* where it was sampled. *Signal to noise* is
the squared length of the expected estimate by it. *n for 0.9* is the number of trajectories until the estimate keeps a
cosine of 0.9 to the true gradient, in the mean square; ∞ where bias or variance forbid it. *State, action, trajectory,
between* split the variance, in percent: by the state of each step, by the action (what a baseline acts on), by what
follows, and between the steps. *Time* is for one trajectory in a batch of 1024, without rollout; it is
measured on three problems, since it differs little between those of one kind.
"""


def page(certificates: Sequence[Figures], setting: dict[str, str], *, references: dict[str, str]) -> str:
    """Write the page.

    Args:
        certificates: the figures of all estimators and rules on all problems.
        setting: what they were measured on.
        references: for each estimator and rule, in the order in which they are shown, who proposed it.

    Returns:
        Markdown.
    """
    tables = [_biases([c for c in certificates if c["truth"] in truths], list(references)) for truths in TRUTHS]
    meaning = "\n".join(f"- **{claim or 'nothing'}**: {text}" for claim, text in CLAIMS.items())
    introduction = INTRODUCTION.format(**setting, example=_example(certificates))
    parts = [introduction + "\n\n".join(t for t in tables if t), f"\nWhat is claimed:\n\n{meaning}\n", READING]
    for problem in dict.fromkeys(c["problem"] for c in certificates):
        parts.append(_section(problem, [c for c in certificates if c["problem"] == problem]))
    lines = [f"- {name}: {reference}" for name, reference in sorted(references.items()) if reference]
    return "\n".join([*parts, "\n## References\n", *lines, ""])


def _example(certificates: Sequence[Figures]) -> str:
    """A few certificates of the first problem as they are printed, one for each verdict."""
    first = certificates[0]["problem"]
    shown = [c["reading"] for c in certificates if c["problem"] == first and c["found"] is not None]
    different = {reading.split("\n")[0].split(": ")[-1]: reading for reading in reversed(shown)}
    return "\n".join(f"```text\n{reading}\n```\n" for reading in different.values())


def _biases(certificates: Sequence[Figures], order: Sequence[str]) -> str:
    """One row for each estimator, one column for each problem."""
    problems = list(dict.fromkeys(c["problem"] for c in certificates))
    found = {(c["estimator"], c["problem"]): c for c in certificates}
    claims = {c["estimator"]: c["claim"] or "nothing" for c in certificates}
    columns: list[tuple[str, Callable[[str], str]]] = [("Estimator", str), ("claims", claims.__getitem__)]
    for problem in problems:
        columns.append((problem, functools.partial(lambda problem, name: _bias(found.get((name, problem))), problem)))
    return table(columns, [name for name in order if name in claims], left=2) if problems else ""


def _section(problem: str, certificates: Sequence[Figures]) -> str:
    first = certificates[0]
    head_of = {"expectation": "E f", "plain": "f(θ)", "smoothed": "E f(θ + σε)"}
    rule = first["truth"] in head_of
    counted = {"enumeration": f"{first['num_trajectories']} trajectories, all listed", "recursion": "no end"}
    head = f"{head_of.get(first['truth'], 'J')} = {first['objective']:.4g}"
    head += "." if rule else f"; {counted[first['method']]}."
    columns = RULE_COLUMNS if rule else COLUMNS
    return f"\n### {problem}\n\n{head}\n\n{table(columns, certificates)}"


def table(columns: Sequence[tuple[str, Callable[[Any], str]]], rows: Sequence[Any], left: int = 1) -> str:
    """Write a table whose header and cells come from the same columns.

    Args:
        columns: pairs of a header and a function from a row to its cell.
        rows: what the functions are applied to.
        left: how many columns are aligned to the left.

    Returns:
        Markdown.
    """
    return markdown([header for header, _ in columns], [[cell(row) for _, cell in columns] for row in rows], left)


def _cosine(c: Figures) -> str:
    return "–" if isinstance(c["cosine"], str) else f"{c['cosine']:.4f}"


def _variance(c: Figures) -> str:
    mark = "*" if c["method"] == "sampling" else ""
    return f"{mark}{number(c['trace'])}{mark}"


def _part(name: str) -> Callable[[Figures], str]:
    def cell(c: Figures) -> str:
        if c["terms"] is None or not float(c["trace"]) > 0.0:
            return "–"
        return f"{100.0 * float(c['terms'][name]) / float(c['trace']):.0f} %".replace("-0 %", "0 %")

    return cell


def _time(c: Figures) -> str:
    return "–" if c["cost"] is None else f"{1e6 * c['cost']['run_seconds'] / c['cost']['batch_size']:.2g} µs"


RULE_COLUMNS: list[tuple[str, Callable[[Figures], str]]] = [
    ("Estimator", lambda c: c["estimator"]),
    ("cosine", _cosine),
    ("variance", _variance),
    ("signal to noise", lambda c: number(c["signal_to_noise"])),
    ("n for 0.9", lambda c: number(c["samples_for_cosine_0.9"])),
]
COLUMNS = [
    *RULE_COLUMNS,
    *((name, _part(name)) for name in ("state", "action", "trajectory", "between")),
    ("time", _time),
]


def _bias(c: Figures | None) -> str:
    if c is None:
        return "–"
    relative = float(c["relative_bias"])
    if not math.isfinite(relative):
        return "∞"
    if c["method"] == "sampling":
        return "**0?**" if c["is_gradient"] else f"*{number(relative)}*"
    return "**0**" if c["is_gradient"] else number(relative)


def number(x: Any) -> str:
    """Write a number, or the name of one that is not finite, in three digits.

    Args:
        x: the number.

    Returns:
        Text.
    """
    x = float(x)
    if not math.isfinite(x):
        return "∞" if x > 0 else "–"
    return f"{x:.0f}" if 100 <= abs(x) < 1e5 else f"{x:.3g}"
