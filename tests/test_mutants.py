"""Wrong estimators, each with one mistake that is easy to make: the criterion of the suite must reject them all.

The criterion is that the exact mean over all trajectories is minus the exact gradient, to 1e-10. Each family of
mutants stands beside the right estimator, written in the same few lines, which the criterion must accept.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, miss, policy

import pgjax as pg
from pgjax import exact
from pgjax.estimators import Surrogate

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

HORIZON, GAMMA = 3, 0.9
TOLERANCE = 1e-10


def surrogate(weight: Any, sign: float = -1.0, action: Any = lambda t: t.action) -> Surrogate:
    """The loss of an estimator that multiplies each score by a weight."""

    def loss(params: Any, trajectory: Any, weight: Any, _: Any) -> Any:
        return sign * policy(params, trajectory.obs).log_prob(action(trajectory)) * weight

    return Surrogate(loss, weight)


@pg.estimator()
def weighted_scores(params: Any, trajectory: Any, *, weight: Any) -> Surrogate:
    """Every score times its weight: one program for all mutants of the weight."""
    return surrogate(weight)


def contributions(weight: Callable[[Any], Any], logits: Any, batch: Any) -> Any:
    """What each trajectory gives, from the function that gives the weights."""
    return weighted_scores.per_trajectory(logits, batch, weight=weight(batch))[0]


def returns(t: Any, discount: float = GAMMA, **change: Any) -> Any:
    ends = {"terminated": t.terminated, "truncated": t.truncated, **change}
    return pg.discounted_returns(t.reward, discount=discount, **ends)


def gamma_t(t: Any) -> Any:
    return pg.discount_weight(t.step, GAMMA)


def later(x: Any) -> Any:
    """Row t holds what belongs to row t + 1."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def earlier(x: Any) -> Any:
    return jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]])


def of_state(t: Any) -> Any:
    return t.obs @ jnp.array([0.7, -1.3])


def of_next_state(t: Any) -> Any:
    return t.next_obs @ jnp.array([0.7, -1.3])


def of_action(t: Any) -> Any:
    return jnp.where(t.action == 0, 0.7, -1.3)


def own_mean(t: Any) -> Any:
    """A mean over the steps of the very trajectory."""
    return jnp.broadcast_to(returns(t).mean(0, keepdims=True), t.reward.shape)


def total(t: Any) -> Any:
    return jnp.broadcast_to(jnp.sum(gamma_t(t) * t.reward, 0, keepdims=True), t.reward.shape)


def reward_so_far(t: Any) -> Any:
    return jnp.cumsum(gamma_t(t) * t.reward, 0)


def advantage(t: Any, lam: float, value: Any, next_value: Any) -> Any:
    return pg.gae(t.reward, value, next_value, terminated=t.terminated, truncated=t.truncated, discount=GAMMA, lam=lam)


