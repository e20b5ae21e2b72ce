"""Tiny environments, each of which isolates one thing, and policies for them.

`Probe` is a gymnax environment; the others show forms that users bring along.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

import pgjax as pg

Array = jax.Array


@struct.dataclass
class ProbeState(environment.EnvState):
    time: Any
    cue: Any  # +1 or -1, drawn at the start of an episode


@struct.dataclass
class ProbeParams(environment.EnvParams):
    max_steps_in_episode: Any = 10**6
    length: Any = 1  # steps after which an episode terminates
    chance: Any = 0.0  # probability of a termination at any step
    bonus: Any = 0.0  # added to each reward


@dataclass(frozen=True)
class Probe(environment.Environment[ProbeState, ProbeParams]):
    """An episode shows (time, cue) and rewards by `kind`.

    constant: 1 at each step. observation: the cue. delayed: 1 at the last step. action: 1 for action 1, else -1.
    """

    kind: str = "constant"
    length: int = 1  # terminates after so many steps
    limit: int = 10**6  # truncates after so many steps
    chance: float = 0.0  # terminates at random

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams(max_steps_in_episode=self.limit, length=self.length, chance=self.chance)

    def reset_env(self, key: Array, params: ProbeParams) -> tuple[Array, ProbeState]:
        state = ProbeState(time=0, cue=2.0 * jax.random.bernoulli(key) - 1.0)
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: ProbeState, action: Any, params: ProbeParams
    ) -> tuple[Array, ProbeState, Array, Array, dict[Any, Any]]:
        after = ProbeState(time=state.time + 1, cue=state.cue)
        terminated = (after.time >= params.length) | jax.random.bernoulli(key, params.chance)
        rewards = {
            "constant": jnp.float32(1.0),
            "observation": state.cue,
            "delayed": jnp.float32(terminated),
            "action": 2.0 * jnp.asarray(action, jnp.float32) - 1.0,
        }
        return self.get_obs(after), after, rewards[self.kind] + params.bonus, terminated, {}

    def get_obs(self, state: ProbeState, params: Any = None, key: Array | None = None) -> Array:
        return jnp.stack([jnp.asarray(state.time, jnp.float32), jnp.asarray(state.cue, jnp.float32)])

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


CONSTANT_REWARD = Probe("constant")
REWARD_IS_OBSERVATION = Probe("observation")
DELAYED_REWARD = Probe("delayed", length=3)
ACTION_REWARD = Probe("action")
TERMINATES = Probe("constant", length=4)
TRUNCATES = Probe("constant", length=10**6, limit=4)
BOTH_AT_ONCE = Probe("constant", length=4, limit=4)
RANDOM_LENGTH = Probe("constant", length=10**6, chance=0.2)


@dataclass(frozen=True)
class PytreeProbe(Probe):
    """Shows a dictionary, one leaf of it an integer."""

    def get_obs(self, state: ProbeState, params: Any = None, key: Array | None = None) -> Any:
        return {"time": jnp.asarray(state.time, jnp.int32), "cue": jnp.asarray(state.cue, jnp.float32)[None]}


class Bare:
    """No gymnax class, no parameters: six values, resets by itself. Counts to a limit from where the key says."""

    limit = 3

    def reset(self, key: Array, params: Any) -> tuple[Array, Array]:
        start = jax.random.randint(key, (), 0, 2)
        return start, start

    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        last = state + 1
        truncated = last >= self.limit
        start, _ = self.reset(key, params)
        after = jnp.where(truncated, start, last)
        return after, after, jnp.int32(1), jnp.bool_(False), truncated, {"final_observation": last}


class FiveValues(Bare):
    """The older form, with a step that resets and one that does not."""

    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        after, state, reward, _, done, info = super().step(key, state, action, params)
        return after, state, reward, done, info

    def step_env(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        last = state + 1
        return last, last, jnp.int32(1), last >= self.limit, {}


class CountsEpisodes:
    """Resets by itself and remembers how often: step k of episode n pays 100 n + 1, after params["length"] steps."""

    default_params = {"length": 1}  # noqa: RUF012  nobody writes to it

    def reset(self, key: Array, params: Any) -> tuple[Array, Array]:
        return jnp.float32(0), jnp.zeros(2, jnp.int32)

    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        episode, time = state[0], state[1] + 1
        ended = time >= params["length"]
        after = jnp.where(ended, jnp.stack([episode + 1, 0]), jnp.stack([episode, time]))
        info = {"final_observation": time.astype(jnp.float32)}
        return after[1].astype(jnp.float32), after, 100 * episode + 1, ended, jnp.bool_(False), info


class NeverEnds(Bare):
    """Has no limit and no parameters."""

    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        never = jnp.bool_(False)
        return state + 1, state + 1, jnp.float32(1), never, never, {"final_observation": state + 1}


class NoFinalObservation(Bare):
    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        return *super().step(key, state, action, params)[:5], {}


class VectorReward(Bare):
    def step(self, key: Array, state: Array, action: Any, params: Any) -> tuple[Any, ...]:
        obs, state, reward, *rest = super().step(key, state, action, params)
        return obs, state, reward[None], *rest


@struct.dataclass
class AgentsState(environment.EnvState):
    time: Any
    seat: Any  # [A] int32, drawn at the start of an episode


@dataclass(frozen=True)
class TwoAgents(environment.Environment[AgentsState, ProbeParams]):
    """Two agents, who see (time, own index, seat) and are paid 10 for their own action and 1 for the other's.

    `apart` makes the first end after two steps and the second after `length`; else both end with the environment.
    """

    length: int = 3
    limit: int = 10**6
    apart: bool = False
    agents: tuple[int, ...] = (2,)

    @property
    def default_params(self) -> ProbeParams:
        return ProbeParams(max_steps_in_episode=self.limit, length=self.length)

    def reset_env(self, key: Array, params: ProbeParams) -> tuple[Array, AgentsState]:
        state = AgentsState(time=0, seat=jax.random.permutation(key, jnp.arange(2, dtype=jnp.int32)))
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: AgentsState, action: Any, params: ProbeParams
    ) -> tuple[Array, AgentsState, Array, Any, dict[Any, Any]]:
        after = AgentsState(time=state.time + 1, seat=state.seat)
        terminated: Any = after.time >= params.length
        if self.apart:
            terminated = after.time >= jnp.stack([jnp.minimum(2, params.length), jnp.asarray(params.length)])
        return self.get_obs(after), after, 10 * action + action[::-1] + params.bonus, terminated, {}

    def get_obs(self, state: AgentsState, params: Any = None, key: Array | None = None) -> Array:
        time = jnp.full(2, state.time, jnp.float32)
        return jnp.stack([time, jnp.arange(2.0), state.seat.astype(jnp.float32)], axis=-1)

    def action_space(self, params: Any = None) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (3,))


def categorical(params: Any, obs: Array) -> pg.Categorical:
    """Logits linear in the first two features."""
    return pg.Categorical(obs[..., :2] * params)


def coin(params: Any, obs: Any) -> pg.Categorical:
    """Whatever is seen, heads with probability sigmoid(params)."""
    batch = jax.tree.leaves(obs)[0].shape[: 1 if not hasattr(obs, "ndim") else max(obs.ndim - 1, 1)]
    return pg.Categorical(jnp.broadcast_to(jnp.stack([0.0 * params, params]), (*batch, 2)))


def start(env: Any, env_params: Any = None, *, num_envs: int = 4, seed: int = 0, **kwargs: Any) -> pg.RolloutState:
    return pg.init_rollout(jax.random.key(seed), env, env_params, num_envs=num_envs, **kwargs)


def collect(
    env: Any,
    env_params: Any = None,
    *,
    num_steps: int = 6,
    num_envs: int = 4,
    policy: Any = coin,
    params: Any = 0.0,
    seed: int = 1,
    state: pg.RolloutState | None = None,
    **kwargs: Any,
) -> tuple[pg.RolloutState, pg.Trajectory]:
    """A short rollout, from the start unless a state is given."""
    state = start(env, env_params, num_envs=num_envs) if state is None else state
    key = jax.random.key(seed)
    return pg.rollout(key, params, state, policy=policy, env=env, env_params=env_params, num_steps=num_steps, **kwargs)
