"""Exact objectives, gradients and moments, the reference for estimators.

The rooms are `tabular` (finite processes), `lqr` (linear systems with quadratic costs), `variance` (exact moments of
estimators) and `problems` (small ones to try them on), beside the enumeration of trajectories. All names are found
here too, but for the functions of `lqr`, which share theirs with `tabular`: `exact.value(mdp, probs)` is the value of
a tabular policy and `exact.lqr.value(lqr, gain, x)` that of a linear one.

Gradients here are those of the objective itself (ascent); estimators elsewhere in the library return the
gradient of minus the objective (descent).

The names of `pgjax.certify`, which compares estimators with these references, are found here as well. They are looked
up on demand, because that package imports this one.
"""

import importlib
from typing import Any

from pgjax.exact import lqr, problems, tabular, variance
from pgjax.exact.enumeration import gauss_hermite, groups, join, trajectories, weighted_moments
from pgjax.exact.lqr import (
    LQR,
    LQREnvironment,
    LQRParams,
    LQRState,
    lqr_gpomdp_moments,
    lqr_pathwise_moments,
    lqr_reinforce_moments,
)
from pgjax.exact.problems import *  # noqa: F403
from pgjax.exact.spectrum import spectral_radius
from pgjax.exact.tabular import *  # noqa: F403
from pgjax.exact.variance import *  # noqa: F403

_CERTIFY = (
    "Candidate",
    "Certificate",
    "Certificates",
    "Cost",
    "ExpectationProblem",
    "LQRProblem",
    "SamplingTest",
    "SearchProblem",
    "TabularProblem",
    "VarianceTerms",
    "certificate_problems",
    "certify",
    "certify_all",
    "expectation_problem",
    "in_time",
    "lqr_problem",
    "measure_cost",
    "registry",
    "sample_trajectories",
    "search_problem",
    "shared_policy",
    "table_policy",
    "tabular_problem",
)

__all__ = ["lqr", "problems", "tabular", "variance"]
__all__ += ["LQR", "LQREnvironment", "LQRParams", "LQRState"]
__all__ += ["lqr_gpomdp_moments", "lqr_pathwise_moments", "lqr_reinforce_moments"]
__all__ += ["gauss_hermite", "groups", "join", "spectral_radius", "trajectories", "weighted_moments"]
__all__ += problems.__all__
__all__ += tabular.__all__
__all__ += variance.__all__
__all__ += _CERTIFY


def __getattr__(name: str) -> Any:
    if name in _CERTIFY:
        return getattr(importlib.import_module("pgjax.certify"), name)
    raise AttributeError(f"module 'pgjax.exact' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_CERTIFY})
