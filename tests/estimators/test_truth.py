"""Every estimator against the exact gradient: the mean over all trajectories of a tiny process, in float64."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import PROBLEMS, every_trajectory, mean, miss, policy

import pgjax as pg
from pgjax import exact

from .contributions import SCORE_FUNCTION, actor_part, each, value

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")


# --- unbiased ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "horizon"), PROBLEMS)
@pytest.mark.parametrize("estimator", SCORE_FUNCTION)
def test_the_mean_over_all_trajectories_is_the_exact_gradient(estimator: str, name: str, horizon: int) -> None:
    mdp, logits, batch, weights = every_trajectory(name, horizon)
    truth = tabular.gradient(mdp, logits, horizon)
    assert np.abs(truth).max() > 0.1
    random = np.random.default_rng(0)
    of_time = np.tile(random.normal(size=(horizon, 1)), (1, len(weights)))
    of_state_and_time = np.einsum("tns,ts->tn", batch.obs, random.normal(size=(horizon, len(logits))))
    baselines = {
        "none": None,
        "constant": np.full(batch.reward.shape, 1.7),
        "time": of_time,
        "state": of_state_and_time,
    }
    if estimator == "gpomdp":  # its baseline stands beside a reward, which follows earlier actions
        del baselines["state"]
    for label, baseline in baselines.items():
        if baseline is not None and name == "two_state" and horizon != 2:
            continue
        assert miss(each(estimator, logits, batch, mdp, baseline=baseline), weights, truth) < 1e-12, label


def test_a_value_baseline_and_a_frozen_mean_keep_the_exact_gradient() -> None:
    mdp, logits, batch, weights = every_trajectory("three_state", 3)
    critic = {"critic": jnp.array([0.5, -1.0, 2.0])}
    baseline = pg.value_baseline(critic, batch, value=value)
    state = pg.update_moving_mean(pg.init_moving_mean(), jnp.array([3.0, 5.0]))
    for b in (baseline, baseline + pg.moving_mean(state)):
        got = each("reinforce", logits, batch, mdp, baseline=b)
        assert miss(got, weights, tabular.gradient(mdp, logits, 3)) < 1e-12


@pytest.mark.parametrize(("name", "horizon"), PROBLEMS)
def test_actor_critic_at_lam_1_is_unbiased_for_any_value(name: str, horizon: int) -> None:
    mdp, logits, batch, weights = every_trajectory(name, horizon)
    critic = jnp.asarray(np.random.default_rng(1).normal(size=len(logits)))
    truth = tabular.gradient(mdp, logits, horizon)
    assert miss(actor_part(logits, critic, batch, mdp, 1.0), weights, truth) < 1e-12
    if horizon == 3:
        assert miss(actor_part(logits, critic, batch, mdp, 0.5), weights, truth) > 1e-3


@functools.cache
def blind_to_time(states: int) -> Any:
    """The policy that looks at the first entries of an observation; one function for each number of them."""
    return lambda params, obs: policy(params["actor"], obs[..., :states])


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.95, 1.0])
@pytest.mark.parametrize(("name", "horizon"), [("two_state", 3), ("three_state", 3)])
def test_actor_critic_with_the_exact_value_is_unbiased_for_any_lam(name: str, horizon: int, lam: float) -> None:
    mdp, logits, batch, weights = every_trajectory(name, horizon)
    states = len(logits)
    table = tabular.values_over_time(mdp, logits, horizon)

    def clocked(obs: Any, step: Any) -> Any:
        """The value to come depends on the time that is left, so the observation tells the time."""
        time = jax.nn.one_hot(step, horizon + 1, dtype=obs.dtype)
        return jnp.concatenate([obs, (time[..., :, None] * obs[..., None, :]).reshape(*obs.shape[:-1], -1)], -1)

    timed = batch.replace(obs=clocked(batch.obs, batch.step), next_obs=clocked(batch.next_obs, batch.step + 1))
    critic = jnp.concatenate([jnp.zeros(states), table.ravel()])
    got = actor_part(logits, critic, timed, mdp, lam, blind_to_time(states))
    assert miss(got, weights, tabular.gradient(mdp, logits, horizon)) < 1e-12


def test_without_the_weight_reinforce_follows_the_field_that_drops_the_discount() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    got = each("reinforce", logits, batch, mdp, step_weight=None)
    field = mean(got, weights)
    np.testing.assert_allclose(-field, [[0.4112766421, -0.4112766421], [-0.5366794263, 0.5366794263]], atol=1e-10)
    np.testing.assert_allclose(tabular.trace_of_covariance(got, weights), 4.52398561, atol=1e-8)
    undiscounted = exact.TabularMDP(mdp.transition, mdp.reward, mdp.initial, 1.0, 3)
    got = each("reinforce", logits, batch, undiscounted, step_weight=None)
    assert miss(got, weights, tabular.gradient(undiscounted, logits, 3)) < 1e-12


GOLDEN_MEANS = {
    1: (0.2350037122, 0.0),
    2: (0.3230247740, -0.2003645235),
    3: (0.3768485223, -0.4556517372),
    5: (0.4630769564, -0.9547680459),
}


@pytest.mark.parametrize("horizon", GOLDEN_MEANS)
def test_the_golden_gradients_of_the_two_state_process(horizon: int) -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", horizon)
    first, second = GOLDEN_MEANS[horizon]
    got = mean(each("gpomdp", logits, batch, mdp), weights)
    np.testing.assert_allclose(got, [[-first, first], [-second, second]], atol=1e-10)


def test_truncated_windows_with_the_exact_value_give_the_first_steps_of_the_infinite_horizon() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    probs = jax.nn.softmax(logits)
    cut = batch.replace(terminated=jnp.zeros_like(batch.terminated), truncated=batch.terminated)
    v, q = exact.value(mdp, probs), exact.action_value(mdp, probs)
    # Σ_{t<3} γ^t Pr(s_t) Σ_a ∇π(a|s) Q(s, a), with Q of the whole future
    truth, mass = jnp.zeros_like(logits), mdp.initial
    for t in range(3):
        pull = probs * (q - jnp.sum(probs * q, 1, keepdims=True))
        truth += mdp.discount**t * mass[:, None] * pull
        mass = jnp.einsum("s,sa,sax->x", mass, probs, mdp.transition)
    got = each("reinforce", logits, cut, mdp, next_value=cut.next_obs @ v)
    assert miss(got, weights, truth) < 1e-12
    assert miss(actor_part(logits, v, cut, mdp, 0.6), weights, truth) < 1e-12
    assert miss(each("reinforce", logits, batch, mdp, next_value=cut.next_obs @ v), weights, truth) > 0.01


def test_the_gradient_is_a_descent_direction() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    for estimator in SCORE_FUNCTION:
        step = mean(each(estimator, logits, batch, mdp), weights)
        assert tabular.objective(mdp, logits - 0.1 * step, 3) > tabular.objective(mdp, logits, 3) + 0.01
    step = mean(actor_part(logits, jnp.zeros(2), batch, mdp, 1.0), weights)
    assert tabular.objective(mdp, logits - 0.1 * step, 3) > tabular.objective(mdp, logits, 3) + 0.01


# --- variance ---------------------------------------------------------------------------------------------------------


def variance(estimator: str, horizon: int, **kwargs: Any) -> float:
    mdp, logits, batch, weights = every_trajectory("two_state", horizon)
    return float(tabular.trace_of_covariance(each(estimator, logits, batch, mdp, **kwargs), weights))


def test_the_golden_variances_of_the_two_state_process() -> None:
    for horizon, golden in {1: 0.0669934279, 2: 1.3595033013, 3: 3.99767005, 5: 12.9457397947}.items():
        np.testing.assert_allclose(variance("gpomdp", horizon), golden, atol=1e-8)
        np.testing.assert_allclose(variance("reinforce", horizon), golden, atol=1e-8)
    np.testing.assert_allclose(variance("likelihood_ratio", 3), 7.37893277, atol=1e-8)


def test_the_best_constant_baseline_reaches_the_golden_variance_and_no_other_constant_does() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 3)
    score = each("likelihood_ratio", logits, batch, mdp, baseline=lambda g: g + 1.0)  # Ψ, since R - b = -1
    square = np.square(score).sum((1, 2))
    total = np.sum(np.asarray(tabular.weight(batch, mdp) * batch.reward), 0)
    best = float(np.asarray(weights) @ (square * total) / (np.asarray(weights) @ square))
    at_best = variance("likelihood_ratio", 3, baseline=best)
    np.testing.assert_allclose(at_best, 2.19553665, atol=1e-8)
    assert variance("likelihood_ratio", 3, baseline=best + 0.01) > at_best
    assert variance("likelihood_ratio", 3, baseline=best - 0.01) > at_best


# --- groups of a bandit -----------------------------------------------------------------------------------------------

BANDIT_REWARD, BANDIT_LOGITS = (1.0, 0.2, -0.7), (0.2, -0.5, 0.4)


def bandit_groups(size: int, baseline: Any) -> tuple[Any, Any, Any]:
    """The estimate from each of the 3^N groups of N pulls, their probabilities, and the exact gradient."""
    logits, reward = jnp.array([BANDIT_LOGITS]), jnp.array(BANDIT_REWARD)
    probs = jax.nn.softmax(logits[0])
    indices, weights = exact.groups(probs, size)
    ends = jnp.ones((1, size), bool)

    def estimate(action: Any) -> Any:
        batch = pg.Trajectory(
            obs=jnp.ones((1, size, 1)),
            action=action[None],
            reward=reward[action][None],
            next_obs=jnp.ones((1, size, 1)),
            terminated=ends,
            truncated=~ends,
            log_prob=jnp.zeros((1, size)),
            step=jnp.zeros((1, size), jnp.int32),
        )
        return pg.reinforce(logits, batch, policy=policy, discount=0.9, baseline=baseline)[0]

    truth = jax.jit(jax.grad(lambda logits: jax.nn.softmax(logits[0]) @ reward))(logits)
    return jax.jit(jax.vmap(estimate))(indices), weights, truth


@pytest.mark.parametrize("size", [2, 3, 5])
def test_leave_one_out_is_unbiased_with_the_variance_of_the_closed_form(size: int) -> None:
    estimates, weights, truth = bandit_groups(size, pg.leave_one_out)
    assert estimates.shape == (3**size, 1, 3)
    assert miss(estimates, weights, truth) < 1e-14
    probs, reward = np.asarray(jax.nn.softmax(jnp.array(BANDIT_LOGITS))), np.array(BANDIT_REWARD)
    centred, score = reward - probs @ reward, np.square(np.eye(3) - probs).sum(1)
    signal = float(jnp.sum(truth**2))
    own = probs @ (score * centred**2) - signal
    price = signal + (probs @ centred**2) * (probs @ score)
    np.testing.assert_allclose(
        tabular.trace_of_covariance(estimates, weights), own / size + price / (size * (size - 1)), rtol=1e-12
    )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_mean_with_the_own_return_shrinks_the_gradient_by_exactly_one_part_in_n(size: int) -> None:
    estimates, weights, truth = bandit_groups(size, pg.batch_mean)
    assert miss(estimates, weights, truth * (size - 1) / size) < 1e-14
    assert miss(estimates, weights, truth) > 0.1 / size * float(jnp.abs(truth).max())


@pytest.mark.parametrize("estimator", SCORE_FUNCTION)
def test_leave_one_out_is_unbiased_over_pairs_of_trajectories(estimator: str) -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 2)
    pairs, pair_weights = exact.groups(weights, 2)

    def estimate(pair: Any) -> Any:
        both = jax.tree.map(lambda x: x[:, pair], batch)
        step_weight = {"step_weight": tabular.weight(both, mdp)} if estimator == "reinforce" else {}
        return SCORE_FUNCTION[estimator](
            logits, both, policy=policy, discount=mdp.discount, baseline=pg.leave_one_out, **step_weight
        )[0]

    assert miss(jax.jit(jax.vmap(estimate))(pairs), pair_weights, tabular.gradient(mdp, logits, 2)) < 1e-12
