"""Spaces of Gymnasium, and their elements as arrays: on the device at most 32 bits wide, whole numbers from 0 on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces

from pgjax import _checks
from pgjax.envs.wrappers import Choices

Array = jax.Array


def installed() -> Any:
    """Import Gymnasium where it is first needed.

    Returns:
        The package, with its rooms ``spaces`` and ``vector``.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import gymnasium
        import gymnasium.vector
    except ImportError as error:
        raise ImportError("from_gymnasium needs Gymnasium: pip install 'pgjax[envs]'.") from error
    return gymnasium


def described(name: str, space: Any) -> Any:
    """Say a space as gymnax does, its whole numbers from 0 on.

    Args:
        name: what it is the space of.
        space: one of Gymnasium.

    Returns:
        A space of gymnax, or `Choices` of several whole numbers.

    Raises:
        TypeError: if its elements are no arrays of a fixed shape, or whole numbers along several axes.
    """
    kinds = installed().spaces
    if isinstance(space, kinds.Dict):
        return spaces.Dict({key: described(name, part) for key, part in space.spaces.items()})
    if isinstance(space, kinds.Tuple):
        return spaces.Tuple([described(name, part) for part in space.spaces])
    if isinstance(space, kinds.Box):
        dtype = _narrow(space.dtype)
        low, high = (_bound(x, dtype) for x in (space.low, space.high))
        return spaces.Box(low, high, space.shape, dtype)  # type: ignore[arg-type]
    if isinstance(space, kinds.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, kinds.MultiDiscrete) and len(space.shape) == 1:
        return Choices(tuple(int(n) for n in space.nvec))
    if isinstance(space, kinds.MultiBinary) and len(space.shape) == 1:
        return Choices(space.shape[0] * (2,))
    raise TypeError(
        f"the {name} space must be Box, Discrete, MultiDiscrete or MultiBinary of one axis, or Dict or Tuple of "
        f"such, got {space}. Wrap the environment so that it is."
    )


def specified(space: Any) -> Any:
    """Say the shapes and dtypes of the arrays that an element of a space is on the device.

    Args:
        space: one of Gymnasium.

    Returns:
        A pytree of ``jax.ShapeDtypeStruct``.
    """
    parts = _parts(space)
    if parts is not None:
        return _like(parts, [specified(part) for part in _values(parts)])
    return jax.ShapeDtypeStruct(space.shape, _device_dtype(space))


def from_host(name: str, space: Any, x: Any, *lead: int) -> Any:
    """Make new arrays for the device of what the host gave.

    Args:
        name: of the method that gave it.
        space: of a single environment.
        x: elements of it, leaves [*lead, ...].
        *lead: the axes before those of the space.

    Returns:
        A pytree as `specified` says, of NumPy arrays [*lead, ...].

    Raises:
        ValueError: if a leaf has another shape.
    """
    parts = _parts(space)
    if isinstance(parts, dict):
        return {key: from_host(name, part, x[key], *lead) for key, part in parts.items()}
    if isinstance(parts, tuple):
        return tuple(from_host(name, part, row, *lead) for part, row in zip(parts, x, strict=True))
    array = np.asarray(x)
    if array.shape != (*lead, *space.shape):
        raise ValueError(
            f"the observation of {name} must have the shape {[*lead, *space.shape]} of the observation space, got "
            f"{list(array.shape)}. Mend the environment: gymnasium.utils.env_checker.check_env tells more."
        )
    return np.array(array - _start(space) if np.any(_start(space)) else array, _device_dtype(space))


def checked_action(space: Any, action: Any) -> Any:
    """Refuse an action that is not of the structure and the shapes of its space, or broken where it must be whole.

    Args:
        space: of a single environment.
        action: of one environment.

    Returns:
        The action, of arrays.

    Raises:
        TypeError: if numbers must be whole and are not.
        ValueError: if the structure or a shape is another.
    """
    wanted = specified(space)
    _checks.require_same_structure("action", action, wanted, of="the action space")

    def checked(like: Any, x: Any) -> Array:
        x = jnp.asarray(x)
        if x.dtype != jnp.bool_ and not np.issubdtype(like.dtype, np.floating):
            x = _checks.as_integer("action", x)
        if x.shape != like.shape:
            raise ValueError(
                f"action must have the shape {list(like.shape)} of the action space of one environment, got "
                f"{list(x.shape)}. Act in each environment by a row of its own."
            )
        return x

    return jax.tree.map(checked, wanted, action)


def packed(action: Any) -> Array:
    """Put an action into one array, floating numbers by their bits: one array reaches the host sooner than several.

    Args:
        action: of one environment.

    Returns:
        int32 [D].
    """

    def bits(x: Array) -> Array:
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
        return x.astype(jnp.int32)

    return jnp.concatenate([bits(x).reshape(-1) for x in jax.tree.leaves(action)])


def to_host(space: Any, bits: np.ndarray) -> Any:
    """Unpack what `packed` gave, as the host takes it: in the dtypes of the space, from its own first number on.

    Args:
        space: of a single environment.
        bits: int32 [B, D].

    Returns:
        Actions of the structure of the space, leaves [B, ...].
    """
    parts = _parts(space)
    if parts is not None:
        sizes = [sum(x.size for x in jax.tree.leaves(specified(part))) for part in _values(parts)]
        columns = np.split(bits, np.cumsum(sizes)[:-1], axis=1)
        return _like(parts, [to_host(part, x) for part, x in zip(_values(parts), columns, strict=True)])
    if np.issubdtype(space.dtype, np.floating):
        bits = np.ascontiguousarray(bits).view(np.float32)
    return bits.reshape(len(bits), *space.shape).astype(space.dtype) + np.asarray(_start(space), space.dtype)


def _parts(space: Any) -> Any:
    """The spaces that a space is made of, by name or as a tuple; None of a single array."""
    kinds = installed().spaces
    if isinstance(space, kinds.Dict):
        return dict(space.spaces)
    return tuple(space.spaces) if isinstance(space, kinds.Tuple) else None


def _values(parts: Any) -> list[Any]:
    """The parts in the order of the leaves of a pytree, which is that of the sorted names."""
    return [parts[key] for key in sorted(parts)] if isinstance(parts, dict) else list(parts)


def _like(parts: Any, values: list[Any]) -> Any:
    return dict(zip(sorted(parts), values, strict=True)) if isinstance(parts, dict) else tuple(values)


def _narrow(dtype: Any) -> Any:
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}4") if dtype.itemsize > 4 else dtype


def _device_dtype(space: Any) -> Any:
    kinds = installed().spaces
    return np.dtype(np.int32) if isinstance(space, kinds.Discrete | kinds.MultiDiscrete) else _narrow(space.dtype)


def _bound(x: np.ndarray, dtype: Any) -> np.ndarray:
    """A bound in a narrower dtype; whole numbers that it does not hold are cut, not wrapped around."""
    if np.issubdtype(dtype, np.integer):
        x = np.clip(x, np.iinfo(dtype).min, np.iinfo(dtype).max)
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def _start(space: Any) -> Any:
    """The first whole number of a space of choices."""
    return getattr(space, "start", 0)
