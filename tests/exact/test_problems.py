"""The suite of problems: that each is what it is described to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .test_mdp import close


@pytest.mark.parametrize("name", exact.tabular_problems())
def test_every_problem_is_a_valid_process_with_equal_gradients(name):
    mdp = exact.tabular_problems()[name]()
    logits = exact.sine_logits(mdp)
    close(mdp.transition.sum(-1), 1.0, rtol=1e-14)
    want = exact.policy_gradient_autodiff(mdp, logits)
    close(exact.policy_gradient(mdp, logits), want, rtol=1e-8, atol=1e-11)
    with jax.enable_x64(False):
        small = exact.tabular_problems()[name]()
        assert small.reward.dtype == jnp.float32
        close(small.transition, np.asarray(mdp.transition), atol=1e-6)


def test_chain5():
    mdp = exact.chain5()
    transition, reward = np.asarray(mdp.transition), np.asarray(mdp.reward)
    close(transition[2, 0], [0.2, 0, 0, 0.8, 0])
    close(transition[2, 1], [0.8, 0, 0, 0.2, 0])
    close(transition[4, 0], [0.2, 0, 0, 0, 0.8])
    close(transition[0, 1], [0.8, 0.2, 0, 0, 0])
    close(reward[:4], np.tile([0.4, 1.6], (4, 1)))
    close(reward[4], [8.4, 3.6])
    # The greedy policy only goes forward.
    assert exact.optimal_policy(mdp)[:, 0].tolist() == [1.0] * 5


def test_garnet8x3():
    mdp = exact.garnet8x3()
    # (s, a) = (1, 2): successors 14, 19, 24 mod 8 = 6, 3, 0 with weights 1 + (5, 8, 11) mod 4 = 2, 1, 4.
    close(mdp.transition[1, 2], np.array([4, 0, 0, 1, 0, 0, 2, 0]) / 7, rtol=1e-15)
    close(mdp.reward[1, 2], np.sin(2.7), rtol=1e-15)
    assert (np.asarray(mdp.transition > 0).sum(-1) == 3).all()


def test_random_garnet():
    mdp = exact.random_garnet(jax.random.key(0), 6, 4, branching=3, discount=0.8, horizon=5)
    assert (np.asarray(mdp.transition > 0).sum(-1) == 3).all()
    close(mdp.transition.sum(-1), 1.0, rtol=1e-14)
    assert mdp.horizon == 5
    close(mdp.discount, 0.8)
    other = exact.random_garnet(jax.random.key(1), 6, 4, branching=3)
    assert not np.allclose(mdp.transition, other.transition)
    single = exact.random_garnet(jax.random.key(1), 3, 2, branching=1)
    assert set(np.unique(single.transition).tolist()) == {0.0, 1.0}


def test_cliff_and_wind_in_some_cells():
    cliff, cell = exact.cliff4x12(), lambda row, column: 12 * row + column
    p, r = np.asarray(cliff.transition), np.asarray(cliff.reward)
    assert p[cell(0, 0), 0, cell(0, 0)] == 1
    assert p[cell(2, 4), 2, cell(3, 0)] == 1
    assert r[cell(2, 4), 2] == -100
    assert p[cell(3, 0), 1, cell(3, 0)] == 1
    assert r[cell(3, 0), 1] == -100
    assert p[cell(2, 11), 2, 48] == 1
    assert r[cell(2, 11), 2] == -1
    assert exact.terminal_states(cliff).tolist() == [False] * 48 + [True]
    windy, cell = exact.windy7x10(), lambda row, column: 10 * row + column
    p = np.asarray(windy.transition)
    assert p[cell(3, 3), 1, cell(2, 4)] == 1
    assert p[cell(4, 6), 1, cell(2, 7)] == 1
    assert p[cell(4, 8), 3, 70] == 1
    assert p[cell(0, 0), 3, cell(0, 0)] == 1
    # Seventeen steps would be the textbook's fifteen-step path; J* fixes the number of steps.
    best = float(windy.initial @ exact.optimal_value(windy))
    steps = np.log(1 + best * 0.05) / np.log(0.95)
    close(steps, round(steps), atol=1e-6)
    assert round(steps) == 15


def test_alias_problems_share_parameters():
    for mdp, policy in (exact.alias_discount(), exact.alias_offpolicy()):
        assert hash(policy) == hash(type(policy)(policy.groups))
        probs = policy(jnp.array([[0.3, -0.1], [1.0, 2.0]]))
        assert probs.shape == mdp.reward.shape
        close(probs.sum(1), 1.0)
        for s, group in enumerate(policy.groups):
            close(probs[s], jax.nn.softmax(jnp.array([[0.3, -0.1], [1.0, 2.0]])[group]))
