"""Variance-reduced recursions: gradient transformations that correct an old gradient by what has changed since."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._ratios import ratio_of
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.terms import action_distribution, log_prob_taken
from pgjax.returns import affine_recurrence

Array = jax.Array
Weight = float | Array | Callable[[Array], Array | float]


@compiled()
def episode_ratio(
    params: Params, trajectory: Trajectory, *, policy: Policy, state: RolloutState | None = None
) -> Array:
    """Compute how much likelier each episode is under a policy than under the one that acted.

        ω_t = Π_k π(a_k|s_k) / μ(a_k|s_k),   the product over all rows of the episode that t belongs to

    As the `step_weight` of an estimator it makes the gradient at other parameters than those that collected the
    data: the transitions of the environment drop out of the ratio.

    Shapes: trajectory leaves [T, B, ...]; result [T, B].

    Args:
        params: of the policy whose gradient is wanted.
        trajectory: the window; log_prob is that of the policy that acted. Of an episode that goes on outside the window
            only the rows inside count.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        [T, B] float, the same number in all rows of an episode; a constant, without gradient.

    Raises:
        TypeError: if the policy returns no distribution.
        ValueError: if its log_prob is not one number for each step.

    Properties:
        Its mean over whole episodes of the policy that acted is 1; its variance grows exponentially with their length.
        The logarithm is bounded at ±20.

    Example:
        >>> weight = pg.episode_ratio(params, trajectory, policy=policy)  # the policy itself: all of them are 1
        >>> weight.shape, round(float(abs(weight - 1.0).max()), 5)
        ((4, 3), 0.0)

    References:
        Precup, Sutton and Singh (2000), Eligibility traces for off-policy policy evaluation.
    """
    distribution = action_distribution(params, trajectory, policy=policy, state=state)
    log_ratio = jax.lax.stop_gradient(log_prob_taken(distribution, trajectory) - trajectory.log_prob)
    carry = 1.0 - trajectory.done.astype(log_ratio.dtype)
    zero = jnp.zeros_like(log_ratio[:1])
    before = jnp.concatenate([zero, log_ratio[:-1] * carry[:-1]]), jnp.concatenate([zero, carry[:-1]])
    total = affine_recurrence(*before, reverse=False) + affine_recurrence(log_ratio, carry)
    return ratio_of(total)


class RecursionState(NamedTuple):
    """What a variance-reduced recursion compares with."""

    num_updates: Array  # scalar int32, updates so far
    params: Any  # the parameters at the anchor: those of the update before, or the snapshot
    estimate: Any  # the estimate there


def scale_by_storm(weight: Weight) -> optax.GradientTransformationExtraArgs:
    """Make a transformation that carries the gradient of the update before along: STORM, and PAGE.

        d_t = g_t + (1 - α_t) (d_{t-1} - g'_t),   d_0 = g_0

    g_t is the gradient of the batch, collected at θ_t, and g'_t = gradient_at(θ_{t-1}) that of the *same batch* at the
    parameters before. α = 1 is plain stochastic gradient descent, α = 0 SARAH's recursion; a schedule that is 1 at some
    updates, for which the batch should be large, and 0 at the others is PAGE.

    Shapes: the estimate like params; weight scalar.

    Args:
        weight: α, a number in [0, 1], or a schedule, count -> such a number.

    Returns:
        An `optax.GradientTransformationExtraArgs`, whose update takes, by name, ``gradient_at``: a function of
        parameters that returns the gradient of the batch there, weighed by the likelihood of its episodes,
        such as ``lambda old: pg.reinforce(old, trajectory, policy=policy, discount=discount, step_weight=w *
        pg.episode_ratio(old, trajectory, policy=policy))[0]``. It is not called where α is 1. Put it first in a chain.

    Raises:
        TypeError: by its update, if params or gradient_at is missing.
        ValueError: if weight is a number outside [0, 1].

    Properties:
        Where g' is unbiased for the gradient at the old parameters, the error of d is (1 - α_t) times that of the
        update before, plus one of mean 0: unbiased from the start if d_0 is. The new error is small where the
        parameters moved little. Without the weights g' is biased. Two gradients an update.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> storm = pg.scale_by_storm(0.5)
        >>> state = storm.init(jnp.ones(1))
        >>> gradient_at = lambda params: 2.0 * params
        >>> _, state = storm.update(jnp.full(1, 3.0), state, jnp.ones(1), gradient_at=gradient_at)
        >>> print(storm.update(jnp.full(1, 5.0), state, jnp.full(1, 2.0), gradient_at=gradient_at)[0])
        [5.5]

    References:
        Cutkosky and Orabona (2019), Momentum-based variance reduction in non-convex SGD.
        Yuan, Lian, Liu and Zhou (2020), Stochastic recursive momentum for policy gradient methods.
        Li, Bao, Zhang and Richtárik (2021), PAGE: a simple and optimal probabilistic gradient estimator.
    """
    if not callable(weight):
        _checks.require_unit_interval("weight", weight)

    def update(updates: Any, state: RecursionState, params: Any = None, *, gradient_at: Any = None, **_: Any) -> Any:
        _require_arguments("scale_by_storm", params, gradient_at)
        alpha = jnp.asarray(weight(state.num_updates) if callable(weight) else weight)
        alpha = jnp.where(state.num_updates == 0, 1.0, alpha)
        estimate = _corrected(updates, state, alpha, gradient_at)
        return estimate, RecursionState(state.num_updates + 1, params, estimate)

    return optax.GradientTransformationExtraArgs(_init, update)


def scale_by_svrpg(period: int) -> optax.GradientTransformationExtraArgs:
    """Make a transformation that corrects the gradient of a large batch until the next one: SVRPG.

        v_t = g_t + μ - g'_t,   g'_t = gradient_at(θ̃) on the batch of θ_t;   every period updates θ̃ = θ_t, μ = v_t = g_t

    Shapes: the estimate like params.

    Args:
        period: updates from one snapshot θ̃ to the next, at least 1; the batch of updates 0, period, 2 period, ...
            should be large.

    Returns:
        An `optax.GradientTransformationExtraArgs`, whose update takes, by name, ``gradient_at``, as that of
        `scale_by_storm`. It is not called at a snapshot. Put it first in a chain.

    Raises:
        TypeError: if period is not an int; by its update, if params or gradient_at is missing.
        ValueError: if period < 1.

    Properties:
        Unbiased where g, g' and the gradient at the snapshot are. Near the snapshot g - g' is nearly 0 and the
        variance is that of the large batch; far from it the weights make it larger than without. period = 1 is plain
        stochastic gradient descent. Two gradients an update.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> svrpg = pg.scale_by_svrpg(10)
        >>> state = svrpg.init(jnp.ones(1))
        >>> gradient_at = lambda params: 2.0 * params
        >>> _, state = svrpg.update(jnp.full(1, 3.0), state, jnp.ones(1), gradient_at=gradient_at)
        >>> print(svrpg.update(jnp.full(1, 5.0), state, jnp.full(1, 2.0), gradient_at=gradient_at)[0])
        [6.]

    References:
        Papini, Binaghi, Canonaco, Pirotta and Restelli (2018), Stochastic variance-reduced policy gradient.
    """
    period = _checks.as_positive_int("period", period)

    def update(updates: Any, state: RecursionState, params: Any = None, *, gradient_at: Any = None, **_: Any) -> Any:
        _require_arguments("scale_by_svrpg", params, gradient_at)
        snapshot = state.num_updates % period == 0
        estimate = _corrected(updates, state, jnp.where(snapshot, 1.0, 0.0), gradient_at)
        anchor, mean = jax.tree.map(
            lambda new, old: jnp.where(snapshot, new, old), (params, estimate), (state.params, state.estimate)
        )
        return estimate, RecursionState(state.num_updates + 1, anchor, mean)

    return optax.GradientTransformationExtraArgs(_init, update)


def _init(params: Params) -> RecursionState:
    return RecursionState(jnp.int32(0), jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.zeros_like, params))


def _corrected(updates: Any, state: RecursionState, alpha: Array, gradient_at: Callable[[Any], Any]) -> Any:
    """g + (1 - α) (estimate at the anchor - g' at the anchor); g' is not computed where α is 1."""

    def correct() -> Any:
        old = gradient_at(state.params)
        _checks.require_same_structure("the result of gradient_at", old, updates, of="the updates")
        return jax.tree.map(lambda g, d, h: (g + (1.0 - alpha) * (d - h)).astype(g.dtype), updates, state.estimate, old)

    return jax.lax.cond(alpha == 1.0, lambda: updates, correct)


def _require_arguments(name: str, params: Any, gradient_at: Any) -> None:
    if params is None or gradient_at is None:
        missing = "params" if params is None else "gradient_at"
        raise TypeError(
            f"the update of {name} misses {missing}: call update(grads, state, params, gradient_at=...), where "
            "gradient_at(params) is the gradient of the same batch at other parameters."
        )
    _checks.require_callable("gradient_at", gradient_at)
