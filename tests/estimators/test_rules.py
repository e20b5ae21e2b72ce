"""Estimators made of a rule: means over every trajectory, by quadrature, and the gradients of control variates."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, mean, miss, policy, random_window, trace_of_covariance

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def one_hot_policy(logits: Any, obs: Any) -> pg.OneHotCategorical:
    return pg.OneHotCategorical(obs @ logits)


def as_vectors(batch: Any) -> Any:
    return batch.replace(action=jax.nn.one_hot(batch.action, 2, dtype=batch.reward.dtype))


def q_of_time(mdp: Any, logits: Any, horizon: int) -> np.ndarray:
    """Action values with t steps gone, [H, S, A], by backward recursion."""
    table = np.asarray(tabular.values_over_time(mdp, logits, horizon))
    return np.stack([mdp.reward + mdp.discount * np.asarray(mdp.transition) @ table[t + 1] for t in range(horizon)])


# --- expected_gradient ------------------------------------------------------------------------------------------------


def all_action(logits: Any, batch: Any, mdp: Any, table: np.ndarray) -> Any:
    """The critic looks its value up by the time, which the observation carries in its last entry."""
    states = len(logits)
    timed = batch.replace(obs=jnp.concatenate([batch.obs, batch.step[..., None].astype(batch.obs.dtype)], -1))

    def critic(table: Any, obs: Any, action: Any) -> Any:
        return table[obs[..., -1].astype(int), obs[..., :states].argmax(-1), action]

    return pg.expected_gradient.per_trajectory(
        logits, timed, policy=lambda p, obs: policy(p, obs[..., :states]), critic=pg.bind(critic, jnp.asarray(table)),
        rule=ex.enumerated, step_weight=tabular.weight(batch, mdp),
    )[0]  # fmt: skip


def test_all_action_is_the_exact_gradient_with_the_variance_of_the_states_alone() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    got = all_action(logits, batch, mdp, q_of_time(mdp, logits, 3))
    assert miss(got, weights, tabular.gradient(mdp, logits, 3)) < 1e-12
    finite = exact.TabularMDP(mdp.transition, mdp.reward, mdp.initial, mdp.discount, 3)
    probs = jax.nn.softmax(logits)
    moments = exact.pair_moments(
        finite, exact.all_action_pair(finite, probs, exact.action_values_over_time(finite, probs))
    )
    close(trace_of_covariance(got, weights), np.trace(moments.covariance), rtol=1e-10)


def test_the_deterministic_policy_gradient_is_the_critics_slope_at_the_mode() -> None:
    random = np.random.default_rng(0)
    obs, matrix = random.normal(size=(3, 4, 2)), random.normal(size=(2, 1))
    zeros = np.zeros((3, 4), bool)
    batch = pg.Trajectory(jnp.asarray(obs), None, jnp.asarray(obs[..., 0]), None, zeros, zeros, None, zeros.astype(int))
    got, _ = pg.expected_gradient(
        jnp.asarray(matrix), batch, policy=lambda w, obs: pg.Normal(obs @ w, 0.3), rule=ex.at_mode,
        critic=lambda obs, action: -jnp.square(action[..., 0] - obs[..., 1]),
    )  # fmt: skip
    slope = -2.0 * (obs @ matrix - obs[..., 1:])
    close(got, -np.einsum("tbi,tbj->ij", obs, slope) / 4)


def test_a_rule_that_draws_several_times_keeps_its_draws_with_their_column() -> None:
    _, logits = tabular.problem("three_state")
    batch, rule = tabular.random_window(3, 3), ex.score_leave_one_out.using(num_samples=3)
    table = np.random.default_rng(2).normal(size=(3, 2))
    critic = pg.bind(lambda table, obs, a: jnp.sum((obs @ table) * jax.nn.one_hot(a, 2), -1), jnp.asarray(table))
    distribution = pg.action_distribution(logits, batch, policy=policy)
    noise = rule.draw(jax.random.key(0), distribution)
    arguments = {"policy": policy, "critic": critic, "rule": rule}
    each, _ = pg.expected_gradient.per_trajectory(logits, batch, noise=noise, **arguments)
    probs, obs = np.asarray(jax.nn.softmax(logits)), np.asarray(batch.obs)
    for b in range(3):
        actions = np.asarray(distribution.sample_from(noise["x"]))[:, :, b]  # [N, T]
        q = np.take_along_axis(np.broadcast_to(obs[:, b] @ table, (3, 7, 2)), actions[..., None], -1)[..., 0]
        left = q - (q.sum(0) - q) / 2.0
        score = np.eye(2)[actions] - np.broadcast_to(obs[:, b] @ probs, (3, 7, 2))
        close(each[b], -np.einsum("nt,ts,nta->sa", left / 3.0, obs[:, b], score))
    close(each.mean(0), pg.expected_gradient(logits, batch, noise=noise, **arguments)[0])


# --- sampled_gradient -------------------------------------------------------------------------------------------------


def test_the_score_function_at_the_action_taken_is_reinforce() -> None:
    _, logits = tabular.problem("three_state")
    batch = tabular.random_window(3, 4)
    mask = np.random.default_rng(1).random((7, 4)) < 0.7
    returns = pg.discounted_returns(batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=0.9)
    got, _ = pg.sampled_gradient.per_trajectory(
        logits, batch, policy=policy, rule=ex.score_function, earned=returns, mask=mask, step_weight=0.5
    )
    want, _ = pg.reinforce.per_trajectory(
        logits, batch, policy=policy, discount=0.9, mask=mask, step_weight=jnp.full((7, 4), 0.5)
    )
    close(got, want)


def relaxed_control(weights: Any, obs: Any, z: Any) -> Any:
    """A control variate of the relaxed action that is not linear in it."""
    return jnp.sum(jnp.tanh(z) * (obs @ weights), -1)


def relax_over_trajectories(logits: Any, weights: Any, batch: Any, mdp: Any, noise: Any) -> Any:
    return pg.sampled_gradient.per_trajectory(
        logits, as_vectors(batch), policy=one_hot_policy, rule=ex.relax, noise=noise,
        earned=pg.discounted_returns(
            batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=mdp.discount),
        control=pg.bind(relaxed_control, weights), step_weight=tabular.weight(batch, mdp),
    )[0]  # fmt: skip


@functools.cache
def noise_nodes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the two numbers in (0, 1) that the relaxed action of a step is made of, by tanh-sinh, [N, 2]."""
    k = np.linspace(-2.8, 2.8, size)
    u = 1 / (1 + np.exp(-np.pi * np.sinh(k)))
    w = np.cosh(k) * u * (1 - u)
    w /= w.sum()
    return np.stack([x.ravel() for x in np.meshgrid(u, u)], -1), np.outer(w, w).ravel()


