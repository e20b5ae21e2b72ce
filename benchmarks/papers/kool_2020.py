"""Several samples at once: with replacement and a baseline of the others, and without replacement."""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._form import Finding, gradients, legend_below, moments, number, panels, verdicts
from pgjax.distributions import Bernoulli
from pgjax.expectation import (
    laws,
    nodes,
    rule,
    score_function,
    score_leave_one_out,
    sum_and_sample,
    taken,
    unordered_set,
)

TITLE = "A baseline for free, and sampling without replacement"
REFERENCE = (
    "Kool, van Hoof and Welling (2019), *Buy 4 REINFORCE samples, get a baseline for free*; the same (2020), "
    "*Estimating gradients for discrete random variables by sampling without replacement*."
)
CLAIM = (
    "With several samples the others are a baseline that costs nothing and leaves no bias. Drawn without replacement, "
    "and with their order averaged out, they do better still; of the estimators compared this one alone does well both "
    "where many actions are probable and where one is. The problem is the paper's: three Bernoullis of one logit η, "
    "E Σᵢ (xᵢ − bᵢ)² with b = (0.6, 0.51, 0.48), eight outcomes in all."
)
TARGET = (0.6, 0.51, 0.48)
PLAIN, OTHERS, SUMMED, WITHOUT = "score function", "leave-one-out", "sum and sample", "without replacement"
OWN = "batch mean, own value in it"
LOGITS = {"high entropy": 0.0, "low entropy": -4.0}


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    evaluations: tuple[int, ...]  # of f, for one estimate


FULL, FAST = Size((2, 3, 4, 5, 6, 7, 8)), Size((2,))


def measure(size: Size) -> dict[str, Any]:
    """Exact mean and variance of each estimator, by listing all samples that it can draw."""
    exact = {name: _truth(logit) for name, logit in LOGITS.items()}
    rows: dict[str, Any] = {name: {each: [] for each in (PLAIN, OTHERS, SUMMED, WITHOUT)} for name in LOGITS}
    bias = {name: dict.fromkeys(rows[name], 0.0) for name in LOGITS}
    own: dict[str, Any] = {name: {"bias": [], "squared_error": []} for name in LOGITS}
    with jax.enable_x64(True):
        for n in size.evaluations:
            for estimator, moments_at in _with(n).items():
                for name, logit in LOGITS.items():
                    mean, variance = moments_at(logit)
                    if estimator == OWN:
                        own[name]["bias"].append(mean / exact[name] - 1.0)
                        own[name]["squared_error"].append(variance + (mean - exact[name]) ** 2)
                        continue
                    rows[name][estimator].append(variance)
                    bias[name][estimator] = max(bias[name][estimator], abs(mean / exact[name] - 1.0))
    settings = {
        name: {"logit": logit, "gradient": exact[name], "variance": rows[name], "bias": bias[name], "own": own[name]}
        for name, logit in LOGITS.items()
    }
    return {"evaluations": list(size.evaluations), "settings": settings}


def _policy(logit: Any) -> Bernoulli:
    return Bernoulli(jnp.full(3, logit))


def _cost(action: Any) -> Any:
    return jnp.sum(jnp.square(action - jnp.asarray(TARGET)), axis=-1)


def _truth(logit: float) -> float:
    """p (1 − p) Σᵢ (1 − 2 bᵢ)."""
    p = 1.0 / (1.0 + math.exp(-logit))
    return p * (1.0 - p) * sum(1.0 - 2.0 * b for b in TARGET)


@rule(x=laws.many("own"))
def _batch_mean(distribution: Bernoulli, f: Any, *, x: Any, num_samples: int) -> Any:
    """Score functions whose baseline is the mean of all samples, each one's own value included."""
    baseline = jnp.mean(jax.vmap(f)(x.action))
    one = lambda x: score_function.given({"x": x}, distribution, f, baseline=baseline)  # noqa: E731
    return jnp.mean(jax.vmap(one)(x))


def _with(n: int) -> dict[str, Any]:
    """For each estimator with n evaluations of f a function of the logit that gives its mean and variance."""
    others = score_leave_one_out.using(num_samples=n)
    summed, without = sum_and_sample.using(top=n - 1), unordered_set.using(num_samples=n)
    return {
        PLAIN: _moments(score_function, lambda policy: nodes(score_function, policy), mean_of=n),
        OWN: _moments(_batch_mean.using(num_samples=n), lambda policy: _multisets(policy, n)),
        OTHERS: _moments(others, lambda policy: _multisets(policy, n)),
        SUMMED: _moments(summed, lambda policy: nodes(summed, policy)),
        WITHOUT: _moments(without, lambda policy: nodes(without, policy)),
    }


def _moments(estimator: Any, listed: Any, mean_of: int = 1) -> Any:
    """Mean and variance of the mean of so many estimates, a function of the logit."""
    program = jax.jit(
        lambda noise, weights, logit: moments(gradients(estimator, noise, _policy, _cost, logit), weights)
    )

    def at(logit: float) -> tuple[float, float]:
        noise, weights = listed(_policy(jnp.float64(logit)))
        mean, variance = program(noise, weights, jnp.float64(logit))
        return float(mean), float(variance) / mean_of

    return at


