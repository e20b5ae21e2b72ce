"""The page of the documentation that shows the certificates."""

import math
from collections.abc import Sequence
from typing import Any

INTRODUCTION = """# Certificates

What each estimator of the library was found to do, against the exact gradient. *This page is written by
`make certificates DOCS=1`; do not edit it.*

Measured on {processor} ({device}), Python {python}, jax {jax}, pgjax {pgjax}, on {date}.

Each problem is so small that every trajectory can be listed. The estimator itself, the very function that a training
loop calls, is run on all of them, in float64; the probability-weighted mean of what it gives is its exact
expectation, and the weighted covariance its exact covariance. Estimators that look at a group of trajectories are
run on all groups of two. What cannot be listed is sampled, and then the bias comes with a test. Certify an estimator
of your own with `pgjax.exact.certify`.

## At a glance

![Bias against variance](certificates/bias_variance.png)

![Variance against batch size](certificates/variance_batch.png)

![Cosine to the true gradient against the number of environments](certificates/cosine_envs.png)

![Variance after one second](certificates/variance_second.png)

## Bias

Relative to the length of the gradient of the discounted objective. **0** means below 1e-10, exactly computed. A
figure in *italics* was sampled, and **0?** means that the sample shows no bias. A dash: the claim is not about such
problems. ∞: the mean does not exist.

"""

CLAIMS = {
    "discounted": "the gradient of the discounted objective",
    "dropped discount": "the direction without γ^t, no gradient of anything",
    "off-policy": "the gradient with the states of the other policy",
    None: "no direction: the bias is shown",
}

READING = """
## Bias and variance by problem

*Cosine* is that between the expected estimate and the gradient: it tells a change of scale, which standardised
advantages make, from one of direction. *Variance* is the trace of the covariance for one trajectory: divided by the
batch size it is that of the estimate; in *italics* where it was sampled. *Signal to noise* is the squared length of
the expected estimate by it. *n for 0.9* is the number of trajectories until the estimate keeps a cosine of 0.9 to the
true gradient, in the mean square; ∞ where bias or variance forbid it. *State, action, trajectory, between* split the
variance, in percent: by the state of each step, by the action (what a baseline acts on), by what follows, and between
the steps. *Time* is for one trajectory in a batch of 1024, without rollout.
"""


def page(certificates: Sequence[Any], setting: dict[str, str], *, registry: Sequence[Any]) -> str:
    """Write the page.

    Args:
        certificates: of all estimators on all problems.
        setting: what they were measured on.
        registry: the candidates.

    Returns:
        Markdown.
    """
    problems = list(dict.fromkeys(c.problem for c in certificates))
    found = {(c.estimator, c.problem): c for c in certificates}
    lines = [_row(["Estimator", "claims", *problems]), _rule(2 + len(problems), 2)]
    for candidate in registry:
        cells = [_bias(found.get((candidate.name, problem))) for problem in problems]
        lines.append(_row([candidate.name, candidate.claim or "nothing", *cells]))
    meaning = "\n".join(f"- **{claim or 'nothing'}**: {text}" for claim, text in CLAIMS.items())
    parts = [INTRODUCTION.format(**setting) + "\n".join(lines), f"\nWhat is claimed:\n\n{meaning}\n", READING]
    for problem in problems:
        parts.append(_section(problem, [c for c in certificates if c.problem == problem]))
    references = sorted({f"{c.name}: {c.reference}" for c in registry if c.reference})
    parts.append("\n## References\n\n" + "\n".join(f"- {line}" for line in references) + "\n")
    return "\n".join(parts)


def _section(problem: str, certificates: Sequence[Any]) -> str:
    first = certificates[0]
    listed = {"enumeration": f"{first.num_trajectories} trajectories, all listed", "recursion": "endless trajectories"}
    head = f"\n### {problem}\n\nJ = {first.objective:.4g}; {listed.get(first.method, 'sampled')}.\n"
    names = [
        "Estimator",
        "variance",
        "signal to noise",
        "n for 0.9",
        "state",
        "action",
        "trajectory",
        "between",
        "time",
    ]
    lines = [_row(names), _rule(len(names), 1)]
    for c in certificates:
        mark = "*" if c.method == "sampling" else ""
        lines.append(
            _row(
                [
                    c.estimator,
                    f"{c.cosine:.4f}" if math.isfinite(c.cosine) else "–",
                    f"{mark}{_number(c.trace)}{mark}",
                    _number(c.signal_to_noise),
                    _number(c.samples_for_cosine()),
                    *_split(c),
                    "–" if c.cost is None else f"{1e6 * c.cost.run_seconds / c.cost.batch_size:.2g} µs",
                ]
            )
        )
    return head + "\n" + "\n".join(lines)


def _bias(c: Any) -> str:
    if c is None:
        return "–"
    if not math.isfinite(c.relative_bias):
        return "∞"
    if c.method == "sampling":
        return "**0?**" if c.unbiased and c.claim == "discounted" else f"*{_number(c.relative_bias)}*"
    return (
        "**0**" if c.bias_norm < 1e-10 * max(1.0, float((c.gradient @ c.gradient) ** 0.5)) else _number(c.relative_bias)
    )


def _split(c: Any) -> list[str]:
    if c.terms is None:
        return ["–"] * 4
    terms = (c.terms.state, c.terms.action, c.terms.trajectory, c.terms.between)
    return [f"{100 * x / c.trace:.0f} %".replace("-0 %", "0 %") if c.trace > 0 else "–" for x in terms]


def _number(x: float) -> str:
    if not math.isfinite(x):
        return "∞" if x > 0 else "–"
    return f"{x:.0f}" if 100 <= abs(x) < 1e5 else f"{x:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int, left: int) -> str:
    return _row([":--"] * left + ["--:"] * (columns - left))
