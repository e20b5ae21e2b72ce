"""An estimator on trial: what it is called with, and what it claims."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax._types import Params, Trajectory
from pgjax.certify.problem import DIRECTIONS, OFFERS, TabularProblem
from pgjax.estimators import Estimator
from pgjax.exact.variance.moments import AffinePair

Array = jax.Array
Arguments = Callable[[Any, Trajectory], dict[str, Any]]


def _nothing(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An estimator with the arguments that it is called with and the direction that it claims to estimate.

    Shapes: trajectories [T, B, ...].

    Args:
        name: what it is called in tables.
        estimator: the estimator itself, made with `pgjax.estimator`.
        arguments: (problem, trajectory) -> keyword arguments of the estimator; `policy`, `discount` and `value` are
            filled in with those of the problem where the estimator takes them.
        claim: the direction, up to the sign, that it estimates without bias, a name for `TabularProblem.direction`:
            "discounted" is the gradient of the objective. None where it claims none.
        group_size: how many trajectories it looks at together.
        needs: what the claim takes for granted, of "own data" (the policy collects it), "other data", "whole episodes"
            (none is cut), "equal lengths" (of all episodes), "exact value" (`value` is that of the policy).
        pair: problem -> its coefficients as an affine pair, if it is one: they give its moments for any horizon.
        reference: who proposed it.

    Returns:
        A frozen record.

    Raises:
        TypeError: if estimator was not made with `pgjax.estimator`.
        ValueError: if claim is no direction, or needs holds what no problem offers.
    """

    name: str
    estimator: Estimator
    arguments: Arguments = _nothing
    claim: str | None = "discounted"
    group_size: int = 1
    needs: tuple[str, ...] = ("own data",)
    pair: Callable[[TabularProblem], AffinePair] | None = None
    reference: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, Estimator):
            raise TypeError(
                f"estimator must be made with pgjax.estimator, got {type(self.estimator).__name__}. "
                "Decorate the function that returns what is minimised with @pgjax.estimator()."
            )
        if self.claim is not None and self.claim not in DIRECTIONS:
            raise ValueError(f"claim must be None or one of {DIRECTIONS}, got {self.claim!r}. Name the direction.")
        if not set(self.needs) <= set(OFFERS):
            raise ValueError(f"needs must be among {OFFERS}, got {self.needs}. Leave out what no problem can offer.")

    def fits(self, problem: Any) -> bool:
        """Tell whether the claim is about problems like this one.

        Args:
            problem: the problem.

        Returns:
            True if the problem offers what the claim needs, and knows the direction that is claimed.

        Raises:
            AttributeError: if problem is none.
        """
        return problem.offers.issuperset(self.needs) and (self.claim is None or self.claim in problem.directions)

    def call(self, problem: Any, trajectory: Trajectory, **further: Any) -> Array:
        """Compute the gradient of minus the objective (descent) as the estimator gives it: what a user runs.

        Args:
            problem: the problem.
            trajectory: leaves [T, B, ...].
            **further: keyword arguments of the estimator.

        Returns:
            [P] float.

        Raises:
            ValueError: as the estimator does.
        """
        kwargs = self._kwargs(problem, trajectory) | further
        return ravel_pytree(self.estimator(problem.params, trajectory, **kwargs)[0])[0]

    def contributions(self, problem: Any, trajectory: Trajectory, **further: Any) -> Array:
        """Compute what each trajectory adds to the estimate, which is their mean (ascent).

        Args:
            problem: the problem.
            trajectory: leaves [T, B, ...]; all of them together are one group.
            **further: keyword arguments of the estimator.

        Returns:
            [B, P] float.

        Raises:
            ValueError: as the estimator does.
        """
        kwargs = self._kwargs(problem, trajectory) | further
        return -rows(self.estimator.per_trajectory(problem.params, trajectory, **kwargs)[0])

    def takes(self, name: str) -> bool:
        """Tell whether the estimator has an argument of this name.

        Args:
            name: of the argument.

        Returns:
            Whether it does.
        """
        return name in inspect.signature(self.estimator).parameters

    def _kwargs(self, problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        usual = {"policy": problem.policy, "discount": problem.discount, "value": problem.value}
        return {k: x for k, x in usual.items() if self.takes(k)} | self.arguments(problem, trajectory)


def candidate_of(estimator: Estimator | Candidate) -> Candidate:
    """Return a candidate: an estimator by itself claims the gradient of the discounted objective.

    Args:
        estimator: an estimator, or a candidate already.

    Returns:
        The candidate.

    Raises:
        TypeError: if it is neither.
    """
    if isinstance(estimator, Candidate):
        return estimator
    return Candidate(getattr(estimator, "__name__", type(estimator).__name__), estimator)


def rows(tree: Params) -> Array:
    """Return leaves [B, ...] side by side.

    Args:
        tree: a pytree with leaves [B, ...].

    Returns:
        [B, P] float.
    """
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)
