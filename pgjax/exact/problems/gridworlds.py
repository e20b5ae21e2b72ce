"""Two gridworlds: the cliff walk, with large variances, and the windy gridworld, with small gradients."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from pgjax.exact.tabular.mdp import TabularMDP


def cliff4x12() -> TabularMDP:
    """Build the cliff walk: the shortest path from corner to corner runs along a cliff that costs 100.

    Cells are numbered 12 row + column; actions are up, right, down, left; each step costs 1. A step over the
    cliff costs 100 and leads back to the start (3, 0); the goal (3, 11) ends the episode in state 48.

    Returns:
        S = 49, A = 4, γ = 0.9; state 48 is terminal.
    """
    rows, columns = 4, 12
    start, end = 36, 48
    transition, reward = np.zeros((49, 4, 49)), np.full((49, 4), -1.0)
    for state in range(end):
        row, column = divmod(state, columns)
        for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            to = min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)
            if to[0] == rows - 1 and 1 <= to[1] <= columns - 2:
                transition[state, action, start], reward[state, action] = 1.0, -100.0
            else:
                transition[state, action, end if to == (rows - 1, columns - 1) else columns * to[0] + to[1]] = 1.0
    return _mdp(transition, reward, [*range(37, 49)], start, 0.9)


def windy7x10() -> TabularMDP:
    """Build the windy gridworld: a wind that depends on the column blows upwards; each step costs 1.

    Cells are numbered 10 row + column; actions are up, right, down, left; the start is (3, 0), and the goal
    (3, 7) ends the episode in state 70.

    Returns:
        S = 71, A = 4, γ = 0.95; state 70 is terminal.
    """
    rows, columns, end = 7, 10, 70
    wind = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
    transition, reward = np.zeros((71, 4, 71)), np.full((71, 4), -1.0)
    for state in range(end):
        row, column = divmod(state, columns)
        for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            to_row = min(max(row + down - wind[column], 0), rows - 1)
            to_column = min(max(column + right, 0), columns - 1)
            transition[state, action, end if (to_row, to_column) == (3, 7) else columns * to_row + to_column] = 1.0
    return _mdp(transition, reward, [37, end], 30, 0.95)


def _mdp(transition: Any, reward: Any, ended: list[int], start: int, discount: float) -> TabularMDP:
    """Lead every action in the states of ``ended`` to the last state at no reward; that state then keeps it there."""
    transition[ended], reward[ended] = 0.0, 0.0
    transition[ended, :, -1] = 1.0
    initial = np.eye(len(reward))[start]
    return TabularMDP(jnp.asarray(transition), jnp.asarray(reward), jnp.asarray(initial), discount)
