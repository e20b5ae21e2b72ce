"""An estimator on trial: what it is called with, and what it claims."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._types import Trajectory
from pgjax.certify.certificate.directions import CLAIMS
from pgjax.estimators import Estimator
from pgjax.exact.variance.moments import AffinePair
from pgjax.expectation import Rule

Array = jax.Array
Arguments = Callable[[Any, Any], dict[str, Any]]

OFFERS = (
    *("own data", "other data", "whole episodes", "equal lengths", "exact value", "finitely many actions"),
    *("smooth samples", "normal samples", "relaxed samples", "soft samples", "yes-or-no actions"),
    "differentiable steps",
    *("search of the mean", "search of mean and scale", "quadratic f"),
)


def _nothing(problem: Any, data: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An estimator or a rule with the arguments that it is called with and the direction that it claims to estimate.

    What `claim`, `needs` and `group_size` mean stands here and nowhere else.

    Shapes: trajectories [T, B, ...].

    Args:
        name: what it is called in tables.
        estimator: an estimator, made with `pgjax.estimator`, which is certified on processes; or a rule of
            `pgjax.expectation`, which is certified on an `ExpectationProblem`.
        arguments: (problem, trajectory) -> keyword arguments of the estimator; `policy`, `discount` and `value` are
            filled in with those of the problem where the estimator takes them. For a rule, (problem, noise) -> options.
        claim: the direction, up to the sign, that it estimates without bias. "gradient": that of the objective, which
            is called "discounted" for an estimator and "expectation", the gradient of E f, for a rule. "dropped
            discount": the same without γ^t. "off-policy": with the states as other data visit them. "exponentiated":
            that of log E exp f, of a rule. Of a search, "plain": that of f itself; "smoothed": that of E f(θ + σε).
            None: nothing is claimed, and the bias is measured all the same.
        needs: what the claim takes for granted; the candidate is certified only on problems that offer it.
            Of the trajectories: "own data" (the policy collects it), "other data" (another policy does), "whole
            episodes" (none is cut), "equal lengths" (of all episodes), "exact value" (`value` is that of the policy),
            "finitely many actions", "differentiable steps" (states and rewards are smooth in what came before). Of a
            distribution: "finitely many actions", "smooth samples" (a sample is differentiable in the parameters),
            "normal samples" (of one Normal), "relaxed samples" (`relaxed_from`), "soft samples" (`soften`),
            "yes-or-no actions" (those of Bernoulli). Of a function of parameters: "search of the mean" or "search of
            mean and scale" (of the perturbations), "quadratic f". None is ("own data",) for an estimator and () for a
            rule.
        group_size: K, how many trajectories it looks at together. What an estimator adds for one trajectory may
            depend on the others of its batch, as with `leave_one_out`; moments are then those of the mean over a group
            of K, every group of K is listed or K are sampled together, and variances are quoted for one trajectory: K
            times that of a group. With 1 nothing may depend on the others, which is checked.
        noise: for an estimator that takes the noise of a rule as `noise`, the rule: its noise is listed or drawn
            beside the trajectories.
        data: (problem, trajectory) -> what the estimator is given in place of the trajectory: of one that makes the
            rollout itself, the state that each trajectory started from. None gives the trajectory.
        pair: problem -> its coefficients as an affine pair, if it is one: they give its moments for any horizon.
        reference: who proposed it.

    Raises:
        TypeError: if estimator is neither an estimator nor a rule.
        ValueError: if claim is no direction, needs holds what no problem offers, or group_size is below 1.
    """

    name: str
    estimator: Estimator | Rule
    arguments: Arguments = _nothing
    claim: str | None = "gradient"
    group_size: int = 1
    needs: tuple[str, ...] | None = None
    noise: Rule | None = None
    data: Callable[[Any, Trajectory], Any] | None = None
    pair: Callable[[Any], AffinePair] | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, (Estimator, Rule)):
            raise TypeError(
                f"estimator must be made with pgjax.estimator, or be a rule, got {type(self.estimator).__name__}. "
                "Decorate the function that returns what is minimised with @pgjax.estimator(); searches of "
                "pgjax.expectation stand among the candidates of registry()."
            )
        if self.claim == "gradient":
            object.__setattr__(self, "claim", "expectation" if self.is_rule else "discounted")
        if self.needs is None:
            object.__setattr__(self, "needs", () if self.is_rule else ("own data",))
        if self.claim is not None and self.claim not in CLAIMS:
            claims = ("gradient", *CLAIMS)
            raise ValueError(f"claim must be None or one of {claims}, got {self.claim!r}. Name the direction.")
        if not set(self.needs or ()) <= set(OFFERS):
            raise ValueError(f"needs must be among {OFFERS}, got {self.needs}. Leave out what no problem can offer.")
        _checks.as_positive_int("group_size", self.group_size)
        if self.is_rule and self.group_size != 1:
            raise ValueError(f"group_size must be 1 for a rule, got {self.group_size}. Rules take num_samples.")

    @property
    def is_rule(self) -> bool:
        """Whether it is a rule, for problems without trajectories."""
        return isinstance(self.estimator, Rule)

    def fits(self, problem: Any) -> bool:
        """Tell whether the claim is about problems like this one.

        Args:
            problem: the problem.

        Returns:
            True if the problem offers what the claim needs, and knows the direction that is claimed.
        """
        if self.is_rule != problem.takes_rules:
            return False
        return problem.offers.issuperset(self.needs or ()) and (self.claim is None or self.claim in problem.directions)

    def call(self, problem: Any, trajectory: Trajectory, **further: Any) -> Array:
        """Compute the gradient of minus the objective (descent) as the estimator gives it: what a user runs.

        Args:
            problem: the problem.
            trajectory: leaves [T, B, ...].
            **further: keyword arguments of the estimator.

        Returns:
            [P] float.
        """
        kwargs = self._kwargs(problem, trajectory) | further
        return ravel_pytree(self.estimator(problem.params, self._data(problem, trajectory), **kwargs)[0])[0]

    def contributions(self, problem: Any, trajectory: Trajectory, **further: Any) -> Array:
        """Compute what each trajectory adds to the estimate, which is their mean (ascent).

        Args:
            problem: the problem.
            trajectory: leaves [T, B, ...]; all of them together are one group.
            **further: keyword arguments of the estimator.

        Returns:
            [B, P] float.
        """
        kwargs = self._kwargs(problem, trajectory) | further
        estimator: Any = self.estimator
        grads, _ = estimator.per_trajectory(problem.params, self._data(problem, trajectory), **kwargs)
        return -jax.vmap(lambda tree: ravel_pytree(tree)[0])(grads)

    def takes(self, name: str) -> bool:
        """Tell whether the estimator has an argument of this name.

        Args:
            name: of the argument.

        Returns:
            Whether it does.
        """
        return name in inspect.signature(self.estimator).parameters

    def _data(self, problem: Any, trajectory: Trajectory) -> Any:
        return trajectory if self.data is None else self.data(problem, trajectory)

    def _kwargs(self, problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        usual = {"policy": problem.policy, "discount": problem.discount, "value": problem.value}
        return {k: x for k, x in usual.items() if self.takes(k)} | self.arguments(problem, trajectory)


def candidate_of(estimator: Estimator | Rule | Candidate, group_size: int | None = None) -> Candidate:
    """Return a candidate: an estimator or a rule by itself claims the gradient of the objective.

    Args:
        estimator: an estimator, a rule, or a candidate already.
        group_size: in place of that of the candidate; None keeps it.

    Returns:
        The candidate.
    """
    if not isinstance(estimator, Candidate):
        name = getattr(estimator, "__name__", type(estimator).__name__)
        return Candidate(name, estimator, group_size=1 if group_size is None else group_size)
    return estimator if group_size is None else dataclasses.replace(estimator, group_size=group_size)
