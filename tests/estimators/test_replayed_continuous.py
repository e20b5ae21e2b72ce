"""ACER for continuous actions: against loops, and what it comes down to on own data."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as special

import pgjax as pg
from pgjax.distributions import draw_noise

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
STEPS, ENVS, STATES, SIZE, DRAWS, DISCOUNT, LAM = 5, 4, 3, 2, 3, 0.8, 0.7
LOW, HIGH = np.array([-2.0, -1.0]), np.array([2.0, 3.0])
HALF = 0.5 * (HIGH - LOW)


# --- against loops ----------------------------------------------------------------------------------------------------


def normal(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(obs @ params["first"], jnp.exp(obs @ params["second"]))


def normal_of_one_scale(params: Any, obs: Any) -> pg.Normal:
    return pg.Normal(obs @ params["first"], jnp.exp(params["second"]))


def squashed(params: Any, obs: Any) -> pg.TanhNormal:
    return pg.TanhNormal(obs @ params["first"], jnp.exp(obs @ params["second"]), jnp.asarray(LOW), jnp.asarray(HIGH))


def beta(params: Any, obs: Any) -> pg.Beta:
    alpha, beta = (1 + jax.nn.softplus(obs @ params[name]) for name in ("first", "second"))
    return pg.Beta(alpha, beta, jnp.asarray(LOW), jnp.asarray(HIGH))


POLICIES = {"normal": normal, "one scale": normal_of_one_scale, "squashed": squashed, "beta": beta}


def value(params: Any, obs: Any) -> jax.Array:
    return obs @ params["value"]


def features(action: Any) -> list[Any]:
    """The last one is constant: what A has of it must not matter."""
    a, b = action[..., 0], action[..., 1]
    return [a, b, a**2, a * b, 0 * a + 1]


def critic(params: Any, obs: Any, action: Any) -> jax.Array:
    return jnp.sum(obs @ params["critic"] * jnp.stack(features(action), -1), -1)


def log_density(kind: str, statistics: np.ndarray, action: np.ndarray) -> float:
    """Of an action, before squashing where it is squashed, given (first, second) [2, D]."""
    first, second = statistics
    if kind == "beta":
        x = (action - LOW) / (HIGH - LOW)
        each = (first - 1) * np.log(x) + (second - 1) * np.log(1 - x) - special.betaln(first, second)
        return float(np.sum(each - np.log(HIGH - LOW)))
    each = -0.5 * ((action - first) / second) ** 2 - np.log(second) - 0.5 * np.log(2 * np.pi)
    if kind == "squashed":
        each = each - np.log(HALF / np.cosh(action) ** 2)
    return float(each.sum())


def entropy_of(kind: str, statistics: np.ndarray) -> float:
    first, second = statistics
    if kind == "beta":
        both = first + second
        each = special.betaln(first, second) - (first - 1) * special.digamma(first)
        each += -(second - 1) * special.digamma(second) + (both - 2) * special.digamma(both) + np.log(HIGH - LOW)
        return float(each.sum())
    each = np.log(second) + 0.5 * np.log(2 * np.pi * np.e)
    if kind == "squashed":
        nodes = np.linspace(-9, 9, 400)[:, None]
        weights = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
        each = each + np.sum(weights * np.log(HALF / np.cosh(first + second * nodes) ** 2), 0)
    return float(each.sum())


def divergence(kind: str, old: np.ndarray, new: np.ndarray) -> float:
    if kind == "beta":
        (a, b), (c, d) = old, new
        each = special.betaln(c, d) - special.betaln(a, b) + (a - c) * special.digamma(a) + (b - d) * special.digamma(b)
        return float(np.sum(each + (c - a + d - b) * special.digamma(a + b)))
    apart = old[1] ** 2 + (old[0] - new[0]) ** 2
    return float(np.sum(np.log(new[1] / old[1]) + apart / (2 * new[1] ** 2) - 0.5))


def slopes(f: Any, at: np.ndarray) -> np.ndarray:
    """The gradient of f by central differences."""
    result = np.zeros_like(at)
    for i in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[i] = 1e-5
        result[i] = (f(at + step) - f(at - step)) / 2e-5
    return result


def some_params(seed: int, kind: str) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    second = random.normal(size=SIZE if kind == "one scale" else (STATES, SIZE))
    return {
        "first": jnp.asarray(0.5 * random.normal(size=(STATES, SIZE))),
        "second": jnp.asarray(0.3 * second - 0.3),
        "value": jnp.asarray(random.normal(size=STATES)),
        "critic": jnp.asarray(random.normal(size=(STATES, 5))),
    }


@functools.cache
def some_window(kind: str) -> tuple[Any, ...]:
    """(parameters, averaged ones, window of a third policy with both kinds of end, its distribution, noise)."""
    policy, random = POLICIES[kind], np.random.default_rng(0)
    params, average, other = (some_params(seed, kind) for seed in (1, 2, 3))
    obs, next_obs = (np.eye(STATES)[random.integers(STATES, size=(STEPS, ENVS))] for _ in range(2))
    ends = random.random((2, STEPS, ENVS)) < 0.2
    next_obs[:-1] = np.where((ends[0] | ends[1])[:-1, :, None], next_obs[:-1], obs[1:])
    behaviour = policy(other, jnp.asarray(obs))
    action, raw, log_prob = pg.distributions.sample_action(behaviour, jax.random.key(5))
    step, reward = np.zeros((STEPS, ENVS), np.int32), random.normal(size=(STEPS, ENVS))
    fields: Any = (obs, action, reward, next_obs, *ends, log_prob, step)
    window = pg.Trajectory(*(jnp.asarray(x) for x in fields)).replace(raw_action=raw)
    noise = draw_noise(policy(params, window.obs), jax.random.key(6), num_draws=1 + DRAWS)
    return params, average, window, behaviour, noise


def statistics_in(kind: str, params: Any, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first, second) [2, D] in one state, and their slopes along what the parameters give."""
    first, second = np.asarray(obs @ params["first"]), np.asarray(params["second"])
    second = second if kind == "one scale" else obs @ second
    if kind == "beta":
        return np.array([1 + np.log1p(np.exp(x)) for x in (first, second)]), special.expit(np.array([first, second]))
    return np.array([first, np.exp(second)]), np.array([np.ones(SIZE), np.exp(second)])


