"""Where gradients through the dynamics explode, or miss a jump, and score functions do not."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, save

from papers._form import Finding, gradients, moments, number, panels, verdicts
from pgjax.distributions import Normal
from pgjax.expectation import measure_valued, nodes, pathwise, score_function

TITLE = "Chaos, stiffness and jumps"
REFERENCE = (
    "Parmas, Rasmussen, Peters and Doya (2018), *PIPPS: flexible model-based policy search robust to the curse of "
    "chaos*; Suh, Simchowitz, Zhang and Tedrake (2022), *Do differentiable simulators give better policy gradients?*"
)
CLAIM = (
    "Through chaotic dynamics the variance of the pathwise gradient grows exponentially with the horizon, that of the "
    "score function does not, and weighting the two by the inverse of their variances is as good as the better one. "
    "Through a stiff contact the pathwise variance grows with the stiffness, and at a jump the pathwise gradient is "
    "wrong without a warning. Here x′ = g sin x + a with a ~ N(θ, 0.3²) at each step and cost 1 − cos x at the end, "
    "stable for g = 0.8 and chaotic for g = 3; and a wall at 0.7 that costs 1 behind it, reached over a width "
    "of 1 / κ, at x ~ N(θ, 1)."
)
RULES = {"pathwise": pathwise, "score function": score_function, "measure-valued": measure_valued}
PATH, SCORE, WEAK = RULES
BOTH = "both, by inverse variance"
GAINS = {"stable": 0.8, "chaotic": 3.0}
DEVIATION, WALL, BATCH = 0.3, 0.7, 100


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    horizons: tuple[int, ...]
    samples: int
    stiffness: tuple[float, ...]
    nodes: int


FULL = Size((1, 2, 3, 5, 8, 12, 16, 20, 25, 30), 40_000, (1.0, 3.0, 10.0, 30.0, 100.0), 2**15)
FAST = Size((1, 4), 500, (1.0, 10.0), 2**10)


def measure(size: Size) -> dict[str, Any]:
    """Sampled variances against the horizon, exact ones against the stiffness."""
    with jax.enable_x64(True):
        return {"horizon": _by_horizon(size), "stiffness": _by_stiffness(size)}


def _by_horizon(size: Size) -> dict[str, Any]:
    found: dict[str, Any] = {"horizons": list(size.horizons), "samples": size.samples}
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in GAINS}
    apart = 0.0
    for horizon in size.horizons:
        noise = jax.random.normal(jax.random.key(horizon), (size.samples, horizon))
        program = jax.jit(_of_horizon)
        for name, gain in GAINS.items():
            variances, distance = program(noise, jnp.float64(gain))
            apart = max(apart, float(distance))
            for rule, variance in variances.items():
                rows[name].setdefault(rule, []).append(float(variance))
    return {**found, "variance": rows, "apart": apart}


def _of_horizon(noise: Any, gain: Any) -> Any:
    """Variance of one sample of each rule, and how many standard errors their means are apart."""
    horizon = noise.shape[1]

    def policy(theta: Any) -> Normal:
        return Normal(jnp.full(horizon, theta), jnp.float64(DEVIATION))

    def cost(action: Any) -> Any:
        x, _ = jax.lax.scan(lambda x, a: (gain * jnp.sin(x) + a, None), jnp.full((), 0.5), action)
        return 1.0 - jnp.cos(x)

    rules = {PATH: pathwise, SCORE: score_function.using(baseline=1.0)}
    found = {name: gradients(rule, {"x": noise}, policy, cost, jnp.float64(0.1)) for name, rule in rules.items()}
    variance = {name: jnp.var(g) for name, g in found.items()}
    share = variance[SCORE] / (variance[PATH] + variance[SCORE])
    variance[BOTH] = jnp.var(share * found[PATH] + (1.0 - share) * found[SCORE])
    difference = found[PATH] - found[SCORE]
    return variance, jnp.abs(jnp.mean(difference)) / jnp.sqrt(jnp.var(difference) / len(noise))


def _contact(x: Any, stiffness: Any) -> Any:
    """From 0 to 1, smoothly, over a width of 1 / stiffness."""
    u = jnp.clip(stiffness * (x - WALL), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def _slope(stiffness: float) -> float:
    """The gradient of E f by the mean of the normal: the mean of the density over the width, weighted by f′."""
    u, w = np.polynomial.legendre.leggauss(64)
    u, w = 0.5 * (u + 1.0), 0.5 * w
    density = np.exp(-0.5 * (WALL + u / stiffness) ** 2) / np.sqrt(2.0 * np.pi)
    return float(np.sum(w * 6.0 * u * (1.0 - u) * density))


def _by_stiffness(size: Size) -> dict[str, Any]:
    values = jnp.asarray(size.stiffness)
    found: dict[str, Any] = {"values": list(size.stiffness), "exact": [*map(_slope, [*size.stiffness, np.inf])]}
    found |= {"variance": {}, "ratio": {}}
    for name, rule in RULES.items():
        fine = "w" if name == WEAK else "x"
        zero = jnp.zeros(1)
        sizes = {law: size.nodes if law == fine else 2 for law in rule.laws}
        noise, weights = nodes(rule, Normal(zero, jnp.ones(())), size=sizes)

        def of(f: Any, rule: Any = rule, noise: Any = noise, weights: Any = weights, zero: Any = zero) -> Any:
            g = gradients(rule, noise, lambda loc: Normal(loc, jnp.ones(())), lambda x: f(x[..., 0]), zero)[:, 0]
            return *moments(g, weights), jnp.sum(jnp.where(g == 0.0, jnp.asarray(weights), 0.0))

        smooth = jax.jit(lambda values, of=of: jax.lax.map(lambda k: of(lambda x: _contact(x, k)), values))(values)
        jump = jax.jit(lambda of=of: of(lambda x: jnp.where(x > WALL, 1.0, 0.0)))()
        mean, variance, none = (np.append(a, b) for a, b in zip(smooth, jump, strict=True))
        found["variance"][name] = variance.tolist()
        found["ratio"][name] = (mean / np.array(found["exact"])).tolist()
        if name == PATH:
            found["silent"] = (none**BATCH).tolist()
    return found


def draw(figures: dict[str, Any], path: Path) -> None:
    """Variance against horizon and stiffness, and the mean against the stiffness."""
    figure, grid = panels(2, 2, width=4.8, height=3.3)
    colours = dict(zip((*RULES, BOTH), COLOURS, strict=False))
    horizon, stiffness = figures["horizon"], figures["stiffness"]
    for panel, (name, rows) in zip(grid[0], horizon["variance"].items(), strict=True):
        for rule, mark in ((PATH, "o-"), (SCORE, "s-"), (BOTH, "x:")):
            panel.plot(horizon["horizons"], rows[rule], mark, color=colours[rule], markersize=5, label=rule)
        panel.set(
            yscale="log", xlabel="horizon, steps", ylabel="variance of one sample",
            title=f"{name}, g = {GAINS[name]:g}",
        )  # fmt: skip
    left, right = grid[1]
    places = np.arange(len(stiffness["values"]) + 1)
    for rule, mark in zip(RULES, ("o-", "s-", "^-"), strict=True):
        left.plot(places[:-1], stiffness["variance"][rule][:-1], mark, color=colours[rule], markersize=5, label=rule)
        right.plot(places, stiffness["ratio"][rule], mark, color=colours[rule], markersize=5, alpha=0.8)
        for y, panel in ((stiffness["variance"][rule][-1], left), (stiffness["ratio"][rule][-1], right)):
            panel.plot(places[-1:], [y], mark[0], color=colours[rule], markersize=5)
    right.plot(places, stiffness["silent"], ":", color="0.3")
    right.annotate(
        f"chance that {BATCH} pathwise samples\nare all exactly 0", (places[-2], stiffness["silent"][-2]), (0.0, 0.6),
        fontsize=9, color="0.3", arrowprops={"arrowstyle": "-", "color": "0.3", "linewidth": 0.7},
    )  # fmt: skip
    for panel in (left, right):
        panel.set_xticks(places, [*(f"{k:g}" for k in stiffness["values"]), "jump"])
        panel.set_xlabel("stiffness κ of the wall")
    left.annotate(
        "pathwise at the jump:\nnone, and wrong", (1.0, 0.8), xycoords="axes fraction", ha="right", va="top", fontsize=9
    )
    left.set(yscale="log", ylabel="exact variance of one sample", title="a wall: variance")
    right.set(ylabel="mean of the estimate / true gradient", title="a wall: bias", ylim=(-0.05, 1.15))
    handles = {h.get_label(): h for panel in (grid[0, 0], left) for h in panel.get_lines() if h.get_label()[0] != "_"}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    save(figure, path)


def _per_step(horizons: list[int], variances: list[float]) -> float:
    """The factor by which the variance grows with each step, over the second half of the horizons."""
    half = len(horizons) // 2
    return float(np.exp(np.polyfit(horizons[half - 1 :], np.log(variances[half - 1 :]), 1)[0]))


def _power(horizons: list[int], variances: list[float]) -> float:
    """The power of the horizon with which the variance grows, over its second half."""
    half = len(horizons) // 2
    return float(np.polyfit(np.log(horizons[half - 1 :]), np.log(variances[half - 1 :]), 1)[0])


def verdict(figures: dict[str, Any]) -> str:
    """Compare growth, order and bias."""
    horizon, wall = figures["horizon"], figures["stiffness"]
    steps, rows = horizon["horizons"], horizon["variance"]
    stable, chaotic = rows["stable"], rows["chaotic"]
    factor = {name: _per_step(steps, x[PATH]) for name, x in rows.items()}
    power = {name: _power(steps, x[SCORE]) for name, x in rows.items()}
    ahead = [h for h, p, s in zip(steps, chaotic[PATH], chaotic[SCORE], strict=True) if p > s]
    behind = min(s / p for p, s in zip(stable[PATH], stable[SCORE], strict=True))
    mixed = max(b / min(p, s) for x in rows.values() for p, s, b in zip(x[PATH], x[SCORE], x[BOTH], strict=True))
    middle = (len(wall["values"]) - 1) // 2
    growth = {name: wall["variance"][name][-2] / wall["variance"][name][middle] for name in RULES}
    stiffer = wall["values"][-1] / wall["values"][middle]
    off = {name: abs(wall["ratio"][name][-1] - 1.0) for name in RULES}
    smooth = max(abs(r - 1.0) for name in RULES for r in wall["ratio"][name][:-1])
    return verdicts(
        Finding(
            "Through chaotic dynamics the pathwise variance grows exponentially with the horizon, through stable ones "
            "it does not.",
            factor["chaotic"] > 1.5 and factor["stable"] < 1.1,
            f"{number(factor['chaotic'])} times with each step for g = {GAINS['chaotic']:g}, "
            f"{number(factor['stable'])} times for g = {GAINS['stable']:g}.",
        ),
        Finding(
            "The variance of the score function grows like a power of the horizon, about the first, chaos or not.",
            min(power.values()) > 0.5 and max(power.values()) < 1.5,
            f"like the power {power['chaotic']:.2f} in the chaotic system, {power['stable']:.2f} in the stable one.",
        ),
        Finding(
            "The pathwise gradient is the better one in the stable system, the score function in the chaotic one.",
            behind > 1.0 and bool(ahead) and ahead[-1] == steps[-1],
            f"stable: the score function has at least {number(behind)} times the pathwise variance; chaotic: "
            + (
                f"the pathwise one is the larger from {ahead[0]} steps on."
                if ahead
                else "the score function has more there too."
            )
            + f" Their means are nowhere more than {number(horizon['apart'])} standard errors apart.",
        ),
        Finding(
            "Weighted by the inverse of their variances the two are as good as the better one at every horizon.",
            mixed < 1.1,
            f"the weighted mean has at most {mixed:.3f} times the variance of the better one.",
        ),
        Finding(
            "The pathwise variance grows in proportion to the stiffness of a contact, that of the others does not.",
            0.5 < growth[PATH] / stiffer < 1.5 and max(growth[SCORE], growth[WEAK]) < 0.2 * stiffer,
            f"from κ = {wall['values'][middle]:g} to {wall['values'][-1]:g} it grows {number(growth[PATH])} times, "
            f"that of the score function {number(growth[SCORE])} times, the measure-valued one "
            f"{number(growth[WEAK])} times.",
        ),
        Finding(
            "At a jump the pathwise gradient is wrong without a warning, the other two are right; and a stiff wall "
            "looks like a jump to a batch that is too small.",
            off[PATH] > 0.5 and max(off[SCORE], off[WEAK]) < 0.01 and wall["silent"][-2] > 0.3,
            f"it is off by {100.0 * off[PATH]:.0f} % there, the other two by "
            f"{100.0 * max(off[SCORE], off[WEAK]):.2g} %; with a slope, however steep, all are right in the mean, to "
            f"{100.0 * smooth:.2g} %. With probability {number(wall['silent'][-2])} "
            f"all of {BATCH} pathwise samples are exactly 0 at κ = {wall['values'][-1]:g}.",
        ),
    )
