"""What acts for a deterministic policy, and the noise that it explores with.

Noise is in units of half the width of the box of actions, so that components of different widths explore alike.
"""

from pgjax.exploration.acting import ClippedNormal, Deterministic, WarmUp
from pgjax.exploration.noise import ornstein_uhlenbeck, smooth_action, spread_of_scales

__all__ = ["ClippedNormal", "Deterministic", "WarmUp", "ornstein_uhlenbeck", "smooth_action", "spread_of_scales"]
