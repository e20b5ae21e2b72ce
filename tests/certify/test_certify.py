"""Certificates: every estimator keeps what it claims, and what is known in closed form comes out."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact.test_mdp import close

import pgjax as pg
from pgjax import exact
from pgjax.certify.certificate import VarianceTerms, bias_test
from pgjax.estimators import Estimator

PRINTED = 5.1e-9  # half a unit of the eighth decimal
FLOOR = 5e-3  # the least relative error of what claims nothing
NAMES = list(exact.certificate_problems())
LISTED = [name for name in NAMES if "endless" not in name]


@functools.cache
def problem_of(name):
    return exact.certificate_problems()[name]()


@functools.cache
def certificates(name):
    """Certificates by enumeration of all that fits, by the name of the estimator."""
    problem = problem_of(name)
    fitting = [c for c in exact.registry() if c.fits(problem) and problem.count() ** c.group_size <= 500_000]
    return {x.estimator: x for x in exact.certify_all(fitting, problem, method="enumeration")}


def chosen(*names):
    by_name = {candidate.name: candidate for candidate in exact.registry()}
    return [by_name[name] for name in names]


def two_state(num_steps=None, **kwargs):
    return exact.tabular_problem(
        "two_state", exact.two_state(), params=exact.two_state_logits(), num_steps=num_steps, **kwargs
    )


def test_every_estimator_of_the_library_has_a_certificate():
    exported = {name: x for name in pg.__all__ if isinstance(x := getattr(pg, name), Estimator)}
    assert len(exported) >= 4
    certified = {id(candidate.estimator) for candidate in exact.registry()}
    assert {name for name, x in exported.items() if id(x) not in certified} == set()
    names = [candidate.name for candidate in exact.registry()]
    assert len(names) == len(set(names))
    fitting = {c.name for name in NAMES for c in exact.registry() if c.fits(problem_of(name))}
    assert fitting == set(names)


@pytest.mark.parametrize("name", LISTED)
def test_every_estimator_keeps_its_claim_and_shows_its_bias(name):
    problem = problem_of(name)
    for estimator, certificate in certificates(name).items():
        where = f"{estimator} on {name}"
        if certificate.claim is not None:
            assert certificate.unbiased, where
            assert certificate.claim_error < 1e-10, where
        elif problem.num_steps > 1 or "wrong value" not in estimator:
            # On a single step no value follows that could be wrong.
            assert certificate.relative_bias > FLOOR, where
        if certificate.claim == "dropped discount" and problem.discount < 1:
            assert certificate.relative_bias > FLOOR, where
        assert np.linalg.eigvalsh(certificate.covariance)[0] > -1e-9 * max(certificate.trace, 1.0), where


@pytest.mark.parametrize("name", ["alias_discount", "two_state, other data"])
def test_enumeration_agrees_with_the_recursion(name):
    problem = problem_of(name)
    paired = [c for c in exact.registry() if c.fits(problem) and c.pair is not None]
    for other in exact.certify_all(paired, problem, method="recursion"):
        one = certificates(name)[other.estimator]
        close(one.mean, other.mean, atol=1e-12)
        close(one.covariance, other.covariance, atol=1e-11)


@pytest.mark.parametrize(
    ("num_steps", "first", "second", "trace"),
    [
        (2, 0.3230247740, -0.2003645235, 1.3595033013),
        (5, 0.4630769564, -0.9547680459, 12.9457397947),
    ],
)
def test_two_state_reward_to_go(num_steps, first, second, trace):
    certificate = exact.certify(chosen("REINFORCE")[0], two_state(num_steps))
    close(certificate.mean[::2], [first, second], atol=5.1e-11)
    close(certificate.trace, trace, atol=PRINTED)


def test_two_state_three_steps():
    mdp = exact.two_state().replace(horizon=3)
    scalar = exact.optimal_return_baseline(mdp, jax.nn.softmax(exact.two_state_logits()))
    best = exact.Candidate("best scalar", pg.likelihood_ratio, lambda p, t: {"baseline": scalar})
    estimators = [*chosen("likelihood ratio", "GPOMDP", "REINFORCE without γ^t"), best]
    total, gpomdp, dropped, least = exact.certify_all(estimators, two_state(3))
    close([x.trace for x in (total, gpomdp, least)], [7.37893277, 3.99767005, 2.19553665], atol=PRINTED)
    close(gpomdp.mean[::2], [0.3768485223, -0.4556517372], atol=5.1e-11)
    close(dropped.mean[::2], [0.4112766421, -0.5366794263], atol=5.1e-11)
    close(dropped.trace, 4.52398561, atol=PRINTED)


def endless(name, pair):
    return exact.Candidate(name, pg.actor_critic, pair=pair)


def test_two_state_without_end():
    problem = two_state()
    value = problem.state_value
    wrong = value + jnp.array([0.7, -0.4])
    reward_to_go = lambda b: endless("to go", lambda p: exact.gpomdp_pair(p.mdp, p.probs, baseline=b))  # noqa: E731
    gae = lambda v, lam: endless("gae", lambda p: exact.gae_pair(p.mdp, p.probs, v, lam=lam))  # noqa: E731
    best = [f(problem.mdp, problem.probs) for f in (exact.per_step_optimal_baseline, exact.trajectory_optimal_baseline)]
    want = [
        (reward_to_go(None), 0.0, 179.43515968),
        (reward_to_go(value), 0.0, 12.94212681),
        (reward_to_go(best[0]), 0.0, 13.42977662),
        (reward_to_go(best[1]), 0.0, 12.85367868),
        (gae(value, 0.0), 0.0, 1.65898467),
        (gae(value, 0.5), 0.0, 2.40652567),
        (gae(value, 0.95), 0.0, 8.84405355),
        (gae(value, 1.0), 0.0, 12.94212681),
        (gae(wrong, 0.0), 1.35457250, 2.08924243),
        (gae(wrong, 0.5), 0.81061096, 2.79805405),
        (gae(wrong, 0.9), 0.19242558, 7.26552249),
        (gae(wrong, 1.0), 0.0, 13.80279448),
    ]
    found = exact.certify_all([candidate for candidate, _, _ in want], problem)
    for certificate, (_, bias, trace) in zip(found, want, strict=True):
        assert certificate.method == "recursion"
        close(certificate.bias_norm, bias, atol=PRINTED)
        close(certificate.trace, trace, atol=PRINTED)
        assert certificate.unbiased == (bias == 0.0)
    close(found[0].gradient[::2], [0.8479865392, -3.1867916630], atol=5.1e-11)
    close(found[0].objective, 7.7569552737, atol=5.1e-11)


def test_riverswim_without_end():
    problem = exact.tabular_problem("riverswim6", exact.riverswim6())
    plain, with_value = exact.certify_all(chosen("REINFORCE", "REINFORCE, value baseline"), problem)
    close([plain.trace, with_value.trace], [0.24772894, 0.20027996], atol=PRINTED)
    close(np.linalg.norm(plain.gradient), 0.0364509024, atol=5.1e-11)


def test_infinite_variance_is_reported_as_such():
    (dropped,) = exact.certify_all(chosen("REINFORCE without γ^t"), two_state())
    off = exact.certify(
        chosen("V-trace, other data, no clipping, wrong value")[0], two_state(behaviour=exact.two_state_behaviour())
    )
    for certificate in (dropped, off):
        assert certificate.trace == math.inf
        assert certificate.samples_for_cosine() == math.inf
        assert (certificate.spectrum == math.inf).all()
    assert not dropped.unbiased
    assert off.unbiased
    assert json.loads(json.dumps(off.as_dict(), allow_nan=False))["trace"] == "inf"


def test_dropping_the_discount_points_to_the_worst_policy():
    problem = problem_of("alias_discount")
    right, wrong = (certificates("alias_discount")[name] for name in ("REINFORCE", "REINFORCE without γ^t"))
    x = float(problem.probs[0, 1])
    close(right.mean[1] / (x * (1 - x)), 0.25, rtol=1e-12)
    close(wrong.mean[1] / (x * (1 - x)), -0.5, rtol=1e-12)
    assert wrong.cosine < 0
    assert wrong.samples_for_cosine() == math.inf


def test_states_of_another_policy_point_the_wrong_way():
    # Σ_t over the two steps: twice the figure for states weighted by their share of the two.
    certificate = certificates("alias_offpolicy, other data")["V-trace, other data, no clipping, wrong value"]
    close(certificate.mean[2] / 2, -0.03125, rtol=1e-12)
    assert certificate.gradient[2] > 0


@pytest.mark.parametrize("size", [2, 3, 5])
def test_groups_of_a_bandit(size):
    problem = problem_of("softmax_bandit")
    estimators = [
        exact.Candidate(name, pg.reinforce, lambda p, t, b=b: {"baseline": b}, claim=claim, group_size=size)
        for name, b, claim in (("others", pg.leave_one_out, "discounted"), ("self", pg.batch_mean, None))
    ]
    others, own = exact.certify_all(estimators, problem)
    closed = exact.leave_one_out_moments(problem.params[0], problem.mdp.reward[0], num_samples=size)
    close(others.mean, closed.mean, atol=1e-14)
    close(others.covariance, closed.covariance, atol=1e-14)
    close(others.trace, size * closed.trace, atol=1e-13)
    close(own.mean, (size - 1) / size * others.gradient, atol=1e-14)
    close(own.cosine, 1.0, atol=1e-12)


def test_linear_quadratic_moments_by_quadrature_and_by_sampling():
    problem = problem_of("scalar_lqr")
    listed = exact.certify_all(chosen("likelihood ratio", "REINFORCE", "REINFORCE, constant baseline"), problem)
    for certificate, moments in (
        (listed[0], exact.lqr_reinforce_moments(problem.lqr, problem.params)),
        (listed[1], exact.lqr_gpomdp_moments(problem.lqr, problem.params)),
    ):
        close(certificate.mean, moments.mean.ravel(), rtol=1e-11)
        close(certificate.covariance, moments.covariance, rtol=1e-11)
    five = exact.lqr_problem("five steps", *exact.scalar_lqr())
    total, to_go = exact.certify_all(chosen("likelihood ratio", "REINFORCE"), five)
    close(five.objective, -3.2484156577, atol=5.1e-11)
    close(total.gradient, [2.436138911658], atol=5.1e-13)
    for certificate, trace in ((total, 476.1098564665), (to_go, 262.3766239932)):
        assert certificate.method == "sampling"
        assert certificate.unbiased
        assert certificate.sampling.trace_error < 0.05 * trace
        assert abs(certificate.trace - trace) < 5 * certificate.sampling.trace_error


@pytest.mark.parametrize(
    ("name", "estimators"),
    [
        ("alias_discount", ("likelihood ratio", "REINFORCE, mean with self", "actor-critic λ=0.95, wrong value")),
        ("two_state, cut", ("PPO, first step, exact value",)),
        ("two_state, other data", ("V-trace, other data, clips 1, wrong value",)),
    ],
)
def test_sampling_agrees_with_enumeration(name, estimators):
    for sampled in exact.certify_all(chosen(*estimators), problem_of(name), method="sampling"):
        listed, found = certificates(name)[sampled.estimator], sampled.sampling
        test = bias_test(
            sampled.mean - listed.mean,
            sampled.covariance,
            listed.mean,
            num_estimates=found.num_estimates,
            trace_error=0.0,
        )
        assert test.p_value > 1e-6
        assert abs(listed.trace - sampled.trace) < 5 * listed.group_size * found.trace_error
        shown = listed.claim_error > 2 * found.detectable * np.linalg.norm(listed.target)
        assert (found.p_value < found.significance) == shown


def mutant(claim="discounted", size=1, arguments=None, **faults):
    """REINFORCE with a baseline and a bootstrap, or with one of several faults."""

    @pg.estimator()
    def estimator(params, trajectory, *, policy, discount, value, mask=None):
        t = trajectory
        ends = {"terminated": t.terminated, "truncated": t.truncated}
        if faults.get("truncation_as_termination"):
            ends = {"terminated": t.done, "truncated": jnp.zeros_like(t.done)}
        returns = pg.discounted_returns(
            t.reward, value(params, t.next_obs), **ends, discount=1.0 if faults.get("undiscounted_return") else discount
        )
        if faults.get("off_by_one"):
            returns = jnp.concatenate([returns[1:], jnp.zeros_like(returns[:1])])
        advantage = returns - value(params, t.obs)
        if faults.get("own_baseline"):
            advantage = returns - 0.5 * returns
        if faults.get("action_baseline"):
            advantage = advantage - 0.5 * t.action
        if faults.get("batch_mean"):
            advantage = returns - returns.mean(-1, keepdims=True)
        if not faults.get("unweighted_states"):
            advantage = advantage * pg.discount_weight(t.step, discount)

        def loss(params, trajectory, advantage, state):
            log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
            return (-1.0 if faults.get("wrong_sign") else 1.0) * pg.policy_gradient_loss(log_prob, advantage)

        return pg.Surrogate(loss, advantage, mask)

    return exact.Candidate("+".join(faults) or "right", estimator, claim=claim, group_size=size)


MUTANTS = (
    "wrong_sign", "unweighted_states", "undiscounted_return", "truncation_as_termination", "own_baseline",
    "action_baseline", "off_by_one",
)  # fmt: skip


def test_mutants_are_rejected_by_enumeration_and_by_sampling():
    problem = problem_of("two_state, cut")
    singles = [mutant(), *(mutant(**{name: True}) for name in MUTANTS)]
    pairs = [mutant(size=2, batch_mean=True)]
    for method in ("enumeration", "sampling"):
        right, *wrong = exact.certify_all(singles + pairs, problem, method=method, num_trajectories=400_000)
        assert right.unbiased
        for certificate in wrong:
            assert not certificate.unbiased, (certificate.estimator, method)
            assert certificate.relative_bias > 0.02, certificate.estimator


def test_one_key_for_policy_and_environment_is_rejected():
    problem = problem_of("two_state")
    env, env_params = problem.environment, problem.environment.default_params

    def rollout(same):
        def sample(key, problem, num_envs):
            def step(carry, keys):
                obs, state = carry
                act, move = (keys[0], keys[0]) if same else (keys[0], keys[1])
                action = problem.policy(problem.params, obs).sample(act)
                after, state, reward, terminated, _ = env.step_env(move, state, action, env_params)
                return (after, state), (obs, action, reward, after, terminated)

            def one(key):
                start, *keys = jax.random.split(key, 1 + 2 * problem.num_steps)
                keys = jnp.stack(keys).reshape(problem.num_steps, 2)
                return jax.lax.scan(step, env.reset_env(start, env_params), keys)[1]

            obs, action, reward, after, terminated = jax.vmap(one, out_axes=1)(jax.random.split(key, num_envs))
            time = jnp.broadcast_to(jnp.arange(problem.num_steps)[:, None], reward.shape)
            return pg.Trajectory(obs, action, reward, after, terminated, ~(terminated | True), 0.0 * reward, time)

        return sample

    for same in (False, True):
        (certificate,) = exact.certify_all(chosen("REINFORCE"), problem, method="sampling", sample=rollout(same))
        assert certificate.unbiased == (not same)


def test_a_baseline_of_single_rewards_needs_episodes_of_one_length():
    """Whether a reward comes at all depends on the actions before it, and its baseline then does too."""
    names = ["GPOMDP, constant baseline", "GPOMDP, leave-one-out"]
    problem = problem_of("alias_discount")
    assert "equal lengths" not in problem.offers
    for certificate in exact.certify_all(chosen(*names), problem):
        assert certificate.relative_bias > FLOOR


def test_the_split_of_the_variance():
    bandit = problem_of("softmax_bandit")
    (certificate,) = exact.certify_all(chosen("REINFORCE"), bandit, terms=True)
    window = bandit.mdp.replace(horizon=1)
    closed = exact.variance_split(window, exact.gpomdp_pair(window, bandit.probs, score=bandit.score))
    terms = certificate.terms
    close([terms.state, terms.action, terms.trajectory], [closed.state, closed.action, closed.trajectory], atol=1e-14)
    problem = two_state(2)
    names = ["REINFORCE", "REINFORCE, value baseline", "REINFORCE, leave-one-out"]
    found = exact.certify_all(chosen(*names), problem, terms=True)
    for one in found:
        close(sum(vars(one.terms).values()), one.trace, rtol=1e-12)
    # A baseline acts on the action term alone, and the exact value leaves there what no baseline could remove.
    plain, with_value, _ = found
    close(plain.terms.state, with_value.terms.state, atol=1e-13)
    assert with_value.terms.action < plain.terms.action
    close(plain.terms.state, brute_force_split(problem)[0], atol=1e-13)
    close(plain.terms.action, brute_force_split(problem)[1], atol=1e-13)
    close(plain.terms.trajectory, brute_force_split(problem)[2], atol=1e-13)


def brute_force_split(problem):
    """The three terms of REINFORCE over two steps, by loops over states, actions and what follows."""
    mdp, gamma = exact.two_state(), 0.9
    probs = jax.nn.softmax(problem.params)
    chain, score = np.asarray(exact.state_transition(mdp, probs)), np.asarray(exact.softmax_score(probs))
    transition, reward, probs = (np.asarray(x) for x in (mdp.transition, mdp.reward, probs))
    follow, start = (probs * reward).sum(1), np.asarray(mdp.initial)
    terms = np.zeros(3)
    for t, reach in enumerate((start, start @ chain)):
        means = np.zeros((2, 2, 4))
        for s, a in np.ndindex(2, 2):
            if t == 1:
                means[s, a] = gamma * reward[s, a] * score[s, a]
                continue
            q = reward[s, a] + gamma * transition[s, a] @ follow
            means[s, a] = q * score[s, a]
            square = 0.0
            for after, b in np.ndindex(2, 2):
                p = transition[s, a, after] * probs[after, b]
                square += p * (reward[s, a] + gamma * reward[after, b] - q) ** 2
            terms[2] += reach[s] * probs[s, a] * square * (score[s, a] @ score[s, a])
        by_state = np.einsum("sa,sap->sp", probs, means)
        spread = np.einsum("sa,sap->s", probs, (means - by_state[:, None]) ** 2)
        terms[1] += reach @ spread
        terms[0] += reach @ np.sum((by_state - reach @ by_state) ** 2, axis=1)
    return terms


def certificate(mean, covariance, gradient, **kwargs):
    options = {"claim": "discounted", "target": np.asarray(gradient), **kwargs}
    return exact.Certificate(
        estimator="x", problem="y", method="enumeration", num_trajectories=1, group_size=1, objective=0.0,
        gradient=np.asarray(gradient), mean=np.asarray(mean), covariance=np.asarray(covariance), **options,
    )  # fmt: skip


def test_samples_for_a_cosine_are_those_at_which_the_part_across_is_small_enough():
    covariance = np.array([[9.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    one = certificate([2.0, 0.1, 0.0], covariance, [3.0, 0.0, 0.0])
    n = one.samples_for_cosine(0.9)
    across = 0.1**2 + (4.0 + 2.0) / n
    close(across, (1 / 0.9**2 - 1) * 2.0**2, rtol=1e-12)
    noise = np.random.default_rng(0).multivariate_normal(one.mean, covariance / round(n), size=20_000)
    close(np.mean(np.abs(noise[:, 0]) / np.linalg.norm(noise, axis=1)), 0.87, atol=0.05)
    assert certificate([2.0, 0.1, 0.0], 0 * covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == 1.0
    assert certificate([-2.0, 0.0, 0.0], covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == math.inf
    assert certificate([2.0, 2.0, 0.0], covariance, [3.0, 0.0, 0.0]).samples_for_cosine() == math.inf
    close(one.spectrum, np.linalg.eigvalsh(covariance)[::-1])
    close(one.signal_to_noise, 4.01 / 15.0)
    close([one.bias_norm, one.relative_bias], [math.hypot(1.0, 0.1), math.hypot(1.0, 0.1) / 3.0])
    with pytest.raises(ValueError, match=r"cosine must lie in \(0, 1\), got 1.0"):
        one.samples_for_cosine(1.0)


def test_the_power_statement_and_the_interval():
    # 1% of a gradient of squared length 21.75 at a trace of 12.94 takes about 2.1e5 episodes.
    target, covariance = np.array([math.sqrt(21.75), 0.0]), np.diag([12.0, 0.94])
    none = bias_test(np.zeros(2), covariance, target, num_estimates=214_000, trace_error=0.0)
    close(none.detectable, 0.01, rtol=0.02)
    assert none.p_value == 1.0
    # Of as many experiments as detect a bias with probability 0.9, most do.
    random = np.random.default_rng(1)
    draws = random.multivariate_normal(none.detectable * target, covariance / 214_000, size=300)
    tests = [bias_test(d, covariance, target, num_estimates=214_000, trace_error=0.0) for d in draws]
    assert np.mean([test.p_value < test.significance for test in tests]) > 0.85
    norm = float(np.linalg.norm(none.detectable * target))
    assert np.mean([test.interval[0] <= norm <= test.interval[1] for test in tests]) > 0.93
    draws = random.multivariate_normal(np.zeros(2), covariance / 100, size=2000)
    p_values = [bias_test(d, covariance, target, num_estimates=100, trace_error=0.0).p_value for d in draws]
    close(np.mean(np.array(p_values) < 0.1), 0.1, atol=0.03)
    # A shift where nothing varies is no chance.
    certain = bias_test(np.array([0.0, 0.1]), np.diag([1.0, 0.0]), target, num_estimates=10, trace_error=0.0)
    assert (certain.p_value, certain.degrees) == (0.0, 1)


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
    close(weights.sum(), 1.0)
    assert bool(jnp.all(batch.terminated[-1]))
    assert not bool(jnp.any(batch.truncated))


def test_what_is_cut_follows_the_process_on():
    problem = problem_of("two_state, cut")
    mdp, logits = exact.two_state(), exact.two_state_logits()
    close(problem.direction(), exact.policy_gradient_unrolled(mdp, logits, num_steps=3).ravel(), atol=1e-14)
    batch, _ = problem.enumerated
    assert bool(jnp.all(batch.truncated[-1]))
    assert not bool(jnp.any(batch.terminated))
    sampled = exact.sample_trajectories(jax.random.key(0), problem, 5)
    assert bool(jnp.all(sampled.truncated == batch.truncated[:, :5]))


def test_sampled_episodes_end_as_listed_ones_do():
    problem = problem_of("alias_discount")
    sampled = exact.sample_trajectories(jax.random.key(0), problem, 200)
    listed, _ = problem.enumerated
    rows = lambda t: {  # noqa: E731
        tuple(np.concatenate([np.asarray(x, float)[:, i].ravel() for x in (t.obs, t.action, t.reward, t.terminated)]))
        for i in range(t.reward.shape[1])
    }
    assert rows(sampled) <= rows(listed)
    assert len(rows(sampled)) > 5


def test_costs_are_measured():
    problem = problem_of("softmax_bandit")
    (found,) = exact.certify_all(chosen("REINFORCE"), problem, cost_batch=64)
    assert found.cost.batch_size == 64
    assert found.cost.compile_seconds > found.cost.run_seconds > 0
    assert found.cost.flops > 64
    assert found.cost.bytes_accessed > 64 * 8
    figures = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert figures["cost"]["batch_size"] == 64
    assert figures["unbiased"] is True
    assert figures["terms"] is None


def test_float32_problems_are_certified_in_float64():
    with jax.enable_x64(False):
        problem = exact.tabular_problem("x", exact.two_state(), num_steps=2)
        found = exact.certify(pg.gpomdp, problem)
    assert found.mean.dtype == np.float64
    assert found.claim_error < 1e-14


def test_bad_arguments_are_refused_by_name():
    problem, bandit = two_state(), problem_of("softmax_bandit")
    with pytest.raises(TypeError, match=r"estimator must be made with pgjax\.estimator, got function"):
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
    with pytest.raises(ValueError, match="trajectories without end, which nobody can sample"):
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
    assert isinstance(exact.certify(pg.gpomdp, bandit, terms=True).terms, VarianceTerms)
