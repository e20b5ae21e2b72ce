"""Environments of Brax (extra `envs`) and of the same form, such as those of MuJoCo Playground."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from pgjax import _checks
from pgjax.envs.resets import TimeLimit

Array = jax.Array

__all__ = ["Brax", "from_brax"]

# Wrappers, by name, that reset by themselves or cut episodes without a word, or that step a batch.
_RESETTING = {
    "AutoResetWrapper", "BraxAutoResetWrapper", "BraxDomainRandomizationVmapWrapper", "DomainRandomizationVmapWrapper",
    "EpisodeWrapper", "EvalWrapper", "VmapWrapper",
}  # fmt: skip


@dataclass(frozen=True)
class Brax:
    """An environment of Brax without resets and without a limit of time, in the five-value form.

    Shapes: obs as in the environment's state, action [D] with D = env.action_size.

    Args:
        env: an environment with ``reset(rng)`` -> state and ``step(state, action)`` -> state, whose states have
            ``obs``, ``reward`` and ``done``: see ``brax.envs.get_environment``.

    Returns:
        The environment with `reset` and `step_env`; `from_brax` makes one of the six-value form of it.

    Raises:
        TypeError: if env has not these methods.
        ValueError: if it is wrapped in one of Brax's wrappers that resets, cuts episodes or steps a batch.
    """

    env: Any

    def __post_init__(self) -> None:
        for name in ("reset", "step"):
            if not callable(getattr(self.env, name, None)):
                raise TypeError(
                    f"env must be an environment of Brax, with a method {name}, got {type(self.env).__name__}. "
                    "Make one with brax.envs.get_environment."
                )
        if not isinstance(getattr(self.env, "action_size", None), int):
            raise TypeError(
                f"env must be an environment of Brax, with a whole number action_size; {type(self.env).__name__} has "
                "none. Make one with brax.envs.get_environment."
            )
        inside = self.env
        while inside is not None:
            if type(inside).__name__ in _RESETTING:
                raise ValueError(
                    f"env must not be wrapped in {type(inside).__name__}: it hides how an episode ended, or what was "
                    "seen last. Make env with brax.envs.get_environment, not with brax.envs.create: from_brax cuts "
                    "episodes, and rollouts step many environments."
                )
            inside = vars(inside).get("env") if hasattr(inside, "__dict__") else None

    def action_space(self, params: Any = None) -> spaces.Box:
        """Say what is done: a vector in [-1, 1], which Brax scales to what the actuators take."""
        return spaces.Box(-1.0, 1.0, (self.env.action_size,), jnp.float32)

    def observation_space(self, params: Any = None) -> Any:
        """Say what is seen, without bounds."""
        return _boxes(jax.eval_shape(self._reset, jax.random.key(0)).obs)

    def reset(self, key: Array, params: Any = None) -> tuple[Any, Any]:
        """Start an episode: (obs, state)."""
        state = self._reset(key)
        return state.obs, state

    def step_env(self, key: Array, state: Any, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step without a reset: (obs, state, reward, done, info). The key is not used."""
        _checks.require_shape("action", action, (self.env.action_size,), "[D]", of="env.action_size")
        with jax.numpy_rank_promotion("allow"):
            new = jax.tree.map(jnp.asarray, self.env.step(state, action))
        _checks.require_same_structure("the state of env.step", new, state, of="the state of env.reset")
        done = new.done if new.done.dtype == jnp.bool_ else new.done > 0.5
        return new.obs, new, new.reward, done, {}

    def _reset(self, key: Array) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return jax.tree.map(jnp.asarray, self.env.reset(key))


def from_brax(env: Any, *, episode_length: int = 1000) -> TimeLimit:
    """Adapt an environment of Brax: an end of its own is a termination, the limit of time a truncation.

    Brax leaves both to wrappers, which reset to the one state that they began from and keep no last observation. Here
    the environment itself is stepped, the last observation is the true one, and each episode begins from a new state.
    That costs a reset a step: ``PooledReset(from_brax(env), size)`` draws start states ahead.

    Shapes: obs [F], or as the environment's states have it; action [D] in [-1, 1].

    Args:
        env: an environment of Brax as ``brax.envs.get_environment`` gives it, or of the same form: ``reset(rng)`` and
            ``step(state, action)`` give states with ``obs``, ``reward`` and ``done``, as in MuJoCo Playground.
        episode_length: the limit, environment steps, at least 1. Brax trains with 1000.

    Returns:
        An environment of the six-value form. Metrics and whatever else Brax tells are in its state.

    Raises:
        TypeError: if env is of another form.
        ValueError: if episode_length < 1, or if env is wrapped already.

    References:
        Freeman, Frey, Raichuk et al. (2021), Brax: a differentiable physics engine for large scale rigid body
        simulation.
    """
    return TimeLimit(Brax(env), _checks.as_positive_int("episode_length", episode_length))


def _boxes(obs: Any) -> Any:
    """The space of an observation: a box of each array, by name where there are several."""
    if isinstance(obs, dict) or hasattr(obs, "keys"):
        return spaces.Dict({key: _boxes(obs[key]) for key in obs})
    if isinstance(obs, tuple | list):
        return spaces.Tuple([_boxes(x) for x in obs])
    return spaces.Box(-jnp.inf, jnp.inf, obs.shape, obs.dtype)
