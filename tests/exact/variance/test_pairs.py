"""Each estimator as a pair of recurrences: the figures, and enumeration of every trajectory."""

import jax
import numpy as np
import pytest
from known_answers import PRINTED, RIVERSWIM_VARIANCE, TWO_STATE, TWO_STATE_FOUR, TWO_STATE_HORIZON, TWO_STATE_THREE

from pgjax import exact

from ..processes import (
    close,
    episodic,
    expectation,
    gae,
    garnet,
    network,
    numpy,
    raveled,
    returns_to_go,
    reward_to_go,
    scores,
    softmax,
    states_of,
    two_state,
)

FINITE = {
    "continuing": lambda: garnet(2, 0.8, 4, 3, 2),
    "undiscounted": lambda: garnet(2, 1.0, 3, 3, 2),
    "terminal": lambda: episodic(2, 0.9, 3),
}
every_case = pytest.mark.parametrize("case", FINITE)


def matches(moments, contributions, weights):
    mean, covariance = expectation(contributions, weights)
    close(moments.mean, mean, atol=1e-12)
    close(moments.covariance, covariance, rtol=1e-11, atol=1e-12)


@jax.jit
def of_reward_to_go(mdp, probs, baselines):
    """Moments with each baseline, and without any."""
    with_baseline = jax.vmap(lambda b: exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, baseline=b)))(baselines)
    return with_baseline, exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs))


@jax.jit
def of_gae(mdp, probs, value, lam):
    return exact.pair_moments(mdp, exact.gae_pair(mdp, probs, value, lam=lam))


def test_two_state_variances_of_gae_at_the_exact_value():
    mdp, _, probs = two_state()
    value = exact.value(mdp, probs)
    for lam, want in TWO_STATE.gae_variance.items():
        moments = numpy(of_gae(mdp, probs, value, lam))
        close(np.trace(moments.covariance), want, atol=PRINTED[8])
        close(moments.mean, np.ravel(TWO_STATE.gradient), atol=PRINTED[10])


def test_two_state_bias_and_variance_of_gae_at_a_wrong_value():
    mdp, logits, probs = two_state()
    value, truth = numpy((exact.value(mdp, probs), exact.policy_gradient(mdp, logits)))
    wrong = value + TWO_STATE.wrong_by
    predict = jax.jit(lambda lam: exact.critic_gradient(mdp, logits, exact.gae_bias(mdp, probs, wrong, lam=lam)))
    for lam, (bias, variance) in TWO_STATE.gae_at_wrong_value.items():
        moments = numpy(of_gae(mdp, probs, wrong, lam))
        error = moments.mean - truth.ravel()
        close(np.linalg.norm(error), bias, atol=PRINTED[8])
        close(np.trace(moments.covariance), variance, atol=PRINTED[8])
        close(error, np.ravel(predict(lam)), atol=1e-12)


def test_the_all_action_estimator_is_not_always_the_least_variable():
    mdp, logits, probs = two_state()

    @jax.jit
    def moments(mdp, probs):
        short = mdp.replace(horizon=4)
        summed = exact.all_action_pair(short, probs, exact.action_values_over_time(short, probs))
        sampled = exact.off_pac_pair(short, probs, exact.advantages_over_time(short, probs))
        endless = exact.all_action_pair(mdp, probs, exact.action_value(mdp, probs))
        return (
            exact.pair_moments(mdp, endless),
            [exact.pair_moments(short, pair) for pair in (summed, sampled)],
            exact.policy_gradient(short, logits),
        )

    endless, short, gradient = numpy(moments(mdp, probs))
    close(np.trace(endless.covariance), TWO_STATE.all_action_variance, atol=PRINTED[8])
    close(endless.mean, np.ravel(TWO_STATE.gradient), atol=PRINTED[10])
    want = TWO_STATE_FOUR.all_action_variance, TWO_STATE_FOUR.sampled_advantage_variance
    close([np.trace(x.covariance) for x in short], want, atol=PRINTED[5])
    for x in short:
        close(x.mean, gradient.ravel(), atol=1e-13)


