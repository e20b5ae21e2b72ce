"""Eligibility traces: what looks back equals what looks ahead, offline and, with dutch traces, after every step."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)
T, B, D = 12, 3, 4
DISCOUNT, LAM, STEP = 0.9, 0.8, 0.1


@functools.cache
def window() -> dict[str, Any]:
    """Twelve steps of three environments with ends of both kinds, and gradients that are a tree of two leaves."""
    random = np.random.default_rng(5)
    terminated, truncated = np.zeros((2, T, B), bool)
    terminated[4, 0] = terminated[7, 2] = truncated[5, 1] = truncated[2, 2] = truncated[9, 1] = True
    return {
        "reward": random.normal(size=(T, B)),
        "x": random.normal(size=(T, B, D)),
        "next_x": random.normal(size=(T, B, D)),  # where an episode was cut; elsewhere that of the next row
        "terminated": terminated,
        "truncated": truncated,
        "w": random.normal(size=D),
    }


def led_to(d: dict[str, Any]) -> np.ndarray:
    """Features of what each step led to, before any reset."""
    done = d["terminated"] | d["truncated"]
    after = np.concatenate([d["x"][1:], d["next_x"][-1:]])
    return np.where(done[..., None], d["next_x"], after)


def backwards(tree: Any, td_error: np.ndarray, done: np.ndarray) -> Any:
    """Σ_t δ_t z_t of each environment, with traces that start anew behind `done`."""
    start = np.concatenate([np.ones((1, B), bool), done[:-1]])

    def body(trace: Any, row: Any) -> Any:
        gradient, error, starts = row
        trace = pg.accumulating_trace(trace, gradient, decay=jnp.where(starts, 0.0, DISCOUNT * LAM))
        return trace, pg.trace_gradient(trace, gradient, td_error=error)

    empty = jax.tree.map(lambda x: jnp.full(x.shape[1:], jnp.nan), tree)  # nothing of it may come in
    descent = jax.jit(lambda *rows: jax.lax.scan(body, empty, rows)[1])(tree, td_error, start)
    return jax.tree.map(lambda x: -np.asarray(x).sum(0), descent)


def test_backward_view_traces_equal_forward_view_returns_offline() -> None:
    """Σ δ z = Σ (G - V) g for any gradients g, of an actor or a critic; truncated episodes are bootstrapped first."""
    d = window()
    random = np.random.default_rng(6)
    tree = {"a": random.normal(size=(T, B, 2, 3)), "b": random.normal(size=(T, B))}
    value, next_value = d["x"] @ d["w"], led_to(d) @ d["w"]
    ends = {"terminated": d["terminated"], "truncated": d["truncated"]}
    returns = pg.lambda_returns(d["reward"], next_value, **ends, discount=DISCOUNT, lam=LAM)
    forward = jax.tree.map(lambda g: np.einsum("tb...,tb->b...", g, np.asarray(returns) - value), tree)
    error = d["reward"] + DISCOUNT * np.where(d["terminated"], 0.0, next_value) - value
    done = d["terminated"] | d["truncated"]
    jax.tree.map(close, backwards(tree, error, done), forward)
    for wrong in (d["terminated"], d["truncated"]):  # a trace that one kind of end does not cut
        assert np.abs(backwards(tree, error, wrong)["a"] - forward["a"]).max() > 0.1
    ended = d["reward"] + DISCOUNT * np.where(done, 0.0, next_value) - value  # a truncation as a termination
    assert np.abs(backwards(tree, ended, done)["a"] - forward["a"]).max() > 0.1


def online_lambda_returns(rewards: Any, features: Any, last: Any, w: np.ndarray) -> list[np.ndarray]:
    """The online λ-return algorithm on one episode: all updates done again at each step, O(T²), from its definition.

    rewards [T], features [T, D] of the observations, last [D] of what the last step led to, 0 where it terminated.
    """
    x = [*features, last]
    weights = [w]  # weights[k]: after k steps; values of step k + 1 are by weights[k]
    for horizon in range(1, len(rewards) + 1):
        now = w.copy()
        for t in range(horizon):
            target, earned = 0.0, 0.0
            for n in range(1, horizon - t + 1):
                earned += DISCOUNT ** (n - 1) * rewards[t + n - 1]
                n_step = earned + DISCOUNT**n * (x[t + n] @ weights[t + n - 1])
                share = LAM ** (n - 1) * (1.0 if n == horizon - t else 1 - LAM)
                target += share * n_step
            now = now + STEP * (target - now @ x[t]) * x[t]
        weights.append(now)
    return weights[1:]


def true_online(d: dict[str, Any], b: int, *, dutch: bool = True, change: bool = True) -> list[np.ndarray]:
    """The weights of a linear critic after each step of one environment, by traces; across the ends of episodes."""
    w, trace, expected, out = d["w"], jnp.zeros(D), 7.0, []  # at the start of an episode any expectation will do
    following, start = led_to(d), True
    for t in range(T):
        x, value, next_value = d["x"][t, b], d["x"][t, b] @ w, following[t, b] @ w
        error = d["reward"][t, b] + (0.0 if d["terminated"][t, b] else DISCOUNT * next_value) - value
        decay = 0.0 if start else DISCOUNT * LAM
        if dutch:
            trace = pg.dutch_trace(trace, x, decay=decay, step_size=STEP)
        else:
            trace = pg.accumulating_trace(trace, x, decay=decay)
        moved = value - expected if change else 0.0
        w = w - STEP * np.asarray(pg.trace_gradient(trace, x, td_error=error, value_change=moved))
        expected, start = next_value, d["terminated"][t, b] or d["truncated"][t, b]
        out.append(w)
    return out


def forward(d: dict[str, Any], b: int) -> list[np.ndarray]:
    """The same by the online λ-return algorithm, episode by episode."""
    w, out, first, following = d["w"], [], 0, led_to(d)
    for t in range(T):
        if d["terminated"][t, b] or d["truncated"][t, b] or t == T - 1:
            rows = slice(first, t + 1)
            last = np.zeros(D) if d["terminated"][t, b] else following[t, b]
            out += online_lambda_returns(d["reward"][rows, b], d["x"][rows, b], last, w)
            w, first = out[-1], t + 1
    return out


@pytest.mark.parametrize("b", range(B))
def test_dutch_traces_are_the_online_lambda_return_algorithm_after_every_step(b: int) -> None:
    d = window()
    expected = forward(d, b)
    close(true_online(d, b), expected)
    for wrong in ({"dutch": False, "change": False}, {"dutch": False}, {"change": False}):
        assert np.abs(np.array(true_online(d, b, **wrong)) - expected).max() > 1e-3


def test_a_dutch_trace_without_step_size_accumulates_and_each_environment_has_its_own_product() -> None:
    random = np.random.default_rng(7)
    trace, gradient = ({"a": random.normal(size=(B, 2, 2)), "b": random.normal(size=B)} for _ in range(2))
    decay = random.uniform(size=B)
    plain = pg.accumulating_trace(trace, gradient, decay=decay)
    jax.tree.map(close, pg.dutch_trace(trace, gradient, decay=decay, step_size=0.0), plain)
    step = random.uniform(size=B)
    got = pg.dutch_trace(trace, gradient, decay=decay, step_size=step)
    for b in range(B):
        inner = np.sum(trace["a"][b] * gradient["a"][b]) + trace["b"][b] * gradient["b"][b]
        for name in trace:
            share = 1 - step[b] * decay[b] * inner
            close(got[name][b], decay[b] * trace[name][b] + share * gradient[name][b])


def test_scores_and_slopes_are_those_of_each_trajectory() -> None:
    """Against the gradients of actor and critic in closed form; the whole window and the sum of its rows agree."""
    random = np.random.default_rng(8)
    obs, action = random.normal(size=(2, B, D)), random.integers(3, size=(2, B))
    no = np.zeros((2, B), bool)
    zero = np.zeros((2, B))
    window = pg.Trajectory(obs, action, zero, obs, no, no, zero, np.zeros((2, B), int))
    params = {"actor": random.normal(size=(D, 3)), "critic": random.normal(size=D)}
    policy = lambda params, obs: pg.Categorical(obs @ params["actor"])  # noqa: E731
    value = lambda params, obs: jnp.square(obs @ params["critic"])  # noqa: E731
    scores, slopes = pg.scores_and_slopes(params, window, policy=policy, value=value)
    for b in range(B):
        score, slope = np.zeros((D, 3)), np.zeros(D)
        for t in range(2):
            p = np.exp(obs[t, b] @ params["actor"])
            score += np.outer(obs[t, b], np.eye(3)[action[t, b]] - p / p.sum())
            slope += 2 * (obs[t, b] @ params["critic"]) * obs[t, b]
        close(scores["actor"][b], score)
        close(slopes["critic"][b], slope)
    close(scores["critic"], 0.0)
    close(slopes["actor"], 0.0)


def test_trees_and_axes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="gradient must have the tree structure of trace"):
        pg.accumulating_trace({"a": jnp.ones(2)}, jnp.ones(2), decay=0.5)
    with pytest.raises(ValueError, match="each leaf of trace must start with the shape of decay"):
        pg.dutch_trace(jnp.ones((2, 3)), jnp.ones((2, 3)), decay=jnp.ones(3), step_size=0.1)
    with pytest.raises(ValueError, match="gradient must have the shape of trace"):
        pg.trace_gradient(jnp.ones((2, 3)), jnp.ones((2, 1)), td_error=jnp.ones(2))
