"""Doubly robust gradients: means over every trajectory of a behaviour policy, against exact gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import miss, policy, trace_of_covariance

import pgjax as pg
from pgjax import exact
from pgjax import expectation as ex

from .behaviour import HORIZON, action_values, look_up, of_table, other_data, tables, timed_policy

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def doubly_robust(table: Any, horizon: int = HORIZON, own: bool = False, **kwargs: Any) -> tuple[Any, Any]:
    mdp, logits, batch, weights = other_data(horizon, own)
    grads, _ = pg.doubly_robust_gradient.per_trajectory(
        logits, batch, policy=timed_policy, critic=pg.bind(look_up, jnp.asarray(table)), rule=ex.enumerated,
        discount=mdp.discount, **kwargs,
    )  # fmt: skip
    return grads, weights


def per_decision_by_loops(batch: Any, logits: Any, discount: float) -> np.ndarray:
    """The gradient of per-decision importance sampling: Σ_k γ^k r_k ρ_{0:k} Σ_{t<=k} ∇log π_t, descent."""
    probs = np.asarray(jax.nn.softmax(logits))
    obs, action, reward = (np.asarray(x) for x in (batch.obs, batch.action, batch.reward))
    out = np.zeros((reward.shape[1], *probs.shape))
    for n in range(reward.shape[1]):
        ratio, score = 1.0, np.zeros_like(probs)
        for t in range(len(reward)):
            s, a = int(obs[t, n, :2].argmax()), int(action[t, n])
            ratio *= probs[s, a] / np.exp(batch.log_prob[t, n])
            score[s] += np.eye(2)[a] - probs[s]
            out[n] -= discount**t * reward[t, n] * ratio * score
    return out


def test_identity_12_doubly_robust_gradients_are_unbiased_for_any_critic() -> None:
    mdp, logits, batch, weights = other_data()
    truth = np.asarray(tabular.gradient(mdp, logits, HORIZON))
    assert np.abs(truth).max() > 0.1
    spread = {}
    for name, table in tables().items():
        got, _ = doubly_robust(table)
        assert miss(got, weights, truth) < 1e-12, name
        spread[name] = trace_of_covariance(got, weights)
    assert spread["exact"] < spread["noisy"] < spread["zero"]
    # A critic of 0 leaves per-decision importance sampling, trajectory by trajectory.
    got, _ = doubly_robust(tables()["zero"])
    close(got, per_decision_by_loops(batch, logits, float(mdp.discount)))
    # Taken for the policy's own, the same data give another mean: the comparison can fail.
    own = batch.replace(log_prob=timed_policy(logits, batch.obs).log_prob(batch.action))
    wrong, _ = pg.doubly_robust_gradient.per_trajectory(
        logits, own, policy=timed_policy, critic=pg.bind(look_up, jnp.asarray(tables()["noisy"])), rule=ex.enumerated,
        discount=mdp.discount,
    )  # fmt: skip
    assert miss(wrong, weights, truth) > 1e-2


def test_a_gradient_of_the_critic_keeps_the_mean_and_lowers_the_variance_where_it_is_right() -> None:
    mdp, logits, _, weights = other_data()
    truth = tabular.gradient(mdp, logits, HORIZON)

    def right(params: Any, obs: Any, action: Any) -> Any:
        return look_up(action_values(mdp, params, HORIZON), obs, action)

    def wrong(params: Any, obs: Any, action: Any) -> Any:
        return jnp.sin(obs @ jnp.concatenate([params, params[:1]])).sum(-1) * (1.0 + action)

    fixed, _ = doubly_robust(tables()["exact"])
    with_gradient, _ = doubly_robust(tables()["exact"], critic_gradient=right)
    with_other, _ = doubly_robust(tables()["exact"], critic_gradient=wrong)
    assert miss(with_gradient, weights, truth) < 1e-12
    assert miss(with_other, weights, truth) < 1e-12
    assert trace_of_covariance(with_gradient, weights) < 0.7 * trace_of_covariance(fixed, weights)
    assert np.abs(np.asarray(with_other) - np.asarray(fixed)).max() > 1e-2


def trajectory_wise(table: Any, horizon: int, later: bool = True) -> tuple[Any, Any]:
    """By `control_variate`, with or without what the critic knew of later actions subtracted."""
    mdp, logits, batch, weights = other_data(horizon, own=True)
    critic = pg.bind(look_up, jnp.asarray(table))
    ends = {"terminated": batch.terminated, "truncated": batch.truncated, "discount": mdp.discount}
    probs = jax.nn.softmax(logits)
    q = look_up(jnp.asarray(table), batch.obs, batch.action)
    each = jnp.stack([look_up(jnp.asarray(table), batch.obs, a) for a in (0, 1)], -1)
    v = jnp.sum(each * (batch.obs[..., :2] @ probs), -1)
    _, known = pg.doubly_robust_returns(batch.reward, q, v, log_ratio=jnp.zeros_like(q), **ends)
    returns = pg.discounted_returns(batch.reward, **ends)
    grads, _ = pg.control_variate.per_trajectory(
        logits, batch, policy=timed_policy, advantage=known if later else returns, critic=critic, rule=ex.enumerated,
        step_weight=tabular.weight(batch, mdp),
    )  # fmt: skip
    return grads, weights


def test_the_trajectory_wise_control_variate_reaches_the_golden_variance() -> None:
    mdp, logits, batch, weights = other_data(4, own=True)
    table = tables(4)["exact"]
    value = np.einsum("hsa,sa->hs", table, np.asarray(jax.nn.softmax(logits)))
    baseline = value[np.asarray(batch.step), np.asarray(batch.obs[..., :2].argmax(-1))]
    truth = tabular.gradient(mdp, logits, 4)
    of_state, _ = pg.reinforce.per_trajectory(
        logits, batch, policy=timed_policy, discount=mdp.discount, baseline=jnp.asarray(baseline),
        step_weight=tabular.weight(batch, mdp),
    )  # fmt: skip
    own_step, _ = trajectory_wise(table, 4, later=False)
    whole, _ = trajectory_wise(table, 4)
    for got, golden in ((of_state, 2.24165), (own_step, 2.35595), (whole, 0.69448)):
        np.testing.assert_allclose(trace_of_covariance(got, weights), golden, atol=6e-6)
        assert miss(got, weights, truth) < 1e-12
    # On the policy's own data it is the doubly robust gradient, trajectory by trajectory and for any critic.
    for name in ("exact", "unrelated"):
        close(trajectory_wise(tables(4)[name], 4)[0], doubly_robust(tables(4)[name], 4, own=True)[0], rtol=1e-11)


def forwards(window: Any, probs: Any, table: Any, next_value: Any, discount: float) -> tuple[np.ndarray, int]:
    """The same gradient as a sum forwards in time, Σ γ^t ρ_{0:t-1} [∇v_t + ρ_t (X_t - q_t) ∇log π_t]."""
    obs, action, reward, log_prob, step = (
        np.asarray(x) for x in (window.obs, window.action, window.reward, window.log_prob, window.step)
    )
    total, starts = np.zeros((obs.shape[1], *probs.shape)), 0
    for b in range(obs.shape[1]):
        for rows in tabular.episodes(jax.tree.map(lambda x, b=b: x[:, b], window)):
            later, last = 0.0, rows[-1]
            if not window.terminated[last, b]:
                later = float(next_value[last, b])
            terms = []
            for t in reversed(rows):
                s, a = int(obs[t, b].argmax()), int(action[t, b])
                v, rho = float(probs[s] @ table[s]), float(probs[s, a] / np.exp(log_prob[t, b]))
                x = float(reward[t, b]) + discount * later
                slope = np.zeros_like(probs)
                slope[s] = probs[s] * (table[s] - v) + rho * (x - table[s, a]) * (np.eye(2)[a] - probs[s])
                terms.append((slope, rho))
                later = v + rho * (x - table[s, a])
            if step[rows[0], b] == 0:
                starts, carried = starts + 1, 1.0
                for slope, rho in reversed(terms):
                    total[b] -= carried * slope
                    carried *= discount * rho
    return total, starts


def products_within_episodes(params: Any, t: Any) -> Any:
    log_ratio = policy(params, t.obs).log_prob(t.action) - t.log_prob
    rows = [log_ratio[0]]
    for k in range(1, len(log_ratio)):
        rows.append(log_ratio[k] + jnp.where(t.step[k] == 0, 0.0, rows[-1]))
    return jnp.exp(jnp.stack(rows))


def test_episodes_in_a_window_add_up_and_one_that_began_before_adds_nothing() -> None:
    logits = tabular.problem("three_state")[1]
    window = tabular.random_window(4, 3)
    window = window.replace(log_prob=jnp.asarray(np.log(np.random.default_rng(5).uniform(0.2, 0.9, (7, 3)))))
    table = np.random.default_rng(6).normal(size=(3, 2))
    critic = pg.bind(of_table, jnp.asarray(table))
    next_value = jnp.asarray(np.random.default_rng(7).normal(size=(7, 3)))
    arguments = {"policy": policy, "critic": critic, "rule": ex.enumerated, "discount": 0.8}
    each, _ = pg.doubly_robust_gradient.per_trajectory(logits, window, next_value=next_value, **arguments)
    want, starts = forwards(window, np.asarray(jax.nn.softmax(logits)), table, np.asarray(next_value), 0.8)
    assert starts > 3
    assert int(window.step[0].max()) > 0
    close(each, want)
    mask = jnp.ones((7, 3), bool).at[:, 0].set(False)
    masked, _ = pg.doubly_robust_gradient.per_trajectory(logits, window, next_value=next_value, mask=mask, **arguments)
    close(masked[0], 0.0)
    close(masked[1:], each[1:])
    # So do those of densities, which here are the products of ratios within each episode.
    by_density, _ = pg.efficient_off_policy_gradient.per_trajectory(
        logits, window, next_value=next_value, density_ratio=products_within_episodes, **arguments
    )
    close(by_density, each)


# --- densities in place of products of ratios ------------------------------------------------------------------------


def density_ratios(mdp: Any, logits: Any, behaviour: Any, horizon: int) -> Any:
    """w [H, S, A]: how much likelier a pair is at each time under the policy than under the behaviour."""
    probs, own, other, rows = jax.nn.softmax(logits), mdp.initial, mdp.initial, []
    for _ in range(horizon):
        pair, other_pair = own[:, None] * probs, other[:, None] * behaviour
        rows.append(jnp.where(other_pair > 0.0, pair / jnp.where(other_pair > 0.0, other_pair, 1.0), 0.0))
        own, other = (jnp.einsum("sa,sat->t", x, mdp.transition) for x in (pair, other_pair))
    return jnp.stack(rows)


def bend(params: Any) -> Any:
    """Something wrong, [H, S, A]."""
    return jnp.sin(params.sum() + jnp.asarray(np.random.default_rng(3).normal(size=(HORIZON, 2, 2))))


def ratio_with_errors(errors: Any, params: Any, t: Any) -> Any:
    """The density ratio with errors [2] of its value and of its gradient."""
    right = density_ratios(other_data()[0], params, exact.two_state_behaviour(), HORIZON)
    held = jax.lax.stop_gradient(bend(params))
    return look_up(right + errors[0] * held + errors[1] * (bend(params) - held), t.obs, t.action)


def slope_with_error(error: Any, params: Any, obs: Any, action: Any) -> Any:
    return look_up(action_values(other_data()[0], params, HORIZON) + error * bend(params), obs, action)


def efficient(ratio: float = 0.0, ratio_slope: float = 0.0, critic: float = 0.0, slope: float = 0.0) -> Any:
    """What each trajectory adds, with errors of the density ratio, its gradient, the critic and its gradient."""
    mdp, logits, batch, _ = other_data()
    grads, _ = pg.efficient_off_policy_gradient.per_trajectory(
        logits, batch, policy=timed_policy, rule=ex.enumerated, discount=mdp.discount,
        density_ratio=pg.bind(ratio_with_errors, jnp.array([ratio, ratio_slope])),
        critic=pg.bind(look_up, jnp.asarray(tables()["exact"] + critic * tables()["unrelated"])),
        critic_gradient=pg.bind(slope_with_error, jnp.asarray(slope)),
    )  # fmt: skip
    return grads


@pytest.mark.parametrize("right", [("ratio", "ratio_slope"), ("critic", "slope"), ("ratio", "critic")])
def test_identity_13_two_right_parts_make_the_gradient_unbiased_and_neither_of_them_alone(
    right: tuple[str, str],
) -> None:
    mdp, logits, _, weights = other_data()
    truth = tabular.gradient(mdp, logits, HORIZON)
    wrong = dict.fromkeys({"ratio", "ratio_slope", "critic", "slope"} - set(right), 0.4)
    assert miss(efficient(**wrong), weights, truth) < 1e-12
    for part in right:
        assert miss(efficient(**wrong, **{part: 0.4}), weights, truth) > 1e-2, part


def test_with_every_part_right_densities_vary_less_than_products_of_ratios() -> None:
    weights = other_data()[-1]
    robust, _ = doubly_robust(tables()["exact"], critic_gradient=pg.bind(slope_with_error, jnp.asarray(0.0)))
    assert trace_of_covariance(efficient(), weights) < 0.99 * trace_of_covariance(robust, weights)


BAD = [
    ({"next_value": np.zeros((2, 3))}, ValueError, "next_value must have the shape of trajectory.reward"),
    ({"discount": 1.5}, ValueError, r"discount must lie in \[0, 1\]"),
    ({"critic_gradient": 1.0}, TypeError, "critic_gradient must be a function"),
    ({"rule": ex.at_mode}, TypeError, "at_mode makes no sense for Categorical"),
]
BAD_DENSITIES = [
    ({"density_ratio": 1.0}, TypeError, "density_ratio must be a function"),
    ({"density_ratio": lambda params, t: t.reward[0]}, ValueError, "what density_ratio returns must have the shape"),
    ({"discount": jnp.full((7, 3), 0.9)}, ValueError, "discount"),
]


@pytest.mark.parametrize(("change", "kind", "message"), BAD)
def test_bad_arguments_are_named(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    window = tabular.random_window(4, 3)
    arguments = {
        "policy": policy, "critic": lambda obs, action: obs[..., 0], "rule": ex.enumerated, "discount": 0.9, **change
    }  # fmt: skip
    with pytest.raises(kind, match=message):
        pg.doubly_robust_gradient(tabular.problem("three_state")[1], window, **arguments)


@pytest.mark.parametrize(("change", "kind", "message"), [*BAD[:1], *BAD[2:], *BAD_DENSITIES])
def test_bad_arguments_of_the_efficient_gradient_are_named(
    change: dict[str, Any], kind: type[Exception], message: str
) -> None:
    window = tabular.random_window(4, 3)
    arguments = {
        "policy": policy, "critic": lambda obs, action: obs[..., 0], "rule": ex.enumerated, "discount": 0.9,
        "density_ratio": lambda params, t: t.reward, **change,
    }  # fmt: skip
    with pytest.raises(kind, match=message):
        pg.efficient_off_policy_gradient(tabular.problem("three_state")[1], window, **arguments)
