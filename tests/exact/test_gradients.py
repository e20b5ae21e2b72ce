"""The exact gradient in all its forms, natural and off-policy directions, and what is no gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjax import exact

from .test_mdp import close, episodic, garnet


def two_state():
    logits = exact.two_state_logits()
    return exact.two_state(), logits, jax.nn.softmax(logits)


def rows(first, second):
    return [[first, -first], [second, -second]]


def test_two_state_gradient_hessian_and_fisher():
    mdp, logits, _ = two_state()
    close(exact.policy_gradient(mdp, logits), rows(0.8479865392, -3.1867916630), atol=5.1e-11)
    hessian = exact.policy_hessian(mdp, logits)
    close(hessian[0, 0].ravel(), [0.1664904820, -0.1664904820, 0.8422479731, -0.8422479731], atol=5.1e-11)
    close(hessian[1, 0, 1, 0], 0.3613976924, atol=5.1e-11)
    close(hessian, jnp.einsum("sbta->tasb", hessian), atol=1e-13)
    fisher = exact.fisher_matrix(mdp, logits)
    block = np.array([[1, -1], [-1, 1]])
    close(fisher[0, :, 0], 0.1201896714 * block, atol=5.1e-11)
    close(fisher[1, :, 1], 0.1194332051 * block, atol=5.1e-11)
    close(fisher[0, :, 1], 0.0, atol=1e-15)
    close(0.1 * exact.policy_gradient(mdp, logits), rows(0.0847986539, -0.3186791663), atol=5.1e-11)
    close(exact.dropped_discount_gradient(mdp, logits), rows(0.0706132510, -0.3744848632), atol=5.1e-11)


@pytest.mark.parametrize(
    ("horizon", "first", "second"),
    [
        (1, 0.2350037122, 0.0),
        (2, 0.3230247740, -0.2003645235),
        (3, 0.3768485223, -0.4556517372),
        (5, 0.4630769564, -0.9547680459),
    ],
)
def test_two_state_finite_horizon(horizon, first, second):
    mdp, logits, _ = two_state()
    close(exact.policy_gradient(mdp.replace(horizon=horizon), logits), rows(first, second), atol=5.1e-11)


def test_two_state_finite_horizon_without_the_discount_of_the_states():
    mdp, logits, _ = two_state()
    got = exact.dropped_discount_gradient(mdp.replace(horizon=3), logits)
    close(got, rows(0.4112766421, -0.5366794263), atol=5.1e-11)


CASES = {
    "discounted": lambda seed: garnet(seed),
    "horizon": lambda seed: garnet(seed, 0.8, 4),
    "episodic": lambda seed: episodic(seed, 1.0),
    "discounted episodic": lambda seed: episodic(seed, 0.9),
}


@pytest.mark.parametrize("case", CASES)
def test_all_forms_of_the_gradient_agree(case):
    for seed in range(3):
        mdp, logits, _ = CASES[case](seed)
        theorem = exact.policy_gradient(mdp, logits)
        close(exact.policy_gradient_autodiff(mdp, logits), theorem, atol=1e-13)
        close(exact.policy_gradient_unrolled(mdp, logits), theorem, atol=1e-13)
        close(exact.policy_gradient_of(mdp, logits, jax.nn.softmax), theorem, atol=1e-13)
        close(theorem.sum(1), 0.0, atol=1e-13)
        assert np.max(np.abs(theorem)) > 1e-2


def test_the_gradient_is_the_slope_of_the_objective():
    mdp, logits, _ = garnet(4)
    direction = np.sin(np.arange(12.0)).reshape(4, 3)
    for h, tolerance in ((1e-2, 1e-3), (1e-4, 1e-7)):
        up, down = (float(exact.objective(mdp, jax.nn.softmax(logits + s * h * direction))) for s in (1, -1))
        close((up - down) / (2 * h), np.sum(exact.policy_gradient(mdp, logits) * direction), atol=tolerance)


def test_mutants_of_the_gradient_are_rejected():
    mdp, logits, probs = garnet(4)
    truth = exact.policy_gradient_autodiff(mdp, logits)
    pull = lambda weights: np.asarray(probs * (weights - (probs * weights).sum(1, keepdims=True)))  # noqa: E731
    q, visits = exact.action_value(mdp, probs), exact.visitation(mdp, probs)
    chain = np.asarray(exact.state_transition(mdp, probs))
    transposed = np.linalg.solve(np.eye(4) - 0.9 * chain, mdp.initial)
    close(pull(visits[:, None] * q), truth, atol=1e-13)
    mutants = {
        "wrong sign": pull(-visits[:, None] * q),
        "transposed chain": pull(transposed[:, None] * q),
        "discount missing from the states": np.asarray(exact.dropped_discount_gradient(mdp, logits)) / 0.1,
        "immediate reward for Q": pull(visits[:, None] * mdp.reward),
        "normalised visits": pull(0.1 * visits[:, None] * q),
        "probabilities twice": pull(visits[:, None] * probs * q),
    }
    for name, mutant in mutants.items():
        assert np.max(np.abs(mutant - truth)) > 1e-2, name


def test_value_gradient_unrolls_term_by_term():
    mdp, logits, probs = garnet(2)
    truth = jax.jacobian(lambda x: exact.value(mdp, jax.nn.softmax(x)))(logits)
    close(exact.value_gradient(mdp, logits), truth, atol=1e-12)
    weights = probs * exact.advantage(mdp, probs)
    total = np.zeros((4, 4, 3))
    for k in range(3):
        total += 0.9**k * np.einsum("sx,xa->sxa", exact.k_step_visitation(mdp, probs, k), weights)
        close(exact.value_gradient(mdp, logits, num_steps=k + 1), total, atol=1e-13)
    close(exact.value_gradient(mdp, logits, num_steps=400), truth, atol=1e-11)
    short, _, _ = garnet(2, 0.9, 3)
    close(
        exact.value_gradient(short, logits),
        jax.jacobian(lambda x: exact.value(short, jax.nn.softmax(x)))(logits),
        atol=1e-13,
    )
    with pytest.raises(ValueError, match=r"num_steps must not exceed mdp.horizon=3, got 4"):
        exact.value_gradient(short, logits, num_steps=4)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        exact.value_gradient(mdp, logits, num_steps=0)


def network(states: int, actions: int):
    """A small network on features that two states share."""
    features = np.sin(np.arange(states * 3.0)).reshape(states, 3)
    features[1] = features[0]

    def policy_probs(params):
        return jax.nn.softmax(jnp.tanh(jnp.asarray(features) @ params["in"]) @ params["out"])

    keys = jax.random.split(jax.random.key(9))
    return {"in": jax.random.normal(keys[0], (3, 4)), "out": jax.random.normal(keys[1], (4, actions))}, policy_probs


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_a_network_with_aliased_states(case):
    mdp, _, _ = CASES[case](1)
    params, policy_probs = network(*mdp.reward.shape)
    got = exact.policy_gradient_of(mdp, params, policy_probs)
    want = jax.grad(lambda p: exact.objective(mdp, policy_probs(p)))(params)
    jax.tree.map(lambda a, b: close(a, b, atol=1e-13), got, want)


def test_average_reward_gradient():
    mdp, logits, probs = garnet(6)
    want = jax.grad(lambda x: exact.average_reward(mdp, jax.nn.softmax(x)))(logits)
    close(exact.average_reward_gradient(mdp, logits), want, atol=1e-14)
    errors = []
    for discount in (0.9, 0.99, 0.999):
        scaled = (1 - discount) * exact.policy_gradient(mdp.replace(discount=discount), logits)
        errors.append(float(jnp.max(jnp.abs(scaled - want))))
    close(np.array(errors[1:]) / np.array(errors[:-1]), 0.1, rtol=0.3)
    weights = exact.average_reward_sensitivity(mdp, probs)
    close(exact.policy_gradient_of(mdp, logits, jax.nn.softmax, weights=weights), want, atol=1e-14)


def circulation(field, center, first, second, points=64):
    """∮ field around the unit circle in two logits; exact for smooth periodic integrands to rounding error."""
    angles = 2 * np.pi * np.arange(points) / points
    e1, e2 = (jnp.zeros_like(center).at[i].set(1.0) for i in (first, second))
    path = jnp.stack([center + np.cos(a) * e1 + np.sin(a) * e2 for a in angles])
    speed = jnp.stack([-np.sin(a) * e1 + np.cos(a) * e2 for a in angles])
    return float(jnp.sum(jax.vmap(field)(path) * speed)) * 2 * np.pi / points


def asymmetry(field, logits):
    jacobian = jax.jacobian(field)(logits).reshape(logits.size, logits.size)
    return float(jnp.max(jnp.abs(jacobian - jacobian.T)))


def test_the_gradient_has_no_circulation_and_the_dropped_discount_field_has():
    mdp, logits, _ = garnet(8)
    true = lambda x: exact.policy_gradient(mdp, x)  # noqa: E731
    dropped = lambda x: exact.dropped_discount_gradient(mdp, x)  # noqa: E731
    assert asymmetry(true, logits) < 1e-13
    assert asymmetry(dropped, logits) > 1e-4
    assert abs(circulation(true, logits, (0, 0), (1, 1))) < 1e-13
    assert abs(circulation(dropped, logits, (0, 0), (1, 1))) > 1e-5


def test_the_line_integral_of_the_gradient_is_the_difference_of_the_objective():
    mdp, start, _ = garnet(8)
    end = start + jnp.sin(jnp.arange(12.0)).reshape(4, 3)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    points = jnp.stack([start + 0.5 * (1 + x) * (end - start) for x in nodes])
    slopes = jnp.einsum("nsa,sa->n", jax.vmap(lambda x: exact.policy_gradient(mdp, x))(points), end - start)
    difference = exact.objective(mdp, jax.nn.softmax(end)) - exact.objective(mdp, jax.nn.softmax(start))
    close(0.5 * weights @ slopes, difference, atol=1e-13)
    assert abs(difference) > 1e-2


def test_alias_discount_slopes():
    mdp, policy = exact.alias_discount()
    for logit in (-1.0, 0.0, 2.0):
        params = jnp.zeros((2, 2)).at[0, 1].set(logit)
        probs = policy(params)
        x = probs[0, 1]
        undiscounted = mdp.replace(discount=1.0)
        dropped = exact.dropped_discount_sensitivity(mdp, probs)
        slopes = [
            exact.policy_gradient_of(mdp, params, policy),
            exact.policy_gradient_of(undiscounted, params, policy),
            exact.policy_gradient_of(mdp, params, policy, weights=dropped),
        ]
        close([g[0, 1] / (x * (1 - x)) for g in slopes], [0.25, 1.0, -0.5], atol=1e-13)


def test_alias_offpolicy_slopes():
    mdp, policy = exact.alias_offpolicy()
    params = jnp.array([[np.log(9.0), 0.0], [0.0, 0.0]])
    probs = policy(params)
    close(probs[:3, 0], [0.9, 0.5, 0.5], atol=1e-15)
    behaviour = jnp.tile(jnp.array([0.25, 0.75]), (4, 1))
    visits = jnp.append(exact.visitation(mdp, behaviour)[:3], 0.0) / 2
    close(visits, [0.5, 0.125, 0.375, 0.0], atol=1e-15)
    first_only = visits.at[1:].set(0.0)
    for weights, emphatic, off_pac in ((visits, 0.18125, -0.03125), (first_only, 0.2125, 0.0)):
        for sensitivity, want in ((exact.emphatic_sensitivity, emphatic), (exact.off_pac_sensitivity, off_pac)):
            slope = exact.policy_gradient_of(mdp, params, policy, weights=sensitivity(mdp, probs, weights))
            close(slope[1, 0], want, atol=1e-14)
        want = jax.grad(lambda p, w=weights: exact.excursion_objective(mdp, policy(p), w))(params)
        got = exact.policy_gradient_of(mdp, params, policy, weights=exact.emphatic_sensitivity(mdp, probs, weights))
        close(got, want, atol=1e-14)


def test_natural_gradient_and_compatible_critic():
    mdp, logits, probs = garnet(3)
    gradient = exact.policy_gradient(mdp, logits)
    advantage = exact.advantage(mdp, probs)
    centred = advantage - advantage.mean(1, keepdims=True)
    close(exact.natural_gradient(mdp, logits), centred / 0.1, rtol=1e-9, atol=1e-9)
    fisher = exact.fisher_matrix(mdp, logits).reshape(12, 12)
    critic = exact.compatible_critic(mdp, logits)
    close(fisher @ critic.ravel(), 0.1 * gradient.ravel(), atol=1e-13)
    approximation = jnp.einsum("sap,p->sa", exact.softmax_score(probs), critic.ravel())
    close(exact.critic_gradient(mdp, logits, approximation), gradient, atol=1e-12)
    # One step of it multiplies the policy by exp(α A / (1 - γ)).
    stepped = jax.nn.softmax(logits + 0.01 * exact.natural_gradient(mdp, logits))
    want = probs * jnp.exp(0.1 * advantage)
    close(stepped, want / want.sum(1, keepdims=True), atol=1e-10)


def test_compatible_critic_of_a_network_leaves_the_gradient_exact():
    mdp, _, _ = garnet(3)
    params, policy_probs = network(4, 3)
    critic = exact.compatible_critic_of(mdp, params, policy_probs)
    score, probs = exact.score_of(params, policy_probs), policy_probs(params)
    flat = jax.flatten_util.ravel_pytree
    fitted = score @ flat(critic)[0]
    assert float(jnp.max(jnp.abs(fitted - exact.advantage(mdp, probs)))) > 1e-3
    weights = exact.visitation(mdp, probs)[:, None] * fitted
    got = exact.policy_gradient_of(mdp, params, policy_probs, weights=weights)
    close(flat(got)[0], flat(exact.policy_gradient_of(mdp, params, policy_probs))[0], atol=1e-10)


def test_natural_gradient_moves_the_policy_alike_in_every_parametrisation():
    mdp, logits, _ = garnet(3)
    mix = jnp.eye(12) + 0.3 * jnp.cos(jnp.arange(144.0)).reshape(12, 12)
    mixed = lambda x: jax.nn.softmax((mix @ x).reshape(4, 3))  # noqa: E731
    inner = jnp.linalg.solve(mix, logits.ravel())
    velocity = lambda f, x, d: jax.jvp(f, (x,), (d,))[1]  # noqa: E731
    plain = velocity(jax.nn.softmax, logits, exact.natural_gradient(mdp, logits))
    close(velocity(mixed, inner, exact.natural_gradient_of(mdp, inner, mixed)), plain, atol=1e-8)
    vanilla = velocity(jax.nn.softmax, logits, exact.policy_gradient(mdp, logits))
    other = velocity(mixed, inner, exact.policy_gradient_of(mdp, inner, mixed))
    assert float(jnp.max(jnp.abs(vanilla - other))) > 1e-2


@pytest.mark.parametrize("forward", [True, False])
def test_fisher_matrix_is_the_curvature_of_the_divergence(forward):
    mdp, logits, probs = garnet(3, 0.8, 3)
    visits = exact.visitation(mdp, probs)

    def divergence(x):
        log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(x)
        first, second = (log_p, log_q) if forward else (log_q, log_p)
        return visits @ jnp.sum(jnp.exp(first) * (first - second), axis=1) / visits.sum()

    close(exact.fisher_matrix(mdp, logits), jax.hessian(divergence)(logits), atol=1e-13)


def test_softmax_score_is_the_gradient_of_the_log_probability():
    _, logits, probs = garnet(3)
    want = jax.jacobian(jax.nn.log_softmax)(logits).reshape(4, 3, 12)
    close(exact.softmax_score(probs), want, atol=1e-14)
    close(exact.score_of(logits, jax.nn.softmax), want, atol=1e-14)
    close(jnp.einsum("sa,sap->sp", probs, want), 0.0, atol=1e-15)


def test_two_state_off_policy_figures():
    mdp, logits, probs = two_state()
    behaviour = exact.two_state_behaviour()
    weights = exact.stationary_distribution(mdp, behaviour)
    close(weights, [0.4827586207, 0.5172413793], atol=5.1e-11)
    close(exact.emphasis(mdp, probs, weights), [4.3435807274, 5.6564192726], atol=5.1e-11)
    close(exact.emphatic_gradient(mdp, logits, weights), rows(0.7201855951, -3.6895634767), atol=5.1e-11)
    close(exact.off_pac_gradient(mdp, logits, weights), rows(0.0800435922, -0.3373856869), atol=5.1e-11)
    close(exact.followon_spectral_radius(mdp, probs, behaviour), 1.36813785, atol=5.1e-9)


def test_emphatic_gradient_is_that_of_the_excursion_objective_and_off_pac_is_not():
    mdp, logits, probs = garnet(5)
    weights = exact.stationary_distribution(mdp, jnp.full((4, 3), 1 / 3))
    want = jax.grad(lambda x: exact.excursion_objective(mdp, jax.nn.softmax(x), weights))(logits)
    close(exact.emphatic_gradient(mdp, logits, weights), want, atol=1e-13)
    assert float(jnp.max(jnp.abs(exact.off_pac_gradient(mdp, logits, weights) - want))) > 1e-2
    myopic = mdp.replace(discount=0.0)
    close(exact.off_pac_gradient(myopic, logits, weights), exact.emphatic_gradient(myopic, logits, weights), atol=1e-15)
    on_policy = exact.stationary_distribution(mdp, probs)
    close(
        exact.emphatic_gradient(mdp, logits, on_policy),
        exact.policy_gradient(mdp.replace(initial=on_policy), logits),
        atol=1e-13,
    )


VTRACE = [
    (0.5, [[0.5, 0.5], [0.8, 0.2]], [2.7066817667, 2.1404303511]),
    (1.0, [[0.5697741629, 0.4302258371], [0.6802851770, 0.3197148230]], [4.4708065045, 4.1309750771]),
    (2.0, [[0.6224593312, 0.3775406688], [0.5154789241, 0.4845210759]], [6.6386734448, 6.7649749082]),
    (np.inf, [[0.6224593312, 0.3775406688], [0.4255574832, 0.5744425168]], [7.7569552737, 8.2243516616]),
]


@pytest.mark.parametrize(("clip", "policy", "value"), VTRACE)
def test_vtrace_fixed_point(clip, policy, value):
    mdp, _, probs = two_state()
    behaviour = exact.two_state_behaviour()
    close(exact.vtrace_policy(probs, behaviour, clip), policy, atol=5.1e-11)
    fixed = exact.vtrace_value(mdp, probs, behaviour, clip_rho=clip)
    close(fixed, value, atol=5.1e-11)
    # At the fixed point the clipped TD error has mean zero in each state.
    ratio = np.minimum(clip, probs / behaviour)
    delta = mdp.reward + 0.9 * mdp.transition @ fixed - fixed[:, None]
    close(jnp.sum(behaviour * ratio * delta, 1), 0.0, atol=1e-14)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.floats(0.0, 1.0))
def test_gae_bias_is_that_of_the_infinite_sum(seed, lam):
    mdp, logits, probs = garnet(seed, 0.8)
    estimate = exact.value(mdp, probs) + jnp.sin(jnp.arange(4.0) + seed)
    chain = np.asarray(exact.state_transition(mdp, probs))
    delta = np.asarray(mdp.reward + 0.8 * mdp.transition @ estimate - estimate[:, None])
    ahead = sum((0.8 * lam) ** k * np.linalg.matrix_power(chain, k) for k in range(200)) @ (probs * delta).sum(1)
    want = delta + 0.8 * lam * np.asarray(mdp.transition) @ ahead - exact.advantage(mdp, probs)
    close(exact.gae_bias(mdp, probs, estimate, lam=lam), want, atol=1e-11)
    gradient = exact.critic_gradient(mdp, logits, exact.gae_bias(mdp, probs, estimate, lam=1.0))
    close(gradient, 0.0, atol=1e-11)


def test_two_state_gae_bias_of_the_gradient():
    mdp, logits, probs = two_state()
    estimate = exact.value(mdp, probs) + jnp.array([0.7, -0.4])
    for lam, norm in ((0.0, 1.35457250), (0.5, 0.81061096), (0.9, 0.19242558), (1.0, 0.0)):
        bias = exact.critic_gradient(mdp, logits, exact.gae_bias(mdp, probs, estimate, lam=lam))
        close(jnp.linalg.norm(bias), norm, atol=5.1e-9)


def test_performance_difference():
    mdp, _, old = garnet(5)
    _, _, new = garnet(6)
    gap = exact.objective(mdp, new) - exact.objective(mdp, old)
    advantage = exact.advantage(mdp, old)
    close(jnp.sum(exact.visitation(mdp, new)[:, None] * new * advantage), gap, atol=1e-13)
    assert abs(gap) > 1e-2
    # The trust-region bound: the surrogate on old states less 4 ε γ max KL / (1 - γ)².
    for mix in (0.01, 0.1, 1.0):
        step = (1 - mix) * old + mix * new
        surrogate = jnp.sum(exact.visitation(mdp, old)[:, None] * step * advantage)
        divergence = jnp.max(jnp.sum(old * jnp.log(old / step), axis=1))
        penalty = 4 * jnp.max(jnp.abs(advantage)) * 0.9 / 0.01 * divergence
        assert float(exact.objective(mdp, step) - exact.objective(mdp, old)) >= float(surrogate - penalty)


def test_a_constant_reward_has_no_gradient():
    mdp, logits, _ = garnet(5)
    flat = mdp.replace(reward=jnp.full_like(mdp.reward, 2.5))
    close(exact.policy_gradient(flat, logits), 0.0, atol=1e-12)
    close(exact.policy_gradient(flat.replace(horizon=3), logits), 0.0, atol=1e-13)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_spectral_radius_matches_the_eigenvalues(seed):
    matrix = np.random.default_rng(seed).normal(size=(5, 5))
    close(exact.spectral_radius(jnp.asarray(matrix)), np.abs(np.linalg.eigvals(matrix)).max(), rtol=1e-12)


def test_spectral_radius_of_special_matrices():
    close(exact.spectral_radius(jnp.array([[0.5, 1.0], [0.0, 0.5]])), 0.5, rtol=1e-12)
    close(exact.spectral_radius(jnp.array([[0.0, 2.0], [-2.0, 0.0]])), 2.0, rtol=1e-12)
    assert float(exact.spectral_radius(jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 0.0
    with pytest.raises(ValueError, match=r"matrix must have shape \[N, N\]"):
        exact.spectral_radius(jnp.ones((2, 3)))
