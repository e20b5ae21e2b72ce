"""The problems of the suite: that each is what it is described to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_answers import PRINTED, SUITE

from pgjax import exact

from ..processes import close, numpy, softmax

LOGITS = ("zero", "sine")


@jax.jit
def truths(mdp, logits):
    """The objective and its gradient in two forms at each of several logits [N, S, A], and the optimum."""

    def at(logits):
        objective = exact.objective(mdp, jax.nn.softmax(logits))
        return objective, exact.policy_gradient(mdp, logits), exact.policy_gradient_autodiff(mdp, logits)

    best = None
    if mdp.horizon is None:
        best = mdp.initial @ exact.optimal_value(mdp), exact.objective(mdp, exact.optimal_policy(mdp))
    return jax.vmap(at)(logits), best


@pytest.mark.parametrize("name", exact.tabular_problems())
def test_every_problem_is_a_valid_process_with_its_figures(name):
    mdp = exact.tabular_problems()[name]()
    transition = np.asarray(mdp.transition)
    close(transition.sum(-1), 1.0, rtol=1e-14)
    sine = np.asarray(exact.sine_logits(mdp))
    (objective, gradient, autodiff), best = numpy(truths(mdp, np.stack([0 * sine, sine])))
    close(gradient, autodiff, rtol=1e-8, atol=1e-11)
    if best is not None:
        close(best[1], best[0], rtol=1e-10)
    for i, pattern in enumerate(LOGITS):
        if (name, pattern) in SUITE:
            wanted = SUITE[name, pattern]
            close(objective[i], wanted[0], rtol=1e-12, atol=PRINTED[10])
            close(np.linalg.norm(gradient[i]), wanted[1], rtol=1e-12, atol=PRINTED[10])
            close(best[0], wanted[2], atol=PRINTED[8])
    with jax.enable_x64(False):
        small = exact.tabular_problems()[name]()
        assert small.reward.dtype == jnp.float32
        close(small.transition, transition, atol=1e-6)


def test_two_state():
    mdp = exact.two_state()
    close(mdp.transition, [[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]])
    close(mdp.reward, [[1.0, 0.0], [-0.5, 2.0]])
    close(mdp.initial, [1.0, 0.0])
    close(mdp.discount, 0.9)


def test_sine_logits():
    close(exact.sine_logits(exact.chain5())[3, 1], np.sin(1.0 + 3.0 + 2.0), rtol=1e-15)


def test_chain5():
    mdp = exact.chain5()
    transition, reward = np.asarray(mdp.transition), np.asarray(mdp.reward)
    close(transition[2, 0], [0.2, 0, 0, 0.8, 0])
    close(transition[2, 1], [0.8, 0, 0, 0.2, 0])
    close(transition[4, 0], [0.2, 0, 0, 0, 0.8])
    close(transition[0, 1], [0.8, 0.2, 0, 0, 0])
    close(reward[:4], np.tile([0.4, 1.6], (4, 1)))
    close(reward[4], [8.4, 3.6])
    close(mdp.initial, np.eye(5)[0])
    # The greedy policy only goes forward.
    assert np.asarray(exact.optimal_policy(mdp))[:, 0].tolist() == [1.0] * 5


def test_garnet8x3():
    mdp = exact.garnet8x3()
    # (s, a) = (1, 2): successors 14, 19, 24 mod 8 = 6, 3, 0 with weights 1 + (5, 8, 11) mod 4 = 2, 1, 4.
    close(np.asarray(mdp.transition)[1, 2], np.array([4, 0, 0, 1, 0, 0, 2, 0]) / 7, rtol=1e-15)
    close(np.asarray(mdp.reward)[1, 2], np.sin(2.7), rtol=1e-15)
    assert (np.asarray(mdp.transition) > 0).sum(-1).tolist() == [[3] * 3] * 8


def test_random_garnet():
    draw = jax.jit(lambda key: exact.random_garnet(key, 6, 4, branching=3, discount=0.8, horizon=5))
    mdp, other = numpy(draw(jax.random.key(0))), numpy(draw(jax.random.key(1)))
    assert ((mdp.transition > 0).sum(-1) == 3).all()
    close(mdp.transition.sum(-1), 1.0, rtol=1e-14)
    close(mdp.initial, np.full(6, 1 / 6))
    assert mdp.horizon == 5
    close(mdp.discount, 0.8)
    assert not np.allclose(mdp.transition, other.transition)
    assert len(np.unique(mdp.reward)) == 24
    single = jax.jit(lambda key: exact.random_garnet(key, 3, 2, branching=1))(jax.random.key(1))
    assert set(np.unique(single.transition).tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="branching must not exceed num_states=2"):
        exact.random_garnet(jax.random.key(0), 2, 2, branching=3)


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
    assert np.asarray(exact.terminal_states(cliff)).tolist() == [False] * 48 + [True]
    windy, cell = exact.windy7x10(), lambda row, column: 10 * row + column
    p = np.asarray(windy.transition)
    assert p[cell(3, 3), 1, cell(2, 4)] == 1
    assert p[cell(4, 6), 1, cell(2, 7)] == 1
    assert p[cell(4, 8), 3, 70] == 1
    assert p[cell(0, 0), 3, cell(0, 0)] == 1
    # The shortest path of the textbook has fifteen steps, each of which costs 1 discounted by 0.95.
    close(SUITE["windy7x10", "zero"][2], -(1 - 0.95**15) / 0.05, atol=PRINTED[8])


def test_riverswim_moves_and_pays_as_described():
    mdp = exact.riverswim6()
    transition, reward = np.asarray(mdp.transition), np.asarray(mdp.reward)
    close(transition[:, 0], np.eye(6)[[0, 0, 1, 2, 3, 4]])
    close(transition[2, 1], [0, 0.05, 0.6, 0.35, 0, 0])
    close(transition[0, 1, :2], [0.4, 0.6])
    close(transition[5, 1, 4:], [0.4, 0.6])
    close(reward, [[0.005, 0], [0, 0], [0, 0], [0, 0], [0, 0], [0, 1.0]])


def test_alias_problems_share_parameters():
    for mdp, policy in (exact.alias_discount(), exact.alias_offpolicy()):
        assert policy == exact.AliasedSoftmax(policy.groups)
        assert hash(policy) == hash(exact.AliasedSoftmax(policy.groups))
        params = np.array([[0.3, -0.1], [1.0, 2.0]])
        probs = np.asarray(jax.jit(policy)(params))
        assert probs.shape == mdp.reward.shape
        close(probs, softmax(params)[list(policy.groups)])


def test_linear_problems_are_what_their_docstrings_say():
    lqr, gain = exact.scalar_lqr()
    close([lqr.A, lqr.B, lqr.Q, lqr.R], np.reshape([0.9, 0.5, 1.0, 0.2], (4, 1, 1)))
    close([lqr.noise_covariance, lqr.action_covariance], np.reshape([0.3**2, 0.5**2], (2, 1, 1)))
    assert (gain.shape, lqr.horizon) == ((1, 1), 5)
    lqr, gain = exact.double_integrator()
    assert (gain.shape, lqr.horizon) == ((1, 2), None)
    for leaf in jax.tree.leaves((lqr, gain)):
        assert leaf.dtype == jnp.float64


def test_two_state_has_a_behaviour_policy():
    behaviour = np.asarray(exact.two_state_behaviour())
    close(behaviour.sum(1), 1.0)
    assert behaviour.shape == np.shape(exact.two_state_logits())
