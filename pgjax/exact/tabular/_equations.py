"""The linear equations behind values and visits; shared with `variance` and `certify`, and not public."""

import jax
import jax.numpy as jnp

from pgjax.exact.tabular.chain import state_transition
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


def identity_minus(matrix: Array) -> Array:
    """I - M, the matrix of the linear equations x = b + M x, in the dtype of M."""
    return jnp.eye(matrix.shape[0], dtype=matrix.dtype) - matrix


def reachable(chain: Array) -> Array:
    """Which states can be reached from which, [S, S] bool: row from, column to; every state reaches itself.

    The number of steps that are looked ahead doubles until it exceeds the number of states.
    """
    reach = (chain > 0) | jnp.eye(len(chain), dtype=bool)
    for _ in range(len(chain).bit_length()):
        reach = jnp.einsum("st,tu->su", reach.astype(chain.dtype), reach.astype(chain.dtype)) > 0
    return reach


def running_transition(mdp: TabularMDP, probs: Array) -> Array:
    """P_π between states in which an episode still runs, [S, S]: rows and columns of terminal states are zero.

    With discount 1 it is NaN where some state never reaches a terminal one: no total exists then, and a linear solver
    would return numbers all the same.
    """
    chain = state_transition(mdp, probs)
    ended = terminal_states(mdp)
    ends = jnp.all(jnp.any(reachable(chain) & ended[None, :], axis=1))
    running = jnp.where(ended[:, None] | ended[None, :], 0.0, chain)
    return jnp.where((mdp.discount < 1.0) | ends, running, jnp.nan)


def running_visitation(mdp: TabularMDP, probs: Array, start: Array | None = None) -> Array:
    """Discounted visits [S] to states in which an episode still runs, without horizon; zero in terminal states.

    `start` [S] takes the place of the initial distribution.
    """
    start = jnp.where(terminal_states(mdp), 0.0, mdp.initial if start is None else start)
    matrix = identity_minus(mdp.discount * running_transition(mdp, probs))
    return jnp.linalg.solve(matrix.T, start)


def softmax_pull_back(probs: Array, weights: Array) -> Array:
    """The gradient Σ_a w ∂π(a | s) / ∂θ with respect to softmax logits, [S, A]: π (w - Σ_a π w)."""
    return probs * (weights - jnp.sum(probs * weights, axis=-1, keepdims=True))


def importance_ratio(probs: Array, behaviour: Array) -> Array:
    """π / μ, [S, A]; zero where the behaviour never acts so."""
    acts = behaviour > 0
    return jnp.where(acts, probs / jnp.where(acts, behaviour, 1.0), 0.0)
