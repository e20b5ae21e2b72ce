"""The page of the documentation that helps to choose an estimator, written from the certificates."""

import math
from collections.abc import Mapping, Sequence

from certificates_page import CLAIMS, TRUTHS, Figures, number, table

INTRODUCTION = """# Which estimator?

One row for each estimator, rule and search in the library, from the certificates of the page {{doc}}`certificates`.
*This page is written by `make certificates DOCS=1`; do not edit it.* Measured on {processor} ({device}), Python
{python}, jax {jax}, pgjax {pgjax}, on {date}.

- *Estimates*: the direction that it estimates without bias, if its needs are met: {claims}.
- *Needs*: what the claim takes for granted. Data come from the policy itself unless the row says "other data".
- *Bias*: the largest found on the problems of the suite, relative to the length of the gradient. **0** means below
  1e-10 on all of them, exactly computed; **0?** that a sample shows none. What estimates another direction than that
  gradient shows how far apart the two are.
- *Variance*: that of one trajectory (of a rule or a search: one sample), relative to plain
  {{py:obj}}`pgjax.reinforce` (of a rule: {{py:obj}}`pgjax.expectation.score_function`; of a search: one pair of
  {{py:obj}}`pgjax.expectation.evolution_strategy`) on the same problem: the median over the problems that both take,
  and the range. With the exact value of the policy at hand it is what a perfect critic would leave.
- *Time*: relative to the same, without the rollout. On problems so small it scatters by a factor of two.

Begin with the row that has bias 0, needs nothing that you lack, and the least variance times time. A biased row may
still be the best for a small batch: the squared error of a mean over n trajectories is bias² + variance / n.
What baselines, critics and searches are worth on CartPole and Pendulum is measured on the page
{{doc}}`variance_reduction`.

"""

# The title of each table, what the rows are relative to, and the truths that tell its certificates.
PLAIN = (("Trajectories", "REINFORCE"), ("E f(x)", "score function"), ("f(θ)", "evolution strategy"))
SECTIONS = tuple((*names, truths) for names, truths in zip(PLAIN, TRUTHS, strict=True))

NEEDS = {
    "own data": "",
    "other data": "other data, `log_prob` of the policy that collected it",
    "whole episodes": "whole episodes",
    "equal lengths": "episodes of equal length",
    "exact value": "a critic; unbiased as far as it is right",
    "finitely many actions": "finitely many actions",
    "smooth samples": "samples differentiable in the parameters",
    "differentiable steps": "a differentiable environment",
    "normal samples": "a Normal",
    "relaxed samples": "a discrete distribution with relaxed samples",
    "soft samples": "f differentiable between the actions",
    "yes-or-no actions": "a Bernoulli",
    "search of the mean": "",
    "search of mean and scale": "",
    "quadratic f": "f quadratic around θ",
}


def page(
    certificates: Sequence[Figures],
    setting: Mapping[str, str],
    *,
    needs: Mapping[str, Sequence[str]],
    references: Mapping[str, str],
) -> str:
    """Write the page.

    Args:
        certificates: the figures of all estimators and rules on all problems.
        setting: what they were measured on.
        needs: for each estimator and rule, in the order in which they are shown, what its claim takes for granted.
        references: for each of them who proposed it.

    Returns:
        Markdown.
    """
    claims = "; ".join(f"*{claim or 'nothing'}*, {text}" for claim, text in CLAIMS.items())
    parts = [INTRODUCTION.format(**setting, claims=claims)]
    for title, plain, truths in SECTIONS:
        mine, rule = [c for c in certificates if c["truth"] in truths], title != "Trajectories"
        named = [name for name in needs if any(c["estimator"] == name for c in mine)]
        rows = [_row(name, plain, mine, needs[name], references[name]) for name in named]
        headers = ["Estimator", "estimates", "needs", "paper", "bias", "variance", "range", *([] if rule else ["time"])]
        columns = [(header, lambda row, header=header: row[header]) for header in headers]
        parts.append(f"## {title}\n\n{table(columns, rows, left=4)}\n")
    return "\n".join(parts)


def _row(name: str, plain: str, found: Sequence[Figures], needs: Sequence[str], reference: str) -> dict[str, str]:
    by_problem = {c["problem"]: c for c in found if c["estimator"] == plain}
    mine = [c for c in found if c["estimator"] == name]
    pairs = [(c, by_problem[c["problem"]]) for c in mine if c["problem"] in by_problem]
    variance = _ratios([(float(c["trace"]), float(p["trace"])) for c, p in pairs])
    timed = [(c["cost"], p["cost"]) for c, p in pairs if c["cost"] and p["cost"]]
    times = _ratios([(c["run_seconds"], p["run_seconds"]) for c, p in timed])
    return {
        "Estimator": name,
        "estimates": mine[0]["claim"] or "nothing",
        "bias": _largest_bias(mine),
        "variance": number(_median(variance)) if variance else "–",
        "range": f"{number(min(variance))} to {number(max(variance))}" if len(variance) > 1 else "–",
        "time": number(_median(times)) if times else "–",
        "needs": "; ".join(filter(None, (NEEDS[need] for need in needs))) or "–",
        "paper": reference or "–",
    }


def _ratios(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [x / y for x, y in pairs if math.isfinite(x) and math.isfinite(y) and y > 0.0]


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else 0.5 * (ordered[half - 1] + ordered[half])


def _largest_bias(found: Sequence[Figures]) -> str:
    if all(c["is_gradient"] for c in found):
        return "**0?**" if any(c["method"] == "sampling" for c in found) else "**0**"
    # Where the gradient is 0 nothing is relative to it.
    biased = [float(c["relative_bias"]) for c in found if not c["is_gradient"]]
    return number(max((x for x in biased if not math.isnan(x)), default=math.nan))
