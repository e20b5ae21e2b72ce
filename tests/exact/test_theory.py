"""The questions of the theory, each answered with exact numbers: what is a gradient, and what a baseline does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import exact

close = np.testing.assert_allclose


def garnet4x3() -> exact.TabularMDP:
    """A Garnet process by a formula, without random numbers: four states, three actions, two successors each."""
    transition = np.zeros((4, 3, 4))
    for s, a, j in np.ndindex(4, 3, 2):
        transition[s, a, (3 * s + 2 * a + j * (1 + (s + a) % 3) + 1) % 4] += 1 + (s + 2 * a + 3 * j) % 4
    transition /= transition.sum(-1, keepdims=True)
    s, a = np.ogrid[:4, :3]
    return exact.TabularMDP(jnp.asarray(transition), jnp.asarray(np.sin(1.3 * s + 0.7 * a)), jnp.full(4, 0.25), 0.9)


PROBLEMS = {
    "two_state": (exact.two_state, lambda _: exact.two_state_logits()),
    "garnet4x3": (garnet4x3, exact.sine_logits),
}
# Largest asymmetry of the Jacobian and the circulation around the unit circle in θ(0, 0) and θ(1, 1), dropped discount.
FIGURES = {
    "two_state": (8.5465432e-3, -2.47624068e-2),
    "garnet4x3": (3.16711098e-4, -8.00303365e-4),
}


def fields(name: str):
    """The two vector fields of a problem, true and dropped, and a point."""
    make, logits = PROBLEMS[name]
    mdp = make()
    true = lambda x: exact.policy_gradient(mdp, x)  # noqa: E731
    dropped = lambda x: exact.dropped_discount_gradient(mdp, x)  # noqa: E731
    return true, dropped, logits(mdp)


def numpy_field(mdp: exact.TabularMDP, logits: np.ndarray, *, dropped: bool) -> np.ndarray:
    """Σ_s d(s) π(a|s) A(s, a), from scratch: d discounted, or stationary by a long power of the chain."""
    gamma, r, p = float(mdp.discount), np.asarray(mdp.reward), np.asarray(mdp.transition)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chain = (probs[:, :, None] * p).sum(1)
    value = np.linalg.inv(np.eye(len(r)) - gamma * chain) @ (probs * r).sum(1)
    advantage = r + gamma * p @ value - value[:, None]
    start = np.asarray(mdp.initial)
    visits = sum(gamma**k * start @ np.linalg.matrix_power(chain, k) for k in range(500))
    if dropped:
        visits = start @ np.linalg.matrix_power(chain, 4096)
    return visits[:, None] * probs * advantage


def circulation(field, center, radius=1.0, points=64):
    """∮ F·dθ around a circle in θ(0, 0) and θ(1, 1). The trapezoidal rule is exact here up to rounding."""
    first, second = (np.zeros(center.shape) for _ in range(2))
    first[0, 0] = second[1, 1] = 1.0
    total = 0.0
    for angle in 2 * np.pi * np.arange(points) / points:
        at = np.asarray(center) + radius * (np.cos(angle) * first + np.sin(angle) * second)
        total += np.sum(np.asarray(field(at)) * (np.cos(angle) * second - np.sin(angle) * first))
    return total * radius * 2 * np.pi / points


def jacobian(field, logits):
    return np.asarray(jax.jacobian(field)(logits)).reshape(logits.size, logits.size)


# Is the policy gradient a gradient?


@pytest.mark.parametrize("name", PROBLEMS)
def test_only_the_true_field_is_a_gradient(name):
    true, dropped, logits = fields(name)
    straight, skew = jacobian(true, logits), jacobian(dropped, logits)
    assert np.max(np.abs(straight - straight.T)) < 1e-12
    close(np.max(np.abs(skew - skew.T)), FIGURES[name][0], rtol=1e-7)
    assert abs(circulation(true, logits)) < 1e-12
    close(circulation(dropped, logits), FIGURES[name][1], rtol=1e-7)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_fields_and_their_circulation_are_those_of_a_derivation_from_scratch(name):
    true, dropped, logits = fields(name)
    mdp, logits = PROBLEMS[name][0](), np.asarray(logits)
    close(true(logits), numpy_field(mdp, logits, dropped=False), atol=1e-9)
    close(dropped(logits), numpy_field(mdp, logits, dropped=True), atol=1e-12)
    scratch = lambda x: numpy_field(mdp, x, dropped=True)  # noqa: E731
    close(circulation(scratch, logits), FIGURES[name][1], rtol=1e-7)


def test_the_circulation_is_the_asymmetry_of_the_jacobian_summed_over_the_disc():
    """Stokes: ∮ F·dθ = ∬ (∂F_2/∂θ_1 - ∂F_1/∂θ_2)."""
    _, dropped, center = fields("two_state")
    nodes, weights = np.polynomial.legendre.leggauss(16)
    radius, angle = np.meshgrid(0.5 * (nodes + 1), 2 * np.pi * np.arange(32) / 32, indexing="ij")

    def asymmetry(radius, angle):
        at = center.at[0, 0].add(radius * jnp.cos(angle)).at[1, 1].add(radius * jnp.sin(angle))
        slopes = jax.jacobian(dropped)(at)
        return slopes[1, 1, 0, 0] - slopes[0, 0, 1, 1]

    curl = np.asarray(jax.vmap(asymmetry)(radius.ravel(), angle.ravel())).reshape(radius.shape)
    total = 0.5 * weights @ (radius * curl).mean(1) * 2 * np.pi
    close(total, FIGURES["two_state"][1], rtol=1e-7)


def test_without_a_discount_nothing_is_dropped():
    """With γ = 1 the two fields are one; with one state too, whatever γ is."""
    mdp, policy = exact.alias_discount()
    plain, params = mdp.replace(discount=1.0), jnp.array([[0.3, -0.4], [0.0, 0.0]])
    dropped = exact.dropped_discount_sensitivity(plain, policy(params))
    got = exact.policy_gradient_of(plain, params, policy, weights=dropped)
    close(got, exact.policy_gradient_of(plain, params, policy), atol=1e-14)
    one_state = exact.TabularMDP(jnp.ones((1, 3, 1)), jnp.array([[1.0, 0.2, -0.7]]), jnp.ones(1), 0.9)
    logits = jnp.array([[0.2, -0.5, 0.4]])
    gradient = exact.policy_gradient(one_state, logits)
    close(10.0 * exact.dropped_discount_gradient(one_state, logits), gradient, atol=1e-13)


def curve(start, end, bend):
    """A path between two points that leaves the straight line by ``bend`` times sin(πt) in one direction."""
    aside = np.sin(1.0 + 3.0 * np.arange(start.size)).reshape(start.shape)

    def at(t):
        return start + t * (end - start) + bend * jnp.sin(np.pi * t) * aside

    return at


def line_integral(field, path, nodes=40):
    points, weights = np.polynomial.legendre.leggauss(nodes)
    times = 0.5 * (points + 1)
    work = [float(jnp.sum(field(path(t)) * jax.jvp(path, (t,), (1.0,))[1])) for t in times]
    return 0.5 * weights @ work


def test_the_line_integral_of_the_true_field_is_the_difference_of_the_objective_on_every_path():
    true, dropped, start = fields("garnet4x3")
    mdp, end = garnet4x3(), start + 2.0 * jnp.cos(jnp.arange(12.0)).reshape(4, 3)
    difference = exact.objective(mdp, jax.nn.softmax(end)) - exact.objective(mdp, jax.nn.softmax(start))
    assert abs(difference) > 0.1
    straight, detour = curve(start, end, 0.0), curve(start, end, 3.0)
    close([line_integral(true, path) for path in (straight, detour)], float(difference), atol=1e-12)
    # The other field has no function to be the difference of: its integral depends on the path.
    assert abs(line_integral(dropped, straight) - line_integral(dropped, detour)) > 1e-3


def follow(field, logit, *, rate=2.0, steps=4000):
    """Gradient ascent on the one logit that matters in `alias_discount`."""
    return jax.lax.scan(lambda x, _: (x + rate * field(x), None), jnp.asarray(logit, float), length=steps)[0]


def alias_objectives(x):
    """(J_γ, J_1) as functions of the probability x of action 1 in the two states that look alike."""
    mdp, _ = exact.alias_discount()
    probs = jnp.broadcast_to(jnp.array([1.0 - x, x]), (5, 2))
    return float(exact.objective(mdp, probs)), float(exact.objective(mdp.replace(discount=1.0), probs))


def test_following_the_dropped_discount_field_ends_at_the_policy_worst_for_both_objectives():
    mdp, policy = exact.alias_discount()

    def field(kind):
        def slope(logit):
            params = jnp.zeros((2, 2)).at[0, 1].set(logit)
            weights = exact.dropped_discount_sensitivity(mdp, policy(params)) if kind == "dropped" else None
            which = mdp.replace(discount=1.0) if kind == "undiscounted" else mdp
            return exact.policy_gradient_of(which, params, policy, weights=weights)[0, 1]

        return slope

    grid = [alias_objectives(x) for x in np.linspace(0.0, 1.0, 11)]
    close(grid, [(0.25 * x, x) for x in np.linspace(0.0, 1.0, 11)], atol=1e-14)  # both grow with x
    start = 3.0  # x = 0.95, almost the best policy
    ends = {kind: float(jax.nn.sigmoid(follow(field(kind), start))) for kind in ("true", "undiscounted", "dropped")}
    assert ends["dropped"] < 1e-3  # the worst of all policies
    assert min(ends["true"], ends["undiscounted"]) > 0.999  # the best
    worst, best = alias_objectives(ends["dropped"]), alias_objectives(ends["true"])
    assert all(w < 0.001 and b > 0.999 * top for w, b, top in zip(worst, best, (0.25, 1.0), strict=True))


@pytest.mark.parametrize("logit", [-1.0, 0.5])
def test_reinforce_without_the_weight_of_the_states_estimates_the_dropped_field(logit):
    """The two fields are what the library's own estimator means with and without `discount_weight`."""
    mdp, alias = exact.alias_discount()
    params = jnp.zeros((2, 2)).at[0, 1].set(logit)
    batch, weights = exact.trajectories(mdp, alias(params), 5)
    groups = jnp.asarray(np.eye(2)[list(alias.groups)])
    policy = lambda params, obs: pg.Categorical(obs @ groups @ params)  # noqa: E731
    x = jax.nn.sigmoid(logit)
    for step_weight, slope in ((None, -0.5), (pg.discount_weight(batch.step, 0.5), 0.25)):
        each, _ = pg.reinforce.per_trajectory(params, batch, policy=policy, discount=0.5, step_weight=step_weight)
        mean, _ = exact.weighted_moments(each, weights)
        close(-mean[0, 1], slope * x * (1 - x), atol=1e-14)


