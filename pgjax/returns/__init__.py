"""Returns and advantages. Every target is one affine recurrence, solved backwards in time.

    X_t = u_t + w_t X_{t+1}

The functions differ only in ``u`` and ``w``. They work on ``[T]``, ``[T, B]`` and ``[T, S, B]``
alike and carry gradients; nothing is stopped and nothing is averaged.

Two masks decide what happens at the end of an episode. ``terminated``: no value follows, so it
multiplies the bootstrap. ``terminated | truncated``: the next row belongs to another episode, so it
cuts the recurrence. The last row of a window is cut like a truncation. Nothing behind a mask matters, not even
NaN or infinity, neither to the result nor to its gradient.
"""

from pgjax.returns.bootstrap import bootstrap_values
from pgjax.returns.doubly_robust import doubly_robust_returns
from pgjax.returns.emphasis import emphatic_weight
from pgjax.returns.off_policy import retrace, upgo, vtrace
from pgjax.returns.on_policy import discounted_returns, gae, lambda_returns, n_step_returns
from pgjax.returns.recurrence import affine_recurrence
from pgjax.returns.step_weight import discount_weight
from pgjax.returns.transition import fold

__all__ = [
    "affine_recurrence",
    "bootstrap_values",
    "discount_weight",
    "discounted_returns",
    "doubly_robust_returns",
    "emphatic_weight",
    "fold",
    "gae",
    "lambda_returns",
    "n_step_returns",
    "retrace",
    "upgo",
    "vtrace",
]
