"""Targets and losses of deterministic and soft policies against closed forms, quadrature and loops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
E, N, K = 3, 4, 5
# The quadratic bandit Q = -½ m (a - a*)², and the temperature.
CURVATURE, BEST, ALPHA = 2.5, 0.7, 0.4
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def transition(reward: Any, discount: Any) -> pg.Transition:
    obs = jnp.zeros((len(reward), 2))
    return pg.Transition(obs, obs, jnp.asarray(reward), jnp.asarray(discount), obs)


# --- targets ----------------------------------------------------------------------------------------------------------


def test_the_target_of_each_critic_is_that_of_a_loop() -> None:
    reward, discount, value = normal(0, N), np.array([0.9, 0.0, 0.5, 1.0]), normal(1, E, N)
    got = pg.td_target(transition(reward, discount), jnp.asarray(value))
    want = [[reward[i] + discount[i] * value[j, i] for i in range(N)] for j in range(E)]
    close(got, want)
    close(pg.td_target(transition(reward, discount), jnp.asarray(value[0])), want[0])


def test_agents_are_one_more_axis() -> None:
    agents, (reward, discount), value = 2, np.abs(normal(21, 2, N, 2)), normal(22, E, N, 2)
    got = pg.td_target(transition(reward, discount), jnp.asarray(value))
    alone = [pg.td_target(transition(reward[:, a], discount[:, a]), jnp.asarray(value[..., a])) for a in range(agents)]
    close(got, np.stack(alone, -1))


def test_what_stands_behind_a_terminal_state_does_not_matter() -> None:
    row = transition(np.ones(3), np.array([0.0, 0.0, 0.5]))
    close(pg.td_target(row, jnp.array([jnp.nan, jnp.inf, 2.0])), [1.0, 1.0, 2.0])
    assert np.isnan(pg.td_target(row, jnp.full(3, jnp.nan))[2])


def test_the_target_of_a_folded_window_is_the_n_step_return() -> None:
    steps = 3
    none = jnp.zeros((steps, N), bool)
    terminated = none.at[1, 0].set(True)
    obs = jnp.asarray(normal(2, steps, N))
    reward, value = jnp.asarray(normal(3, steps, N)), jnp.asarray(normal(4, steps, N))
    window = pg.Trajectory(obs, obs, reward, value, terminated, none, obs, jnp.zeros((steps, N), int))
    folded = pg.fold(window, discount=0.9)
    want = pg.n_step_returns(reward, value, n=steps, terminated=terminated, truncated=none, discount=0.9)[0]
    close(pg.td_target(folded, folded.next_obs), want)


def test_targets_are_constants() -> None:
    def total(x: Any) -> Any:
        return pg.td_target(transition(x[0], x[1]), x[2:]).sum()

    assert not np.any(jax.jit(jax.grad(total))(jnp.asarray(normal(5, 4, N))))


def test_the_smallest_critic_speaks_and_takes_the_gradient() -> None:
    value = normal(6, E, N, 2)
    close(pg.clipped_double_q(jnp.asarray(value)), np.minimum(np.minimum(value[0], value[1]), value[2]))
    close(pg.clipped_double_q(jnp.asarray(value[:1])), value[0])
    grads = jax.jit(jax.grad(lambda x: pg.clipped_double_q(x).sum()))(jnp.asarray(value))
    close(grads, np.arange(E)[:, None, None] == value.argmin(0))
    close(jax.jit(jax.grad(pg.clipped_double_q))(jnp.ones(2)), 0.5)  # a tie is shared


def test_two_normal_errors_lower_the_minimum_by_s_over_root_pi() -> None:
    """E min(X, Y) by a fine grid, as Gauss-Hermite is slow to converge at a kink."""
    deviation, edge = 1.7, np.linspace(-8.0, 8.0, 1601)
    weight = np.exp(-0.5 * edge**2)
    weight /= weight.sum()
    pair = jnp.stack([jnp.asarray(3.0 + deviation * x) for x in np.meshgrid(edge, edge)])
    mean = weight @ np.asarray(pg.clipped_double_q(pair)) @ weight
    close(mean, 3.0 - deviation / np.sqrt(np.pi), rtol=0.0, atol=1e-4)


# --- soft values ------------------------------------------------------------------------------------------------------


def test_soft_values_of_an_ensemble() -> None:
    value, log_prob, each = normal(7, E, N), normal(8, N), np.abs(normal(9, N))
    for temperature in (0.3, each):
        got = pg.soft_value(jnp.asarray(value), jnp.asarray(log_prob), temperature=temperature)
        each_row = np.broadcast_to(temperature, N)
        want = [[value[j, i] - each_row[i] * log_prob[i] for i in range(N)] for j in range(E)]
        close(got, want)
        loss = pg.soft_policy_loss(jnp.asarray(value), jnp.asarray(log_prob), temperature=temperature)
        close(loss, -np.array(want))


def test_the_expected_soft_value_is_the_mean_of_the_soft_value_over_actions() -> None:
    logits, value, each = normal(10, N, K), normal(11, E, N, K), np.abs(normal(12, N))
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for temperature in (0.3, each):
        want = np.zeros((E, N))
        for j, i, a in np.ndindex(E, N, K):
            alpha = np.broadcast_to(temperature, N)[i]
            want[j, i] += np.exp(log_probs[i, a]) * (value[j, i, a] - alpha * log_probs[i, a])
        close(pg.expected_soft_value(jnp.asarray(log_probs), jnp.asarray(value), temperature=temperature), want)
    one = pg.soft_value(jnp.asarray(value[0]), jnp.asarray(log_probs), temperature=0.3)
    mean = (np.exp(log_probs) * np.asarray(one)).sum(-1)
    close(pg.expected_soft_value(jnp.asarray(log_probs), jnp.asarray(value[0]), temperature=0.3), mean)


def test_the_best_discrete_policy_is_the_softmax_of_q_over_alpha() -> None:
    value = normal(13, K)
    loss = lambda x: -pg.expected_soft_value(jax.nn.log_softmax(x), jnp.asarray(value), temperature=ALPHA)  # noqa: E731
    gradient = jax.grad(loss)
    close(gradient(jnp.asarray(value / ALPHA + 3.0)), 0.0)
    close(-loss(jnp.asarray(value / ALPHA)), ALPHA * np.log(np.exp(value / ALPHA).sum()))
    assert np.abs(gradient(jnp.asarray(value))).max() > 0.05
    # Elsewhere: -π_k ((Q_k - α log π_k) - V), by differentiating the sum by hand.
    logits = normal(14, K)
    probs = np.exp(logits) / np.exp(logits).sum()
    soft = value - ALPHA * np.log(probs)
    close(gradient(jnp.asarray(logits)), -probs * (soft - probs @ soft))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_forbidden_actions_add_nothing(dtype: Any) -> None:
    mask = jnp.array([True, False, True, True, False])
    logits, value = jnp.asarray(normal(15, K), dtype), jnp.asarray(normal(16, K), dtype)

    def soft(logits: Any, value: Any) -> Any:
        return pg.expected_soft_value(pg.Categorical(logits, mask).log_probs, value, temperature=3.0)

    keep = np.flatnonzero(mask)
    small = pg.expected_soft_value(jax.nn.log_softmax(logits[keep]), value[keep], temperature=3.0)
    tolerance = 1e-12 if dtype == jnp.float64 else 1e-5
    for rest in (0.0, jnp.nan, -jnp.inf):
        got, (by_logits, by_value) = jax.value_and_grad(soft, argnums=(0, 1))(logits, jnp.where(mask, value, rest))
        close(got, small, rtol=tolerance)
        assert np.isfinite(by_logits).all()
        assert np.isfinite(by_value).all()
        np.testing.assert_array_equal(by_logits[~mask], 0.0)
        np.testing.assert_array_equal(by_value[~mask], 0.0)
        assert np.all(by_logits[mask] != 0)
    for low in (-jnp.inf, float(jnp.finfo(dtype).min)):  # forbidden by the log-probabilities themselves
        log_probs = jnp.where(mask, jax.nn.log_softmax(jnp.where(mask, logits, -jnp.inf)), low)
        got, by_log_probs = jax.value_and_grad(pg.expected_soft_value)(log_probs, value, temperature=3.0)
        close(got, small, rtol=tolerance)
        np.testing.assert_array_equal(by_log_probs[~mask], 0.0)
        assert np.isfinite(by_log_probs).all()


def test_the_temperature_of_a_policy_is_a_constant_and_that_of_a_value_is_not() -> None:
    value, log_prob = jnp.asarray(normal(17, N, K)), jax.nn.log_softmax(jnp.asarray(normal(18, N, K)))
    slope = lambda f: jax.grad(lambda alpha: f(alpha).sum())(0.3)  # noqa: E731
    assert slope(lambda alpha: pg.soft_policy_loss(value, log_prob, temperature=alpha)) == 0
    assert slope(lambda alpha: pg.expected_soft_value(log_prob, value, temperature=alpha)) == 0
    close(slope(lambda alpha: pg.soft_value(value, log_prob, temperature=alpha)), -log_prob.sum())


# --- the quadratic bandit ---------------------------------------------------------------------------------------------


def critic(action: Any) -> Any:
    return -0.5 * CURVATURE * (action - BEST) ** 2


def soft_loss(params: Any, alpha: Any = ALPHA, *, through: str = "both") -> Any:
    """The mean of the loss over the noise, by quadrature."""
    mean, log_scale = params
    policy = pg.Normal(jnp.full((NODES.size, 1), mean), jnp.full((NODES.size, 1), jnp.exp(log_scale)))
    action = mean + jnp.exp(log_scale) * jnp.asarray(NODES)
    log_prob = policy.log_prob((action if through == "both" else jax.lax.stop_gradient(action))[:, None])
    return (jnp.asarray(WEIGHTS) * pg.soft_policy_loss(critic(action), log_prob, temperature=alpha)).sum()


def test_identity_24_the_reparametrised_gradient_is_that_of_the_soft_objective() -> None:
    """J = E Q + α H = -½ m ((μ - a*)² + σ²) + α (log σ + ½ log 2πe)."""
    for mean, scale in ((0.2, 0.5), (-1.0, 1.3)):
        got = -np.array(jax.jit(jax.grad(soft_loss))((mean, np.log(scale))))
        close(got, [-CURVATURE * (mean - BEST), -CURVATURE * scale**2 + ALPHA])
        objective = -0.5 * CURVATURE * ((mean - BEST) ** 2 + scale**2) + ALPHA * (
            np.log(scale) + 0.5 * np.log(2 * np.pi * np.e)
        )
        close(-soft_loss((mean, np.log(scale))), objective)
        without = -np.array(
            jax.jit(jax.grad(functools.partial(soft_loss, through="parameters")))((mean, np.log(scale)))
        )
        assert abs(without[1] - got[1]) > 0.3  # one path of log π is not enough
    close(jax.jit(jax.grad(soft_loss))((BEST, 0.5 * np.log(ALPHA / CURVATURE))), 0.0)


def test_identity_24_without_temperature_it_is_the_deterministic_gradient() -> None:
    by_mean, by_scale = jax.jit(jax.grad(soft_loss))((0.2, np.log(1e-3)), 0.0)
    close(by_mean, CURVATURE * (0.2 - BEST))
    close(by_scale, CURVATURE * 1e-6)
    deterministic = jax.grad(lambda x: pg.soft_policy_loss(critic(x), jnp.asarray(0.0), temperature=0.0))
    close(deterministic(0.2), CURVATURE * (0.2 - BEST))


def test_the_temperature_falls_above_the_target_and_both_forms_rest_at_m_sigma_squared() -> None:
    target = -0.3
    variance = np.exp(2 * target - 1) / (2 * np.pi)

    def slope(alpha: float, scale: float, *, scale_free: bool) -> float:
        """The mean derivative by log α, for the normal policy of this scale."""
        log_prob = jnp.asarray(-0.5 * NODES**2 - np.log(scale) - 0.5 * np.log(2 * np.pi))

        def mean(x: Any) -> Any:
            losses = pg.temperature_loss(x, log_prob, target_entropy=target, scale_free=scale_free)
            return (jnp.asarray(WEIGHTS) * losses).sum()

        return float(jax.jit(jax.grad(mean))(np.log(alpha)))

    for scale in (0.1, 0.9):
        excess = np.log(scale) + 0.5 * np.log(2 * np.pi * np.e) - target
        close(slope(0.4, scale, scale_free=False), 0.4 * excess)
        close(slope(0.4, scale, scale_free=True), excess)
        assert (slope(0.4, scale, scale_free=False) > 0) == (scale**2 > variance)  # too random: log α falls
    fixed = CURVATURE * variance  # the policy's own optimum α / m is then the variance of the target
    for scale_free in (False, True):
        close(slope(fixed, np.sqrt(fixed / CURVATURE), scale_free=scale_free), 0.0)
        assert abs(slope(2 * fixed, np.sqrt(2 * fixed / CURVATURE), scale_free=scale_free)) > 1e-2


def test_the_temperature_does_not_pull_at_the_policy_and_may_differ_by_row() -> None:
    log_prob, log_alpha = jnp.asarray(normal(19, N)), jnp.asarray(normal(20, N))
    for scale_free in (False, True):
        loss = functools.partial(pg.temperature_loss, target_entropy=-2.0, scale_free=scale_free)
        assert not np.any(jax.jit(jax.grad(lambda x, f=loss: f(0.3, x).sum()))(log_prob))
        factor = np.asarray(log_alpha) if scale_free else np.exp(log_alpha)
        close(loss(log_alpha, log_prob), -factor * (np.asarray(log_prob) - 2.0))
        close(loss(0.3, log_prob), -(0.3 if scale_free else np.exp(0.3)) * (np.asarray(log_prob) - 2.0))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_arguments_are_named() -> None:
    row, value = transition(np.ones(N), np.ones(N)), jnp.ones(N)
    with pytest.raises(TypeError, match=r"^transition must be a Transition, got tuple"):
        pg.td_target((value, value), value)
    with pytest.raises(TypeError, match=r"^transition.reward must have a floating dtype"):
        pg.td_target(row.replace(reward=jnp.ones(N, int)), value)
    with pytest.raises(ValueError, match=r"^transition.discount must have the shape of transition.reward, \[4\], got"):
        pg.td_target(row.replace(discount=jnp.ones(1)), value)
    with pytest.raises(
        ValueError, match=r"^next_value must end with the shape of transition.reward, \[4\], got \[4, 1"
    ):
        pg.td_target(row, value[:, None])
    with pytest.raises(
        ValueError, match=r"^action_value must have a leading axis of critics, \[E, ...\], got a scalar"
    ):
        pg.clipped_double_q(jnp.asarray(1.0))
    with pytest.raises(ValueError, match=r"^action_value is empty"):
        pg.clipped_double_q(jnp.ones((0, N)))
    for function in (pg.soft_value, pg.soft_policy_loss):
        with pytest.raises(ValueError, match=r"^action_value must end with the shape of log_prob, \[4\], got \[4, 1\]"):
            function(value[:, None], value, temperature=1.0)
        with pytest.raises(TypeError, match=r"^log_prob must have a floating dtype"):
            function(value, jnp.ones(N, int), temperature=1.0)
        with pytest.raises(ValueError, match=r"^temperature must be a scalar or have shape \[4\], got \[2\]"):
            function(value, value, temperature=jnp.ones(2))
    with pytest.raises(ValueError, match=r"^action_value must end with the shape of log_probs, \[4, 5\], got \[4\]"):
        pg.expected_soft_value(jnp.ones((N, K)), value, temperature=1.0)
    with pytest.raises(ValueError, match=r"^log_probs must have shape \[..., K\]"):
        pg.expected_soft_value(jnp.asarray(1.0), jnp.asarray(1.0), temperature=1.0)
    with pytest.raises(ValueError, match=r"^temperature must be a scalar or have shape \[4\], got \[4, 5\]"):
        pg.expected_soft_value(jnp.ones((N, K)), jnp.ones((N, K)), temperature=jnp.ones((N, K)))
    with pytest.raises(ValueError, match=r"^log_temperature must be a scalar or have shape \[4\], got \[1\]"):
        pg.temperature_loss(jnp.ones(1), value, target_entropy=1.0)
    with pytest.raises(ValueError, match=r"^target_entropy must be a scalar or have shape \[4\], got \[1\]"):
        pg.temperature_loss(jnp.asarray(1.0), value, target_entropy=jnp.ones(1))
    with pytest.raises(TypeError, match=r"^log_prob must have a floating dtype"):
        pg.temperature_loss(jnp.asarray(1.0), jnp.ones(N, int), target_entropy=1.0)
