"""What the builders of affine pairs share; not public."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.tabular.scores import softmax_score
from pgjax.exact.variance.moments import AffinePair

Array = jax.Array


def checked_score(mdp: TabularMDP, probs: Array, score: Array | None) -> Array:
    """Return the score [S, A, P], for None that of a tabular softmax policy; zero in terminal states."""
    score = softmax_score(probs) if score is None else _checks.as_floating("score", score, ndim_at_least=3)
    _checks.require_shape("score", score, (*mdp.reward.shape, score.shape[-1]), "[S, A, P]")
    return jnp.where(terminal_states(mdp)[:, None, None], 0.0, score)


def over_time(mdp: TabularMDP, name: str, x: Array, axes: int) -> Array:
    """Give a function of the state, or of state and action, a time axis if there is a horizon."""
    x = _checks.as_floating(name, x, ndim_at_least=axes)
    shape = mdp.reward.shape[:axes]
    if mdp.horizon is not None:
        shape = (mdp.horizon, *shape)
        x = jnp.broadcast_to(x, shape) if x.shape == shape[1:] else x
    label = ["S", "A"][:axes] if mdp.horizon is None else ["H", "S", "A"][: axes + 1]
    _checks.require_shape(name, x, shape, f"[{', '.join(label)}]")
    return x


def spread_pair(mdp: TabularMDP, behaviour: Array, score: Array, **coefficients: Array) -> AffinePair:
    """Spread the coefficients over [S, A, S], or [H, S, A, S] with a horizon."""
    full = mdp.transition.shape if mdp.horizon is None else (mdp.horizon, *mdp.transition.shape)
    spread = {}
    for name, x in coefficients.items():
        x = jnp.asarray(x, mdp.reward.dtype)
        spread[name] = jnp.broadcast_to(x.reshape((1,) * (len(full) - x.ndim) + x.shape), full)
    return AffinePair(behaviour=behaviour, score=score, **spread)


def state_decay(mdp: TabularMDP, state_discount: Array | float | None) -> Array:
    """The factor between the contributions of successive steps; None is the discount of the process."""
    return mdp.discount if state_discount is None else _checks.as_scalar_or_shape("state_discount", state_discount, ())


def td_error(mdp: TabularMDP, value: Array) -> Array:
    """δ = r + γ v(s') - v(s), [(H,) S, A, S]; nothing follows a terminal state or the end."""
    now = over_time(mdp, "value", value, 1)
    after = jnp.where(terminal_states(mdp), 0.0, now) if now.ndim == 1 else now
    if mdp.horizon is not None:
        ended = terminal_states(mdp)[None, :]
        after = jnp.concatenate([jnp.where(ended, 0.0, now)[1:], jnp.zeros_like(now[:1])])
    reward = mdp.reward[..., None] if now.ndim == 1 else mdp.reward[None, ..., None]
    return reward + mdp.discount * after[..., None, None, :] - now[..., None, None]
