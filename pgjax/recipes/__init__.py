"""One file for each published algorithm: library calls in the order of the paper, and no mathematics of their own."""

from pgjax.recipes import a2c, ppo, reinforce

__all__ = ["a2c", "ppo", "reinforce"]
