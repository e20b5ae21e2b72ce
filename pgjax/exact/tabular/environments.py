"""Tabular processes and a counter as environments: rollouts of what is known in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from pgjax import _checks
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states

Array = jax.Array


@struct.dataclass
class TabularState(environment.EnvState):
    """Where an episode of `TabularEnvironment` stands.

    Args:
        time: scalar int32, steps taken.
        state: scalar int32, index of the state.

    Returns:
        A frozen pytree.
    """

    time: Any
    state: Any


@struct.dataclass
class TabularParams:
    """What `TabularEnvironment` runs on.

    Args:
        mdp: the `TabularMDP` to follow; its discount is not used.
        time_limit: scalar int32, steps after which an episode is truncated.

    Returns:
        A frozen pytree.
    """

    mdp: TabularMDP
    time_limit: Any


class TabularEnvironment(environment.Environment[TabularState, TabularParams]):
    """A tabular process as a gymnax environment with one-hot observations.

    Entering a terminal state terminates an episode, and so does reaching the horizon of the process. A
    ``time_limit`` truncates it. The reward of a step is its expectation, r(s, a).

    Shapes: obs [S] float32; action scalar int; reward scalar float32.

    Args:
        mdp: the `TabularMDP` to follow.
        time_limit: steps after which an episode is truncated, or None.

    Returns:
        An environment; ``default_params`` holds the process.

    Raises:
        TypeError: if time_limit is not an int.
        ValueError: if time_limit < 1.

    Example:
        >>> import jax, pgjax.exact as exact
        >>> env = exact.TabularEnvironment(exact.two_state(), time_limit=10)
        >>> obs, state = env.reset(jax.random.key(0), env.default_params)
        >>> print(obs)
        [1. 0.]
    """

    def __init__(self, mdp: TabularMDP, *, time_limit: int | None = None) -> None:
        limit = jnp.iinfo(jnp.int32).max if time_limit is None else _checks.as_positive_int("time_limit", time_limit)
        self._params = TabularParams(mdp=mdp, time_limit=int(limit))

    @property
    def default_params(self) -> TabularParams:
        """The process that the environment was built with."""
        return self._params

    def reset_env(self, key: Array, params: TabularParams) -> tuple[Array, TabularState]:
        """Draw a first state."""
        state = TabularState(time=jnp.int32(0), state=_draw(key, params.mdp.initial))
        return self.get_obs(state, params), state

    def step_env(
        self, key: Array, state: TabularState, action: Any, params: TabularParams
    ) -> tuple[Array, TabularState, Array, Array, dict[str, Any]]:
        """Draw the next state."""
        mdp = params.mdp
        reward = mdp.reward[state.state, action].astype(jnp.float32)
        after = _draw(key, mdp.transition[state.state, action])
        state = TabularState(time=state.time + 1, state=after)
        return self.get_obs(state, params), state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state: TabularState, params: Any = None, key: Array | None = None) -> Array:
        """Give the one-hot state."""
        size = (self._params if params is None else params).mdp.num_states
        return jax.nn.one_hot(state.state, size, dtype=jnp.float32)

    def is_terminated(self, state: TabularState, params: TabularParams) -> Array:
        """Tell whether the state is terminal or the horizon is reached."""
        ended = terminal_states(params.mdp)[state.state]
        return ended if params.mdp.horizon is None else ended | (state.time >= params.mdp.horizon)

    def is_truncated(self, state: TabularState, params: TabularParams) -> Array:
        """Tell whether the time limit is reached."""
        return jnp.asarray(state.time >= params.time_limit)

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self._params.mdp.num_actions

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Give the space of actions."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Give the space of observations."""
        return spaces.Box(0.0, 1.0, (self._params.mdp.num_states,))


def _draw(key: Array, probs: Array) -> Array:
    """One uniform number against the cumulative distribution; what has no probability is never drawn."""
    cumulative = jnp.cumsum(probs)
    return jnp.sum(jax.random.uniform(key, dtype=probs.dtype) * cumulative[-1] >= cumulative).astype(jnp.int32)


@struct.dataclass
class CounterParams:
    """When an episode of `CounterEnvironment` ends.

    Args:
        terminate_at: scalar int32, steps after which it terminates.
        truncate_at: scalar int32, steps after which it is truncated.

    Returns:
        A frozen pytree.
    """

    terminate_at: Any
    truncate_at: Any


class CounterEnvironment(environment.Environment[environment.EnvState, CounterParams]):
    """An environment that counts: step t pays t and shows t; actions have no effect.

    It terminates after ``terminate_at`` steps and is truncated after ``truncate_at``; both may happen at once.

    Shapes: obs [1] float32; action scalar int; reward scalar float32.

    Args:
        terminate_at: steps after which an episode terminates, or None.
        truncate_at: steps after which it is truncated, or None.

    Returns:
        An environment.

    Raises:
        TypeError: if a number of steps is not an int.
        ValueError: if a number of steps is below 1.
    """

    def __init__(self, *, terminate_at: int | None = None, truncate_at: int | None = None) -> None:
        never = int(jnp.iinfo(jnp.int32).max)
        self._params = CounterParams(
            terminate_at=never if terminate_at is None else _checks.as_positive_int("terminate_at", terminate_at),
            truncate_at=never if truncate_at is None else _checks.as_positive_int("truncate_at", truncate_at),
        )

    @property
    def default_params(self) -> CounterParams:
        """The limits that the environment was built with."""
        return self._params

    def reset_env(self, key: Array, params: CounterParams) -> tuple[Array, environment.EnvState]:
        """Start at zero."""
        state = environment.EnvState(time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: environment.EnvState, action: Any, params: CounterParams
    ) -> tuple[Array, environment.EnvState, Array, Array, dict[str, Any]]:
        """Pay the count and raise it."""
        reward = jnp.asarray(state.time, jnp.float32)
        state = environment.EnvState(time=state.time + 1)
        return self.get_obs(state), state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state: environment.EnvState, params: Any = None, key: Array | None = None) -> Array:
        """Give the count."""
        return jnp.asarray(state.time, jnp.float32)[None]

    def is_terminated(self, state: environment.EnvState, params: CounterParams) -> Array:
        """Tell whether the count reached its end."""
        return jnp.asarray(state.time >= params.terminate_at)

    def is_truncated(self, state: environment.EnvState, params: CounterParams) -> Array:
        """Tell whether the time limit is reached."""
        return jnp.asarray(state.time >= params.truncate_at)

    @property
    def num_actions(self) -> int:
        """Number of actions, which have no effect."""
        return 2

    def action_space(self, params: Any = None) -> spaces.Discrete:
        """Give the space of actions."""
        return spaces.Discrete(self.num_actions)

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Give the space of observations."""
        return spaces.Box(0.0, jnp.inf, (1,))
