"""Windows drawn in proportion to a power of their priority, by a tree of sums over the rows of a replay."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Trajectory, _Record
from pgjax.replay.uniform import ReplayState, make_layout

Array = jax.Array

SMALLEST_PRIORITY = 1e-6
"""What a smaller priority counts as, so that no window is lost for good."""


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
    layout = make_layout(num_envs, capacity, batch_size, num_steps, obs_dtype)
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
