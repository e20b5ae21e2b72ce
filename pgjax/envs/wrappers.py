"""Environments made of environments. Each changes one thing and is hashable, so that it can select a program."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks

Array = jax.Array


@dataclass(frozen=True)
class Wrapper:
    """An environment that hands everything it does not change to `env`.

    Args:
        env: the environment inside.

    Returns:
        An environment of the six-value form.

    Raises:
        AttributeError: for a name that neither this class nor env has.
    """

    env: Any

    def __getattr__(self, name: str) -> Any:
        if name == "env" or name.startswith("__"):  # copy and pickle ask before `env` is set
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, Any]:
        return self.env.reset(key, params)

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        return self.env.step(key, state, action, params)


@dataclass(frozen=True)
class OneHotObservation(Wrapper):
    """Give a discrete observation as a one-hot vector, float32 [num_values].

    Args:
        env: an environment whose observation is an integer.
        num_values: how many values it takes; None reads it off env.observation_space.

    Returns:
        The environment with observations [num_values].

    Raises:
        TypeError: if the observation is not an integer.
        ValueError: if num_values is None and the observation space has no `n`.
    """

    num_values: int | None = None

    def _encode(self, obs: Array, params: Any) -> Array:
        _checks.integer("the observation of env", obs)
        num_values = self.num_values or getattr(self.env.observation_space(params), "n", None)
        if num_values is None:
            raise ValueError("num_values is required: the observation space of env does not tell how many there are.")
        return jax.nn.one_hot(obs, num_values)

    def reset(self, key: Array, params: Any = None) -> tuple[Array, Any]:
        obs, state = self.env.reset(key, params)
        return self._encode(obs, params), state

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": self._encode(info["final_observation"], params)}
        return self._encode(obs, params), state, reward, terminated, truncated, info


@dataclass(frozen=True)
class FlattenObservation(Wrapper):
    """Give a pytree of observations as one float32 vector.

    Args:
        env: an environment whose observation is any pytree of arrays.

    Returns:
        The environment with observations [sum of sizes].

    Raises:
        TypeError: if a leaf of the observation is no array.
    """

    @staticmethod
    def _flatten(obs: Any) -> Array:
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(obs)])

    def reset(self, key: Array, params: Any = None) -> tuple[Array, Any]:
        obs, state = self.env.reset(key, params)
        return self._flatten(obs), state

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": self._flatten(info["final_observation"])}
        return self._flatten(obs), state, reward, terminated, truncated, info


@struct.dataclass
class CountedState:
    """State of an environment beside the number of steps of its episode."""

    env_state: Any
    time: Array  # int32, steps taken in this episode


@dataclass(frozen=True)
class FromDone(Wrapper):
    """Adapt an environment of the older form: step -> (obs, state, reward, done, info), resets by itself.

    Such an environment says neither why an episode ended nor what was seen last. This adapter calls
    `step_env` (no reset) where there is one, so that the last observation is the true one, and counts the steps:
    an episode that ends at max_steps counts as truncated, any other as terminated.

    Args:
        env: the environment; must offer step_env(key, state, action, params) -> five values, and reset.
        max_steps: the limit that env imposes; None reads params.max_steps_in_episode and, where there is
            none, takes every end as a termination.

    Returns:
        An environment of the six-value form.

    Raises:
        TypeError: if env has no step_env: after its own reset the last observation cannot be had any more.
    """

    max_steps: int | None = None

    def reset(self, key: Array, params: Any = None) -> tuple[Any, CountedState]:
        obs, state = self.env.reset(key, params)
        return obs, CountedState(state, jnp.int32(0))

    def step(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        step_env = getattr(self.env, "step_env", None)
        if step_env is None:
            raise TypeError(
                f"FromDone needs {type(self.env).__name__}.step_env, a step that does not reset: after a reset "
                "the last observation of the episode is lost."
            )
        step_key, reset_key = jax.random.split(key)
        last_obs, last_state, reward, done, info = step_env(step_key, state.env_state, action, params)
        time = state.time + 1
        limit = self.max_steps if self.max_steps is not None else getattr(params, "max_steps_in_episode", None)
        truncated = jnp.asarray(False) if limit is None else done & (time >= limit)
        first_obs, first_state = self.env.reset(reset_key, params)
        obs, env_state = _select(done, (first_obs, first_state), (last_obs, last_state))
        info = {**info, "final_observation": last_obs}
        return obs, CountedState(env_state, jnp.where(done, 0, time)), reward, done & ~truncated, truncated, info


@struct.dataclass
class PooledState:
    """State of an environment beside the start states that its episodes begin from."""

    env_state: Any
    pool_obs: Any  # leaves [size, ...]
    pool_state: Any  # leaves [size, ...]


@dataclass(frozen=True)
class PooledReset(Wrapper):
    """Begin each episode from a small pool of start states, drawn once, where a reset is dear.

    By default every episode draws a fresh start state. That costs one reset per step, because on the device
    both branches run. Here each environment draws `size` start states when it is first reset and then picks
    one of them at random: no reset runs inside the loop. The start states that are seen are B x size in all, and
    with size=1 every environment repeats its own. Choose a size that makes the repetition harmless.

    Args:
        env: an environment with step_env(key, state, action, params) -> five values that does not reset,
            and is_truncated(state, params), as gymnax environments have.
        size: start states kept by each environment, at least 1.

    Returns:
        The environment with cheap resets; memory grows by size states for each environment.

    Raises:
        ValueError: if size < 1.
        TypeError: if env has no step_env.
    """

    size: int = 8

    def __post_init__(self) -> None:
        _checks.positive_int("size", self.size)
        _checks.function("env.step_env", getattr(self.env, "step_env", None))

    def reset(self, key: Array, params: Any = None) -> tuple[Any, PooledState]:
        pool_obs, pool_state = jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, self.size), params)
        first = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
        return first(pool_obs), PooledState(first(pool_state), pool_obs, pool_state)

    def step(self, key: Array, state: PooledState, action: Any, params: Any = None) -> tuple[Any, ...]:
        step_key, pick_key = jax.random.split(key)
        last_obs, last_state, reward, terminated, info = self.env.step_env(step_key, state.env_state, action, params)
        truncated = jnp.asarray(self.env.is_truncated(last_state, params))
        pick = jax.random.randint(pick_key, (), 0, self.size) if self.size > 1 else 0
        start = jax.tree.map(lambda x: x[pick], (state.pool_obs, state.pool_state))
        obs, env_state = _select(terminated | truncated, start, (last_obs, last_state))
        info = {**info, "final_observation": last_obs}
        return obs, state.replace(env_state=env_state), reward, terminated, truncated, info


def _select(condition: Array, x: Any, y: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b).astype(jnp.asarray(b).dtype), x, y)


@dataclass(frozen=True)
class TimeLimit(Wrapper):
    """Truncate every episode after so many steps, whatever limit the environment has itself.

    Args:
        env: an environment with step_env(key, state, action, params) -> five values that does not reset.
        max_steps: the limit, environment steps, at least 1.

    Returns:
        The environment with the limit.

    Raises:
        ValueError: if max_steps < 1.
        TypeError: if env has no step_env.
    """

    max_steps: int = 1000

    def __post_init__(self) -> None:
        _checks.positive_int("max_steps", self.max_steps)
        _checks.function("env.step_env", getattr(self.env, "step_env", None))

    def reset(self, key: Array, params: Any = None) -> tuple[Any, CountedState]:
        obs, state = self.env.reset(key, params)
        return obs, CountedState(state, jnp.int32(0))

    def step(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        step_key, reset_key = jax.random.split(key)
        last_obs, last_state, reward, terminated, info = self.env.step_env(step_key, state.env_state, action, params)
        time = state.time + 1
        truncated = time >= self.max_steps
        if hasattr(self.env, "is_truncated"):
            truncated |= self.env.is_truncated(last_state, params)
        done = terminated | truncated
        obs, env_state = _select(done, self.env.reset(reset_key, params), (last_obs, last_state))
        info = {**info, "final_observation": last_obs}
        return obs, CountedState(env_state, jnp.where(done, 0, time)), reward, terminated, truncated, info
