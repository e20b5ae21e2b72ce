"""What the functions of a tabular process ask of their arguments; shared with `variance`, and not public."""

import jax

from pgjax import _checks
from pgjax.exact.tabular.mdp import TabularMDP

Array = jax.Array


def checked_policy(mdp: TabularMDP, probs: Array, name: str = "probs") -> Array:
    """Return a table [S, A] as floats; raise for other kinds and shapes. Its values are not looked at."""
    probs = _checks.as_floating(name, probs)
    _checks.require_shape(name, probs, mdp.reward.shape, "[S, A]")
    return probs


def checked_logits(mdp: TabularMDP, logits: Array) -> tuple[Array, Array]:
    """Return logits [S, A] as floats and the probabilities that belong to them; raise for other kinds and shapes."""
    logits = checked_policy(mdp, logits, "logits")
    return logits, jax.nn.softmax(logits)


def checked_states(mdp: TabularMDP, x: Array, name: str) -> Array:
    """Return a function of the state [S] as floats; raise for other kinds and shapes."""
    x = _checks.as_floating(name, x)
    _checks.require_shape(name, x, mdp.initial.shape, "[S]")
    return x


def require_horizon(mdp: TabularMDP, what: str) -> int:
    """Return the horizon; raise in the name of a function if there is none."""
    if mdp.horizon is None:
        raise ValueError(f"{what} needs mdp.horizon, got None. Set it with mdp.replace(horizon=...).")
    return mdp.horizon


def require_no_horizon(mdp: TabularMDP, what: str) -> None:
    """Raise in the name of a function if the process has a horizon."""
    if mdp.horizon is not None:
        raise ValueError(
            f"{what} is defined for processes without horizon, got mdp.horizon={mdp.horizon}. "
            "Use mdp.replace(horizon=None), or put the time into the state."
        )
