"""Certify every estimator and every rule of the library on every problem of the suite: bias, variance, cost, meaning.

Writes certificates.json, certificates.md, which_estimator.md and five figures. With --docs the pages and the figures
of the documentation are written anew as well. With --fast a few candidates and problems, in seconds: what a test runs.
"""

import argparse
import dataclasses
import functools
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from certificates_figures import draw_all
from certificates_page import page
from common import quick_to_compile, setting, use_quick_code_generators, write_json
from which_estimator import page as page_of_choice

from pgjax import exact

# What the figures compare, with the name that they show.
COMPARED = {
    "likelihood ratio": "likelihood ratio",
    "REINFORCE": "REINFORCE",
    "REINFORCE, leave-one-out": "leave-one-out",
    "REINFORCE, value baseline": "value baseline",
    "actor-critic λ=0.95, exact value": "GAE λ=0.95",
    "actor-critic λ=0, wrong value": "GAE λ=0, wrong value",
}
FEW = ("REINFORCE", "actor-critic λ=0, wrong value")
BESIDE = ("REINFORCE without γ^t", "REINFORCE, mean with self", "PPO, first step, standardised")


TIMED = ("two_state", "two_state, other data", "scalar_lqr")


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is measured."""

    problems: tuple[str, ...]
    steps: int  # of the figures
    cost_batch: int
    timed: tuple[str, ...]  # the problems on which the time is measured: it differs little between those of one kind
    lams: tuple[float, ...]
    sizes: tuple[int, ...]
    chunks: int
    columns: int
    batch: int
    compared: tuple[str, ...]  # in the figures
    everything: bool  # certify every candidate, or those that the figures compare alone


FULL = Size(
    tuple(exact.certificate_problems()), 10, 1024, TIMED, (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0),
    (2, 8, 32, 128, 512, 2048), 64, 4096, 4096, tuple(COMPARED), True,
)  # fmt: skip
FAST = Size(
    ("softmax_bandit", "Bernoulli", "two_state, endless"),
    1,
    8,
    ("softmax_bandit",),
    (0.0,),
    (16,),
    4,
    64,
    64,
    FEW,
    False,
)


def certify_suite(size: Size, folder: Path, *, resume: bool) -> list[exact.Certificate]:
    """Certify all that fits on each of the problems; what earlier runs have found is kept if resume is true."""
    found: list[exact.Certificate] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in size.problems:
        start = time.perf_counter()
        path = folder / f"{name}.pickle"
        known: list[exact.Certificate] = pickle.loads(path.read_bytes()) if resume and path.exists() else []
        problem = exact.certificate_problems()[name]()
        endless = problem.num_steps is None and not problem.takes_rules
        fitting = [c for c in exact.registry() if c.fits(problem) and not (endless and c.pair is None)]
        if not size.everything:
            fitting = [c for c in fitting if c.is_rule or c.name in size.compared]
        fitting = [c for c in fitting if c.name not in {x.estimator for x in known}]
        cost_batch = size.cost_batch if name in size.timed else None
        new = exact.certify_all(fitting, problem, terms=True, cost_batch=cost_batch) if fitting else []
        path.write_bytes(pickle.dumps([*known, *new]))
        found += [*known, *new]
        print(f"{name}: {len(fitting)} certificates in {time.perf_counter() - start:.0f} s", flush=True)
    return found


def trade_off(size: Size) -> dict[str, Any]:
    """Bias and variance of the estimators on two_state; of GAE, for several λ and two value functions."""
    steps = 4 if size.everything else 1
    problem = exact.tabular_problem(
        f"two_state, {steps} steps", exact.two_state(), params=exact.two_state_logits(), num_steps=steps
    )
    by_name = {c.name: c for c in exact.registry()}
    points = [by_name[name] for name in (*size.compared, *(BESIDE if size.everything else ()))]
    critic = by_name["actor-critic λ=0, exact value"].estimator

    def swept(lam: float, wrong: bool) -> exact.Candidate:
        def arguments(p: Any, t: Any) -> dict[str, Any]:
            value = p.erring_value if wrong else p.value
            return {"lam": lam, "value": value, "step_weight": problem.discount**t.step}

        return exact.Candidate(f"λ={lam:g}, {'wrong' if wrong else 'exact'}", critic, arguments, claim=None)

    curves = [swept(lam, wrong) for wrong in (False, True) for lam in size.lams]
    found = [[c.relative_bias, c.trace] for c in exact.certify_all([*points, *curves], problem)]
    curve = found[len(points) :]
    return {
        "problem": problem.name,
        "lams": [[lam, lam] for lam in size.lams],
        "exact value": curve[: len(size.lams)],
        "wrong value": curve[len(size.lams) :],
        **{candidate.name: [point] for candidate, point in zip(points, found, strict=False)},
    }


def figure_problem(size: Size) -> exact.TabularProblem:
    """The problem of the figures about batches."""
    with jax.enable_x64(True):
        return exact.tabular_problem(f"garnet8x3, {size.steps} steps", exact.garnet8x3(), num_steps=size.steps)


def estimates(key: jax.Array, *, problem: Any, candidates: list[Any], size: int, columns: int) -> list[jax.Array]:
    """Estimates (ascent) of each candidate from batches of one size, [columns / size, P], on the same rollout."""
    batch = exact.sample_trajectories(key, problem, max(columns, size))
    grouped = jax.tree.map(lambda x: x.reshape(len(x), -1, size, *x.shape[2:]), batch)
    # A gradient of -J comes out: its opposite is compared.
    return jax.vmap(lambda group: [-c.call(problem, group) for c in candidates], in_axes=1)(grouped)


def by_batch(size: Size, problem: Any) -> dict[str, Any]:
    """Roll out batches of each size and say how the estimates from them scatter, and where they point.

    All estimators see the same trajectories.
    """
    by_name = {c.name: c for c in exact.registry()}
    compared = [by_name[name] for name in size.compared]
    gradient = np.asarray(problem.direction())
    traces: dict[str, list[float]] = {name: [] for name in size.compared}
    cosines: dict[str, list[float]] = {name: [] for name in size.compared}
    with jax.enable_x64(True):
        for batch in size.sizes:
            keys = jax.random.split(jax.random.key(batch), size.chunks)
            estimate = functools.partial(
                estimates, problem=problem, candidates=compared, size=batch, columns=size.columns
            )
            found = jax.jit(lambda keys, estimate=estimate: jax.lax.map(estimate, keys))(keys)
            for name, x in zip(size.compared, found, strict=True):
                rows = np.asarray(x).reshape(-1, gradient.size)
                traces[name].append(float(rows.var(0, ddof=1).sum()))
                norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(gradient)
                cosines[name].append(float(np.mean(rows @ gradient / np.where(norms > 0, norms, 1.0))))
        exactly = exact.certify_all([c for c in compared if c.pair is not None], problem, method="recursion")
    return {
        "problem": problem.name,
        "sizes": list(size.sizes),
        "traces": traces,
        "cosines": cosines,
        "exact_traces": {c.estimator: c.trace for c in exactly},
        "exact_cosines": {c.estimator: c.cosine for c in exactly},
    }


def per_second(size: Size, problem: Any, batches: dict[str, Any]) -> dict[str, Any]:
    """Time the rollout, and each estimator on its result; the variance that a second of both leaves."""
    with jax.enable_x64(True):
        sample = jax.jit(lambda key: exact.sample_trajectories(key, problem, size.batch))
        batch = jax.block_until_ready(sample(jax.random.key(0)))
        seconds = []
        for i in range(5):
            start = time.perf_counter()
            jax.block_until_ready(sample(jax.random.key(i)))
            seconds.append(time.perf_counter() - start)
    rollout, found = float(np.median(seconds)), {}
    for candidate in exact.registry():
        if candidate.name in size.compared:
            cost = exact.measure_cost(candidate, problem, batch)
            # The variance of the largest batch, times its size: that of one trajectory.
            one = batches["traces"][candidate.name][-1] * size.sizes[-1]
            left = one * (rollout + cost.run_seconds) / size.batch
            found[candidate.name] = {"seconds": cost.run_seconds, "variance": left}
    return {"problem": problem.name, "batch_size": size.batch, "rollout_seconds": rollout, "estimators": found}


def rule_variances(certificates: Sequence[exact.Certificate]) -> dict[str, dict[str, list[float]]]:
    """Variance and relative bias of each rule, by problem."""
    rules = [c for c in certificates if "expectation" in c.known]
    return {
        problem: {c.estimator: [c.trace, 0.0 if c.unbiased else c.relative_bias] for c in rules if c.problem == problem}
        for problem in dict.fromkeys(c.problem for c in rules)
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/certificates"), help="where to write")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figures to write anew")
    parser.add_argument("--resume", action="store_true", help="keep what is in the folder, measure what is not")
    parser.add_argument("--fast", action="store_true", help="a few problems, candidates and samples, in seconds")
    options = parser.parse_args(arguments)
    start, size = time.perf_counter(), FAST if options.fast else FULL
    use_quick_code_generators()
    if options.fast:
        quick_to_compile()
    certificates = certify_suite(size, options.out / "problems", resume=options.resume)
    balance, problem = trade_off(size), figure_problem(size)
    print(f"bias against variance: {time.perf_counter() - start:.0f} s", flush=True)
    batches = by_batch(size, problem)
    print(f"batch sizes: {time.perf_counter() - start:.0f} s", flush=True)
    figures = {
        "trade_off": balance,
        "batches": batches,
        "per_second": per_second(size, problem, batches),
        "rules": rule_variances(certificates),
    }
    rows = [c.as_dict() for c in certificates]
    write_json(options.out / "certificates.json", {"figures": figures, "certificates": rows})
    shown = {c.estimator for c in certificates}
    candidates = [c for c in exact.registry() if c.name in shown]
    references = {c.name: c.reference for c in candidates}
    needs = {c.name: c.needs or () for c in candidates}
    text = page(rows, setting(), references=references)
    choice = page_of_choice(rows, setting(), needs=needs, references=references)
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        draw_all(figures, {name: COMPARED[name] for name in size.compared}, folder / "certificates")
        (folder / "certificates.md").write_text(text)
        (folder / "which_estimator.md").write_text(choice)
    print(f"{len(certificates)} certificates in {time.perf_counter() - start:.0f} s; see {options.out}", flush=True)


if __name__ == "__main__":
    main()
