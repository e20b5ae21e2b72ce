"""Branches from visited states: their means are the exact values of a tabular process, at the error of their number."""

import functools
from dataclasses import dataclass
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import policy

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("quick_to_compile")

BRANCHES, HORIZON, GAMMA = 8_000, 3, 0.9
MDP, LOGITS = tabular.problem("two_state")
ENV = exact.TabularEnvironment(MDP.replace(horizon=HORIZON))
LOGITS = jnp.asarray(LOGITS, jnp.float32)


def moments_to_go() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean and variance of the return from each (time, state) [H, S], and from each (time, state, action) [H, S, A]."""
    probs, p, r = (np.asarray(x, float) for x in (jax.nn.softmax(LOGITS), MDP.transition, MDP.reward))
    first, second = np.zeros(2), np.zeros(2)
    rows = []
    for _ in range(HORIZON):
        q, q2 = r + GAMMA * p @ first, r**2 + 2 * GAMMA * r * (p @ first) + GAMMA**2 * p @ second
        first, second = (probs * q).sum(1), (probs * q2).sum(1)
        rows.append((first, second - first**2, q, q2 - q**2))
    return tuple(np.stack(x[::-1]) for x in zip(*rows, strict=True))  # type: ignore[return-value]


@functools.cache
def visited() -> Any:
    """A window of five steps in three environments, a reset inside; where each row stands: (time, state)."""
    state = pg.init_rollout(jax.random.key(0), ENV, ENV.default_params, num_envs=3)
    _, window, states = pg.rollout_with_states(
        jax.random.key(1), LOGITS, state, policy=policy, env=ENV, env_params=ENV.default_params, num_steps=5
    )
    return window, states, (np.asarray(window.step), np.argmax(window.obs, -1))


def branches(key: int = 2, num_branches: int = BRANCHES, **kwargs: Any) -> np.ndarray:
    kwargs = {"discount": GAMMA, "num_steps": HORIZON, "chunk": 5, **kwargs}
    return np.asarray(
        pg.branch_returns(
            jax.random.key(key), LOGITS, kwargs.pop("states", visited()[1]), policy=policy, env=ENV,
            env_params=ENV.default_params, num_branches=num_branches, **kwargs,
        )
    )  # fmt: skip


def deviations(found: Any, mean: Any, variance: Any) -> np.ndarray:
    """How many standard errors off; an exact value that does not vary must be met."""
    return np.abs(found - mean) / np.sqrt(variance / BRANCHES + 1e-10)


def test_the_mean_over_branches_is_the_value_of_the_state_and_of_the_action_taken() -> None:
    window, states, at = visited()
    v, v_var, q, q_var = moments_to_go()
    assert window.done[2].all()
    np.testing.assert_array_equal(states.step, window.step)
    found = branches()
    assert deviations(found, v[at], v_var[at]).max() < 4.5
    taken = branches(actions=window.action)
    assert deviations(taken, q[(*at, window.action)], q_var[(*at, window.action)]).max() < 4.5
    # What is wrong by a little is told apart: the other action, a later time, another discount.
    assert deviations(taken, q[(*at, 1 - window.action)], q_var[(*at, window.action)]).min() > 6
    later = (np.minimum(at[0] + 1, HORIZON - 1), at[1])
    assert deviations(found, v[later], v_var[at])[at[0] < HORIZON - 1].min() > 6
    assert deviations(branches(discount=0.6), v[at], v_var[at])[at[0] < HORIZON - 1].min() > 6
    # Branches of different states are independent, and so are those of different keys.
    assert len(np.unique(found)) == found.size


def test_short_branches_take_the_value_that_follows_and_miss_it_without() -> None:
    _, _, at = visited()
    table = jnp.asarray(MDP.reward.max(1), jnp.float32)
    value = lambda params, obs: obs @ table  # noqa: E731
    probs, p, r = (np.asarray(x, float) for x in (jax.nn.softmax(LOGITS), MDP.transition, MDP.reward))
    one_step = (probs * (r + GAMMA * p @ np.asarray(table))).sum(1), (probs * r).sum(1)
    inside = at[0] < HORIZON - 1
    with_value, without = branches(num_steps=1, value=value), branches(num_steps=1)
    for found, expected in ((with_value, one_step[0][at[1]]), (without, one_step[1][at[1]])):
        assert deviations(found, expected, 4.0)[inside].max() < 4.5
        np.testing.assert_array_less(deviations(found, one_step[1][at[1]], 4.0)[~inside], 4.5)  # nothing follows an end
    assert np.abs(with_value - without)[inside].min() > 0.3


def test_the_result_does_not_depend_on_the_chunk_and_the_window_is_that_of_a_rollout() -> None:
    window, states, _ = visited()
    np.testing.assert_allclose(branches(num_branches=7, chunk=4), branches(num_branches=7, chunk=99), rtol=1e-6)
    start = jax.tree.map(lambda x: x[0], states)
    _, plain = pg.rollout(
        jax.random.key(1), LOGITS, start, policy=policy, env=ENV, env_params=ENV.default_params, num_steps=5
    )
    jax.tree.map(np.testing.assert_array_equal, plain, window)


@dataclass(frozen=True)
class Ramp:
    """The reward is the slope of the environment, which its parameters hold, times the action plus the time."""

    default_params = {"slope": 0.0}  # noqa: RUF012

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.zeros(1), jnp.float32(0.0)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        over = state >= 3.0
        after = jnp.where(over, 0.0, state + 1.0)
        reward = params["slope"] * (action[0] + state)
        return after[None], after, reward, over, jnp.bool_(False), {"final_observation": (state + 1.0)[None]}


def test_each_environment_has_its_own_parameters_and_a_recurrent_policy_its_own_memory() -> None:
    """Without randomness one branch is exact: the action is the number of steps that the memory has counted."""

    def counting(params: Any, obs: Any, memory: Any) -> Any:
        return pg.Normal(params * memory[..., None], 1e-6), memory + 1.0

    slope = jnp.array([1.0, -2.0])
    kwargs = {"policy": counting, "env": Ramp(), "env_params": {"slope": slope}}
    state = pg.init_rollout(jax.random.key(0), Ramp(), {"slope": slope}, num_envs=2, policy_state=jnp.array([0.0, 5.0]))
    _, window, states = pg.rollout_with_states(jax.random.key(1), 1.0, state, **kwargs, num_steps=3)
    found = pg.branch_returns(
        jax.random.key(2), 1.0, states, **kwargs, discount=0.5, num_branches=1, num_steps=9,
        actions=window.action + 10.0,
    )  # fmt: skip
    expected = [
        [10 * slope[b] + sum(0.5 ** (k - t) * slope[b] * (k + memory + k) for k in range(t, 4))
         for b, memory in enumerate((0, 5))] for t in range(3)
    ]  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_bad_arguments_are_named() -> None:
    window, states, _ = visited()
    with pytest.raises(ValueError, match=r"^num_branches must be at least 1, got 0"):
        branches(num_branches=0)
    with pytest.raises(TypeError, match=r"^states must be a RolloutState, got Trajectory. Use rollout_with_states"):
        branches(states=window)
    with pytest.raises(ValueError, match=r"^actions must start with the shape of states\.step, \[5, 3\]"):
        branches(actions=window.action[:2])
    with pytest.raises(ValueError, match=r"^discount must lie in"):
        branches(discount=1.5)
    memory = states.replace(policy_state=jnp.zeros((5, 3)), start_policy_state=jnp.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"^value is given, but the policy has a memory.*Leave value out"):
        branches(states=memory, value=lambda params, obs: obs[..., 0])
    cartpole, params = gymnax.make("CartPole-v1")
    with pytest.raises(TypeError, match=r"noise of fixed size, got Bare"):
        pg.rollout_noise(
            jax.random.key(0), 1.0, pg.init_rollout(jax.random.key(0), cartpole, params, num_envs=2),
            policy=lambda params, obs: Bare(), env=cartpole, env_params=params, num_steps=2,
        )  # fmt: skip


class Bare:
    """A distribution from elsewhere."""

    def log_prob(self, action: Any) -> Any:
        return jnp.zeros(2)
