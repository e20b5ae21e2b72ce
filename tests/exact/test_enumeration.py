"""Enumerated trajectories, groups and quadrature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .processes import (
    close,
    episodic,
    expectation,
    garnet,
    loop_values,
    numpy,
    returns_to_go,
    reward_to_go,
    scores,
    states_of,
)


def gradient(mdp, logits, probs, horizon):
    """∇J of ``horizon`` steps, Σ_t γ^t Σ_s Pr(s_t = s) π (Q_t - V_t), by the recursion of the values."""
    chain = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
    total, visits = np.zeros_like(probs), np.asarray(mdp.initial)
    for t in range(horizon):
        value, q, _ = loop_values(mdp, probs, horizon - t)
        total += visits[:, None] * probs * (q - value[:, None])
        visits = float(mdp.discount) * visits @ chain
    return total.ravel()


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_weights_and_trajectories_are_those_of_the_process(horizon):
    mdp, _, probs = garnet(0, 0.9, None, 3, 2)
    batch, weights = numpy(exact.trajectories(mdp, probs, horizon))
    transition, reward, initial = (np.asarray(x) for x in (mdp.transition, mdp.reward, mdp.initial))
    # Two successors for each action.
    assert weights.shape == (3 * 4**horizon,)
    close(weights.sum(), 1.0, rtol=1e-13)
    assert weights.min() > 0
    obs, action, after = states_of(batch)
    close(batch.obs.sum(-1), 1.0)
    assert (obs[1:] == after[:-1]).all()
    assert len({tuple(row) for row in np.concatenate([obs, action, after]).T.tolist()}) == len(weights)
    close(batch.reward, reward[obs, action])
    close(batch.log_prob, np.log(probs[obs, action]))
    close(weights, initial[obs[0]] * np.prod(probs[obs, action] * transition[obs, action, after], axis=0), rtol=1e-12)
    assert batch.terminated[-1].all()
    assert not batch.terminated[:-1].any()
    assert not batch.truncated.any()
    assert (batch.step == np.arange(horizon)[:, None]).all()
    chain = (probs[:, :, None] * transition).sum(1)
    visits = [initial @ np.linalg.matrix_power(chain, t) for t in range(horizon)]
    close(np.einsum("n,hns->hs", weights, batch.obs), visits, atol=1e-14)


def test_horizon_defaults_to_that_of_the_process():
    mdp, _, probs = garnet(0, 0.9, 2, 3, 2)
    batch, weights = exact.trajectories(mdp, probs)
    explicit, same = exact.trajectories(mdp.replace(horizon=None), probs, 2)
    close(weights, same)
    close(batch.reward, explicit.reward)
    assert batch.action.dtype == jnp.int32
    assert batch.obs.dtype == mdp.reward.dtype


def test_what_has_no_probability_is_left_out():
    mdp, _, _ = garnet(0, 0.9, None, 3, 2)
    first = mdp.replace(initial=np.array([0.0, 1.0, 0.0]))
    _, weights = exact.trajectories(first, np.tile([1.0, 0.0], (3, 1)), 3)
    assert weights.shape == (8,)
    close(np.sum(weights), 1.0, rtol=1e-13)


def test_episodes_end_on_entering_a_terminal_state_and_the_rest_is_padding():
    mdp, logits, probs = episodic(0)
    batch, weights = numpy(exact.trajectories(mdp, probs, 3))
    close(weights.sum(), 1.0, rtol=1e-13)
    over = np.cumsum(batch.terminated, 0) - batch.terminated > 0
    assert over.any()
    for leaf in (batch.obs, batch.next_obs, batch.reward, batch.log_prob):
        close(leaf[over], 0.0)
    assert batch.terminated[over].all()
    close(batch.obs[~over].sum(-1), 1.0)
    entered = batch.next_obs[..., -1] == 1
    assert (batch.terminated[:-1] == (entered | over)[:-1]).all()
    # A baseline, even one that is not zero in the terminal state, leaves the mean alone.
    baseline = np.array([0.3, -1.0, 2.0, 0.5, 7.0])
    truth = gradient(mdp, logits, probs, 3)
    for b in (None, baseline):
        close(expectation(reward_to_go(batch, logits, 1.0, b), weights)[0], truth, atol=1e-13)


@pytest.mark.parametrize("discount", [0.7, 1.0])
def test_the_weighted_mean_of_reinforce_is_the_exact_gradient(discount):
    for seed in range(3):
        mdp, logits, probs = garnet(seed, discount, 4, 3, 2)
        batch, weights = numpy(exact.trajectories(mdp, probs))
        truth = gradient(mdp, logits, probs, 4)
        close(exact.policy_gradient(mdp, logits), truth.reshape(3, 2), atol=1e-13)
        close(expectation(reward_to_go(batch, logits, discount), weights)[0], truth, atol=1e-13)
        total = (discount**batch.step * batch.reward).sum(0)
        whole = total[:, None, None] * scores(batch, logits).sum(0)
        close(expectation(whole, weights)[0], truth, atol=1e-13)


def test_mutants_of_reinforce_are_told_apart_by_enumeration():
    mdp, logits, probs = garnet(0, 0.7, 4, 3, 2)
    batch, weights = numpy(exact.trajectories(mdp, probs))
    truth, score, returns = gradient(mdp, logits, probs, 4), scores(batch, logits), returns_to_go(batch, 0.7)
    mean = lambda weight: np.einsum("n,hn,hnsa->sa", weights, weight, score).ravel()  # noqa: E731
    discounts = 0.7**batch.step
    close(mean(discounts * returns), truth, atol=1e-13)
    mutants = {
        "wrong sign": mean(-discounts * returns),
        "discount of the state missing": mean(returns),
        "discount twice": mean(discounts**2 * returns),
        "off by one": mean(discounts * np.vstack([returns[1:], 0 * returns[:1]])),
        "baseline that depends on the action": mean(discounts * (returns - 0.5 * batch.action)),
        "baseline from the same sample": mean(discounts * 0.5 * returns),
        "immediate reward": mean(discounts * batch.reward),
    }
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant - truth)) > 1e-3, name
    # A baseline that depends on the state does not move it.
    close(mean(discounts * (returns - batch.obs @ np.array([1.0, -2.0, 0.5]))), truth, atol=1e-13)


def test_joined_episodes_add_up():
    mdp, logits, probs = garnet(1, 0.8, None, 2, 2)
    first, second = (numpy(exact.trajectories(mdp, probs, steps)) for steps in (2, 1))
    batch, weights = numpy(jax.jit(exact.join)(first, second))
    assert batch.obs.shape == (3, len(first[1]) * len(second[1]), 2)
    close(weights.sum(), 1.0, rtol=1e-13)
    assert batch.step[:, 0].tolist() == [0, 1, 0]
    moments = [expectation(reward_to_go(b, logits, 0.8), w) for b, w in (first, second, (batch, weights))]
    close(moments[2][0], moments[0][0] + moments[1][0], atol=1e-13)
    close(moments[2][1], moments[0][1] + moments[1][1], atol=1e-13)


def test_groups_are_all_tuples():
    weights, x = np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 0.7])
    indices, mass = numpy(exact.groups(weights, 3))
    assert indices.shape == (27, 3)
    assert len({tuple(i) for i in indices.tolist()}) == 27
    close(mass.sum(), 1.0)
    close(mass, weights[indices].prod(1))
    close(mass @ x[indices].var(1, ddof=1), weights @ (x - weights @ x) ** 2, rtol=1e-13)


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_quadrature_is_exact_for_polynomials(nodes):
    points, weights = numpy(exact.gauss_hermite(nodes, (2,)))
    assert points.shape == (nodes**2, 2)
    for i, j in np.ndindex(2 * nodes, 2 * nodes):
        odd = i % 2 or j % 2
        want = 0.0 if odd else math.prod(range(i - 1, 0, -2)) * math.prod(range(j - 1, 0, -2))
        close(weights @ (points[:, 0] ** i * points[:, 1] ** j), want, rtol=1e-11, atol=1e-9)


def test_quadrature_has_the_shape_of_the_noise():
    for shape, entries in (((), 1), ((2, 2), 4)):
        points, weights = exact.gauss_hermite(2, shape)
        assert points.shape == (2**entries, *shape)
        assert weights.shape == (2**entries,)


def test_weighted_moments_of_a_pytree():
    weights = np.array([0.1, 0.2, 0.7])
    contributions = {"a": np.array([1.0, 2.0, 4.0]), "b": np.arange(6.0).reshape(3, 2) ** 2}
    mean, covariance = numpy(exact.weighted_moments(contributions, weights))
    flat = np.column_stack([contributions["a"], contributions["b"]])
    close(mean["a"], weights @ flat[:, 0])
    close(mean["b"], weights @ flat[:, 1:])
    close(covariance, np.cov(flat.T, aweights=weights, ddof=0), rtol=1e-13)


def test_bad_arguments_are_refused_by_name():
    mdp, probs = exact.two_state(), np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"horizon is required where mdp.horizon is None"):
        exact.trajectories(mdp, probs)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        exact.trajectories(mdp, probs, 0)
    with pytest.raises(ValueError, match="limit=100 trajectories is exceeded, by 256"):
        exact.trajectories(mdp, probs, 5, limit=100)
    with pytest.raises(ValueError, match="limit=10 groups is exceeded, by 16"):
        exact.groups(np.full(2, 0.5), 4, limit=10)
    with pytest.raises(ValueError, match="size must be at least 1"):
        exact.groups(np.full(2, 0.5), 0)
    with pytest.raises(TypeError, match="num_nodes must be a Python int"):
        exact.gauss_hermite(2.5)
    with pytest.raises(ValueError, match=r"contributions\['a'\] must have shape \[N, ...\] = \[2, 4\], got \[3, 4\]"):
        exact.weighted_moments({"a": np.ones((3, 4))}, np.full(2, 0.5))