RIGHT = {
    "likelihood ratio": total,
    "likelihood ratio, state baseline": lambda t: total(t) - of_state(t),
    "reinforce": lambda t: gamma_t(t) * returns(t),
    "reinforce, state baseline": lambda t: gamma_t(t) * (returns(t) - of_state(t)),
    "gpomdp": lambda t: reward_so_far(t)[-1:] - earlier(reward_so_far(t)),
    "actor-critic": lambda t: gamma_t(t) * advantage(t, 1.0, of_state(t), of_next_state(t)),
}
WRONG = {
    "the discount weight is missing": returns,
    "the discount weight is squared": lambda t: gamma_t(t) ** 2 * returns(t),
    "the discount weight counts from one": lambda t: GAMMA * gamma_t(t) * returns(t),
    "rewards are not discounted": lambda t: gamma_t(t) * returns(t, 1.0),
    "the total return is not discounted": lambda t: jnp.broadcast_to(t.reward.sum(0, keepdims=True), t.reward.shape),
    "the total return is discounted twice": lambda t: gamma_t(t) * total(t),
    "the return starts one step late": lambda t: gamma_t(t) * GAMMA * later(returns(t)),
    "the return of the step before": lambda t: gamma_t(t) * earlier(returns(t)),
    "only the reward at once": lambda t: gamma_t(t) * t.reward,
    "rewards of the past": reward_so_far,
    "gpomdp without the reward of the own step": lambda t: reward_so_far(t)[-1:] - reward_so_far(t),
    "a baseline of the next state": lambda t: gamma_t(t) * (returns(t) - of_next_state(t)),
    "a baseline of the action": lambda t: gamma_t(t) * (returns(t) - of_action(t)),
    "a baseline of the own return": lambda t: gamma_t(t) * (returns(t) - 0.5 * returns(t)),
    "a baseline of the own trajectory": lambda t: gamma_t(t) * (returns(t) - own_mean(t)),
    "a state baseline beside each reward of gpomdp": lambda t: jnp.cumsum(
        (gamma_t(t) * t.reward - of_state(t))[::-1], 0
    )[::-1],
    "standardised within the trajectory": lambda t: gamma_t(t)
    * jax.vmap(pg.standardize, in_axes=1, out_axes=1)(returns(t)),
    "mean over time in place of the sum": lambda t: gamma_t(t) * returns(t) / HORIZON,
    "an inexact value at lam below 1": lambda t: gamma_t(t) * advantage(t, 0.9, of_state(t), of_next_state(t)),
    "the advantage bootstraps from its own state": lambda t: gamma_t(t) * advantage(t, 1.0, of_state(t), of_state(t))
    + gamma_t(t) * GAMMA * of_state(t),
}  # fmt: skip
OTHERS = {
    "the sign": lambda t: surrogate(gamma_t(t) * returns(t), sign=1.0),
    "the score of another action": lambda t: surrogate(gamma_t(t) * returns(t), action=lambda t: 1 - t.action),
    "the score of the step before": lambda t: surrogate(gamma_t(t) * returns(t), action=lambda t: earlier(t.action)),
    "the gradient of the probability": lambda t: Surrogate(
        lambda params, t, weight, _: -jnp.exp(policy(params, t.obs).log_prob(t.action)) * weight,
        gamma_t(t) * returns(t),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_criterion_accepts_what_is_right(name: str) -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)
    truth = tabular.gradient(mdp, logits, HORIZON)
    assert miss(contributions(RIGHT[name], logits, batch), weights, truth) < TOLERANCE


@pytest.mark.parametrize("name", [*WRONG, *OTHERS])
def test_the_criterion_rejects_what_is_wrong(name: str) -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)
    truth = tabular.gradient(mdp, logits, HORIZON)
    if name in WRONG:
        got = contributions(WRONG[name], logits, batch)
    else:
        got = pg.estimator()(lambda params, trajectory: OTHERS[name](trajectory)).per_trajectory(logits, batch)[0]
    distance = miss(got, weights, truth)
    assert np.isfinite(distance)
    assert distance > 1e-3  # far from the border of the criterion


# --- several episodes in a column -------------------------------------------------------------------------------------

ACROSS = {
    "right": lambda t: gamma_t(t) * returns(t),
    "the return runs on into the next episode": lambda t: gamma_t(t)
    * returns(t, terminated=jnp.zeros_like(t.terminated)),
    "the weight runs on into the next episode": lambda t: GAMMA
    ** jnp.broadcast_to(jnp.arange(t.reward.shape[0])[:, None], t.reward.shape)
    * returns(t),
    "the episode ends one step early": lambda t: gamma_t(t) * returns(t, terminated=later(t.terminated)),
    "the episode ends one step late": lambda t: gamma_t(t) * returns(t, terminated=earlier(t.terminated)),
}  # fmt: skip


@pytest.mark.parametrize("name", ACROSS)
def test_the_criterion_sees_leaks_between_episodes(name: str) -> None:
    mdp, logits = tabular.problem("two_state")
    # The second episode starts from the second state, so that what leaks depends on nothing and is still seen.
    other = exact.TabularMDP(mdp.transition, mdp.reward, mdp.initial[::-1], GAMMA)
    probs = jax.nn.softmax(logits)
    batch, weights = exact.join(exact.trajectories(mdp, probs, 2), exact.trajectories(other, probs, 2))
    truth = tabular.gradient(mdp, logits, 2) + tabular.gradient(other, logits, 2)
    distance = miss(contributions(ACROSS[name], logits, batch), weights, truth)
    if name == "right":
        assert distance < TOLERANCE
    elif name == "the return runs on into the next episode":
        # What comes after the end is independent of the actions before it: no bias, but variance.
        clean = contributions(ACROSS["right"], logits, batch)
        leaky = contributions(ACROSS[name], logits, batch)
        assert distance < TOLERANCE
        assert tabular.trace_of_covariance(leaky, weights) > 1.1 * tabular.trace_of_covariance(clean, weights)
    else:
        assert distance > 1e-3


# --- truncation -------------------------------------------------------------------------------------------------------


def cut_returns(t: Any, value: Any, **change: Any) -> Any:
    ends = {"terminated": t.terminated, "truncated": t.truncated, **change}
    return gamma_t(t) * pg.discounted_returns(t.reward, value, discount=GAMMA, **ends)