def test_relax_over_trajectories_is_unbiased_for_any_control() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    control = jnp.array([[0.7, -0.2], [0.3, 0.4]])
    uv, node_weights = noise_nodes(41)
    grid = len(uv)

    def spread(x: Any) -> Any:  # every trajectory with every node; both steps share it, which no mean of a sum sees
        x = jnp.asarray(x)
        return jnp.broadcast_to(x[:, :, None], (*x.shape[:2], grid, *x.shape[2:]))

    wide, shape = jax.tree.map(spread, batch), (2, len(weights), grid, 2)
    at = lambda x: jnp.broadcast_to(jnp.asarray(x), shape)  # noqa: E731
    estimate = jax.jit(lambda u, v: relax_over_trajectories(logits, control, wide, mdp, {"u": u, "v": v}))
    fixed = at([0.35, 0.6])
    both = np.outer(weights, node_weights)
    # The estimate is a function of u plus a function of v, so its mean over both is had from two planes.
    parts = [np.einsum("nk,nkij->ij", both, estimate(*uv)) for uv in ((at(uv), fixed), (fixed, at(uv)), (fixed, fixed))]
    truth = tabular.gradient(mdp, logits, 2)
    np.testing.assert_allclose(parts[0] + parts[1] - parts[2], -np.asarray(truth), rtol=0, atol=1e-9)
    assert np.abs(parts[2] + np.asarray(truth)).max() > 1e-3


