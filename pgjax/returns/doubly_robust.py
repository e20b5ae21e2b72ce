"""Returns in which a critic of actions takes the place of chance, whatever the critic says."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax.returns._window import checked_window, next_row
from pgjax.returns.recurrence import Method, affine_recurrence, weigh

Array = jax.Array


@compiled("method", unit_interval=("discount",))
def doubly_robust_returns(
    reward: Array,
    action_value: Array,
    state_value: Array,
    *,
    log_ratio: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    next_value: Array | None = None,
    method: Method | None = None,
) -> tuple[Array, Array]:
    """Compute doubly robust returns: of each state, and of the action taken in it.

        X_t = r_t + γ_t V_{t+1} inside an episode,   r_t + γ_t v'_t where it is cut
        V_t = v_t + ρ_t (X_t - q_t),   v_t = E_π q(s_t, ·)

    On data of the policy itself ρ = 1, and X_t is the return less what the critic knew of later actions,
    G_t - Σ_{k>t} γ^{k-t} (q_k - v_k): as the `advantage` of `control_variate` with the same critic it makes the
    trajectory-wise control variate. q = v = 0 gives per-decision importance sampling.

    Shapes: every array [T, ...]; results [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        action_value: q, [T, ...] float, the critic's value of the action taken.
        state_value: v, [T, ...] float, the critic's mean over actions under π in the observation in which each action
            was chosen; another number biases.
        log_ratio: [T, ...] float, log π(a|s) - log μ(a|s), nats; beyond ±20 it is taken as ±20.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        next_value: v', [T, ...] float, value of the observation that each step led to, before any reset, used where an
            episode or the window is cut; None means 0.
        method: see `affine_recurrence`.

    Returns:
        V [T, ...] and X [T, ...], both reward units.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount is a number outside [0, 1].

    Properties:
        Unbiased for the values of π if the episode is whole, for any q. With the exact q its variance is that of the
        rewards and transitions alone. Products of ratios: heavy tails off policy. Differentiable, the ratios included:
        the gradient of V at the start of an episode is the doubly robust policy gradient. NaN and infinity do not cross
        a cut. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no, r = jnp.zeros(2, bool), jnp.ones(2)
        >>> state_return, action_return = pg.doubly_robust_returns(
        ...     r, 2 * r, r, log_ratio=jnp.log(r), terminated=no, truncated=no, discount=0.5)
        >>> print(state_return, action_return)
        [0. 0.] [1. 1.]

    References:
        Jiang and Li (2016), Doubly robust off-policy value evaluation for reinforcement learning. Cheng, Yan and Boots
        (2019), Trajectory-wise control variates for variance reduction in policy gradient methods. Huang and Jiang
        (2020), From importance sampling to doubly robust policy gradient.
    """
    bootstrap = jnp.zeros_like(_checks.as_floating("reward", reward)) if next_value is None else next_value
    reward, bootstrap, discount_t, cut = checked_window(reward, bootstrap, terminated, truncated, discount)
    action_value = _checks.as_floating("action_value", action_value)
    state_value = _checks.as_floating("state_value", state_value)
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    _checks.require_same_shape(
        "reward", reward.shape, action_value=action_value, state_value=state_value, log_ratio=log_ratio
    )
    rho = ratio_of(log_ratio)
    known = reward + weigh(jnp.where(cut, discount_t, 0.0), bootstrap)
    carried = jnp.where(cut, 0.0, discount_t)
    state_return = affine_recurrence(state_value + weigh(rho, known - action_value), rho * carried, method=method)
    return state_return, known + weigh(carried, next_row(state_return))