def test_two_state_with_a_horizon():
    mdp, _, probs = two_state()

    @jax.jit
    def moments(mdp, probs):
        plain = {}
        for horizon in TWO_STATE_HORIZON:
            short = mdp.replace(horizon=horizon)
            plain[horizon] = exact.pair_moments(short, exact.gpomdp_pair(short, probs))
        short = mdp.replace(horizon=3)
        return plain, exact.pair_moments(short, exact.gpomdp_pair(short, probs, state_discount=1.0))

    plain, dropped = numpy(moments(mdp, probs))
    for horizon, (first, second, variance) in TWO_STATE_HORIZON.items():
        close(plain[horizon].mean[::2], [first, second], atol=PRINTED[10])
        close(np.trace(plain[horizon].covariance), variance, atol=PRINTED[8 if horizon == 3 else 10])
    close(dropped.mean, np.ravel(TWO_STATE_THREE.dropped_gradient), atol=PRINTED[10])
    close(np.trace(dropped.covariance), TWO_STATE_THREE.dropped_variance, atol=PRINTED[8])


def test_riverswim_variances():
    mdp = exact.riverswim6()

    @jax.jit
    def variances(mdp, probs):
        pairs = [exact.gpomdp_pair(mdp, probs, baseline=b) for b in (None, exact.value(mdp, probs))]
        return [exact.pair_variance(mdp, pair) for pair in pairs]

    for name, logits in (("zero", np.zeros((6, 2))), ("sine", exact.sine_logits(mdp))):
        close(variances(mdp, softmax(np.asarray(logits))), RIVERSWIM_VARIANCE[name], atol=PRINTED[8])


@every_case
def test_reward_to_go_matches_enumeration(case):
    mdp, logits, probs = FINITE[case]()
    batch, weights = numpy(exact.trajectories(mdp, probs))
    gamma = float(mdp.discount)
    baseline = np.sin(np.arange(len(probs)) + 1.0)
    with_baseline, without = numpy(of_reward_to_go(mdp, probs, np.stack([np.zeros_like(baseline), baseline])))
    matches(without, reward_to_go(batch, logits, gamma), weights)
    for i, b in enumerate((None, baseline)):
        moments = jax.tree.map(lambda x, i=i: x[i], with_baseline)
        matches(moments, reward_to_go(batch, logits, gamma, b), weights)
        close(moments.mean, np.ravel(exact.policy_gradient(mdp, logits)), atol=1e-13)


@every_case
def test_the_factor_between_steps_matches_enumeration(case):
    """state_discount k: Σ_t k^t ψ_t (G_t - b), for a k that is neither γ nor 1."""
    mdp, logits, probs = FINITE[case]()
    batch, weights = numpy(exact.trajectories(mdp, probs))
    moments = jax.jit(lambda mdp, probs: exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, state_discount=0.6)))(
        mdp, probs
    )
    steps = 0.6 ** np.asarray(batch.step) * returns_to_go(batch, float(mdp.discount))
    matches(numpy(moments), np.einsum("hn,hnsa->nsa", steps, scores(batch, logits)), weights)


@every_case
def test_gae_matches_enumeration_at_a_wrong_value(case):
    mdp, logits, probs = FINITE[case]()
    batch, weights = numpy(exact.trajectories(mdp, probs))
    value = np.cos(np.arange(len(probs)) * 2.0)
    gamma = float(mdp.discount)
    for lam in (0.0, 0.7, 1.0):
        steps = gamma ** np.asarray(batch.step) * gae(batch, value, gamma, lam)
        contributions = np.einsum("hn,hnsa->nsa", steps, scores(batch, logits))
        matches(numpy(of_gae(mdp, probs, value, lam)), contributions, weights)


