"""An environment whose actions lie in a box of any bounds: it shows and pays the action."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

Array = jax.Array


@struct.dataclass
class BoxState(environment.EnvState):
    time: Any
    seen: Any  # the last action


@struct.dataclass
class BoxParams(environment.EnvParams):
    max_steps_in_episode: int = 4


class Box(environment.Environment[BoxState, BoxParams]):
    """Episodes of four steps; the reward is what `pays(action)` says."""

    def __init__(self, low: Any, high: Any, pays: Any = jnp.sum):
        self.low, self.high, self.pays = np.asarray(low, np.float32), np.asarray(high, np.float32), pays

    @property
    def default_params(self) -> BoxParams:
        return BoxParams()

    def reset_env(self, key: Array, params: BoxParams) -> tuple[Array, BoxState]:
        seen = jnp.zeros(self.low.shape)
        return seen, BoxState(time=jnp.int32(0), seen=seen)

    def step_env(
        self, key: Array, state: BoxState, action: Any, params: BoxParams
    ) -> tuple[Array, BoxState, Array, Array, dict[Any, Any]]:
        after = BoxState(time=state.time + 1, seen=jnp.asarray(action, jnp.float32))
        return after.seen, after, self.pays(after.seen), jnp.bool_(False), {}

    def get_obs(self, state: BoxState, params: Any = None, key: Any = None) -> Array:
        return state.seen

    def action_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(self.low, self.high, self.low.shape)

    def observation_space(self, params: Any = None) -> spaces.Box:
        return spaces.Box(-np.inf, np.inf, self.low.shape)
