"""A short window folded into one row, for methods that learn from single transitions."""

import functools

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Trajectory, Transition
from pgjax.returns.on_policy import discounted_returns

Array = jax.Array


@compiled(unit_interval=("discount",))
def fold(window: Trajectory, *, discount: Array | float) -> Transition:
    """Fold each column of a window of n steps into one transition of up to n steps.

        m = min(n, steps to the first end),   R = Σ_{k<m} γ^k r_k,   Γ = γ^m (1 - terminated_{m-1})
        target of a critic: R + Γ V(next_obs),   next_obs the one that step m - 1 led to, before any reset

    Shapes: window leaves [n, N, ...]; leaves of the result [N, ...].

    Args:
        window: n consecutive steps of N columns, n at least 1, with next_obs in it.
        discount: γ, scalar or [n, N], in [0, 1], per environment step.

    Returns:
        `Transition`, leaves [N, ...]: the first observation and action, R in reward units, Γ dimensionless, next_obs.

    Raises:
        TypeError: if window is no Trajectory, a mask is not boolean, or reward is not floating.
        ValueError: if window keeps no next_obs, if shapes differ, or if discount is a number outside [0, 1].

    Properties:
        R + Γ V(next_obs) is the first row of `n_step_returns`. What comes after the first end does not matter.
        Differentiable in reward and discount. Time and memory O(n N).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> obs, no = jnp.arange(3.0)[:, None], jnp.zeros((3, 1), bool)
        >>> window = pg.Trajectory(obs, obs, jnp.ones((3, 1)), obs + 1, no, no, obs, jnp.arange(3)[:, None])
        >>> folded = pg.fold(window, discount=0.5)
        >>> print(folded.reward, folded.discount, folded.next_obs)
        [1.75] [0.125] [3.]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 7.1.
    """
    _checks.require_instance("window", window, Trajectory, remedy="Pass rows of a rollout, leaves [n, N, ...].")
    if window.next_obs is None:
        raise ValueError(
            "window keeps no next_obs: the observation at the end of each transition is lost. "
            "Collect it without truncation_value."
        )
    follow = functools.partial(
        discounted_returns, terminated=window.terminated, truncated=window.truncated, discount=discount
    )
    reward = follow(window.reward)
    weight = follow(jnp.zeros_like(reward), jnp.ones_like(reward))
    # The first end, or the last row of the window: argmax finds the first True.
    last = jnp.argmax((window.terminated | window.truncated).at[-1].set(True), axis=0)

    def row_at_the_end(x: Array) -> Array:
        _checks.require_leading_shape("every leaf of window.next_obs", x, reward.shape, of="window.reward")
        rows = x.reshape(-1, *x.shape[reward.ndim :])
        return rows[last * last.size + jnp.arange(last.size).reshape(last.shape)]

    first = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
    next_obs = jax.tree.map(row_at_the_end, window.next_obs)
    return Transition(first(window.obs), first(window.action), reward[0], weight[0], next_obs)
