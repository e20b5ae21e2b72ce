"""What is certified: an estimator or a rule, its arguments and its claim."""

from pgjax.certify.candidates.candidate import Candidate, candidate_of
from pgjax.certify.candidates.registry import registry

__all__ = ["Candidate", "candidate_of", "registry"]
