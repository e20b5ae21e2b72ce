"""Environments that show another form of what is seen. Each is hashable, so that it can select a program."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

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
        """Start an episode: (obs, state)."""
        return self.env.reset(key, params)

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values."""
        return self.env.step(key, state, action, params)


class EncodedObservation(Wrapper):
    """An environment that shows another form of what `env` shows, in `step` and in `step_env` alike.

    Args:
        env: the environment inside.

    Returns:
        The environment with observations `encode(obs, params)`.

    Raises:
        NotImplementedError: if the class does not say how it encodes.
    """

    def encode(self, obs: Any, params: Any) -> Any:
        """Give the other form of an observation of `env`."""
        raise NotImplementedError

    def reset(self, key: Array, params: Any = None) -> tuple[Any, Any]:
        """Start an episode: (obs, state)."""
        obs, state = self.env.reset(key, params)
        return self.encode(obs, params), state

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values."""
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        info = {**info, "final_observation": self.encode(info["final_observation"], params)}
        return self.encode(obs, params), state, reward, terminated, truncated, info

    def step_env(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        obs, *rest = self.env.step_env(key, state, action, params)
        return self.encode(obs, params), *rest


@dataclass(frozen=True)
class OneHotObservation(EncodedObservation):
    """Give a discrete observation as a one-hot vector, float32 [num_values].

    Args:
        env: an environment whose observation is an integer.
        num_values: how many values it takes, at least 1; None reads it off env.observation_space.

    Returns:
        The environment with observations [num_values].

    Raises:
        TypeError: if the observation is not an integer.
        ValueError: if num_values is None and the observation space has no `n`, or if num_values < 1.
    """

    num_values: int | None = None

    def __post_init__(self) -> None:
        if self.num_values is not None:
            _checks.as_positive_int("num_values", self.num_values)

    def encode(self, obs: Array, params: Any) -> Array:
        """Give the other form of an observation of `env`."""
        _checks.as_integer("the observation of env", obs)
        return jax.nn.one_hot(obs, self._size(params))

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Say what the encoded observations look like."""
        return spaces.Box(0.0, 1.0, (self._size(params),), jnp.float32)

    def _size(self, params: Any) -> int:
        if self.num_values is not None:
            return self.num_values
        size = getattr(self.env.observation_space(given_params(self.env, params)), "n", None)
        if size is None:
            raise ValueError("num_values is required: the observation space of env does not tell how many there are.")
        return int(size)


@dataclass(frozen=True)
class FlattenObservation(EncodedObservation):
    """Give a pytree of observations as one float32 vector.

    Args:
        env: an environment whose observation is any pytree of arrays.

    Returns:
        The environment with observations [sum of sizes].

    Raises:
        TypeError: if a leaf of the observation is no array.
    """

    def encode(self, obs: Any, params: Any) -> Array:
        """Give the other form of an observation of `env`."""
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(obs)])

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Say what the encoded observations look like."""
        obs, _ = jax.eval_shape(self.reset, jax.random.key(0), given_params(self.env, params))
        return spaces.Box(-jnp.inf, jnp.inf, obs.shape, jnp.float32)


def given_params(env: Any, params: Any) -> Any:
    """Fill in the environment's own parameters where none are given, which step_env, unlike step, does not do.

    Args:
        env: the environment.
        params: its parameters, or None.

    Returns:
        params, or env.default_params; None if there are none either.
    """
    return getattr(env, "default_params", None) if params is None else params
