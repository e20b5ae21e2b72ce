"""Tabular processes: values, visits, averages, validation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgjax import exact

close = np.testing.assert_allclose


def garnet(seed: int, discount: float = 0.9, horizon: int | None = None, states: int = 4, actions: int = 3):
    mdp = exact.random_garnet(jax.random.key(seed), states, actions, discount=discount, horizon=horizon)
    logits = jax.random.normal(jax.random.key(seed + 1000), mdp.reward.shape)
    return mdp, logits, jax.nn.softmax(logits)


def episodic(seed: int, discount: float = 1.0):
    """A random process of which half of each step leads into a terminal state."""
    mdp, logits, _ = garnet(seed)
    states, actions = mdp.reward.shape
    transition = np.zeros((states + 1, actions, states + 1))
    transition[:states, :, :states] = 0.5 * np.asarray(mdp.transition)
    transition[:states, :, states] = 0.5
    transition[states, :, states] = 1.0
    reward = np.vstack([mdp.reward, np.zeros(actions)])
    initial = np.append(np.asarray(mdp.initial), 0.0)
    logits = jnp.vstack([logits, jnp.linspace(0.0, 1.0, actions)])
    mdp = exact.TabularMDP(jnp.asarray(transition), jnp.asarray(reward), jnp.asarray(initial), discount)
    return mdp, logits, jax.nn.softmax(logits)


def loop_values(mdp, probs, steps):
    """V, Q and visits of ``steps`` steps, written as loops."""
    p, r, pi = (np.asarray(x) for x in (mdp.transition, mdp.reward, probs))
    gamma = float(mdp.discount)
    states, actions = r.shape
    value, visits, mass, weight = np.zeros(states), np.zeros(states), np.asarray(mdp.initial), 1.0
    for _ in range(steps):
        q = np.zeros((states, actions))
        for s in range(states):
            for a in range(actions):
                q[s, a] = r[s, a] + gamma * sum(p[s, a, x] * value[x] for x in range(states))
        value = (pi * q).sum(1)
        visits = visits + weight * mass
        mass = np.array(
            [sum(mass[s] * pi[s, a] * p[s, a, x] for s in range(states) for a in range(actions)) for x in range(states)]
        )
        weight *= gamma
    return value, q, visits


TWO_STATE = {
    "probs": [[0.6224593312, 0.3775406688], [0.4255574832, 0.5744425168]],
    "value": [7.7569552737, 8.2243516616],
    "action_value": [[8.0233254212, 7.3177851456], [6.6915881209, 9.3598508205]],
    "visitation": [5.1143733143, 4.8856266857],
    "stationary_distribution": [0.4258823812, 0.5741176188],
    "average_reward": 0.8025295775,
}


@pytest.mark.parametrize("name", TWO_STATE)
def test_two_state_figures(name):
    mdp, probs = exact.two_state(), jax.nn.softmax(exact.two_state_logits())
    got = probs if name == "probs" else getattr(exact, name)(mdp, probs)
    close(got, TWO_STATE[name], atol=5.1e-11)


@pytest.mark.parametrize(
    ("problem", "pattern", "objective", "norm", "best"),
    [
        ("riverswim6", "zero", 0.0466684618, 0.0446437068, 4.66930016),
        ("riverswim6", "sine", 0.0654721537, 0.0364509024, 4.66930016),
        ("cliff4x12", "zero", -150.8961022437, 130.8277133686, -7.45813417),
        ("cliff4x12", "sine", -338.9343788197, 274.9429010715, -7.45813417),
        ("windy7x10", "zero", -19.9960718450, 0.0101108229, -10.73417540),
        ("windy7x10", "sine", -19.9997062620, 0.0008036392, -10.73417540),
    ],
)
def test_suite_figures(problem, pattern, objective, norm, best):
    mdp = getattr(exact, problem)()
    logits = exact.sine_logits(mdp) if pattern == "sine" else jnp.zeros_like(mdp.reward)
    close(exact.objective(mdp, jax.nn.softmax(logits)), objective, rtol=1e-12, atol=5.1e-11)
    close(jnp.linalg.norm(exact.policy_gradient(mdp, logits)), norm, rtol=1e-12, atol=5.1e-11)
    close(mdp.initial @ exact.optimal_value(mdp), best, atol=5.1e-9)
    greedy = exact.optimal_policy(mdp)
    close(exact.objective(mdp, greedy), best, atol=5.1e-9)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 500), st.floats(0.0, 0.95))
def test_discounted_values_are_the_limit_of_loops(seed, discount):
    mdp, _, probs = garnet(seed, discount)
    value, q, visits = loop_values(mdp, probs, 1000)
    close(exact.value(mdp, probs), value, rtol=1e-10, atol=1e-10)
    close(exact.action_value(mdp, probs), q, rtol=1e-10, atol=1e-10)
    close(exact.visitation(mdp, probs), visits, rtol=1e-10, atol=1e-10)
    close(exact.visitation(mdp, probs).sum(), 1 / (1 - discount), rtol=1e-12)
    close(jnp.sum(probs * exact.advantage(mdp, probs), 1), 0.0, atol=1e-11)


@pytest.mark.parametrize("horizon", [1, 2, 5])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_finite_horizon_values_match_loops(horizon, discount):
    mdp, _, probs = garnet(3, discount, horizon)
    value, q, visits = loop_values(mdp, probs, horizon)
    close(exact.value(mdp, probs), value, rtol=1e-13)
    close(exact.action_value(mdp, probs), q, rtol=1e-13)
    close(exact.visitation(mdp, probs), visits, rtol=1e-13)
    over_time = exact.values_over_time(mdp, probs)
    assert over_time.shape == (horizon + 1, 4)
    close(over_time[-1], 0.0)
    for t in range(horizon):
        rest = loop_values(mdp, probs, horizon - t)
        close(over_time[t], rest[0], rtol=1e-13)
        close(exact.action_values_over_time(mdp, probs)[t], rest[1], rtol=1e-13)
        close(exact.advantages_over_time(mdp, probs)[t], rest[1] - rest[0][:, None], rtol=1e-12, atol=1e-14)
    close(exact.visitation_over_time(mdp, probs).sum(1), discount ** np.arange(horizon), rtol=1e-13)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_episodes_end_in_terminal_states(discount):
    mdp, _, probs = episodic(5, discount)
    assert exact.terminal_states(mdp).tolist() == [False] * 4 + [True]
    value, q, visits = loop_values(mdp, probs, 200)
    close(exact.value(mdp, probs), value, rtol=1e-12, atol=1e-13)
    close(exact.action_value(mdp, probs), q, rtol=1e-12, atol=1e-13)
    close(exact.visitation(mdp, probs)[:4], visits[:4], rtol=1e-12)
    if discount < 1:
        close(exact.visitation(mdp, probs)[4], visits[4], rtol=1e-12)
    else:
        assert exact.visitation(mdp, probs)[4] == jnp.inf


def test_an_episode_that_may_never_end_has_no_undiscounted_value():
    transition = (
        jnp.zeros((3, 1, 3)).at[0, 0, 1].set(0.5).at[0, 0, 2].set(0.5).at[1, 0, 1].set(1.0).at[2, 0, 2].set(1.0)
    )
    mdp = exact.TabularMDP(transition, jnp.array([[1.0], [1.0], [0.0]]), jnp.array([1.0, 0.0, 0.0]), 1.0)
    assert bool(jnp.isnan(exact.objective(mdp, jnp.ones((3, 1)))))
    assert bool(jnp.isfinite(exact.objective(mdp.replace(discount=0.9), jnp.ones((3, 1)))))


def test_k_step_visitation_obeys_its_recursion():
    mdp, _, probs = garnet(7)
    one = np.asarray(exact.state_transition(mdp, probs))
    close(one.sum(1), 1.0, rtol=1e-14)
    close(exact.k_step_visitation(mdp, probs, 0), np.eye(4))
    close(exact.k_step_visitation(mdp, probs, 1), one)
    for k in range(1, 6):
        close(exact.k_step_visitation(mdp, probs, k + 1), exact.k_step_visitation(mdp, probs, k) @ one, rtol=1e-13)
    half = mdp.replace(discount=0.5)
    total = sum(0.5**k * mdp.initial @ np.linalg.matrix_power(one, k) for k in range(60))
    close(exact.visitation(half, probs), total, rtol=1e-13)
    transposed = np.linalg.solve(np.eye(4) - 0.5 * one, mdp.initial)
    assert np.max(np.abs(exact.visitation(half, probs) - transposed)) > 1e-3


def test_average_reward_and_differential_values():
    mdp, _, probs = garnet(11)
    stationary = exact.stationary_distribution(mdp, probs)
    close(stationary @ exact.state_transition(mdp, probs), stationary, atol=1e-14)
    close(stationary.sum(), 1.0)
    close(mdp.initial @ exact.k_step_visitation(mdp, probs, 500), stationary, atol=1e-12)
    average, h = exact.average_reward(mdp, probs), exact.differential_value(mdp, probs)
    near_one = mdp.replace(discount=1 - 1e-7)
    close((1 - near_one.discount) * exact.objective(near_one, probs), average, atol=1e-6)
    close(exact.value(near_one, probs) - exact.value(near_one, probs)[0], h - h[0], atol=1e-5)
    close(stationary @ h, 0.0, atol=1e-14)
    close(jnp.sum(probs * exact.differential_action_value(mdp, probs), 1), h, atol=1e-13)


def test_optimal_value_solves_its_equation_and_bounds_every_policy():
    for seed in range(4):
        mdp, _, probs = garnet(seed)
        best = exact.optimal_value(mdp)
        close(jnp.max(mdp.reward + 0.9 * mdp.transition @ best, axis=1), best, rtol=1e-12)
        assert bool(jnp.all(best >= exact.value(mdp, probs)))
        short = mdp.replace(horizon=2)
        close(exact.optimal_value(short), jnp.max(mdp.reward + 0.9 * mdp.transition @ mdp.reward.max(1), 1), rtol=1e-14)
    mdp, _, _ = episodic(2)
    close(exact.value(mdp, exact.optimal_policy(mdp)), exact.optimal_value(mdp), atol=1e-13)


def test_objective_is_a_sum_over_visits():
    for mdp, _, probs in (garnet(1), garnet(1, 0.7, 3), episodic(1, 0.9)):
        close(
            jnp.sum(exact.visitation(mdp, probs)[:, None] * probs * mdp.reward), exact.objective(mdp, probs), rtol=1e-12
        )


def test_functions_vmap_jit_and_keep_their_dtype():
    mdps = jax.vmap(lambda key: exact.random_garnet(key, 3, 2))(jax.random.split(jax.random.key(0), 5))
    probs = jnp.full((3, 2), 0.5)
    batch = jax.jit(jax.vmap(exact.value, (0, None)))(mdps, probs)
    each = [exact.value(jax.tree.map(lambda x, i=i: x[i], mdps), probs) for i in range(5)]
    close(batch, np.stack(each), rtol=1e-13)
    single = jax.tree.map(lambda x: x[0].astype(jnp.float32), mdps)
    for function in (
        exact.value,
        exact.visitation,
        exact.objective,
        exact.stationary_distribution,
        exact.differential_value,
    ):
        assert function(single, probs.astype(jnp.float32)).dtype == jnp.float32
    slope = jax.grad(lambda m: exact.objective(m, probs))(single.replace(reward=single.reward))
    close(slope.reward, exact.visitation(single, probs)[:, None] * probs, rtol=1e-5)


P, R, M = jnp.full((2, 3, 2), 0.5), jnp.ones((2, 3)), jnp.array([1.0, 0.0])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((P[:, :2], R, M, 0.9), ValueError, r"transition must have shape \[S, A, S\] = \[2, 3, 2\], got \[2, 2, 2\]"),
        ((P * 0.9, R, M, 0.9), ValueError, "transition must hold probabilities that sum to one"),
        ((P.at[0, 0].set(jnp.array([1.5, -0.5])), R, M, 0.9), ValueError, "transition must hold probabilities"),
        ((P, R, M * 2, 0.9), ValueError, "initial must hold probabilities"),
        ((P, R, jnp.ones(3) / 3, 0.9), ValueError, r"initial must have shape \[S\] = \[2\], got \[3\]"),
        ((P, jnp.ones((2, 3), int), M, 0.9), TypeError, "reward must have a floating dtype"),
        ((P, jnp.ones(2), M, 0.9), ValueError, "reward must have at least 2 axes"),
        ((P, jnp.ones((2, 3, 1)), M, 0.9), ValueError, r"reward must have shape \[S, A\]"),
        ((P, R, M, 1.1), ValueError, r"discount must lie in \[0, 1\], got 1.1"),
        ((P, R, M, 1.0), ValueError, "discount must be below 1 where no episode ends"),
        ((P, R, M, jnp.ones(2)), ValueError, "discount must be a scalar"),
        ((P, R, M, 0.9, 0), ValueError, "horizon must be at least 1, got 0"),
        ((P, R, M, 0.9, 2.0), TypeError, "horizon must be a Python int"),
        ((None, R, M, 0.9), TypeError, "transition is required, got None"),
    ],
)
def test_bad_processes_are_refused_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        exact.TabularMDP(*arguments)


def test_bad_arguments_are_refused_by_name():
    mdp = exact.two_state()
    probs = jnp.full((2, 2), 0.5)
    with pytest.raises(ValueError, match=r"probs must have shape \[S, A\] = \[2, 2\], got \[2, 3\]"):
        exact.value(mdp, jnp.ones((2, 3)) / 3)
    with pytest.raises(TypeError, match="probs must have a floating dtype"):
        exact.visitation(mdp, jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"logits must have shape \[S, A\]"):
        exact.policy_gradient(mdp, jnp.ones(2))
    with pytest.raises(ValueError, match="k must be at least 0"):
        exact.k_step_visitation(mdp, probs, -1)
    with pytest.raises(ValueError, match=r"values_over_time needs mdp.horizon, got None"):
        exact.values_over_time(mdp, probs)
    with pytest.raises(ValueError, match="optimal_policy is defined for processes without horizon"):
        exact.optimal_policy(mdp.replace(horizon=2))
    with pytest.raises(ValueError, match="state_weights must have shape"):
        exact.emphasis(mdp, probs, jnp.ones(3))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        exact.gae_bias(mdp, probs, jnp.ones(2), lam=2.0)
    with pytest.raises(TypeError, match="policy_probs must be a function"):
        exact.policy_gradient_of(mdp, probs, 3)
    with pytest.raises(ValueError, match="branching must not exceed num_states=2"):
        exact.random_garnet(jax.random.key(0), 2, 2, branching=3)
