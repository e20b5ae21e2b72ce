"""The Markov chain of states under a policy."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular.mdp import TabularMDP

Array = jax.Array


@compiled()
def state_transition(mdp: TabularMDP, probs: Array) -> Array:
    """Compute the transition matrix between states that a policy induces.

        P_π(s' | s) = Σ_a π(a | s) P(s' | s, a)

    Shapes: probs [S, A]; result [S, S], row s, column s'.

    Args:
        mdp, probs: as for `value`.

    Returns:
        [S, S] float.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has not shape [S, A].
    """
    probs = checked_policy(mdp, probs)
    return jnp.einsum("sa,sat->st", probs, mdp.transition)


@compiled("k")
def k_step_visitation(mdp: TabularMDP, probs: Array, k: int) -> Array:
    """Compute the probability of being in x after k steps from s, ρ(s → x, k).

        ρ(s → x, 0) = 1[s = x],  ρ(s → x, k + 1) = Σ_y ρ(s → y, k) P_π(x | y)

    Shapes: probs [S, A]; result [S, S], row s, column x.

    Args:
        mdp, probs: as for `value`; discount and horizon are not used.
        k: number of steps, at least 0; static.

    Returns:
        [S, S] float, rows sum to one.

    Raises:
        TypeError: if probs is not floating or k is not an int.
        ValueError: if probs has not shape [S, A] or k is negative.
    """
    k = _checks.as_positive_int("k", k, at_least=0)
    return jnp.linalg.matrix_power(state_transition(mdp, probs), k)
