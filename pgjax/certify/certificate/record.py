"""The record of what was measured of an estimator on a problem."""

import dataclasses
import math
from typing import Any

import numpy as np

from pgjax.certify.certificate.bias_test import SamplingTest, bias_test
from pgjax.certify.certificate.directions import match
from pgjax.certify.certificate.reading import comparison, reading

Vector = Any  # NumPy arrays: a certificate is a report, not an input to a program

EXACT = 1e-10  # what rounding may leave of a bias, relative to the size of the estimates


@dataclasses.dataclass(frozen=True)
class VarianceTerms:
    """The trace of the covariance of one trajectory's contribution, split by step and by origin.

        tr Cov Σ_t X_t = Σ_t [tr Var E(X_t | s_t) + E tr Var(E(X_t | s_t, a_t) | s_t) + E tr Var(X_t | s_t, a_t)] + rest

    Args:
        state: Σ_t variance, over states, of the mean given the state.
        action: Σ_t mean variance, over actions, of the mean given state and action: what a baseline can remove.
        trajectory: Σ_t mean variance of what follows, given state and action.
        between: the rest, covariances between the steps, and between the trajectories of a group; of either sign.
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
        run_seconds: median of several runs after the first.
        flops: as the compiler counts them, NaN where it does not.
        bytes_accessed: likewise.
    """

    batch_size: int
    compile_seconds: float
    run_seconds: float
    flops: float
    bytes_accessed: float


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The bias and the variance of an estimator on a problem; ``print`` says what they mean.

    Directions are those of the objective: ascent for the discounted return, and the gradient of E f for a rule.

    Shapes: P parameters; K the size of a group, see `Candidate`.

    Args:
        estimator: name of the candidate.
        problem: name of the problem.
        method: "enumeration", "recursion" (both exact) or "sampling".
        num_trajectories: how many trajectories (for a rule, values of its noise) were listed or sampled; 0 for a
            recursion.
        group_size: K.
        objective: the discounted return of the policy, or E f.
        gradient: [P] its gradient.
        claim: the direction claimed, or None.
        target: [P] the direction that `claim` stands for; the gradient where there is no claim.
        mean: [P] the expected estimate.
        covariance: [P, P] of the estimate from one group.
        terms: the split of the variance, if asked for.
        cost: what an estimate costs, if asked for.
        sampling: the test of the bias, where it was sampled.
        known: directions [P] of the problem by name, the gradient first: what a wrong mean is compared with.
        depends_on_others: whether what a trajectory adds depends on the others of its batch; None if unknown.
        num_steps: length of the trajectories, or None.
        controls: distance of the mean from the target for other rewards or another f, and under another law, if
            asked for: where the claim can be told from chance, one of them is far from 0.
        best: of the certificates made together with this one, that of the right estimator with the least variance, if
            it is another.
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
    known: dict[str, Vector] = dataclasses.field(default_factory=dict)
    depends_on_others: bool | None = None
    num_steps: int | None = None
    controls: dict[str, float] | None = None
    best: "Certificate | None" = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return reading(self)

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
        """Whether the estimator was found without bias in the direction that it claims; False without a claim.

        See `is_mean` for how far the mean may be from it.
        """
        return self.claim is not None and self.is_mean(self.target)

    def is_mean(self, direction: Vector) -> bool:
        """Tell whether a direction can be the expected estimate.

        Exact methods ask for a distance below 1e-10, relative to the root of the mean square of an estimate; sampling
        asks for a p-value that is not below the significance.

        Args:
            direction: [P] float.

        Returns:
            Whether it can.
        """
        error = self.mean - direction
        if not np.isfinite(error).all():
            return False
        if self.sampling is not None:
            found = bias_test(error, self.covariance, direction, num_estimates=self.sampling.num_estimates)
            return found.p_value >= self.sampling.significance
        square = float(self.mean @ self.mean) + float(np.trace(self.covariance))
        scale = max(_norm(direction), math.sqrt(square) if math.isfinite(square) else 0.0)
        return _norm(error) <= EXACT * scale

    @property
    def found(self) -> tuple[str, float] | None:
        """Name of the known direction of which the expected estimate is a multiple, and the factor; None if of none."""
        return match(self.mean, self.known, self.is_mean)

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
            raise ValueError(f"cosine must lie in (0, 1), got {cosine}. No number of samples reaches 1.")
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

    def compare(self, other: "Certificate") -> str:
        """Say how many times the trajectories of another estimator this one needs.

        Where both estimate the same direction without bias, for the same variance: the ratio of the traces.
        Otherwise for a cosine of 0.9 to the gradient: the ratio of `samples_for_cosine`.

        Args:
            other: the certificate of another estimator on the same problem.

        Returns:
            A sentence.

        Raises:
            ValueError: if the problems differ.
        """
        if self.problem != other.problem:
            raise ValueError(
                f"other must be about problem {self.problem!r}, got {other.problem!r}. Certify both on one problem."
            )
        return comparison(self, other)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as numbers, strings and lists, ready for JSON.

        Returns:
            A dict; infinities and NaN are strings.
        """
        stored = ("estimator", "problem", "method", "num_trajectories", "group_size", "claim", "objective")
        derived = ("bias_norm", "relative_bias", "claim_error", "cosine", "unbiased", "trace", "spectrum")
        names = (*stored, "gradient", "mean", *derived, "signal_to_noise", "depends_on_others", "found", "controls")
        parts = {name: getattr(self, name) for name in ("terms", "cost", "sampling")}
        figures = {
            **{name: getattr(self, name) for name in names},
            "truth": next(iter(self.known), "discounted"),
            "is_gradient": self.is_mean(self.gradient),
            "samples_for_cosine_0.9": self.samples_for_cosine(),
            "reading": str(self),
            **{name: None if x is None else dataclasses.asdict(x) for name, x in parts.items()},
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
