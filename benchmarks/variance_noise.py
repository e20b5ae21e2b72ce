"""How noisy and how biased estimators are that see the same keys, with intervals, and what they cost."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax.comparison import pair_statistics

EQUAL = 10  # estimates of plain REINFORCE, whose seconds all others get in the comparison at equal seconds


def processor_seconds() -> float:
    """Seconds of work: on a CPU those of all cores together, which other programs beside this one disturb least."""
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()


def draw_pairs(
    compared: dict[str, Callable[..., Any]],
    params: Any,
    reference: Any,
    *,
    num_rounds: int,
    num_pairs: int,
    dear: dict[str, int] | None = None,
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Draw pairs of all estimators on the same keys, in rounds; and time an estimate in the fastest round.

    Args:
        compared: the estimators by name.
        params: parameters of the policy.
        reference: the gradient that they are compared with.
        num_rounds: rounds, in which each estimator has its turn: what disturbs the machine disturbs all.
        num_pairs: pairs in each round.
        dear: rounds of estimators that take too long for all.

    Returns:
        What pairs of each estimator say, one after the other, in lengths of the reference: see
        `pgjax.comparison.PairStatistics`; and the seconds of one estimate.
    """
    rounds = {name: (dear or {}).get(name, num_rounds) for name in compared}
    keys = jax.random.split(jax.random.key(2), num_rounds)
    programs = {
        name: jax.jit(functools.partial(pair_statistics, estimate=estimate, num_pairs=num_pairs))
        .lower(keys[0], params, reference=reference)
        .compile()
        for name, estimate in compared.items()
    }
    square = float(jnp.sum(jnp.square(ravel_pytree(reference)[0])))
    found: dict[str, list[Any]] = {name: [] for name in compared}
    seconds = dict.fromkeys(compared, float("inf"))
    for index, key in enumerate(keys):
        for name, program in programs.items():
            if index >= rounds[name]:
                continue
            started = processor_seconds()
            found[name].append(jax.block_until_ready(program(key, params, reference=reference)))
            spent = (processor_seconds() - started) / (2 * num_pairs)
            seconds[name] = min(seconds[name], spent)
    together = {}
    for name, parts in found.items():
        pairs = jax.tree.map(lambda *x: np.concatenate(x).astype(np.float64), *parts)
        together[name] = {
            "cosine": pairs.reference_cosine,
            "signal": pairs.signal / square,
            "variance": pairs.variance / square,
            "along": pairs.projection,
        }
    return together, seconds


def figures(
    pairs: dict[str, np.ndarray], plain: dict[str, np.ndarray], *, cost: float, error: float
) -> dict[str, list[float]]:
    """Figures of one estimator beside plain REINFORCE on the same keys, each with its 95 % bootstrap interval.

    At equal seconds there is no cosine, NaN, where a single estimate takes longer.

    Args:
        pairs: of the estimator, from `draw_pairs`.
        plain: of REINFORCE, at least as many.
        cost: the seconds of an estimate by those of REINFORCE.
        error: relative error of the reference: its square is no bias, and a bias below it cannot be seen.
    """
    count = len(pairs["variance"])
    drawn = np.random.default_rng(0).integers(count, size=(2000, count))

    def of(index: np.ndarray) -> dict[str, np.ndarray]:
        mean = {name: x[index].mean(-1) for name, x in pairs.items()}
        relative = mean["variance"] / plain["variance"][index].mean(-1)
        squared = mean["signal"] - 2 * mean["along"] + 1.0
        # What the estimate of |E g|² lacks by noise: it is at least the square of its part along the reference.
        signal = np.maximum(mean["signal"], np.square(mean["along"]))
        length = np.sqrt(signal + mean["variance"] * cost / EQUAL)
        return {
            "variance": relative,
            "variance_per_second": relative * cost,
            "cosine": mean["cosine"],
            "cosine_equal_seconds": np.divide(mean["along"], length, out=np.zeros_like(length), where=length > 0)
            if cost <= EQUAL
            else np.full_like(length, np.nan),
            "bias": np.sqrt(np.maximum(squared - error**2, 0.0)),
        }

    point, spread = of(np.arange(count)), of(drawn)
    ends = {name: np.percentile(x, [2.5, 97.5]) for name, x in spread.items()}
    ends["bias"][1] = np.hypot(ends["bias"][1], error)
    return {name: [float(x), *map(float, ends[name])] for name, x in point.items()}


def with_figures(result: dict[str, Any]) -> dict[str, Any]:
    """Give the result of one environment the figures of its estimators, in place of the pairs that they come from."""
    pairs = {name: {key: np.array(x) for key, x in each.items()} for name, each in result["pairs"].items()}
    plain, seconds = pairs["REINFORCE"], result["seconds"]
    rows = {
        name: {
            **figures(x, plain, cost=seconds[name] / seconds["REINFORCE"], error=result["reference_error"]),
            "seconds": seconds[name],
            "num_pairs": len(x["variance"]),
            "largest_pair": float(x["variance"].max() / x["variance"].sum()),
        }
        for name, x in pairs.items()
    }
    return {**{key: x for key, x in result.items() if key not in {"pairs", "seconds"}}, "rows": rows}
