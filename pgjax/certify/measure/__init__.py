"""How estimators and rules are measured: by listing, by sampling, or by a recursion."""

from pgjax.certify.measure.certificates import certify, certify_all
from pgjax.certify.measure.cost import measure_cost
from pgjax.certify.measure.sampled import sample_trajectories

__all__ = ["certify", "certify_all", "measure_cost", "sample_trajectories"]