def second_moment(control: Any, batch: Any, logits: Any, mdp: Any, noise: Any, weights: Any) -> Any:
    got = relax_over_trajectories(logits, control, batch, mdp, noise)
    return jnp.sum(jnp.asarray(weights)[:, None, None] * jnp.square(got))


def test_the_controls_gradient_is_the_derivative_of_the_second_moment() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    random = np.random.default_rng(5)
    noise = {name: jnp.asarray(random.uniform(0.1, 0.9, (*batch.reward.shape, 2))) for name in ("u", "v")}
    control = jnp.array([[0.7, -0.2], [0.3, 0.4]])
    moment = jax.jit(lambda c: second_moment(c, batch, logits, mdp, noise, weights))
    slope, step = np.asarray(jax.grad(moment)(control)), 1e-6
    assert np.abs(slope).min() > 1e-3
    for index in np.ndindex(2, 2):
        change = np.zeros((2, 2))
        change[index] = step
        numeric = (moment(control + change) - moment(control - change)) / (2 * step)
        np.testing.assert_allclose(slope[index], numeric, rtol=1e-6)


def test_a_surrogate_trains_its_control_by_control_gradient() -> None:
    _, logits, batch, _ = every_trajectory("two_state", 2)
    random = np.random.default_rng(6)
    noise = {name: jnp.asarray(random.uniform(0.1, 0.9, (*batch.reward.shape, 2))) for name in ("u", "v")}
    returns = pg.discounted_returns(batch.reward, terminated=batch.terminated, truncated=batch.truncated, discount=0.9)

    def surrogate(logits: Any, control: Any) -> Any:
        return pg.sampled_gradient.surrogate(
            logits, as_vectors(batch), policy=one_hot_policy, rule=ex.relax, noise=noise, earned=returns,
            control=pg.bind(relaxed_control, control),
        )  # fmt: skip

    control = jnp.array([[0.7, -0.2], [0.3, 0.4]])
    both = jax.jit(ex.control_gradient(surrogate))
    grads, slope = both(logits, control)
    close(grads, jax.grad(surrogate)(logits, control))
    change = jnp.zeros((2, 2)).at[1, 0].set(1e-6)
    squares = [float(jnp.sum(jnp.square(both(logits, control + s * change)[0]))) for s in (1, -1)]
    np.testing.assert_allclose(slope[1, 0], (squares[0] - squares[1]) / 2e-6, rtol=1e-6)


# --- control_variate --------------------------------------------------------------------------------------------------

GAIN, SCALE = np.array([[0.4], [-0.3]]), 0.5


def normal_policy(weights: Any, obs: Any) -> pg.Normal:
    return pg.Normal(obs @ weights, jnp.full((1,), SCALE))


def quadratic(weights: Any, obs: Any, action: Any) -> Any:
    return -jnp.square(action[..., 0] - obs @ weights) + 0.5 * action[..., 0]


def normal_bandit(nodes: int = 12) -> tuple[pg.Trajectory, np.ndarray, np.ndarray]:
    """One step in each of three states, every node of the action: [1, 3 * nodes], its weights, and what it earns."""
    x, w = exact.gauss_hermite(nodes)
    states = np.array([[1.0, 0.2], [-0.5, 1.0], [0.3, -0.8]])
    obs = np.repeat(states, len(x), 0)
    action = obs @ GAIN + SCALE * np.tile(np.asarray(x).reshape(-1), 3)[:, None]
    earned = np.sin(action[:, 0]) - np.square(action[:, 0] - obs[:, 0])
    ends = np.ones((1, len(obs)), bool)
    batch = pg.Trajectory(
        jnp.asarray(obs[None]), jnp.asarray(action[None]), jnp.asarray(earned[None]), jnp.asarray(obs[None]), ends,
        ~ends, jnp.zeros((1, len(obs))), np.zeros((1, len(obs)), int),
    )  # fmt: skip
    return batch, np.tile(np.asarray(w), 3) / 3.0, earned


