"""The rules of `pgjax.expectation` as candidates."""

from typing import Any

import jax

from pgjax import expectation as ex
from pgjax.certify.candidates.action_critics import SHARE, TEMPERATURE
from pgjax.certify.candidates.arguments import FINITE
from pgjax.certify.candidates.candidate import Candidate

Array = jax.Array


def rule_candidates() -> list[Candidate]:
    """List the rules.

    Returns:
        The candidates.
    """
    return [*_score_function(), *_pathwise(), *_relaxed(), *_comparing()]


def _score_function() -> list[Candidate]:
    williams = "Williams (1992)"
    return [
        Candidate("score function", ex.score_function, reference=williams),
        Candidate(
            "score function, mean as baseline", ex.score_function,
            lambda p, noise: {"baseline": p.objective}, reference=williams,
        ),
        Candidate(
            "score function, leave-one-out of 2", ex.score_leave_one_out,
            lambda p, noise: {"num_samples": 2}, reference="Kool et al. (2019)",
        ),
        Candidate("DiCE", ex.dice, reference="Foerster et al. (2018)"),
        Candidate("enumerated", ex.enumerated, needs=(FINITE,), reference="Allen et al. (2017)"),
    ]  # fmt: skip


def _pathwise() -> list[Candidate]:
    smooth = ("smooth samples",)
    return [
        Candidate("pathwise", ex.pathwise, needs=smooth, reference="Kingma and Welling (2014)"),
        Candidate(
            "Gauss-Hermite quadrature, 24 nodes", ex.quadrature, lambda p, noise: {"num_nodes": 24},
            needs=smooth, reference="Golub and Welsch (1969)",
        ),
        Candidate(
            "quadratic at the mean", ex.quadratic, claim=None, needs=smooth, reference="Ciosek and Whiteson (2018)",
        ),
        *(_taylor("Taylor, score function", ex.taylor, order, "Gu et al. (2016)") for order in (1, 2)),
        *(_taylor("Taylor, pathwise", ex.taylor_pathwise, order, "Miller et al. (2017)") for order in (1, 2)),
        Candidate("at the mode", ex.at_mode, claim=None, needs=smooth, reference="Silver et al. (2014)"),
    ]  # fmt: skip


def _taylor(name: str, method: ex.Rule, order: int, reference: str) -> Candidate:
    def options(problem: Any, noise: Any) -> dict[str, Any]:
        return {"order": order}

    return Candidate(f"{name}, order {order}", method, options, needs=("normal samples",), reference=reference)


def _relaxed() -> list[Candidate]:
    soft = ("relaxed samples", "soft samples")
    return [
        Candidate("REBAR", ex.rebar, needs=soft, reference="Tucker et al. (2017)"),
        Candidate(
            "RELAX, interpolating control variate", ex.relax,
            lambda p, noise: {"control": _interpolated(p)}, needs=(*soft, FINITE), reference="Grathwohl et al. (2018)",
        ),
        Candidate("Gumbel-softmax", ex.gumbel_softmax, claim=None, needs=soft, reference="Jang et al. (2017)"),
        Candidate(
            "straight-through", ex.straight_through, claim=None, needs=soft,
            reference="Bengio, Léonard and Courville (2013)",
        ),
    ]  # fmt: skip


def _comparing() -> list[Candidate]:
    bits, kool = ("yes-or-no actions",), "Kool et al. (2020)"
    antithetic = "Hammersley and Morton (1956)"
    return [
        Candidate("measure-valued", ex.measure_valued, reference="Pflug (1989)"),
        Candidate("ARM", ex.arm, needs=bits, reference="Yin and Zhou (2019)"),
        Candidate("DisARM", ex.disarm, needs=bits, reference="Dong et al. (2020)"),
        Candidate(
            "one action summed, one sampled", ex.sum_and_sample, lambda p, noise: {"top": 1},
            needs=(FINITE,), reference="Liu et al. (2019)",
        ),
        Candidate(
            "unordered set of 2", ex.unordered_set, lambda p, noise: {"num_samples": 2},
            needs=(FINITE,), reference=kool,
        ),
        Candidate(
            "ReinMax, temperature 1/2", ex.reinmax, lambda p, noise: {"temperature": 0.5}, claim=None,
            needs=("relaxed samples", "soft samples"), reference="Liu et al. (2023)",
        ),
        Candidate("mirrored score function", ex.mirrored(ex.score_function), reference=antithetic),
        Candidate(
            "mirrored pathwise", ex.mirrored(ex.pathwise), needs=("smooth samples",), reference=antithetic,
        ),
    ]  # fmt: skip


def _interpolated(problem: Any) -> Any:
    """f at the actions, interpolated with the softened sample as weights, halfway to its mean."""

    def control(z: Array) -> Array:
        soft = problem.distribution(problem.params).replace(logits=z / TEMPERATURE)
        between = ex.enumerated.given({}, soft, lambda action: problem.f(problem.params, action))
        return problem.objective + SHARE * (between - problem.objective)

    return control
