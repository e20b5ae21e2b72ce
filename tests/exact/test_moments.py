"""Exact moments: the figures, enumeration, and what has no variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjax import exact

from .test_enumerate import returns_to_go, reward_to_go, scores
from .test_gradients import network
from .test_mdp import close, episodic, garnet

PRINTED = 5.1e-9  # half a unit of the eighth decimal


def two_state(horizon=None):
    logits = exact.two_state_logits()
    return exact.two_state().replace(horizon=horizon), logits, jax.nn.softmax(logits)


def gae(batch, value, discount, lam):
    """Advantages and discounts of each step, [H, N], by a loop."""
    value, reward, going = np.asarray(value), np.asarray(batch.reward), 1.0 - np.asarray(batch.terminated)
    delta = reward + discount * going * (batch.next_obs @ value) - batch.obs @ value
    advantage = np.zeros_like(reward)
    for t in reversed(range(len(reward))):
        later = advantage[t + 1] if t + 1 < len(reward) else 0.0
        advantage[t] = delta[t] + discount * lam * going[t] * later
    return advantage, discount ** np.asarray(batch.step)


def matches(moments, enumerated):
    mean, covariance = enumerated
    close(moments.mean, mean.ravel(), atol=1e-12)
    close(moments.covariance, covariance, rtol=1e-11, atol=1e-12)


def test_two_state_variances_of_reward_to_go():
    mdp, logits, probs = two_state()
    value = exact.value(mdp, probs)
    per_step = exact.per_step_optimal_baseline(mdp, probs)
    best = exact.trajectory_optimal_baseline(mdp, probs)
    close(per_step, [7.5841552931, 7.8270872798], atol=5.1e-11)
    close(best, [7.87336569, 8.47723599], atol=PRINTED)
    for baseline, want in (
        (None, 179.43515968),
        (value, 12.94212681),
        (per_step, 13.42977662),
        (best, 12.85367868),
    ):
        pair = exact.gpomdp_pair(mdp, probs, baseline=baseline)
        moments = exact.pair_moments(mdp, pair)
        close(moments.trace, want, atol=PRINTED)
        close(exact.pair_variance(mdp, pair), moments.trace, rtol=1e-12)
        close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)


@pytest.mark.parametrize(
    ("lam", "want"), [(0.0, 1.65898467), (0.5, 2.40652567), (0.95, 8.84405355), (1.0, 12.94212681)]
)
def test_two_state_variances_of_gae_at_the_exact_value(lam, want):
    mdp, logits, probs = two_state()
    moments = exact.pair_moments(mdp, exact.gae_pair(mdp, probs, exact.value(mdp, probs), lam=lam))
    close(moments.trace, want, atol=PRINTED)
    close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)


@pytest.mark.parametrize(
    ("lam", "bias", "want"),
    [
        (0.0, 1.35457250, 2.08924243),
        (0.5, 0.81061096, 2.79805405),
        (0.9, 0.19242558, 7.26552249),
        (1.0, 0.0, 13.80279448),
    ],
)
def test_two_state_bias_and_variance_of_gae_at_a_wrong_value(lam, bias, want):
    mdp, logits, probs = two_state()
    wrong = exact.value(mdp, probs) + jnp.array([0.7, -0.4])
    moments = exact.pair_moments(mdp, exact.gae_pair(mdp, probs, wrong, lam=lam))
    error = moments.mean - exact.policy_gradient(mdp, logits).ravel()
    close(jnp.linalg.norm(error), bias, atol=PRINTED)
    close(moments.trace, want, atol=PRINTED)
    predicted = exact.critic_gradient(mdp, logits, exact.gae_bias(mdp, probs, wrong, lam=lam))
    close(error, predicted.ravel(), atol=1e-13)


def test_the_all_action_estimator_is_not_always_the_least_variable():
    mdp, logits, probs = two_state()
    pair = exact.all_action_pair(mdp, probs, exact.action_value(mdp, probs))
    moments = exact.pair_moments(mdp, pair)
    close(moments.trace, 1.86255480, atol=PRINTED)
    close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)
    short, _, _ = two_state(4)
    summed = exact.all_action_pair(short, probs, exact.action_values_over_time(short, probs))
    sampled = exact.off_pac_pair(short, probs, exact.advantages_over_time(short, probs))
    close([exact.pair_variance(short, pair) for pair in (summed, sampled)], [0.66663, 0.65556], atol=5.1e-6)
    for pair in (summed, sampled):
        close(exact.pair_moments(short, pair).mean, exact.policy_gradient(short, logits).ravel(), atol=1e-13)


@pytest.mark.parametrize(
    ("horizon", "first", "second", "trace"),
    [
        (1, 0.2350037122, 0.0, 0.0669934279),
        (2, 0.3230247740, -0.2003645235, 1.3595033013),
        (3, 0.3768485223, -0.4556517372, 3.99767005),
        (5, 0.4630769564, -0.9547680459, 12.9457397947),
    ],
)
def test_two_state_finite_horizon(horizon, first, second, trace):
    mdp, _, probs = two_state(horizon)
    moments = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs))
    close(moments.mean[::2], [first, second], atol=5.1e-11)
    close(moments.trace, trace, atol=PRINTED if horizon == 3 else 5.1e-11)


def test_two_state_three_steps():
    mdp, logits, probs = two_state(3)
    close(exact.reinforce_moments(mdp, probs).trace, 7.37893277, atol=PRINTED)
    scalar = exact.optimal_return_baseline(mdp, probs)
    each = exact.optimal_parameter_baseline(mdp, probs)
    close(each[::2], [1.9983696204, 1.6867856839], atol=5.1e-11)
    for baseline, want in ((scalar, 2.19553665), (each, 2.16671636)):
        moments = exact.reinforce_moments(mdp, probs, baseline=baseline)
        close(moments.trace, want, atol=PRINTED)
        close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)
        slope = jax.grad(lambda b: exact.reinforce_moments(mdp, probs, baseline=b).trace)(baseline)
        close(slope, 0.0, atol=1e-12)
    dropped = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, state_discount=1.0))
    close(dropped.mean[::2], [0.4112766421, -0.5366794263], atol=5.1e-11)
    close(dropped.trace, 4.52398561, atol=PRINTED)
    close(dropped.mean, exact.dropped_discount_gradient(mdp, logits).ravel(), atol=1e-13)


@pytest.mark.parametrize(
    ("pattern", "plain", "with_value"), [("zero", 0.18898981, 0.15540227), ("sine", 0.24772894, 0.20027996)]
)
def test_riverswim_variances(pattern, plain, with_value):
    mdp = exact.riverswim6()
    probs = jax.nn.softmax(exact.sine_logits(mdp) if pattern == "sine" else jnp.zeros_like(mdp.reward))
    pairs = [exact.gpomdp_pair(mdp, probs, baseline=b) for b in (None, exact.value(mdp, probs))]
    close([exact.pair_variance(mdp, pair) for pair in pairs], [plain, with_value], atol=PRINTED)


FINITE = {
    "continuing": lambda: garnet(2, 0.8, 4, 3, 2),
    "undiscounted": lambda: garnet(2, 1.0, 3, 3, 2),
    "terminal": lambda: (lambda mdp, logits, probs: (mdp.replace(horizon=3), logits, probs))(*episodic(2, 0.9)),
}


@pytest.mark.parametrize("case", FINITE)
def test_reward_to_go_matches_enumeration(case):
    mdp, logits, probs = FINITE[case]()
    batch, weights = exact.trajectories(mdp, probs)
    baseline = jnp.sin(jnp.arange(mdp.num_states) + 1.0)
    for b in (None, baseline):
        contributions = reward_to_go(batch, logits, mdp.discount, b)
        moments = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, baseline=b))
        matches(moments, exact.weighted_moments(contributions, weights))
        close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)
    unweighted = reward_to_go(batch, logits, mdp.discount) if float(mdp.discount) == 1 else None
    if unweighted is not None:
        matches(
            exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, state_discount=1.0)),
            exact.weighted_moments(unweighted, weights),
        )


@pytest.mark.parametrize("case", FINITE)
def test_reinforce_matches_enumeration(case):
    mdp, logits, probs = FINITE[case]()
    batch, weights = exact.trajectories(mdp, probs)
    total = returns_to_go(batch, float(mdp.discount))[0]
    score = scores(batch, logits).sum(0)
    params = mdp.reward.size
    for baseline in (0.0, 0.7, jnp.cos(jnp.arange(float(params)))):
        rest = total[:, None, None] - np.broadcast_to(baseline, (params,)).reshape(logits.shape)
        moments = exact.reinforce_moments(mdp, probs, baseline=baseline)
        matches(moments, exact.weighted_moments(rest * score, weights))
    joint = exact.return_moments(mdp, probs)
    flat = score.reshape(len(weights), -1)
    for j in range(3):
        close(joint.plain[j], weights @ total**j, rtol=1e-12)
        close(joint.score[j], np.einsum("n,n,np->p", weights, total**j, flat), atol=1e-13)
        close(joint.square[j], np.einsum("n,n,np,nq->pq", weights, total**j, flat, flat), atol=1e-12)


@pytest.mark.parametrize("case", FINITE)
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gae_matches_enumeration_at_a_wrong_value(case, lam):
    mdp, logits, probs = FINITE[case]()
    batch, weights = exact.trajectories(mdp, probs)
    value = jnp.cos(jnp.arange(mdp.num_states) * 2.0)
    advantage, discounts = gae(batch, value, float(mdp.discount), lam)
    contributions = np.einsum("hn,hnsa->nsa", discounts * advantage, scores(batch, logits))
    moments = exact.pair_moments(mdp, exact.gae_pair(mdp, probs, value, lam=lam))
    matches(moments, exact.weighted_moments(contributions, weights))


def off_policy():
    mdp, logits, probs = garnet(2, 0.8, 3, 3, 2)
    return mdp, logits, probs, jax.nn.softmax(jnp.sin(jnp.arange(6.0)).reshape(3, 2))


def test_off_policy_estimators_match_enumeration():
    """PDIS and V-trace with different clips and a wrong value, written as loops over the steps."""
    mdp, logits, probs, behaviour = off_policy()
    batch, weights = exact.trajectories(mdp, behaviour)
    state, after, action = np.argmax(batch.obs, -1), np.argmax(batch.next_obs, -1), np.asarray(batch.action)
    ratio, reward = np.asarray(probs / behaviour)[state, action], np.asarray(batch.reward)
    score, gamma = scores(batch, logits), 0.8
    returns, so_far, pdis = 0.0 * reward[0], 1.0 + 0.0 * reward[0], 0.0
    to_go = []
    for t in (2, 1, 0):
        returns = ratio[t] * (reward[t] + gamma * returns)
        to_go.insert(0, returns)
    for t in range(3):
        pdis = pdis + (gamma**t * so_far * to_go[t])[:, None, None] * score[t]
        so_far = so_far * ratio[t]
    moments = exact.pair_moments(mdp, exact.pdis_pair(mdp, probs, behaviour=behaviour))
    matches(moments, exact.weighted_moments(pdis, weights))
    close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)

    value = np.array([0.4, -1.0, 2.0])
    v, v_next = value[state], value[after] * (1 - np.asarray(batch.terminated))
    delta = reward + gamma * v_next - v
    lam, clip_rho, clip_c, clip_pg = 0.7, 0.9, 0.6, 1.2
    actor, excess = 0.0, 0.0 * reward[0]
    for t in (2, 1, 0):
        target = v_next[t] + lam * excess
        advantage = np.minimum(clip_pg, ratio[t]) * (reward[t] + gamma * target - v[t])
        actor = actor + (gamma**t * advantage)[:, None, None] * score[t]
        excess = np.minimum(clip_rho, ratio[t]) * delta[t] + gamma * lam * np.minimum(clip_c, ratio[t]) * excess
    clips = {"clip_rho": clip_rho, "clip_c": clip_c, "clip_pg_rho": clip_pg}
    pair = exact.vtrace_pair(mdp, probs, jnp.asarray(value), behaviour=behaviour, lam=lam, **clips)
    matches(exact.pair_moments(mdp, pair), exact.weighted_moments(actor, weights))

    critic = exact.action_values_over_time(mdp, probs)
    taken = np.stack([np.asarray(critic)[t, state[t], action[t]] for t in range(3)])
    off_pac = np.einsum("hn,hnsa->nsa", gamma ** np.asarray(batch.step) * ratio * taken, score)
    pair = exact.off_pac_pair(mdp, probs, critic, behaviour=behaviour)
    matches(exact.pair_moments(mdp, pair), exact.weighted_moments(off_pac, weights))


def test_vtrace_on_policy_is_gae_and_its_error_has_mean_zero_at_the_fixed_point():
    mdp, _, probs = garnet(1, 0.8)
    value = jnp.sin(jnp.arange(4.0))
    on_policy = exact.pair_moments(mdp, exact.vtrace_pair(mdp, probs, value, behaviour=probs, lam=0.6))
    same = exact.pair_moments(mdp, exact.gae_pair(mdp, probs, value, lam=0.6))
    close(on_policy.covariance, same.covariance, rtol=1e-11)
    behaviour = jnp.full((4, 3), 1 / 3)
    for clip_c, lam in ((1.0, 1.0), (0.5, 0.3)):
        fixed = exact.vtrace_value(mdp, probs, behaviour, clip_rho=1.1)
        pair = exact.vtrace_pair(mdp, probs, fixed, behaviour=behaviour, lam=lam, clip_rho=1.1, clip_c=clip_c)
        # With score and slope one and decay zero, the mean of Y from state s is γλ times that of X after it.
        probe = pair.replace(
            score=jnp.ones((4, 3, 1)),
            offset=pair.delta,
            slope=pair.carry,
            decay=jnp.zeros_like(pair.decay),
        )
        for s in range(4):
            start = mdp.replace(initial=jnp.eye(4)[s])
            close(exact.pair_moments(start, probe).mean, 0.0, atol=1e-13)


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 50))
def test_long_horizons_converge_to_the_solve(seed):
    mdp, _, probs = garnet(seed, 0.7, None, 3, 2)
    long = mdp.replace(horizon=150)
    baseline = jnp.sin(jnp.arange(3.0) + seed)
    infinite = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, baseline=baseline))
    finite = exact.pair_moments(long, exact.gpomdp_pair(long, probs, baseline=baseline))
    close(finite.mean, infinite.mean, atol=1e-11)
    close(finite.covariance, infinite.covariance, rtol=1e-10, atol=1e-11)


def test_what_has_infinite_variance_says_so():
    mdp, logits, probs = two_state()
    pair = exact.pdis_pair(mdp, probs, behaviour=exact.two_state_behaviour())
    moments = exact.pair_moments(mdp, pair)
    assert exact.followon_spectral_radius(mdp, probs, exact.two_state_behaviour()) > 1
    assert bool(jnp.all(moments.covariance == jnp.inf))
    assert float(exact.pair_variance(mdp, pair)) == float("inf")
    close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-12)
    near = exact.pdis_pair(mdp, probs, behaviour=0.9 * probs + 0.1 * exact.two_state_behaviour())
    assert bool(jnp.isfinite(exact.pair_variance(mdp, near)))
    dropped = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, state_discount=1.0))
    assert bool(jnp.all(jnp.isnan(dropped.mean)))
    assert float(dropped.trace) == float("inf")


def test_a_wild_part_that_is_never_reached_does_not_count():
    mdp, _, probs = two_state()
    transition = jnp.zeros((4, 2, 4)).at[:2, :, :2].set(mdp.transition).at[2:, :, 2:].set(mdp.transition)
    reward = jnp.vstack([mdp.reward, mdp.reward])
    both = jnp.vstack([probs, probs])
    behaviour = jnp.vstack([probs, exact.two_state_behaviour()])
    wide = exact.TabularMDP(transition, reward, jnp.array([1.0, 0, 0, 0]), 0.9)
    inside = exact.pair_variance(wide, exact.pdis_pair(wide, both, behaviour=behaviour))
    close(inside, exact.pair_variance(mdp, exact.gpomdp_pair(mdp, probs)), rtol=1e-11)
    outside = wide.replace(initial=jnp.array([0.5, 0, 0.5, 0]))
    assert float(exact.pair_variance(outside, exact.pdis_pair(outside, both, behaviour=behaviour))) == float("inf")


def test_undiscounted_episodes_have_moments():
    mdp, logits, probs = episodic(4)
    moments = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs))
    close(moments.mean, exact.policy_gradient(mdp, logits).ravel(), atol=1e-13)
    long = mdp.replace(horizon=120)
    close(moments.covariance, exact.pair_moments(long, exact.gpomdp_pair(long, probs)).covariance, atol=1e-11)


def test_what_a_value_says_of_terminal_states_does_not_matter():
    mdp, logits, probs = episodic(4, 0.9)
    truth = exact.policy_gradient(mdp, logits).ravel()
    moments = [
        exact.pair_moments(mdp, exact.gae_pair(mdp, probs, jnp.array([0.5, -1.0, 2.0, 0.3, end]), lam=1.0))
        for end in (0.0, 50.0)
    ]
    close(moments[1].mean, truth, atol=1e-12)
    close(moments[1].covariance, moments[0].covariance, rtol=1e-12)


def test_networks_have_moments_too():
    mdp, _, _ = garnet(1, 0.8, 3, 3, 2)
    params, policy_probs = network(3, 2)
    probs, score = policy_probs(params), exact.score_of(params, policy_probs)
    moments = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, score=score))
    gradient = exact.policy_gradient_of(mdp, params, policy_probs)
    close(moments.mean, jax.flatten_util.ravel_pytree(gradient)[0], atol=1e-13)
    batch, weights = exact.trajectories(mdp, probs)
    discounted = 0.8 ** np.asarray(batch.step) * returns_to_go(batch, 0.8)
    taken = np.asarray(score)[np.argmax(batch.obs, -1), np.asarray(batch.action)]
    _, covariance = exact.weighted_moments(np.einsum("hn,hnp->np", discounted, taken), weights)
    close(moments.covariance, covariance, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("horizon", [None, 3])
def test_trajectory_optimal_baseline_is_stationary_and_minimal(horizon):
    mdp, _, probs = garnet(3, 0.8, horizon, 3, 2)
    best = exact.trajectory_optimal_baseline(mdp, probs)
    variance = lambda b: exact.pair_variance(mdp, exact.gpomdp_pair(mdp, probs, baseline=b))  # noqa: E731
    close(jax.grad(variance)(best), 0.0, atol=1e-11)
    # Quadratic without cross terms: changes at different states add up.
    units = jnp.eye(best.size).reshape(-1, *best.shape)
    shifts = jnp.concatenate([jnp.zeros_like(units[:1]), units, units[:1] + units[1:], 2 * units])
    change = jax.vmap(lambda shift: variance(best + shift))(shifts) - variance(best)
    single, both, double = jnp.split(change[1:], [best.size, 2 * best.size - 1])
    assert bool(jnp.all(single > 0))
    close(both, single[0] + single[1:], rtol=1e-10)
    close(double, 4 * single, rtol=1e-10)
    value = exact.value(mdp, probs) if horizon is None else exact.values_over_time(mdp, probs)[:-1]
    others = [value, exact.per_step_optimal_baseline(mdp, probs), best + 0.1]
    assert all(float(variance(best)) < float(variance(b)) for b in others)


def test_baselines_of_states_that_do_not_matter_are_zero():
    mdp, _, probs = episodic(3, 0.9)
    assert float(exact.trajectory_optimal_baseline(mdp, probs)[-1]) == 0.0
    assert float(exact.per_step_optimal_baseline(mdp, probs)[-1]) == 0.0


def test_two_action_per_step_baseline_weighs_by_the_other_probability():
    mdp, _, probs = two_state()
    q = exact.action_value(mdp, probs)
    close(exact.per_step_optimal_baseline(mdp, probs), jnp.sum(probs[:, ::-1] * q, 1), rtol=1e-13)


@pytest.mark.parametrize("horizon", [None, 3])
def test_variance_split_adds_up(horizon):
    mdp, logits, probs = garnet(3, 0.8, horizon, 3, 2)
    value = jnp.cos(jnp.arange(3.0))
    pair = exact.gae_pair(mdp, probs, value, lam=0.9)
    split = exact.variance_split(mdp, pair)
    if horizon is not None:
        batch, weights = exact.trajectories(mdp, probs)
        advantage, discounts = gae(batch, value, 0.8, 0.9)
        each = (advantage[..., None, None] * scores(batch, logits)).reshape(-1, 6)
        mass = (discounts * np.asarray(weights)).ravel()
        _, covariance = exact.weighted_moments(each, mass / mass.sum())
        close(split.state + split.action + split.trajectory, jnp.trace(covariance), rtol=1e-11)
    assert min(float(split.state), float(split.action), float(split.trajectory)) > 0
    # A baseline of the state moves the middle term only; with Q in place of returns nothing follows.
    shifted = exact.variance_split(mdp, pair.replace(offset=pair.offset - 1.0))
    close([shifted.state, shifted.trajectory], [split.state, split.trajectory], rtol=1e-11)
    assert abs(float(shifted.action - split.action)) > 1e-3
    q = exact.action_value(mdp, probs)
    close(exact.variance_split(mdp, exact.off_pac_pair(mdp, probs, q)).trajectory, 0.0, atol=1e-13)


def test_mutants_of_the_moments_are_rejected():
    mdp, logits, probs = FINITE["continuing"]()
    truth = exact.policy_gradient(mdp, logits).ravel()
    pair = exact.gpomdp_pair(mdp, probs)
    correct = exact.pair_moments(mdp, pair)
    mutants = {
        "discount of the states missing": pair.replace(decay=jnp.ones_like(pair.decay)),
        "discount of the returns missing": pair.replace(carry=jnp.ones_like(pair.carry)),
        "off by one": pair.replace(slope=jnp.ones_like(pair.slope)),
        "wrong sign": pair.replace(offset=-pair.offset, slope=-pair.slope),
        "own reward missing": pair.replace(offset=jnp.zeros_like(pair.offset)),
    }
    for name, mutant in mutants.items():
        assert float(jnp.max(jnp.abs(exact.pair_moments(mdp, mutant).mean - truth))) > 1e-3, name
    wrong_signs = exact.pair_moments(mdp, mutants["wrong sign"])
    close(wrong_signs.covariance, correct.covariance, rtol=1e-12)


def test_bad_arguments_are_refused_by_name():
    mdp, _, probs = two_state()
    with pytest.raises(ValueError, match=r"baseline must have shape \[S\] = \[2\], got \[3\]"):
        exact.gpomdp_pair(mdp, probs, baseline=jnp.ones(3))
    with pytest.raises(ValueError, match=r"value must have shape \[H, S\] = \[3, 2\], got \[4, 2\]"):
        exact.gae_pair(mdp.replace(horizon=3), probs, jnp.ones((4, 2)), lam=0.5)
    with pytest.raises(ValueError, match=r"score must have shape \[S, A, P\]"):
        exact.gpomdp_pair(mdp, probs, score=jnp.ones((3, 2, 1)))
    with pytest.raises(ValueError, match=r"return_moments needs mdp.horizon, got None"):
        exact.reinforce_moments(mdp, probs)
    with pytest.raises(ValueError, match="baseline must be a scalar or have shape"):
        exact.reinforce_moments(mdp.replace(horizon=2), probs, baseline=jnp.ones(3))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        exact.gae_pair(mdp, probs, jnp.ones(2), lam=1.5)
    with pytest.raises(ValueError, match="behaviour must have shape"):
        exact.pdis_pair(mdp, probs, behaviour=jnp.ones((2, 3)))
