"""Certify every estimator of the library on every problem of the suite: bias, variance, cost, and what they mean.

Writes certificates.json, certificates.md and four figures. With --docs the page and the figures of the documentation
are written anew as well.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from certificates_figures import draw_all
from certificates_page import page
from common import setting, write_json

from pgjax import exact

FAST_PROBLEMS = ("two_state", "alias_discount", "two_state, other data", "softmax_bandit", "two_state, endless")

# What the figures compare, with the name that they show.
COMPARED = {
    "likelihood ratio": "likelihood ratio",
    "REINFORCE": "REINFORCE",
    "REINFORCE, leave-one-out": "leave-one-out",
    "REINFORCE, value baseline": "value baseline",
    "actor-critic λ=0.95, exact value": "GAE λ=0.95",
    "actor-critic λ=0, wrong value": "GAE λ=0, wrong value",
}


def certify_suite(names: list[str], cost_batch: int | None) -> list[exact.Certificate]:
    """Certify all that fits on each of the problems."""
    found: list[exact.Certificate] = []
    for name in names:
        start = time.perf_counter()
        problem = exact.certificate_problems()[name]()
        endless = problem.num_steps is None
        fitting = [c for c in exact.registry() if c.fits(problem) and not (endless and c.pair is None)]
        found += exact.certify_all(fitting, problem, terms=True, cost_batch=cost_batch)
        print(f"{name}: {len(fitting)} certificates in {time.perf_counter() - start:.0f} s", flush=True)
    return found


def trade_off(lams: list[float]) -> dict[str, list[list[float]]]:
    """Bias and variance of the estimators on two_state with 4 steps; of GAE, for several λ and two value functions."""
    problem = exact.certificate_problems()["two_state"]()
    by_name = {c.name: c for c in exact.registry()}
    points = {c.estimator: c for c in exact.certify_all([c for c in by_name.values() if c.fits(problem)], problem)}
    critic = by_name["actor-critic λ=0, exact value"].estimator
    swept = []
    for wrong in (False, True):
        for lam in lams:
            arguments = lambda p, t, lam=lam, wrong=wrong: {  # noqa: E731
                "lam": lam,
                "value": p.erring_value if wrong else p.value,
                "step_weight": problem.discount**t.step,
            }
            swept.append(exact.Candidate(f"λ={lam:g}", critic, arguments, claim=None))
    curve = [[c.relative_bias, c.trace] for c in exact.certify_all(swept, problem)]
    return {
        "lams": [[lam, lam] for lam in lams],
        "exact value": curve[: len(lams)],
        "wrong value": curve[len(lams) :],
        **{name: [[c.relative_bias, c.trace]] for name, c in points.items()},
    }


def estimates(key: jax.Array, *, problem: Any, candidates: list[Any], size: int, columns: int) -> list[jax.Array]:
    """Estimates (ascent) of each candidate from batches of one size, [columns / size, P], on the same rollout."""
    batch = exact.sample_trajectories(key, problem, max(columns, size))
    grouped = jax.tree.map(lambda x: x.reshape(len(x), -1, size, *x.shape[2:]), batch)
    # A gradient of -J comes out: its opposite is compared.
    return jax.vmap(lambda group: [-c.call(problem, group) for c in candidates], in_axes=1)(grouped)


def by_batch(sizes: list[int], chunks: int, columns: int) -> dict[str, Any]:
    """Roll out batches of each size and say how the estimates from them scatter, and where they point.

    All estimators see the same trajectories.
    """
    with jax.enable_x64(True):
        problem = exact.tabular_problem("garnet8x3, 10 steps", exact.garnet8x3(), num_steps=10)
    by_name = {c.name: c for c in exact.registry()}
    compared = [by_name[name] for name in COMPARED]
    gradient = np.asarray(problem.direction())
    traces: dict[str, list[float]] = {name: [] for name in COMPARED}
    cosines: dict[str, list[float]] = {name: [] for name in COMPARED}
    with jax.enable_x64(True):
        for size in sizes:
            keys = jax.random.split(jax.random.key(size), chunks)
            estimate = functools.partial(estimates, problem=problem, candidates=compared, size=size, columns=columns)
            found = jax.jit(lambda keys, estimate=estimate: jax.lax.map(estimate, keys))(keys)
            for name, x in zip(COMPARED, found, strict=True):
                rows = np.asarray(x).reshape(-1, gradient.size)
                traces[name].append(float(rows.var(0, ddof=1).sum()))
                norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(gradient)
                cosines[name].append(float(np.mean(rows @ gradient / np.where(norms > 0, norms, 1.0))))
        exactly = exact.certify_all([c for c in compared if c.pair is not None], problem, method="recursion")
    lines = {c.estimator: c.trace for c in exactly}
    limits = {c.estimator: c.cosine for c in exactly}
    return {"sizes": sizes, "traces": traces, "cosines": cosines, "exact_traces": lines, "exact_cosines": limits}


def per_second(batch_size: int, trace_of: dict[str, list[float]], sizes: list[int]) -> dict[str, Any]:
    """Time the rollout, and each estimator on its result; the variance that a second of both leaves."""
    with jax.enable_x64(True):
        problem = exact.tabular_problem("garnet8x3, 10 steps", exact.garnet8x3(), num_steps=10)
        sample = jax.jit(lambda key: exact.sample_trajectories(key, problem, batch_size))
        batch = jax.block_until_ready(sample(jax.random.key(0)))
        seconds = []
        for i in range(5):
            start = time.perf_counter()
            jax.block_until_ready(sample(jax.random.key(i)))
            seconds.append(time.perf_counter() - start)
    rollout = float(np.median(seconds))
    by_name = {c.name: c for c in exact.registry()}
    found = {}
    for name in COMPARED:
        cost = exact.measure_cost(by_name[name], problem, batch)
        # The variance of the largest batch, times its size: that of one trajectory.
        found[name] = {
            "seconds": cost.run_seconds,
            "variance": trace_of[name][-1] * sizes[-1] * (rollout + cost.run_seconds) / batch_size,
        }
    return {"batch_size": batch_size, "rollout_seconds": rollout, "estimators": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/certificates"), help="where to write")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figures to write anew")
    parser.add_argument("--fast", action="store_true", help="a few problems, small samples, no cost in the table")
    arguments = parser.parse_args()
    start = time.perf_counter()
    names = list(FAST_PROBLEMS) if arguments.fast else list(exact.certificate_problems())
    certificates = certify_suite(names, None if arguments.fast else 1024)
    balance = trade_off([0.0, 1.0] if arguments.fast else [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0])
    print(f"bias against variance: {time.perf_counter() - start:.0f} s", flush=True)
    sizes = [2, 16, 128] if arguments.fast else [2, 8, 32, 128, 512, 2048]
    batches = by_batch(sizes, 8 if arguments.fast else 64, 1024 if arguments.fast else 4096)
    print(f"batch sizes: {time.perf_counter() - start:.0f} s", flush=True)
    speed = per_second(256 if arguments.fast else 4096, batches["traces"], sizes)
    figures = {"trade_off": balance, "batches": batches, "per_second": speed}
    write_json(
        arguments.out / "certificates.json",
        {"figures": figures, "certificates": [c.as_dict() for c in certificates]},
    )
    text = page(certificates, setting(), registry=exact.registry())
    for folder in [arguments.out, *([arguments.docs] if arguments.docs else [])]:
        draw_all(figures, COMPARED, folder / "certificates")
        (folder / "certificates.md").write_text(text)
    print(f"{len(certificates)} certificates in {time.perf_counter() - start:.0f} s; see {arguments.out}", flush=True)


if __name__ == "__main__":
    main()
