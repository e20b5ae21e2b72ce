"""Control variates for a yes-or-no choice, and all other estimators of the library for one."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import COLOURS, save

from papers._form import Finding, gradients, legend_below, moments, number, panels, verdicts
from pgjax import expectation
from pgjax.distributions import Bernoulli
from pgjax.expectation import bind, control_gradient, nodes

TITLE = "REBAR, RELAX and the other estimators for a yes-or-no choice"
REFERENCE = (
    "Tucker, Mnih, Maddison, Lawson and Sohl-Dickstein (2017), *REBAR: low-variance, unbiased gradient estimates for "
    "discrete latent variable models*; Grathwohl, Choi, Wu, Roeder and Duvenaud (2018), *Backpropagation through the "
    "void: optimizing control variates for black-box gradient estimation*; for DisARM Dong, Mnih and Tucker (2020)."
)
CLAIM = (
    "Minimising E (x − t)², x ~ Bernoulli(σ(θ)), by one sample a step: REBAR lowers the variance of the score function "
    "at t = 0.45, where the biased Gumbel-softmax does not reach the minimum. At t = 0.499, where f tells the two "
    "actions apart by 0.002 only but is curved between them, f itself is a poor control variate, and the learned one "
    "of RELAX has less variance and learns faster. One sample is drawn in each step (leave-one-out: two); Adam with "
    "rate 0.01, for θ and for what a control variate is made of."
)
TARGETS = (0.45, 0.499)
APART = -1.0  # where variances at one and the same θ are compared: at 0 both samples of DisARM always differ
FLOOR = 1e-12  # variances below it are drawn as it


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    seeds: int
    records: int
    steps: int  # between two records
    nodes: int  # for a uniform number


FULL, FAST = Size(16, 30, 100, 48), Size(2, 2, 5, 8)


@dataclasses.dataclass(frozen=True)
class Method:
    """A rule, and what it has to learn."""

    rule: Any
    control: Any = None  # the initial values, a pytree; None if there is nothing to learn
    options: Callable[[Any], dict[str, Any]] = lambda control: {}
    biased: bool = False


def _network(weights: Any, z: Any) -> Any:
    """One hidden layer of ten tanh units, of a relaxed sample."""
    hidden = jnp.tanh(z @ weights["in"] + weights["shift"])
    return hidden @ weights["out"]


def _weights() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).normal
    return {"in": draw(size=(1, 10)), "shift": draw(size=10), "out": 0.1 * draw(size=10)}


def methods() -> dict[str, Method]:
    """Every rule of the library that takes a Bernoulli and one or two samples."""
    e = expectation
    start = {"scale": np.ones(()), "temperature": np.log(0.5)}
    return {
        "score function": Method(e.score_function),
        "score function, learned baseline": Method(e.score_function, np.zeros(()), lambda c: {"baseline": c}),
        "leave-one-out, 2 samples": Method(e.score_leave_one_out.using(num_samples=2)),
        "REBAR": Method(e.rebar, start, lambda c: {"scale": c["scale"], "temperature": jnp.exp(c["temperature"])}),
        "RELAX": Method(e.relax, _weights(), lambda c: {"control": bind(_network, c)}),
        "ARM": Method(e.arm),
        "DisARM": Method(e.disarm),
        "ReinMax": Method(e.reinmax),  # its mean is exact for a quadratic f
        "measure-valued (exact)": Method(e.measure_valued),
        "Gumbel-softmax": Method(e.gumbel_softmax.using(temperature=0.5), biased=True),
        "straight-through": Method(e.straight_through.using(temperature=0.5), biased=True),
    }


def measure(size: Size) -> dict[str, Any]:
    """Train by each method; and train each control variate alone, θ staying where it is."""
    loss, variance, apart, mean = {}, {}, {}, {}
    with jax.enable_x64(True):
        keys, targets = jax.random.split(jax.random.key(0), size.seeds), jnp.asarray(TARGETS)
        for name, method in methods().items():
            run = functools.partial(_train, method=method, size=size, listed=_nodes(method, size.nodes))
            program = jax.jit(jax.vmap(jax.vmap(run, (0, None, None, None)), (None, 0, None, None)))
            p, v, _ = (np.asarray(x) for x in program(keys, targets, 1.0, 0.0))  # [targets, seeds, records]
            t = np.array(TARGETS)[:, None, None]
            loss[name] = np.mean((1.0 - p) * t**2 + p * (1.0 - t) ** 2, axis=1).tolist()
            variance[name] = (10.0 ** np.mean(np.log10(np.maximum(v, FLOOR)), axis=1)).tolist()
            _, v, m = (np.asarray(x)[..., -1].mean(1) for x in program(keys, targets, 0.0, APART))
            apart[name], mean[name] = v.tolist(), m.tolist()
    return {
        "targets": list(TARGETS), "steps": (size.steps * np.arange(size.records + 1)).tolist(), "seeds": size.seeds,
        "loss": loss, "variance": variance, "variance_apart": apart, "mean_apart": mean,
        "biased": [name for name, method in methods().items() if method.biased],
    }  # fmt: skip


def _nodes(method: Method, number: int) -> tuple[Any, np.ndarray]:
    """Noise and weights at probability one half; `_tilted` makes of the weights those for another probability."""
    if "u" in method.rule.laws and len(method.rule.laws) == 1 and method.rule.name != "gumbel_softmax":
        n = 32 * number  # the samples of ARM jump with u, at places that depend on the probability
        return {"u": (np.arange(n)[:, None] + 0.5) / n}, np.full(n, 1.0 / n)
    return nodes(method.rule, Bernoulli(jnp.zeros(1)), size={law: number for law in method.rule.laws if law in "uv"})


def _tilted(noise: Any, weights: Any, p: Any) -> Any:
    if "x" not in noise:
        return jnp.asarray(weights)
    action = jnp.asarray(noise["x"].action).reshape(len(weights), -1)
    return weights * jnp.prod(2.0 * jnp.where(action == 1, p, 1.0 - p), axis=1)


def _train(key: Any, target: Any, rate: Any, begin: Any, *, method: Method, size: Size, listed: Any) -> Any:
    """At each record the probability of 1, the exact variance of the estimate and its exact mean."""
    noise, weights = listed
    optimizer = optax.adam(0.01)

    def cost(action: Any) -> Any:
        return jnp.square(action[..., 0] - target)

    def step(state: Any, key: Any) -> Any:
        (logit, control), optimizer_state = state
        drawn = method.rule.draw(key, Bernoulli(logit))

        def surrogate(logit: Any, control: Any) -> Any:
            return method.rule.given(drawn, Bernoulli(logit), cost, **method.options(control))

        if method.control is None:
            grads = jax.grad(surrogate)(logit, control), control
        else:
            grads = control_gradient(surrogate)(logit, control)
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        updates = rate * updates[0], updates[1]
        return (optax.apply_updates((logit, control), updates), optimizer_state), None

    def record(state: Any, key: Any) -> Any:
        (logit, control), _ = state
        rule, p = method.rule.using(**method.options(control)), jax.nn.sigmoid(logit[0])
        estimates = gradients(rule, noise, Bernoulli, cost, logit)[:, 0]
        mean, variance = moments(estimates, _tilted(noise, weights, p))
        state, _ = jax.lax.scan(step, state, jax.random.split(key, size.steps))
        return state, (p, variance, mean)

    start = (jnp.full(1, begin), jax.tree.map(jnp.asarray, method.control))
    return jax.lax.scan(record, (start, optimizer.init(start)), jax.random.split(key, size.records + 1))[1]


def _look(figures: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Colour and line of each method: dashes for the biased ones, dots where colours come again."""
    unbiased = [name for name in figures["loss"] if name not in figures["biased"]]
    look = {name: (COLOURS[i % 7], ("-", ":")[i // 7]) for i, name in enumerate(unbiased)}
    return look | {name: (COLOURS[i], "--") for i, name in enumerate(figures["biased"])}


def draw(figures: dict[str, Any], path: Path) -> None:
    """A row for each target: loss and variance along the training, and the variance at one place."""
    figure, grid = panels(len(figures["targets"]), 3, width=4.4, height=3.4)
    look = _look(figures)
    for i, (target, row) in enumerate(zip(figures["targets"], grid, strict=True)):
        for name, (colour, line) in look.items():
            for panel, what in ((row[0], "loss"), (row[1], "variance")):
                y = figures[what][name][i]
                panel.plot(figures["steps"], y, line, color=colour, linewidth=1.7, label=name)
        row[0].axhline(target**2, color="0.6", linewidth=0.8)
        row[0].annotate("minimum", (0, target**2), (2, 3), textcoords="offset points", color="0.4", fontsize=8)
        row[0].set(xlabel="step", ylabel="exact loss, mean over seeds", title=f"t = {target:g}: loss")
        row[1].set(yscale="log", xlabel="step", ylabel="exact variance, geometric mean", title=f"t = {target:g}: variance")
        at = {name: max(figures["variance_apart"][name][i], FLOOR) for name in look}
        order = sorted(look, key=lambda name, at=at: -at[name])
        row[2].barh(order, [at[name] for name in order], color=[look[name][0] for name in order], height=0.62)
        row[2].set_yticks(range(len(order)), [n + (" (biased)" if n in figures["biased"] else "") for n in order])
        row[2].tick_params(axis="y", labelsize=8)
        row[2].grid(axis="y", visible=False)
        row[2].set(xscale="log", xlabel=f"exact variance (at most {FLOOR:g}: none)", title=f"t = {target:g}: at θ = {APART:g}")
    legend_below(figure, grid[0, 0], 4)
    save(figure, path)


def verdict(figures: dict[str, Any]) -> str:
    """Compare variances at the same θ, and losses at the end and on the way."""
    first, second = (figures["targets"].index(t) for t in TARGETS)
    at, loss, biased = figures["variance_apart"], figures["loss"], figures["biased"]
    gap = {
        name: [(x[i][-1] - t**2) / (0.5 - t) for i, t in enumerate(figures["targets"])] for name, x in loss.items()
    }  # that of a fair coin is 1
    unbiased = {name: rows[first] for name, rows in gap.items() if name not in biased}
    slowest = max(unbiased, key=lambda name: unbiased[name])
    reduced = at["score function"][first] / at["REBAR"][first]
    ratio = at["REBAR"][second] / at["RELAX"][second]
    mean = {name: float(np.mean(loss[name][second])) - TARGETS[1] ** 2 for name in ("REBAR", "RELAX")}
    pair = [at["ARM"][i] / at["DisARM"][i] for i in range(len(figures["targets"]))]
    p = 1.0 / (1.0 + np.exp(-APART))
    slope = [p * (1.0 - p) * (1.0 - 2.0 * t) for t in figures["targets"]]
    off = {n: max(abs(m[i] / s - 1.0) for i, s in enumerate(slope)) for n, m in figures["mean_apart"].items()}
    wrong = max((n for n in off if n not in biased), key=lambda n: off[n])
    return verdicts(
        Finding(
            "REBAR, RELAX and the others that claim it are unbiased.",
            off[wrong] < 0.01,
            f"the mean of {wrong} at θ = {APART:g} is off by {100.0 * off[wrong]:.2g} %, the most of these; Gumbel-softmax by "
            f"{100.0 * off['Gumbel-softmax']:.0f} %, straight-through by {100.0 * off['straight-through']:.0f} %.",
        ),
        Finding(
            "At t = 0.45 REBAR lowers the variance of the score function.",
            reduced > 1.0,
            f"{number(reduced)} times less at θ = {APART:g}, with trained scale and temperature.",
        ),
        Finding(
            "At t = 0.45 the unbiased estimators reach the minimum and Gumbel-softmax does not.",
            unbiased[slowest] < 0.1 and gap["Gumbel-softmax"][first] > 0.5,
            f"of the distance from a fair coin to the minimum {100.0 * unbiased[slowest]:.2g} % are left to the slowest "
            f"unbiased one, {slowest}, and {100.0 * gap['Gumbel-softmax'][first]:.0f} % to Gumbel-softmax.",
        ),
        Finding(
            "At t = 0.499 the learned control variate of RELAX has less variance than REBAR.",
            ratio > 1.0,
            f"REBAR has {number(ratio)} times the variance of RELAX at θ = {APART:g}, both trained there.",
        ),
        Finding(
            "At t = 0.499 RELAX learns faster than REBAR.",
            mean["RELAX"] < mean["REBAR"],
            f"over {figures['steps'][-1]} steps its loss is {number(mean['RELAX'])} above the minimum in the mean, "
            f"that of REBAR {number(mean['REBAR'])}.",
        ),
        Finding(
            "DisARM has less variance than ARM.",
            min(pair) > 1.0,
            f"ARM has {' and '.join(map(number, pair))} times its variance at θ = {APART:g}.",
        ),
    )
