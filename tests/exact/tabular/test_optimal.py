"""Optimal policies and values."""

import jax
import numpy as np
import pytest

from pgjax import exact

from ..processes import close, episodic, garnet, loop_values, numpy


@jax.jit
def optimum(mdp):
    return exact.optimal_value(mdp), exact.optimal_policy(mdp)


def backups(mdp, steps):
    """V* of ``steps`` steps, by value iteration."""
    best = np.zeros(mdp.num_states)
    for _ in range(steps):
        best = (np.asarray(mdp.reward) + float(mdp.discount) * np.asarray(mdp.transition) @ best).max(1)
    return best


def test_optimal_value_is_the_limit_of_value_iteration_and_that_of_the_optimal_policy():
    for seed in range(4):
        mdp, _, probs = garnet(seed, 0.8)
        best, policy = numpy(optimum(mdp))
        close(best, backups(mdp, 200), rtol=1e-12)
        assert (best >= loop_values(mdp, probs, 200)[0] - 1e-12).all()
        assert set(np.unique(policy)) == {0.0, 1.0}
        close(policy.sum(1), 1.0)
        close(loop_values(mdp, policy, 200)[0], best, rtol=1e-12)


def test_with_a_horizon_the_best_of_each_step_is_taken():
    mdp, _, _ = garnet(1, 0.9, 3)
    close(exact.optimal_value(mdp), backups(mdp, 3), rtol=1e-14)


def test_undiscounted_episodes_have_an_optimum():
    mdp, _, _ = episodic(2)
    best, policy = numpy(optimum(mdp))
    close(best, backups(mdp, 200), atol=1e-12)
    close(loop_values(mdp, policy, 200)[0], best, atol=1e-12)


def test_optimal_policy_refuses_a_horizon():
    with pytest.raises(ValueError, match="optimal_policy is defined for processes without horizon"):
        exact.optimal_policy(exact.two_state().replace(horizon=2))
