"""Where environments come in: batches of them, made uniform, one function to start and one to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments.environment import Environment as GymnaxEnvironment

from pgjax import _checks
from pgjax._types import Environment

Array = jax.Array


class Outcome(NamedTuple):
    """What a step of B environments led to. Every leaf is [B, ...]."""

    env_state: Any  # state the next step starts from, after any reset
    obs: Any  # observation the next action is chosen in, after any reset
    next_obs: Any  # observation that the action led to, before any reset
    reward: Array  # [B] float
    terminated: Array  # [B] bool
    truncated: Array  # [B] bool


def batched_reset(key: Array, env: Environment, env_params: Any, num_envs: int) -> tuple[Any, Any]:
    """Start num_envs environments.

    Args:
        key: a PRNG key, consumed.
        env: the environment.
        env_params: its parameters, shared or one for each environment.
        num_envs: B.

    Returns:
        obs with leaves [B, ...], floating, and the environments' states with leaves [B, ...].

    Raises:
        TypeError: if the environment has no reset and step of the documented form.
        ValueError: if a batched leaf of env_params has not num_envs rows.
    """
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise TypeError(f"env must have a method {method}(key, ...), got {type(env).__name__}.")
    axes = params_axes(env, env_params, num_envs)
    obs, env_state = jax.vmap(env.reset, in_axes=(0, axes))(jax.random.split(key, num_envs), env_params)
    # Python numbers in a state are weakly typed: a scan would see another type after its first step.
    obs, env_state = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), (as_floating(obs), env_state))
    return obs, env_state


class StepRandomness(NamedTuple):
    """What chance adds to T steps of B environments, drawn before the loop. Every leaf is [T, B, ...]."""

    keys: Array  # one key for each step of each environment
    start: Any  # (obs, state) that an episode begins from if one ends here; None if the environment resets by itself


# Start states drawn ahead may take as much memory as this; beyond it they are drawn as they are needed. On CPU they
# must stay in cache to be worth it: at 2048 x 128 CartPoles drawing ahead is a tenth slower than drawing as needed.
_MOST_BYTES_AHEAD = {"cpu": 2**20}
_MOST_BYTES_AHEAD_ELSEWHERE = 2**26


def draw_randomness(key: Array, env: Environment, env_params: Any, *, num_envs: int, num_steps: int) -> StepRandomness:
    """Draw all keys, and where it can be done the start states, of a window of steps at once.

    A fresh start state is needed at every step of every environment, because on the device both branches of a
    reset run. Drawn one step at a time that is many small kernels; drawn for the whole window it is a few large ones.
    It is done for gymnax environments that reset as gymnax does, and gives bit for bit what their `step` gives.

    Args:
        key: a PRNG key, consumed.
        env: the environment.
        env_params: its parameters, shared or one for each environment.
        num_envs: B.
        num_steps: T.

    Returns:
        The keys and start states.

    Raises:
        ValueError: if a batched leaf of env_params has not num_envs rows.
    """
    keys = jax.random.split(key, (num_steps, num_envs))
    if not (isinstance(env, GymnaxEnvironment) and type(env).step is GymnaxEnvironment.step):
        return StepRandomness(keys, None)
    env_params = env.default_params if env_params is None else env_params
    reset = jax.vmap(jax.vmap(env.reset_env, in_axes=(0, params_axes(env, env_params, num_envs))), in_axes=(0, None))
    shapes = jax.tree.leaves(jax.eval_shape(reset, keys, env_params))
    most = _MOST_BYTES_AHEAD.get(jax.default_backend(), _MOST_BYTES_AHEAD_ELSEWHERE)
    if sum(leaf.size * leaf.dtype.itemsize for leaf in shapes) > most:
        return StepRandomness(keys, None)
    # gymnax's own step splits its key into one for the step and one for the reset.
    pairs = jax.vmap(jax.vmap(jax.random.split))(keys)
    return StepRandomness(pairs[:, :, 0], reset(pairs[:, :, 1], env_params))


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
    axes = params_axes(env, env_params, randomness.keys.shape[0])
    step: Any = _step_by_itself
    arguments: tuple[Any, ...] = (randomness.keys, env_state, action)
    if randomness.start is not None:
        step, arguments = _step_with_start, (*arguments, randomness.start)
        env_params = getattr(env, "default_params", None) if env_params is None else env_params
    in_axes = (None, *(0 for _ in arguments), axes)
    results = jax.vmap(step, in_axes=in_axes)(env, *arguments, env_params)
    obs, new_state, reward, terminated, truncated, last_obs = results
    for name, x in (("reward", reward), ("terminated", terminated), ("truncated", truncated)):
        _checks.require_one_each(f"{name} of env.step", x, randomness.keys.shape[:1])
    return Outcome(
        env_state=jax.tree.map(as_dtype_of, env_state, new_state),
        obs=as_floating(obs),
        next_obs=as_floating(last_obs),
        reward=as_floating(reward),
        terminated=terminated.astype(bool),
        truncated=truncated.astype(bool),
    )


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
    obs, new_state = jax.tree.map(
        lambda first, last: jax.lax.select(terminated | truncated, first, last), start, (last_obs, last_state)
    )
    return obs, new_state, reward, terminated, truncated, last_obs


def params_axes(env: Environment, env_params: Any, num_envs: int) -> Any:
    """Say which leaves of env_params hold one value for each environment.

    A leaf does if it has one axis more than the same leaf of env.default_params.

    Args:
        env: the environment; without default_params every leaf is shared.
        env_params: its parameters.
        num_envs: the length that the extra axis must have.

    Returns:
        A pytree like env_params of 0 (batched) and None (shared), for vmap.

    Raises:
        ValueError: if a batched leaf has not num_envs rows.
    """
    default = getattr(env, "default_params", None)
    structures: list[Any] = [jax.tree.structure(default), jax.tree.structure(env_params)]
    if default is None or structures[0] != structures[1]:
        return None

    def axis(path: Any, leaf: Any, default_leaf: Any) -> int | None:
        if jnp.ndim(leaf) == jnp.ndim(default_leaf):
            return None
        if jnp.ndim(leaf) != jnp.ndim(default_leaf) + 1 or jnp.shape(leaf)[0] != num_envs:
            raise ValueError(
                f"env_params{jax.tree_util.keystr(path)} must have shape {list(jnp.shape(default_leaf))} or one row "
                f"for each of the {num_envs} environments, got {list(jnp.shape(leaf))}."
            )
        return 0

    return jax.tree_util.tree_map_with_path(axis, env_params, default)


def as_floating(x: Any) -> Any:
    """Cast integer and boolean leaves to float32; leave floating leaves alone.

    Args:
        x: a pytree of arrays.

    Returns:
        The pytree with floating leaves only.
    """
    return jax.tree.map(lambda leaf: leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(jnp.float32), x)


def as_dtype_of(old: Array, new: Array) -> Array:
    """Cast an array to the type of another, weak types made strong, so that what a loop carries never changes.

    Args:
        old: an array of the dtype wanted; random keys too.
        new: the array.

    Returns:
        new in the dtype of old.
    """
    return jnp.asarray(new, old.dtype)
