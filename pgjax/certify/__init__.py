"""Certificates: the measured bias and variance of an estimator against the exact gradient."""

from pgjax.certify.candidate import Candidate
from pgjax.certify.certificate import Certificate, Cost, SamplingTest, VarianceTerms
from pgjax.certify.cost import measure_cost
from pgjax.certify.lqr_problem import LQRProblem, lqr_problem
from pgjax.certify.measure import certify, certify_all
from pgjax.certify.problem import TabularProblem
from pgjax.certify.problems import certificate_problems
from pgjax.certify.registry import registry
from pgjax.certify.sampling import sample_trajectories
from pgjax.certify.tabular import in_time, shared_policy, table_policy, tabular_problem

__all__ = [
    "Candidate",
    "Certificate",
    "Cost",
    "LQRProblem",
    "SamplingTest",
    "TabularProblem",
    "VarianceTerms",
    "certificate_problems",
    "certify",
    "certify_all",
    "in_time",
    "lqr_problem",
    "measure_cost",
    "registry",
    "sample_trajectories",
    "shared_policy",
    "table_policy",
    "tabular_problem",
]
