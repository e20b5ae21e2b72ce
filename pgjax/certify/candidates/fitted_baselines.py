"""Candidates whose baseline is fitted to returns: to those of other trajectories, or to their own as well."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Trajectory
from pgjax.baselines import (
    batch_mean,
    cross_fitted_baseline,
    grpo_advantages,
    optimal_baseline,
    step_baseline,
    time_features,
)
from pgjax.certify.candidates.arguments import WHOLE, returns, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import likelihood_ratio, optimal_baseline_gradient, reinforce, square_scores

Array = jax.Array
candidate = functools.partial(Candidate, needs=WHOLE, group_size=2)


def fitted_baseline_candidates() -> list[Candidate]:
    """List the estimators with a baseline that is fitted to returns.

    Returns:
        The candidates.
    """
    return [*_groups(), *_of_least_variance(), *_to_go()]


def _groups() -> list[Candidate]:
    def grpo(return_: Array) -> Array:
        return return_ - grpo_advantages(return_)

    return [
        candidate(
            "likelihood ratio, mean with self", likelihood_ratio, lambda p, t: {"baseline": batch_mean},
            claim=None, reference="Liu et al. (2025)",
        ),
        candidate(
            "likelihood ratio, GRPO", likelihood_ratio, lambda p, t: {"baseline": grpo},
            claim=None, reference="Shao et al. (2024)",
        ),
    ]  # fmt: skip


def _of_least_variance() -> list[Candidate]:
    def total(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        to_go = returns(problem, trajectory)
        return {"earned": jnp.broadcast_to(to_go[:1], to_go.shape)}

    def to_go(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        return {"earned": returns(problem, trajectory), **weight(problem, trajectory)}

    weaver, peters = "Weaver and Tao (2001)", "Peters and Schaal (2008)"
    return [
        candidate("best constant, leave-one-out", optimal_baseline_gradient, total, reference=weaver),
        candidate(
            "best constant, plug-in", optimal_baseline_gradient, lambda p, t: total(p, t) | {"num_folds": 1},
            claim=None, reference=weaver,
        ),
        candidate(
            "best constant, from other data", optimal_baseline_gradient,
            lambda p, t: total(p, t) | {"coefficients": jnp.asarray([p.objective])}, group_size=1, reference=weaver,
        ),
        candidate(
            "best for each parameter, leave-one-out", optimal_baseline_gradient,
            lambda p, t: total(p, t) | {"per_parameter": True}, reference=peters,
        ),
        candidate(
            "best for each parameter, plug-in", optimal_baseline_gradient,
            lambda p, t: total(p, t) | {"per_parameter": True, "num_folds": 1}, claim=None, reference=peters,
        ),
        candidate(
            "best state baseline, leave-one-out", optimal_baseline_gradient,
            lambda p, t: to_go(p, t) | {"features": t.obs}, reference="Greensmith et al. (2004)",
        ),
    ]  # fmt: skip


def _to_go() -> list[Candidate]:
    def scores(problem: Any, trajectory: Trajectory) -> Array:
        return square_scores(problem.params, trajectory, policy=problem.policy)

    def linear(problem: Any, trajectory: Trajectory, num_folds: int | None) -> Array:
        features = time_features(trajectory.obs, trajectory.step)
        return cross_fitted_baseline(features, returns(problem, trajectory), num_folds=num_folds)

    greensmith, duan = "Greensmith et al. (2004)", "Duan et al. (2016)"
    return [
        candidate(
            "REINFORCE, weighted leave-one-out", reinforce,
            lambda p, t: weight(p, t) | {"baseline": optimal_baseline(returns(p, t), scores(p, t))},
            reference=greensmith,
        ),
        candidate(
            "REINFORCE, mean of the others at the same step", reinforce,
            lambda p, t: weight(p, t) | {"baseline": step_baseline(returns(p, t), t.step)},
            reference="Peters and Schaal (2008)",
        ),
        candidate(
            "REINFORCE, linear baseline of the others", reinforce,
            lambda p, t: weight(p, t) | {"baseline": linear(p, t, None)}, reference=duan,
        ),
        candidate(
            "REINFORCE, linear baseline with self", reinforce,
            lambda p, t: weight(p, t) | {"baseline": linear(p, t, 1)}, claim=None, reference=duan,
        ),
    ]  # fmt: skip