# What a trajectory knows about the parameters


def log_probability(logits, dynamics, initial, batch):
    """log p(τ) = log μ(s_0) + Σ_t log π(a_t|s_t) + log P(s_{t+1}|s_t, a_t): the full process, written out."""
    states, after = jnp.argmax(batch.obs, -1), jnp.argmax(batch.next_obs, -1)
    policy = jax.nn.log_softmax(logits)[states, batch.action]
    return jnp.log(initial[states[0]]) + jnp.sum(policy + jnp.log(dynamics[states, batch.action, after]), axis=0)


def test_dynamics_and_start_drop_out_of_the_score_of_a_trajectory():
    mdp, logits = garnet4x3().replace(horizon=3), exact.sine_logits(garnet4x3())
    batch, weights = exact.trajectories(mdp, jax.nn.softmax(logits))
    log_p = log_probability(logits, mdp.transition, mdp.initial, batch)
    close(jnp.exp(log_p), weights, atol=1e-15)
    score = jax.jacobian(log_probability)(logits, mdp.transition, mdp.initial, batch)
    steps = exact.softmax_score(jax.nn.softmax(logits))[jnp.argmax(batch.obs, -1), batch.action]
    close(score.reshape(len(weights), -1), steps.sum(0), atol=1e-14)
    # Another world, in which the same trajectories are possible, gives them other probabilities and the same score.
    other = jnp.full_like(mdp.transition, 0.25), jnp.array([0.1, 0.2, 0.3, 0.4])
    assert np.max(np.abs(log_probability(logits, *other, batch) - log_p)) > 1.0
    close(jax.jacobian(log_probability)(logits, *other, batch), score, atol=1e-14)
    # The library's estimator of a return that is always 1 is minus that score.
    ones = batch.replace(reward=jnp.zeros_like(batch.reward).at[0].set(1.0))
    got, _ = pg.likelihood_ratio.per_trajectory(logits, ones, policy=softmax_policy, discount=1.0)
    close(-got, score, atol=1e-14)
    close(jnp.einsum("n,nsa->sa", weights, score), 0.0, atol=1e-15)


