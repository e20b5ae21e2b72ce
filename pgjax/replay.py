"""Replay on the device: rows of rollouts kept in a ring, and windows of them drawn again.

Rows are kept by flashbax (extra `replay`). What is drawn is a `Trajectory` window [n, N, ...]: `fold` makes transitions
of it, Retrace and V-trace take it as it is.
"""

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

__all__ = [
    "PrioritizedReplay",
    "PrioritizedState",
    "Replay",
    "ReplayState",
    "Replayed",
    "make_prioritized_replay",
    "make_replay",
]

SMALLEST_PRIORITY = 1e-6
"""What a smaller priority counts as, so that no window is lost for good."""


@struct.dataclass
class ReplayState(_Record):
    """What a replay holds. A pytree of arrays: it is carried by scan, mapped over by vmap and saved like any other."""

    experience: Trajectory  # leaves [B, rows, ...], a ring along the second axis
    position: Array  # scalar int32, the row that is written next
    is_full: Array  # scalar bool, whether every row has been written
    dtypes: tuple[str, ...] = struct.field(pytree_node=False, default=())  # of obs and next_obs, as they are given back


@struct.dataclass
class PrioritizedState(_Record):
    """What a prioritised replay holds: rows as in `ReplayState`, and a tree of sums over the windows they contain."""

    replay: ReplayState
    node: Array  # [2 L] float32: node 1 is the root, 2 i and 2 i + 1 follow i; L + b rows + t is p^α of a window, or 0
    greatest: Array  # scalar float32, the greatest p^α so far; 1 at first


@struct.dataclass
class Replayed(_Record):
    """What a prioritised replay draws."""

    window: Trajectory  # leaves [n, N, ...]
    weight: Array  # [N] float32 in (0, 1], what the loss of each window is multiplied by
    rows: Array  # [N] int32, which windows these are, for update


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


@dataclasses.dataclass(frozen=True, eq=False)
class PrioritizedReplay:
    """A prioritised replay as pure functions of its state, made by `make_prioritized_replay`.

    Args:
        init: init(trajectory) -> `PrioritizedState`, empty; of trajectory, shapes and dtypes are looked at.
        add: add(state, trajectory) -> `PrioritizedState`; new windows get the greatest priority so far.
        sample: sample(key, state, importance_exponent=0.4) -> `Replayed`, N windows with their weights.
        update: update(state, rows, priority) -> `PrioritizedState`, with new priorities of the windows drawn.
        num_valid: num_valid(state) -> scalar int32, the windows that can be drawn.
        num_bytes: num_bytes(trajectory) -> Python int, what init would allocate.
    """

    init: Callable[[Any], PrioritizedState]
    add: Callable[[PrioritizedState, Trajectory], PrioritizedState]
    sample: Callable[..., Replayed]
    update: Callable[[PrioritizedState, Array, Array], PrioritizedState]
    num_valid: Callable[[PrioritizedState], Array]
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
    layout = _layout(num_envs, capacity, batch_size, num_steps, obs_dtype)

    @compiled()
    def sample(key: Array, state: ReplayState) -> Trajectory:
        with jax.numpy_rank_promotion("allow"):
            drawn = layout.buffer.sample(layout.as_buffer_state(state), key).experience
        return layout.as_window(state, drawn)

    def checked_sample(key: Array, state: ReplayState) -> Trajectory:
        layout.require_windows(state)
        return sample(key, state)

    return Replay(layout.init, compiled()(layout.add), checked_sample, layout.num_valid, layout.num_bytes)


