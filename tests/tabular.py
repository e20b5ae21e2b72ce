"""Tiny processes with every trajectory listed, the exact gradient by backward recursion, and estimators as loops."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg
from pgjax import exact

PROBLEMS = [("two_state", 1), ("two_state", 2), ("two_state", 3), ("two_state", 5), ("three_state", 3)]


def problem(name: str) -> tuple[exact.TabularMDP, jax.Array]:
    """A process and logits [S, A]."""
    if name == "two_state":
        return exact.two_state(), exact.two_state_logits()
    random = np.random.default_rng(7)
    transition = random.dirichlet(np.ones(3), size=(3, 2))
    mdp = exact.TabularMDP(
        jnp.asarray(transition), jnp.asarray(random.normal(size=(3, 2))), jnp.asarray([0.5, 0.2, 0.3]), 0.8
    )
    return mdp, jnp.asarray(random.normal(size=(3, 2)))


def policy(logits: jax.Array, obs: jax.Array) -> pg.Categorical:
    return pg.Categorical(obs @ logits)


def every_trajectory(name: str, horizon: int) -> tuple[exact.TabularMDP, jax.Array, pg.Trajectory, jax.Array]:
    """The process, the logits, all trajectories of the horizon, and their probabilities."""
    mdp, logits = problem(name)
    return mdp, logits, *exact.trajectories(mdp, jax.nn.softmax(logits), horizon)


@functools.partial(jax.jit, static_argnames="horizon")
def objective(mdp: exact.TabularMDP, logits: jax.Array, horizon: int) -> jax.Array:
    """J of the first `horizon` steps, by backward recursion."""
    return mdp.initial @ values_over_time(mdp, logits, horizon)[0]


@functools.partial(jax.jit, static_argnames="horizon")
def values_over_time(mdp: exact.TabularMDP, logits: jax.Array, horizon: int) -> jax.Array:
    """V_t(s) with t steps gone, [H + 1, S]; 0 in the last row."""
    probs, value = jax.nn.softmax(logits), jnp.zeros(logits.shape[0])
    rows = [value]
    for _ in range(horizon):
        value = jnp.sum(probs * (mdp.reward + mdp.discount * mdp.transition @ value), axis=1)
        rows.append(value)
    return jnp.stack(rows[::-1])


@functools.partial(jax.jit, static_argnames="horizon")
def gradient(mdp: exact.TabularMDP, logits: jax.Array, horizon: int) -> jax.Array:
    return jax.grad(lambda logits: objective(mdp, logits, horizon))(logits)


def weight(batch: pg.Trajectory, mdp: exact.TabularMDP) -> jax.Array:
    return pg.discount_weight(batch.step, mdp.discount)


def mean(contributions: Any, weights: Any) -> np.ndarray:
    return np.tensordot(np.asarray(weights), np.asarray(contributions), 1)


def trace_of_covariance(contributions: Any, weights: Any) -> float:
    centred = np.asarray(contributions) - mean(contributions, weights)
    return float(np.asarray(weights) @ np.square(centred).reshape(len(centred), -1).sum(1))


def miss(contributions: Any, weights: Any, truth: Any) -> float:
    """How far the exact mean of a descent direction is from minus the exact gradient: the criterion of unbiasedness."""
    return float(np.abs(mean(contributions, weights) + np.asarray(truth)).max())


def random_window(seed: int, *batch: int, steps: int = 7, states: int = 3) -> pg.Trajectory:
    """A window that starts in the middle of episodes and holds several ends."""
    random = np.random.default_rng(seed)
    shape = (steps, *batch)
    terminated, truncated = random.random(shape) < 0.25, random.random(shape) < 0.15
    step = np.zeros(shape, np.int32)
    step[0] = random.integers(0, 4, size=batch)
    for t in range(1, steps):
        step[t] = np.where((terminated | truncated)[t - 1], 0, step[t - 1] + 1)
    return pg.Trajectory(
        obs=jnp.asarray(np.eye(states)[random.integers(states, size=shape)]),
        action=jnp.asarray(random.integers(2, size=shape), jnp.int32),
        reward=jnp.asarray(random.normal(size=shape)),
        next_obs=jnp.asarray(np.eye(states)[random.integers(states, size=shape)]),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        log_prob=jnp.zeros(shape),
        step=jnp.asarray(step),
    )


def episodes(batch: pg.Trajectory) -> list[list[int]]:
    """The rows of each episode of one column, [T] leaves."""
    parts: list[list[int]] = [[]]
    for t, done in enumerate(np.asarray(batch.terminated | batch.truncated)):
        parts[-1].append(t)
        if done:
            parts.append([])
    return [part for part in parts if part]


def by_loops(
    kind: str,
    batch: pg.Trajectory,
    logits: Any,
    discount: float,
    subtract: Callable[[int], float] = lambda t: 0.0,
    counts: Any = None,
) -> np.ndarray:
    """The descent direction that one column [T] contributes, as sums over its episodes; `subtract(t)` is a baseline."""
    obs, action, reward, step = (np.asarray(x) for x in (batch.obs, batch.action, batch.reward, batch.step))
    logits = np.asarray(logits)
    counts = np.ones(len(reward), bool) if counts is None else np.asarray(counts)
    total = np.zeros_like(logits)
    for rows in episodes(batch):
        for t in rows:
            if not counts[t]:
                continue
            probs = np.exp(obs[t] @ logits)
            score = np.outer(obs[t], np.eye(len(probs))[action[t]] - probs / probs.sum())
            later = [k for k in rows if k >= t]
            amount = {
                "likelihood_ratio": lambda t=t, rows=rows: (
                    sum(discount ** step[k] * reward[k] for k in rows) - subtract(t)
                ),
                "reinforce": lambda t=t, later=later: sum(discount ** (k - t) * reward[k] for k in later) - subtract(t),
                "gpomdp": lambda later=later: sum(discount ** step[k] * reward[k] - subtract(k) for k in later),
            }[kind]()
            total -= amount * score
    return total
