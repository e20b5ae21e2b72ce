"""On-policy estimators as coefficients for `pair_moments`.

All take the policy as ``probs[S, A]`` and its ``score[S, A, P]``, which is that of a tabular softmax policy
unless given (`score_of` makes one for any policy). ``state_discount`` is the factor between the contributions
of successive steps: γ, unless given, for the discounted objective; 1 where the discount of the states
is dropped.
"""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.variance._coefficients import checked_score, over_time, spread_pair, state_decay, td_error
from pgjax.exact.variance.moments import AffinePair

Array = jax.Array


@compiled()
def gpomdp_pair(
    mdp: TabularMDP,
    probs: Array,
    *,
    baseline: Array | None = None,
    score: Array | None = None,
    state_discount: Array | float | None = None,
) -> AffinePair:
    """Build the coefficients of the reward-to-go estimator with a baseline (ascent).

        Σ_t γ^t ψ_t (G_t - b(s_t)),  G_t = Σ_{k≥t} γ^{k-t} r_k:   δ = r, c = γ, e = r - b, f = γ, k = γ

    Shapes: probs [S, A]; result see `AffinePair`.

    Args:
        mdp: the process, a `TabularMDP`.
        probs: [S, A] float, the policy.
        baseline: [S] float, or [H, S] with a horizon; None is zero.
        score: [S, A, P] float; None is that of a tabular softmax policy.
        state_discount: scalar, k; None is γ.

    Returns:
        AffinePair.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Baxter and Bartlett (2001), Infinite-horizon policy-gradient estimation.
    """
    probs = checked_policy(mdp, probs)
    baseline = jnp.zeros_like(mdp.initial) if baseline is None else baseline
    baseline = over_time(mdp, "baseline", baseline, 1)[..., None, None]
    reward = mdp.reward[..., None]
    return spread_pair(
        mdp,
        probs,
        checked_score(mdp, probs, score),
        delta=reward,
        carry=mdp.discount,
        offset=(reward if baseline.ndim == 3 else reward[None]) - baseline,
        slope=mdp.discount,
        decay=state_decay(mdp, state_discount),
    )


@compiled(unit_interval=("lam",))
def gae_pair(
    mdp: TabularMDP,
    probs: Array,
    value: Array,
    *,
    lam: Array | float,
    score: Array | None = None,
    state_discount: Array | float | None = None,
) -> AffinePair:
    """Build the coefficients of the actor-critic with generalised advantage estimation (ascent).

        Σ_t γ^t ψ_t Â_t,  Â_t = δ_t + γ λ Â_{t+1},  δ_t = r_t + γ v(s_{t+1}) - v(s_t):   c = f = γ λ, e = δ, k = γ

    Shapes: probs [S, A]; value [S]; result see `AffinePair`.

    Args:
        mdp, probs, score, state_discount: as for `gpomdp_pair`.
        value: [S] float, or [H, S] with a horizon: v, any fixed function; after an end it counts as 0.
        lam: λ, scalar in [0, 1].

    Returns:
        AffinePair.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process, or lam is a number outside [0, 1].

    References:
        Schulman, Moritz, Levine, Jordan and Abbeel (2016), High-dimensional continuous control using
        generalized advantage estimation, eq. 16.
    """
    probs = checked_policy(mdp, probs)
    delta, carry = td_error(mdp, value), mdp.discount * lam
    score, decay = checked_score(mdp, probs, score), state_decay(mdp, state_discount)
    return spread_pair(mdp, probs, score, delta=delta, carry=carry, offset=delta, slope=carry, decay=decay)


@compiled()
def all_action_pair(
    mdp: TabularMDP,
    probs: Array,
    action_value: Array,
    *,
    score: Array | None = None,
    state_discount: Array | float | None = None,
) -> AffinePair:
    """Build the coefficients of the all-action estimator, which sums over actions in place of sampling one (ascent).

        Σ_t γ^t Σ_a ∇π(a | s_t) Q̂(s_t, a):   the vector of a state takes the place of the score, e = 1, k = γ

    Shapes: probs, action_value [S, A]; result see `AffinePair`.

    Args:
        mdp, probs, score, state_discount: as for `gpomdp_pair`.
        action_value: [S, A] float, or [H, S, A] with a horizon: Q̂.

    Returns:
        AffinePair.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Allen et al. (2017), Mean actor critic.
    """
    probs, critic = checked_policy(mdp, probs), over_time(mdp, "action_value", action_value, 2)
    direction = jnp.einsum("sa,sap,...sa->...sp", probs, checked_score(mdp, probs, score), critic)
    direction = jnp.repeat(direction[..., None, :], mdp.num_actions, axis=-2)
    none, decay = jnp.zeros_like(mdp.discount), state_decay(mdp, state_discount)
    return spread_pair(
        mdp, probs, direction, delta=none, carry=none, offset=jnp.ones_like(none), slope=none, decay=decay
    )
