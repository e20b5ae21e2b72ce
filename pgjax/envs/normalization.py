"""Running statistics of observations and returns, as pure state: nothing changes unless it is updated."""

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
        ValueError: if the trailing axes of obs are not those of the statistics, or if obs is empty.
    """
    means, structure = jax.tree.flatten(statistics.mean)
    leaves = structure.flatten_up_to(obs)
    new_mean, new_var, total = [], [], statistics.count
    for mean, var, leaf in zip(means, structure.flatten_up_to(statistics.var), leaves, strict=True):
        leading = leaf.ndim - mean.ndim
        if leading < 0 or leaf.shape[leading:] != mean.shape or leaf.size == 0:
            raise ValueError(
                f"obs must end with the axes of the statistics, {list(mean.shape)}, and not be empty, got {list(leaf.shape)}."
            )
        axes = tuple(range(leading))
        size = leaf.size // max(mean.size, 1)
        leaf = leaf.astype(jnp.float32)
        batch_mean, batch_var = leaf.mean(axes), leaf.var(axes)
        total = statistics.count + size
        share = size / total
        delta = batch_mean - mean
        new_mean.append(mean + delta * share)
        new_var.append(var * (1 - share) + batch_var * share + delta**2 * share * (1 - share))
    return RunningStatistics(total, structure.unflatten(new_mean), structure.unflatten(new_var))


@compiled()
def normalize(statistics: RunningStatistics, obs: Any, *, clip: Array | float = 10.0) -> Any:
    """Standardise observations by running statistics, which it treats as constants.

        (obs - mean) / sqrt(var + 1e-8), clipped to ±clip

    Shapes: obs [..., features]; result alike.

    Args:
        statistics: from `init_statistics` and `update_statistics`.
        obs: observations with any leading axes.
        clip: bound of the result, dimensionless.

    Returns:
        The standardised observations, float32. Before the first update they come back as they are, clipped.

    Raises:
        ValueError: if obs has another tree structure than the statistics.
    """
    statistics = jax.lax.stop_gradient(statistics)

    def standardize(mean: Array, var: Array, x: Array) -> Array:
        return jnp.clip((x.astype(jnp.float32) - mean) * jax.lax.rsqrt(var + 1e-8), -clip, clip)

    return jax.tree.map(standardize, statistics.mean, statistics.var, obs)


@struct.dataclass
class RewardScale:
    """Running scale of rewards: the standard deviation of the discounted return of each environment."""

    statistics: RunningStatistics
    running_return: Array  # [B] float32


@compiled("num_envs")
def init_reward_scale(*, num_envs: int) -> RewardScale:
    """Start the running reward scale for num_envs environments.

    Shapes: running_return [num_envs].

    Args:
        num_envs: number of environments, at least 1; static.

    Returns:
        The state, with scale 1.

    Raises:
        TypeError: if num_envs is not an int.
        ValueError: if num_envs < 1.
    """
    num_envs = _checks.positive_int("num_envs", num_envs)
    return RewardScale(init_statistics(jnp.float32(0.0)), jnp.zeros(num_envs, jnp.float32))


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
        ValueError: if shapes differ.
    """
    reward = _checks.floating("reward", reward, ndim_at_least=2)
    done = _checks.boolean("done", done, like=reward)

    def step(running: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward_t, done_t = row
        running = discount * running + reward_t
        return jnp.where(done_t, 0.0, running), running

    last, returns = jax.lax.scan(step, scale.running_return, (reward.astype(jnp.float32), done))
    return RewardScale(update_statistics(scale.statistics, returns), last)


@compiled()
def scale_reward(scale: RewardScale, reward: Array, *, clip: Array | float = 10.0) -> Array:
    """Divide rewards by the running scale; the mean is left alone, since subtracting it would change the task.

        r / sqrt(var + 1e-8), clipped to ±clip

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
    reward = _checks.floating("reward", reward)
    return jnp.clip(reward * jax.lax.rsqrt(scale.statistics.var + 1e-8), -clip, clip)