def softmax_policy(params, obs):
    return pg.Categorical(obs @ params)


def test_the_gradient_of_the_sum_over_trajectories_is_the_mean_of_score_times_return():
    mdp, logits = garnet4x3().replace(horizon=3), exact.sine_logits(garnet4x3())
    batch, weights = exact.trajectories(mdp, jax.nn.softmax(logits))
    returns = jnp.sum(0.9 ** jnp.arange(3.0)[:, None] * batch.reward, axis=0)

    def objective(x):
        return jnp.exp(log_probability(x, mdp.transition, mdp.initial, batch)) @ returns

    close(objective(logits), exact.objective(mdp, jax.nn.softmax(logits)), atol=1e-13)
    close(jax.grad(objective)(logits), exact.policy_gradient(mdp, logits), atol=1e-13)
    each, _ = pg.likelihood_ratio.per_trajectory(logits, batch, policy=softmax_policy, discount=0.9)
    close(-jnp.einsum("n,nsa->sa", weights, each), exact.policy_gradient(mdp, logits), atol=1e-13)


# What a baseline does


def test_a_baseline_changes_the_variance_and_not_the_mean():
    mdp, logits = exact.two_state().replace(horizon=3), exact.two_state_logits()
    probs, truth = jax.nn.softmax(logits), exact.policy_gradient(mdp, logits)
    batch, weights = exact.trajectories(mdp, probs)
    step_weight = pg.discount_weight(batch.step, 0.9)

    def moments(baseline):
        each, _ = pg.reinforce.per_trajectory(
            logits, batch, policy=softmax_policy, discount=0.9, baseline=baseline, step_weight=step_weight
        )
        mean, covariance = exact.weighted_moments(each, weights)
        return -mean, float(jnp.trace(covariance))

    states = jnp.argmax(batch.obs, -1)
    seen = []
    for table in (np.zeros((3, 2)), np.full((3, 2), 1.3), 5.0 * np.sin(np.arange(6.0)).reshape(3, 2)):
        mean, variance = moments(jnp.asarray(table)[jnp.arange(3)[:, None], states])
        close(mean, truth, atol=1e-13)
        pair = exact.gpomdp_pair(mdp, probs, baseline=jnp.asarray(table))
        close(variance, exact.pair_variance(mdp, pair), rtol=1e-12)
        seen.append(variance)
    close(seen[0], 3.99767005, atol=5.1e-9)
    assert len({round(v, 3) for v in seen}) == 3
    # A baseline that knows the action changes the mean: the advantage would lose its very signal.
    biased, _ = moments(jnp.where(batch.action == 1, 1.0, 0.0))
    assert float(jnp.max(jnp.abs(biased - truth))) > 0.1


