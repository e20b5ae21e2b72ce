"""The searches of `pgjax.expectation` as candidates: rules on a normal distribution over the parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import expectation as ex
from pgjax.certify.candidates.candidate import Candidate
from pgjax.expectation import _probes, laws

Array = jax.Array
Call = Callable[[Any, Array, Any, Array, int], Any]  # (key, params, f, scale, number of pairs) -> what a search gives


def _no_nodes(distribution: Any, size: int | None) -> Any:
    raise TypeError("what is not smooth in the noise is not integrated by nodes: measure by sampling.")


SMOOTH = laws.many(laws.normal)
SAMPLED = dataclasses.replace(SMOOTH, name="many(normal), sampled", nodes_part=_no_nodes)
SIGNS = laws.many(laws.sign)
MEAN, BOTH, QUADRATIC = ("search of the mean",), ("search of mean and scale",), ("search of the mean", "quadratic f")


def search_candidates() -> list[Candidate]:
    """List the searches. Where one claims something for quadratic f alone, it stands here twice.

    Returns:
        The candidates.
    """
    return [*_evolution(), *_ranked(), *_differences()]


def as_rule(call: Call, law: laws.Law | None = SMOOTH) -> ex.Rule:
    """Make a rule of a search: its gradient with respect to loc, and scale, of a Normal is what the search gives.

    Shapes: noise [num_samples, P], one row for each pair.

    Args:
        call: runs the search; its result is (gradient, info), or ((gradient, gradient of the scale), info).
        law: of the perturbations; None for a search that draws nothing.

    Returns:
        The rule, whose option num_samples is the number of pairs.
    """

    def estimate(distribution: Any, f: Any, key: Any, number: int) -> Array:
        at, spread = (jax.lax.stop_gradient(x) for x in (distribution.loc, distribution.scale))
        grads, info = call(key, at, f, spread, number)
        of_loc, of_scale = grads if isinstance(grads, tuple) else (grads, jnp.zeros_like(spread))
        toward = jnp.sum(jax.lax.stop_gradient(of_loc) * distribution.loc)
        toward += jnp.sum(jax.lax.stop_gradient(of_scale) * distribution.scale)
        return jax.lax.stop_gradient(info.value) + ex.gradient_only(toward)

    if law is None:
        return ex.rule()(lambda distribution, f: estimate(distribution, f, None, 1))

    def searched(distribution: Any, f: Any, *, noise: Array, num_samples: int = 1) -> Array:
        return estimate(distribution, f, _probes.Listed(noise), num_samples)

    return ex.rule(noise=law)(searched).using(num_samples=1)


def _search(name: str, call: Call, claim: str | None, needs: tuple[str, ...], reference: str, **more: Any) -> Candidate:
    number = more.pop("num_pairs", None)
    arguments = (lambda p, noise: {}) if number is None else (lambda p, noise: {"num_samples": _count(number, p)})
    return Candidate(name, as_rule(call, **more), arguments, claim=claim, needs=needs, reference=reference)


def _count(number: Any, problem: Any) -> int:
    return number(problem) if callable(number) else number


def _strategy(**options: Any) -> Call:
    return lambda key, at, f, scale, number: ex.evolution_strategy(key, at, f, num_pairs=number, scale=scale, **options)


def _evolution() -> list[Candidate]:
    def forward(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return _strategy(antithetic=False, baseline=f(at))(key, at, f, scale, number)

    def pgpe(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return ex.pgpe(key, at, f, num_pairs=number, scale=scale)

    def pgpe_at(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return ex.pgpe(key, at, f, num_pairs=number, scale=scale, baseline=f(at))

    salimans, nesterov, sehnke = "Salimans et al. (2017)", "Nesterov and Spokoiny (2017)", "Sehnke et al. (2010)"
    return [
        _search("evolution strategy", _strategy(), "smoothed", MEAN, salimans),
        _search("evolution strategy, one-sided", _strategy(antithetic=False), "smoothed", MEAN, salimans),
        _search("evolution strategy, one-sided, f(θ) as baseline", forward, "smoothed", MEAN, nesterov),
        _search("evolution strategy, 2 pairs", _strategy(), "smoothed", MEAN, salimans, num_pairs=2),
        _search("PGPE, f(μ) as baseline", pgpe_at, "smoothed", BOTH, sehnke),
        _search("PGPE, 2 pairs, the other as baseline", pgpe, "smoothed", BOTH, sehnke, num_pairs=2),
    ]


def _ranked() -> list[Candidate]:
    """What goes by ranks has no units of f: no gradient is claimed. Ranks jump, and so nothing is integrated."""

    def ars(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return ex.ars(key, at, f, num_pairs=number, num_top=number // 2, scale=scale)

    more: dict[str, Any] = {"num_pairs": 4, "law": SAMPLED}
    return [
        _search(
            "evolution strategy, centered ranks, 4 pairs", _strategy(shaping=ex.centered_ranks), None, MEAN,
            "Salimans et al. (2017)", **more,
        ),
        _search(
            "evolution strategy, utilities of NES, 4 pairs", _strategy(shaping=ex.nes_utilities), None, MEAN,
            "Wierstra et al. (2014)", **more,
        ),
        _search("augmented random search, 2 of 4 pairs", ars, None, MEAN, "Mania, Guy and Recht (2018)", **more),
    ]  # fmt: skip


def _differences() -> list[Candidate]:
    """Differences are the gradient of f up to the square of the step, and of quadratic f the gradient itself."""

    def differences(one_sided: bool) -> Call:
        return lambda key, at, f, scale, number: ex.finite_difference(at, f, epsilon=scale, one_sided=one_sided)

    def spsa(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return ex.spsa(key, at, f, epsilon=scale, num_pairs=number)

    def regressed(key: Any, at: Array, f: Any, scale: Array, number: int) -> Any:
        return ex.regressed_difference(key, at, f, epsilon=scale, num_pairs=number)

    def determined(problem: Any) -> int:
        return jax.tree.reduce(lambda n, x: n + x.size, problem.params, 3)

    wolfowitz, spall, peters = "Kiefer and Wolfowitz (1952)", "Spall (1992)", "Peters and Schaal (2006)"
    entries: list[tuple[str, Call, str, dict[str, Any]]] = [
        ("central differences", differences(False), wolfowitz, {"law": None}),
        ("SPSA", spsa, spall, {"law": SIGNS}),
        ("regressed differences", regressed, peters, {"law": SAMPLED, "num_pairs": determined}),
    ]
    return [
        *(_search(name, call, None, MEAN, who, **more) for name, call, who, more in entries),
        *(_search(f"{name}, quadratic f", call, "plain", QUADRATIC, who, **more) for name, call, who, more in entries),
        _search("forward differences", differences(True), None, MEAN, wolfowitz, law=None),
    ]
