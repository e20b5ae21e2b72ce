"""Arguments that several candidates share, as functions of the problem and the trajectories."""

from typing import Any

from pgjax._types import Trajectory
from pgjax.baselines import leave_one_out
from pgjax.returns import discount_weight, discounted_returns

WHOLE = ("own data", "whole episodes")
"""What estimators without a value function need."""

FINITE = "finitely many actions"


def weight(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    """Return γ^t as the weight of each step, without which the discounted objective is missed.

    Args:
        problem: the problem.
        trajectory: leaves [T, B, ...].

    Returns:
        The keyword argument.
    """
    return {"step_weight": discount_weight(trajectory.step, problem.discount)}


def constant(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    """Return the objective as the baseline.

    Args:
        problem: the problem.
        trajectory: not used.

    Returns:
        The keyword argument.
    """
    return {"baseline": problem.objective}


def others(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    """Return the mean over the other trajectories as the baseline.

    Args:
        problem: not used.
        trajectory: not used.

    Returns:
        The keyword argument.
    """
    return {"baseline": leave_one_out}


def returns(problem: Any, trajectory: Trajectory) -> Any:
    """Compute the return of each step until the end of the episode.

    Args:
        problem: the problem.
        trajectory: whole episodes, leaves [T, B, ...].

    Returns:
        [T, B] float.
    """
    t = trajectory
    return discounted_returns(t.reward, terminated=t.terminated, truncated=t.truncated, discount=problem.discount)
