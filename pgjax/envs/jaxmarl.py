"""Environments of JaxMARL (extra `envs`): each agent is a row of the arrays."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from pgjax import _checks
from pgjax.envs.resets import FiveValueAdapter

Array = jax.Array

__all__ = ["JaxMARL", "from_jaxmarl"]


@dataclass(frozen=True)
class JaxMARL:
    """An environment of JaxMARL without resets, its dicts by agent as arrays with one row for each agent.

    Rows are in the order of ``env.agents``. Vectors of unequal length are padded at the end: observations with zeros,
    actions with numbers that are cut off again. Where agents have unequal numbers of discrete actions, those that an
    agent does not have stand for the last that it has.

    Shapes: obs [A, F]; of equal arrays [A, ...]; action [A, D], discrete [A]; reward, done [A].

    Args:
        env: an environment of JaxMARL, see ``jaxmarl.make``.

    Returns:
        The environment with `agents`, `reset` and `step_env`; `from_jaxmarl` makes one of the six-value form of it.

    Raises:
        TypeError: if env has no agents, or if their action spaces are not all boxes of one axis or all discrete.
        ValueError: if two agents have different bounds for the same component of the action.
    """

    env: Any

    def __post_init__(self) -> None:
        names = getattr(self.env, "agents", None)
        if not (isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names)):
            raise TypeError(
                f"env must be an environment of JaxMARL, with the names of its agents in env.agents, got "
                f"{type(self.env).__name__}. Make one with jaxmarl.make."
            )
        for method in ("reset", "step_env", "action_space"):
            if not callable(getattr(self.env, method, None)):
                raise TypeError(
                    f"env must have a method {method}, as those of JaxMARL do; {type(self.env).__name__} has none."
                )
        self.action_space()

    @property
    def agents(self) -> tuple[int]:
        """(A,), the axis of the agents."""
        return (len(self.env.agents),)

    @property
    def observation_sizes(self) -> tuple[int, ...]:
        """For each agent the size of its own observation: what follows in its row is padding."""
        obs, _ = jax.eval_shape(self._reset, jax.random.key(0))
        return tuple(obs[name].size for name in self.env.agents)

    @property
    def action_sizes(self) -> tuple[int, ...]:
        """For each agent the components of its own action, or the number of its discrete actions."""
        return tuple(int(space.n) if self._discrete else int(space.shape[0]) for space in self._spaces)

    def action_space(self, params: Any = None) -> Any:
        """Say what one agent does: the box, or the number of choices, of the agent that has most."""
        kinds = {"n" if hasattr(space, "n") else "low" if _is_vector(space) else "" for space in self._spaces}
        if len(kinds) != 1 or "" in kinds:
            raise TypeError(
                "env must have action spaces that are all boxes of one axis or all discrete, got "
                f"{[type(space).__name__ for space in self._spaces]}. Wrap env, or leave out the agents that differ."
            )
        size = max(self.action_sizes)
        if self._discrete:
            return spaces.Discrete(size)
        bounds = np.full((2, len(self._spaces), size), np.nan)
        for i, space in enumerate(self._spaces):
            for bound, x in zip(bounds, (space.low, space.high), strict=True):
                bound[i, : space.shape[0]] = np.broadcast_to(np.asarray(x), space.shape)
        low, high = np.nanmin(bounds[0], 0), np.nanmax(bounds[1], 0)
        if not np.all(np.isnan(bounds) | (bounds == np.stack([low, high])[:, None])):
            raise ValueError(
                "env must have the same bounds for each component of the action in all agents, got low "
                f"{bounds[0].tolist()} and high {bounds[1].tolist()}. Scale the actions of some in a wrapper."
            )
        return spaces.Box(jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32), (size,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Say what one agent sees."""
        obs, _ = jax.eval_shape(self.reset, jax.random.key(0))
        return spaces.Box(-jnp.inf, jnp.inf, obs.shape[1:], obs.dtype)

    def reset(self, key: Array, params: Any = None) -> tuple[Array, Any]:
        """Start an episode: (obs, state)."""
        obs, state = self._reset(key)
        return self._rows(obs), state

    def step_env(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, done, info)."""
        by_name = self._by_name(action)
        with jax.numpy_rank_promotion("allow"):
            obs, state, reward, done, info = self.env.step_env(key, state, by_name)
        rewards, dones = (jnp.stack([jnp.asarray(x[name]) for name in self.env.agents]) for x in (reward, done))
        return self._rows(obs), state, rewards, dones | done["__all__"], info

    @property
    def _spaces(self) -> list[Any]:
        return [self.env.action_space(name) for name in self.env.agents]

    @property
    def _discrete(self) -> bool:
        return hasattr(self._spaces[0], "n")

    def _reset(self, key: Array) -> tuple[dict[str, Array], Any]:
        with jax.numpy_rank_promotion("allow"):
            obs, state = self.env.reset(key)
        return obs, state

    def _rows(self, obs: dict[str, Array]) -> Array:
        rows = [obs[name] for name in self.env.agents]
        if len({row.shape for row in rows}) > 1:
            rows = [row.reshape(-1) for row in rows]
            size = max(row.size for row in rows)
            rows = [jnp.pad(row, (0, size - row.size)) for row in rows]
        return jnp.stack(rows)

    def _by_name(self, action: Array) -> dict[str, Array]:
        wanted = self.agents if self._discrete else (*self.agents, max(self.action_sizes))
        if jnp.shape(action) != wanted:
            raise ValueError(
                f"action must have shape {list(wanted)}, one row for each agent, got {list(jnp.shape(action))}."
            )
        if self._discrete:
            rows = [jnp.minimum(x, n - 1) for x, n in zip(action, self.action_sizes, strict=True)]
        else:
            rows = [x[:size] for x, size in zip(action, self.action_sizes, strict=True)]
        return dict(zip(self.env.agents, rows, strict=True))


def from_jaxmarl(env: Any, *, max_steps: int | None = None) -> FiveValueAdapter:
    """Adapt an environment of JaxMARL: agents as one more axis, and an end that is cut told from one that is not.

    JaxMARL says of an episode only that it is over. The particle environments (MPE) know no other end than their limit,
    which cuts an episode after ``env.max_steps + 1`` steps: there the value of what would have followed still counts.
    Of other environments say their limit in max_steps.

    Shapes: obs [A, F], unequal ones padded with zeros; action [A, D], or [A] of discrete actions; reward [A].

    Args:
        env: an environment of JaxMARL, see ``jaxmarl.make``.
        max_steps: the limit that env imposes, environment steps: an episode that lasts so long is truncated there, one
            that ends before is terminated. None reads it off a particle environment; of any other environment it
            takes every end as a termination.

    Returns:
        An environment of the six-value form with `agents` = (A,); see `JaxMARL` for the order of the rows and for the
        padding, whose sizes are in ``observation_sizes`` and ``action_sizes``.

    Raises:
        TypeError: if env is none of JaxMARL, or if its action spaces are not all boxes of one axis or all discrete.
        ValueError: if bounds of actions differ between agents, or max_steps < 1.

    Properties:
        A step with a key is that of ``env.step`` with the same key, also where an episode ends.

    References:
        Rutherford, Ellis, Gallici et al. (2024), JaxMARL: multi-agent RL environments and algorithms in JAX.
        Lowe et al. (2017), Multi-agent actor-critic for mixed cooperative-competitive environments.
    """
    if max_steps is not None:
        max_steps = _checks.as_positive_int("max_steps", max_steps)
    elif any(form.__module__.startswith("jaxmarl.environments.mpe") for form in type(env).__mro__):
        max_steps = int(env.max_steps) + 1  # it compares the steps before the one that it takes
    return FiveValueAdapter(JaxMARL(env), max_steps)


def _is_vector(space: Any) -> bool:
    return hasattr(space, "low") and len(getattr(space, "shape", ())) == 1
