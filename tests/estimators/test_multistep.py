"""n-step and upgoing actor-critics: their exact means by dynamic programming, and loops over windows with ends."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
import tabular
from tabular import every_trajectory, mean, miss, policy, random_window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
PARAMS = {"actor": np.random.default_rng(11).normal(size=(3, 2)), "critic": np.array([0.4, -0.3, 0.8])}


def actor(params: Any, obs: Any) -> Any:
    return policy(params["actor"], obs)


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


SHARED = {"policy": actor, "value": value, "discount": 0.9}


def cut_window(name: str, horizon: int) -> Any:
    """All windows of a process that goes on: the last step is a cut, not an end."""
    mdp, logits, batch, weights = every_trajectory(name, horizon)
    return mdp, logits, batch.replace(terminated=batch.truncated, truncated=batch.terminated), weights


def actor_part(estimator: Any, logits: Any, critic: Any, batch: Any, mdp: Any, **kwargs: Any) -> Any:
    grads, _ = estimator.per_trajectory(
        {"actor": logits, "critic": critic}, batch, policy=actor, value=value, discount=mdp.discount, value_coef=0.0,
        step_weight=tabular.weight(batch, mdp), **kwargs,
    )  # fmt: skip
    return grads["actor"]


def pulled(mdp: Any, logits: Any, targets: list[Any]) -> np.ndarray:
    """Σ_t γ^t Pr(s_t) Σ_a ∇π(a|s) target_t(s, a), for tables target_t [S, A]."""
    probs, mass, total = np.asarray(jax.nn.softmax(logits)), np.asarray(mdp.initial), np.zeros(logits.shape)
    for t, target in enumerate(targets):
        total += float(mdp.discount) ** t * mass[:, None] * probs * (target - (probs * target).sum(1, keepdims=True))
        mass = np.einsum("s,sa,sax->x", mass, probs, mdp.transition)
    return total


def n_step_tables(mdp: Any, logits: Any, v: Any, horizon: int, n: int) -> list[Any]:
    """E[G | s_t, a_t]: powers of the transition matrix, and the value after min(n, steps to the cut) of them."""
    probs, gamma = np.asarray(jax.nn.softmax(logits)), float(mdp.discount)
    chain, follow = np.einsum("sa,sax->sx", probs, mdp.transition), (probs * mdp.reward).sum(1)
    tables = []
    for t in range(horizon):
        after = np.asarray(v)
        for _ in range(min(n, horizon - t) - 1):
            after = follow + gamma * chain @ after
        tables.append(np.asarray(mdp.reward) + gamma * np.asarray(mdp.transition) @ after)
    return tables


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_the_mean_of_the_n_step_gradient_is_that_of_powers_of_the_transition_matrix(n: int) -> None:
    mdp, logits, batch, weights = cut_window("three_state", 3)
    v = np.array([0.5, -1.0, 2.0])
    got = actor_part(pg.n_step_actor_critic, logits, v, batch, mdp, n=n)
    assert miss(got, weights, pulled(mdp, logits, n_step_tables(mdp, logits, v, 3, n))) < 1e-12
    assert miss(got, weights, pulled(mdp, logits, n_step_tables(mdp, logits, v, 3, 1 if n > 1 else 2))) > 1e-3
    # With the value of the policy it is the gradient of the first steps for every n, with a wrong one it is not.
    exact_v = np.linalg.solve(
        np.eye(3) - float(mdp.discount) * np.einsum("sa,sax->sx", jax.nn.softmax(logits), mdp.transition),
        (jax.nn.softmax(logits) * mdp.reward).sum(1),
    )
    truth = pulled(mdp, logits, [np.asarray(mdp.reward) + float(mdp.discount) * mdp.transition @ exact_v] * 3)
    assert miss(actor_part(pg.n_step_actor_critic, logits, exact_v, batch, mdp, n=n), weights, truth) < 1e-12
    assert miss(got, weights, truth) > 1e-3


def test_whole_episodes_with_large_n_are_unbiased_for_any_value() -> None:
    mdp, logits, batch, weights = every_trajectory("three_state", 3)
    truth, v = tabular.gradient(mdp, logits, 3), np.array([0.5, -1.0, 2.0])
    assert miss(actor_part(pg.n_step_actor_critic, logits, v, batch, mdp, n=3), weights, truth) < 1e-12
    assert miss(actor_part(pg.n_step_actor_critic, logits, v, batch, mdp, n=2), weights, truth) > 1e-3


def test_one_step_the_window_and_the_mixture_are_actor_critics() -> None:
    batch = random_window(0, 4)
    kwargs = {**SHARED, "value_coef": 0.7, "entropy_coef": 0.1}
    steps = [pg.n_step_actor_critic(PARAMS, batch, **kwargs, n=n)[0] for n in range(1, 8)]
    for n, lam in ((1, 0.0), (7, 1.0)):
        jax.tree.map(close, steps[n - 1], pg.actor_critic(PARAMS, batch, **kwargs, lam=lam)[0])
    shares = [0.4 * 0.6 ** (n - 1) for n in range(1, 7)] + [0.6**6]
    mixture = jax.tree.map(lambda *g: sum(s * x for s, x in zip(shares, g, strict=True)), *steps)
    jax.tree.map(close, mixture, pg.actor_critic(PARAMS, batch, **kwargs, lam=0.6)[0])
    assert np.abs(steps[1]["actor"] - steps[2]["actor"]).max() > 1e-3


def upgo_tables(mdp: Any, logits: Any, v: Any, horizon: int) -> list[Any]:
    """E[G | s_t, a_t], by recursion over (state, action, next state): whether it goes up is known from the three."""
    probs, gamma, v = np.asarray(jax.nn.softmax(logits)), float(mdp.discount), np.asarray(v)
    reward, transition = np.asarray(mdp.reward), np.asarray(mdp.transition)
    one_step = reward[:, :, None] + gamma * v[None, None, :]  # q(s, a, s')
    later, tables = one_step, []  # E[G | s, a, s'] one step on; the last row of a window is cut
    for t in reversed(range(horizon)):
        if t < horizon - 1:
            up = one_step >= v[:, None, None]
            followed = np.einsum("xa,xay,xay->x", probs, transition, np.where(up, later, v[:, None, None]))
            later = reward[:, :, None] + gamma * followed[None, None, :]
        tables.append((transition * later).sum(2))
    return tables[::-1]


@pytest.mark.parametrize("name", ["two_state", "three_state"])
def test_the_mean_of_the_upgoing_gradient_is_that_of_a_recursion_and_its_bias_goes_up(name: str) -> None:
    mdp, logits, batch, weights = cut_window(name, 3)
    probs = jax.nn.softmax(logits)
    chain = np.einsum("sa,sax->sx", probs, mdp.transition)
    exact_v = np.linalg.solve(np.eye(len(chain)) - float(mdp.discount) * chain, (probs * mdp.reward).sum(1))
    for v in (exact_v, exact_v + np.linspace(-0.5, 0.5, len(chain))):
        tables = upgo_tables(mdp, logits, v, 3)
        got = actor_part(pg.upgo_actor_critic, logits, v, batch, mdp)
        assert miss(got, weights, pulled(mdp, logits, tables)) < 1e-12
    unbiased = np.asarray(mdp.reward) + float(mdp.discount) * np.asarray(mdp.transition) @ exact_v
    tables = upgo_tables(mdp, logits, exact_v, 3)
    assert (tables[0] > unbiased + 1e-3).all()
    assert miss(actor_part(pg.upgo_actor_critic, logits, exact_v, batch, mdp), weights,
                pulled(mdp, logits, [unbiased] * 3)) > 1e-3  # fmt: skip


def test_identity_35_upgoing_between_its_extremes() -> None:
    """A value that says -∞ is always beaten, one that says ∞ never; numbers far off stand for both."""
    batch = random_window(3, 5)
    for constant, lam in ((-100.0, 1.0), (100.0, 0.0)):
        params = {**PARAMS, "critic": np.full(3, constant)}
        got, info = pg.upgo_actor_critic(params, batch, **SHARED, lam=0.8, value_coef=0.3)
        want, _ = pg.actor_critic(params, batch, **SHARED, lam=lam, value_coef=0.3)
        other, _ = pg.actor_critic(params, batch, **SHARED, lam=1.0 - lam, value_coef=0.3)
        np.testing.assert_allclose(got["actor"], want["actor"], rtol=1e-10, atol=1e-10)
        assert np.abs(got["actor"] - other["actor"]).max() > 0.1
        assert not np.allclose(info.targets["advantage"], info.targets["value_target"] - constant)


def upgo_by_loops(batch: Any, v: Any, next_v: Any, gamma: float) -> np.ndarray:
    reward, done = np.asarray(batch.reward), np.asarray(batch.done)
    ends, result = np.asarray(batch.terminated), np.zeros(batch.reward.shape)
    for b in range(reward.shape[1]):
        for t in range(len(reward)):
            total, weight, k = 0.0, 1.0, t
            while True:
                total += weight * reward[k, b]
                weight *= gamma
                if ends[k, b]:
                    break
                last = done[k, b] or k + 1 == len(reward)
                if last or reward[k + 1, b] + gamma * (0.0 if ends[k + 1, b] else next_v[k + 1, b]) < v[k + 1, b]:
                    total += weight * next_v[k, b]
                    break
                k += 1
            result[t, b] = total
    return result


def test_upgoing_windows_with_ends_agree_with_loops_and_the_critic_learns_the_lam_return() -> None:
    batch = random_window(5, 6)
    random = np.random.default_rng(6)
    shift = random.normal(size=batch.reward.shape)
    batch = batch.replace(log_prob=actor(PARAMS, batch.obs).log_prob(batch.action) - shift)
    mask, weight = random.random(batch.reward.shape) < 0.7, random.random(batch.reward.shape)
    inside = ~np.asarray(batch.done)[:-1, :, None]  # there next_obs is the observation of the next row
    batch = batch.replace(next_obs=batch.next_obs.at[:-1].set(np.where(inside, batch.obs[1:], batch.next_obs[:-1])))
    v, next_v = (np.asarray(x) @ PARAMS["critic"] for x in (batch.obs, batch.next_obs))
    returns = upgo_by_loops(batch, v, next_v, 0.9)
    assert ((returns != batch.reward + 0.9 * np.where(batch.terminated, 0.0, next_v)).mean()) > 0.2
    score = np.eye(2)[batch.action] - np.asarray(jax.nn.softmax(batch.obs @ PARAMS["actor"]))
    for clip, ratio in ((None, 1.0), (1.3, np.minimum(np.exp(shift), 1.3))):
        got, info = pg.upgo_actor_critic(
            PARAMS, batch, **SHARED, lam=0.8, clip_pg_rho=clip, step_weight=weight, mask=mask, value_coef=0.7
        )
        close(info.targets["advantage"], returns - v)
        scale = mask * weight * ratio * (returns - v)
        close(got["actor"], -np.einsum("tb,tbs,tba->sa", scale, batch.obs, score) / 6)
        target = pg.lambda_returns(
            batch.reward, next_v, terminated=batch.terminated, truncated=batch.truncated, discount=0.9, lam=0.8
        )
        close(info.targets["value_target"], target)
        close(got["critic"], 0.7 * np.einsum("tb,tbs->s", mask * (v - target), batch.obs) / 6)


def test_bad_arguments_are_named() -> None:
    batch = random_window(0, 4)
    with pytest.raises(ValueError, match=r"^n must be at least 1, got 0"):
        pg.n_step_actor_critic(PARAMS, batch, **SHARED, n=0)
    with pytest.raises(TypeError, match=r"^n must be a Python int"):
        pg.n_step_actor_critic(PARAMS, batch, **SHARED, n=2.0)
    with pytest.raises(ValueError, match=r"^lam must lie in \[0, 1\], got 1.5"):
        pg.upgo_actor_critic(PARAMS, batch, **SHARED, lam=1.5)


def test_identity_38_columns_permute_and_splits_of_the_batch_add_up() -> None:
    batch = random_window(8, 6)
    order = np.random.default_rng(9).permutation(6)
    take = lambda index: jax.tree.map(lambda x: x[:, index], batch)  # noqa: E731
    for estimator, kwargs in ((pg.n_step_actor_critic, {"n": 3}), (pg.upgo_actor_critic, {"lam": 0.7})):
        each = estimator.per_trajectory(PARAMS, batch, **SHARED, **kwargs)[0]
        mixed = estimator.per_trajectory(PARAMS, take(order), **SHARED, **kwargs)[0]
        jax.tree.map(lambda x, y: close(x[order], y), each, mixed)
        whole, _ = estimator(PARAMS, batch, **SHARED, **kwargs)
        (left, _), (right, _) = (estimator(PARAMS, take(np.arange(*ab)), **SHARED, **kwargs) for ab in ((0, 2), (2, 6)))
        jax.tree.map(lambda w, x, y: close(w, (2 * x + 4 * y) / 6), whole, left, right)
    assert mean(each["critic"], np.full(6, 1 / 6)).shape == (3,)
