"""What one way of measuring finds out about one estimator."""

import dataclasses
from typing import Any

from pgjax.certify.certificate import SamplingTest, VarianceTerms


@dataclasses.dataclass(frozen=True)
class Finding:
    """The part of a certificate that is measured; its fields are those of `Certificate`."""

    method: str
    mean: Any
    covariance: Any
    num_trajectories: int
    group_size: int = 1
    terms: VarianceTerms | None = None
    sampling: SamplingTest | None = None
    depends_on_others: bool | None = None
    controls: dict[str, float] | None = None
