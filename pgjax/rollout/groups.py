"""Groups of trajectories that start in the same state."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import RolloutState

Array = jax.Array
R = TypeVar("R")


@compiled("num_repeats")
def repeat_states(state: RolloutState, *, num_repeats: int) -> RolloutState:
    """Repeat each state of a rollout, so that N environments go on from the same one: a group.

        environment g N + n goes on from state g,  n = 0 ... N - 1

    Shapes: leaves of state [G, ...]; of the result [G * N, ...] with N = num_repeats.

    Args:
        state: from `init_rollout` with num_envs = G, or from a rollout.
        num_repeats: N, members of each group, at least 1; static.

    Returns:
        The state of G N environments. `rollout` gives each its own keys, so that members of a group part as soon as
        actions or transitions differ; `as_groups` gives its trajectory the axes [T, G, N]. Leaves of env_params that
        hold one value for each environment are to be repeated alike: jnp.repeat(leaf, num_repeats, axis=0).

    Raises:
        TypeError: if state is no RolloutState or num_repeats is not an int.
        ValueError: if num_repeats < 1.

    Properties:
        An environment that keeps a random key in its state repeats that too: its members then meet the same chances,
        and are no longer independent of one another where it draws from that key.
    """
    _checks.require_instance("state", state, RolloutState, remedy="Start with init_rollout.")
    num_repeats = _checks.as_positive_int("num_repeats", num_repeats)
    return jax.tree.map(lambda x: jnp.repeat(x, num_repeats, axis=0), state)


@compiled("num_repeats", "axis")
def as_groups(tree: Any, *, num_repeats: int, axis: int = 1) -> Any:
    """Split the axis of environments into groups and members, for what was rolled out from `repeat_states`.

        [T, G * N, ...] -> [T, G, N, ...]

    Shapes: leaves [T, G * N, ...] with N = num_repeats; of the result [T, G, N, ...].

    Args:
        tree: a `Trajectory`, or any pytree of arrays.
        num_repeats: N, members of each group; static.
        axis: the axis of the environments: 1 of a trajectory, 0 of one number for each; static.

    Returns:
        The same pytree. Estimators take the axes as they take any batch; baselines compare members with axis=-1.

    Raises:
        TypeError: if num_repeats is not an int.
        ValueError: if num_repeats does not divide the number of environments.
    """

    def split(x: Array) -> Array:
        size = jnp.shape(x)[axis]
        count = _checks.as_divisor("num_repeats", num_repeats, size, of="environments")
        return jnp.reshape(x, (*x.shape[:axis], size // count, count, *x.shape[axis + 1 :]))

    return jax.tree.map(split, tree)
