"""Vector environments of Gymnasium on the host: how they are made, stepped, begun anew and closed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pgjax.envs._spaces import from_host, installed


@dataclass(eq=False)
class Batch:
    """A VectorEnv and how far it has come."""

    vector: Any
    name: int = -1  # -1: no state belongs to it
    time: int = 0
    used: int = 0

    def step(self, action: Any, space: Any) -> tuple[Any, ...]:
        """Step all: obs after and before the reset, reward, terminated, truncated."""
        number = self.vector.num_envs
        obs, reward, terminated, truncated, info = self.vector.step(action)
        terminated, truncated = (np.array(x, bool).reshape(number) for x in (terminated, truncated))
        done = terminated | truncated
        obs = last = from_host("step", space, obs, number)
        if done.any():
            if resets_in_the_same_step(self.vector):
                last = _with_final(space, obs, info, done)
            else:
                obs, _ = self.vector.reset(options={"reset_mask": done})
                obs = from_host("reset", space, obs, number)
        return obs, last, np.array(reward, np.float32).reshape(number), terminated, truncated


def resets_in_the_same_step(vector: Any) -> bool:
    """Tell how a VectorEnv begins the episode after one that ended.

    Args:
        vector: the VectorEnv.

    Returns:
        True where it does so in the step that ends an episode and tells the last observation beside, False where its
        environments are to be reset one by one before their next step.

    Raises:
        ValueError: if it does so in the next step, and cannot be told to before.
    """
    # The metadata belong to the class of the environment: the vector that was made last overwrites them.
    mode = getattr(_unwrapped(vector), "autoreset_mode", None) or vector.metadata.get("autoreset_mode")
    mode = getattr(mode, "value", mode)
    if mode != "SameStep" and not is_gymnasiums_own(vector):
        raise ValueError(
            f"make must give a VectorEnv with autoreset_mode SAME_STEP, got {mode} of "
            f"{type(_unwrapped(vector)).__name__}: one that resets in the next step ignores an action and hides what "
            "was seen first. Use gymnasium.vector.SyncVectorEnv(..., autoreset_mode='SameStep')."
        )
    return bool(mode == "SameStep")


def made(make: Callable[[int], Any], num_envs: int) -> Any:
    """Make a VectorEnv of so many environments.

    Args:
        make: make(num_envs) -> VectorEnv.
        num_envs: how many.

    Returns:
        The VectorEnv.

    Raises:
        TypeError: if make gives none.
        ValueError: if it holds another number of environments.
    """
    vector = make(num_envs)
    if not is_vector_env(vector):
        raise TypeError(
            f"make must give a gymnasium.vector.VectorEnv, got {type(vector).__name__}. Give "
            "gymnasium.vector.SyncVectorEnv(num_envs * [function], autoreset_mode='SameStep')."
        )
    if vector.num_envs != num_envs:
        raise ValueError(
            f"make must give as many environments as it is asked for, got {vector.num_envs} for make({num_envs}). "
            "Pass num_envs on to the VectorEnv."
        )
    return vector


def is_vector_env(x: Any) -> bool:
    """Tell whether x has what is used of a VectorEnv.

    Args:
        x: anything.

    Returns:
        Whether it is one.
    """
    needed = ("num_envs", "single_observation_space", "single_action_space", "reset", "step")
    return not isinstance(x, type) and all(hasattr(x, name) for name in needed)


def _unwrapped(vector: Any) -> Any:
    return getattr(vector, "unwrapped", vector)


def is_gymnasiums_own(vector: Any) -> bool:
    """Tell whether a VectorEnv takes a seed for each environment, and resets some of them.

    Args:
        vector: the VectorEnv.

    Returns:
        Whether it is one of Gymnasium's own two.
    """
    own = installed().vector
    return isinstance(_unwrapped(vector), own.SyncVectorEnv | own.AsyncVectorEnv)


def is_closed(vector: Any) -> bool:
    """Tell whether a VectorEnv is closed.

    Args:
        vector: the VectorEnv.

    Returns:
        Whether it is.
    """
    return bool(getattr(_unwrapped(vector), "closed", False))


def require_open(vector: Any) -> None:
    """Refuse a closed VectorEnv.

    Args:
        vector: the VectorEnv.

    Raises:
        RuntimeError: if it is closed.
    """
    if is_closed(vector):
        raise RuntimeError("the VectorEnv is closed. Make the environments anew with from_gymnasium.")


def close_vector(vector: Any) -> None:
    """Close a VectorEnv that is open.

    Args:
        vector: the VectorEnv.
    """
    if not is_closed(vector):
        vector.close()


def _with_final(space: Any, obs: Any, info: dict[str, Any], done: np.ndarray) -> Any:
    """Observations before the reset: those in info where an episode ended, the others as they are."""
    final = info.get("final_obs")
    if final is None:
        raise ValueError(
            'a VectorEnv with autoreset_mode SAME_STEP must give the last observation as info["final_obs"], got '
            f"{sorted(info)}. Without it the value of a truncated episode is lost."
        )
    last = jax.tree.map(np.copy, obs)
    for i in np.flatnonzero(done):
        row = final[i] if isinstance(final, np.ndarray | list) else jax.tree.map(lambda x, i=i: x[i], final)
        jax.tree.map(lambda to, x, i=i: to.__setitem__(i, x), last, from_host("final_obs", space, row))
    return last
