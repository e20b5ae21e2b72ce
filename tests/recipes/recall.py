"""A task that asks for a memory, with observations far from 0, and a small recurrent policy in plain JAX.

A cue of +1 or -1 is shown at the first step of an episode; at the last of three, the reward is the cue times the
action, a number in [-1, 1]. Without a memory a policy earns 0 on average, with one it may earn 1. In half of
the environments the episode terminates then, in the others a limit cuts it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

import pgjax as pg

Array = jax.Array
LENGTH, NUM_ENVS, NUM_STEPS, HIDDEN = 3, 16, 4, 6


@struct.dataclass
class RecallState(environment.EnvState):
    time: Any
    cue: Any


@struct.dataclass
class RecallParams(environment.EnvParams):
    max_steps_in_episode: Any = 10**6
    ends: Any = True


class Recall(environment.Environment[RecallState, RecallParams]):
    @property
    def default_params(self) -> RecallParams:
        return RecallParams()

    def reset_env(self, key: Array, params: RecallParams) -> tuple[Array, RecallState]:
        state = RecallState(time=jnp.int32(0), cue=jnp.float32(2.0 * jax.random.bernoulli(key) - 1.0))
        return self.get_obs(state), state

    def step_env(
        self, key: Array, state: RecallState, action: Any, params: RecallParams
    ) -> tuple[Array, RecallState, Array, Array, dict[Any, Any]]:
        after = RecallState(time=state.time + 1, cue=state.cue)
        last = after.time == LENGTH
        return self.get_obs(after), after, jnp.where(last, state.cue * action[0], 0.0), last & params.ends, {}

    def get_obs(self, state: RecallState, params: Any = None, key: Array | None = None) -> Array:
        shown = jnp.where(state.time == 0, state.cue, 0.0)
        return 100.0 + 20.0 * jnp.stack([shown, jnp.asarray(state.time, jnp.float32)])

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (1,))

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


def task() -> tuple[Recall, RecallParams]:
    ends = jnp.arange(NUM_ENVS) % 2 == 0
    return Recall(), RecallParams(max_steps_in_episode=jnp.where(ends, 10**6, LENGTH), ends=ends)


def init_params(key: Array) -> dict[str, Array]:
    keys = iter(jax.random.split(key, 4))
    draw = lambda *shape: 0.5 * jax.random.normal(next(keys), shape)  # noqa: E731
    return {"seen": draw(2, HIDDEN), "kept": draw(HIDDEN, HIDDEN), "actor": draw(HIDDEN, 2), "critic": draw(HIDDEN)}


def remember(params: Any, obs: Array, memory: Array) -> Array:
    return jnp.tanh(obs @ params["seen"] + memory @ params["kept"])


def head(params: Any, memory: Array) -> pg.TanhNormal:
    loc, log_scale = jnp.split(memory @ params["actor"], 2, axis=-1)
    return pg.TanhNormal(loc, jnp.exp(0.5 * jnp.tanh(log_scale) - 0.5))


def policy(params: Any, obs: Array, memory: Array) -> tuple[pg.TanhNormal, Array, Array]:
    memory = remember(params, obs, memory)
    return head(params, memory), memory @ params["critic"], memory


def value(params: Any, obs: Array, memory: Array) -> Array:
    return remember(params, obs, memory) @ params["critic"]


def forgetful(params: Any, obs: Array) -> pg.TanhNormal:
    return head(params, remember(params, obs, jnp.zeros((*obs.shape[:-1], HIDDEN))))


def forgetful_value(params: Any, obs: Array) -> Array:
    return value(params, obs, jnp.zeros((*obs.shape[:-1], HIDDEN)))


SIZES = {"num_envs": NUM_ENVS, "num_steps": NUM_STEPS, "normalize_observations": True, "normalize_rewards": True}
WITH_MEMORY = {
    "policy": policy, "value": value, "init_params": init_params, "policy_state": jnp.zeros((NUM_ENVS, HIDDEN)),
}  # fmt: skip
WITHOUT = {"policy": forgetful, "value": forgetful_value, "init_params": init_params}
