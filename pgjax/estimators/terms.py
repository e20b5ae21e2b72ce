"""What the losses of several estimators are made of."""

from typing import Any

import jax

from pgjax import _checks
from pgjax._types import Trajectory
from pgjax.distributions import log_prob_of

Array = jax.Array


def log_prob_taken(distribution: Any, trajectory: Trajectory) -> Array:
    """Compute the log-probability of the actions that were taken, checked to be one number for each step.

    Args:
        distribution: what the policy returned for trajectory.obs.
        trajectory: the window.

    Returns:
        [T, B] float, nats.

    Raises:
        TypeError: if the distribution has no log_prob.
        ValueError: if its log_prob is not one number for each step.
    """
    log_prob = log_prob_of(distribution, trajectory.action, trajectory.raw_action)
    _checks.require_shape("the policy's log_prob", log_prob, trajectory.reward.shape, of="trajectory.reward")
    return log_prob


def weighted(advantage: Array, step_weight: Array | None) -> Array:
    """Multiply the advantage by the weight of each step.

    Args:
        advantage: [T, B] float.
        step_weight: [T, B] float, a scalar, or None for 1.

    Returns:
        [T, B] float.

    Raises:
        ValueError: if step_weight is neither a scalar nor of the shape of the advantage.
    """
    if step_weight is None:
        return advantage
    return advantage * _checks.as_scalar_or_shape("step_weight", step_weight, advantage.shape)