def test_the_value_is_not_the_best_baseline_and_neither_is_the_best_of_each_step():
    mdp, probs = exact.two_state(), jax.nn.softmax(exact.two_state_logits())

    @jax.jit
    def moments(baseline):
        variance = lambda b: exact.pair_variance(mdp, exact.gpomdp_pair(mdp, probs, baseline=b))  # noqa: E731
        mean = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs, baseline=baseline)).mean
        return mean, variance(baseline), jax.grad(variance)(baseline)

    value = exact.value(mdp, probs)
    per_step = exact.per_step_optimal_baseline(mdp, probs)
    best = exact.trajectory_optimal_baseline(mdp, probs)
    close(per_step, [7.5841552931, 7.8270872798], atol=5.1e-11)
    close(best, [7.87336569, 8.47723599], atol=5.1e-9)
    truth = exact.policy_gradient(mdp, exact.two_state_logits()).ravel()
    for baseline, figure in (
        (jnp.zeros(2), 179.43515968),
        (value, 12.94212681),
        (per_step, 13.42977662),
        (best, 12.85367868),
    ):
        mean, variance, slope = moments(baseline)
        close(variance, figure, atol=5.1e-9)
        close(mean, truth, atol=1e-12)
        assert bool(jnp.max(jnp.abs(slope)) < 1e-9) == (baseline is best)


