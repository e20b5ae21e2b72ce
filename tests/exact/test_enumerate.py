"""Enumerated trajectories, groups and quadrature."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

from .test_mdp import close, episodic, garnet


def softmax(logits):
    weights = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def scores(batch, logits):
    """The score of each step with respect to tabular logits, [H, N, S, A]; NumPy, so that nothing is compiled."""
    obs = np.asarray(batch.obs)
    error = np.eye(logits.shape[1])[np.asarray(batch.action)] - softmax(obs @ np.asarray(logits))
    return obs[..., None] * error[..., None, :]


def returns_to_go(batch, discount):
    """Σ_{k≥t} γ^(k-t) r_k of one episode; rewards after its end are zero."""
    returns = np.zeros((len(batch.reward) + 1, batch.reward.shape[1]))
    for t in reversed(range(len(batch.reward))):
        returns[t] = batch.reward[t] + discount * returns[t + 1] * (1 - batch.terminated[t])
    return returns[:-1]


def reward_to_go(batch, logits, discount, baseline=None):
    """The contribution of each trajectory to the reward-to-go estimator, [N, S, A]."""
    discount = float(discount)
    advantage = returns_to_go(batch, discount)
    if baseline is not None:
        advantage = advantage - np.asarray(batch.obs) @ np.asarray(baseline)
    return np.einsum("hn,hnsa->nsa", discount ** np.asarray(batch.step) * advantage, scores(batch, logits))


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_weights_and_trajectories_are_those_of_the_process(horizon):
    mdp, _, probs = garnet(0, 0.9, None, 3, 2)
    batch, weights = exact.trajectories(mdp, probs, horizon)
    # Two successors for each action.
    assert weights.shape == (3 * 4**horizon,)
    close(weights.sum(), 1.0, rtol=1e-13)
    assert float(weights.min()) > 0
    obs, after = np.argmax(batch.obs, -1), np.argmax(batch.next_obs, -1)
    close(batch.obs.sum(-1), 1.0)
    assert (obs[1:] == after[:-1]).all()
    assert len({tuple(row) for row in np.concatenate([obs, batch.action, after]).T.tolist()}) == len(weights)
    for n in (0, 7, len(weights) - 1):
        p = float(mdp.initial[obs[0, n]])
        for t in range(horizon):
            s, a, x = obs[t, n], int(batch.action[t, n]), after[t, n]
            p *= float(probs[s, a] * mdp.transition[s, a, x])
            close(batch.reward[t, n], mdp.reward[s, a])
            close(batch.log_prob[t, n], np.log(probs[s, a]))
        close(weights[n], p, rtol=1e-12)
    assert batch.terminated[-1].all()
    assert not batch.terminated[:-1].any()
    assert not batch.truncated.any()
    assert (batch.step == np.arange(horizon)[:, None]).all()
    visits = exact.visitation_over_time(mdp.replace(horizon=horizon, discount=1.0), probs)
    close(jnp.einsum("n,hns->hs", weights, batch.obs), visits, atol=1e-14)


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
    first = mdp.replace(initial=jnp.array([0.0, 1.0, 0.0]))
    _, weights = exact.trajectories(first, jnp.tile(jnp.array([1.0, 0.0]), (3, 1)), 3)
    assert weights.shape == (8,)
    close(weights.sum(), 1.0, rtol=1e-13)


def test_episodes_end_on_entering_a_terminal_state_and_the_rest_is_padding():
    mdp, logits, probs = episodic(0)
    batch, weights = exact.trajectories(mdp, probs, 3)
    close(weights.sum(), 1.0, rtol=1e-13)
    over = np.cumsum(np.asarray(batch.terminated), 0) - np.asarray(batch.terminated) > 0
    assert over.any()
    for leaf in (batch.obs, batch.next_obs, batch.reward, batch.log_prob):
        close(np.asarray(leaf)[over], 0.0)
    assert np.asarray(batch.terminated)[over].all()
    close(np.asarray(batch.obs)[~over].sum(-1), 1.0)
    entered = np.asarray(batch.next_obs)[..., -1] == 1
    assert (np.asarray(batch.terminated)[:-1] == (entered | over)[:-1]).all()
    # A baseline, even one that is not zero in the terminal state, leaves the mean alone.
    baseline = jnp.array([0.3, -1.0, 2.0, 0.5, 7.0])
    truth = exact.policy_gradient(mdp.replace(horizon=3), logits)
    for b in (None, baseline):
        close(exact.weighted_moments(reward_to_go(batch, logits, 1.0, b), weights)[0], truth, atol=1e-13)


@pytest.mark.parametrize("discount", [0.7, 1.0])
def test_the_weighted_mean_of_reinforce_is_the_exact_gradient(discount):
    for seed in range(3):
        mdp, logits, probs = garnet(seed, discount, 4, 3, 2)
        batch, weights = exact.trajectories(mdp, probs)
        truth = exact.policy_gradient(mdp, logits)
        contributions = reward_to_go(batch, logits, discount)
        close(exact.weighted_moments(contributions, weights)[0], truth, atol=1e-13)
        total = (discount ** np.asarray(batch.step) * np.asarray(batch.reward)).sum(0)
        whole = total[:, None, None] * scores(batch, logits).sum(0)
        close(exact.weighted_moments(whole, weights)[0], truth, atol=1e-13)


def test_mutants_of_reinforce_are_rejected_by_enumeration():
    mdp, logits, probs = garnet(0, 0.7, 4, 3, 2)
    batch, weights = exact.trajectories(mdp, probs)
    truth = exact.policy_gradient(mdp, logits)
    score = scores(batch, logits)
    returns, action, reward = returns_to_go(batch, 0.7), np.asarray(batch.action), np.asarray(batch.reward)
    mean = lambda weight: np.einsum("n,hn,hnsa->sa", weights, weight, score)  # noqa: E731
    discounts = 0.7 ** np.asarray(batch.step)
    close(mean(discounts * returns), truth, atol=1e-13)
    mutants = {
        "wrong sign": mean(-discounts * returns),
        "discount of the state missing": mean(returns),
        "discount twice": mean(discounts**2 * returns),
        "off by one": mean(discounts * np.vstack([returns[1:], 0 * returns[:1]])),
        "baseline that depends on the action": mean(discounts * (returns - 0.5 * action)),
        "baseline from the same sample": mean(discounts * 0.5 * returns),
        "immediate reward": mean(discounts * reward),
    }
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant - truth)) > 1e-3, name
    # A baseline that depends on the state does not move it.
    close(mean(discounts * (returns - np.asarray(batch.obs) @ np.array([1.0, -2.0, 0.5]))), truth, atol=1e-13)


def test_joined_episodes_add_up():
    mdp, logits, probs = garnet(1, 0.8, None, 2, 2)
    first, second = exact.trajectories(mdp, probs, 2), exact.trajectories(mdp, probs, 1)
    batch, weights = exact.join(first, second)
    assert batch.obs.shape == (3, len(first[1]) * len(second[1]), 2)
    close(weights.sum(), 1.0, rtol=1e-13)
    assert batch.step[:, 0].tolist() == [0, 1, 0]
    moments = [exact.weighted_moments(reward_to_go(b, logits, 0.8), w) for b, w in (first, second, (batch, weights))]
    close(moments[2][0], moments[0][0] + moments[1][0], atol=1e-13)
    close(moments[2][1], moments[0][1] + moments[1][1], atol=1e-13)


def test_groups_are_all_tuples():
    weights = jnp.array([0.2, 0.3, 0.5])
    indices, mass = exact.groups(weights, 3)
    assert indices.shape == (27, 3)
    assert len({tuple(i) for i in indices.tolist()}) == 27
    close(mass.sum(), 1.0)
    close(mass[5], np.prod([weights[i] for i in indices[5].tolist()]))
    x = jnp.array([1.0, -2.0, 0.7])
    mean = weights @ x
    spread = jnp.var(x[indices], axis=1, ddof=1)
    close(mass @ spread, weights @ (x - mean) ** 2, rtol=1e-13)


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_quadrature_is_exact_for_polynomials(nodes):
    points, weights = exact.gauss_hermite(nodes, (2,))
    assert points.shape == (nodes**2, 2)
    for i in range(2 * nodes):
        for j in range(2 * nodes):
            odd = i % 2 or j % 2
            want = 0.0 if odd else math.prod(range(i - 1, 0, -2)) * math.prod(range(j - 1, 0, -2))
            close(weights @ (points[:, 0] ** i * points[:, 1] ** j), want, rtol=1e-11, atol=1e-9)
    scalar, _ = exact.gauss_hermite(4)
    assert scalar.shape == (4,)
    assert exact.gauss_hermite(2, (2, 2))[0].shape == (16, 2, 2)


def test_weighted_moments_of_a_pytree():
    weights = jnp.array([0.1, 0.2, 0.7])
    contributions = {"a": jnp.array([1.0, 2.0, 4.0]), "b": jnp.arange(6.0).reshape(3, 2) ** 2}
    mean, covariance = exact.weighted_moments(contributions, weights)
    flat = np.column_stack([contributions["a"], contributions["b"]])
    close(mean["a"], weights @ flat[:, 0])
    close(mean["b"], weights @ flat[:, 1:])
    close(covariance, np.cov(flat.T, aweights=np.asarray(weights), ddof=0), rtol=1e-13)


def test_bad_arguments_are_refused_by_name():
    mdp, probs = exact.two_state(), jnp.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"horizon is required where mdp.horizon is None"):
        exact.trajectories(mdp, probs)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        exact.trajectories(mdp, probs, 0)
    with pytest.raises(ValueError, match="limit=100 trajectories is exceeded, by 256"):
        exact.trajectories(mdp, probs, 5, limit=100)
    with pytest.raises(ValueError, match="limit=10 groups is exceeded, by 16"):
        exact.groups(jnp.full(2, 0.5), 4, limit=10)
    with pytest.raises(ValueError, match="size must be at least 1"):
        exact.groups(jnp.full(2, 0.5), 0)
    with pytest.raises(TypeError, match="num_nodes must be a Python int"):
        exact.gauss_hermite(2.5)
    with pytest.raises(ValueError, match=r"contributions\['a'\] must have shape \[N, ...\] = \[2, 4\], got \[3, 4\]"):
        exact.weighted_moments({"a": jnp.ones((3, 4))}, jnp.full(2, 0.5))
