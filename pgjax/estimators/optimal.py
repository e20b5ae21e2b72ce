"""Baselines of least variance: what is best subtracted, found by regressing the estimate on the scores."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.baselines._folds import checked_folds, solve_ridge, sum_over_others
from pgjax.estimators.surrogate import Contributions, Surrogate, estimator
from pgjax.estimators.terms import action_distribution, log_prob_taken, weighted
from pgjax.losses import policy_gradient_loss
from pgjax.returns import affine_recurrence

Array = jax.Array


@estimator("num_folds", "per_parameter")
def optimal_baseline_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    earned: Array,
    features: Array | None = None,
    coefficients: Params | None = None,
    num_folds: int | None = None,
    per_parameter: bool = False,
    ridge: Array | float = 1e-5,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Contributions:
    """Estimate the gradient of -J with the linear baseline of least variance subtracted: a descent direction.

        g = -1/B Σ_i [Y_i - Σ_f β_f C_if],   Y_i = Σ_t w_t e_t ∇log π(a_t|s_t),   C_if = Σ_t w_t φ_f,t ∇log π(a_t|s_t)
        β for trajectory i minimises Σ_{j∉fold(i)} ‖Y_j - Σ_f β_f C_jf‖², for each parameter by itself if so asked

    e is what was earned, φ the features of a baseline b_t = Σ_f β_f φ_f,t. Without features it is one constant.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        earned: e, [T, B] float, reward units, a constant: the total return repeated for the estimator of
            `likelihood_ratio`, the return to go for that of `reinforce`, an advantage.
        features: φ, [T, B, F] float; None is a single one that is 1. They may depend on the state and the step, not on
            the own action or what came of it.
        coefficients: β from `fit_optimal_baseline` on other data, in place of what the folds say.
        num_folds: folds of trajectories that are next to one another, from 1 to B; None is B, every trajectory left out
            in turn; 2 lets two halves swap; 1 leaves out nothing (plug-in).
        per_parameter: whether each parameter has a baseline of its own.
        ridge: what is added to the diagonal of the normal equations, as a share of it. 0 only for features that are
            independent in every fold.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps whose scores count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if an array is not floating, or the policy returns no distribution.
        ValueError: if shapes differ, or there are fewer trajectories than folds, or one alone to be left out.

    Properties:
        Unbiased for whatever it is unbiased for without the baseline, with two folds or more and with coefficients from
        other data; biased by O(1/B) with num_folds=1. With total returns and no features it is the constant of Weaver
        and Tao; with per_parameter=True that of Peters and Schaal. With returns to go, w = γ^t and one-hot steps it is
        the best baseline that depends on the step, which is also the joint optimum of `gpomdp`, Σ_l (γ^l r_l - b_l) Z_l
        (b_l = β_l - β_l+1); with one-hot states it estimates `exact.trajectory_optimal_baseline`. F + 1 backward passes
        and (F + 1) B times the memory of the parameters. Axes after B share the fold of their column.

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, pgjax as pg
        >>> reward, no = jnp.array([[1.0, 1.0, 3.0]]), np.zeros((1, 3), bool)
        >>> obs, action = jnp.ones((1, 3, 1)), jnp.array([[0, 1, 0]])
        >>> trajectory = pg.Trajectory(obs, action, reward, obs, ~no, no, reward, no.astype(int))
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> grads, _ = pg.optimal_baseline_gradient(
        ...     jnp.zeros(2), trajectory, policy=policy, earned=reward, per_parameter=True, ridge=0.0)
        >>> print(grads.round(3))
        [-0.333  0.333]

    References:
        Weaver and Tao (2001), The optimal reward baseline for gradient-based reinforcement learning.
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning. Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    earned = _checks.as_floating("earned", earned)
    each, controls = _scores(params, trajectory, policy, earned, features, step_weight, mask, state)
    if coefficients is None:
        batch = trajectory.reward.shape[1:]
        size = batch[0] if batch else 1
        folds = checked_folds(num_folds, size)

        def over_others(x: Array) -> Array:
            columns = x.reshape(size, -1, *x.shape[1:])
            sums = sum_over_others(columns.sum(1), folds)
            return jnp.broadcast_to(sums[:, None], columns.shape).reshape(x.shape)

        fitted = _solved(each, controls, over_others, per_parameter, ridge)
    else:
        fitted = jax.tree.map(lambda x: x[None], _checked_coefficients(coefficients, params, controls, per_parameter))

    def left(y: Array, c: Array, beta: Array) -> Array:
        return y - jnp.sum(c * jnp.moveaxis(beta, -1, 1).reshape(beta.shape[0], -1, *beta.shape[1:-1]), 1)

    if not per_parameter:
        fitted = jax.tree.map(lambda y: fitted.reshape(fitted.shape[0], *(1,) * (y.ndim - 1), -1), each)
    grads = jax.tree.map(left, each, controls, fitted)
    lead = trajectory.reward.shape[1:]
    return Contributions(jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), grads), earned)


