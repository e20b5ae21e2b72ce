"""What is known about an estimator on a problem after it has been certified."""

import dataclasses
import math
from typing import Any

import numpy as np

Vector = Any  # NumPy arrays: a certificate is a report, not an input to a program


@dataclasses.dataclass(frozen=True)
class VarianceTerms:
    """The trace of the covariance of one trajectory's contribution, split by step and by origin.

        tr Cov Σ_t X_t = Σ_t [tr Var E(X_t | s_t) + E tr Var(E(X_t | s_t, a_t) | s_t) + E tr Var(X_t | s_t, a_t)] + rest

    Args:
        state: Σ_t variance, over states, of the mean given the state.
        action: Σ_t mean variance, over actions, of the mean given state and action: what a baseline can remove.
        trajectory: Σ_t mean variance of what follows, given state and action.
        between: the rest, covariances between the steps, and between the trajectories of a group; of either sign.

    Returns:
        A frozen record of scalars.
    """

    state: float
    action: float
    trajectory: float
    between: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one estimate from a batch costs.

    Args:
        batch_size: trajectories in the batch.
        compile_seconds: tracing, lowering and compiling.
        run_seconds: median of a few runs.
        flops: as the compiler counts them, NaN where it does not.
        bytes_accessed: likewise.

    Returns:
        A frozen record of scalars.
    """

    batch_size: int
    compile_seconds: float
    run_seconds: float
    flops: float
    bytes_accessed: float


@dataclasses.dataclass(frozen=True)
class SamplingTest:
    """What sampling can say of a bias: a test, an interval, and how small a bias it would have seen.

    Args:
        num_estimates: N, independent estimates.
        statistic: N dᵀ Σ⁺ d, d the distance of the mean from the direction claimed.
        degrees: rank of Σ, the degrees of freedom of the statistic.
        p_value: the probability of a statistic as large without bias.
        significance: the p-value below which a bias counts as shown.
        interval: 95% confidence interval of the norm of the bias.
        trace_error: standard error of the trace of the covariance.
        detectable: smallest relative bias that would be shown with probability 0.9.

    Returns:
        A frozen record of scalars.
    """

    num_estimates: int
    statistic: float
    degrees: int
    p_value: float
    significance: float
    interval: tuple[float, float]
    trace_error: float
    detectable: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The bias and the variance of an estimator on a problem. Directions are ascent directions.

    Shapes: P parameters; K the size of a group, 1 unless the estimator looks at several trajectories together.

    Args:
        estimator: name of the candidate.
        problem: name of the problem.
        method: "enumeration", "recursion" (both exact) or "sampling".
        num_trajectories: how many were listed or sampled; 0 for a recursion.
        group_size: K.
        objective: the discounted return of the policy.
        gradient: [P] its gradient.
        claim: the direction claimed, or None.
        target: [P] the direction that `claim` stands for; the gradient where there is no claim.
        mean: [P] the expected estimate.
        covariance: [P, P] of the estimate from one group.
        terms: the split of the variance, if asked for.
        cost: what an estimate costs, if asked for.
        sampling: the test of the bias, where it was sampled.

    Returns:
        A frozen record.
    """

    estimator: str
    problem: str
    method: str
    num_trajectories: int
    group_size: int
    objective: float
    gradient: Vector
    claim: str | None
    target: Vector
    mean: Vector
    covariance: Vector
    terms: VarianceTerms | None = None
    cost: Cost | None = None
    sampling: SamplingTest | None = None

    @property
    def bias(self) -> Vector:
        """[P]: expected estimate minus the gradient of the objective."""
        return self.mean - self.gradient

    @property
    def bias_norm(self) -> float:
        """Euclidean norm of the bias."""
        return _norm(self.bias)

    @property
    def relative_bias(self) -> float:
        """Norm of the bias by that of the gradient."""
        return _ratio(self.bias_norm, _norm(self.gradient))

    @property
    def claim_error(self) -> float:
        """Distance of the expected estimate from the direction claimed."""
        return _norm(self.mean - self.target)

    @property
    def cosine(self) -> float:
        """Cosine between the expected estimate and the gradient."""
        return _ratio(float(self.mean @ self.gradient), _norm(self.mean) * _norm(self.gradient))

    @property
    def trace(self) -> float:
        """Trace of the covariance for one trajectory: K times that of a group, so that it is divided by the batch."""
        return self.group_size * float(np.trace(self.covariance))

    @property
    def spectrum(self) -> Vector:
        """[P]: eigenvalues of the covariance for one trajectory, the largest first; infinite where it is."""
        if not np.isfinite(self.covariance).all():
            return np.full(len(self.covariance), np.inf)
        return self.group_size * np.maximum(np.linalg.eigvalsh(self.covariance)[::-1], 0.0)

    @property
    def signal_to_noise(self) -> float:
        """Squared norm of the expected estimate by the trace, for one trajectory."""
        return _ratio(float(self.mean @ self.mean), self.trace)

    @property
    def unbiased(self) -> bool:
        """Whether the estimator was found without bias in the direction that it claims.

        Exact methods ask for a distance below 1e-10, relative where the direction is longer than 1; sampling asks for
        a p-value that is not below the significance. False where nothing is claimed.
        """
        if self.claim is None or not np.isfinite(self.mean).all():
            return False
        if self.sampling is not None:
            return self.sampling.p_value >= self.sampling.significance
        return self.claim_error < 1e-10 * max(1.0, _norm(self.target))

    def samples_for_cosine(self, cosine: float = 0.9) -> float:
        """Compute how many trajectories it takes until the estimate points the right way.

            E‖ĝ across‖² <= tan² (E ĝ along)²:   n = (tr Σ - uᵀ Σ u) / [(1/c² - 1) (uᵀ m)² - ‖m across‖²]

        u is the unit vector of the true gradient, m the expected estimate, Σ the covariance for one trajectory, and
        across means perpendicular to u. The mean square of the part across is what limits the angle; noise along the
        gradient is left out, as it turns nothing.

        Args:
            cosine: c, in (0, 1).

        Returns:
            The number, at least 1; infinite if the bias alone is too large, or the variance is infinite.

        Raises:
            ValueError: if cosine lies outside (0, 1).
        """
        if not 0.0 < cosine < 1.0:
            raise ValueError(f"cosine must lie in (0, 1), got {cosine}. Zero needs no sample, and one needs them all.")
        norm = _norm(self.gradient)
        if norm == 0.0 or not np.isfinite(self.mean).all() or not math.isfinite(self.trace):
            return math.inf
        unit = self.gradient / norm
        along = float(unit @ self.mean)
        allowed = (1.0 / cosine**2 - 1.0) * along**2 - (float(self.mean @ self.mean) - along**2)
        if along <= 0.0 or allowed <= 0.0:
            return math.inf
        across = self.trace - self.group_size * float(unit @ self.covariance @ unit)
        return max(1.0, across / allowed)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as numbers, strings and lists, ready for JSON.

        Returns:
            A dict; infinities and NaN are strings.
        """
        figures = {
            **{name: getattr(self, name) for name in ("estimator", "problem", "method", "num_trajectories")},
            **{name: getattr(self, name) for name in ("group_size", "claim", "objective", "gradient", "mean")},
            **{
                name: getattr(self, name)
                for name in ("bias_norm", "relative_bias", "claim_error", "cosine", "unbiased")
            },
            **{name: getattr(self, name) for name in ("trace", "spectrum", "signal_to_noise")},
            "samples_for_cosine_0.9": self.samples_for_cosine(),
            **{
                name: None if getattr(self, name) is None else dataclasses.asdict(getattr(self, name))
                for name in ("terms", "cost", "sampling")
            },
        }
        return {name: _plain(x) for name, x in figures.items()}


def _norm(x: Vector) -> float:
    return float(np.linalg.norm(x))


def _ratio(x: float, y: float) -> float:
    return x / y if y != 0.0 else (math.nan if x == 0.0 or math.isnan(x) else math.copysign(math.inf, x))


def _plain(x: Any) -> Any:
    """JSON knows no infinity, and no array."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple, np.ndarray)):
        return [_plain(value) for value in x]
    if isinstance(x, (float, np.floating)):
        return float(x) if math.isfinite(x) else str(float(x))
    return x.item() if isinstance(x, np.generic) else x