# Noise, smoothness, and what need not be differentiable


def normal_policy(scale):
    """A policy with mean params, whatever the observation, and fixed noise."""
    return lambda params, obs: pg.Normal(jnp.broadcast_to(params, obs.shape), jnp.full(obs.shape, scale))


def one_step(action, reward):
    """N episodes of one step."""
    rows = {"obs": jnp.zeros((1, len(action), 1)), "next_obs": jnp.zeros((1, len(action), 1))}
    yes = jnp.ones((1, len(action)), bool)
    zero = jnp.zeros((1, len(action)))
    return pg.Trajectory(
        **rows,
        action=action[None, :, None],
        reward=reward[None],
        terminated=yes,
        truncated=~yes,
        log_prob=zero,
        step=zero.astype(jnp.int32),
    )


def expected_reinforce(payoff, mean, scale):
    """E of `pg.reinforce` and its variance on a bandit with normal actions, by quadrature (ascent)."""
    nodes, weights = exact.gauss_hermite(40)
    action = mean + scale * nodes
    each, _ = pg.reinforce.per_trajectory(
        jnp.array([mean]), one_step(action, payoff(action)), policy=normal_policy(scale), discount=1.0
    )
    gradient, covariance = exact.weighted_moments(each, weights)
    return -float(gradient[0]), float(covariance[0, 0])


def test_the_deterministic_gradient_is_the_limit_of_small_noise():
    """E g(σ) = f'(μ) + ½ σ² f'''(μ) + O(σ⁴), while the variance grows like f(μ)² / σ²."""
    mean, third = 0.4, np.sin(0.4)
    payoff = lambda a: 1.0 + jnp.cos(a)  # noqa: E731
    slope = -np.sin(mean)
    scales = np.array([0.4, 0.2, 0.1, 0.05])
    means, variances = np.array([expected_reinforce(payoff, mean, s) for s in scales]).T
    close(means, slope * np.exp(-(scales**2) / 2), atol=1e-12)
    close((means - slope)[-1] / scales[-1] ** 2, 0.5 * third, rtol=1e-2)
    close((means - slope)[1:] / (means - slope)[:-1], 0.25, rtol=5e-2)
    close((variances * scales**2)[-1], (1 + np.cos(mean)) ** 2, rtol=1e-2)
    # A quadratic has no third derivative: its gradient is the deterministic one at any noise.
    bandit = exact.QuadraticBandit(2.0, jnp.array([0.7]), jnp.array([[-1.5]]), 0.3)
    quadratic = lambda a: 2.0 + 0.7 * (a - mean) - 0.75 * (a - mean) ** 2  # noqa: E731
    got, variance = expected_reinforce(quadratic, mean, 0.3)
    close(got, 0.7, atol=1e-13)
    close(variance, bandit.score_function_variance(), rtol=1e-12)


