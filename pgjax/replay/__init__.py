"""Replay on the device: rows of rollouts kept in a ring, and windows of them drawn again.

What is drawn is a `Trajectory` window [n, N, ...]: `fold` makes transitions of it, Retrace and V-trace take it as it
is.
"""

from pgjax.replay.prioritized import PrioritizedReplay, PrioritizedState, Replayed, make_prioritized_replay
from pgjax.replay.uniform import Replay, ReplayState, make_replay

__all__ = [
    "PrioritizedReplay",
    "PrioritizedState",
    "Replay",
    "ReplayState",
    "Replayed",
    "make_prioritized_replay",
    "make_replay",
]
