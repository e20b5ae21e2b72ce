"""Targets for data that another policy collected, and the upgoing return."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax.returns._window import checked_window, next_row
from pgjax.returns.recurrence import Method, affine_recurrence, weigh

Array = jax.Array


@compiled("method", unit_interval=("discount", "lam"))
def vtrace(
    reward: Array,
    value: Array,
    next_value: Array,
    *,
    log_ratio: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip_rho: Array | float = 1.0,
    clip_c: Array | float = 1.0,
    clip_pg_rho: Array | float = 1.0,
    method: Method | None = None,
) -> tuple[Array, Array]:
    """Compute the V-trace value target and the advantage of each step.

        ρ_t = π/μ,  δ_t = min(ρ̄, ρ_t) (r_t + γ_t v'_t - v_t),  c_t = λ min(c̄, ρ_t)
        vs_t = v_t + δ_t + γ_t κ_t c_t (vs_{t+1} - v_{t+1})                         (paper: eq. 1, Remark 1)
        q'_t = λ vs_{t+1} + (1 - λ) v'_t inside an episode, v'_t where it is cut
        A_t = min(ρ̄_pg, ρ_t) (r_t + γ_t q'_t - v_t)

    The advantage of PufferLib 3, GAE with clipped ratios, is vs_t - v_t: the target minus value.

    Shapes: every array [T, ...]; results [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        value: [T, ...] float, value of the observation in which each action was chosen.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset.
        log_ratio: [T, ...] float, log π(a|s) - log μ(a|s), nats; beyond ±20 it is taken as ±20.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        lam: λ, scalar or [T, ...], in [0, 1].
        clip_rho: ρ̄ of the temporal difference, scalar or [T, ...]; it sets the fixed point. May be infinite.
        clip_c: c̄ of the trace, scalar or [T, ...]; it sets the speed only. May be infinite.
        clip_pg_rho: ρ̄_pg of the advantage, scalar or [T, ...]. May be infinite.
        method: see `affine_recurrence`.

    Returns:
        value_target [T, ...] and advantage [T, ...], both reward units; the advantage holds its clipped ratio.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount or lam is a number outside [0, 1].

    Properties:
        On-policy with ρ̄, c̄ >= 1 the target is the λ-return and both advantages are GAE(λ). The fixed point of
        the target is the value of the policy proportional to min(ρ̄ μ, π), whatever λ and c̄ are.
        Differentiable; the caller stops the gradients. NaN and infinity do not cross a cut. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no, v = jnp.zeros(2, bool), jnp.ones(2)
        >>> target, advantage = pg.vtrace(v, v, v, log_ratio=0 * v, terminated=no, truncated=no, discount=0.5)
        >>> print(target, advantage)
        [1.75 1.5 ] [0.75 0.5 ]

    References:
        Espeholt et al. (2018), IMPALA: scalable distributed deep-RL with importance weighted
        actor-learner architectures, eq. 1 and Remark 1.
    """
    reward, next_value, discount_t, cut = checked_window(reward, next_value, terminated, truncated, discount)
    value = _checks.as_floating("value", value)
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    _checks.require_same_shape("reward", reward.shape, value=value, log_ratio=log_ratio)
    lam = _checks.as_scalar_or_shape("lam", lam, reward.shape)
    clip_rho = _checks.as_scalar_or_shape("clip_rho", clip_rho, reward.shape)
    clip_c = _checks.as_scalar_or_shape("clip_c", clip_c, reward.shape)
    clip_pg_rho = _checks.as_scalar_or_shape("clip_pg_rho", clip_pg_rho, reward.shape)
    rho = ratio_of(log_ratio)
    delta = weigh(jnp.minimum(clip_rho, rho), reward + weigh(discount_t, next_value) - value)
    trace = jnp.where(cut, 0.0, lam * jnp.minimum(clip_c, rho))
    target = value + affine_recurrence(delta, discount_t * trace, method=method)
    mixed = weigh(lam, next_row(target)) + weigh(1.0 - lam, next_value)
    error = reward + weigh(discount_t, jnp.where(cut, next_value, mixed)) - value
    advantage = weigh(jnp.minimum(clip_pg_rho, rho), error)
    return target, advantage


@compiled("method", unit_interval=("discount", "lam"))
def retrace(
    reward: Array,
    action_value: Array,
    next_state_value: Array,
    *,
    log_ratio: Array,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    lam: Array | float = 1.0,
    method: Method | None = None,
) -> Array:
    """Compute the Retrace(λ) target for the value of the action taken at each step.

        c_t = λ min(1, ρ_t)
        Q*_t = r_t + γ_t [v'_t + κ_t c_{t+1} (Q*_{t+1} - Q_{t+1})],   v'_t = E_π Q(s_{t+1}, ·)

    The trace of the *next* action weighs the next step: the action at t itself is given, not corrected for.

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        action_value: [T, ...] float, Q(s_t, a_t) of the action taken.
        next_state_value: [T, ...] float, expected Q under π in the observation that each step led to, before any reset.
        log_ratio: [T, ...] float, log π(a|s) - log μ(a|s), nats; beyond ±20 it is taken as ±20.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        lam: λ, scalar or [T, ...], in [0, 1]; 0 gives Expected SARSA.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the targets, reward units.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount or lam is a number outside [0, 1].

    Properties:
        Fixed point Q of π for every λ and every behaviour policy with support. Differentiable; the caller
        stops the gradients. NaN and infinity do not cross a cut. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no, q = jnp.zeros(2, bool), jnp.ones(2)
        >>> print(pg.retrace(q, q, q, log_ratio=0 * q, terminated=no, truncated=no, discount=0.5, lam=1.0))
        [1.75 1.5 ]

    References:
        Munos, Stepleton, Harutyunyan and Bellemare (2016), Safe and efficient off-policy reinforcement learning.
    """
    reward, next_state_value, discount_t, cut = checked_window(
        reward, next_state_value, terminated, truncated, discount, next_value_name="next_state_value"
    )
    action_value = _checks.as_floating("action_value", action_value)
    log_ratio = _checks.as_floating("log_ratio", log_ratio)
    _checks.require_same_shape("reward", reward.shape, action_value=action_value, log_ratio=log_ratio)
    trace = _checks.as_scalar_or_shape("lam", lam, reward.shape) * jnp.minimum(1.0, ratio_of(log_ratio))
    trace = jnp.where(cut, 0.0, next_row(trace))
    error = reward + weigh(discount_t, next_state_value) - action_value
    return action_value + affine_recurrence(error, discount_t * trace, method=method)


@compiled("method", unit_interval=("discount",))
def upgo(
    reward: Array,
    value: Array,
    next_value: Array,
    *,
    next_action_value: Array | None = None,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    method: Method | None = None,
) -> Array:
    """Compute the upgoing return: follow the trajectory while it does better than expected, else bootstrap.

        G_t = r_t + γ_t G_{t+1}   if q_{t+1} >= v_{t+1} inside an episode,   q_t = r_t + γ_t v'_t
        G_t = r_t + γ_t v'_t      otherwise

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        reward: [T, ...] float, reward units.
        value: [T, ...] float, value of the observation in which each action was chosen.
        next_value: [T, ...] float, value of the observation that each step led to, before any reset.
        next_action_value: [T, ...] float, an estimate of the value of the *next* step's action that takes the
            place of q_{t+1}; or None.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the returns, reward units. The advantage is the result minus value.

    Raises:
        TypeError: if a mask is not boolean or an array is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount is a number outside [0, 1].

    Properties:
        Biased upwards by construction. Differentiable except where q equals v. NaN and infinity do not cross a cut; a
        NaN in q or v is followed. Time and memory O(T).

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no, r, v = jnp.zeros(2, bool), jnp.ones(2), jnp.full(2, 9.0)
        >>> print(pg.upgo(r, v, v, terminated=no, truncated=no, discount=0.5))
        [5.5 5.5]

    References:
        Vinyals et al. (2019), Grandmaster level in StarCraft II using multi-agent reinforcement learning, methods.
    """
    reward, next_value, discount_t, cut = checked_window(reward, next_value, terminated, truncated, discount)
    value = _checks.as_floating("value", value)
    one_step = reward + weigh(discount_t, next_value)
    if next_action_value is None:
        next_action_value = next_row(one_step)
    next_action_value = _checks.as_floating("next_action_value", next_action_value)
    _checks.require_same_shape("reward", reward.shape, value=value, next_action_value=next_action_value)
    # Not `>=`: what is not a number is followed, so that it shows in the result.
    follow = ~cut & ~(next_action_value < next_row(value))
    return affine_recurrence(jnp.where(follow, reward, one_step), jnp.where(follow, discount_t, 0.0), method=method)
