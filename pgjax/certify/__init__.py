"""Certificates: the measured bias and variance of estimators and rules against the exact gradient.

The rooms follow one another as the work does: `problems` say what is true, `candidates` what is claimed, `measure` runs
the one on the other, and a `certificate` holds what came out and says it in words. The page of the documentation is
made from certificates by `make certificates`.
"""

from pgjax.certify.candidates import Candidate, registry
from pgjax.certify.certificate import Certificate, Certificates, Cost, SamplingTest, VarianceTerms
from pgjax.certify.measure import certify, certify_all, measure_cost, sample_trajectories
from pgjax.certify.problems import (
    ExpectationProblem,
    LQRProblem,
    SearchProblem,
    TabularProblem,
    certificate_problems,
    expectation_problem,
    in_time,
    lqr_problem,
    search_problem,
    shared_policy,
    table_policy,
    tabular_problem,
)

__all__ = [
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
]
