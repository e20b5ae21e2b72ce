"""What sampled estimates can say of a bias: a test, an interval, and how small a bias it would have shown."""

import dataclasses
import math
from statistics import NormalDist
from typing import Any

import numpy as np
from jax.scipy.special import gammaincc

SIGNIFICANCE, POWER, CONFIDENCE = 1e-6, 0.9, 0.95
VARIES = 1e-9  # a variance below this part of the largest counts as none
ROUNDING = 1e-12  # a deviation below this part of the target is none: estimates may be alike but for rounding
CERTAIN = 1e-5  # a distance where nothing varies is a bias above this part of the scale of the estimates


@dataclasses.dataclass(frozen=True)
class SamplingTest:
    """A test of the bias of sampled estimates.

    Args:
        num_estimates: N, independent estimates.
        statistic: N dᵀ Σ⁺ d, d the distance of the mean from the direction claimed.
        degrees: rank of Σ, the degrees of freedom of the statistic.
        p_value: the probability of a statistic as large without bias.
        significance: the p-value below which a bias counts as shown.
        interval: 95% confidence interval of the norm of the bias.
        trace_error: standard error of the trace of the covariance.
        detectable: smallest relative bias that would be shown with probability 0.9.
    """

    num_estimates: int
    statistic: float
    degrees: int
    p_value: float
    significance: float
    interval: tuple[float, float]
    trace_error: float
    detectable: float


def bias_test(
    error: Any, covariance: Any, target: Any, *, num_estimates: int, trace_error: float = math.nan
) -> SamplingTest:
    """Test whether a mean of estimates misses its target by more than chance.

        T = N dᵀ Σ⁺ d ~ χ² with rank Σ degrees;   smallest bias seen = (z_α + z_β) √(tr Σ / N)

    Shapes: error, target [P]; covariance [P, P].

    Args:
        error: [P] d, the mean minus the target.
        covariance: [P, P] Σ, of one estimate.
        target: [P] the direction that the mean is held against.
        num_estimates: N.
        trace_error: standard error of the trace, passed on.

    Returns:
        SamplingTest. A distance in a direction in which nothing varies is a bias for certain.
    """
    statistic, degrees, p_value = _chi_square(error, covariance, target, num_estimates)
    values = np.linalg.eigvalsh(covariance)
    total, normal = max(float(values.sum()), 0.0), NormalDist()
    # The squared error of the mean is nearly a multiple of χ² with as many degrees as its eigenvalues amount to.
    amount = max(total**2 / max(float(np.sum(values**2)), 1e-300), 1.0)
    cube = 1.0 - 2.0 / (9.0 * amount) + normal.inv_cdf(CONFIDENCE) * math.sqrt(2.0 / (9.0 * amount))
    radius, distance = math.sqrt(total / num_estimates * cube**3), float(np.linalg.norm(error))
    reach = (normal.inv_cdf(1.0 - SIGNIFICANCE) + normal.inv_cdf(POWER)) * math.sqrt(total / num_estimates)
    length = float(np.linalg.norm(target))
    return SamplingTest(
        num_estimates=num_estimates,
        statistic=statistic,
        degrees=degrees,
        p_value=p_value,
        significance=SIGNIFICANCE,
        interval=(max(distance - radius, 0.0), distance + radius),
        trace_error=trace_error,
        detectable=reach / length if length > 0.0 else math.inf,
    )


def _chi_square(error: Any, covariance: Any, target: Any, count: int) -> tuple[float, int, float]:
    """The statistic, its degrees of freedom and its p-value."""
    values, vectors = np.linalg.eigh(covariance)
    least = (ROUNDING * float(np.linalg.norm(target))) ** 2
    varies = values > max(VARIES * float(values[-1]), least)
    along, degrees = vectors.T @ error, int(varies.sum())
    scale = max(float(np.linalg.norm(target)), math.sqrt(max(float(values.sum()), 0.0)))
    if float(np.linalg.norm(along[~varies])) > CERTAIN * scale:
        return math.inf, degrees, 0.0
    statistic = count * float(np.sum(along[varies] ** 2 / values[varies]))
    return statistic, degrees, float(gammaincc(degrees / 2.0, statistic / 2.0)) if degrees else 1.0