def test_a_baseline_and_a_value_may_depend_on_time():
    mdp, logits, probs = FINITE["undiscounted"]()
    mdp = mdp.replace(discount=0.8)
    batch, weights = numpy(exact.trajectories(mdp, probs))
    table = np.sin(np.arange(9.0)).reshape(3, 3)
    now, after = (np.einsum("hns,hs->hn", batch.obs, table), np.einsum("hns,hs->hn", batch.next_obs[:-1], table[1:]))

    @jax.jit
    def moments(mdp, probs):
        pairs = exact.gpomdp_pair(mdp, probs, baseline=table), exact.gae_pair(mdp, probs, table, lam=0.0)
        return [exact.pair_moments(mdp, pair) for pair in pairs]

    to_go, one_step = numpy(moments(mdp, probs))
    discounts, score = 0.8 ** np.asarray(batch.step), scores(batch, logits)
    matches(to_go, np.einsum("hn,hnsa->nsa", discounts * (returns_to_go(batch, 0.8) - now), score), weights)
    delta = batch.reward + 0.8 * np.vstack([after, 0 * after[:1]]) - now
    matches(one_step, np.einsum("hn,hnsa->nsa", discounts * delta, score), weights)


def test_off_policy_estimators_match_enumeration():
    """PDIS, V-trace with different clips and a wrong value, and Off-PAC, written as loops over the steps."""
    mdp, logits, probs = garnet(2, 0.8, 3, 3, 2)
    behaviour = softmax(np.sin(np.arange(6.0)).reshape(3, 2))
    value, lam = np.array([0.4, -1.0, 2.0]), 0.7
    clips = {"clip_rho": 0.9, "clip_c": 0.6, "clip_pg_rho": 1.2}

    @jax.jit
    def moments(mdp, probs):
        critic = exact.action_values_over_time(mdp, probs)
        pairs = (
            exact.pdis_pair(mdp, probs, behaviour=behaviour),
            exact.vtrace_pair(mdp, probs, value, behaviour=behaviour, lam=lam, **clips),
            exact.off_pac_pair(mdp, probs, critic, behaviour=behaviour),
        )
        return [exact.pair_moments(mdp, pair) for pair in pairs], critic

    (of_pdis, of_vtrace, of_off_pac), critic = numpy(moments(mdp, probs))
    batch, weights = numpy(exact.trajectories(mdp, behaviour))
    state, action, after = states_of(batch)
    ratio, reward, score, gamma = (probs / behaviour)[state, action], batch.reward, scores(batch, logits), 0.8
    returns, so_far, pdis, to_go = 0.0 * reward[0], 1.0 + 0.0 * reward[0], 0.0, []
    for t in (2, 1, 0):
        returns = ratio[t] * (reward[t] + gamma * returns)
        to_go.insert(0, returns)
    for t in range(3):
        pdis = pdis + (gamma**t * so_far * to_go[t])[:, None, None] * score[t]
        so_far = so_far * ratio[t]
    matches(of_pdis, pdis, weights)
    close(of_pdis.mean, np.ravel(exact.policy_gradient(mdp, logits)), atol=1e-13)

    v, v_next = value[state], value[after] * (1 - batch.terminated)
    delta, actor, excess = reward + gamma * v_next - v, 0.0, 0.0 * reward[0]
    for t in (2, 1, 0):
        advantage = np.minimum(1.2, ratio[t]) * (reward[t] + gamma * (v_next[t] + lam * excess) - v[t])
        actor = actor + (gamma**t * advantage)[:, None, None] * score[t]
        excess = np.minimum(0.9, ratio[t]) * delta[t] + gamma * lam * np.minimum(0.6, ratio[t]) * excess
    matches(of_vtrace, actor, weights)

    taken = np.stack([critic[t, state[t], action[t]] for t in range(3)])
    matches(of_off_pac, np.einsum("hn,hnsa->nsa", gamma**batch.step * ratio * taken, score), weights)


