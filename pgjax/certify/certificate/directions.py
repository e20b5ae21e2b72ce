"""Directions that the mean of an estimator may turn out to be, what they are called, and what leads away from them."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

Vector = Any

# The directions that an estimator may claim. Two are not the gradient of anything.
CLAIMS = (
    *("discounted", "expectation", "dropped discount", "off-policy"),
    *("exponentiated", "plain", "smoothed"),
)

# What each is, and what to do about an estimator that gives it by mistake.
PHRASES: dict[str, tuple[str, str]] = {
    "discounted": ("the gradient of the discounted objective", ""),
    "expectation": ("the gradient of the expectation", ""),
    "dropped discount": (
        "the gradient without γ^t",
        "Weight step t by γ^t, as with step_weight=pg.discount_weight(trajectory.step, discount), to follow the "
        "discounted objective.",
    ),
    "off-policy": (
        "the gradient with the states as the policy that collected the data visits them",
        "Ratios of the actions taken do not correct how often a state is visited.",
    ),
    "exponentiated": (
        "the gradient of the logarithm of the expected exponential",
        "Weights that grow like exp f follow log E exp f; weight the scores by f itself to follow E f.",
    ),
    "plain": ("the gradient of f", ""),
    "smoothed": (
        "the gradient of f smoothed by the perturbations",
        "Make the perturbations smaller: the distance from the gradient of f falls like their square.",
    ),
    "undiscounted": (
        "the gradient of the undiscounted return",
        "Discount the returns, and weight step t by γ^t.",
    ),
    "undiscounted returns": (
        "the gradient with γ^t but with undiscounted returns",
        "Discount the returns as well.",
    ),
    "twice discounted": (
        "the gradient with γ^t counted twice",
        "Rewards that are discounted from the start of the episode need no step_weight.",
    ),
    "immediate rewards": (
        "the gradient of the reward of each step, without those that follow",
        "Weight the scores by returns in place of rewards.",
    ),
    "immediate rewards, dropped discount": (
        "the gradient of the reward of each step, without those that follow and without γ^t",
        "Weight the scores by returns in place of rewards, and step t by γ^t.",
    ),
    "up to the cut": (
        "the gradient of the return up to where the trajectory is cut",
        "A truncated step is followed by more: bootstrap from the value of its next observation, and treat only "
        "terminated steps as terminal.",
    ),
    "transposed": (
        "the gradient with the axes of a parameter exchanged",
        "Compare the axes of the gradient with those of the parameter.",
    ),
}


def of_noise(known: Iterable[str]) -> bool:
    """Tell certificates over noise, of rules and of searches, from those over trajectories.

    Args:
        known: the names of the directions of a problem.

    Returns:
        Whether it is about noise.
    """
    return not {"expectation", "plain", "smoothed"}.isdisjoint(known)


def name_of(claim: str | None) -> str:
    """Return what a direction is called in a sentence.

    Args:
        claim: a name in `PHRASES`, or None.

    Returns:
        Its phrase.
    """
    return "no direction" if claim is None else PHRASES[claim][0]


def transposed(shapes: list[tuple[int, ...]], gradient: Vector) -> Vector | None:
    """Exchange the axes of each square parameter in a gradient.

    Shapes: gradient [P].

    Args:
        shapes: of the leaves of the parameters, in order.
        gradient: [P] the raveled gradient.

    Returns:
        [P], or None if no parameter is a square matrix.
    """
    if not any(len(shape) == 2 and shape[0] == shape[1] > 1 for shape in shapes):
        return None
    parts, start = [], 0
    for shape in shapes:
        leaf = gradient[start : start + math.prod(shape)].reshape(shape)
        parts.append((leaf.T if len(shape) == 2 and shape[0] == shape[1] else leaf).ravel())
        start += math.prod(shape)
    return np.concatenate(parts)


def match(mean: Vector, known: dict[str, Vector], fits: Any) -> tuple[str, float] | None:
    """Find a direction of which the mean is a multiple; plain equality goes first, then the opposite.

    Shapes: mean and directions [P].

    Args:
        mean: [P] the expected estimate.
        known: the directions by name, the true gradient first.
        fits: [P] vector -> whether the mean can be taken for it.

    Returns:
        (name, factor), or None if the mean is a multiple of none.
    """
    real = {name: d for name, d in known.items() if float(np.linalg.norm(d)) > 0.0}
    for factor in (1.0, -1.0):
        for name, direction in real.items():
            if fits(factor * direction):
                return name, factor
    for name, direction in real.items():
        factor = float(mean @ direction) / float(direction @ direction)
        if factor != 0.0 and fits(factor * direction):
            return name, factor
    return None
