"""Small tabular processes, and the policies that go with them.

Each function builds a fresh process in the default floating dtype; build it under ``jax.enable_x64(True)``
for float64.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax.exact.problems.gridworlds import cliff4x12, windy7x10
from pgjax.exact.tabular.mdp import TabularMDP

Array = jax.Array


def sine_logits(mdp: TabularMDP) -> Array:
    """Build logits without symmetry and without random numbers, θ(s, a) = sin(1 + s + 2a).

    Args:
        mdp: the process, a `TabularMDP`, that gives S and A.

    Returns:
        [S, A] float.
    """
    state, action = np.ogrid[: mdp.num_states, : mdp.num_actions]
    return jnp.asarray(np.sin(1.0 + state + 2.0 * action), mdp.reward.dtype)


def two_state() -> TabularMDP:
    """Build a continuing process with two states and two actions, the smallest of the suite.

    Returns:
        S = 2, A = 2, γ = 0.9, starting in state 0. `two_state_logits` and `two_state_behaviour` go with it.
    """
    transition = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]])
    return _mdp(transition, np.array([[1.0, 0.0], [-0.5, 2.0]]), _start(2, 0), 0.9)


def two_state_logits() -> Array:
    """Build the logits that the figures of `two_state` are stated for.

    Returns:
        [2, 2] float.
    """
    return jnp.array([[0.2, -0.3], [0.1, 0.4]])


def two_state_behaviour() -> Array:
    """Build the behaviour policy that the off-policy figures of `two_state` are stated for.

    Returns:
        [2, 2] float, probabilities.
    """
    return jnp.array([[0.5, 0.5], [0.8, 0.2]])


def chain5() -> TabularMDP:
    """Build a chain of five states: moving forward pays at its end, moving back pays a little at once.

    Action 0 moves forward and action 1 back to the start; with probability 0.2 the effect is that of the other one.
    Forward in the last state pays 10, back pays 2 anywhere.

    Returns:
        S = 5, A = 2, γ = 0.9, starting in state 0.
    """
    size, slip = 5, 0.2
    transition, reward = np.zeros((size, 2, size)), np.zeros((size, 2))
    for state in range(size):
        for action, forward in enumerate((1.0 - slip, slip)):
            transition[state, action, min(state + 1, size - 1)] += forward
            transition[state, action, 0] += 1.0 - forward
            reward[state, action] = forward * 10.0 * (state == size - 1) + (1.0 - forward) * 2.0
    return _mdp(transition, reward, _start(size, 0), 0.9)


def riverswim6() -> TabularMDP:
    """Build RiverSwim: six states, a current to the left, reward 0.005 at the left end and 1 at the right end.

    Action 0 swims left and succeeds; action 1 swims right and gets ahead with probability 0.35.

    Returns:
        S = 6, A = 2, γ = 0.95, starting in state 0, the left end.
    """
    size = 6
    transition, reward = np.zeros((size, 2, size)), np.zeros((size, 2))
    for state in range(size):
        transition[state, 0, max(state - 1, 0)] = 1.0
    for state in range(1, size - 1):
        transition[state, 1, state - 1 : state + 2] = 0.05, 0.6, 0.35
    transition[0, 1, :2] = 0.4, 0.6
    transition[size - 1, 1, -2:] = 0.4, 0.6
    reward[0, 0], reward[size - 1, 1] = 0.005, 1.0
    return _mdp(transition, reward, _start(size, 0), 0.95)


def garnet8x3() -> TabularMDP:
    """Build a Garnet process by a formula: eight states, three actions, three successors each.

        successor j of (s, a): (7s + 3a + 5j + 1) mod 8, with weight 1 + (s + 2a + 3j) mod 4;  r = sin(1.3 s + 0.7 a)

    Returns:
        S = 8, A = 3, γ = 0.9, starting anywhere.
    """
    transition = np.zeros((8, 3, 8))
    for state, action, j in np.ndindex(8, 3, 3):
        transition[state, action, (7 * state + 3 * action + 5 * j + 1) % 8] += 1 + (state + 2 * action + 3 * j) % 4
    transition /= transition.sum(-1, keepdims=True)
    state, action = np.ogrid[:8, :3]
    return _mdp(transition, np.sin(1.3 * state + 0.7 * action), np.full(8, 1 / 8), 0.9)


def random_garnet(
    key: Array,
    num_states: int,
    num_actions: int,
    *,
    branching: int = 2,
    discount: float = 0.9,
    horizon: int | None = None,
) -> TabularMDP:
    """Draw a Garnet process: random successors, random probabilities, normal rewards.

    Each pair (s, a) has ``branching`` distinct successors, whose probabilities are the gaps between sorted
    uniform numbers; r(s, a) is standard normal, and every state starts an episode equally often.

    Args:
        key: a PRNG key.
        num_states: S.
        num_actions: A.
        branching: number of successors, at most S.
        discount: γ, scalar in [0, 1].
        horizon: see `TabularMDP`.

    Returns:
        The process.

    Raises:
        TypeError: if a size is not an int.
        ValueError: if a size is too small or branching exceeds num_states.

    References:
        Archibald, McKinnon and Thomas (1995), On the generation of Markov decision processes.
    """
    states, actions = (
        _checks.as_positive_int("num_states", num_states),
        _checks.as_positive_int("num_actions", num_actions),
    )
    branching = _checks.as_positive_int("branching", branching)
    if branching > states:
        raise ValueError(f"branching must not exceed num_states={states}, got {branching}.")
    key_order, key_gaps, key_reward = jax.random.split(key, 3)
    order = jnp.argsort(jax.random.uniform(key_order, (states, actions, states)), axis=-1)[..., :branching]
    cuts = jnp.sort(jax.random.uniform(key_gaps, (states, actions, branching - 1)), axis=-1)
    gaps = jnp.diff(cuts, axis=-1, prepend=0.0, append=1.0)
    transition = jnp.einsum("saj,sajt->sat", gaps, jax.nn.one_hot(order, states, dtype=gaps.dtype))
    reward = jax.random.normal(key_reward, (states, actions))
    return TabularMDP(transition, reward, jnp.full(states, 1 / states), discount, horizon)


def softmax_bandit(reward: Array | None = None) -> TabularMDP:
    """Build a bandit as a process with one state and episodes of one step.

    Args:
        reward: [K] float, mean reward of each arm; None is (1, 0.2, -0.7), to go with `softmax_bandit_logits`.

    Returns:
        S = 1, A = K, γ = 1, horizon 1.

    Raises:
        TypeError: if reward is not floating.
        ValueError: if it has no axis or is empty.
    """
    arms = _checks.as_floating("reward", np.array([1.0, 0.2, -0.7]) if reward is None else reward, ndim_at_least=1)
    return TabularMDP(np.ones((1, arms.shape[0], 1)), arms[None], np.ones(1), 1.0, horizon=1)


def softmax_bandit_logits() -> Array:
    """Build the logits that go with `softmax_bandit`.

    Returns:
        [1, 3] float.
    """
    return jnp.array([[0.2, -0.5, 0.4]])


@dataclasses.dataclass(frozen=True)
class AliasedSoftmax:
    """A softmax policy that shares logits between states: a `policy_probs` for `policy_gradient_of`.

    Shapes: params [G, A], G the number of groups; result [S, A].

    Args:
        groups: for each state, the row of params that it reads; states of one group share it.

    Returns:
        A hashable function params -> probabilities.
    """

    groups: tuple[int, ...]

    def __call__(self, params: Array) -> Array:
        """Compute the probabilities of each action in each state.

        Args:
            params: [G, A] float, logits.

        Returns:
            [S, A] float.
        """
        return jax.nn.softmax(params)[jnp.array(self.groups)]


def alias_discount() -> tuple[TabularMDP, AliasedSoftmax]:
    """Build a process on which dropping the discount of the states leads to the worst policy.

    States 0 and 1 share their logits. Action 1 pays 1 in state 0, and in state 1 costs 2 now and pays 2 two steps
    later; action 0 pays nothing. With x the probability of action 1, the slope of the discounted objective
    in x is 1/4, that of the undiscounted one is 1, and that of the direction that drops the discount is -1/2.

    Returns:
        (mdp, policy): S = 5, A = 2, γ = 0.5, state 4 terminal; the policy takes params [2, 2], of which row 0 is
        for states 0 and 1 and row 1, without effect, for the others.
    """
    transition, reward = np.zeros((5, 2, 5)), np.zeros((5, 2))
    transition[0, :, 1] = transition[1, 1, 2] = transition[1, 0, 4] = 1.0
    transition[2, :, 3] = transition[3, :, 4] = transition[4, :, 4] = 1.0
    reward[0, 1], reward[1, 1], reward[3, :] = 1.0, -2.0, 2.0
    return _mdp(transition, reward, _start(5, 0), 0.5), AliasedSoftmax((0, 0, 1, 1, 1))


def alias_offpolicy() -> tuple[TabularMDP, AliasedSoftmax]:
    """Build a process on which the off-policy actor-critic descends the objective and emphatic weights ascend it.

    Action 0 leads from state 0 to state 1, and action 1 to state 2; those two share their logits. State 1
    pays 2 for action 0, state 2 pays 1 for action 1, and the episode ends.

    Returns:
        (mdp, policy): S = 4, A = 2, γ = 1, state 3 terminal; the policy takes params [2, 2], of which row 0 is for
        state 0 and row 1 for states 1 and 2.
    """
    transition, reward = np.zeros((4, 2, 4)), np.zeros((4, 2))
    transition[0, 0, 1] = transition[0, 1, 2] = transition[1:, :, 3] = 1.0
    reward[1, 0], reward[2, 1] = 2.0, 1.0
    return _mdp(transition, reward, _start(4, 0), 1.0), AliasedSoftmax((0, 1, 1, 1))


def tabular_problems() -> dict[str, Callable[[], TabularMDP]]:
    """List the tabular problems of the suite by name.

    Returns:
        Functions without arguments that build them.
    """
    return {
        "two_state": two_state,
        "chain5": chain5,
        "riverswim6": riverswim6,
        "cliff4x12": cliff4x12,
        "windy7x10": windy7x10,
        "garnet8x3": garnet8x3,
        "alias_discount": lambda: alias_discount()[0],
        "alias_offpolicy": lambda: alias_offpolicy()[0],
        "softmax_bandit": softmax_bandit,
    }


def _mdp(transition: Any, reward: Any, initial: Any, discount: float) -> TabularMDP:
    return TabularMDP(jnp.asarray(transition), jnp.asarray(reward), jnp.asarray(initial), discount)


def _start(size: int, state: int) -> Any:
    return np.eye(size)[state]
