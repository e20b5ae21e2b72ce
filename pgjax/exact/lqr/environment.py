"""Linear-quadratic problems as environments."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from pgjax import _checks
from pgjax.exact.lqr.system import LQR

Array = jax.Array


@struct.dataclass
class LQRState(environment.EnvState):
    """Where an episode of `LQREnvironment` stands.

    Args:
        time: scalar int32, steps taken.
        x: [n] float32, the state of the system.

    Returns:
        A frozen pytree.
    """

    time: Any
    x: Any


@struct.dataclass
class LQRParams:
    """What `LQREnvironment` runs on.

    Args:
        lqr: the system; its discount and action covariance are not used.
        time_limit: scalar int32, steps after which an episode is truncated.

    Returns:
        A frozen pytree.
    """

    lqr: LQR
    time_limit: Any


class LQREnvironment(environment.Environment[LQRState, LQRParams]):
    """A linear-quadratic system as a gymnax environment; its reward is minus the cost.

    The horizon of the system terminates an episode; a ``time_limit`` truncates it. Transitions are
    differentiable (``with_transition_gradients()``).

    Shapes: obs [n] float32; action [m] float; reward scalar float32.

    Args:
        lqr: the system.
        time_limit: steps after which an episode is truncated, or None.

    Returns:
        An environment; ``default_params`` holds the system.

    Raises:
        TypeError: if time_limit is not an int.
        ValueError: if time_limit < 1.
    """

    _supports_transition_gradients = True

    def __init__(self, lqr: LQR, *, time_limit: int | None = None) -> None:
        limit = jnp.iinfo(jnp.int32).max if time_limit is None else _checks.as_positive_int("time_limit", time_limit)
        self._params = LQRParams(lqr=lqr, time_limit=int(limit))

    @property
    def default_params(self) -> LQRParams:
        """The system that the environment was built with."""
        return self._params

    def reset_env(self, key: Array, params: LQRParams) -> tuple[Array, LQRState]:
        """Draw a first state."""
        lqr = params.lqr
        x = (lqr.initial_mean + _normal(key, lqr.initial_covariance)).astype(jnp.float32)
        return x, LQRState(time=jnp.int32(0), x=x)

    def step_env(
        self, key: Array, state: LQRState, action: Any, params: LQRParams
    ) -> tuple[Array, LQRState, Array, Array, dict[str, Any]]:
        """Move the system and charge the cost."""
        lqr, x, u = params.lqr, state.x, jnp.asarray(action)
        reward = -(x @ lqr.Q @ x + u @ lqr.R @ u).astype(jnp.float32)
        after = (lqr.A @ x + lqr.B @ u + _normal(key, lqr.noise_covariance)).astype(jnp.float32)
        obs, state = self._apply_transition_gradient_policy(after, LQRState(time=state.time + 1, x=after))
        return obs, state, reward, self.is_terminated(state, params), {}

    def get_obs(self, state: LQRState, params: Any = None, key: Array | None = None) -> Array:
        """Give the state of the system."""
        return state.x

    def is_terminated(self, state: LQRState, params: LQRParams) -> Array:
        """Tell whether the horizon is reached."""
        return jnp.asarray(False if params.lqr.horizon is None else state.time >= params.lqr.horizon)

    def is_truncated(self, state: LQRState, params: LQRParams) -> Array:
        """Tell whether the time limit is reached."""
        return jnp.asarray(state.time >= params.time_limit)

    def action_space(self, params: Any = None) -> spaces.Box:
        """Give the space of actions."""
        return spaces.Box(-jnp.inf, jnp.inf, (self._params.lqr.B.shape[1],))

    def observation_space(self, params: Any = None) -> spaces.Box:
        """Give the space of observations."""
        return spaces.Box(-jnp.inf, jnp.inf, (self._params.lqr.B.shape[0],))


def _normal(key: Array, covariance: Array) -> Array:
    values, vectors = jnp.linalg.eigh(covariance)
    noise = jax.random.normal(key, values.shape, values.dtype)
    return vectors @ (jnp.sqrt(jnp.maximum(values, 0.0)) * noise)
