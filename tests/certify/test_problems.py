"""The problems: what they say is true, and that their trajectories are those of the process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from certify.suite import chosen, close, problem_of, two_state
from pgjax import certify, exact
from pgjax.certify.candidates.candidate import candidate_of
from pgjax.certify.certificate import VarianceTerms


def columns(trajectory):
    t = trajectory
    leaves = [np.asarray(x, float) for x in (t.obs, t.action, t.reward, t.terminated)]
    return {tuple(np.concatenate([x[:, i].ravel() for x in leaves])) for i in range(t.reward.shape[1])}


@pytest.mark.parametrize("num_steps", [1, 3])
def test_time_in_the_state_keeps_the_objective(num_steps):
    mdp, policy = exact.alias_discount()
    params = jnp.array([[0.3, -0.2], [0.0, 0.0]])
    problem = exact.tabular_problem(
        "x", mdp, params=params, policy=exact.shared_policy(policy.groups), num_steps=num_steps
    )
    window = mdp.replace(horizon=num_steps)
    close(problem.objective, exact.objective(window, policy(params)), rtol=1e-14)
    close(problem.direction(), exact.policy_gradient_of(window, params, policy).ravel(), atol=1e-15)
    batch, weights = problem.enumerated
    assert problem.count() == len(weights)
    close(weights.sum(), 1.0, rtol=1e-14)
    assert bool(jnp.all(batch.terminated[-1]))
    assert not bool(jnp.any(batch.truncated))


def test_what_is_cut_follows_the_process_on():
    problem = problem_of("two_state, cut")
    mdp, logits = exact.two_state(), exact.two_state_logits()
    close(problem.direction(), exact.policy_gradient_unrolled(mdp, logits, num_steps=3).ravel(), atol=1e-14)
    cut = exact.policy_gradient(mdp.replace(horizon=3), logits).ravel()
    close(problem.known["up to the cut"], cut, atol=1e-14)
    batch, _ = problem.enumerated
    assert bool(jnp.all(batch.truncated[-1]))
    assert not bool(jnp.any(batch.terminated))
    sampled = exact.sample_trajectories(jax.random.key(0), problem, 5)
    assert bool(jnp.all(sampled.truncated == batch.truncated[:, :5]))


def test_known_directions_are_gradients_of_what_they_are_called():
    """Held against the enumeration of every trajectory and its score, written apart."""
    problem = two_state(3)
    batch, weights = problem.enumerated
    log_prob = lambda params: problem.policy(params, batch.obs).log_prob(batch.action)  # noqa: E731
    score = np.asarray(jax.jit(jax.jacfwd(log_prob))(problem.params)).reshape(*batch.reward.shape, -1)
    reward, steps, gamma = np.asarray(batch.reward), np.arange(3)[:, None], 0.9

    def mean(weight_of_step, discount, horizon=3):
        to_go = np.zeros_like(reward)
        for t, k in np.ndindex(3, 3):
            to_go[t] += reward[k] * discount ** (k - t) if t <= k < t + horizon else 0.0
        return np.einsum("n,tn,tnp->p", np.asarray(weights), weight_of_step**steps * to_go, score)

    want = {
        "discounted": mean(gamma, gamma),
        "dropped discount": mean(1.0, gamma),
        "off-policy": mean(gamma, gamma),
        "twice discounted": mean(gamma**2, gamma),
        "undiscounted": mean(1.0, 1.0),
        "undiscounted returns": mean(gamma, 1.0),
        "immediate rewards": mean(gamma, gamma, horizon=1),
        "immediate rewards, dropped discount": mean(1.0, gamma, horizon=1),
    }
    assert next(iter(problem.known)) == "discounted"
    assert set(problem.known) == set(want)
    for name, direction in want.items():
        close(problem.known[name], direction, atol=1e-14)
    assert np.linalg.norm(want["undiscounted"] - want["discounted"]) > 0.1


def test_sampled_episodes_end_as_listed_ones_do():
    problem = problem_of("alias_discount")
    sampled = columns(exact.sample_trajectories(jax.random.key(0), problem, 200))
    assert sampled <= columns(problem.enumerated[0])
    assert len(sampled) > 5


def test_critics_are_the_action_values_and_err_when_they_should():
    problem = two_state(1)
    q = problem.mdp.reward[:1]
    obs, action = jnp.eye(2)[:1], jnp.arange(2)
    close([problem.critic(obs, a[None])[0] for a in action], q[0], atol=1e-15)
    assert abs(problem.erring_critic(obs, action[:1])[0] - q[0, 0]) > 0.05
    lqr = exact.lqr_problem("x", *exact.scalar_lqr(), num_steps=1)
    x, u = jnp.array([[0.7]]), jnp.array([[-0.4]])
    close(lqr.critic(x, u), [-(lqr.lqr.Q[0, 0] * 0.7**2 + lqr.lqr.R[0, 0] * 0.4**2)], rtol=1e-6)


def test_bad_arguments_are_refused_by_name():
    problem, bandit = two_state(), problem_of("softmax_bandit")
    with pytest.raises(TypeError, match=r"estimator must be made with pgjax\.estimator, or be a rule, got function"):
        exact.certify(lambda params, trajectory: params, bandit)
    with pytest.raises(ValueError, match="claim must be None or one of"):
        exact.Candidate("x", pg.gpomdp, claim="best")
    with pytest.raises(ValueError, match="needs must be among"):
        exact.Candidate("x", pg.gpomdp, needs=("luck",))
    with pytest.raises(ValueError, match="method must be one of"):
        exact.certify(pg.gpomdp, bandit, method="guess")
    with pytest.raises(ValueError, match=r"limit=100 is exceeded by the 128 groups of 1 trajectories"):
        exact.certify(pg.gpomdp, two_state(4), method="enumeration", limit=100)
    with pytest.raises(ValueError, match=r"method 'recursion' needs candidate\.pair, which 'gpomdp' has not"):
        exact.certify(pg.gpomdp, problem)
    with pytest.raises(ValueError, match="trajectories without end, which cannot be sampled"):
        exact.certify(pg.gpomdp, problem, method="sampling")
    with pytest.raises(ValueError, match="cost_batch must be at least 1, got 0"):
        exact.certify(pg.gpomdp, bandit, cost_batch=0)
    with pytest.raises(ValueError, match="direction must be one of"):
        problem.direction("up")
    with pytest.raises(ValueError, match="direction must be 'discounted'"):
        problem_of("scalar_lqr").direction("off-policy")
    with pytest.raises(ValueError, match=r"behaviour must have shape \[S, A\]"):
        two_state(2, behaviour=jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="groups must name a row"):
        exact.shared_policy(())
    with pytest.raises(ValueError, match=r"lqr.B must have shape \[1, 1\]"):
        exact.lqr_problem("x", *exact.double_integrator(), num_steps=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'grup_size'"):
        exact.certify(pg.gpomdp, bandit, grup_size=2)
    assert isinstance(exact.certify(pg.gpomdp, bandit, terms=True).terms, VarianceTerms)
    assert not chosen("all-action, exact critic")[0].fits(problem_of("scalar_lqr"))


def test_time_in_the_state_ends_every_episode_with_the_last_step() -> None:
    mdp, base = certify.in_time(exact.two_state(), 2)
    assert len(base) == mdp.num_states
    np.testing.assert_allclose(np.asarray(mdp.transition).sum(-1), 1.0)
    after = mdp.initial
    for _ in range(2):
        after = np.einsum("s,sat->t", after, np.asarray(mdp.transition)) / mdp.num_actions
    assert after[np.asarray(exact.terminal_states(mdp))].sum() == pytest.approx(1.0)


def test_a_table_is_a_policy_and_an_estimator_by_itself_a_candidate() -> None:
    table = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_allclose(certify.table_policy(table, jnp.eye(2)).logits, table)
    found = candidate_of(pg.reinforce)
    assert (found.name, found.claim, found.group_size) == ("reinforce", "discounted", 1)
    assert candidate_of(found) is found
    assert candidate_of(pg.reinforce, 2).group_size == 2
