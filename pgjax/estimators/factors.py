"""Baselines that know the other factors of an action, where the policy chooses its factors independently."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Policy, RolloutState, Trajectory
from pgjax.distributions import Bernoulli, Beta, Categorical, MultiCategorical, Normal, TanhNormal, log_prob_of
from pgjax.estimators.expected import Critic
from pgjax.estimators.surrogate import Surrogate, estimator
from pgjax.estimators.terms import action_distribution, weighted
from pgjax.expectation import gradient_only

Array = jax.Array


@estimator
def factorized_gradient(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    advantage: Array,
    baseline: Array,
    step_weight: Array | None = None,
    mask: Array | None = None,
    state: RolloutState | None = None,
) -> Surrogate:
    """Estimate the gradient of -J with a baseline for each factor of the action: a descent direction.

        g = -1/B Σ_b Σ_t w_t Σ_i (A_t - b_ti) ∇log π_i(a_ti|s_t),   π(a|s) = Π_i π_i(a_i|s)

    The baseline of a factor may look at the state and at all other factors of the same action: see
    `counterfactual_baseline`.

    Shapes: trajectory leaves [T, B, ...]; gradient like params.

    Args:
        params: parameters of the policy.
        trajectory: the window, from the policy itself.
        policy: policy(params, obs) -> a distribution whose D components are independent, Normal, TanhNormal, Beta,
            Bernoulli or MultiCategorical; a Categorical counts as one factor. Or (distribution, extras).
        advantage: A, [T, B] float, what the action led to, reward units; a constant.
        baseline: b, [T, B, D] float, reward units; a constant. Entry i must not depend on a_i.
        step_weight: w, [T, B], for instance `discount_weight(trajectory.step, discount)`; None means 1.
        mask: [T, B] bool, steps that count; None counts all.
        state: for a recurrent policy, the state that the rollout started from.

    Returns:
        The gradient, a pytree like params, summed over time and averaged over the batch; and `GradientInfo`.

    Raises:
        TypeError: if the components of the distribution are not independent, or an array is not floating.
        ValueError: if shapes differ.

    Properties:
        Unbiased for whatever it is unbiased for with b = 0: given s and the other factors each score has mean zero. A
        baseline that sees its own a_i biases, in silence. Equal baselines for all factors make it the usual
        estimator. Factors may share parameters. Agents that act independently are factors: put them on the axis D,
        or, with an axis of agents [T, B, A] in the trajectory, give their baselines to any other estimator.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no, both = jnp.ones((2, 1)), np.zeros((2, 1), bool), np.zeros((2, 1, 2), int)
        >>> trajectory = pg.Trajectory(x[..., None], both, x, x[..., None], no, no, x, no.astype(int))
        >>> policy = lambda logits, obs: pg.MultiCategorical(jnp.broadcast_to(logits, (*obs.shape[:-1], 2, 2)))
        >>> baseline = jnp.broadcast_to(jnp.array([1.0, 0.0]), (2, 1, 2))
        >>> print(pg.factorized_gradient(
        ...     jnp.zeros((2, 2)), trajectory, policy=policy, advantage=x, baseline=baseline)[0])
        [[ 0.  0.]
         [-1.  1.]]

    References:
        Wu et al. (2018), Variance reduction for policy gradient with action-dependent factorized baselines. Foerster et
        al. (2018), Counterfactual multi-agent policy gradients.
    """
    advantage, baseline = _checks.as_floating("advantage", advantage), _checks.as_floating("baseline", baseline)
    _checks.require_same_shape("trajectory.reward", trajectory.reward.shape, advantage=advantage)
    _checks.require_leading_shape("baseline", baseline, advantage.shape, of="advantage")

    def loss(params: Params, t: Trajectory, targets: Any, state: Any) -> Array:
        left, weight = targets
        each = factor_log_probs(action_distribution(params, t, policy=policy, state=state), t)
        _checks.require_shape("baseline", left, each.shape, "[T, B, D], one entry for each factor,")
        return -weighted(jnp.sum(left * gradient_only(each), axis=-1), weight)

    if baseline.ndim != advantage.ndim + 1:
        raise ValueError(
            f"baseline must have shape [T, B, D], one axis more than advantage {list(advantage.shape)}, got "
            f"{list(baseline.shape)}. One baseline for all factors is subtracted from advantage."
        )
    weight = weighted(jnp.ones_like(advantage), step_weight)
    return Surrogate(loss, (advantage[..., None] - baseline, weight), mask, state)


def factor_log_probs(distribution: Any, trajectory: Trajectory) -> Array:
    """Compute the log-probability of each independent factor of the actions that were taken.

        log π_i(a_i | s),   whose sum over i is `log_prob_taken`

    Shapes: result [T, B, D].

    Args:
        distribution: Normal, TanhNormal, Beta, Bernoulli or MultiCategorical over D components; a Categorical is one
            factor, D = 1.
        trajectory: the window.

    Returns:
        [T, B, D] float, nats.

    Raises:
        TypeError: if the components of the distribution are not independent.

    Properties:
        As exact as `log_prob_taken`: a squashed action is scored before squashing. Differentiable.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((1, 1)), np.zeros((1, 1), bool)
        >>> trajectory = pg.Trajectory(x, jnp.array([[[0, 1]]]), x, x, no, no, x, no.astype(int))
        >>> print(pg.factor_log_probs(pg.Bernoulli(jnp.zeros((1, 1, 2))), trajectory))
        [[[-0.6931472 -0.6931472]]]

    References:
        Wu et al. (2018), Variance reduction for policy gradient with action-dependent factorized baselines.
    """
    action, raw = trajectory.action, trajectory.raw_action
    if isinstance(distribution, Categorical):
        return log_prob_of(distribution, action)[..., None]
    if isinstance(distribution, MultiCategorical):
        return log_prob_of(Categorical(distribution.log_probs), action)
    if not isinstance(distribution, (Normal, TanhNormal, Beta, Bernoulli)):
        raise TypeError(
            "the policy must give a distribution of independent components, Normal, TanhNormal, Beta, Bernoulli, "
            f"MultiCategorical or Categorical, got {type(distribution).__name__}. Without factors use a baseline of "
            "the state."
        )
    # Each component becomes a row of its own, whose action has one component.
    rows = jax.tree.map(lambda x: x[..., None], distribution)
    return log_prob_of(rows, action[..., None], None if raw is None else raw[..., None])


@compiled()
def counterfactual_baseline(
    distribution: Any, trajectory: Trajectory, *, critic: Critic, draws: Array | None = None
) -> Array:
    """Compute for each factor what a critic expects if that factor alone were chosen anew.

        b_i = E_{a'_i ~ π_i} Q(s, (a'_i, a_{-i})),   or the mean over draws of a'_i

    Shapes: result [T, B, D].

    Args:
        distribution: of the policy at each step, see `action_distribution`: MultiCategorical or Bernoulli, whose values
            are listed; any factorised one if draws are given.
        trajectory: the window.
        critic: Q, critic(obs, action) -> [...] float, reward units, for actions [T, B, D].
        draws: [M, T, B, D] actions drawn anew from the policy, independent of those taken; None lists every value.

    Returns:
        [T, B, D] float, reward units, the `baseline` of `factorized_gradient`.

    Raises:
        TypeError: if no draws are given and the values of a factor cannot be listed, or critic is not a function.
        ValueError: if draws do not end with the shape of the actions.

    Properties:
        Entry i does not depend on a_i. D K evaluations of the critic for K values, or D M for M draws.

    Example:
        >>> import jax.numpy as jnp, numpy as np, pgjax as pg
        >>> x, no = jnp.ones((1, 1)), np.zeros((1, 1), bool)
        >>> trajectory = pg.Trajectory(x, jnp.array([[[0, 1]]]), x, x, no, no, x, no.astype(int))
        >>> critic = lambda obs, action: action[..., 0] + 2.0 * action[..., 1]
        >>> print(pg.counterfactual_baseline(pg.Bernoulli(jnp.zeros((1, 1, 2))), trajectory, critic=critic))
        [[[2.5 1. ]]]

    References:
        Foerster et al. (2018), Counterfactual multi-agent policy gradients, for the listed form. Wu et al. (2018),
        Variance reduction for policy gradient with action-dependent factorized baselines, for the drawn one.
    """
    _checks.require_callable("critic", critic)
    action = jnp.asarray(trajectory.action)
    if draws is not None:
        values = jnp.asarray(draws, action.dtype)
        _checks.require_trailing_shape("draws", values, action.shape, of="trajectory.action")
        probs = jnp.full(values.shape, 1.0 / values.shape[0])
    else:
        probs = _probs_of_values(distribution)  # [K, T, B, D]
        values = jnp.arange(probs.shape[0], dtype=action.dtype).reshape(-1, *(1,) * action.ndim)
        values = jnp.broadcast_to(values, probs.shape)

    def of_factor(own: Array) -> Array:
        replaced = jax.vmap(lambda value: critic(trajectory.obs, jnp.where(own, value, action)))(values)
        chosen = jnp.sum(jnp.where(own, probs, 0.0), axis=-1)
        return jnp.sum(jnp.where(chosen > 0, chosen * replaced, 0.0), axis=0)

    one_of = jnp.eye(action.shape[-1], dtype=bool).reshape(-1, *(1,) * (action.ndim - 1), action.shape[-1])
    return jax.vmap(of_factor, out_axes=-1)(jnp.broadcast_to(one_of, (action.shape[-1], *action.shape)))


def _probs_of_values(distribution: Any) -> Array:
    if isinstance(distribution, MultiCategorical):
        return jnp.moveaxis(distribution.probs, -1, 0)
    if isinstance(distribution, Bernoulli):
        return jnp.stack([1.0 - distribution.probs, distribution.probs])
    raise TypeError(
        f"the values of a factor of {type(distribution).__name__} cannot be listed. Pass draws=..., actions drawn anew "
        "from the policy, or use MultiCategorical or Bernoulli."
    )
