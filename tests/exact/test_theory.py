"""The questions of the theory, each answered with exact numbers: what is a gradient, and what a baseline does to it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_answers import PRINTED, TWO_STATE, TWO_STATE_HORIZON

import pgjax as pg
from pgjax import exact

from .processes import close, expectation, loop_values, numpy, softmax, states_of, two_state


@functools.cache
def garnet4x3() -> exact.TabularMDP:
    """A Garnet process by a formula, without random numbers: four states, three actions, two successors each."""
    transition = np.zeros((4, 3, 4))
    for s, a, j in np.ndindex(4, 3, 2):
        transition[s, a, (3 * s + 2 * a + j * (1 + (s + a) % 3) + 1) % 4] += 1 + (s + 2 * a + 3 * j) % 4
    transition /= transition.sum(-1, keepdims=True)
    s, a = np.ogrid[:4, :3]
    return exact.TabularMDP(transition, np.sin(1.3 * s + 0.7 * a), np.full(4, 0.25), 0.9)


def sine4x3():
    s, a = np.ogrid[:4, :3]
    return np.sin(1.0 + s + 2.0 * a)


# The process, a point, and there the largest asymmetry of the Jacobian of the direction that drops the discount and
# its circulation around the unit circle in θ(0, 0) and θ(1, 1).
PROBLEMS = {
    "two_state": lambda: (*two_state()[:2], TWO_STATE.dropped_asymmetry, TWO_STATE.dropped_circulation),
    "garnet4x3": lambda: (garnet4x3(), sine4x3(), 3.16711098e-4, -8.00303365e-4),
}
every_problem = pytest.mark.parametrize("name", PROBLEMS)


@jax.jit
def fields(mdp, points):
    """The true gradient and the direction that drops the discount, at points [N, S, A]."""
    return jax.vmap(lambda x: (exact.policy_gradient(mdp, x), exact.dropped_discount_gradient(mdp, x)))(points)


@jax.jit
def jacobians(mdp, points):
    true, dropped = (lambda x: exact.policy_gradient(mdp, x)), (lambda x: exact.dropped_discount_gradient(mdp, x))
    return jax.vmap(lambda x: (jax.jacobian(true)(x), jax.jacobian(dropped)(x)))(points)


def numpy_field(mdp, logits, *, dropped):
    """Σ_s d(s) π(a|s) A(s, a), from scratch: d discounted, or stationary by a long power of the chain."""
    probs = softmax(logits)
    value, q, visits = loop_values(mdp, probs, 500)
    if dropped:
        chain = (probs[:, :, None] * np.asarray(mdp.transition)).sum(1)
        visits = np.asarray(mdp.initial) @ np.linalg.matrix_power(chain, 4096)
    return visits[:, None] * probs * (q - value[:, None])


def circle(center, points=64):
    """Points on a circle of radius one in θ(0, 0) and θ(1, 1), and the velocity times dt at each."""
    first, second = np.zeros((2, *center.shape))
    first[0, 0] = second[1, 1] = 1.0
    angle = 2 * np.pi * np.arange(points)[:, None, None] / points
    at = center + np.cos(angle) * first + np.sin(angle) * second
    return at, (np.cos(angle) * second - np.sin(angle) * first) * 2 * np.pi / points


# Is the policy gradient a gradient?


@every_problem
def test_identity_18_only_the_true_field_is_a_gradient(name):
    mdp, logits, asymmetry, circulation = PROBLEMS[name]()
    straight, skew = (np.reshape(x, (logits.size, logits.size)) for x in jacobians(mdp, logits[None]))
    assert np.max(np.abs(straight - straight.T)) < 1e-12
    close(np.max(np.abs(skew - skew.T)), asymmetry, rtol=1e-7)
    # ∮ F·dθ: the trapezoidal rule is exact here up to rounding.
    at, velocity = circle(logits)
    true, dropped = numpy(fields(mdp, at))
    assert abs(np.sum(true * velocity)) < 1e-12
    close(np.sum(dropped * velocity), circulation, rtol=1e-7)


@every_problem
def test_the_fields_and_their_circulation_are_those_of_a_derivation_from_scratch(name):
    mdp, logits, _, circulation = PROBLEMS[name]()
    at, velocity = circle(logits, 32)
    true, dropped = numpy(fields(mdp, at))
    close(true[3], numpy_field(mdp, at[3], dropped=False), atol=1e-9)
    scratch = np.stack([numpy_field(mdp, x, dropped=True) for x in at])
    close(dropped, scratch, atol=1e-12)
    close(np.sum(scratch * velocity), circulation, rtol=1e-7)


def test_identity_18_the_circulation_is_the_asymmetry_of_the_jacobian_summed_over_the_disc():
    """Stokes: ∮ F·dθ = ∬ (∂F_2/∂θ_1 - ∂F_1/∂θ_2)."""
    mdp, center, _, circulation = PROBLEMS["two_state"]()
    nodes, weights = np.polynomial.legendre.leggauss(16)
    radius, angle = np.meshgrid(0.5 * (nodes + 1), 2 * np.pi * np.arange(32) / 32, indexing="ij")
    points = np.tile(center, (radius.size, 1, 1))
    points[:, 0, 0] += (radius * np.cos(angle)).ravel()
    points[:, 1, 1] += (radius * np.sin(angle)).ravel()
    slopes = np.asarray(jacobians(mdp, points)[1])
    curl = (slopes[:, 1, 1, 0, 0] - slopes[:, 0, 0, 1, 1]).reshape(radius.shape)
    close(0.5 * weights @ (radius * curl).mean(1) * 2 * np.pi, circulation, rtol=1e-7)


def test_without_a_discount_nothing_is_dropped():
    """With γ = 1 the two fields are one; with one state too, whatever γ is."""
    mdp, policy = exact.alias_discount()

    @jax.jit
    def both(mdp, params):
        dropped = exact.dropped_discount_sensitivity(mdp, policy(params))
        of = lambda weights: exact.policy_gradient_of(mdp, params, policy, weights=weights)  # noqa: E731
        return of(dropped), of(None)

    close(*both(mdp.replace(discount=1.0), np.array([[0.3, -0.4], [0.0, 0.0]])), atol=1e-14)
    one_state = exact.TabularMDP(np.ones((1, 3, 1)), np.array([[1.0, 0.2, -0.7]]), np.ones(1), 0.9)
    true, dropped = numpy(fields(one_state, np.array([[[0.2, -0.5, 0.4]]])))
    close(10.0 * dropped, true, atol=1e-13)


def test_the_line_integral_of_the_true_field_is_the_difference_of_the_objective_on_every_path():
    mdp, start = garnet4x3(), sine4x3()
    end = start + 2.0 * np.cos(np.arange(12.0)).reshape(4, 3)
    values = [np.asarray(mdp.initial) @ loop_values(mdp, softmax(x), 500)[0] for x in (start, end)]
    assert abs(values[1] - values[0]) > 0.1
    # Straight, and on a path that leaves the straight line by 3 sin(πt) in one direction.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t, aside = 0.5 * (nodes + 1)[:, None, None], np.sin(1.0 + 3.0 * np.arange(12)).reshape(4, 3)
    integrals = []
    for bend in (0.0, 3.0):
        at = start + t * (end - start) + bend * np.sin(np.pi * t) * aside
        velocity = end - start + bend * np.pi * np.cos(np.pi * t) * aside
        integrals.append([0.5 * weights @ np.sum(field * velocity, (1, 2)) for field in numpy(fields(mdp, at))])
    (true, dropped), (true_detour, dropped_detour) = integrals
    close([true, true_detour], values[1] - values[0], atol=1e-12)
    # The other field has no function to be the difference of: its integral depends on the path.
    assert abs(dropped - dropped_detour) > 1e-3


def test_following_the_dropped_discount_field_ends_at_the_policy_worst_for_both_objectives():
    mdp, policy = exact.alias_discount()
    undiscounted = mdp.replace(discount=1.0)

    def slope(kind, logit):
        params = jnp.zeros((2, 2)).at[0, 1].set(logit)
        weights = exact.dropped_discount_sensitivity(mdp, policy(params)) if kind == "dropped" else None
        which = undiscounted if kind == "undiscounted" else mdp
        return exact.policy_gradient_of(which, params, policy, weights=weights)[0, 1]

    @jax.jit
    def ends(logit):
        """Where gradient ascent on the one logit that matters ends."""
        kinds = ("true", "undiscounted", "dropped")
        climb = lambda x, _: (jnp.stack([x[i] + 2.0 * slope(k, x[i]) for i, k in enumerate(kinds)]), None)  # noqa: E731
        return jax.nn.sigmoid(jax.lax.scan(climb, jnp.full(3, logit), length=4000)[0])

    def objectives(x):
        """(J_γ, J_1) as functions of the probability x of action 1 in the two states that share their logits."""
        probs = np.tile([1.0 - x, x], (5, 1))
        return [np.asarray(m.initial) @ loop_values(m, probs, 6)[0] for m in (mdp, undiscounted)]

    grid = np.linspace(0.0, 1.0, 11)
    close([objectives(x) for x in grid], [(0.25 * x, x) for x in grid], atol=1e-14)  # both grow with x
    true, plain, dropped = numpy(ends(3.0))  # from x = 0.95, almost the best policy
    assert dropped < 1e-3  # the worst of all policies
    assert min(true, plain) > 0.999  # the best


@pytest.mark.parametrize("logit", [-1.0, 0.5])
def test_reinforce_without_the_weight_of_the_states_estimates_the_dropped_field(logit):
    """The two fields are the means of the library's own estimator with steps weighted by γ^t and by one."""
    mdp, alias = exact.alias_discount()
    params, x = np.array([[0.0, logit], [0.0, 0.0]]), 1 / (1 + np.exp(-logit))
    batch, weights = exact.trajectories(mdp, softmax(params)[list(alias.groups)], 5)
    groups = np.eye(2)[list(alias.groups)]
    policy = lambda params, obs: pg.Categorical(obs @ groups @ params)  # noqa: E731
    for step_weight, slope in ((np.ones_like(batch.reward), -0.5), (0.5 ** np.asarray(batch.step), 0.25)):
        each, _ = pg.reinforce.per_trajectory(params, batch, policy=policy, discount=0.5, step_weight=step_weight)
        close(-expectation(each, weights)[0][1], slope * x * (1 - x), atol=1e-14)


