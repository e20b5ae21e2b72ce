"""The variance of an estimate, split by what it comes from."""

import jax
import numpy as np

from pgjax.certify.certificate import VarianceTerms

Array = jax.Array


def split_variance(parts: Array, cells: tuple[Array, Array], weights: Array, trace: float) -> VarianceTerms:
    """Split the variance of a sum over steps by what the part of each step depends on.

    Shapes: parts [N, H, P]; cells two of [H, N]; weights [N].

    Args:
        parts: [N, H, P] float, what each step of each trajectory adds.
        cells: [H, N] int, the state at the step, and the state with the action, numbered from 0.
        weights: [N] float, probabilities.
        trace: of the covariance of the sum.

    Returns:
        VarianceTerms.
    """
    rows, mass_of = np.asarray(parts), np.asarray(weights)
    squares = np.zeros(4)
    for step in range(rows.shape[1]):
        part = rows[:, step]
        everywhere = np.zeros(len(part), int)
        for i, cell in enumerate((everywhere, *(np.asarray(cell)[step] for cell in cells))):
            mass, total = np.bincount(cell, mass_of), np.zeros((int(cell.max()) + 1, part.shape[1]))
            np.add.at(total, cell, mass_of[:, None] * part)
            squares[i] += np.sum(total**2 / np.where(mass > 0, mass, 1.0)[:, None])  # E‖E(X | cell)‖²
        squares[3] += mass_of @ np.sum(part**2, axis=1)
    state, action, trajectory = (float(x) for x in np.diff(squares))
    return VarianceTerms(state, action, trajectory, trace - state - action - trajectory)