def q_prop(batch: Any, earned: Any, critic: Any, rule: Any, **kwargs: Any) -> Any:
    return pg.control_variate.per_trajectory(
        jnp.asarray(GAIN), batch, policy=normal_policy, advantage=jnp.asarray(earned)[None], critic=critic, rule=rule,
        **kwargs,
    )[0]  # fmt: skip


def test_q_prop_and_stein_keep_the_mean_and_lower_the_variance() -> None:
    batch, weights, earned = normal_bandit()
    critic = pg.bind(quadratic, jnp.array([1.0, 0.1]))
    linear = pg.linearized_critic(critic, lambda obs: obs @ jnp.asarray(GAIN))
    plain = q_prop(batch, earned, critic, ex.at_mode, coefficient=0.0)
    truth = -mean(plain, weights)
    assert np.abs(truth).min() > 0.05
    x = (batch.action - batch.obs @ GAIN) / SCALE
    got = {
        "q-prop": q_prop(batch, earned, linear, ex.at_mode),
        "half": q_prop(batch, earned, linear, ex.at_mode, coefficient=jnp.full((1, len(weights)), 0.5)),
    }
    for name, contributions in got.items():
        assert miss(contributions, weights, truth) < 1e-12, name
    assert trace_of_covariance(got["q-prop"], weights) < 0.6 * trace_of_covariance(plain, weights)
    # The same noise that made the action makes the expectation's: the two cancel where the critic is right.
    stein = q_prop(batch, earned, critic, ex.pathwise, noise={"x": x})
    assert miss(stein, weights, truth) < 1e-12
    # Uncorrected, or with the mode's gradient for a critic that is curved, the mean is another.
    wrong = q_prop(batch, earned, pg.bind(lambda w, obs, a: jnp.exp(a[..., 0] + obs @ w), jnp.ones(2)), ex.at_mode)
    assert miss(wrong, weights, truth) > 0.01


def test_a_linear_critic_is_the_tangent_and_carries_the_critics_parameters() -> None:
    random = np.random.default_rng(2)
    obs, action = jnp.asarray(random.normal(size=(5, 2))), jnp.asarray(random.normal(size=(5, 1)))
    weights, at = jnp.array([1.0, 0.1]), np.asarray(obs) @ GAIN

    def phi(weights: Any) -> Any:
        return pg.linearized_critic(pg.bind(quadratic, weights), lambda obs: obs @ jnp.asarray(GAIN))(obs, action)

    target = np.asarray(obs) @ np.asarray(weights)
    slope = -2.0 * (at[:, 0] - target) + 0.5
    close(phi(weights), -np.square(at[:, 0] - target) + 0.5 * at[:, 0] + slope * (np.asarray(action)[:, 0] - at[:, 0]))
    by_weights = jax.jacobian(phi)(weights)
    close(by_weights, 2.0 * (np.asarray(action)[:, 0] - target)[:, None] * np.asarray(obs))


def test_what_cannot_be_a_rule_here_is_named_with_what_to_use() -> None:
    batch = random_window(0, 4)
    logits, critic = jnp.zeros((3, 2)), lambda obs, action: obs[..., 0]

    def score(key: Any, distribution: Any, f: Any) -> Any:
        return f(distribution.mode())

    with pytest.raises(TypeError, match=r"got evolution_strategy. A search is no rule: it takes parameters"):
        pg.expected_gradient(logits, batch, policy=policy, critic=critic, rule=ex.evolution_strategy)
    with pytest.raises(TypeError, match=r"rule must be a rule of pgjax.expectation.*got score"):
        pg.control_variate(logits, batch, policy=policy, advantage=batch.reward, critic=critic, rule=score)
    with pytest.raises(TypeError, match=r"got enumerated: what was earned.*Use expected_gradient with a critic"):
        pg.sampled_gradient(logits, batch, policy=policy, rule=ex.enumerated, earned=batch.reward)