def test_identity_34_the_scaled_discounted_gradient_tends_to_that_of_the_average_reward():
    mdp, logits = garnet4x3(), sine4x3()
    limit = np.asarray(exact.average_reward_gradient(mdp, logits))

    def errors(gap):
        true, dropped = numpy(fields(mdp.replace(discount=1 - gap), logits[None]))
        return gap * true[0] - limit, dropped[0] - limit

    each = [errors(gap) for gap in (1e-1, 1e-2, 1e-3, 1e-4)]
    for kind in (0, 1):
        sizes = np.array([np.max(np.abs(error[kind])) for error in each])
        close(sizes[2:] / sizes[1:-1], 0.1, rtol=3e-2)  # both are of the order of 1 - γ
        assert sizes[0] > 1e-4
    # Extrapolation from γ and (1 + γ)/2 removes the first order.
    half = 2 * errors(5e-4)[0] - each[2][0]
    assert np.max(np.abs(half)) < 1e-2 * np.max(np.abs(each[2][0]))


# What a trajectory knows about the parameters


def log_probability(logits, dynamics, initial, batch):
    """log p(τ) = log μ(s_0) + Σ_t log π(a_t|s_t) + log P(s_{t+1}|s_t, a_t): the full process, written out."""
    states, action, after = states_of(batch)
    policy = jax.nn.log_softmax(logits)[states, action]
    return jnp.log(initial[states[0]]) + jnp.sum(policy + jnp.log(dynamics[states, action, after]), axis=0)


