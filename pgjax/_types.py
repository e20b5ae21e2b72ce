"""The words the library is written in: trajectory, rollout state, policy, value, environment.

`T` is time, `B` stands for any number of batch axes: environments, and after them the agents of each.
"""

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, runtime_checkable

import jax
from flax import struct

Array: TypeAlias = jax.Array
Params: TypeAlias = Any
"""Any pytree of arrays."""


class _Record:
    """What type checkers need to know of flax's dataclasses beside their fields."""

    if TYPE_CHECKING:

        def replace(self, **changes: Any) -> Self: ...


@struct.dataclass
class Trajectory(_Record):
    """What happened in a window of T steps in B environments. Every leaf is [T, B, ...].

    Row t holds the observation, the action chosen in it, and what that action led to. `next_obs[t]`
    is seen *before* any reset, so it differs from `obs[t + 1]` exactly where an episode was cut.
    """

    obs: Any  # [T, B, ...] what the policy saw
    action: Any  # [T, B, ...] what it did
    reward: Array  # [T, B] float, what the action earned
    next_obs: Any  # [T, B, ...] what the action led to, before any reset; None if the rollout kept truncation_value
    terminated: Array  # [T, B] bool, the episode ended by itself: no value follows
    truncated: Array  # [T, B] bool, the episode was cut by a limit: its value still counts
    log_prob: Array  # [T, B] float, nats, log-probability of the action under the policy that took it
    step: Array  # [T, B] int, index inside the episode, carried across rollouts
    raw_action: Any = None  # [T, B, D] the action before squashing, for distributions that squash; else None
    extras: Any = None  # whatever else the policy returned, [T, B, ...]
    truncation_value: Any = None  # [T, B] value of the last observation where truncated, else 0; or None

    @property
    def done(self) -> Array:
        """[T, B] bool: an episode ended here, one way or the other."""
        return self.terminated | self.truncated


@struct.dataclass
class Transition(_Record):
    """One or several steps as one row: what followed an action. Every leaf is [N, ...]; `fold` makes it of a window.

    The target of a critic is `reward + discount * V(next_obs)`: `discount` is 0 where the episode terminated.
    """

    obs: Any  # [N, ...] what the policy saw
    action: Any  # [N, ...] what it did
    reward: Array  # [N] float, discounted sum of what was earned up to next_obs
    discount: Array  # [N] float, weight of the value of next_obs: γ to the number of steps, 0 where terminated
    next_obs: Any  # [N, ...] what they led to, before any reset


@struct.dataclass
class RolloutState(_Record):
    """What the next rollout needs: nothing else is carried. Every leaf is [B, ...].

    Short episodes finish first. Until every environment has finished one, a mean over those that have, such as
    `jnp.nanmean(episode_return)`, is the mean of short episodes; `jnp.mean(episode_return)` is NaN until then.
    From then on it is the mean over the latest episode of each environment, which lags behind a policy that changes:
    `evaluate` plays whole episodes of one policy.
    """

    env_state: Any  # state of each environment
    obs: Any  # observation that the next action will be chosen in
    step: Array  # [B] int32, index of the next step inside its episode
    policy_state: Any  # state of a recurrent policy, or None
    start_policy_state: Any  # what policy_state is set to when an episode starts, or None
    running_return: Array  # [B] float32, undiscounted reward of the running episode so far
    episode_return: Array  # [B] float32, return of each environment's latest whole episode; NaN before the first
    episode_length: Array  # [B] float32, its length in steps; NaN before the first
    num_episodes: Array | None = None  # [B] int32, whole episodes that each environment has finished


@runtime_checkable
class Distribution(Protocol):
    """What a policy returns. Only `log_prob` is needed of a distribution from elsewhere whose actions are given."""

    def sample(self, key: Array) -> Any: ...
    def log_prob(self, action: Any) -> Array: ...


class Policy(Protocol):
    """`policy(params, obs)` -> distribution, or (distribution, extras).

    A recurrent policy is `policy(params, obs, policy_state)` -> (distribution, policy_state), or
    (distribution, extras, policy_state). Either kind must accept any leading batch axes.

    A policy selects the compiled program. Arrays that it reads from its closure, such as those of a module or running
    statistics, keep the values of its first call: pass them in params, or write ``pg.bind(policy, arrays)`` with
    ``policy(arrays, params, obs)``.
    """

    def __call__(self, params: Params, obs: Any, *policy_state: Any) -> Any: ...


class Value(Protocol):
    """`value(params, obs)` -> [...], one number for each observation.

    That of a recurrent policy is `value(params, obs, policy_state)`, with the policy's state from before obs.
    """

    def __call__(self, params: Params, obs: Any, *policy_state: Any) -> Array: ...


class Environment(Protocol):
    """One environment, pure: `gymnax.environments.environment.Environment` from 1.0 on, or anything of the same form.

    `step` resets by itself when an episode ends and gives the last observation before the reset as
    `info["final_observation"]`.
    """

    def reset(self, key: Array, params: Any) -> tuple[Any, Any]: ...
    def step(
        self, key: Array, state: Any, action: Any, params: Any
    ) -> tuple[Any, Any, Array, Array, Array, dict[str, Any]]: ...
