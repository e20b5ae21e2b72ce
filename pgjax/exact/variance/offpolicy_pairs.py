"""Off-policy estimators as coefficients for `pair_moments`; see `pgjax.exact.variance.pairs`."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular._equations import importance_ratio
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.variance._coefficients import checked_score, over_time, spread_pair, state_decay, td_error
from pgjax.exact.variance.moments import AffinePair

Array = jax.Array


@compiled(unit_interval=("lam",))
def vtrace_pair(
    mdp: TabularMDP,
    probs: Array,
    value: Array,
    *,
    behaviour: Array,
    lam: Array | float = 1.0,
    clip_rho: Array | float = 1.0,
    clip_c: Array | float = 1.0,
    clip_pg_rho: Array | float = 1.0,
    score: Array | None = None,
    state_discount: Array | float | None = None,
) -> AffinePair:
    """Build the coefficients of the V-trace actor (ascent).

        Σ_t γ^t min(ρ̄_pg, ρ_t) ψ_t (δ_t + γ λ X_{t+1}),   X_t = min(ρ̄, ρ_t) δ_t + γ λ min(c̄, ρ_t) X_{t+1}

    where X_t = vs_t - v(s_t) and the bootstrap of the actor is λ vs_{t+1} + (1 - λ) v(s_{t+1}).

    Shapes: probs, behaviour [S, A]; value [S]; result see `AffinePair`.

    Args:
        mdp, probs, score, state_discount: as for `gpomdp_pair`; the policy is π.
        value, lam: as for `gae_pair`.
        behaviour: [S, A] float, the policy μ that collected the data.
        clip_rho: ρ̄, scalar.
        clip_c: c̄, scalar.
        clip_pg_rho: ρ̄_pg, scalar.

    Returns:
        AffinePair.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process, or lam is a number outside [0, 1].

    References:
        Espeholt et al. (2018), IMPALA, eq. 1 and 4.
    """
    probs, behaviour = checked_policy(mdp, probs), checked_policy(mdp, behaviour, "behaviour")
    ratio = importance_ratio(probs, behaviour)[..., None]
    error = td_error(mdp, value)
    ratio = ratio if error.ndim == 3 else ratio[None]
    follow, actor = mdp.discount * lam, jnp.minimum(clip_pg_rho, ratio)
    return spread_pair(
        mdp,
        behaviour,
        checked_score(mdp, probs, score),
        delta=jnp.minimum(clip_rho, ratio) * error,
        carry=follow * jnp.minimum(clip_c, ratio),
        offset=actor * error,
        slope=actor * follow,
        decay=state_decay(mdp, state_discount),
    )


@compiled()
def pdis_pair(mdp: TabularMDP, probs: Array, *, behaviour: Array, score: Array | None = None) -> AffinePair:
    """Build the coefficients of the off-policy gradient by per-decision importance sampling (ascent).

        Σ_t γ^t (Π_{k<t} ρ_k) ψ_t G_t,   G_t = ρ_t (r_t + γ G_{t+1}):   δ = e = ρ r, c = f = k = γ ρ

    Shapes: probs, behaviour [S, A]; result see `AffinePair`.

    Args:
        mdp, probs, score: as for `gpomdp_pair`; the policy is π.
        behaviour: [S, A] float, the policy μ that collected the data.

    Returns:
        AffinePair; its mean is the on-policy gradient wherever μ acts as π may.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Precup, Sutton and Singh (2000), Eligibility traces for off-policy policy evaluation.
    """
    probs, behaviour = checked_policy(mdp, probs), checked_policy(mdp, behaviour, "behaviour")
    ratio = importance_ratio(probs, behaviour)[..., None]
    reward, carry = ratio * mdp.reward[..., None], mdp.discount * ratio
    score = checked_score(mdp, probs, score)
    return spread_pair(mdp, behaviour, score, delta=reward, carry=carry, offset=reward, slope=carry, decay=carry)


@compiled()
def off_pac_pair(
    mdp: TabularMDP,
    probs: Array,
    action_value: Array,
    *,
    behaviour: Array | None = None,
    score: Array | None = None,
    state_discount: Array | float | None = None,
) -> AffinePair:
    """Build the coefficients of the actor-critic with an action-value critic, off-policy or on-policy (ascent).

        Σ_t γ^t ρ_t ψ_t Q̂(s_t, a_t):   δ = c = f = 0, e = ρ Q̂, k = γ

    Shapes: probs, behaviour, action_value [S, A]; result see `AffinePair`.

    Args:
        mdp, probs, score, state_discount: as for `gpomdp_pair`; the policy is π.
        action_value: [S, A] float, or [H, S, A] with a horizon: Q̂ or an advantage.
        behaviour: [S, A] float, the policy μ that collected the data; None is π.

    Returns:
        AffinePair.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process.

    References:
        Degris, White and Sutton (2012), Off-policy actor-critic.
    """
    probs = checked_policy(mdp, probs)
    behaviour = probs if behaviour is None else checked_policy(mdp, behaviour, "behaviour")
    critic = over_time(mdp, "action_value", action_value, 2)[..., None]
    ratio = importance_ratio(probs, behaviour)[..., None]
    offset = (ratio if critic.ndim == 3 else ratio[None]) * critic
    none, decay = jnp.zeros_like(mdp.discount), state_decay(mdp, state_discount)
    score = checked_score(mdp, probs, score)
    return spread_pair(mdp, behaviour, score, delta=none, carry=none, offset=offset, slope=none, decay=decay)
