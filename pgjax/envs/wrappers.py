"""Environments that show another form of what is seen. Each is hashable, so that it can select a program."""

from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from pgjax import _checks
from pgjax.envs.description import agents_of, given_params

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

    def restart(self, key: Array, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Begin an episode after the one that ended in `state`: (obs, state).

        A wrapper of your own that changes `reset` is restarted by it, unless it says otherwise here.
        """
        if type(self).reset is not Wrapper.reset:
            return self.reset(key, params)
        return self._restart_inside(key, state, params)

    def with_transition_gradients(self) -> Self:
        """Return this wrapper around env.with_transition_gradients(), through whose steps gradients pass."""
        return replace(self, env=self.env.with_transition_gradients())

    def _restart_inside(self, key: Array, state: Any, params: Any) -> tuple[Any, Any]:
        if isinstance(self.env, Wrapper):
            return self.env.restart(key, state, params)
        return self.env.reset(key, params)

    def _truncated_inside(self, state: Any, params: Any) -> Array:
        is_truncated = getattr(self.env, "is_truncated", None)
        return jnp.asarray(False if is_truncated is None else is_truncated(state, params))


class _EncodedObservation(Wrapper):
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

    def restart(self, key: Array, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Begin an episode after the one that ended in `state`: (obs, state)."""
        obs, state = self._restart_inside(key, state, params)
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
class OneHotObservation(_EncodedObservation):
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
class FlattenObservation(_EncodedObservation):
    """Give a pytree of observations as one float32 vector, one for each agent where env.agents is (A,).

    Args:
        env: an environment whose observation is any pytree of arrays.

    Returns:
        The environment with observations [sum of sizes], or [A, sum of sizes].

    Raises:
        TypeError: if a leaf of the observation is no array.
    """

    def encode(self, obs: Any, params: Any) -> Array:
        """Give the other form of an observation of `env`."""
        agents = agents_of(self.env)
        rows = [leaf.reshape((*agents, -1)).astype(jnp.float32) for leaf in jax.tree.leaves(obs)]
        return jnp.concatenate(rows, axis=-1)

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Say what the encoded observations look like."""
        obs, _ = jax.eval_shape(self.reset, jax.random.key(0), given_params(self.env, params))
        return spaces.Box(-jnp.inf, jnp.inf, obs.shape[-1:], jnp.float32)


@dataclass(frozen=True)
class RescaledObservation(_EncodedObservation):
    """Give observations in units of the bounds of their space: low becomes -1, high becomes 1, float32.

        2 (obs - low) / (high - low) - 1

    It has no running statistics, so it goes with every recipe: MountainCar's velocity, of 0.07 at most, comes to stand
    beside its position. A component with a bound of 1e30 or beyond, such as the velocities of CartPole, stays as it is.

    Args:
        env: an environment with observations in a box, one array.

    Returns:
        The environment with observations of the same shape. Those outside the box are not clipped.

    Raises:
        TypeError: if an observation is not one array, or its space has no bounds.
    """

    def encode(self, obs: Array, params: Any) -> Array:
        """Give the other form of an observation of `env`."""
        if not hasattr(obs, "astype"):
            raise TypeError(
                f"env must have observations of one array, got {type(obs).__name__}. Wrap env in FlattenObservation."
            )
        low, high = self._bounds(params)
        bounded = _bounded(low, high)
        half = jnp.where(bounded, 0.5 * (high - low), 1.0)
        middle = jnp.where(bounded, 0.5 * (high + low), 0.0)
        return (obs.astype(jnp.float32) - middle) / half

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Say what the encoded observations look like."""
        low, high = self._bounds(params)
        bounded = _bounded(low, high)
        shape = self.env.observation_space(given_params(self.env, params)).shape
        return spaces.Box(jnp.where(bounded, -1.0, low), jnp.where(bounded, 1.0, high), shape, jnp.float32)

    def _bounds(self, params: Any) -> tuple[Array, Array]:
        space = self.env.observation_space(given_params(self.env, params))
        if not hasattr(space, "low"):
            raise TypeError(
                f"env must have observations in a box, got the observation space {space}. Wrap env in "
                "OneHotObservation or FlattenObservation, or leave its observations as they are."
            )
        return jnp.asarray(space.low, jnp.float32), jnp.asarray(space.high, jnp.float32)


def _bounded(low: Array, high: Array) -> Array:
    return (low > -1e30) & (high < 1e30) & (low < high)


@dataclass(frozen=True)
class Choices:
    """A space of several choices at once, each among `nvec[i]` whole numbers from 0 on.

    Args:
        nvec: how many there are, one number for each component of the action.

    Returns:
        The space, with the `shape` and `dtype` of its actions.
    """

    nvec: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """[D], the shape of an action."""
        return (len(self.nvec),)

    @property
    def dtype(self) -> Any:
        """The dtype of an action."""
        return jnp.int32

    def sample(self, key: Array) -> Array:
        """Draw an action uniformly, int32 [D]."""
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec))


@dataclass(frozen=True)
class DiscretizedAction(Wrapper):
    """Make each component of a continuous action a choice among points at equal distances, the bounds included.

        a_i = low_i + (high_i - low_i) k_i / (K - 1),   k_i = 0 ... K - 1

    A policy over it is a `MultiCategorical`, which the default networks give: it loses no mass beyond the box, and may
    have several peaks.

    Args:
        env: an environment whose action is a vector within finite bounds.
        num_choices: K, for each component, at least 2.

    Returns:
        The environment with actions int32 [D].

    Raises:
        ValueError: if num_choices < 2, or, where the bounds are asked for, if the action space has none of one axis.
    """

    num_choices: int

    def __post_init__(self) -> None:
        if _checks.as_positive_int("num_choices", self.num_choices) < 2:
            raise ValueError("num_choices must be at least 2, got 1: the bounds are the first two.")

    def action_space(self, params: Any = None) -> Choices:
        """Say among what the policy chooses."""
        return Choices(self._box(params).shape[0] * (self.num_choices,))

    def step(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values."""
        return self.env.step(key, state, self.decode(action, params), params)

    def step_env(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, terminated, info)."""
        return self.env.step_env(key, state, self.decode(action, params), params)

    def decode(self, action: Any, params: Any = None) -> Array:
        """Give the action of `env` that a choice stands for, float32 [D]."""
        box = self._box(params)
        low, high = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), box.shape) for x in (box.low, box.high))
        share = _checks.as_integer("action", action).astype(jnp.float32) / (self.num_choices - 1)
        return low + (high - low) * share

    def _box(self, params: Any) -> Any:
        box = self.env.action_space(given_params(self.env, params))
        if not hasattr(box, "low") or len(box.shape) != 1:
            raise ValueError(f"DiscretizedAction needs an environment whose action is a bounded vector, got {box}.")
        known = [np.asarray(x) for x in (box.low, box.high) if not isinstance(x, jax.core.Tracer)]
        if not all(np.isfinite(x).all() for x in known):
            raise ValueError(f"DiscretizedAction needs finite bounds, got {box.low} and {box.high}.")
        return box
