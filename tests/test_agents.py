"""Agents are one more batch axis: what is paid, cut and counted for each, from the environment to the gradient."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from probes import TwoAgents, collect, start

import pgjax as pg
from pgjax.envs import FlattenObservation, PooledReset, TimeLimit
from pgjax.envs.description import agents_of

pytestmark = pytest.mark.usefixtures("quick_to_compile")
T, B, A = 7, 3, 2
ACTIONS = np.random.default_rng(0).integers(0, 2, size=(T, B, A))
PARAMS = np.array([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.2]], np.float32)


def policy(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params)


def play(env: Any, **kwargs: Any) -> tuple[pg.RolloutState, pg.Trajectory]:
    kwargs = {"policy": policy, "params": PARAMS, "actions": ACTIONS, "num_steps": T, "num_envs": B, **kwargs}
    return jax.tree.map(np.asarray, collect(env, **kwargs))


@pytest.fixture(scope="module")
def played() -> tuple[pg.RolloutState, pg.Trajectory]:
    return play(TwoAgents(length=3))


def test_every_leaf_has_the_axis_of_the_agents(played: Any) -> None:
    state, window = played
    for name in ("reward", "terminated", "truncated", "log_prob", "step", "action"):
        assert getattr(window, name).shape == (T, B, A), name
    assert window.obs.shape == window.next_obs.shape == (T, B, A, 3)
    for name in ("step", "running_return", "episode_return", "episode_length", "num_episodes"):
        assert getattr(state, name).shape == (B, A), name
    assert state.env_state.time.shape == (B,)


def test_each_agent_is_paid_for_its_own_action(played: Any) -> None:
    state, window = played
    expected = 10.0 * ACTIONS + ACTIONS[..., ::-1]
    np.testing.assert_array_equal(window.reward, expected)
    np.testing.assert_array_equal(state.episode_return, expected[3:6].sum(0))
    np.testing.assert_array_equal(state.running_return, expected[6])
    logits = window.obs.astype(np.float64) @ PARAMS
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, ACTIONS[..., None], -1)[..., 0]
    np.testing.assert_allclose(window.log_prob, chosen, rtol=1e-5)


def test_the_end_of_the_environment_is_that_of_each_agent(played: Any) -> None:
    state, window = played
    np.testing.assert_array_equal(window.step, np.broadcast_to((np.arange(T) % 3)[:, None, None], (T, B, A)))
    np.testing.assert_array_equal(window.terminated, window.step == 2)
    np.testing.assert_array_equal(window.obs[..., 0], window.step)
    np.testing.assert_array_equal(window.obs[..., 1], np.broadcast_to(np.arange(A), (T, B, A)))
    np.testing.assert_array_equal(window.obs[..., 2].sum(-1), 1.0)  # one seat each
    np.testing.assert_array_equal(state.num_episodes, 2)
    np.testing.assert_array_equal(state.episode_length, 3)
    assert not window.truncated.any()
    assert len(np.unique(window.obs[window.step[..., 0] == 0][:, 0, 2])) == 2


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: TimeLimit(env, 99)], ids=["gymnax", "wrapper"])
def test_agents_may_end_apart(wrap: Any) -> None:
    """The first ends after two steps and keeps its flag until the second ends after four, when both start anew."""
    _, window = play(wrap(TwoAgents(length=4, apart=True)))
    first, second = np.array([0, 1, 1, 1, 0, 1, 1], bool), np.array([0, 0, 0, 1, 0, 0, 0], bool)
    np.testing.assert_array_equal(window.terminated, np.stack([first, second], -1)[:, None] & np.ones((T, B, A), bool))
    np.testing.assert_array_equal(window.step[:, 0, 0], [0, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(window.step[:, 0, 1], [0, 1, 2, 3, 0, 1, 2])
    np.testing.assert_array_equal(window.obs[:, 0, 0, 0], [0, 1, 2, 3, 0, 1, 2])


@pytest.mark.parametrize("wrap", [
    lambda env: TimeLimit(PooledReset(env, 2), 2), lambda env: PooledReset(TimeLimit(env, 2), 2),
], ids=["limit outside", "pool outside"])  # fmt: skip
def test_wrappers_know_agents(wrap: Any) -> None:
    state, window = play(FlattenObservation(wrap(TwoAgents(length=9))))
    assert window.obs.shape == (T, B, A, 3)
    np.testing.assert_array_equal(window.truncated, window.step == 1)
    np.testing.assert_array_equal(window.obs[..., 0], window.step)
    np.testing.assert_array_equal(state.num_episodes, 3)


def test_a_flattened_observation_belongs_to_one_agent() -> None:
    @dataclass(frozen=True)
    class Planes(TwoAgents):
        def get_obs(self, state: Any, params: Any = None, key: Any = None) -> Any:
            seen = super().get_obs(state)
            return {"a": seen[..., None, :2], "b": seen[..., 2].astype(jnp.int32)}

    env = FlattenObservation(Planes())
    obs, _ = env.reset(jax.random.key(0), env.default_params)
    np.testing.assert_array_equal(obs, TwoAgents().reset(jax.random.key(0), env.default_params)[0])
    assert env.observation_space(env.default_params).shape == (3,)


def test_returns_and_gradients_treat_an_agent_as_a_trajectory(played: Any) -> None:
    """Agents side by side give what the same numbers give as environments side by side."""
    _, window = played
    flat = jax.tree.map(lambda x: x.reshape(T, B * A, *x.shape[3:]), window)
    value = lambda params, obs: obs[..., 0] - 2.0 * obs[..., 2]  # noqa: E731

    def everything(window: Any) -> Any:
        v, next_v = pg.bootstrap_values(None, window, value=value)
        ends = {"terminated": window.terminated, "truncated": window.truncated, "discount": 0.9}
        mean, _ = pg.reinforce(PARAMS, window, policy=policy, discount=0.9)
        parts, _ = pg.reinforce.per_trajectory(PARAMS, window, policy=policy, discount=0.9)
        return pg.gae(window.reward, v, next_v, **ends, lam=0.8), mean, parts

    (advantage, mean, parts), (flat_advantage, flat_mean, flat_parts) = map(jax.jit(everything), (window, flat))
    np.testing.assert_allclose(advantage, flat_advantage.reshape(T, B, A), rtol=1e-6)
    np.testing.assert_allclose(mean, flat_mean, rtol=1e-5)
    np.testing.assert_allclose(parts, flat_parts.reshape(B, A, *PARAMS.shape), rtol=1e-5, atol=1e-5)
    by_hand = np.zeros_like(PARAMS, np.float64)
    for t in range(3, 6):  # the second episode of the first agent in the first environment
        earned = sum(0.9 ** (k - t) * window.reward[k, 0, 0] for k in range(t, 6))
        probs = np.exp(window.obs[t, 0, 0] @ PARAMS) / np.exp(window.obs[t, 0, 0] @ PARAMS).sum()
        by_hand -= earned * np.outer(window.obs[t, 0, 0], np.eye(2)[ACTIONS[t, 0, 0]] - probs)
    cut = jax.tree.map(lambda x: x[3:6], window)
    alone, _ = pg.reinforce.per_trajectory(PARAMS, cut, policy=policy, discount=0.9)
    np.testing.assert_allclose(alone[0, 0], by_hand, rtol=1e-5, atol=1e-5)


def test_an_evaluation_says_what_each_agent_earned() -> None:
    """The second takes action 1 and the first action 0, as their indices say."""
    by_index = lambda params, obs: pg.Categorical(jnp.stack([0.5 - obs[..., 1], obs[..., 1] - 0.5], -1))  # noqa: E731
    result = pg.evaluate(
        jax.random.key(0), None, policy=by_index, env=TwoAgents(length=3), env_params=None, num_episodes=B, greedy=True
    )
    np.testing.assert_array_equal(result.episode_return, np.broadcast_to([3.0, 30.0], (B, A)))
    np.testing.assert_array_equal(result.episode_length, np.full((B, A), 3.0))


def test_the_memory_of_each_agent_is_set_back() -> None:
    def counting(params: Any, obs: Any, seen: Any) -> Any:
        return pg.Categorical(jnp.zeros((*obs.shape[:-1], 2))), seen, seen + 1.0

    initial = np.arange(B * A, dtype=np.float32).reshape(B, A, 1)
    env = TwoAgents(length=4, apart=True)
    state = start(env, num_envs=B, policy_state=initial)
    _, window = play(env, policy=counting, state=state)
    np.testing.assert_array_equal(window.extras[..., 0], initial[..., 0] + window.step)
    with pytest.raises(ValueError, match=r"^every leaf of policy_state must have .* = \[3, 2\], got \[3, 1\]"):
        start(env, num_envs=B, policy_state=initial[:, 0])


def test_running_statistics_see_every_agent(played: Any) -> None:
    _, window = played
    statistics = pg.envs.update_statistics(pg.envs.init_statistics(np.zeros(3)), window.obs)
    assert statistics.count == T * B * A
    np.testing.assert_allclose(statistics.mean, window.obs.reshape(-1, 3).mean(0), rtol=1e-5, atol=1e-6)
    scale = pg.envs.init_reward_scale(num_envs=B, agents=(A,))
    scale = pg.envs.update_reward_scale(scale, window.reward, done=window.done, discount=0.5)
    running, seen = np.zeros((B, A)), []
    for reward, done in zip(window.reward, window.done, strict=True):
        seen.append(0.5 * running + reward)
        running = np.where(done, 0.0, seen[-1])
    np.testing.assert_allclose(scale.statistics.var, np.var(seen), rtol=1e-5)
    np.testing.assert_allclose(scale.running_return, running)


def test_a_value_is_kept_for_each_agent() -> None:
    value = lambda params, obs: 10.0 + obs[..., 1]  # noqa: E731
    _, window = play(TwoAgents(length=9, limit=2), truncation_value=value)
    np.testing.assert_array_equal(window.truncation_value, np.where(window.step == 1, 10.0 + np.arange(A), 0.0))


@dataclass(frozen=True)
class Team(TwoAgents):
    def step_env(self, *args: Any) -> Any:
        obs, state, reward, *rest = super().step_env(*args)
        return obs, state, reward.sum(), *rest


@dataclass(frozen=True)
class OneEnd(TwoAgents):
    def step_env(self, *args: Any) -> Any:
        *rest, terminated, info = super().step_env(*args)
        return *rest, jnp.full(3, terminated), info


@pytest.mark.parametrize(
    ("env", "error", "match"),
    [
        (Team(), ValueError, r"^the reward of env.step must be one number .* \[3, 2\], got \[3\]"),
        (OneEnd(), ValueError, r"^the terminated of env.step must be one number .* \[3, 2\], got \[3, 3\]"),
        (TwoAgents(agents=(3,)), ValueError, r"^the observation of env.reset must have the leading axes \[3\]"),
    ],
)
def test_agents_that_do_not_fit_are_named(env: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        play(env)


@pytest.mark.parametrize("agents", [["agent_0", "agent_1"], 2, (0,), ("a",)])
def test_the_axes_of_agents_are_numbers(agents: Any) -> None:
    with pytest.raises(TypeError, match=r"^env.agents must be the axes of the agents as a tuple of positive ints"):
        agents_of(TwoAgents(agents=agents))
    assert agents_of(probes.TERMINATES) == ()


@pytest.mark.parametrize("given", ["noise", "actions"])
def test_what_is_given_to_act_with_has_the_axis_of_the_agents(given: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{given} must have the leading axes .*agents\] = \[7, 3, 2\], got \[7, 3\]"
    ):
        play(TwoAgents(), **{"actions": None, given: np.zeros((T, B))})


def test_the_default_network_acts_for_each_agent() -> None:
    """Its input is what one agent sees, and recipes train on such an environment as on any other."""
    env = TwoAgents()
    network = pg.networks.default_actor_critic(env, env.default_params)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((B, A, 3)))
    assert params["params"]["actor"]["Dense_0"]["kernel"].shape == (3, 64)
    recipe = pg.recipes.ppo.make_train(env, None, num_envs=4, num_steps=8, total_steps=64)
    state, _ = jax.eval_shape(recipe, jax.random.key(0))
    assert state.rollout.episode_return.shape == (4, A)
