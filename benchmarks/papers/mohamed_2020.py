"""Score function, pathwise and measure-valued gradients of three costs of a normal."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._form import Finding, gradients, legend_below, moments, number, panels, verdicts
from pgjax.distributions import Normal
from pgjax.expectation import measure_valued, nodes, pathwise, score_function

TITLE = "No estimator is always the best"
REFERENCE = (
    "Mohamed, Rosca, Figurnov and Mnih (2020), *Monte Carlo gradient estimation in machine learning*, section 3."
)
CLAIM = (
    "Which of the score function, the pathwise and the measure-valued gradient has the least variance depends on the "
    "cost, and for one and the same family of costs on its parameter k: there is no ranking. Here x ~ N(1, 1), and the "
    "costs are (x − k)², exp(−k x²) and cos(k x); the variance is that of one sample, for the gradient by the mean and "
    "by the deviation. The measure-valued gradient takes two evaluations of the cost for each, the others one."
)
RULES = {"score function": score_function, "pathwise": pathwise, "measure-valued": measure_valued}
SCORE, PATH, WEAK = RULES
LINES = dict(zip(RULES, ("-", "--", "-."), strict=True))


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    points: int  # values of k for each cost
    nodes: int  # for a normal number; half as many for a Rayleigh one
    largest: float  # k


FULL, FAST = Size(161, 400, 10.0), Size(7, 96, 4.0)
COSTS: dict[str, Callable[[Any, Any], Any]] = {
    "(x − k)²": lambda x, k: jnp.square(x - k),
    "exp(−k x²)": lambda x, k: jnp.exp(-k * jnp.square(x)),
    "cos(k x)": lambda x, k: jnp.cos(k * x),
}
MEANS: dict[str, Callable[[Any, Any, Any], Any]] = {  # of the costs, for N(m, s²)
    "(x − k)²": lambda m, s, k: jnp.square(m - k) + jnp.square(s),
    "exp(−k x²)": lambda m, s, k: jnp.exp(-k * m**2 / (1.0 + 2.0 * k * s**2)) / jnp.sqrt(1.0 + 2.0 * k * s**2),
    "cos(k x)": lambda m, s, k: jnp.exp(-0.5 * jnp.square(k * s)) * jnp.cos(k * m),
}
PARAMETERS = ("mean", "deviation")


def measure(size: Size) -> dict[str, Any]:
    """Variance of each rule at each k, by quadrature over its noise, and how far the quadrature is off in the mean."""
    found: dict[str, Any] = {}
    with jax.enable_x64(True):
        for cost, f in COSTS.items():
            log = np.geomspace(0.1, size.largest, size.points)
            ks = np.linspace(-3.0, 5.0, size.points) if cost == "(x − k)²" else log
            exact = jax.vmap(jax.grad(MEANS[cost], (0, 1)), (None, None, 0))(1.0, 1.0, jnp.asarray(ks))
            rows, error = {}, 0.0
            for name in RULES:
                means, variances = _moments(name, f, ks, size.nodes)
                rows[name] = dict(zip(PARAMETERS, np.asarray(variances).tolist(), strict=True))
                error = max(error, float(jnp.max(jnp.abs(means - jnp.stack(exact)))))
            found[cost] = {"k": ks.tolist(), "variance": rows, "error": error}
    return found


def _moments(name: str, f: Callable[[Any, Any], Any], ks: Any, number: int) -> Any:
    """Mean and variance, [2, K] each: by the mean of the normal and by its deviation."""
    rule, one = RULES[name], jnp.ones(1)
    noise, weights = nodes(rule, Normal(one, one), size={law: number // (1 + (law == "w")) for law in rule.laws})

    def at(k: Any) -> Any:
        grads = gradients(rule, noise, lambda p: Normal(*p), lambda x: f(x[..., 0], k), (one, one))
        return moments(jnp.concatenate(grads, axis=-1), weights)

    return tuple(x.T for x in jax.jit(lambda ks: jax.lax.map(at, ks))(jnp.asarray(ks)))


def draw(figures: dict[str, Any], path: Path) -> None:
    """Variance against k: a column for each cost, a row for each parameter of the normal."""
    figure, grid = panels(2, 3, width=4.0, height=3.0)
    for column, (cost, found) in enumerate(figures.items()):
        for row, parameter in enumerate(PARAMETERS):
            panel = grid[row, column]
            for (name, rows), colour in zip(found["variance"].items(), COLOURS, strict=False):
                panel.plot(found["k"], rows[parameter], LINES[name], color=colour, linewidth=1.8, label=name)
            panel.set(yscale="log", xscale="linear" if column == 0 else "log")
            panel.set_ylim(bottom=max(panel.get_ylim()[0], 3e-5))  # by symmetry there is none at k = 1
            if row == 0:
                panel.set_title(f"cost {cost}")
            else:
                panel.set_xlabel("k")
            if column == 0:
                panel.set_ylabel(f"variance, gradient by the {parameter}")
    legend_below(figure, grid[0, 0], 3)
    save(figure, path)


def _best(found: dict[str, Any], parameter: str) -> list[str]:
    """The rule of least variance at each k."""
    rows = found["variance"]
    return [min((rows[name][parameter][i], name) for name in rows)[1] for i in range(len(found["k"]))]


def verdict(figures: dict[str, Any]) -> str:
    """Say which rule wins where."""
    square, wave = figures["(x − k)²"], figures["cos(k x)"]
    rough = {cost: figures[cost] for cost in ("exp(−k x²)", "cos(k x)")}
    winners = {(cost, p): _best(found, p) for cost, found in figures.items() for p in PARAMETERS}
    ever = [name for name in RULES if any(name in names for names in winners.values())]
    always = [name for name in RULES if all(set(names) == {name} for names in winners.values())]
    above = {name: _above(square["variance"][SCORE], square["variance"][name]) for name in (PATH, WEAK)}
    last = {cost: {name: found["variance"][name]["mean"] for name in RULES} for cost, found in rough.items()}
    overtaken = {cost: x[PATH][0] < x[SCORE][0] and x[PATH][-1] > x[SCORE][-1] for cost, x in last.items()}
    ratios = {cost: x[PATH][-1] / x[SCORE][-1] for cost, x in last.items()}
    before = {cost: x[PATH][0] / x[SCORE][0] for cost, x in last.items()}
    growth = last["cos(k x)"][PATH][-1] / (0.5 * wave["k"][-1] ** 2)
    return verdicts(
        Finding(
            "None of the three has the least variance everywhere.",
            not always and len(ever) > 1,
            f"least somewhere: {', '.join(ever)}; least everywhere: {', '.join(always) or 'none'}.",
        ),
        Finding(
            "For the quadratic cost the score function has the most variance of the three.",
            min(*above[PATH], *above[WEAK]) > 1.0,
            f"it has at least {number(min(above[PATH]))} times the pathwise variance and {number(min(above[WEAK]))} "
            f"times the measure-valued one, over k from {square['k'][0]:g} to {square['k'][-1]:g}; by the mean the "
            f"measure-valued one is the least at {_share(winners['(x − k)²', 'mean'], WEAK)} of the points, the "
            f"pathwise one at {_share(winners['(x − k)²', 'mean'], PATH)}.",
        ),
        *(
            Finding(
                f"For {cost} the pathwise gradient is better than the score function at small k and worse at large k.",
                overtaken[cost],
                f"it has {number(before[cost])} times the score function's variance by the mean at "
                f"k = {rough[cost]['k'][0]:g} and {number(ratios[cost])} times at k = {rough[cost]['k'][-1]:g}"
                + (f"; they cross near k = {number(k)}." if (k := _crossing(rough[cost])) else "."),
            )
            for cost in rough
        ),
        Finding(
            "The pathwise variance follows the square of the derivative of the cost.",
            abs(growth - 1.0) < 0.05,
            f"for cos(k x) at k = {wave['k'][-1]:g} it is {growth:.3f} times k² / 2, which the "
            "mean square of the derivative tends to.",
        ),
    )


def _crossing(found: dict[str, Any]) -> float | None:
    """The first k at which the pathwise variance by the mean is above that of the score function."""
    rows = found["variance"]
    above = [p > s for p, s in zip(rows[PATH]["mean"], rows[SCORE]["mean"], strict=True)]
    return found["k"][above.index(True)] if True in above else None


def _above(x: dict[str, list[float]], y: dict[str, list[float]]) -> list[float]:
    """x / y for both parameters, and infinity where y is 0."""
    return [a / b if b > 0.0 else np.inf for p in PARAMETERS for a, b in zip(x[p], y[p], strict=True)]


def _share(winners: list[str], name: str) -> str:
    return f"{100.0 * winners.count(name) / len(winners):.0f} %"