def softmax_policy(params, obs):
    return pg.Categorical(obs @ params)


def test_dynamics_and_start_drop_out_of_the_score_of_a_trajectory():
    mdp, logits = garnet4x3(), sine4x3()
    batch, weights = numpy(exact.trajectories(mdp, softmax(logits), 3))

    @jax.jit
    def log_p_and_score(dynamics, initial):
        of = lambda x: log_probability(x, dynamics, initial, batch)  # noqa: E731
        return of(logits), jax.jacfwd(of)(logits)

    log_p, score = numpy(log_p_and_score(mdp.transition, mdp.initial))
    close(np.exp(log_p), weights, atol=1e-15)
    state, action, _ = states_of(batch)
    steps = np.asarray(exact.softmax_score(softmax(logits)))[state, action]
    close(score.reshape(len(weights), -1), steps.sum(0), atol=1e-14)
    # Another world, in which the same trajectories are possible, gives them other probabilities and the same score.
    other, same = numpy(log_p_and_score(np.full((4, 3, 4), 0.25), np.array([0.1, 0.2, 0.3, 0.4])))
    assert np.max(np.abs(other - log_p)) > 1.0
    close(same, score, atol=1e-14)
    # The library's estimator of a return that is always 1 is minus that score.
    ones = batch.replace(reward=np.eye(3)[0][:, None] + 0 * batch.reward)
    got, _ = pg.likelihood_ratio.per_trajectory(logits, ones, policy=softmax_policy, discount=1.0)
    close(-np.asarray(got), score, atol=1e-14)
    close(np.einsum("n,nsa->sa", weights, score), 0.0, atol=1e-15)