def _multisets(policy: Bernoulli, n: int) -> tuple[Any, np.ndarray]:
    """Samples with replacement, whose order does not matter to leave-one-out, and their probabilities."""
    actions, probs = (np.asarray(x) for x in policy.support())
    index = np.array(list(itertools.combinations_with_replacement(range(len(probs)), n)))
    counts = (index[..., None] == np.arange(len(probs))).sum(1)
    orders = np.array([math.factorial(n) / math.prod(math.factorial(c) for c in row) for row in counts])
    return {"x": taken(actions[index])}, orders * np.prod(probs[index], axis=1)


def draw(figures: dict[str, Any], path: Path) -> None:
    """Variance against evaluations, one panel for each entropy."""
    figure, (row,) = panels(1, 2, width=4.6, height=4.1)
    for panel, (setting, found) in zip(row, figures["settings"].items(), strict=True):
        for (name, variances), colour, marker in zip(found["variance"].items(), COLOURS, "osD^", strict=False):
            shown = [v if v > 1e-20 else math.nan for v in variances]  # with all eight outcomes seen: none
            panel.plot(figures["evaluations"], shown, marker + "-", color=colour, markersize=5, label=name)
        own = found["own"]["squared_error"]
        panel.plot(figures["evaluations"], own, ":", color=COLOURS[4], linewidth=2, label=f"{OWN} (squared error)")
        panel.set(
            yscale="log", xlabel="evaluations of the cost for one estimate",
            title=f"{setting}, η = {found['logit']:g}".replace("-", "−"), xticks=figures["evaluations"],
        )  # fmt: skip
    row[0].set_ylabel("exact variance of the gradient by η")
    legend_below(figure, row[0], 3)
    save(figure, path)


def verdict(figures: dict[str, Any]) -> str:
    """Compare the four at equal numbers of evaluations."""
    few, settings = figures["evaluations"], figures["settings"]
    high, low = (settings[name]["variance"] for name in LOGITS)
    high_own, low_own = (settings[name]["own"] for name in LOGITS)
    both = (high, low)
    bias = max(found["bias"][name] for found in settings.values() for name in found["bias"])
    gain = [x[PLAIN][i] / x[OTHERS][i] for x in both for i in range(len(few))]
    without = [x[OTHERS][i] / max(x[WITHOUT][i], 1e-300) for x in both for i in range(len(few)) if few[i] < 8]
    least = [[min(x[name][i] for name in x) for i in range(len(few)) if few[i] < 8] for x in both]
    worst = {
        name: max(v / m for x, lows in zip(both, least, strict=True) for v, m in zip(x[name], lows, strict=False))
        for name in high
    }
    rival = min((name for name in worst if name != WITHOUT), key=lambda name: worst[name])
    first = few[0]
    return verdicts(
        Finding(
            "The mean of the other samples as a baseline leaves no bias and lowers the variance.",
            bias < 1e-9 and min(gain) > 1.0,
            f"the largest relative bias of all is {number(bias)}; plain score functions have {number(min(gain))} to "
            f"{number(max(gain))} times the variance of leave-one-out.",
        ),
        Finding(
            "The mean over all samples, each one's own value included, leaves a bias of one part in their number.",
            max(abs(n * b + 1.0) for x in settings.values() for n, b in zip(few, x["own"]["bias"], strict=True)) < 1e-6,
            f"{100.0 * high_own['bias'][0]:.3g} % with {few[0]} samples, {100.0 * high_own['bias'][-1]:.3g} % with "
            f"{few[-1]}; its mean squared error is {number(high_own['squared_error'][0] / high[OTHERS][0])} times the "
            f"variance of leave-one-out with {few[0]} at high entropy, "
            f"{number(low_own['squared_error'][0] / low[OTHERS][0])} times at low entropy.",
        ),
        Finding(
            "Without replacement the variance is lower than with it, at equal numbers of evaluations.",
            min(without) > 1.0,
            f"leave-one-out has {number(min(without))} to {number(max(without))} times its variance, from {first} to 7 "
            "evaluations; with all eight outcomes drawn none is left.",
        ),
        Finding(
            "Summing over the most probable outcomes is good where the entropy is low and poor where it is high, and "
            "leave-one-out the other way round.",
            low[SUMMED][0] < low[OTHERS][0] and high[SUMMED][0] > high[OTHERS][0],
            f"with {first} evaluations sum and sample has {number(low[SUMMED][0] / low[OTHERS][0])} times the variance "
            f"of leave-one-out at low entropy and {number(high[SUMMED][0] / high[OTHERS][0])} times at high entropy.",
        ),
        Finding(
            "Without replacement is the only one of them that does well in both settings.",
            worst[WITHOUT] < 10.0 < worst[rival],
            f"it has at worst {number(worst[WITHOUT])} times the variance of the best of the four, with up to seven "
            f"evaluations; the next, {rival}, at worst {number(worst[rival])} times.",
        ),
    )
