"""The process itself: validation, terminal states, and the chain of states under a policy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from ..processes import close, episodic, garnet, numpy


@functools.partial(jax.jit, static_argnames="steps")
def chains(mdp, probs, *, steps):
    """The chain, its powers from k = 0 on, and which states are terminal."""
    powers = [exact.k_step_visitation(mdp, probs, k) for k in range(steps)]
    return exact.state_transition(mdp, probs), jnp.stack(powers), exact.terminal_states(mdp)


def test_k_step_visitation_obeys_its_recursion():
    mdp, _, probs = garnet(7)
    one, powers, _ = numpy(chains(mdp, probs, steps=7))
    close(one, (probs[:, :, None] * np.asarray(mdp.transition)).sum(1), rtol=1e-14)
    close(one.sum(1), 1.0, rtol=1e-14)
    close(powers[0], np.eye(4))
    close(powers[1], one)
    for k in range(1, 6):
        close(powers[k + 1], powers[k] @ one, rtol=1e-13, atol=1e-16)


def test_terminal_states_are_those_that_no_action_leaves_and_in_which_none_pays():
    mdp, _, probs = episodic(5)
    transition, reward = np.array(mdp.transition), np.array(mdp.reward)
    transition[2] = np.eye(5)[2]  # no action leaves state 2, but one pays there
    reward[2] = [0.0, 1.0, 0.0]
    transition[3] = np.eye(5)[[3, 3, 0]]  # nothing pays in state 3, but one action leaves it
    reward[3] = 0.0
    changed = exact.TabularMDP(transition, reward, mdp.initial, 1.0)
    for process, want in ((mdp, [0, 0, 0, 0, 1]), (changed, [0, 0, 0, 0, 1])):
        assert np.asarray(chains(process, probs, steps=1)[2]).astype(int).tolist() == want


P, R, M = np.full((2, 3, 2), 0.5), np.ones((2, 3)), np.array([1.0, 0.0])
NEGATIVE = np.array(P)
NEGATIVE[0, 0] = 1.5, -0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((P[:, :2], R, M, 0.9), ValueError, r"transition must have shape \[S, A, S\] = \[2, 3, 2\], got \[2, 2, 2\]"),
        ((P * 0.9, R, M, 0.9), ValueError, "transition must hold probabilities that sum to one"),
        ((NEGATIVE, R, M, 0.9), ValueError, "transition must hold probabilities"),
        ((P, R, M * 2, 0.9), ValueError, "initial must hold probabilities"),
        ((P, R, np.ones(3) / 3, 0.9), ValueError, r"initial must have shape \[S\] = \[2\], got \[3\]"),
        ((P, np.ones((2, 3), int), M, 0.9), TypeError, "reward must have a floating dtype"),
        ((P, np.ones(2), M, 0.9), ValueError, "reward must have at least 2 axes"),
        ((P, np.ones((2, 3, 1)), M, 0.9), ValueError, r"reward must have shape \[S, A\]"),
        ((P, R, M, 1.1), ValueError, r"discount must lie in \[0, 1\], got 1.1"),
        ((P, R, M, 1.0), ValueError, "discount must be below 1 where no episode ends"),
        ((P, R, M, np.ones(2)), ValueError, "discount must be a scalar"),
        ((P, R, M, 0.9, 0), ValueError, "horizon must be at least 1, got 0"),
        ((P, R, M, 0.9, 2.0), TypeError, "horizon must be a Python int"),
        ((None, R, M, 0.9), TypeError, "transition is required, got None"),
    ],
)
def test_bad_processes_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        exact.TabularMDP(*arguments)


def test_bad_steps_are_refused_by_name():
    with pytest.raises(ValueError, match="k must be at least 0"):
        exact.k_step_visitation(exact.two_state(), np.full((2, 2), 0.5), -1)


def test_a_process_is_a_pytree_that_is_rebuilt_without_checks():
    mdp = exact.two_state()
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(mdp)]
    assert names == [".transition", ".reward", ".initial", ".discount"]
    axes = jax.tree.map(lambda _: 0, mdp.replace(horizon=3))
    assert axes.reward == 0
    assert axes.horizon == 3
    assert mdp != exact.two_state()
    assert hash(mdp) != hash(exact.two_state())
    with pytest.raises(ValueError, match="transition must hold probabilities"):
        mdp.replace(transition=2 * np.asarray(mdp.transition))