def test_small_noise_on_a_linear_system_leads_to_the_deterministic_policy_gradient():
    """∇J(K, σ) = E_σ Σ γ^t (∂u/∂K) ∇_u Q, affine in σ², and at σ = 0 the deterministic policy gradient."""
    lqr, gain = exact.scalar_lqr()
    at = lambda s: lqr.replace(action_covariance=jnp.array([[s**2]]))  # noqa: E731
    gradients = np.array([float(at(s).policy_gradient(gain)[0, 0]) for s in (0.0, 0.1, 0.2, 0.4)])
    close(np.diff(gradients)[1:] / np.diff(gradients)[0], [3.0, 12.0], rtol=1e-9)
    assert abs(gradients[-1] - gradients[0]) > 1e-3
    # By hand at σ = 0: u = -k x, ∂u/∂k = -x, and Q of the deterministic policy by a backward recursion.
    a, b, q, r, k, gamma = 0.9, 0.5, 1.0, 0.2, 0.4, 0.95
    later, second_moments = 0.0, [1.0 + 0.4**2]
    for _ in range(4):
        second_moments.append((a - b * k) ** 2 * second_moments[-1] + 0.3**2)
    total = 0.0
    for t in reversed(range(5)):
        slope_of_q = -2 * (-r * k + gamma * later * b * (a - b * k))  # ∂Q/∂u at u = -k x, divided by x
        total += gamma**t * -slope_of_q * second_moments[t]
        later = q + r * k**2 + gamma * (a - b * k) ** 2 * later
    close(gradients[0], total, rtol=1e-12)
    noisy = [float(exact.lqr_reinforce_moments(at(s), gain).trace) for s in (0.02, 0.01)]
    smooth = [float(exact.lqr_pathwise_moments(at(s), gain).trace) for s in (0.02, 0.01)]
    close(noisy[1] / noisy[0], 4.0, rtol=1e-2)
    close(smooth[1] / smooth[0], 1.0, rtol=1e-2)


def test_a_reward_that_does_not_know_the_parameters_has_a_smooth_objective_all_the_same():
    """r = 1[a > c] is flat wherever it has a slope, yet J(μ) = Φ((μ - c) / σ) has one: the noise is differentiated."""
    mean, scale, edge = 0.3, 0.5, 0.8
    payoff = lambda a: jnp.where(a > edge, 1.0, 0.0)  # noqa: E731
    # Quadrature on both sides of the edge.
    nodes, weights = np.polynomial.legendre.leggauss(60)
    low, high = mean - 9 * scale, mean + 9 * scale
    halves = [(low, edge), (edge, high)]
    action = np.concatenate([0.5 * (a + b) + 0.5 * (b - a) * nodes for a, b in halves])
    mass = np.concatenate([0.5 * (b - a) * weights for a, b in halves])
    mass = mass * np.exp(-(((action - mean) / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))
    batch = one_step(jnp.asarray(action), payoff(jnp.asarray(action)))
    each, _ = pg.reinforce.per_trajectory(jnp.array([mean]), batch, policy=normal_policy(scale), discount=1.0)
    density = np.exp(-(((edge - mean) / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))
    close(-(mass @ np.asarray(each[:, 0])), density, rtol=1e-12)
    objective = lambda m: jax.scipy.stats.norm.cdf((m - edge) / scale)  # noqa: E731
    close(jax.grad(objective)(mean), density, rtol=1e-12)
    # Differentiating the reward along the actions finds nothing.
    pathwise = jax.vmap(jax.grad(lambda m, e: payoff(m + scale * e)), (None, 0))(mean, (action - mean) / scale)
    close(mass @ np.asarray(pathwise), 0.0, atol=0.0)


def test_the_scaled_discounted_gradient_tends_to_that_of_the_average_reward():
    mdp, logits = garnet4x3(), exact.sine_logits(garnet4x3())
    limit = exact.average_reward_gradient(mdp, logits)

    def error(direction, discount, scale):
        return np.asarray(scale * direction(mdp.replace(discount=discount), logits) - limit)

    gaps = (1e-1, 1e-2, 1e-3, 1e-4)
    true = [error(exact.policy_gradient, 1 - h, h) for h in gaps]
    dropped = [error(exact.dropped_discount_gradient, 1 - h, 1.0) for h in gaps]
    for errors in (true, dropped):
        sizes = np.array([np.max(np.abs(e)) for e in errors])
        close(sizes[2:] / sizes[1:-1], 0.1, rtol=3e-2)  # both are of the order of 1 - γ
        assert sizes[0] > 1e-4
    # Extrapolation from γ and (1 + γ)/2 removes the first order.
    half = 2 * error(exact.policy_gradient, 1 - 5e-4, 5e-4) - true[2]
    assert np.max(np.abs(half)) < 1e-2 * np.max(np.abs(true[2]))
