"""Surrogates whose derivatives of any order are estimates, and products with their Hessians."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.estimators.score_function import Baseline, _baseline, _to_go
from pgjax.estimators.surrogate import Surrogate, _finite_where_masked, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, weighted
from pgjax.expectation import gradient_only
from pgjax.returns import affine_recurrence, discount_weight

Array = jax.Array


@estimator(unit_interval=("discount",))
def dice(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    discount: Array | float,
    baseline: Baseline | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate derivatives of -J of any order by DiCE, of which the gradient is a descent direction.

        L = -1/B Σ_b Σ_t γ^t [ r_t □(Σ_{k<=t} log π(a_k|s_k)) + b_t (1 - □(log π(a_t|s_t))) ],   □(x) = exp(x - stop(x))

    The sum over k runs inside the episode. □ is 1, and its derivatives are those of a likelihood ratio: each reward
    carries the scores of the actions before it however often it is differentiated. ``pg.dice.surrogate`` is L.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column holds whole episodes. Of an episode that began before the window only
            what is inside the window is counted.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        discount: γ, scalar or [T, B] and equal within an episode, in [0, 1], per environment step, counted from the
            start of the episode.
        baseline: b, subtracted from the return to go: a scalar, an array [T, B], or a function of the returns [T, B]
            such as `leave_one_out`; constant in every derivative. None subtracts nothing.
        mask: [T, B] bool, steps whose scores count; None counts all. Rewards count everywhere: pad with 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`, whose
        loss is minus the mean discounted return.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or discount is a number outside [0, 1].

    Properties:
        With whole episodes gradient, Hessian and all higher derivatives of the surrogate are unbiased for the
        discounted objective, for any baseline that does not depend on the own action. The gradient is, trajectory by
        trajectory, that of `reinforce` with the weight γ^t. The baseline lowers the variance of the gradient, and
        leaves terms of higher derivatives without one: `loaded_dice` has it in all. A scalar discount and the rewards
        carry gradients, for meta-gradients; the baseline does not.

    Example:
        >>> value = pg.dice.surrogate(params, trajectory, policy=policy, discount=0.5)
        >>> print(value.round(4))
        -2.5417
        >>> by_dice, _ = pg.dice(params, trajectory, policy=policy, discount=0.5)
        >>> weight = pg.discount_weight(trajectory.step, 0.5)
        >>> by_scores, _ = pg.reinforce(params, trajectory, policy=policy, discount=0.5, step_weight=weight)
        >>> bool(jnp.allclose(by_dice["policy"], by_scores["policy"], atol=1e-6))
        True

    References:
        Foerster, Farquhar, Al-Shedivat, Rocktäschel, Xing and Whiteson (2018), DiCE: the infinitely differentiable
        Monte Carlo estimator.
    """
    shape = trajectory.reward.shape
    discount = _checks.as_scalar_or_shape("discount", discount, shape)
    returns = _to_go(trajectory, discount)
    targets = {
        "baseline": jnp.broadcast_to(_baseline(baseline, returns), shape).astype(returns.dtype),
        "counts": _counts(mask, trajectory),
        # A scalar stays outside, where gradients reach it; an array has to be cut into columns.
        **({"discount": discount.astype(returns.dtype)} if discount.ndim else {}),
    }

    def loss(params: Params, t: Trajectory, targets: Any, state: RolloutState | None) -> Array:
        weight = discount_weight(t.step, targets.get("discount", discount))
        readable = t if mask is None else _finite_where_masked(targets["counts"], t)
        log_prob = _log_prob(params, readable, policy, state, targets["counts"])
        so_far = affine_recurrence(log_prob, _carried(t, log_prob), reverse=False)
        earned = t.reward + t.reward * jnp.expm1(gradient_only(so_far))
        return weight * (targets["baseline"] * jnp.expm1(gradient_only(log_prob)) - earned)

    return Surrogate(loss, targets, state=state)


