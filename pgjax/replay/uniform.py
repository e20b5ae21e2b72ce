"""A ring of the rows of rollouts, kept by flashbax (extra `replay`), and windows drawn from it uniformly."""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._functions import is_traced
from pgjax._types import Trajectory, _Record

Array = jax.Array


@struct.dataclass
class ReplayState(_Record):
    """What a replay holds. A pytree of arrays: it is carried by scan, mapped over by vmap and saved like any other."""

    experience: Trajectory  # leaves [B, rows, ...], a ring along the second axis
    position: Array  # scalar int32, the row that is written next
    is_full: Array  # scalar bool, whether every row has been written
    dtypes: tuple[str, ...] = struct.field(pytree_node=False, default=())  # of obs and next_obs, as they are given back


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """A replay as pure functions of its state, made by `make_replay`.

    Args:
        init: init(trajectory) -> `ReplayState`, empty; of trajectory, shapes and dtypes are looked at.
        add: add(state, trajectory) -> `ReplayState`, with the T rows of each environment written over the oldest.
        sample: sample(key, state) -> `Trajectory`, a window with leaves [n, N, ...].
        num_valid: num_valid(state) -> scalar int32, the windows that can be drawn.
        num_bytes: num_bytes(trajectory) -> Python int, what init would allocate.
    """

    init: Callable[[Any], ReplayState]
    add: Callable[[ReplayState, Trajectory], ReplayState]
    sample: Callable[[Array, ReplayState], Trajectory]
    num_valid: Callable[[ReplayState], Array]
    num_bytes: Callable[[Any], int]


def make_replay(*, num_envs: int, capacity: int, batch_size: int, num_steps: int = 1, obs_dtype: Any = None) -> Replay:
    """Make a replay that draws windows of n consecutive steps uniformly.

        P(environment b, first row t) = 1 / M,   M = B (rows - n + 1) once it is full

    A window holds consecutive rows of one environment, in the order in which they were added, across the ends of
    episodes but never across the position that is written next. Trajectories that are added must follow one another, as
    those of successive rollouts do. The newest n - 1 rows begin no window yet.

    Shapes: trajectories that are added [T, B, ...]; windows that are drawn [n, N, ...].

    Args:
        num_envs: B, environments of each trajectory that is added.
        capacity: rows over all environments; each has capacity // B of them, and the oldest are overwritten.
        batch_size: N, windows in one sample, drawn independently.
        num_steps: n, rows of each window.
        obs_dtype: the dtype in which obs and next_obs are kept, or a pytree of dtypes like obs, such as
            `pg.envs.observation_dtype` gives; it must hold every value that comes. None keeps them as they come.

    Returns:
        `Replay` of ``init(trajectory)``, ``add(state, trajectory)``, ``sample(key, state)``, ``num_valid(state)`` and
        ``num_bytes(trajectory)``. init and num_bytes take a trajectory or its shapes, as `jax.eval_shape` gives them.
        What is drawn has the dtypes of what was added.

    Raises:
        ModuleNotFoundError: if flashbax is not installed.
        TypeError: if a size is no Python int or obs_dtype no dtype. By the functions: if no `Trajectory` is given, or
            if a dtype is not that of the replay.
        ValueError: if a size is less than 1, or if capacity does not hold a window of each environment. By the
            functions: if a trajectory has other shapes or another tree than the replay, or more rows for each
            environment than it holds; by sample, if no window can be drawn yet.

    Properties:
        Under jit the state that a loop carries is updated in place; a bare call of add copies it, unless it stands in a
        jit of your own with donate_argnums. Where the state is traced sample cannot raise: as long as num_valid is 0,
        it gives the rows that there are, and zeros after them. Memory O(capacity); time of add O(T B), sample O(n N).

    Example:
        >>> replay = pg.replay.make_replay(num_envs=3, capacity=24, batch_size=5, num_steps=2)
        >>> state = replay.add(replay.init(trajectory), trajectory)
        >>> window = replay.sample(jax.random.key(0), state)
        >>> print(window.reward.shape, replay.num_valid(state), pg.fold(window, discount=0.9).reward.shape)
        (2, 5) 9 (5,)

    References:
        Lin (1992), Self-improving reactive agents based on reinforcement learning, planning and teaching.
        Mnih, Kavukcuoglu, Silver et al. (2015), Human-level control through deep reinforcement learning.
    """
    layout = make_layout(num_envs, capacity, batch_size, num_steps, obs_dtype)

    @compiled()
    def sample(key: Array, state: ReplayState) -> Trajectory:
        with jax.numpy_rank_promotion("allow"):
            drawn = layout.buffer.sample(layout.as_buffer_state(state), key).experience
        return layout.as_window(state, drawn)

    def checked_sample(key: Array, state: ReplayState) -> Trajectory:
        layout.require_windows(state)
        return sample(key, state)

    return Replay(layout.init, compiled()(layout.add), checked_sample, layout.num_valid, layout.num_bytes)


