"""Environments of Gymnasium (extra `envs`): stepped on the host, all of a batch at once, from compiled programs."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces

from pgjax import _checks
from pgjax.envs.wrappers import Choices

Array = jax.Array

__all__ = ["Gymnasium", "HostState", "from_gymnasium"]


@struct.dataclass
class HostState:
    """Which environment on the host a row stands for, and how far it had come. It holds nothing of what is inside.

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


_HANDLE: Any = HostState(*3 * (jax.ShapeDtypeStruct((), jnp.int32),))


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
        ValueError: if max_batches < 1, or if the environments begin episodes in a way that hides the last observation.
    """

    def __init__(self, make: Any, *, max_batches: int = 4):
        self._most = _checks.as_positive_int("max_batches", max_batches)
        self._lock = threading.RLock()
        self._batches: list[_Batch] = []
        self._clock, self._closed = 0, False
        self._make: Callable[[int], Any] | None = None
        if _is_vector_env(make):
            self._batches.append(_Batch(make))
            first = make
        elif callable(make):
            self._make = make
            first = _made(make, 1)
        else:
            raise TypeError(
                f"make must be a function of num_envs that gives a gymnasium.vector.VectorEnv, or one, got "
                f"{type(make).__name__}. Wrap a single environment as gymnasium.vector.SyncVectorEnv([function])."
            )
        resets_in_the_same_step(first)
        self._seen, self._done = first.single_observation_space, first.single_action_space
        self._observation_space = _described("observation", self._seen)
        self._action_space = _described("action", self._done)
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
        return _ask(self._host_reset, (_specified(self._seen), _HANDLE), seed)

    def step(self, key: Array, state: HostState, action: Any, params: Any = None) -> tuple[Any, ...]:
        """Take one step and start anew where the episode ended: six values. The key is not used."""
        _checks.require_instance("env_state", state, HostState, remedy="Start with init_rollout on this environment.")
        obs, number, mask = _specified(self._seen), jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), bool)
        sent = _packed(state, _checked_action(self._done, action))
        result = _ask(self._host_step, (obs, obs, number, mask, mask, _HANDLE), sent)
        obs, last, reward, terminated, truncated, state = result
        return obs, state, reward, terminated, truncated, {"final_observation": last}

    def close(self) -> None:
        """Close all batches. What is stepped or reset afterwards is refused."""
        with self._lock:
            self._closed = True
            for batch in self._batches:
                _close(batch.vector)
            self._batches.clear()

    def _host_reset(self, seeds: np.ndarray) -> tuple[Any, HostState]:
        """Reset as many environments as there are seeds [B]."""
        with self._lock:
            batch = self._taken(len(seeds))
            with self._broken_by_errors(batch):
                given = seeds.tolist()
                obs, _ = batch.vector.reset(seed=given if _is_gymnasiums_own(batch.vector) else given[0])
                obs = _converted("reset", self._seen, obs, len(given))
            batch.name, batch.time = secrets.randbits(31), 0
            return obs, self._states(batch)

    def _host_step(self, sent: np.ndarray) -> Any:
        """Step a batch by what `_packed` gave, [B, 3 + D]."""
        state = HostState(*np.moveaxis(sent[:, :3], 1, 0))  # type: ignore[arg-type]
        with self._lock:
            batch, current = self._found(state)
            with self._broken_by_errors(batch):
                answer = batch.step(_unpacked(self._done, sent[:, 3:]), self._seen)
            batch.time += 1
            new = self._states(batch)
            if current.all():
                return *answer, new
            # Rows that a loop under vmap has finished with: it keeps their old state and drops what comes here.
            obs, last, reward, terminated, truncated = answer
            reward = np.where(current, reward, np.float32(np.nan))
            new = HostState(new.batch, new.index, np.where(current, new.time, state.time))
            return obs, last, reward, terminated, truncated, new

    def _states(self, batch: "_Batch") -> HostState:
        self._clock += 1
        batch.used = self._clock
        number = batch.vector.num_envs
        name, time = (np.full(number, x, np.int32) for x in (batch.name, batch.time))
        return HostState(name, np.arange(number, dtype=np.int32), time)  # type: ignore[arg-type]

    def _taken(self, num_envs: int) -> "_Batch":
        """A batch for new episodes: one more while there may be, else the one that was used longest ago."""
        if self._closed:
            raise RuntimeError("the environments are closed. Make them anew with from_gymnasium.")
        if self._make is None:
            batch = self._batches[0]
            _require_open(batch.vector)
            if batch.vector.num_envs != num_envs:
                raise ValueError(
                    f"num_envs must be {batch.vector.num_envs}, what the given VectorEnv holds, got {num_envs}. "
                    "Give from_gymnasium a function that makes a VectorEnv of any number."
                )
            return batch
        if len(self._batches) >= self._most:
            oldest = min(self._batches, key=lambda batch: batch.used)
            if oldest.vector.num_envs == num_envs and not _is_closed(oldest.vector):
                return oldest
            self._batches.remove(oldest)
            _close(oldest.vector)
        batch = _Batch(_made(self._make, num_envs))
        self._batches.append(batch)
        return batch

    def _found(self, state: HostState) -> tuple["_Batch", np.ndarray]:
        """The batch that a state belongs to, and which of its rows the batch has not left behind."""
        if self._closed:
            raise RuntimeError("the environments are closed. Make them anew with from_gymnasium.")
        index = np.asarray(state.index)
        named = [batch for batch in self._batches if (batch.name == state.batch).all()]
        if not named:
            raise ValueError(
                "env_state belongs to no batch of environments that is still there: another reset took them, they failed, "
                "or the state was saved by another program. Start with init_rollout; evaluate on a second environment "
                "from from_gymnasium, or raise max_batches. A host environment cannot be resumed from a saved state."
            )
        batch = named[0]
        _require_open(batch.vector)
        if not np.array_equal(index, np.arange(batch.vector.num_envs)):
            raise ValueError(
                f"env_state must hold all {batch.vector.num_envs} environments of its batch, in their order, got the "
                f"rows {index.tolist()}. A VectorEnv steps all at once: step all of them, or reset as many as you want."
            )
        current = np.asarray(state.time) == batch.time
        if not current.any():
            raise ValueError(
                f"env_state is of step {int(state.time[0])} of its batch, which is at step {batch.time}: the environments "
                "on the host have gone on, and cannot be set back. Use each state once, the one that the last step gave."
            )
        return batch, current

    def _broken_by_errors(self, batch: "_Batch") -> "_Broken":
        return _Broken(self, batch)


@dataclass(eq=False)
class _Batch:
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
        obs = last = _converted("step", space, obs, number)
        if done.any():
            if resets_in_the_same_step(self.vector):
                last = _with_final(space, obs, info, done)
            else:
                obs, _ = self.vector.reset(options={"reset_mask": done})
                obs = _converted("reset", space, obs, number)
        return obs, last, np.array(reward, np.float32).reshape(number), terminated, truncated


class _Broken:
    """A context in which an error leaves a batch that no state belongs to any more."""

    def __init__(self, env: Gymnasium, batch: _Batch):
        self.env, self.batch = env, batch

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            return
        self.batch.name = -1
        if self.env._make is not None:
            self.env._batches.remove(self.batch)
            _close(self.batch.vector)


def from_gymnasium(make: Any, *, max_batches: int = 4, **options: Any) -> Gymnasium:
    """Adapt environments of Gymnasium: `rollout`, `evaluate` and every recipe run on them as on those of gymnax.

    A compiled program calls the host once a step, and the host steps all environments at once. What lies on the host
    is no array: the state is a `HostState`, a handle that says which environments, and after how many steps. One that
    the environments have left behind is refused, so that a state which was copied, saved or used twice is an error.

    Shapes: obs and action as the spaces of a single environment say; 64-bit numbers become 32-bit ones.

    Args:
        make: the name of a registered environment, such as ``"CartPole-v1"``; or make(num_envs) -> a
            ``gymnasium.vector.VectorEnv``, called on the host when so many environments are first reset; or a
            VectorEnv, which is then the only batch.
        max_batches: batches of environments kept at a time, at least 1: a reset beyond takes that which was used longest
            ago, whose states are then refused. One for training and one for evaluation are two.
        **options: of a registered environment, passed to ``gymnasium.make_vec``.

    Returns:
        An environment of the six-value form, with ``close``. ``truncated`` and ``terminated`` are Gymnasium's own; the last
        observation comes before the reset. Actions are passed as they are, not clipped.

    Raises:
        ImportError: if Gymnasium is not installed.
        TypeError: if make is none of these, options are given with another than a name, or a space is of a kind
            that arrays of a fixed shape do not hold.
        ValueError: if max_batches < 1, or if a VectorEnv resets in the next step and cannot be reset in part.

    Properties:
        Environment i of a reset has the seed ``jax.random.randint(key_i, (), 0, 2**31 - 1)``, what comes after depends
        on Gymnasium's own random numbers: keys of later steps are not used. Under ``vmap``, over seeds for example, all
        environments together are one batch; a row that such a loop has finished with, as `evaluate` has, goes on
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
        Towers, Kwiatkowski, Terry et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
    """
    gymnasium = _gymnasium()
    if isinstance(make, str):
        name = make
        options.setdefault("vectorization_mode", "sync")
        options["vector_kwargs"] = {"autoreset_mode": "SameStep", **options.get("vector_kwargs", {})}

        def make(num_envs: int) -> Any:
            return gymnasium.make_vec(name, num_envs, **options)

    elif options:
        raise TypeError(f"options {sorted(options)} go with the name of an environment only. Use them inside make.")
    return Gymnasium(make, max_batches=max_batches)


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
    if mode != "SameStep" and not _is_gymnasiums_own(vector):
        raise ValueError(
            f"make must give a VectorEnv with autoreset_mode SAME_STEP, got {mode} of {type(_unwrapped(vector)).__name__}: one "
            "that resets in the next step ignores an action and hides what was seen first. "
            "Use gymnasium.vector.SyncVectorEnv(..., autoreset_mode='SameStep')."
        )
    return bool(mode == "SameStep")


def _gymnasium() -> Any:
    try:
        import gymnasium
        import gymnasium.vector
    except ImportError as error:
        raise ImportError("from_gymnasium needs Gymnasium: pip install 'pgjax[envs]'.") from error
    return gymnasium


def _ask(host: Callable[[np.ndarray], Any], like: Any, sent: Array) -> Any:
    """Call a function of rows [B, ...] on the host, once for all the axes that vmap has added.

    The compiler is told that the call is pure, which lets it stand in a loop that ends apart for the seeds of a vmap. What
    it might do then, to drop a call whose result nobody reads or to call twice, does no harm: the handle orders the calls,
    and one that comes twice is refused.
    """

    def call(x: Any) -> Any:
        x = np.asarray(x)
        lead = x.shape[: x.ndim - sent_ndim]
        result = host(x.reshape(-1, *x.shape[x.ndim - sent_ndim :]))
        return jax.tree.map(lambda x: x.reshape((*lead, *x.shape[1:])), result)

    sent_ndim = sent.ndim
    return jax.pure_callback(call, like, jax.lax.stop_gradient(sent), vmap_method="broadcast_all")


def _packed(state: HostState, action: Any) -> Array:
    """The handle and the action of one environment as int32 [3 + D]: one array reaches the host sooner than several."""
    bits = [
        jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
        if jnp.issubdtype(x.dtype, jnp.floating)
        else x.astype(jnp.int32)
        for x in jax.tree.leaves(action)
    ]
    return jnp.concatenate([jnp.stack([state.batch, state.index, state.time]), *(x.reshape(-1) for x in bits)])


def _unpacked(space: Any, bits: np.ndarray) -> Any:
    """Actions [B, ...] as the host takes them: in the dtype of their space, from its own first number on."""
    inside = _inside(space)
    if inside is not None:
        parts = inside.items() if isinstance(inside, dict) else enumerate(inside)
        found, begin = {}, 0
        # The leaves of a dict come in the order of its keys.
        for key, part in sorted(parts):
            size = sum(x.size for x in jax.tree.leaves(_specified(part)))
            found[key] = _unpacked(part, bits[:, begin : begin + size])
            begin += size
        return found if isinstance(inside, dict) else tuple(found.values())
    floating = np.issubdtype(space.dtype, np.floating)
    x = (np.ascontiguousarray(bits).view(np.float32) if floating else bits).astype(space.dtype)
    return x.reshape(len(bits), *space.shape) + np.asarray(_start(space), space.dtype)


def _made(make: Callable[[int], Any], num_envs: int) -> Any:
    vector = make(num_envs)
    if not _is_vector_env(vector):
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


def _is_vector_env(x: Any) -> bool:
    needed = ("num_envs", "single_observation_space", "single_action_space", "reset", "step")
    return not isinstance(x, type) and all(hasattr(x, name) for name in needed)


def _unwrapped(vector: Any) -> Any:
    return getattr(vector, "unwrapped", vector)


def _is_gymnasiums_own(vector: Any) -> bool:
    """Whether it is one that takes a seed for each environment, and resets some of them."""
    own = _gymnasium().vector
    return isinstance(_unwrapped(vector), own.SyncVectorEnv | own.AsyncVectorEnv)


def _is_closed(vector: Any) -> bool:
    return bool(getattr(_unwrapped(vector), "closed", False))


def _require_open(vector: Any) -> None:
    if _is_closed(vector):
        raise RuntimeError("the VectorEnv is closed. Make the environments anew with from_gymnasium.")


def _close(vector: Any) -> None:
    if not _is_closed(vector):
        vector.close()


def _described(name: str, space: Any) -> Any:
    """A space as gymnax would have it, whose whole numbers begin with 0."""
    kinds = _gymnasium().spaces
    if isinstance(space, kinds.Dict):
        return spaces.Dict({key: _described(name, inside) for key, inside in space.spaces.items()})
    if isinstance(space, kinds.Tuple):
        return spaces.Tuple([_described(name, inside) for inside in space.spaces])
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
        f"the {name} space must be Box, Discrete, MultiDiscrete or MultiBinary of one axis, or Dict or Tuple of such, got "
        f"{space}. Wrap the environment so that it is, with gymnasium.wrappers.TransformObservation for example."
    )


def _bound(x: np.ndarray, dtype: Any) -> np.ndarray:
    """A bound in a narrower dtype, whose whole numbers would wrap around."""
    if np.issubdtype(dtype, np.integer):
        x = np.clip(x, np.iinfo(dtype).min, np.iinfo(dtype).max)
    with np.errstate(over="ignore"):
        return x.astype(dtype)


def _narrow(dtype: Any) -> Any:
    """The dtype in which numbers reach the device: at most 32 bits."""
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}4") if dtype.itemsize > 4 else dtype


def _inside(space: Any) -> Any:
    """What a space is made of, as a dict or a tuple; None of one array."""
    kinds = _gymnasium().spaces
    if isinstance(space, kinds.Dict):
        return dict(space.spaces)
    return tuple(space.spaces) if isinstance(space, kinds.Tuple) else None


def _leaf_dtype(space: Any) -> Any:
    kinds = _gymnasium().spaces
    return np.dtype(np.int32) if isinstance(space, kinds.Discrete | kinds.MultiDiscrete) else _narrow(space.dtype)


def _specified(space: Any) -> Any:
    """The arrays that an element of a space is made of."""
    inside = _inside(space)
    if isinstance(inside, dict):
        return {key: _specified(part) for key, part in inside.items()}
    if isinstance(inside, tuple):
        return tuple(_specified(part) for part in inside)
    return jax.ShapeDtypeStruct(space.shape, _leaf_dtype(space))


def _start(space: Any) -> Any:
    return getattr(space, "start", 0)  # of Discrete and MultiDiscrete


def _converted(name: str, space: Any, x: Any, *lead: int) -> Any:
    """What the host gave, as new arrays of the dtypes of `_specified`."""
    inside = _inside(space)
    if isinstance(inside, dict):
        return {key: _converted(name, part, x[key], *lead) for key, part in inside.items()}
    if isinstance(inside, tuple):
        return tuple(_converted(name, part, row, *lead) for part, row in zip(inside, x, strict=True))
    array = np.asarray(x)
    if array.shape != (*lead, *space.shape):
        raise ValueError(
            f"the observation of {name} must have the shape {[*lead, *space.shape]} of the observation space, got "
            f"{list(array.shape)}. Mend the environment: gymnasium.utils.env_checker.check_env tells more."
        )
    return np.array(array - _start(space), _leaf_dtype(space)) if np.any(_start(space)) else np.array(array, _leaf_dtype(space))


def _with_final(space: Any, obs: Any, info: dict[str, Any], done: np.ndarray) -> Any:
    """Observations before the reset: those in info where an episode ended, the others as they are."""
    final = info.get("final_obs")
    if final is None:
        raise ValueError(
            'a VectorEnv with autoreset_mode SAME_STEP must give the last observation as info["final_obs"], got the keys '
            f"{sorted(info)}. Without it the value of a truncated episode is lost."
        )
    last = jax.tree.map(np.copy, obs)
    for i in np.flatnonzero(done):
        row = final[i] if isinstance(final, np.ndarray | list) else jax.tree.map(lambda x, i=i: x[i], final)
        jax.tree.map(lambda to, x, i=i: to.__setitem__(i, x), last, _converted("final_obs", space, row))
    return last


def _checked_action(space: Any, action: Any) -> Any:
    """The action, refused where it is not of the space's structure and shapes."""
    wanted = _specified(space)
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