@estimator(unit_interval=("dice_lam",))
def loaded_dice(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    advantage: Array,
    dice_lam: Array | float = 1.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate derivatives of -J of any order by Loaded DiCE, of which the gradient is a descent direction.

        L = -1/B Σ_b Σ_t w_t A_t [ □(Z_t) - □(Z_t - log π(a_t|s_t)) ],   Z_t = λ_D Z_{t-1} + log π(a_t|s_t)

    Z starts anew in each episode, and □(x) = exp(x - stop(x)). λ_D says how much an advantage depends on the actions
    before its own; it acts on the second derivative and on higher ones.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column holds whole episodes.
        policy: policy(params, obs) -> distribution or (distribution, extras); static.
        advantage: A, [T, B] float, such as `gae`, or the return to go minus a baseline; constant in every derivative.
        dice_lam: λ_D, scalar in [0, 1].
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps that count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`. The loss
        is 0 whatever the policy earns.

    Raises:
        TypeError: if a mask is not boolean, an array not floating, or the policy returns no distribution.
        ValueError: if shapes differ, the window is empty, or dice_lam is a number outside [0, 1].

    Properties:
        With λ_D = 1, w = γ^t and whole episodes every derivative is unbiased for the discounted objective where the
        advantages are: returns to go minus any baseline of the state, or `gae` at any λ with the exact value. Other
        advantages bias all derivatives. With returns to go minus a baseline and λ_D = 1 this is the baseline for all
        orders of Mao et al. (2019). The gradient does not depend on λ_D: it is `reinforce` with these weights.
        With λ_D < 1 the Hessian and what follows are biased and vary less; λ_D = 0, the surrogate of low variance
        curvature of ProMP, leaves out every product of scores of different steps, by design.

    Example:
        >>> def curvature(dice_lam):
        ...     of = lambda p: pg.loaded_dice.surrogate(
        ...         p, trajectory, policy=policy, advantage=trajectory.reward, dice_lam=dice_lam)
        ...     vector = {"policy": jnp.eye(2), "value": jnp.zeros(2)}
        ...     return pg.hessian_vector_product(params, of)(vector)["policy"][0, 0]
        >>> print(f"{curvature(1.0):.4f} {curvature(0.0):.4f}")
        0.0159 -0.0004

    References:
        Farquhar, Whiteson and Foerster (2019), Loaded DiCE: trading off bias and variance in any-order score function
        estimators for reinforcement learning.
        Mao, Foerster, Rocktäschel, Al-Shedivat, Farquhar and Whiteson (2019), A baseline for any order gradient
        estimation in stochastic computation graphs.
        Rothfuss, Lee, Clavera, Asfour and Abbeel (2019), ProMP: proximal meta-policy search.
    """
    advantage = _checks.as_floating("advantage", advantage)
    _checks.require_shape("advantage", advantage, trajectory.reward.shape, of="trajectory.reward")
    if jnp.ndim(dice_lam):
        raise ValueError(f"dice_lam must be a scalar, got shape {list(jnp.shape(dice_lam))}. It is one for all steps.")
    targets = {"weight": weighted(advantage, step_weight), "counts": _counts(mask, trajectory)}

    def loss(params: Params, t: Trajectory, targets: Any, state: RolloutState | None) -> Array:
        log_prob = _log_prob(params, t, policy, state, targets["counts"])
        so_far = affine_recurrence(log_prob, dice_lam * _carried(t, log_prob), reverse=False)
        with_own, without = (jnp.expm1(gradient_only(x)) for x in (so_far, so_far - log_prob))
        return -targets["weight"] * (with_own - without)

    return Surrogate(loss, targets, mask, state)


def hessian_vector_product(params: Params, surrogate: Callable[[Params], Array]) -> Callable[[Params], Params]:
    """Make a function that multiplies a vector by the Hessian of a surrogate, without the Hessian.

        v -> ∇²L(θ) v, the derivative of ∇L along v

    Shapes: surrogate gives a scalar; vector and product like params.

    Args:
        params: θ, the point.
        surrogate: of params, such as ``lambda p: pg.dice.surrogate(p, trajectory, policy=policy, discount=0.9)``.

    Returns:
        A function of a vector, a pytree like params, that gives the product, another one. It is linear, and suits
        `jax.scipy.sparse.linalg.cg`.

    Raises:
        TypeError: if surrogate is no function, or does not give floats; if params are not floating.
        ValueError: if the surrogate does not give one number, or the vector is not like params.

    Properties:
        Forward over reverse: the gradient is linearised once, and each product costs about as much as a gradient.
        Right for the objective only if second derivatives of the surrogate are: for `dice`, and for `loaded_dice` with
        dice_lam=1, the product is an unbiased estimate of that with the Hessian of -J. The surrogates of all other
        estimators are for one derivative: their Hessian lacks every product of scores. It is not compiled by itself,
        since the surrogate is as a rule a function made anew: call it inside `jax.jit`.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> product = pg.hessian_vector_product(jnp.array([1.0, 2.0]), lambda x: x[0] ** 2 * x[1])
        >>> print(product(jnp.array([1.0, 0.0])), product(jnp.array([0.0, 1.0])))
        [4. 2.] [2. 0.]

    References:
        Pearlmutter (1994), Fast exact multiplication by the Hessian.
    """
    _checks.require_callable("surrogate", surrogate)
    _checks.require_differentiable("params", params)
    params = jax.tree.map(jnp.asarray, params)

    def scalar(params: Params) -> Array:
        value = _checks.as_floating("the result of surrogate", surrogate(params))
        if value.ndim:
            raise ValueError(
                f"surrogate must give one number, got shape {list(value.shape)}. Sum over time and take the mean over "
                "the batch, as the surrogate of an estimator does."
            )
        return value

    _, along = jax.linearize(jax.grad(scalar), params)

    def product(vector: Params) -> Params:
        _checks.require_same_structure("vector", vector, params, of="params")
        for v, p in zip(jax.tree.leaves(vector), jax.tree.leaves(params), strict=True):
            _checks.require_shape("each leaf of vector", v, p.shape, of="its leaf of params")
        return along(jax.tree.map(lambda v, p: jnp.asarray(v, p.dtype), vector, params))

    return product


def _counts(mask: Array | None, trajectory: Trajectory) -> Array:
    """Which scores count, [T, B] bool."""
    if mask is None:
        return jnp.ones(trajectory.reward.shape, bool)
    return _checks.as_boolean("mask", mask, like=trajectory.reward)


def _log_prob(params: Params, t: Trajectory, policy: Policy, state: RolloutState | None, counts: Array) -> Array:
    """Log-probability of the actions whose scores count, 0 elsewhere: [T, B]."""
    distribution = action_distribution(params, t, policy=policy, state=state)
    return jnp.where(counts, log_prob_taken(distribution, t), 0.0)


def _carried(t: Trajectory, like: Array) -> Array:
    """1 where the row before belongs to the same episode, else 0: [T, B]."""
    goes_on = 1.0 - t.done.astype(like.dtype)
    return jnp.concatenate([jnp.zeros_like(goes_on[:1]), goes_on[:-1]])