def by_loops(kind: str, clip_rho: float, bound: float, entropy_coef: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradient and what was seen, step by step."""
    params, average, window, behaviour, noise = some_window(kind)
    distribution = POLICIES[kind](params, window.obs)
    drawn, raw, _ = pg.distributions.action_from_noise(distribution, noise)
    drawn, raw = (np.asarray(drawn if x is None else x) for x in (drawn, raw))
    t = jax.tree.map(np.asarray, window)
    densest = t.action if t.raw_action is None else t.raw_action
    params, average = (jax.tree.map(np.asarray, x) for x in (params, average))
    judge = lambda s, b, a: t.obs[s, b] @ params["critic"] @ np.array(features(a))  # noqa: E731
    seen: dict[str, Any] = {
        name: np.zeros((STEPS, ENVS))
        for name in ("q", "opc", "ret", "policy_loss", "action_value_loss", "value_loss", "entropy", "kl")
    }
    seen |= {"projected_fraction": np.zeros((STEPS, ENVS)), "direction": np.zeros((STEPS, ENVS, 2, SIZE))}
    seen |= {"slack": np.zeros((STEPS, ENVS)), "free": np.zeros((STEPS, ENVS, 2, SIZE))}
    grads = {name: np.zeros_like(x) for name, x in params.items()}
    for b in range(ENVS):
        opc = ret = None  # what the next step of the same episode hands on: (target - Q) times its trace
        for s in reversed(range(STEPS)):
            phi, slope = statistics_in(kind, params, t.obs[s, b])
            old, _ = statistics_in(kind, average, t.obs[s, b])
            mu = np.array([np.asarray(x[s, b]) for x in fields_of(behaviour)])
            v = t.obs[s, b] @ params["value"]
            mean = np.mean([judge(s, b, drawn[i, s, b]) for i in range(1, 1 + DRAWS)])
            q, anew = (v + judge(s, b, a) - mean for a in (t.action[s, b], drawn[0, s, b]))
            ahead = 0.0 if t.terminated[s, b] else t.next_obs[s, b] @ params["value"]
            goes_on = s + 1 < STEPS and not (t.terminated[s, b] or t.truncated[s, b])
            of_opc = t.reward[s, b] + DISCOUNT * (ahead + (opc if goes_on else 0.0))
            of_ret = t.reward[s, b] + DISCOUNT * (ahead + (ret if goes_on else 0.0))
            rho = np.exp(log_density(kind, phi, densest[s, b]) - t.log_prob[s, b])
            anew_rho = np.exp(log_density(kind, phi, raw[0, s, b]) - log_density(kind, mu, raw[0, s, b]))
            opc, ret = LAM * (of_opc - q), LAM * min(1.0, rho ** (1 / SIZE)) * (of_ret - q)

            weight, correction = min(clip_rho, rho) * (of_opc - v), max(0.0, 1 - clip_rho / anew_rho) * (anew - v)
            score = lambda x: (  # noqa: E731
                weight * log_density(kind, x, densest[s, b]) + correction * log_density(kind, x, raw[0, s, b])  # noqa: B023
            )
            g = slopes(lambda x: score(x) + entropy_coef * entropy_of(kind, x), phi)  # noqa: B023
            k = slopes(lambda x: divergence(kind, old, x), phi)  # noqa: B023
            over = np.sum(k * g) - bound
            z = g - max(0.0, over) / np.sum(k * k) * k
            seen["free"][s, b], seen["direction"][s, b], seen["slack"][s, b] = g, z, np.sum(k * z) - bound
            along = z * slope
            for name, x in zip(("first", "second"), along, strict=True):
                grads[name] -= (x if grads[name].ndim == 1 else np.outer(t.obs[s, b], x)) / ENVS
            centred = np.array(features(t.action[s, b])) - np.mean(
                [features(drawn[i, s, b]) for i in range(1, 1 + DRAWS)], 0
            )
            grads["critic"] += 0.5 * (q - of_ret) * np.outer(t.obs[s, b], centred) / ENVS
            pull = (q - of_ret) + min(1.0, rho) * (q - of_ret)  # as part of Q, and towards the target of its own
            grads["value"] += 0.5 * pull * t.obs[s, b] / ENVS
            found = (q, of_opc, of_ret, -score(phi), 0.5 * (q - of_ret) ** 2)
            found += (0.5 * (min(1.0, rho) * (of_ret - q)) ** 2, entropy_of(kind, phi), divergence(kind, old, phi))
            names = ("q", "opc", "ret", "policy_loss", "action_value_loss", "value_loss", "entropy", "kl")
            for name, x in zip((*names, "projected_fraction"), (*found, over > 0), strict=True):
                seen[name][s, b] = x
    return grads, seen


def fields_of(distribution: Any) -> tuple[Any, Any]:
    if isinstance(distribution, pg.Beta):
        return distribution.alpha, distribution.beta
    return distribution.loc, distribution.scale


@pytest.mark.parametrize("kind", POLICIES)
def test_gradient_targets_and_metrics_are_those_of_loops(kind: str) -> None:
    """With ratios above and below both bounds, and with neither truncation nor trust region."""
    params, average, window, behaviour, noise = some_window(kind)
    for clip_rho, bound, entropy_coef in ((0.6, 0.05, 0.3), (np.inf, np.inf, 0.0)):
        grads, info = pg.acer_continuous(
            params, window, policy=POLICIES[kind], value=value, critic=critic, behaviour=behaviour, noise=noise,
            average_params=average, discount=DISCOUNT, lam=LAM, clip_rho=clip_rho, max_divergence=bound,
            entropy_coef=entropy_coef,
        )  # fmt: skip
        wanted, seen = by_loops(kind, clip_rho, bound, entropy_coef)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-7)
        for name in wanted:
            close(grads[name], wanted[name], err_msg=name)
        for name, other in (("action_value", "q"), ("opc_target", "opc"), ("action_value_target", "ret")):
            close(info.targets[name], seen[other], err_msg=name)
        direction = np.stack(list(info.targets["direction"].values()), -2)
        close(direction, seen["direction"])
        for name in ("policy_loss", "action_value_loss", "value_loss", "entropy", "kl", "projected_fraction"):
            close(info.metrics[name], seen[name].mean(), err_msg=name)
        held = seen["projected_fraction"] == 1
        if np.isfinite(bound):  # active: the bound holds with equality; inactive: nothing is touched
            assert 0 < held.sum() < held.size
            np.testing.assert_allclose(seen["slack"][held], 0.0, atol=1e-9)
            close(direction[~held], seen["free"][~held])
            assert np.abs(direction[held] - seen["free"][held]).max() > 1e-3
        else:
            close(direction, seen["free"])
        np.testing.assert_allclose(np.asarray(grads["critic"])[:, -1], 0.0, atol=1e-12)  # a constant in A


# --- what it comes down to --------------------------------------------------------------------------------------------


def test_on_own_data_without_a_critic_it_is_an_actor_critic_with_whole_returns() -> None:
    """Both losses of the critic are then that of the value: its gradient is twice as long."""
    params, average, window, _, noise = some_window("normal")
    params = params | {"critic": jnp.zeros((STATES, 5))}
    own = normal(params, window.obs)
    window = window.replace(log_prob=own.log_prob(window.action))
    grads, info = pg.acer_continuous(
        params, window, policy=normal, value=value, critic=critic, behaviour=own, noise=noise,
        average_params=average, discount=DISCOUNT, clip_rho=1.0, max_divergence=np.inf,
    )  # fmt: skip
    wanted, _ = pg.actor_critic(
        params, window, policy=normal, value=value, discount=DISCOUNT, lam=1.0, value_coef=0.5, entropy_coef=None
    )
    np.testing.assert_allclose(grads["first"], wanted["first"], atol=1e-12)
    np.testing.assert_allclose(grads["second"], wanted["second"], atol=1e-12)
    np.testing.assert_allclose(grads["value"], 2 * wanted["value"], atol=1e-12)
    np.testing.assert_allclose(info.targets["opc_target"], info.targets["action_value_target"], atol=1e-12)


def test_what_it_needs_is_asked_for_by_name() -> None:
    params, _, window, behaviour, noise = some_window("normal")
    options = {"policy": normal, "value": value, "critic": critic, "behaviour": behaviour, "noise": noise}
    options["discount"] = DISCOUNT
    categorical = lambda params, obs: pg.Categorical(obs @ params["first"])  # noqa: E731
    for change, error, message in (
        ({"policy": categorical}, TypeError, "what policy returns must be a Normal, TanhNormal or Beta, got Categoric"),
        ({"noise": noise[:1]}, ValueError, r"noise must hold at least two draws, \[M, T, B, ...\] with M = 1 \+ n"),
        ({"noise": None}, ValueError, "noise must hold at least two draws"),
        ({"behaviour": normal(params, window.obs[:, :2])}, ValueError, "action must end with the shape"),
        ({"critic": lambda params, obs, action: action}, ValueError, "the result of critic must have the shape of"),
        ({"discount": 1.5}, ValueError, "discount"),
    ):
        with pytest.raises(error, match=message):
            pg.acer_continuous(params, window, **options | change)
