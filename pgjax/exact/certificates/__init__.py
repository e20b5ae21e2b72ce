"""Certificates: the measured bias and variance of an estimator against the exact gradient."""

from pgjax.exact.certificates.candidate import Candidate
from pgjax.exact.certificates.certificate import Certificate, Cost, SamplingTest, VarianceTerms
from pgjax.exact.certificates.certify import certify, certify_all
from pgjax.exact.certificates.cost import measure_cost
from pgjax.exact.certificates.lqr_problem import LQRProblem, lqr_problem
from pgjax.exact.certificates.problem import TabularProblem
from pgjax.exact.certificates.problems import certificate_problems
from pgjax.exact.certificates.registry import registry
from pgjax.exact.certificates.sampling import sample_trajectories
from pgjax.exact.certificates.tabular import in_time, shared_policy, table_policy, tabular_problem

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
