"""Where environments come in: batches of them, made uniform, one function to start and one to step."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments.environment import Environment as GymnaxEnvironment

from pgjax import _checks
from pgjax._types import Environment
from pgjax.envs.description import agents_of, episode_over, given_params, params_axes

Array = jax.Array


class Outcome(NamedTuple):
    """What a step of B environments led to. Every leaf is [B, ...], that of an environment with agents [B, A, ...]."""

    env_state: Any  # [B, ...] state the next step starts from, after any reset
    obs: Any  # observation the next action is chosen in, after any reset
    next_obs: Any  # observation that the action led to, before any reset
    reward: Array  # float
    terminated: Array  # bool
    truncated: Array  # bool


def batched_reset(key: Array, env: Environment, env_params: Any, num_envs: int) -> tuple[Any, Any]:
    """Start num_envs environments.

    Args:
        key: a PRNG key, consumed.
        env: the environment.
        env_params: its parameters, shared or one for each environment.
        num_envs: B.

    Returns:
        obs with leaves [B, ...], or [B, A, ...] of an environment with agents, floating, and the environments' states
        with leaves [B, ...].

    Raises:
        TypeError: if the environment has no reset and step of the documented form.
        ValueError: if a batched leaf of env_params has not num_envs rows, or obs has no axis for the agents.
    """
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise TypeError(f"env must have a method {method}(key, ...), got {type(env).__name__}.")
    axes = params_axes(env, env_params, num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, axes))(jax.random.split(key, num_envs), env_params)
    batch = (num_envs, *agents_of(env))
    for leaf in jax.tree.leaves(obs):
        if leaf.shape[: len(batch)] != batch:
            raise ValueError(
                f"the observation of env.reset must have the leading axes {list(batch[1:])} of env.agents, "
                f"got {list(leaf.shape[1:])}. Give one row for each agent."
            )
    # Python numbers in a state are weakly typed: a scan would see another type after its first step.
    obs, env_state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (_floating(obs), env_state))
    return obs, env_state


class StepRandomness(NamedTuple):
    """What is random in T steps of B environments, drawn before the loop. Every leaf is [T, B, ...]."""

    keys: Array  # one key for each step of each environment
    start_keys: Array | None = None  # one more, for the episode that begins if one ends here
    start: Any = None  # (obs, state) drawn from start_keys ahead; both are None if the environment resets by itself


# Start states drawn ahead may take as much memory as this; beyond it they are drawn as they are needed. On CPU they
# must stay in cache to be worth it: at 2048 x 128 CartPoles drawing ahead is a tenth slower than drawing as needed.
_MOST_BYTES_AHEAD = {"cpu": 2**20}
_MOST_BYTES_AHEAD_ELSEWHERE = 2**26


def draw_randomness(
    key: Array, env: Environment, env_params: Any, *, start_like: Any, num_steps: int
) -> tuple[Array, StepRandomness]:
    """Draw all keys, and where it can be done the start states, of a window of steps at once.

    A fresh start state is needed at every step of every environment, because on the device both branches of a
    reset run. Drawn one step at a time that is many small kernels; drawn for the whole window it is a few large ones.
    It is done for gymnax environments that reset as gymnax does. What is drawn is the same, ahead or as needed.

    Args:
        key: a PRNG key, consumed.
        env: the environment.
        env_params: its parameters, shared or one for each environment.
        start_like: (obs, state) of the environments, leaves [B, ...]; only the shapes are used.
        num_steps: T.

    Returns:
        A key to act with, and the keys and start states of the environments.

    Raises:
        ValueError: if a batched leaf of env_params has not B rows.
    """
    leaves = jax.tree.leaves(start_like)
    shape = num_steps, leaves[0].shape[0]
    draws_starts = isinstance(env, GymnaxEnvironment) and type(env).step is GymnaxEnvironment.step
    # One split, along one axis: random numbers with a short last axis take three times as long to compile on CPU.
    act_key, *keys = _rows(jax.random.split(key, 1 + (1 + draws_starts) * math.prod(shape)), shape)
    if not draws_starts:
        return act_key, StepRandomness(keys[0])
    most = _MOST_BYTES_AHEAD.get(jax.default_backend(), _MOST_BYTES_AHEAD_ELSEWHERE)
    if num_steps * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) > most:
        return act_key, StepRandomness(keys[0], keys[1])
    return act_key, StepRandomness(keys[0], start=_starts(keys[1], env, env_params))


def _rows(keys: Array, shape: tuple[int, ...]) -> list[Array]:
    """The first key, and the others as arrays of a shape."""
    return [keys[0], *keys[1:].reshape(-1, *shape, *keys.shape[1:])]


def _starts(keys: Array, env: Any, env_params: Any) -> Any:
    """Start states (obs, state) for keys [..., B], drawn along one axis; leaves [..., B, ...]."""
    shape = keys.shape if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else keys.shape[:-1]
    env_params, number = given_params(env, env_params), math.prod(shape)
    axes = params_axes(env, env_params, shape[-1])
    repeat = number // shape[-1]
    env_params = jax.tree.map(
        lambda axis, x: x if axis is None else jnp.tile(x, (repeat, *(1 for _ in x.shape[1:]))),
        axes, env_params, is_leaf=lambda axis: axis is None,
    )  # fmt: skip
    starts = jax.vmap(env.reset_env, in_axes=(0, axes))(keys.reshape(number, *keys.shape[len(shape) :]), env_params)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), starts)


def batched_step(randomness: StepRandomness, env: Environment, env_params: Any, env_state: Any, action: Any) -> Outcome:
    """Step every environment once.

    Args:
        randomness: one row of what `draw_randomness` gave, leaves [B, ...].
        env: the environment.
        env_params: its parameters, shared or one for each environment.
        env_state: leaves [B, ...].
        action: leaves [B, ...].

    Returns:
        The outcome; integer and boolean rewards and observations come out as float32.

    Raises:
        TypeError: if step does not return six values with info["final_observation"].
        ValueError: if the reward or a mask is not one number for each environment.
    """
    num_envs = randomness.keys.shape[0]
    start = randomness.start
    if randomness.start_keys is not None:
        start = _starts(randomness.start_keys, env, env_params)
    arguments: tuple[Any, ...] = (randomness.keys, env_state, action)
    step: Any = _step_by_itself
    if start is not None:
        step, arguments, env_params = _step_with_start, (*arguments, start), given_params(env, env_params)
    in_axes = (None, *(0 for _ in arguments), params_axes(env, env_params, num_envs))
    results = jax.vmap(step, in_axes=in_axes)(env, *arguments, env_params)
    obs, new_state, reward, terminated, truncated, last_obs = results
    batch = (num_envs, *agents_of(env))
    _checks.require_one_each("reward of env.step", reward, batch)
    return Outcome(
        env_state=jax.tree.map(_checks.as_dtype_of, env_state, new_state),
        obs=_floating(obs),
        next_obs=_floating(last_obs),
        reward=_floating(reward),
        terminated=_mask("terminated", terminated, batch),
        truncated=_mask("truncated", truncated, batch),
    )


def _mask(name: str, x: Array, batch: tuple[int, ...]) -> Array:
    """A mask as booleans of shape `batch`; one for each environment holds for all of its agents."""
    if x.shape != batch[:1]:
        _checks.require_one_each(f"{name} of env.step", x, batch)
    return jnp.broadcast_to(x.astype(bool).reshape(x.shape + (1,) * (len(batch) - x.ndim)), batch)


def _step_by_itself(env: Any, key: Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
    result = env.step(key, state, action, params)
    if len(result) != 6:
        raise TypeError(
            f"env.step must return six values (obs, state, reward, terminated, truncated, info), got {len(result)}. "
            "Wrap an environment of the older five-value form in pgjax.envs.FiveValueAdapter."
        )
    obs, new_state, reward, terminated, truncated, info = result
    if "final_observation" not in info:
        raise TypeError(
            'env.step must give the observation before the reset as info["final_observation"]: without it the '
            "value of a truncated episode is lost. gymnax does from version 1.0 on."
        )
    return obs, new_state, reward, terminated, truncated, info["final_observation"]


def _step_with_start(env: Any, key: Array, state: Any, action: Any, start: Any, params: Any) -> tuple[Any, ...]:
    last_obs, last_state, reward, terminated, _ = env.step_env(key, state, action, params)
    truncated = env.is_truncated(last_state, params)
    over = episode_over(terminated, truncated)
    obs, new_state = jax.tree.map(
        lambda first, last: jax.lax.select(over, first, _checks.as_dtype_of(first, last)), start, (last_obs, last_state)
    )
    return obs, new_state, reward, terminated, truncated, last_obs


def _floating(x: Any) -> Any:
    """Cast integer and boolean leaves to float32, uint8 frames too; leave floating leaves alone."""
    return jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.float32), x)