def test_the_gradient_of_the_sum_over_trajectories_is_the_mean_of_score_times_return():
    mdp, logits = garnet4x3(), sine4x3()
    batch, weights = numpy(exact.trajectories(mdp, softmax(logits), 3))
    returns = 0.9 ** np.arange(3.0) @ batch.reward
    total = lambda x: jnp.exp(log_probability(x, mdp.transition, mdp.initial, batch)) @ returns  # noqa: E731
    value, slope = numpy(jax.jit(jax.value_and_grad(total))(logits))
    close(value, np.asarray(mdp.initial) @ loop_values(mdp, softmax(logits), 3)[0], atol=1e-13)
    close(exact.policy_gradient(mdp.replace(horizon=3), logits), slope, atol=1e-13)
    each, _ = pg.likelihood_ratio.per_trajectory(logits, batch, policy=softmax_policy, discount=0.9)
    close(-expectation(each, weights)[0], slope.ravel(), atol=1e-13)


# What a baseline does


def test_a_baseline_changes_the_variance_and_not_the_mean():
    mdp, logits, probs = two_state(3)
    batch, weights = numpy(exact.trajectories(mdp, probs))
    step_weight, truth = 0.9**batch.step, np.repeat(TWO_STATE_HORIZON[3][:2], 2) * [1, -1, 1, -1]

    def moments(baseline):
        each, _ = pg.reinforce.per_trajectory(
            logits, batch, policy=softmax_policy, discount=0.9, baseline=baseline, step_weight=step_weight
        )
        mean, covariance = expectation(each, weights)
        return -mean, np.trace(covariance)

    @jax.jit
    def variance(mdp, probs, table):
        return exact.pair_variance(mdp, exact.gpomdp_pair(mdp, probs, baseline=table))

    state, action, _ = states_of(batch)
    seen = []
    for table in (np.zeros((3, 2)), np.full((3, 2), 1.3), 5.0 * np.sin(np.arange(6.0)).reshape(3, 2)):
        mean, trace = moments(table[np.arange(3)[:, None], state])
        close(mean, truth, atol=PRINTED[10])
        close(trace, variance(mdp, probs, table), rtol=1e-12)
        seen.append(trace)
    close(seen[0], TWO_STATE_HORIZON[3][2], atol=PRINTED[8])
    assert len({round(v, 3) for v in seen}) == 3
    # A baseline that depends on the action changes the mean: it removes a part of what the advantage says.
    biased, _ = moments(np.where(action == 1, 1.0, 0.0))
    assert np.max(np.abs(biased - truth)) > 0.1