def _flashbax() -> Any:
    """The library that keeps the rows, imported only here."""
    try:
        return importlib.import_module("flashbax")
    except ModuleNotFoundError as error:
        if error.name != "flashbax":
            raise
        raise ModuleNotFoundError("a replay needs flashbax: pip install pgjax[replay].", name="flashbax") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """How the rows are kept: sizes, dtypes, and flashbax's functions for them."""

    buffer: Any
    num_envs: int
    rows: int  # of each environment
    num_steps: int
    obs_dtype: Any

    def init(self, trajectory: Any) -> ReplayState:
        """Make an empty state for trajectories like this one."""
        trajectory = self._shapes(trajectory)
        zeros = lambda x: jnp.zeros((self.num_envs, self.rows, *x.shape[2:]), x.dtype)  # noqa: E731
        experience = jax.tree.map(zeros, self._stored(trajectory))
        return ReplayState(experience, jnp.zeros((), jnp.int32), jnp.zeros((), bool), _dtypes_of_obs(trajectory))

    def num_bytes(self, trajectory: Any) -> int:
        """Say how many bytes init would allocate."""
        return _num_bytes(jax.eval_shape(self.init, self._shapes(trajectory)))

    def add(self, state: ReplayState, trajectory: Trajectory) -> ReplayState:
        """Write a trajectory over the oldest rows."""
        shapes = self._shapes(trajectory)
        num_rows = shapes.reward.shape[0]
        if num_rows > self.rows:
            raise ValueError(
                f"trajectory has {num_rows} rows for each environment, and the replay holds {self.rows}: some would "
                f"not remain. Give make_replay a capacity of at least {num_rows * self.num_envs}, or add a part of it."
            )
        self.require_state(state)
        self._require_same(state, shapes)
        batch = jax.tree.map(lambda x, like: jnp.swapaxes(x, 0, 1).astype(like.dtype), trajectory, state.experience)
        with jax.numpy_rank_promotion("allow"):
            new = self.buffer.add(self.as_buffer_state(state), batch)
        return state.replace(experience=new.experience, position=new.current_index, is_full=new.is_full)

    def num_valid(self, state: ReplayState) -> Array:
        """Count the windows that can be drawn: scalar int32."""
        self.require_state(state)
        filled = jnp.where(state.is_full, self.rows, state.position)
        return self.num_envs * jnp.maximum(filled - self.num_steps + 1, 0)

    def as_buffer_state(self, state: ReplayState) -> Any:
        """The state as flashbax has it."""
        module = importlib.import_module("flashbax.buffers.trajectory_buffer")
        return module.TrajectoryBufferState(
            experience=state.experience, current_index=state.position, is_full=state.is_full
        )

    def as_window(self, state: ReplayState, drawn: Trajectory) -> Trajectory:
        """Rows [N, n, ...] as they are kept, as a window [n, N, ...] in the dtypes that were added."""
        window = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), drawn)
        leaves, structure = jax.tree.flatten((window.obs, window.next_obs))
        added = [x.astype(dtype) for x, dtype in zip(leaves, state.dtypes, strict=True)]
        obs, next_obs = jax.tree.unflatten(structure, added)
        return window.replace(obs=obs, next_obs=next_obs)

    def require_windows(self, state: ReplayState) -> None:
        """Raise where it can be seen that no window can be drawn."""
        self.require_state(state)
        if is_traced((state.position, state.is_full)) or bool(state.is_full):
            return
        if int(state.position) < self.num_steps:
            raise ValueError(
                f"state holds {int(state.position)} rows for each environment, fewer than num_steps={self.num_steps}: "
                "add more before the first sample, and wait until num_valid(state) is positive."
            )

    def require_state(self, state: ReplayState) -> None:
        """Raise unless a state is of this layout."""
        _checks.require_instance("state", state, ReplayState, remedy="Pass what init or add returned.")
        held = state.experience.reward.shape[:2]
        if held != (self.num_envs, self.rows) or jnp.shape(state.position) != ():
            raise ValueError(
                f"state holds rows of shape {list(held)}, and this replay has [num_envs, capacity // num_envs] = "
                f"{[self.num_envs, self.rows]}. Make the replay with the sizes of the state; map over the states "
                "of several runs with jax.vmap."
            )

    def _shapes(self, trajectory: Any) -> Trajectory:
        """Shapes and dtypes of a trajectory [T, B, ...]; raise unless it is one of B environments."""
        _checks.require_instance(
            "trajectory", trajectory, Trajectory, remedy="Pass what rollout returns second, leaves [T, B, ...]."
        )
        shapes = jax.eval_shape(lambda x: x, trajectory)
        for path, x in jax.tree_util.tree_leaves_with_path(shapes):
            name = f"trajectory{jax.tree_util.keystr(path)}"
            if len(x.shape) < 2 or x.shape[1] != self.num_envs:
                raise ValueError(
                    f"{name} must have shape [T, B, ...] with B = num_envs = {self.num_envs}, got {list(x.shape)}. "
                    "Make the replay with the number of environments of the rollout; arrays are time-major."
                )
            if x.shape[0] != shapes.reward.shape[0] or x.shape[0] == 0:
                raise ValueError(
                    f"{name} must have as many rows as trajectory.reward, {shapes.reward.shape[0]}, and at least one, "
                    f"got shape {list(x.shape)}."
                )
        return shapes

    def _stored(self, shapes: Trajectory) -> Trajectory:
        """The same with the dtypes in which obs and next_obs are kept."""
        if self.obs_dtype is None:
            return shapes
        if not jax.tree_util.treedef_is_leaf(jax.tree.structure(self.obs_dtype)):
            _checks.require_same_structure("obs_dtype", self.obs_dtype, shapes.obs, of="trajectory.obs")

        def recast(tree: Any) -> Any:
            leaves, structure = jax.tree.flatten(tree)
            dtypes = jax.tree.leaves(self.obs_dtype)
            dtypes = dtypes * len(leaves) if len(dtypes) == 1 else dtypes
            kept = [jax.ShapeDtypeStruct(x.shape, dtype) for x, dtype in zip(leaves, dtypes, strict=False)]
            return jax.tree.unflatten(structure, kept)

        return shapes.replace(obs=recast(shapes.obs), next_obs=recast(shapes.next_obs))

    def _require_same(self, state: ReplayState, shapes: Trajectory) -> None:
        """Raise unless a trajectory has the tree, the shapes and the dtypes that the state was made for."""
        _checks.require_same_structure("trajectory", shapes, state.experience, of="the one that init was given")
        stored = jax.tree.leaves(self._stored(shapes))
        for (path, kept), x in zip(jax.tree_util.tree_leaves_with_path(state.experience), stored, strict=True):
            name = f"trajectory{jax.tree_util.keystr(path)}"
            if x.shape[2:] != kept.shape[2:]:
                raise ValueError(
                    f"{name} must have trailing axes {list(kept.shape[2:])}, as the one that init was given, "
                    f"got shape {list(x.shape)}. One replay holds one environment."
                )
            if x.dtype != kept.dtype:
                raise TypeError(
                    f"{name} would be kept as {x.dtype}, and the state holds {kept.dtype}. "
                    "Make the replay with the obs_dtype of the state, and add what has the dtypes that init was given."
                )
        if _dtypes_of_obs(shapes) != state.dtypes:
            raise TypeError(
                f"the leaves of trajectory.obs and next_obs must have the dtypes that init was given, "
                f"{list(state.dtypes)}, got {list(_dtypes_of_obs(shapes))}."
            )


