"""Every trajectory of a small process with its probability, so that expectations are sums.

An estimator takes the batch of all trajectories like any other batch; the weighted mean of its contributions is its
exact expectation, and their weighted covariance its exact covariance.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params, Trajectory
from pgjax.exact.tabular._arguments import checked_policy
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


def trajectories(
    mdp: TabularMDP, probs: Array, horizon: int | None = None, *, limit: int = 2_000_000
) -> tuple[Trajectory, Array]:
    """List every trajectory of H steps that has positive probability.

        p(τ) = μ_0(s_0) Π_t π(a_t | s_t) P(s_{t+1} | s_t, a_t)

    Observations are one-hot states. The episode ends at step H, or before on entering a terminal state:
    `terminated` marks where. Rows after that are padding: observations are zero vectors, so that the score and
    the value of a policy and a value that are linear in them vanish, rewards and log-probabilities are zero,
    and `terminated` stays true.

    Shapes: probs [S, A]; leaves of the trajectory [H, N, ...], obs [H, N, S]; weights [N].

    Args:
        mdp: the process, a `TabularMDP`, concrete.
        probs: [S, A] float, the policy that collects the data, concrete.
        horizon: H, environment steps; None takes ``mdp.horizon``.
        limit: the most trajectories to list.

    Returns:
        (trajectory, weights): N trajectories and their probabilities [N], which sum to one.

    Raises:
        TypeError: if probs is not floating or horizon is not an int.
        ValueError: if probs has not shape [S, A], if there is no horizon, or if N exceeds limit.

    Example:
        >>> import jax.numpy as jnp, pgjax.exact as exact
        >>> batch, weights = exact.trajectories(exact.two_state(), jnp.full((2, 2), 0.5), 3)
        >>> print(batch.obs.shape, weights.shape, weights.sum().round(4))
        (3, 64, 2) (64,) 1.0
    """
    probs = checked_policy(mdp, probs)
    if horizon is None and mdp.horizon is None:
        raise ValueError("horizon is required where mdp.horizon is None, got None. Pass the number of steps.")
    horizon = _checks.as_positive_int("horizon", mdp.horizon if horizon is None else horizon)
    ended = np.asarray(terminal_states(mdp))
    joint = np.asarray(probs)[:, :, None] * np.asarray(mdp.transition)
    # The steps that can be taken from each state; an ended episode has one step, which changes nothing.
    steps = [np.argwhere(joint[s] > 0) if not ended[s] else np.array([[-1, s]]) for s in range(mdp.num_states)]
    paths, weights = _start(np.asarray(mdp.initial))
    for _ in range(horizon):
        state = paths[-1][:, 2]
        counts = np.array([len(steps[s]) for s in state])
        if counts.sum() > limit:
            raise ValueError(f"limit={limit} trajectories is exceeded, by {counts.sum()}. Shorten the horizon.")
        parent = np.repeat(np.arange(len(state)), counts)
        taken = np.concatenate([steps[s] for s in state])
        rows = np.column_stack([state[parent], taken])[:, [1, 0, 2]]
        running = taken[:, 0] >= 0
        weights = weights[parent] * np.where(running, joint[rows[:, 1], rows[:, 0], rows[:, 2]], 1.0)
        paths = [path[parent] for path in paths] + [rows]
    return _pack(mdp, probs, np.stack(paths[1:]), ended), jnp.asarray(weights, mdp.reward.dtype)


def _start(initial: Any) -> tuple[list[Any], Any]:
    """Paths of no step, one for each first state: rows (action, state, next state)."""
    first = np.flatnonzero(initial > 0)
    return [np.column_stack([first, first, first])], initial[first]


def _pack(mdp: TabularMDP, probs: Array, paths: Any, ended: Any) -> Trajectory:
    """[H, N, 3] integers -> a trajectory."""
    action, state, after = np.moveaxis(paths, -1, 0)
    running = action >= 0
    action = np.where(running, action, 0)
    one_hot = np.eye(mdp.num_states)
    terminated = ended[after]
    terminated[-1] = True
    dtype = mdp.reward.dtype
    log_prob = np.log(np.asarray(probs)[state, action], out=np.zeros(state.shape), where=running)
    return Trajectory(
        obs=jnp.asarray(one_hot[state] * running[..., None], dtype),
        action=jnp.asarray(action, jnp.int32),
        reward=jnp.asarray(np.where(running, np.asarray(mdp.reward)[state, action], 0.0), dtype),
        next_obs=jnp.asarray(one_hot[after] * running[..., None], dtype),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(np.zeros(state.shape, bool)),
        log_prob=jnp.asarray(log_prob, dtype),
        step=jnp.asarray(np.broadcast_to(np.arange(len(state))[:, None], state.shape), jnp.int32),
    )


def join(first: tuple[Trajectory, Array], second: tuple[Trajectory, Array]) -> tuple[Trajectory, Array]:
    """Put every trajectory of one list before every trajectory of another, as a rollout does after a reset.

    Shapes: [H1, N1, ...] and [H2, N2, ...]; result [H1 + H2, N1 * N2, ...].

    Args:
        first: (trajectory, weights) from `trajectories`.
        second: (trajectory, weights) from `trajectories`.

    Returns:
        (trajectory, weights): independent episodes one after the other, and the products of their weights.

    Raises:
        TypeError: if weights are not floating.
        ValueError: if leaves that belong together differ in their feature axes.
    """
    weights = [_checks.as_floating("weights", w, ndim_at_least=1) for w in (first[1], second[1])]
    left, right = (np.asarray(i).ravel() for i in np.indices([len(w) for w in weights]))

    def glue(a: Array, b: Array) -> Array:
        return jnp.concatenate([a[:, left], b[:, right]])

    return jax.tree.map(glue, first[0], second[0]), weights[0][left] * weights[1][right]


def groups(weights: Array, size: int, *, limit: int = 2_000_000) -> tuple[Array, Array]:
    """List every group of independent draws, for estimators that look at several samples at once.

        w(i_1, ..., i_K) = w(i_1) ... w(i_K)

    Shapes: weights [N]; result [N^K, K] and [N^K].

    Args:
        weights: [N] float, probabilities.
        size: K, the number of draws in a group.
        limit: the most groups to list.

    Returns:
        (indices, weights): [N^K, K] int, the draws of each group in order, and [N^K] float.

    Raises:
        TypeError: if weights is not floating or size is not an int.
        ValueError: if weights has no axis, if size < 1, or if there are more groups than limit.

    Example:
        >>> import jax.numpy as jnp, pgjax.exact as exact
        >>> indices, weights = exact.groups(jnp.array([0.25, 0.75]), 2)
        >>> print(indices.tolist(), weights)
        [[0, 0], [0, 1], [1, 0], [1, 1]] [0.0625 0.1875 0.1875 0.5625]
    """
    weights = _checks.as_floating("weights", weights, ndim_at_least=1)
    size = _checks.as_positive_int("size", size)
    count = weights.shape[0] ** size
    if count > limit:
        raise ValueError(f"limit={limit} groups is exceeded, by {count}. Make the groups smaller.")
    indices = jnp.asarray(np.indices((weights.shape[0],) * size).reshape(size, -1).T)
    return indices, jnp.prod(weights[indices], axis=1)


def gauss_hermite(num_nodes: int, shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
    """Build a quadrature for standard normal noise of any shape: a batch that is exact for polynomials.

        E f(ε) = Σ_n w_n f(ε_n)  for f of degree at most 2 n - 1 in each entry of ε, n the nodes of an entry

    Shapes: result [N, *shape] and [N], N = num_nodes ^ (entries of shape).

    Args:
        num_nodes: nodes for each entry.
        shape: shape of one draw of the noise.

    Returns:
        (nodes, weights): [N, *shape] and [N] float; weights sum to one.

    Raises:
        TypeError: if num_nodes is not an int.
        ValueError: if num_nodes < 1.

    Example:
        >>> import pgjax.exact as exact
        >>> nodes, weights = exact.gauss_hermite(3)
        >>> print((weights @ nodes**4).round(4))
        3.0
    """
    num_nodes = _checks.as_positive_int("num_nodes", num_nodes)
    points, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    entries = math.prod(shape)
    index = np.array(list(itertools.product(range(num_nodes), repeat=entries)), int).reshape(-1, entries)
    mass = np.prod((weights / weights.sum())[index], axis=1)
    return jnp.asarray(points[index].reshape(-1, *shape)), jnp.asarray(mass)


@compiled()
def weighted_moments(contributions: Params, weights: Array) -> tuple[Params, Array]:
    """Compute the mean and the covariance of the contributions of an estimator, one for each trajectory of a list.

        mean = Σ_n w_n g_n,  covariance = Σ_n w_n (g_n - mean) (g_n - mean)ᵀ

    Shapes: leaves of contributions [N, ...]; weights [N]; result leaves [...] and [P, P].

    Args:
        contributions: a pytree whose leaves have a leading axis of trajectories.
        weights: [N] float, probabilities.

    Returns:
        (mean, covariance): a pytree without the leading axis, and a matrix over its raveled entries.

    Raises:
        TypeError: if weights is not floating.
        ValueError: if a leaf has not N rows.
    """
    weights = _checks.as_floating("weights", weights, ndim_at_least=1)
    for path, leaf in jax.tree_util.tree_leaves_with_path(contributions):
        name = "contributions" + jax.tree_util.keystr(path)
        _checks.require_shape(name, leaf, (*weights.shape, *leaf.shape[1:]), "[N, ...]")
    mean = jax.tree.map(lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1), contributions)
    centred = jax.tree.map(lambda x, m: x - m[None], contributions, mean)
    flat = jax.vmap(lambda x: ravel_pytree(x)[0])(centred)
    return mean, jnp.einsum("n,np,nq->pq", weights, flat, flat)
