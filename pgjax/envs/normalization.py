"""Running statistics of observations and returns, as pure state: nothing changes unless it is updated."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@struct.dataclass
class RunningStatistics:
    """Mean and variance of everything seen so far. Frozen by not updating it."""

    count: Array  # float32, observations seen
    mean: Any  # like one observation, float32
    var: Any  # like one observation, float32, population variance


@compiled()
def init_statistics(obs: Any) -> RunningStatistics:
    """Start running statistics for observations like the one given: mean 0, variance 1, count 0.

    Shapes: obs [...] without batch axes; mean and var alike.

    Args:
        obs: one observation, any pytree of arrays; only its shapes are used.

    Returns:
        The statistics.

    Raises:
        TypeError: if a leaf is no array.
    """
    zeros = jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), obs)
    ones = jax.tree.map(lambda x: jnp.ones(jnp.shape(x), jnp.float32), obs)
    return RunningStatistics(count=jnp.float32(0.0), mean=zeros, var=ones)


@compiled()
def update_statistics(statistics: RunningStatistics, obs: Any) -> RunningStatistics:
    """Merge a batch of observations into running statistics.

        n = n₁ + n₂,  d = m₂ - m₁,  m = m₁ + d n₂/n,  M = M₁ + M₂ + d² n₁n₂/n     with M = n · variance

    Shapes: obs [..., features] with any leading axes beyond those of the statistics.

    Args:
        statistics: the statistics so far.
        obs: a batch of observations, a pytree like the one the statistics were made for.

    Returns:
        The new statistics. Update them after the data were used, so that old and new log-probabilities of one
        batch are computed from the same ones.

    Raises:
        ValueError: if obs has another tree structure or other trailing axes than the statistics, if its leaves
            have different batch axes, or if it is empty.
    """
    _checks.require_same_structure("obs", obs, statistics.mean, of="the statistics")
    structure: Any = jax.tree.structure(statistics.mean)
    new_mean, new_var, batches = [], [], set()
    for mean, var, leaf in zip(*map(jax.tree.leaves, (statistics.mean, statistics.var, obs)), strict=True):
        leaf = _checks.as_array("obs", leaf)
        _checks.require_trailing_shape("obs", leaf, mean.shape, of="the statistics")
        _checks.require_nonempty("obs", leaf)
        batches.add(leaf.shape[: leaf.ndim - mean.ndim])
        share = leaf.size / mean.size / (statistics.count + leaf.size / mean.size)
        batch_mean, batch_var = _moments(leaf.astype(jnp.float32), leaf.ndim - mean.ndim)
        delta = batch_mean - mean
        new_mean.append(mean + delta * share)
        new_var.append(var * (1 - share) + batch_var * share + delta**2 * share * (1 - share))
    if len(batches) > 1:
        raise ValueError(f"the leaves of obs must have the same batch axes, got {sorted(map(list, batches))}.")
    total = statistics.count + math.prod(batches.pop())
    return RunningStatistics(total, structure.unflatten(new_mean), structure.unflatten(new_var))


def _moments(x: Array, num_axes: int) -> tuple[Array, Array]:
    """Mean and variance over the leading axes, taken about one of the rows: a large offset costs no digits."""
    axes = tuple(range(num_axes))
    origin = x[(slice(0, 1),) * num_axes]
    shifted = x - origin
    return origin.reshape(x.shape[num_axes:]) + shifted.mean(axes), shifted.var(axes)


@compiled()
def normalize(statistics: RunningStatistics, obs: Any, *, clip: Array | float = 10.0) -> Any:
    """Standardise observations by running statistics, which it treats as constants.

        (obs - mean) / sqrt(var + 1e-8), clipped to ±clip; near 0 where an observation never varies

    Shapes: obs [..., features]; result alike.

    Args:
        statistics: from `init_statistics` and `update_statistics`.
        obs: observations with any leading axes.
        clip: bound of the result, dimensionless.

    Returns:
        The standardised observations, float32. Before the first update they come back as they are, clipped.

    Raises:
        ValueError: if obs has another tree structure or other trailing axes than the statistics.
    """
    _checks.require_same_structure("obs", obs, statistics.mean, of="the statistics")
    statistics = jax.lax.stop_gradient(statistics)

    def standardize(mean: Array, var: Array, x: Any) -> Array:
        x = jnp.asarray(x, jnp.float32)
        _checks.require_trailing_shape("obs", x, mean.shape, of="the statistics")
        mean, var = jnp.broadcast_to(mean, x.shape), jnp.broadcast_to(var, x.shape)
        return jnp.clip((x - mean) * jax.lax.rsqrt(var + 1e-8), -clip, clip)

    return jax.tree.map(standardize, statistics.mean, statistics.var, obs)


@struct.dataclass
class RewardScale:
    """Running scale of rewards: the standard deviation of the discounted return of each environment."""

    statistics: RunningStatistics
    running_return: Array  # [B] float32, or [B, A]


@compiled("num_envs", "agents")
def init_reward_scale(*, num_envs: int, agents: tuple[int, ...] = ()) -> RewardScale:
    """Start the running reward scale for num_envs environments.

    Shapes: running_return [num_envs], or [num_envs, A] for agents = (A,).

    Args:
        num_envs: number of environments, at least 1; static.
        agents: the axes of the agents, `env.agents`; static.

    Returns:
        The state, with scale 1.

    Raises:
        TypeError: if num_envs is not an int.
        ValueError: if num_envs < 1.
    """
    num_envs = _checks.as_positive_int("num_envs", num_envs)
    return RewardScale(init_statistics(jnp.float32(0.0)), jnp.zeros((num_envs, *agents), jnp.float32))


@compiled(unit_interval=("discount",))
def update_reward_scale(scale: RewardScale, reward: Array, *, done: Array, discount: Array | float) -> RewardScale:
    """Merge a window of rewards into the running reward scale.

        R_t = γ R_{t-1} (1 - done_{t-1}) + r_t;  the scale is the standard deviation of all R seen

    Shapes: reward, done [T, B].

    Args:
        scale: the state so far.
        reward: [T, B] float, reward units, not scaled.
        done: [T, B] bool, `Trajectory.done`.
        discount: γ, scalar in [0, 1].

    Returns:
        The new state.

    Raises:
        TypeError: if done is not boolean or reward is not floating.
        ValueError: if shapes differ, if the state was made for another number of environments, or if discount
            is no scalar or a number outside [0, 1].
    """
    reward = _checks.as_floating("reward", reward, ndim_at_least=2)
    _checks.require_trailing_shape("reward", reward, scale.running_return.shape, of="the state's running_return")
    done = _checks.as_boolean("done", done, like=reward)
    discount = _checks.as_scalar_or_shape("discount", discount, ()).astype(jnp.float32)

    def step(running: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward_t, done_t = row
        running = discount * running + reward_t
        return jnp.where(done_t, 0.0, running), running

    last, returns = jax.lax.scan(step, scale.running_return, (reward.astype(jnp.float32), done))
    return RewardScale(update_statistics(scale.statistics, returns), last)


@compiled()
def scale_reward(scale: RewardScale, reward: Array, *, clip: Array | float = 10.0) -> Array:
    """Divide rewards by the running scale; the mean is left alone, since subtracting it would change the task.

        r / sqrt(var + 1e-8), clipped to ±clip; ±clip or 0 where the discounted return never varied

    Shapes: reward [...]; result alike.

    Args:
        scale: from `init_reward_scale` and `update_reward_scale`.
        reward: [...] float, reward units.
        clip: bound of the result, dimensionless.

    Returns:
        [...] float32, dimensionless rewards.

    Raises:
        TypeError: if reward is not floating.
    """
    reward = _checks.as_floating("reward", reward)
    return jnp.clip(reward * jax.lax.rsqrt(scale.statistics.var + 1e-8), -clip, clip)