def make_layout(num_envs: int, capacity: int, batch_size: int, num_steps: int, obs_dtype: Any) -> Layout:
    """Check the sizes and make flashbax's functions."""
    num_envs = _checks.as_positive_int("num_envs", num_envs)
    capacity = _checks.as_positive_int("capacity", capacity)
    batch_size = _checks.as_positive_int("batch_size", batch_size)
    num_steps = _checks.as_positive_int("num_steps", num_steps)
    rows = capacity // num_envs
    if rows < num_steps:
        raise ValueError(
            f"capacity={capacity} holds {rows} rows of each of the {num_envs} environments, fewer than "
            f"num_steps={num_steps}. Give at least num_envs * num_steps = {num_envs * num_steps}."
        )
    buffer = _flashbax().make_trajectory_buffer(
        add_batch_size=num_envs,
        sample_batch_size=batch_size,
        sample_sequence_length=num_steps,
        period=1,
        min_length_time_axis=num_steps,
        max_length_time_axis=rows,
    )
    return Layout(buffer, num_envs, rows, num_steps, jax.tree.map(_as_dtype, obs_dtype))


def _as_dtype(x: Any) -> Any:
    try:
        return jax.dtypes.canonicalize_dtype(x)
    except TypeError as error:
        raise TypeError(
            f"obs_dtype must be a dtype, or a pytree of dtypes like obs, got {type(x).__name__}. "
            "Take pg.envs.observation_dtype(env, env_params)."
        ) from error


def _dtypes_of_obs(shapes: Trajectory) -> tuple[str, ...]:
    return tuple(str(x.dtype) for x in jax.tree.leaves((shapes.obs, shapes.next_obs)))


def _num_bytes(shapes: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