def test_coefficients_are_zero_where_the_behaviour_never_acts_so():
    mdp, _, _ = garnet(2, 0.8, None, 3, 2)
    probs = np.array([[0.0, 1.0], [0.3, 0.7], [0.5, 0.5]])
    behaviour = np.array([[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])

    @jax.jit
    def pairs(mdp, probs):
        return (
            exact.pdis_pair(mdp, probs, behaviour=behaviour),
            exact.vtrace_pair(mdp, probs, np.ones(3), behaviour=behaviour),
            exact.off_pac_pair(mdp, probs, np.ones((3, 2)), behaviour=behaviour),
        )

    for pair in numpy(pairs(mdp, probs)):
        close(pair.behaviour, behaviour)
        for name in ("delta", "carry", "offset", "slope"):
            close(getattr(pair, name)[:2, 0], 0.0, atol=0.0)
        assert np.abs(pair.offset[:, 1]).min() > 0


def test_vtrace_on_policy_is_gae_and_its_error_has_mean_zero_at_the_fixed_point():
    mdp, _, probs = garnet(1, 0.8)
    value, behaviour = np.sin(np.arange(4.0)), np.full((4, 3), 1 / 3)

    @jax.jit
    def on_policy(mdp, probs):
        pairs = (
            exact.vtrace_pair(mdp, probs, value, behaviour=probs, lam=0.6),
            exact.gae_pair(mdp, probs, value, lam=0.6),
        )
        return [exact.pair_moments(mdp, pair) for pair in pairs]

    vtrace, same = numpy(on_policy(mdp, probs))
    close(vtrace.mean, same.mean, atol=1e-13)
    close(vtrace.covariance, same.covariance, rtol=1e-11)

    @jax.jit
    def errors(mdp, probs, clip_c, lam):
        fixed = exact.vtrace_value(mdp, probs, behaviour, clip_rho=1.1)
        pair = exact.vtrace_pair(mdp, probs, fixed, behaviour=behaviour, lam=lam, clip_rho=1.1, clip_c=clip_c)
        # With score and slope one and decay zero, the mean of Y from state s is γλ times that of X after it.
        probe = pair.replace(
            score=np.ones((4, 3, 1)), offset=pair.delta, slope=pair.carry, decay=jax.numpy.zeros_like(pair.decay)
        )
        return jax.vmap(lambda start: exact.pair_moments(mdp.replace(initial=start), probe).mean)(np.eye(4))

    for clip_c, lam in ((1.0, 1.0), (0.5, 0.3)):
        close(errors(mdp, probs, clip_c, lam), 0.0, atol=1e-13)


def test_the_value_of_terminal_states_does_not_matter():
    mdp, logits, probs = episodic(4, 0.9)
    truth = np.ravel(exact.policy_gradient(mdp, logits))
    moments = [numpy(of_gae(mdp, probs, np.array([0.5, -1.0, 2.0, 0.3, end]), 1.0)) for end in (0.0, 50.0)]
    close(moments[1].mean, truth, atol=1e-12)
    close(moments[1].covariance, moments[0].covariance, rtol=1e-12)


def test_networks_have_moments_too():
    mdp, _, _ = garnet(1, 0.8, 3, 3, 2)
    params, policy_probs = network(3, 2)

    @jax.jit
    def moments(mdp, params):
        probs, score = policy_probs(params), exact.score_of(params, policy_probs)
        pair = exact.gpomdp_pair(mdp, probs, score=score)
        return exact.pair_moments(mdp, pair), exact.policy_gradient_of(mdp, params, policy_probs), probs, score

    got, gradient, probs, score = numpy(moments(mdp, params))
    close(got.mean, raveled(gradient), atol=1e-13)
    batch, weights = numpy(exact.trajectories(mdp, probs))
    state, action, _ = states_of(batch)
    steps = 0.8**batch.step * returns_to_go(batch, 0.8)
    matches(got, np.einsum("hn,hnp->np", steps, score[state, action]), weights)


def test_bad_arguments_are_refused_by_name():
    mdp, _, probs = two_state()
    with pytest.raises(ValueError, match=r"baseline must have shape \[S\] = \[2\], got \[3\]"):
        exact.gpomdp_pair(mdp, probs, baseline=np.ones(3))
    with pytest.raises(ValueError, match=r"value must have shape \[H, S\] = \[3, 2\], got \[4, 2\]"):
        exact.gae_pair(mdp.replace(horizon=3), probs, np.ones((4, 2)), lam=0.5)
    with pytest.raises(ValueError, match=r"score must have shape \[S, A, P\]"):
        exact.gpomdp_pair(mdp, probs, score=np.ones((3, 2, 1)))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        exact.gae_pair(mdp, probs, np.ones(2), lam=1.5)
    with pytest.raises(ValueError, match="behaviour must have shape"):
        exact.pdis_pair(mdp, probs, behaviour=np.ones((2, 3)))