@pytest.mark.parametrize(
    "name", ["right", "as termination", "value of the state before", "value of the fresh start", "value not discounted"]
)
def test_the_criterion_sees_truncation_done_wrong(name: str) -> None:
    """Windows cut after three steps and continued by the exact value of a five-step episode: the first three steps'
    share of the gradient. Its truth is the gradient of those steps' actions alone."""
    mdp, logits = tabular.problem("two_state")
    batch, weights = exact.trajectories(mdp, jax.nn.softmax(logits), HORIZON)
    batch = batch.replace(terminated=jnp.zeros_like(batch.terminated), truncated=batch.terminated)
    rest = tabular.values_over_time(mdp, logits, 2)[0]  # V with two steps left

    def first_steps(theta: Any) -> Any:
        probs, value = jax.nn.softmax(theta), rest
        for _ in range(HORIZON):
            value = jnp.sum(probs * (mdp.reward + GAMMA * mdp.transition @ value), axis=1)
        return mdp.initial @ value

    value_after = batch.next_obs @ rest
    weight = {
        "right": lambda t: cut_returns(t, value_after),
        "as termination": lambda t: cut_returns(t, value_after, terminated=t.truncated),
        "value of the state before": lambda t: cut_returns(t, batch.obs @ rest),
        "value of the fresh start": lambda t: cut_returns(t, jnp.full(t.reward.shape, rest[0])),
        "value not discounted": lambda t: cut_returns(t, value_after / GAMMA),
    }[name]
    distance = miss(contributions(weight, logits, batch), weights, jax.grad(first_steps)(logits))
    assert distance < TOLERANCE if name == "right" else distance > 1e-3


# --- one key for two purposes -----------------------------------------------------------------------------------------


def overlap(mdp: Any, probs: Any) -> Any:
    """Pr(a, s' | s) [S, A, S'] when one uniform number chooses both the action and where it leads to."""
    joint = np.zeros(np.shape(mdp.transition))
    for s, a in np.ndindex(*np.shape(probs)):
        lower, upper = np.sum(probs[s, :a]), np.sum(probs[s, : a + 1])
        edges = np.concatenate([[0.0], np.cumsum(mdp.transition[s, a])])
        for x in range(len(edges) - 1):
            joint[s, a, x] = max(min(upper, edges[x + 1]) - max(lower, edges[x]), 0.0)
    return joint


def test_the_criterion_sees_one_key_used_by_policy_and_environment() -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", HORIZON)
    probs = np.asarray(jax.nn.softmax(logits))
    joint = overlap(mdp, probs)
    np.testing.assert_allclose(joint.sum(-1), probs)  # each action comes as often as it should
    state, after, action = np.argmax(batch.obs, -1), np.argmax(batch.next_obs, -1), np.asarray(batch.action)
    independent = np.prod((probs[:, :, None] * np.asarray(mdp.transition))[state, action, after], axis=0)
    np.testing.assert_allclose(independent, weights, rtol=1e-12)
    shared = jnp.asarray(np.prod(joint[state, action, after], axis=0))
    np.testing.assert_allclose(shared.sum(), 1.0)
    grads = contributions(RIGHT["reinforce"], logits, batch)
    truth = tabular.gradient(mdp, logits, HORIZON)
    assert miss(grads, weights, truth) < TOLERANCE
    assert miss(grads, shared, truth) > 1e-2


# --- several samples at once ------------------------------------------------------------------------------------------

GROUP = 3
GROUP_BASELINES = {
    "right": pg.leave_one_out,
    "a mean with the own sample": pg.batch_mean,
    "the greatest of all": lambda g: jnp.broadcast_to(g.max(-1, keepdims=True), g.shape),
    "standardised": lambda g: g - pg.standardize(g),
    "the own sample twice": lambda g: (g.sum(-1, keepdims=True) - g) / GROUP - g / GROUP,
}


@pytest.mark.parametrize("name", GROUP_BASELINES)
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_the_criterion_sees_baselines_that_see_their_own_sample(name: str, reduce: str) -> None:
    mdp, logits, batch, weights = every_trajectory("two_state", 1)
    groups, group_weights = exact.groups(weights, GROUP)

    def estimate(group: Any) -> Any:
        one = jax.tree.map(lambda x: x[:, group], batch)
        grads, _ = pg.reinforce(logits, one, policy=policy, discount=GAMMA, baseline=GROUP_BASELINES[name])
        return grads * (GROUP if reduce == "sum" else 1)

    distance = miss(jax.vmap(estimate)(groups), group_weights, tabular.gradient(mdp, logits, 1))
    assert distance < TOLERANCE if (name, reduce) == ("right", "mean") else distance > 1e-3