@compiled("per_parameter")
def fit_optimal_baseline(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    earned: Array,
    features: Array | None = None,
    per_parameter: bool = False,
    ridge: Array | float = 1e-5,
    weight: Array | None = None,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Params:
    """Fit the linear baseline of least variance to a batch, to be used on others.

        min_β Σ_i p_i ‖Y_i - Σ_f β_f C_if‖²,   Y and C as for `optimal_baseline_gradient`

    Shapes: trajectory leaves [T, B, ...]; result [F], or like params with a last axis [F] more.

    Args:
        As for `optimal_baseline_gradient`, and:

        weight: p, [B] float, probabilities of listed trajectories or importance weights, at least 0; None is 1.

    Returns:
        β, the argument `coefficients` of `optimal_baseline_gradient`: [F] float, or with per_parameter=True a pytree
        like params, leaves [..., F].

    Raises:
        TypeError: if an array is not floating, or the policy returns no distribution.
        ValueError: if shapes differ.

    Properties:
        On all trajectories with their probabilities it is the optimum; on a sample it converges to it. On the very
        batch that it was fitted to, it biases the gradient by O(1/B).

    Example:
        >>> import jax, jax.numpy as jnp, numpy as np, pgjax as pg
        >>> reward, no = jnp.array([[1.0, 1.0, 3.0]]), np.zeros((1, 3), bool)
        >>> obs, action = jnp.ones((1, 3, 1)), jnp.array([[0, 1, 0]])
        >>> trajectory = pg.Trajectory(obs, action, reward, obs, ~no, no, reward, no.astype(int))
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.fit_optimal_baseline(jnp.zeros(2), trajectory, policy=policy, earned=reward, ridge=0.0).round(3))
        [1.667]

    References:
        Weaver and Tao (2001), The optimal reward baseline for gradient-based reinforcement learning.
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    earned = _checks.as_floating("earned", earned)
    each, controls = _scores(params, trajectory, policy, earned, features, step_weight, mask, state)
    batch = trajectory.reward.shape[1:]
    weight = jnp.ones(batch, earned.dtype) if weight is None else _checks.as_floating("weight", weight)
    _checks.require_shape("weight", weight, batch, "[B]")
    return _solved(each, controls, lambda x: jnp.tensordot(weight.ravel(), x, 1), per_parameter, ridge)


@compiled("cumulative")
def square_scores(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    cumulative: bool = False,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Array:
    """Compute the squared norm of the score of each step, or of all steps of the episode up to it.

        ‖ψ_t‖²,  ψ_t = ∇log π(a_t|s_t);   cumulative: ‖Z_t‖²,  Z_t = ψ_t + Z_{t-1} within the episode

    Shapes: trajectory leaves [T, B, ...]; result [T, B].

    Args:
        params: parameters of the policy.
        trajectory: the window; each column is one trajectory.
        policy: policy(params, obs) -> distribution or (distribution, extras).
        cumulative: whether the scores before it in its episode are added first. In the last row of a whole episode it
            is then that of the whole trajectory.
        mask: [T, B] bool, steps whose scores count; None counts all. Others have the score 0.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        [T, B] float, without gradient: weights for `optimal_baseline`, `step_baseline` and `fit_linear_baseline`.

    Raises:
        TypeError: if mask is not boolean, or the policy returns no distribution.
        ValueError: if shapes differ.

    Properties:
        T backward passes one after the other, each with B times the memory of the parameters.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> reward, no = jnp.ones((2, 1)), np.zeros((2, 1), bool)
        >>> obs = jnp.ones((2, 1, 1))
        >>> trajectory = pg.Trajectory(obs, no.astype(int), reward, obs, no, no, reward, np.arange(2)[:, None])
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> print(pg.square_scores(jnp.zeros(2), trajectory, policy=policy, cumulative=True).ravel())
        [0.5 2. ]

    References:
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning.
    """
    reward = _checks.as_floating("trajectory.reward", trajectory.reward, ndim_at_least=1)
    carry = 1.0 - trajectory.done.astype(reward.dtype)

    def of_row(row: Array) -> Array:
        ones = jnp.zeros_like(reward).at[row].set(1.0)
        if cumulative:  # 1 from the start of the episode of this row up to it
            ones = affine_recurrence(ones, carry)
        grads, _ = _weighted_scores.per_trajectory(
            params, trajectory, policy=policy, weight=ones, mask=mask, state=state
        )
        squares = [jnp.sum(jnp.square(x), range(reward.ndim - 1, x.ndim)) for x in jax.tree.leaves(grads)]
        return jnp.sum(jnp.stack(squares), axis=0)

    return jax.lax.stop_gradient(jax.lax.map(of_row, jnp.arange(reward.shape[0])))


@estimator
def _weighted_scores(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    weight: Array,
    mask: Array | None,
    state: RolloutState | None,
) -> Surrogate:
    def loss(params: Params, t: Trajectory, weight: Array, state: RolloutState | None) -> Array:
        distribution = action_distribution(params, t, policy=policy, state=state)
        return policy_gradient_loss(log_prob_taken(distribution, t), weight)

    return Surrogate(loss, weight, mask, state)


def _scores(
    params: Params,
    trajectory: Trajectory,
    policy: Policy,
    earned: Array,
    features: Array | None,
    step_weight: Array | None,
    mask: Array | None,
    state: RolloutState | None,
) -> tuple[Params, Params]:
    """-Y, leaves [N, ...], and -C, leaves [N, F, ...]: the batch axes are one."""
    shape = trajectory.reward.shape
    _checks.require_same_shape("trajectory.reward", shape, earned=earned)
    if features is None:
        features = jnp.ones((*shape, 1), earned.dtype)
    features = _checks.as_floating("features", features, ndim_at_least=1)
    _checks.require_shape("features", features, (*shape, features.shape[-1]), "[T, B, F]")
    rows = jnp.concatenate([earned[None], jnp.moveaxis(features, -1, 0)])
    rows = jax.vmap(lambda row: weighted(row, step_weight))(rows)

    def of_row(row: Array) -> Params:
        return _weighted_scores.per_trajectory(params, trajectory, policy=policy, weight=row, mask=mask, state=state)[0]

    grads = jax.vmap(of_row)(rows)
    grads = jax.tree.map(lambda x: x.reshape(len(rows), -1, *x.shape[len(shape) :]), grads)
    return jax.tree.map(lambda x: x[0], grads), jax.tree.map(lambda x: jnp.moveaxis(x[1:], 0, 1), grads)


def _solved(each: Params, controls: Params, summed: Any, per_parameter: bool, ridge: Array | float) -> Params:
    """β, leaves [N or none, ..., F]; without per_parameter one array [N or none, F]."""

    def equations(y: Array, c: Array) -> tuple[Array, Array]:
        return jnp.einsum("nf...,ng...->n...fg", c, c), jnp.einsum("nf...,n...->n...f", c, y)

    pairs = [equations(y, c) for y, c in zip(jax.tree.leaves(each), jax.tree.leaves(controls), strict=True)]
    if per_parameter:
        solved = [solve_ridge(summed(gram), summed(target), ridge) for gram, target in pairs]
        return jax.tree.unflatten(jax.tree.structure(each), solved)
    gram = sum(g.sum(tuple(range(1, g.ndim - 2))) for g, _ in pairs)
    target = sum(t.sum(tuple(range(1, t.ndim - 1))) for _, t in pairs)
    return solve_ridge(summed(gram), summed(target), ridge)


def _checked_coefficients(coefficients: Params, params: Params, controls: Params, per_parameter: bool) -> Params:
    size = jax.tree.leaves(controls)[0].shape[1]
    if not per_parameter:
        array = _checks.as_floating("coefficients", coefficients)
        _checks.require_shape("coefficients", array, (size,), "[F]")
        return array
    _checks.require_same_structure("coefficients", coefficients, params, of="params")
    for x, param in zip(jax.tree.leaves(coefficients), jax.tree.leaves(params), strict=True):
        _checks.require_shape("each leaf of coefficients", x, (*jnp.shape(param), size), "[..., F]")
    return coefficients