def make_prioritized_replay(
    *,
    num_envs: int,
    capacity: int,
    batch_size: int,
    num_steps: int = 1,
    obs_dtype: Any = None,
    exponent: Array | float = 0.6,
) -> PrioritizedReplay:
    """Make a replay that draws windows of n consecutive steps in proportion to a power of their priority.

        P_i = p_i^α / Σ_j p_j^α,   weight_i = (1 / (M P_i))^β / max_k (1 / (M P_k))^β,   M windows that can be drawn

    Windows are those of `make_replay`. A sample is stratified: the k-th of its N windows is drawn from the k-th part of
    the sum, so that a window is in it N P_i times in the mean. With β = 1 the weighted mean over a sample is, up to the
    greatest weight in that sample, an unbiased estimate of the mean over all windows.

    Shapes: trajectories that are added [T, B, ...]; windows [n, N, ...]; weight, rows and priority [N].

    Args:
        As `make_replay`, and:

        exponent: α in [0, 1], scalar; 0 draws uniformly.

    Returns:
        `PrioritizedReplay` of ``init(trajectory)``, ``add(state, trajectory)``, ``num_valid(state)``,
        ``num_bytes(trajectory)`` as in `make_replay`, and

        - ``sample(key, state, importance_exponent=0.4)`` -> `Replayed`; importance_exponent is β in [0, 1];
        - ``update(state, rows, priority)``, with the rows of a sample and the new p [N], temporal-difference errors for
          instance: their absolute value counts, and one below 1e-6 counts as 1e-6. One that is not finite changes
          nothing. Of a window that was drawn twice the greater counts. Update before the next add: a window that has
          been overwritten since hands its priority to the one in its place.

        A new window has the greatest priority so far, at least 1.

    Raises:
        ModuleNotFoundError: if flashbax is not installed.
        TypeError: as `make_replay`; by update, if rows are no integers or priority is not floating.
        ValueError: as `make_replay`, or if exponent or importance_exponent lies outside [0, 1]; by update, if rows and
            priority differ in shape.

    Properties:
        No window across the position that is written next is ever drawn, whatever is rounded. Where the state is traced
        and num_valid is 0, what is drawn has weight 0. Memory as `make_replay` and 8 bytes a row, up to the next power
        of two. Time of add O(T B log capacity), of sample and update O(N log capacity) beside the rows
        themselves; update compares its rows pair by pair, O(N²).

    Example:
        >>> replay = pg.replay.make_prioritized_replay(num_envs=3, capacity=24, batch_size=5, num_steps=2)
        >>> state = replay.add(replay.init(trajectory), trajectory)
        >>> drawn = replay.sample(jax.random.key(0), state)
        >>> state = replay.update(state, drawn.rows, jnp.full(5, 2.0))
        >>> print(drawn.window.reward.shape, drawn.weight)
        (2, 5) [1. 1. 1. 1. 1.]

    References:
        Schaul, Quan, Antonoglou, Silver (2016), Prioritized experience replay.
    """
    layout = _layout(num_envs, capacity, batch_size, num_steps, obs_dtype)
    _checks.require_unit_interval("exponent", exponent)
    held, steps = layout.rows, layout.num_steps
    leaves = 1 << (num_envs * held - 1).bit_length()

    # flashbax 0.1.3 has a tree too. It moves sums by differences, whose rounding stays in them, follows a sum down into
    # branches that hold nothing, and cuts the priority of what is new to a whole number: its rows are used, not that.

    def require_state(state: PrioritizedState) -> None:
        _checks.require_instance("state", state, PrioritizedState, remedy="Pass what init, add or update returned.")
        layout.require_state(state.replay)

    def init(trajectory: Any) -> PrioritizedState:
        return PrioritizedState(layout.init(trajectory), jnp.zeros(2 * leaves, jnp.float32), jnp.ones((), jnp.float32))

    @compiled()
    def add(state: PrioritizedState, trajectory: Trajectory) -> PrioritizedState:
        require_state(state)
        replay = layout.add(state.replay, trajectory)
        # From the position before: T rows are new, and the n - 1 before them begin windows that are complete now. The
        # newest n - 1 begin none yet. Where all this is more than the ring, the oldest of it are gone.
        count = trajectory.reward.shape[0]
        first = jnp.arange(max(1 - steps, count - held), count, dtype=jnp.int32)
        is_complete = first + steps <= count
        is_there = state.replay.is_full | (state.replay.position + first >= 0)
        value = jnp.where(is_complete & is_there, state.greatest, 0.0)
        leaf = jnp.arange(num_envs, dtype=jnp.int32)[:, None] * held + ((state.replay.position + first) % held)[None]
        node = _with_sums(state.node.at[leaves + leaf].set(value[None]), leaves + leaf.ravel())
        return state.replace(replay=replay, node=node)

    @compiled(unit_interval=("importance_exponent",))
    def sample(key: Array, state: PrioritizedState, importance_exponent: Array | float) -> Replayed:
        part = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,), jnp.float32)) / batch_size
        leaf = _descend(state.node, part * state.node[1]) - leaves
        power = state.node[leaves + leaf]  # in proportion to P: M and the sum cancel in the weight
        weight = jnp.where(power > 0, (power.min() / power) ** importance_exponent, 0.0).astype(jnp.float32)
        time = (leaf[:, None] % held + jnp.arange(steps)[None]) % held
        drawn = jax.tree.map(lambda x: x[leaf[:, None] // held, time], state.replay.experience)
        return Replayed(layout.as_window(state.replay, drawn), weight, leaf)

    def checked_sample(key: Array, state: PrioritizedState, importance_exponent: Array | float = 0.4) -> Replayed:
        require_state(state)
        layout.require_windows(state.replay)
        return sample(key, state, importance_exponent)

    @compiled()
    def update(state: PrioritizedState, rows: Array, priority: Array) -> PrioritizedState:
        require_state(state)
        rows = _checks.as_integer("rows", rows)
        priority = _checks.as_floating("priority", priority)
        _checks.require_shape("priority", priority, rows.shape, of="rows")
        size = jnp.abs(jax.lax.stop_gradient(priority)).ravel().astype(jnp.float32)
        index = leaves + jnp.clip(rows.ravel(), 0, num_envs * held - 1)
        before = state.node[index]
        power = (jnp.maximum(size, SMALLEST_PRIORITY) ** exponent).astype(jnp.float32)
        # A window that is not there stays away: its leaf is 0.
        after = jnp.where(before > 0, jnp.where(jnp.isfinite(size), power, before), 0.0)
        # Compared pair by pair: a second write into the tree would cost a copy of all of it.
        after = jnp.where(index[:, None] == index[None], after[None], 0.0).max(-1)
        node = _with_sums(state.node.at[index].set(after), index)
        return state.replace(node=node, greatest=jnp.maximum(state.greatest, after.max()))

    def num_valid(state: PrioritizedState) -> Array:
        require_state(state)
        return layout.num_valid(state.replay)

    def num_bytes(trajectory: Any) -> int:
        return layout.num_bytes(trajectory) + 4 * (2 * leaves + 1)

    return PrioritizedReplay(init, add, checked_sample, update, num_valid, num_bytes)


def _with_sums(node: Array, index: Array) -> Array:
    """Sum anew on the way from the leaves at index to the root; what does not lie on it is as it was."""

    def up(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        node, index = carry
        index = index // 2
        return node.at[index].set(node[2 * index] + node[2 * index + 1]), index

    return jax.lax.fori_loop(0, _depth(node), up, (node, index))[0]


def _descend(node: Array, rest: Array) -> Array:
    """Find the leaves at which the running sum of all leaves passes rest: none that is zero, if there is another."""

    def down(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        index, rest = carry
        left, right = node[2 * index], node[2 * index + 1]
        goes_right = (rest >= left) & (right > 0)  # rounding may leave a rest that is not below the sum
        return 2 * index + goes_right, jnp.where(goes_right, rest - left, rest)

    return jax.lax.fori_loop(0, _depth(node), down, (jnp.ones(rest.shape, jnp.int32), rest))[0]


def _depth(node: Array) -> int:
    return (node.size // 2).bit_length() - 1


def _flashbax() -> Any:
    """The library that keeps the rows, imported only here."""
    try:
        return importlib.import_module("flashbax")
    except ModuleNotFoundError as error:
        if error.name != "flashbax":
            raise
        raise ModuleNotFoundError("a replay needs flashbax: pip install pgjax[replay].", name="flashbax") from error


@dataclasses.dataclass(frozen=True, eq=False)
class _Layout:
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


def _layout(num_envs: int, capacity: int, batch_size: int, num_steps: int, obs_dtype: Any) -> _Layout:
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
    return _Layout(buffer, num_envs, rows, num_steps, jax.tree.map(_as_dtype, obs_dtype))


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
