"""The best baselines that depend on the state, for the reward-to-go estimator."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular.horizon import action_values_over_time
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.tabular.values import action_value
from pgjax.exact.variance._coefficients import checked_score
from pgjax.exact.variance.moments import pair_variance
from pgjax.exact.variance.pairs import gpomdp_pair

Array = jax.Array


@compiled()
def per_step_optimal_baseline(mdp: TabularMDP, probs: Array, *, score: Array | None = None) -> Array:
    """Compute the baseline that minimises the variance of the contribution of each step by itself.

        b(s) = E_a[‖ψ(s, a)‖² Q(s, a)] / E_a[‖ψ(s, a)‖²]

    It is not the best for the sum over a trajectory, where it can be worse than the value: see
    `trajectory_optimal_baseline`.

    Shapes: probs [S, A]; result [S], or [H, S] with a horizon.

    Args:
        mdp, probs, score: as for `gpomdp_pair`.

    Returns:
        [S] float, or [H, S] with a horizon; reward units; zero where the score is always zero.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning.
    """
    probs = checked_policy(mdp, probs)
    weight = probs * jnp.sum(checked_score(mdp, probs, score) ** 2, axis=-1)
    values = action_value(mdp, probs) if mdp.horizon is None else action_values_over_time(mdp, probs)
    total = jnp.sum(weight, axis=1)
    share = jnp.where(total[:, None] > 0, weight / jnp.where(total > 0, total, 1.0)[:, None], 0.0)
    return jnp.einsum("sa,...sa->...s", share, values)


@compiled()
def trajectory_optimal_baseline(
    mdp: TabularMDP, probs: Array, *, score: Array | None = None, state_discount: Array | float | None = None
) -> Array:
    """Compute the state baseline that minimises the variance of the reward-to-go estimator as a whole.

        tr Cov(b) = const + gᵀb + ½ Σ_s h_s b(s)²,  b(s) = -g_s / h_s

    The variance is quadratic in b, and products of baselines of different steps vanish in the mean, so that
    its gradients at b = 0 and b = 1 give g and h.

    Shapes: probs [S, A]; result [S], or [H, S] with a horizon.

    Args:
        mdp, probs, score, state_discount: as for `gpomdp_pair`.

    Returns:
        [S] float, or [H, S] with a horizon; reward units; zero where the baseline has no effect.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning.
    """
    probs = checked_policy(mdp, probs)
    shape = mdp.initial.shape if mdp.horizon is None else (mdp.horizon, mdp.num_states)

    def variance(baseline: Array) -> Array:
        return pair_variance(
            mdp, gpomdp_pair(mdp, probs, baseline=baseline, score=score, state_discount=state_discount)
        )

    slope = jax.grad(variance)
    at_zero, at_one = slope(jnp.zeros(shape, probs.dtype)), slope(jnp.ones(shape, probs.dtype))
    curvature = at_one - at_zero
    # What is not reached, or has no score, has no curvature; rounding leaves a trace of it.
    matters = curvature > 1e3 * jnp.finfo(probs.dtype).eps * jnp.max(curvature)
    return jnp.where(matters, -at_zero / jnp.where(matters, curvature, 1.0), 0.0)
