"""How a tabular process becomes a problem to certify estimators on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax._types import Params, Policy
from pgjax.certify.problems.tabular import TabularProblem
from pgjax.distributions import Categorical
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


def table_policy(params: Array, obs: Array) -> Categorical:
    """Choose an action by the row of a table of logits, the policy that `tabular_problem` takes by default.

    Shapes: params [S, A]; obs [..., S].

    Args:
        params: [S, A] float, logits.
        obs: [..., S] float, the one-hot state.

    Returns:
        A categorical distribution over A actions, batch axes as those of obs.

    Raises:
        TypeError: by JAX, if shapes do not fit.
    """
    return Categorical(obs @ params)


def shared_policy(groups: tuple[int, ...]) -> Policy:
    """Build a policy that cannot tell some states apart, the sampled form of `AliasedSoftmax`.

    Shapes: params [G, A]; obs [..., S], S the number of entries of groups.

    Args:
        groups: for each state, the row of params that it reads.

    Returns:
        policy(params, obs) -> a categorical distribution.

    Raises:
        ValueError: if groups is empty.
    """
    if not groups:
        raise ValueError("groups must name a row of params for each state, got none. Pass one integer for each state.")
    read = np.eye(max(groups) + 1)[list(groups)]
    return lambda params, obs: Categorical(obs @ read @ params)


def in_time(mdp: TabularMDP, num_steps: int) -> tuple[TabularMDP, Any]:
    """Put the time into the state, so that an episode of H steps ends in a terminal state.

        (t, s) leads to (t + 1, s') with probability P(s' | s, a), and to the end if t + 1 = H or s' is terminal

    Values and advantages of the result depend on the time as they must, while any policy that reads s alone does not.

    Shapes: result S' states, those that can be reached and, last, the end.

    Args:
        mdp: the process, concrete; its horizon is not used.
        num_steps: H, environment steps.

    Returns:
        (mdp, base): a process without horizon, and [S'] int, the s of each state; that of the end is -1.

    Raises:
        TypeError: if num_steps is not an int.
        ValueError: if num_steps < 1.
    """
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    transition, ended = np.asarray(mdp.transition), np.asarray(terminal_states(mdp))
    present = (np.asarray(mdp.initial) > 0) & ~ended
    kept: list[tuple[int, int]] = []
    for time in range(num_steps):
        kept += [(time, int(state)) for state in np.flatnonzero(present)]
        present = (transition[present].sum((0, 1)) > 0) & ~ended
    index, end = {pair: i for i, pair in enumerate(kept)}, len(kept)
    base = np.array([state for _, state in kept] + [-1])
    unrolled: Any = np.zeros((end + 1, mdp.num_actions, end + 1))
    for (time, state), row in index.items():
        for after in np.flatnonzero(transition[state].sum(0)):
            unrolled[row, :, index.get((time + 1, int(after)), end)] += transition[state, :, after]
    unrolled[end, :, end] = 1.0
    reward: Any = np.append(np.asarray(mdp.reward)[base[:-1]], np.zeros((1, mdp.num_actions)), axis=0)
    initial: Any = np.zeros(end + 1)
    np.add.at(initial, [index.get((0, state), end) for state in range(mdp.num_states)], np.asarray(mdp.initial))
    unrolled, reward, initial = (jnp.asarray(x, mdp.reward.dtype) for x in (unrolled, reward, initial))
    return TabularMDP(unrolled, reward, initial, mdp.discount), base


def tabular_problem(
    name: str,
    mdp: TabularMDP,
    *,
    params: Params = None,
    policy: Policy = table_policy,
    num_steps: int | None = None,
    behaviour: Array | None = None,
    whole: bool = True,
) -> TabularProblem:
    """Build a problem to certify estimators on, in float64.

    Shapes: params as policy takes them; behaviour [S, A].

    Args:
        name: what it is called in tables.
        mdp: the process.
        params: parameters of the policy; None is `sine_logits`, θ(s, a) = sin(1 + s + 2a).
        policy: policy(params, obs) -> distribution over the actions, obs [..., S] the one-hot state. After the end of
            an episode obs is zero, and its score must then be zero, as that of a table is.
        num_steps: length of a trajectory, environment steps; None takes the horizon of the process, if any.
        behaviour: [S, A] float, the policy that collects the data; None is the policy itself.
        whole: True ends every episode with its trajectory, and the objective with it. False leaves the process as it
            is and cuts the trajectory, as a time limit does: what follows counts, and is seen only by a value.

    Returns:
        The problem.

    Raises:
        TypeError: if num_steps is not an int, or the policy returns no distribution.
        ValueError: if a shape does not fit the process.

    Example:
        >>> from pgjax import exact
        >>> problem = exact.tabular_problem("two states", exact.two_state(), num_steps=3)
        >>> print(problem.count(), f"{problem.objective:.3f}")
        32.0 1.325
    """
    num_steps = mdp.horizon if num_steps is None else _checks.as_positive_int("num_steps", num_steps)
    with jax.enable_x64(True):
        mdp, collector = _in_float64(mdp), None if behaviour is None else _rows_of(mdp, behaviour)
        states = np.arange(mdp.num_states)
        params = np.sin(1.0 + states[:, None] + 2.0 * np.arange(mdp.num_actions)) if params is None else params
        params = jax.tree.map(lambda x: jnp.asarray(x, float), params)
        if num_steps is not None and whole:
            original, (mdp, states) = mdp, in_time(mdp, num_steps)
            policy = _blind_to_time(policy, np.eye(original.num_states + 1)[states][:, :-1])
            if collector is not None:
                collector = np.append(collector, np.full((1, mdp.num_actions), 1.0 / mdp.num_actions), axis=0)[states]
        else:
            mdp = mdp.replace(horizon=None)
        collects = None if collector is None else jnp.asarray(collector)
        return TabularProblem(name, mdp, params, policy, num_steps, collects, whole, states)


def _rows_of(mdp: TabularMDP, behaviour: Any) -> Any:
    """A policy in float64; its rows sum to one."""
    _checks.require_shape("behaviour", behaviour, mdp.reward.shape, "[S, A]")
    probs = np.asarray(behaviour, float)
    return probs / probs.sum(1, keepdims=True)


def _blind_to_time(policy: Policy, read: Any) -> Policy:
    """The policy on states with time: it sees the state alone, and nothing at the end."""
    return lambda params, obs: policy(params, obs @ read)


def _in_float64(mdp: TabularMDP) -> TabularMDP:
    """Without the rounding of float32, in which probabilities sum to one only nearly."""
    transition, reward, initial = (np.asarray(x, float) for x in (mdp.transition, mdp.reward, mdp.initial))
    transition, initial = transition / transition.sum(-1, keepdims=True), initial / initial.sum()
    discount = jnp.asarray(mdp.discount, float)
    return TabularMDP(jnp.asarray(transition), jnp.asarray(reward), jnp.asarray(initial), discount, mdp.horizon)
