"""Environments that end and begin their episodes in another way than the one inside."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax.envs.description import episode_over, given_params
from pgjax.envs.wrappers import Wrapper

Array = jax.Array


@struct.dataclass
class CountedState:
    """State of an environment beside the number of steps of its episode."""

    env_state: Any
    time: Array  # int32, steps taken in this episode


@struct.dataclass
class PooledState:
    """State of an environment beside the start states that its episodes begin from."""

    env_state: Any
    pool_obs: Any  # leaves [size, ...]
    pool_state: Any  # leaves [size, ...]


class _OwnReset(Wrapper):
    """An environment that begins and ends its episodes itself, made of a step that does not reset.

    Such wrappers nest in any order and do the same at the same cost: each hands `restart`, `step_env` and
    `is_truncated` on to the environment inside and adds its own part.

    Args:
        env: the environment inside; must offer step_env(key, state, action, params) -> five values.

    Returns:
        An environment of the six-value form.

    Raises:
        TypeError: if env has no step_env.
    """

    def __post_init__(self) -> None:
        if not callable(getattr(self.env, "step_env", None)):
            raise TypeError(
                f"{type(self).__name__} needs env.step_env, a step that does not reset, and "
                f"{type(self.env).__name__} has none: after a reset the last observation of the episode is lost."
            )

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values."""
        params = given_params(self.env, params)
        step_key, start_key = jax.random.split(key)
        last_obs, last_state, reward, terminated, info = self.step_env(step_key, state, action, params)
        truncated = jnp.asarray(self.is_truncated(last_state, params))
        start = self.restart(start_key, last_state, params)
        obs, state = _select(episode_over(terminated, truncated), start, (last_obs, last_state))
        return obs, state, reward, terminated, truncated, {**info, "final_observation": last_obs}


@dataclass(frozen=True)
class FiveValueAdapter(_OwnReset):
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
        super().__post_init__()
        if self.max_steps is not None:
            _checks.as_positive_int("max_steps", self.max_steps)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, CountedState]:
        """Start an episode: (obs, state)."""
        return _counted(self.env.reset(key, params))

    def restart(self, key: Array, state: CountedState, params: Any = None) -> tuple[Any, CountedState]:
        """Begin an episode after the one that ended in `state`: (obs, state)."""
        return _counted(self._restart_inside(key, state.env_state, params))

    def step_env(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, state, reward, done, info = _counted_step(self.env, key, state, action, params)
        return obs, state, reward, done & ~self._at_limit(state, params), info

    def is_truncated(self, state: CountedState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state, by the limit or inside."""
        return self._at_limit(state, params) | self._truncated_inside(state.env_state, params)

    def _at_limit(self, state: CountedState, params: Any) -> Array:
        limit = self.max_steps or getattr(given_params(self.env, params), "max_steps_in_episode", None)
        return jnp.asarray(False) if limit is None else state.time >= limit


@dataclass(frozen=True)
class TimeLimit(_OwnReset):
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
        super().__post_init__()
        _checks.as_positive_int("max_steps", self.max_steps)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, CountedState]:
        """Start an episode: (obs, state)."""
        return _counted(self.env.reset(key, params))

    def restart(self, key: Array, state: CountedState, params: Any = None) -> tuple[Any, CountedState]:
        """Begin an episode after the one that ended in `state`: (obs, state)."""
        return _counted(self._restart_inside(key, state.env_state, params))

    def step_env(self, key: Array, state: CountedState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        return _counted_step(self.env, key, state, action, params)

    def is_truncated(self, state: CountedState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state, by the limit or inside."""
        return (state.time >= self.max_steps) | self._truncated_inside(state.env_state, params)


@dataclass(frozen=True)
class PooledReset(_OwnReset):
    """Begin each episode from a small pool of start states, drawn once, for environments whose resets cost much.

    By default every episode draws a fresh start state. That costs one reset per step, because on the device
    both branches run. Here each environment draws `size` start states when it is first reset and then picks
    one of them at random: no reset runs inside the loop, also where other wrappers stand outside or inside. The start
    states that are seen are B x size in all, and with size=1 every environment repeats its own. Choose a size that
    makes the repetition harmless.

    Args:
        env: an environment with step_env(key, state, action, params) -> five values that does not reset,
            and is_truncated(state, params) if it truncates, as gymnax environments have.
        size: start states kept by each environment, at least 1.

    Returns:
        The environment with cheap resets; memory grows by size states for each environment.

    Raises:
        ValueError: if size < 1.
        TypeError: if env has no step_env.
    """

    size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.as_positive_int("size", self.size)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, PooledState]:
        """Start an episode: (obs, state)."""
        pool_obs, pool_state = jax.vmap(self.env.reset, in_axes=(0, None))(jax.random.split(key, self.size), params)
        return _pick(pool_obs, 0), PooledState(_pick(pool_state, 0), pool_obs, pool_state)

    def restart(self, key: Array, state: PooledState, params: Any = None) -> tuple[Any, PooledState]:
        """Begin an episode after the one that ended in `state`: (obs, state)."""
        index = jax.random.randint(key, (), 0, self.size) if self.size > 1 else 0
        return _pick(state.pool_obs, index), replace(state, env_state=_pick(state.pool_state, index))

    def step_env(self, key: Array, state: PooledState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, env_state, reward, terminated, info = self.env.step_env(key, state.env_state, action, params)
        return obs, replace(state, env_state=env_state), reward, terminated, info

    def is_truncated(self, state: PooledState, params: Any = None) -> Array:
        """Tell whether the episode is cut in this state."""
        return self._truncated_inside(state.env_state, params)


def _counted(start: tuple[Any, Any]) -> tuple[Any, CountedState]:
    return start[0], CountedState(start[1], jnp.int32(0))


def _counted_step(env: Any, key: Array, state: CountedState, action: Any, params: Any) -> tuple[Any, ...]:
    obs, env_state, *rest = env.step_env(key, state.env_state, action, params)
    return obs, CountedState(env_state, state.time + 1), *rest


def _pick(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


def _select(condition: Array, x: Any, y: Any) -> Any:
    """Leaves of x where the condition holds, else those of y, whose dtypes are kept; no copy where they are one."""
    return jax.tree.map(lambda a, b: b if a is b else _checks.as_dtype_of(b, jnp.where(condition, a, b)), x, y)
