"""Environments of Gymnasium (extra `envs`): stepped on the host, all of a batch at once, from compiled programs."""

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from pgjax import _checks
from pgjax.envs._spaces import checked_action, described, from_host, installed, packed, specified, to_host
from pgjax.envs._vector import (
    Batch,
    close_vector,
    is_closed,
    is_gymnasiums_own,
    is_vector_env,
    made,
    require_open,
    resets_in_the_same_step,
)

Array = jax.Array

__all__ = ["Gymnasium", "HostState", "from_gymnasium"]


@struct.dataclass
class HostState:
    """Which environment on the host a row stands for, and how far it had come. Nothing of what is inside is here.

    Args:
        batch: int32, the name of the batch of environments, drawn anew by each reset.
        index: int32, the row of that batch.
        time: int32, steps that the batch had taken.

    Returns:
        The state.
    """

    batch: Array
    index: Array
    time: Array


class Gymnasium:
    """Environments of Gymnasium as one environment of the six-value form, whose batches live on the host.

    `from_gymnasium` makes one and says what holds of it.

    Shapes: obs and action as the spaces of a single environment say.

    Args:
        make: make(num_envs) -> a ``gymnasium.vector.VectorEnv`` of so many environments; or one that is there, whose
            number of environments is then the only one.
        max_batches: batches kept at a time, at least 1.

    Returns:
        The environment.

    Raises:
        TypeError: if make is neither, or a space is of a kind that arrays of a fixed shape do not hold.
        ValueError: if max_batches < 1, or if the environments begin episodes so that the last observation is lost.
    """

    def __init__(self, make: Any, *, max_batches: int = 4):
        self._most = _checks.as_positive_int("max_batches", max_batches)
        self._lock = threading.RLock()
        self._batches: list[Batch] = []
        self._clock, self._closed = 0, False
        self._make: Callable[[int], Any] | None = None
        if is_vector_env(make):
            first = make
            self._batches.append(Batch(make))
        elif callable(make):
            self._make = make
            first = made(make, 1)
        else:
            raise TypeError(
                f"make must be a function of num_envs that gives a gymnasium.vector.VectorEnv, or one, got "
                f"{type(make).__name__}. Wrap a single environment as gymnasium.vector.SyncVectorEnv([function])."
            )
        resets_in_the_same_step(first)
        self._seen, self._done = first.single_observation_space, first.single_action_space
        self._observation_space = described("observation", self._seen)
        self._action_space = described("action", self._done)
        if self._make is not None:
            first.close()

    def __repr__(self) -> str:
        return f"Gymnasium({self._observation_space}, {self._action_space})"

    def observation_space(self, params: Any = None) -> Any:
        """Say what is seen."""
        return self._observation_space

    def action_space(self, params: Any = None) -> Any:
        """Say what is done."""
        return self._action_space

    def reset(self, key: Array, params: Any = None) -> tuple[Any, HostState]:
        """Start an episode, seeded by the key: (obs, state)."""
        seed = jax.random.randint(key, (), 0, 2**31 - 1)
        return _ask(self._host_reset, (specified(self._seen), _handle_like()), seed)

    def step(self, key: Array, state: HostState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values. The key is not used."""
        _checks.require_instance("env_state", state, HostState, remedy="Start with init_rollout on this environment.")
        action = packed(checked_action(self._done, action))
        sent = jnp.concatenate([jnp.stack([state.batch, state.index, state.time]), action])
        obs, reward = specified(self._seen), jax.ShapeDtypeStruct((), jnp.float32)
        mask = jax.ShapeDtypeStruct((), jnp.bool_)
        result = _ask(self._host_step, (obs, obs, reward, mask, mask, _handle_like()), sent)
        first, last, reward, terminated, truncated, state = result
        return first, state, reward, terminated, truncated, {"final_observation": last}

    def close(self) -> None:
        """Close all batches. What is stepped or reset afterwards is refused."""
        with self._lock:
            self._closed = True
            for batch in self._batches:
                close_vector(batch.vector)
            self._batches.clear()

    def _host_reset(self, seeds: np.ndarray) -> tuple[Any, HostState]:
        """Reset as many environments as there are seeds [B]."""
        with self._lock:
            batch, given = self._taken(len(seeds)), seeds.tolist()
            with self._lost_by_an_error(batch):
                obs, _ = batch.vector.reset(seed=given if is_gymnasiums_own(batch.vector) else given[0])
                obs = from_host("reset", self._seen, obs, len(given))
            batch.name, batch.time = secrets.randbits(31), 0
            return obs, self._states(batch)

    def _host_step(self, sent: np.ndarray) -> Any:
        """Step a batch by its handles and its packed actions, [B, 3 + D]."""
        name, index, time = np.moveaxis(sent[:, :3], 1, 0)
        with self._lock:
            batch = self._found(name, index, time)
            current = time == batch.time
            with self._lost_by_an_error(batch):
                *answer, reward, terminated, truncated = batch.step(to_host(self._done, sent[:, 3:]), self._seen)
            batch.time += 1
            # Rows that a loop under vmap has finished with stay behind: it keeps their old state and drops the rest.
            reward = np.where(current, reward, np.float32(np.nan))
            return *answer, reward, terminated, truncated, self._states(batch, np.where(current, batch.time, time))

    def _states(self, batch: "Batch", time: Any = 0) -> HostState:
        self._clock += 1
        batch.used = self._clock
        number = batch.vector.num_envs
        rows: Any = np.full(number, batch.name), np.arange(number), np.broadcast_to(time, number)
        return HostState(*(x.astype(np.int32) for x in rows))

    def _taken(self, num_envs: int) -> "Batch":
        """A batch for new episodes: one more while there may be, else the one that was used longest ago."""
        self._require_open()
        if self._make is None:
            batch = self._batches[0]
            require_open(batch.vector)
            if batch.vector.num_envs != num_envs:
                raise ValueError(
                    f"num_envs must be {batch.vector.num_envs}, what the given VectorEnv holds, got {num_envs}. "
                    "Give from_gymnasium a function that makes a VectorEnv of any number."
                )
            return batch
        if len(self._batches) >= self._most:
            oldest = min(self._batches, key=lambda batch: batch.used)
            if oldest.vector.num_envs == num_envs and not is_closed(oldest.vector):
                return oldest
            self._batches.remove(oldest)
            close_vector(oldest.vector)
        batch = Batch(made(self._make, num_envs))
        self._batches.append(batch)
        return batch

    def _found(self, name: np.ndarray, index: np.ndarray, time: np.ndarray) -> "Batch":
        """The batch whose handles these are, all of them and at least one of its latest step."""
        self._require_open()
        named = [batch for batch in self._batches if np.all(name == batch.name)]
        if not named:
            raise ValueError(
                "env_state belongs to no batch of environments that is still there: another reset took them, they "
                "failed, or another program saved the state. Start with init_rollout; evaluate on a second environment "
                "from from_gymnasium, or raise max_batches. What is on the host cannot be resumed from a saved state."
            )
        batch = named[0]
        require_open(batch.vector)
        if not np.array_equal(index, np.arange(batch.vector.num_envs)):
            raise ValueError(
                f"env_state must hold all {batch.vector.num_envs} environments of its batch, in their order, got the "
                f"rows {index.tolist()}. A VectorEnv steps all at once: step all, or reset as many as you want."
            )
        if not np.any(time == batch.time):
            raise ValueError(
                f"env_state is of step {time[0]} of its batch, which is at step {batch.time}: the environments on the "
                "host have gone on, and cannot be set back. Use each state once, the one that the last step gave."
            )
        return batch

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("the environments are closed. Make them anew with from_gymnasium.")

    @contextlib.contextmanager
    def _lost_by_an_error(self, batch: "Batch") -> Iterator[None]:
        """After an error nobody knows how far each environment has come: no state belongs to the batch any more."""
        try:
            yield
        except BaseException:
            batch.name = -1
            if self._make is not None:
                self._batches.remove(batch)
                close_vector(batch.vector)
            raise


def from_gymnasium(make: Any, *, max_batches: int = 4, **options: Any) -> Gymnasium:
    """Adapt environments of Gymnasium: `rollout`, `evaluate` and the recipes run on them as on those of gymnax.

    A compiled program calls the host once a step, and the host steps all environments at once. What lies on the host
    is no array: the state is a `HostState`, a handle that says which environments, and after how many steps. One that
    the environments have left behind is refused, so that a state which was copied, saved or used twice is an error.

    Shapes: obs and action as the spaces of a single environment say; 64-bit numbers become 32-bit ones.

    Args:
        make: the name of a registered environment, such as ``"CartPole-v1"``; or make(num_envs) -> a
            ``gymnasium.vector.VectorEnv``, called on the host when so many environments are first reset; or a
            VectorEnv, which is then the only batch.
        max_batches: batches of environments kept at a time, at least 1: a reset beyond takes that which was used
            longest ago, whose states are then refused. One for training and one for evaluation are two.
        **options: of a registered environment, passed to ``gymnasium.make_vec``.

    Returns:
        An environment of the six-value form, with ``close``. `terminated` and `truncated` are Gymnasium's own; the
        last observation comes before the reset. Actions are passed as they are, not clipped.

    Raises:
        ImportError: if Gymnasium is not installed.
        TypeError: if make is none of these, options are given with another than a name, or a space is of a kind
            that arrays of a fixed shape do not hold.
        ValueError: if max_batches < 1, or if a VectorEnv resets in the next step and cannot be reset in part.

    Properties:
        Environment i of a reset has the seed ``jax.random.randint(key_i, (), 0, 2**31 - 1)``; what comes after depends
        on Gymnasium's own random numbers, and keys of later steps are not used. Under ``vmap``, over seeds for example,
        all environments together are one batch; a row that such a loop has finished with, as `evaluate` has, goes on
        unseen, its reward NaN. No gradient passes. An error on the host is raised with its message, and ends the batch.

    Example:
        >>> env = pg.envs.from_gymnasium("CartPole-v1")
        >>> state = pg.init_rollout(jax.random.key(0), env, None, num_envs=3)
        >>> state, window = pg.rollout(
        ...     jax.random.key(1), jnp.zeros((4, 2)), state, policy=lambda params, obs: pg.Categorical(obs @ params),
        ...     env=env, env_params=None, num_steps=5)
        >>> window.next_obs.shape
        (5, 3, 4)
        >>> env.close()

    References:
        Towers, Kwiatkowski, Terry et al. (2024), Gymnasium: a standard interface for reinforcement learning
        environments.
    """
    gymnasium = installed()
    if isinstance(make, str):
        name = make
        options.setdefault("vectorization_mode", "sync")
        options["vector_kwargs"] = {"autoreset_mode": "SameStep", **options.get("vector_kwargs", {})}

        def make(num_envs: int) -> Any:
            return gymnasium.make_vec(name, num_envs, **options)

    elif options:
        raise TypeError(f"options {sorted(options)} go with the name of an environment only. Use them inside make.")
    return Gymnasium(make, max_batches=max_batches)


def _ask(host: Callable[[np.ndarray], Any], like: Any, sent: Array) -> Any:
    """Call a function of rows [B, ...] on the host, once for all the axes that vmap has added.

    The compiler is told that the call is pure, so that it may stand in a loop that ends apart for the seeds of a vmap.
    What the compiler might do then, to drop a call whose result nobody reads or to call twice, does no harm: the
    handle orders the calls, and one that comes twice is refused.
    """

    def call(x: Any) -> Any:
        x = np.asarray(x)
        lead, own = x.shape[: x.ndim - sent.ndim], x.shape[x.ndim - sent.ndim :]
        return jax.tree.map(lambda row: row.reshape((*lead, *row.shape[1:])), host(x.reshape(-1, *own)))

    return jax.pure_callback(call, like, jax.lax.stop_gradient(sent), vmap_method="broadcast_all")


def _handle_like() -> Any:
    return HostState(*3 * (jax.ShapeDtypeStruct((), jnp.int32),))  # type: ignore[arg-type]
