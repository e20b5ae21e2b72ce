"""What estimators and rules are held against: processes and expectations whose gradient is known."""

from pgjax.certify.problems.building import in_time, shared_policy, table_policy, tabular_problem
from pgjax.certify.problems.expectation import ExpectationProblem, expectation_problem
from pgjax.certify.problems.lqr import LQRProblem, lqr_problem
from pgjax.certify.problems.search import SearchProblem, search_problem
from pgjax.certify.problems.suite import certificate_problems
from pgjax.certify.problems.tabular import TabularProblem

__all__ = [
    "ExpectationProblem",
    "LQRProblem",
    "SearchProblem",
    "TabularProblem",
    "certificate_problems",
    "expectation_problem",
    "in_time",
    "lqr_problem",
    "search_problem",
    "shared_policy",
    "table_policy",
    "tabular_problem",
]
