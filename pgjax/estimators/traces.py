"""Eligibility traces: what was done and seen before, faded, as one pytree that is carried from step to step."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, Trajectory, Value
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.returns.recurrence import weigh

Array = jax.Array


@compiled()
def scores_and_slopes(params: Params, trajectory: Trajectory, *, policy: Policy, value: Value) -> tuple[Params, Params]:
    """Compute the score of each trajectory and the slope of its value, summed over its steps.

        Σ_t ∇log π(a_t|s_t),   Σ_t ∇V(s_t)

    Of a window of one step they are what traces are made of: see `accumulating_trace` and `dutch_trace`.

    Shapes: trajectory leaves [T, B, ...]; leaves of the results [B, ...], those of params behind B.

    Args:
        params: parameters of the policy and the value function, shared or side by side in one pytree.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras), feed-forward.
        value: value(params, obs) -> [...] float, reward units.

    Returns:
        The scores and the slopes, pytrees like params with a leading axis for each batch axis.

    Raises:
        TypeError: if the policy returns no distribution.
        ValueError: if its log_prob is not one number for each step.

    Properties:
        The mean of the score over actions of the policy itself is 0. Memory that of the parameters for each trajectory.

    Example:
        >>> scores, slopes = pg.scores_and_slopes(params, trajectory, policy=policy, value=value)
        >>> scores["policy"].shape, slopes["value"].shape
        ((3, 2, 2), (3, 2))

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.5.
    """

    def log_prob(params: Params, t: Trajectory) -> Array:
        return jnp.sum(log_prob_taken(action_distribution(params, t, policy=policy), t))

    def of_value(params: Params, t: Trajectory) -> Array:
        return jnp.sum(value(params, t.obs))

    score, slope = jax.grad(log_prob), jax.grad(of_value)
    for _ in trajectory.reward.shape[1:]:
        score, slope = (jax.vmap(x, in_axes=(None, 1)) for x in (score, slope))
    return score(params, trajectory), slope(params, trajectory)


@compiled()
def accumulating_trace(trace: Params, gradient: Params, *, decay: Array | float) -> Params:
    """Carry an accumulating eligibility trace one step on.

        z_t = γ λ z_{t-1} + g_t

    With g the score ∇log π(a_t|s_t) it is the trace of an actor, with g = ∇V(s_t) that of a critic. `trace_gradient`
    makes a gradient of it.

    Shapes: decay [...]; leaves of trace, gradient and the result have these axes first, then
    those of a parameter.

    Args:
        trace: z_{t-1}, a pytree of floats, one trace for each entry of decay; zeros at first.
        gradient: g_t, a pytree like trace.
        decay: γλ, scalar or [...], one for each environment; 0 where an episode starts, so that nothing of the one
            before comes in.

    Returns:
        z_t, a pytree like trace.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if the trees differ, or a leaf does not start with the axes of decay.

    Properties:
        Over an episode of constant parameters Σ_t δ_t z_t = Σ_t (G_t - V(s_t)) g_t, with G the λ-return and δ the
        temporal-difference error: what looks back equals what looks ahead. With parameters that change in between, the
        two differ in the second order of the step size. NaN and infinity do not cross a decay of 0. Memory that of the
        parameters for each environment.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> trace = jnp.array([[1.0, 0.0], [1.0, 0.0]])
        >>> print(pg.accumulating_trace(trace, jnp.eye(2), decay=jnp.array([0.5, 0.0])))
        [[1.5 0. ]
         [0.  1. ]]

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, sections 12.2 and 13.5.
    """
    trace, gradient, decay = _checked(trace, gradient, decay)
    return jax.tree.map(lambda z, g: weigh(_along(decay, z), z) + g, trace, gradient)


@compiled()
def dutch_trace(trace: Params, gradient: Params, *, decay: Array | float, step_size: Array | float) -> Params:
    """Carry a dutch eligibility trace one step on, that of true online temporal-difference learning.

        z_t = γ λ z_{t-1} + (1 - α γ λ ⟨z_{t-1}, x_t⟩) x_t

    Shapes: decay, step_size [...]; leaves of trace, gradient and the result have these axes first, then
    those of a parameter.

    Args:
        trace: z_{t-1}, a pytree of floats, one trace for each entry of decay; zeros at first.
        gradient: x_t, a pytree like trace: the features of a linear critic, or ∇V(s_t).
        decay: γλ, scalar or [...], one for each environment; 0 where an episode starts.
        step_size: α, scalar or [...], by which the critic will be moved along `trace_gradient`.

    Returns:
        z_t, a pytree like trace. The product ⟨z, x⟩ sums over all leaves and all axes behind those of decay.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if the trees differ, or a leaf does not start with the axes of decay.

    Properties:
        For a critic that is linear in its parameters, plain steps of size α along `trace_gradient` with its
        value_change reach after every step the parameters of the online λ-return algorithm, exactly. For other critics
        that holds to first order in α only, as it does for an accumulating trace. α = 0 makes it the accumulating
        trace. NaN and infinity do not cross a decay of 0.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> trace = jnp.array([1.0, 0.0])
        >>> print(pg.dutch_trace(trace, jnp.array([1.0, 1.0]), decay=0.5, step_size=0.5))
        [1.25 0.75]

    References:
        Van Seijen, Mahmood, Pilarski, Machado and Sutton (2016), True online temporal-difference learning.
    """
    trace, gradient, decay = _checked(trace, gradient, decay)
    faded = jax.tree.map(lambda z: weigh(_along(decay, z), z), trace)
    inner = sum(
        jnp.sum(z * g, axis=tuple(range(decay.ndim, z.ndim)))
        for z, g in zip(jax.tree.leaves(faded), jax.tree.leaves(gradient), strict=True)
    )
    share = 1.0 - _checks.as_scalar_or_shape("step_size", step_size, jnp.shape(inner)) * inner
    return jax.tree.map(lambda z, g: z + _along(share, z) * g, faded, gradient)


@compiled()
def trace_gradient(
    trace: Params, gradient: Params, *, td_error: Array | float, value_change: Array | float = 0.0
) -> Params:
    """Make a gradient of a trace and a temporal-difference error: a descent direction.

        -δ_t z_t                                    for an actor, or a critic with an accumulating trace
        -[(δ_t + Δ_t) z_t - Δ_t x_t],  Δ_t = V_t(s_t) - V_{t-1}(s_t)        for a critic with a dutch trace

    Shapes: td_error, value_change [...]; leaves of trace, gradient and the result have these axes first, then
    those of a parameter.

    Args:
        trace: z_t, a pytree of floats, the gradient of step t already in it.
        gradient: x_t = ∇V(s_t), a pytree like trace; without effect where value_change is 0.
        td_error: δ_t = r_t + γ V(s_{t+1}) - V(s_t), scalar or [...], reward units, all values by the same parameters.
        value_change: Δ_t, scalar or [...], how much the last step of the parameters changed the value of the
            observation in which the action was chosen; any number at the first step of an episode.

    Returns:
        A pytree like trace: the gradient of each environment.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if the trees differ, or a leaf does not start with the axes of td_error.

    Properties:
        At the first step of an episode z = x, and the second form is the first. Nothing is averaged.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> z, x = jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0])
        >>> print(pg.trace_gradient(z, x, td_error=0.5), pg.trace_gradient(z, x, td_error=0.5, value_change=0.5))
        [-1.  -0.5] [-2.  -0.5]

    References:
        Van Seijen, Mahmood, Pilarski, Machado and Sutton (2016), True online temporal-difference learning.
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, sections 12.5 and 13.5.
    """
    trace, gradient, td_error = _checked(trace, gradient, td_error, name="td_error")
    change = _checks.as_scalar_or_shape("value_change", value_change, td_error.shape)
    return jax.tree.map(lambda z, g: _along(change, z) * g - _along(td_error + change, z) * z, trace, gradient)


def _checked(trace: Params, gradient: Params, each: Any, name: str = "decay") -> tuple[Params, Params, Array]:
    """The trees in at least float32, and the number that belongs to each environment."""
    each = _checks.as_floating(name, each)
    _checks.require_same_structure("gradient", gradient, trace, of="trace")
    trace = jax.tree.map(lambda x: _checks.as_floating("trace", x), trace)
    gradient = jax.tree.map(lambda x: _checks.as_floating("gradient", x), gradient)
    for z, g in zip(jax.tree.leaves(trace), jax.tree.leaves(gradient), strict=True):
        _checks.require_same_shape("trace", z.shape, gradient=g)
        _checks.require_leading_shape("each leaf of trace", z, each.shape, of=name)
    return trace, gradient, each


def _along(number: Array, leaf: Array) -> Array:
    """Give a number for each environment the axes of a leaf."""
    return number.reshape(number.shape + (1,) * (leaf.ndim - number.ndim)).astype(leaf.dtype)
