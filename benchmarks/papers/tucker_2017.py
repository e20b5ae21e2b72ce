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
    "Minimising E (x − t)², x ~ Bernoulli(σ(θ)), by one sample a step: REBAR is unbiased and of low variance, and at "
    "t = 0.45 only unbiased estimators reach the minimum. At t = 0.499, where f tells the two actions apart by 0.002 "
    "only but is curved between them, f itself is a poor control variate, and the learned one of RELAX has less "
    "variance and learns faster. One sample is drawn in each step (leave-one-out: two); Adam with rate 0.01, for θ and "
    "for what a control variate is made of. One choice between two is a special case: there the best constant baseline "
    "leaves no variance at all, so that nothing can be better than a learned baseline once it is learned."
)
TARGETS = (0.45, 0.499)
APART = -1.0  # where variances at one and the same θ are compared: at 0 both samples of DisARM always differ
FLOOR = 1e-10  # variances below it count as none
PLAIN = 0.0  # a target at which f rises from one action to the other without a dip


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    seeds: int
    records: int
    steps: int  # between two records
    nodes: int  # for a uniform number
    few: bool = False  # the methods that the papers are about alone


FULL, FAST = Size(16, 50, 100, 40), Size(2, 2, 5, 8, True)
FEW = ("score function", "REBAR", "RELAX", "ARM", "DisARM", "Gumbel-softmax")


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
    chosen = {name: method for name, method in methods().items() if name in FEW or not size.few}
    with jax.enable_x64(True):
        keys, targets = jax.random.split(jax.random.key(0), size.seeds), jnp.asarray([*TARGETS, PLAIN])
        for name, method in chosen.items():
            run = functools.partial(_train, method=method, size=size)
            listed = jax.tree.map(jnp.asarray, _nodes(method, size.nodes))
            program = jax.jit(jax.vmap(jax.vmap(run, (0, None, None, None, None)), (None, 0, None, None, None)))
            p, v = (np.asarray(x) for x in program(keys, targets, 1.0, 0.0, listed)[:2])  # [targets, seeds, records]
            t = np.asarray(targets)[:, None, None]
            loss[name] = np.mean((1.0 - p) * t**2 + p * (1.0 - t) ** 2, axis=1).tolist()
            variance[name] = (10.0 ** np.mean(np.log10(np.maximum(v, FLOOR)), axis=1)).tolist()
            _, v, m, control = program(keys, targets, 0.0, APART, listed)
            v, m = (np.asarray(x)[..., -1].mean(1) for x in (v, m))
            apart[name], mean[name] = v.tolist(), m.tolist()
            if name == "REBAR":
                scale = np.asarray(control["scale"])[..., -1].mean(1).tolist()
    return {
        "targets": [*TARGETS, PLAIN], "steps": (size.steps * np.arange(size.records + 1)).tolist(), "seeds": size.seeds,
        "loss": loss, "variance": variance, "variance_apart": apart, "mean_apart": mean, "scale": scale,
        "biased": [name for name, method in chosen.items() if method.biased],
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


def _train(key: Any, target: Any, rate: Any, begin: Any, listed: Any, *, method: Method, size: Size) -> Any:
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
        return state, (p, variance, mean, control)

    start = (jnp.full(1, begin), jax.tree.map(jnp.asarray, method.control))
    return jax.lax.scan(record, (start, optimizer.init(start)), jax.random.split(key, size.records + 1))[1]


def _look(figures: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Colour and line of each method: dashes for the biased ones, dots where colours come again."""
    unbiased = [name for name in figures["loss"] if name not in figures["biased"]]
    look = {name: (COLOURS[i % 7], ("-", ":")[i // 7]) for i, name in enumerate(unbiased)}
    return look | {name: (COLOURS[i], "--") for i, name in enumerate(figures["biased"])}


def draw(figures: dict[str, Any], path: Path) -> None:
    """A row for each target: loss and variance along the training, and the variance at one place."""
    figure, grid = panels(len(TARGETS), 3, width=4.4, height=3.5)
    look, biased = _look(figures), figures["biased"]
    for i, (target, row) in enumerate(zip(TARGETS, grid, strict=True)):
        for name, (colour, line) in look.items():
            variance = [v if v > FLOOR else np.nan for v in figures["variance"][name][i]]
            for panel, y in ((row[0], figures["loss"][name][i]), (row[1], variance)):
                label = name + (" (biased)" if name in biased else "")
                panel.plot(figures["steps"], y, line, color=colour, linewidth=1.7, label=label)
        row[0].axhline(target**2, color="0.6", linewidth=0.8)
        row[0].annotate(
            "minimum", (figures["steps"][-1], target**2), (0, -2), textcoords="offset points", color="0.4", fontsize=8,
            ha="right", va="top",
        )  # fmt: skip
        row[0].margins(y=0.08)
        row[0].set(xlabel="step", ylabel="exact loss, mean over seeds", title=f"t = {target:g}: loss")
        row[1].set(yscale="log", xlabel="step", ylabel="exact variance, geometric mean", ylim=(FLOOR, 0.3))
        row[1].set_title(f"t = {target:g}: variance where each has got to")
        at = {name: figures["variance_apart"][name][i] for name in look}
        names = sorted(look, key=at.__getitem__, reverse=True)
        for height, name in enumerate(names):
            none = at[name] <= FLOOR
            row[2].plot(FLOOR if none else at[name], height, "<" if none else "o", color=look[name][0], clip_on=False)
            label = "none" if none else number(at[name])
            row[2].text(max(at[name], FLOOR), height, f"  {label}", va="center", fontsize=8)
        row[2].set_yticks(range(len(names)), [name + (" (biased)" if name in biased else "") for name in names])
        row[2].tick_params(axis="y", labelsize=8)
        row[2].set(xscale="log", xlim=(FLOOR, 10.0), xlabel="exact variance of one estimate")
        row[2].set_title(f"t = {target:g}: variance at θ = {APART:g}".replace("-", "−"))
    legend_below(figure, grid[0, 0], 4)
    save(figure, path)


def _left(loss: float, target: float) -> float:
    """The share of the distance from a fair coin to the minimum that a loss has not gone."""
    return (loss - target**2) / (0.5 - target)


def verdict(figures: dict[str, Any]) -> str:
    """Compare variances at the same θ, and losses at the end and on the way."""
    first, second = (figures["targets"].index(t) for t in TARGETS)
    at, loss, biased = figures["variance_apart"], figures["loss"], figures["biased"]
    third = figures["targets"].index(PLAIN)
    gap = {name: [_left(x[i][-1], t) for i, t in enumerate(TARGETS)] for name, x in loss.items()}
    unbiased = {name: rows[first] for name, rows in gap.items() if name not in biased}
    closest = min(biased, key=lambda name: gap[name][first])
    slowest = max(unbiased, key=lambda name: unbiased[name])
    reduced = {i: at["score function"][i] / at["REBAR"][i] for i in (first, third)}
    ratio = at["REBAR"][second] / at["RELAX"][second]
    mean = {name: float(np.mean(loss[name][second])) - TARGETS[1] ** 2 for name in ("REBAR", "RELAX")}
    pair = [at["ARM"][i] / at["DisARM"][i] for i in (first, second)]
    p = 1.0 / (1.0 + np.exp(-APART))
    slope = [p * (1.0 - p) * (1.0 - 2.0 * t) for t in figures["targets"]]
    off = {n: max(abs(m[i] / s - 1.0) for i, s in enumerate(slope)) for n, m in figures["mean_apart"].items()}
    wrong = max((n for n in off if n not in biased), key=lambda n: off[n])
    return verdicts(
        Finding(
            "REBAR, RELAX and the others that claim it are unbiased.",
            off[wrong] < 0.01,
            f"the mean of {wrong} at θ = {APART:g} is off by {100.0 * off[wrong]:.2g} %, the most of these; "
            + " and ".join(f"{name} gives {number(figures['mean_apart'][name][first])}" for name in biased)
            + f" in the mean at t = {TARGETS[0]:g}, where {number(slope[first])} is right.",
        ),
        Finding(
            f"REBAR has less variance than the score function where f rises all the way between the actions, "
            f"at t = {PLAIN:g}.",
            reduced[third] > 1.05,
            f"the score function has {number(reduced[third])} times its variance at θ = {APART:g}, scale and "
            "temperature being trained there.",
        ),
        Finding(
            "The same at t = 0.45, the target of the paper.",
            reduced[first] > 1.05,
            f"there it has {number(reduced[first])} times the variance of REBAR, whose scale the training turns to "
            f"{figures['scale'][first]:.2f}. Between the two actions f dips there, which it does not at t = {PLAIN:g}.",
        ),
        Finding(
            "At t = 0.45 all the unbiased estimators come to the minimum and the biased ones do not.",
            unbiased[slowest] < 0.25 and gap[closest][first] > 0.5,
            f"of the distance from a fair coin to the minimum {100.0 * unbiased[slowest]:.2g} % are left after "
            f"{figures['steps'][-1]} steps to the slowest unbiased one, {slowest}, and "
            f"{100.0 * gap[closest][first]:.2g} % to {closest}.",
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
