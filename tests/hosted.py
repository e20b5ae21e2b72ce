"""Environments of Gymnasium that count their steps, and what runs them through the adapter."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg

pytest.importorskip("gymnasium")

import gymnasium as gym

OBS_SPACE = gym.spaces.Box(np.array([-9.0, 0.0]), np.array([99.0, np.inf]), (2,), np.float64)


class Count(gym.Env):
    """Counts its steps from its seed's last digit on, pays the action, is over after 3 steps, cut after `limit`."""

    observation_space: Any = OBS_SPACE
    action_space: Any = gym.spaces.Discrete(3, start=5)
    limit, wrong_shape, fails_at = 99, False, 99

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.seed = self.__dict__.get("seed", 0) if seed is None else seed
        self.step_of_episode = 0
        return self.observed(), {}

    def step(self, action: Any) -> Any:
        self.step_of_episode += 1
        if self.step_of_episode == self.fails_at:
            raise OSError("the robot fell over")
        reward = float(action) if np.ndim(action) == 0 and not isinstance(action, dict | tuple) else 0.0
        return self.observed(), reward, self.step_of_episode >= 3, self.step_of_episode >= self.limit, {}

    def observed(self) -> Any:
        return np.array([self.step_of_episode, *(1 + self.wrong_shape) * [self.seed % 10]], float)


def several(form: Any, mode: str = "SameStep") -> Any:
    return lambda num_envs: gym.vector.SyncVectorEnv(num_envs * [form], autoreset_mode=mode)


def rolled(key: Any, env: Any, actions: Any, num_envs: int | None = None) -> Any:
    """(state, window) after given actions from the start."""
    state = pg.init_rollout(key, env, None, num_envs=num_envs or actions.shape[1])
    return pg.rollout(
        key, None, state, policy=blind(env), env=env, env_params=None, num_steps=len(actions), actions=actions
    )


def blind(env: Any) -> Any:
    space = env.action_space()
    if hasattr(space, "n"):
        return lambda params, obs: pg.Categorical(jnp.zeros((*obs.shape[:-1], space.n)))
    return lambda params, obs: pg.exploration.Deterministic(jnp.zeros((*obs.shape[:-1], *space.shape)))


def seeds_of(key: Any, num_envs: int) -> list[int]:
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, 2**31 - 1))
    return [int(seed) for seed in draw(jax.random.split(key, num_envs))]


def begun(env: Any, num_envs: int = 2) -> tuple[Any, Any]:
    """(state after a reset, step(state)) outside rollouts."""
    step = jax.vmap(env.step, in_axes=(None, 0, 0))
    action = jnp.zeros((num_envs, *env.action_space().shape), int)
    _, state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), num_envs))
    return state, lambda state: step(jax.random.key(0), state, action)[1]
