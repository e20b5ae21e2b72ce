"""The gradient through the environment as a candidate: it makes the rollout itself, at the noise of each trajectory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax._types import RolloutState, Trajectory
from pgjax.certify.candidates.arguments import WHOLE
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import pathwise_gradient
from pgjax.exact.lqr.environment import LQREnvironment
from pgjax.rollout import init_rollout, rollout_noise

Array = jax.Array
SMOOTH = ("smooth samples", "differentiable steps")


def pathwise_candidates() -> list[Candidate]:
    """List the estimators that differentiate a rollout.

    Returns:
        The candidates.
    """
    return [
        Candidate(
            "pathwise through the environment", pathwise_gradient, _arguments, data=_start,
            needs=(*WHOLE, *SMOOTH), reference="Heess et al. (2015)",
        )
    ]  # fmt: skip


@struct.dataclass
class _KnownState:
    """Where an episode stands whose disturbances are known: time scalar int, x [n], disturbances [T, n]."""

    time: Any
    x: Any
    disturbances: Any


class _Known(LQREnvironment):
    """A linear-quadratic system whose disturbances stand in its state, in the dtype of the system."""

    def reset_env(self, key: Array, params: Any) -> tuple[Array, Any]:
        lqr = params.lqr
        state = _KnownState(jnp.int32(0), lqr.initial_mean, jnp.zeros((lqr.horizon, *lqr.initial_mean.shape)))
        return state.x, state

    def step_env(self, key: Array, state: Any, action: Any, params: Any) -> tuple[Array, Any, Array, Array, Any]:
        lqr, x, u = params.lqr, state.x, action
        after = lqr.A @ x + lqr.B @ u + state.disturbances[state.time]
        state = state.replace(time=state.time + 1, x=after)
        return after, state, -(x @ lqr.Q @ x + u @ lqr.R @ u), self.is_terminated(state, params), {}


@functools.lru_cache(maxsize=4)  # the environment selects programs: one for each problem
def _environment(problem: Any) -> dict[str, Any]:
    env = _Known(problem.lqr).with_transition_gradients()
    return {"env": env, "env_params": env.default_params}


def _start(problem: Any, trajectory: Trajectory) -> RolloutState:
    """The state that each trajectory started from, with the disturbances that it met."""
    t, run = trajectory, _environment(problem)
    predicted = t.obs @ problem.lqr.A.T + t.action @ problem.lqr.B.T
    state = init_rollout(jax.random.key(0), **run, num_envs=t.reward.shape[1])
    met = jnp.moveaxis(t.next_obs - predicted, 0, 1).astype(state.obs.dtype)
    first = t.obs[0].astype(state.obs.dtype)  # sampled in single precision
    return state.replace(obs=first, env_state=state.env_state.replace(x=first, disturbances=met))


def _arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    """The noise of the actions that were taken; the keys of the environment are not read."""
    t, run = trajectory, _environment(problem)
    distribution = problem.policy(problem.params, t.obs)
    noise = rollout_noise(
        jax.random.key(0), problem.params, _start(problem, t), policy=problem.policy, **run, num_steps=len(t.reward)
    )
    return {**run, "noise": noise.replace(action=(t.action - distribution.loc) / distribution.scale)}
