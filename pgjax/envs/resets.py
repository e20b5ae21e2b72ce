"""Environments that end and begin their episodes in another way than the one inside."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax.envs.boundary import as_dtype_of
from pgjax.envs.wrappers import Wrapper, given_params

Array = jax.Array


class OwnReset(Wrapper):
    """An environment that resets in its own way, made of a step that does not reset.

    It offers `step_env` and `is_truncated` for its own state, so that it can be wrapped again.

    Args:
        env: the environment inside; must offer step_env(key, state, action, params) -> five values.

    Returns:
        An environment of the six-value form.

    Raises:
        TypeError: if env has no step_env.
    """

    def restart(self, key: Array, state: Any, params: Any) -> tuple[Any, Any]:
        """Begin an episode after the one that ended in `state`."""
        return self.reset(key, params)

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values."""
        params = given_params(self.env, params)
        step_key, start_key = jax.random.split(key)
        last_obs, last_state, reward, terminated, info = self.step_env(step_key, state, action, params)
        truncated = jnp.asarray(self.is_truncated(last_state, params))
        start = self.restart(start_key, last_state, params)
        obs, state = _select(terminated | truncated, start, (last_obs, last_state))
        return obs, state, reward, terminated, truncated, {**info, "final_observation": last_obs}


@struct.dataclass
class CountedState:
    """State of an environment beside the number of steps of its episode."""

    env_state: Any
    time: Array  # int32, steps taken in this episode


class CountedSteps(OwnReset):
    """An environment that counts the steps of its episodes.

    Args:
        env: the environment inside.

    Returns:
        The environment with states of class CountedState.

    Raises:
        TypeError: if env has no step_env.
    """

    def reset(self, key: Array, params: Any = None) -> tuple[Any, CountedState]:
        """Start an episode: (obs, state)."""
        obs, state = self.env.reset(key, params)
        return obs, CountedState(state, jnp.int32(0))

    def step_env(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, env_state, reward, ended, info = self.env.step_env(key, state.env_state, action, params)
        return obs, CountedState(env_state, state.time + 1), reward, ended, info


@dataclass(frozen=True)
class FiveValueAdapter(CountedSteps):
    """Adapt an environment of the older form: step -> (obs, state, reward, done, info), resets by itself.

    Such an environment says neither why an episode ended nor what was seen last. This adapter calls
    `step_env` (no reset), so that the last observation is the true one, and counts the steps: an episode that
    lasts max_steps is truncated there, one that ends before is terminated.

    Args:
        env: the environment; must offer step_env(key, state, action, params) -> five values, and reset.
        max_steps: the limit that env imposes; None reads params.max_steps_in_episode and, where there is
            none, takes every end as a termination.

    Returns:
        An environment of the six-value form.

    Raises:
        TypeError: if env has no step_env: after its own reset the last observation cannot be had any more.
        ValueError: if max_steps < 1.
    """

    max_steps: int | None = None

    def __post_init__(self) -> None:
        _need_step_env(self)
        if self.max_steps is not None:
            _checks.as_positive_int("max_steps", self.max_steps)

    def step_env(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, state, reward, done, info = super().step_env(key, state, action, params)
        return obs, state, reward, done & ~self.is_truncated(state, params), info

    def is_truncated(self, state: CountedState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state."""
        limit = self.max_steps or getattr(given_params(self.env, params), "max_steps_in_episode", None)
        return jnp.asarray(False) if limit is None else state.time >= limit


@dataclass(frozen=True)
class TimeLimit(CountedSteps):
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
        _need_step_env(self)
        _checks.as_positive_int("max_steps", self.max_steps)

    def is_truncated(self, state: CountedState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state."""
        truncated = state.time >= self.max_steps
        if hasattr(self.env, "is_truncated"):
            truncated |= self.env.is_truncated(state.env_state, params)
        return truncated


@struct.dataclass
class PooledState:
    """State of an environment beside the start states that its episodes begin from."""

    env_state: Any
    pool_obs: Any  # leaves [size, ...]
    pool_state: Any  # leaves [size, ...]


@dataclass(frozen=True)
class PooledReset(OwnReset):
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
        _need_step_env(self)
        _checks.as_positive_int("size", self.size)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, PooledState]:
        """Start an episode: (obs, state)."""
        pool_obs, pool_state = jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, self.size), params)
        return _pick(pool_obs, 0), PooledState(_pick(pool_state, 0), pool_obs, pool_state)

    def restart(self, key: Array, state: PooledState, params: Any) -> tuple[Any, PooledState]:
        """Begin an episode after the one that ended in `state`."""
        index = jax.random.randint(key, (), 0, self.size) if self.size > 1 else 0
        return _pick(state.pool_obs, index), replace(state, env_state=_pick(state.pool_state, index))

    def step_env(self, key: Array, state: PooledState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, env_state, reward, terminated, info = self.env.step_env(key, state.env_state, action, params)
        return obs, replace(state, env_state=env_state), reward, terminated, info

    def is_truncated(self, state: PooledState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state."""
        return self.env.is_truncated(state.env_state, params)


def _need_step_env(wrapper: Wrapper) -> None:
    if not callable(getattr(wrapper.env, "step_env", None)):
        raise TypeError(
            f"{type(wrapper).__name__} needs env.step_env, a step that does not reset, and "
            f"{type(wrapper.env).__name__} has none: after a reset the last observation of the episode is lost."
        )


def _pick(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _select(condition: Array, x: Any, y: Any) -> Any:
    """Leaves of x where the condition holds, else those of y, whose dtypes are kept; no copy where they are one."""
    return jax.tree.map(lambda a, b: b if a is b else as_dtype_of(b, jnp.where(condition, a, b)), x, y)
