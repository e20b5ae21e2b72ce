"""What acts for a deterministic policy, the noise that it explores with, and noise that depends on the state.

Noise around a deterministic policy is in units of half the width of the box of actions, so that components of
different widths explore alike.
"""

from pgjax.exploration.acting import ClippedNormal, Deterministic, WarmUp
from pgjax.exploration.held import HeldCategorical
from pgjax.exploration.noise import ornstein_uhlenbeck, smooth_action, spread_of_scales
from pgjax.exploration.state_dependent import StateDependentNormal, StateDependentTanhNormal

__all__ = [
    "ClippedNormal",
    "Deterministic",
    "HeldCategorical",
    "StateDependentNormal",
    "StateDependentTanhNormal",
    "WarmUp",
    "ornstein_uhlenbeck",
    "smooth_action",
    "spread_of_scales",
]
