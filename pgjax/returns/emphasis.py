"""The weight of a step when another policy decides which states are visited."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax.returns.recurrence import Method, affine_recurrence

Array = jax.Array


@compiled("method", unit_interval=("discount", "lam"))
def emphatic_weight(
    log_ratio: Array,
    *,
    terminated: Array,
    truncated: Array,
    discount: Array | float,
    interest: Array | float = 1.0,
    lam: Array | float = 1.0,
    initial: Array | float = 0.0,
    method: Method | None = None,
) -> Array:
    """Compute the emphasis of each step: what makes up for states that the behaviour policy visits too often or rarely.

        F_t = i_t + γ_{t-1} ρ_{t-1} F_{t-1} within the episode, F_t = i_t at its start      (follow-on trace)
        M_t = (1 - λ) i_t + λ F_t

    Use it as `step_weight`. λ = 1 is the follow-on trace itself, and the gradient that of the objective
    Σ_s d_μ(s) i(s) V(s). λ = 0 leaves the interest: with i = 1 this is the semi-gradient of off-policy actor-critic.
    Interest in the first step of each episode only, i_t = 1 where step_t = 0, makes M_t = γ^t times the ratio of all
    actions before t, and the objective the discounted one from the start.

    Shapes: every array [T, ...]; result [T, ...].

    Args:
        log_ratio: [T, ...] float, log π(a|s) - log μ(a|s), nats; beyond ±20 it is taken as ±20.
        terminated: [T, ...] bool, the episode ended by itself at this step.
        truncated: [T, ...] bool, the episode was cut by a limit at this step.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.
        interest: i, scalar or [T, ...], how much the value of the state counts; not negative, dimensionless.
        lam: λ, scalar or [T, ...], in [0, 1].
        initial: [...] or scalar, γ ρ F of the row before the window, for a window that goes on where another ended;
            0 for rows whose episode starts here.
        method: see `affine_recurrence`.

    Returns:
        [T, ...] float, the weights, dimensionless.

    Raises:
        TypeError: if a mask is not boolean or log_ratio is not floating.
        ValueError: if shapes differ, if the window is empty, or if discount or lam is a number outside [0, 1].

    Properties:
        With λ = 1 and states of the stationary distribution d_μ, E[M | s] d_μ(s) tends to (I - γ P_πᵀ)⁻¹ (d_μ i). Its
        variance is a sum over products of ratios and is infinite in the limit where γ² times the spectral radius of
        Σ_a μ ρ² P is 1 or more: see `exact.followon_spectral_radius`. A trace that starts with the window lacks what
        came before. Forward in time, O(T). Differentiable; as a step weight it is a constant.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> no, ratio = jnp.zeros(3, bool), jnp.array([2.0, 1.0, 1.0])
        >>> print(pg.emphatic_weight(jnp.log(ratio), terminated=no, truncated=no, discount=0.5))
        [1. 2. 2.]

    References:
        Sutton, Mahmood and White (2016), An emphatic approach to the problem of off-policy temporal-difference
        learning. Imani, Graves and White (2018), An off-policy policy gradient theorem using emphatic weightings.
        Degris, White and Sutton (2012), Off-policy actor-critic, for λ = 0.
    """
    log_ratio = _checks.as_floating("log_ratio", log_ratio, ndim_at_least=1)
    terminated = _checks.as_boolean("terminated", terminated, like=log_ratio)
    truncated = _checks.as_boolean("truncated", truncated, like=log_ratio)
    discount = _checks.as_scalar_or_shape("discount", discount, log_ratio.shape)
    interest = _checks.as_scalar_or_shape("interest", interest, log_ratio.shape)
    lam = _checks.as_scalar_or_shape("lam", lam, log_ratio.shape)
    interest = jnp.broadcast_to(interest, log_ratio.shape).astype(log_ratio.dtype)
    passed_on = jnp.where(terminated | truncated, 0.0, discount * ratio_of(log_ratio))
    factor = jnp.concatenate([jnp.ones_like(passed_on[:1]), passed_on[:-1]])
    trace = affine_recurrence(interest, factor, initial=initial, reverse=False, method=method)
    return (1.0 - lam) * interest + lam * trace
