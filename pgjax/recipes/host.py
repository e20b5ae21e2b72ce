"""Environments outside JAX, stepped one by one by a policy that is compiled: what an actor thread does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from pgjax._types import Policy, RolloutState, Trajectory
from pgjax.distributions import sample_action
from pgjax.recipes.threads import Channel, Crew
from pgjax.rollout._episodes import restarted
from pgjax.rollout.policies import apply_policy

Array = jax.Array


class Window(NamedTuple):
    """What an actor hands over."""

    trajectory: Trajectory  # NumPy, leaves [T, E, ...]
    start: RolloutState | None  # of a recurrent policy, what the window started from
    version: int  # updates that the parameters which acted had seen
    actor: int  # its index
    episode_return: np.ndarray  # [E], of each environment's latest whole episode; NaN before the first


class Actor:
    """Some environments outside JAX and the policy that acts in them.

    Args:
        index: of the actor; its environments have the indices index * num_envs and following.
        make_env: make_env(index) -> an environment of Gymnasium's form.
        num_envs: E, environments that it steps in turn.
        key: a PRNG key, of this actor alone.
        policy: policy(params, obs [E, ...]) -> distribution; a recurrent one as in `rollout`.
        policy_state: memory of a recurrent policy at the start of an episode, leaves [E, ...], or None.

    Returns:
        The actor; `run` is what its thread does.
    """

    def __init__(
        self, index: int, make_env: Callable[[int], Any], num_envs: int, key: Array, policy: Policy, policy_state: Any
    ):
        self.index, self._make_env, self._num_envs = index, make_env, num_envs
        self._memory = self._start_memory = policy_state
        self._seed_key, self._key = jax.random.split(key)
        self._count = 0  # steps done
        self._running = np.zeros(num_envs, np.float32)
        self._returns = np.full(num_envs, np.nan, np.float32)
        self._step = np.zeros(num_envs, np.int32)

        @jax.jit
        def act(params: Any, obs: Any, memory: Any, key: Array, count: Array) -> Any:
            distribution, extras, memory = apply_policy(policy, params, obs, memory)
            return *sample_action(distribution, jax.random.fold_in(key, count)), extras, memory

        self._act = act
        self._restart = jax.jit(restarted)

    def run(self, crew: Crew, ready: Channel, windows: Channel, newest: Any, num_steps: int) -> None:
        """Make the environments, hand over first observations, then windows until the crew stops.

        Args:
            crew: whose thread this is.
            ready: takes the first observations, leaves [E, ...].
            windows: takes a `Window` at a time.
            newest: newest[0] is (count of updates, parameters), or None as long as there are none.
            num_steps: T, environment steps in each window.
        """
        self._envs = []
        try:
            for i in range(self._num_envs):
                self._envs.append(self._make_env(self.index * self._num_envs + i))
            seeds = jax.random.randint(self._seed_key, (self._num_envs,), 0, 2**31 - 1)
            self._obs = _rows([env.reset(seed=int(s))[0] for env, s in zip(self._envs, seeds, strict=True)])
            ready.put(self._obs)
            while newest[0] is None and not crew.stopped:
                with crew.changed:
                    crew.changed.wait(0.05)
            while not crew.stopped:
                version, params = newest[0]
                windows.put(self._window(crew, version, params, num_steps))
        finally:
            for env in self._envs:
                getattr(env, "close", lambda: None)()

    def _window(self, crew: Crew, version: int, params: Any, num_steps: int) -> Any:
        start = None if self._memory is None else self._rollout_state()
        rows = []
        for _ in range(num_steps):
            if crew.stopped:
                break  # what is half done is not handed over: to put it raises
            rows.append(self._one_step(params))
        trajectory = jax.tree.map(lambda *x: np.stack(x), *rows) if rows else None
        return Window(trajectory, start, version, self.index, self._returns.copy())  # type: ignore[arg-type]

    def _one_step(self, params: Any) -> Trajectory:
        result = self._act(params, self._obs, self._memory, self._key, np.int32(self._count))
        *acted, memory = jax.device_get(result[:-1]) + result[-1:]
        action, raw_action, log_prob, extras = acted
        outcomes = [env.step(jax.tree.map(lambda x, i=i: _plain(x[i]), action)) for i, env in enumerate(self._envs)]
        obs, reward, terminated, truncated, _ = zip(*outcomes, strict=True)
        fields: Any = (
            self._obs, action, np.asarray(reward, np.float32), _rows(obs), np.asarray(terminated, bool),
            np.asarray(truncated, bool), log_prob, self._step.copy(), raw_action, extras,
        )  # fmt: skip
        row = Trajectory(*fields)
        done = np.asarray(row.done)
        self._running += np.asarray(row.reward)
        self._returns = np.where(done, self._running, self._returns)
        self._running = np.where(done, np.float32(0), self._running)
        self._step = np.where(done, 0, self._step + 1).astype(np.int32)
        self._count += 1
        if memory is not None:
            self._memory = self._restart(done, self._start_memory, memory)
        self._obs = _rows([env.reset()[0] if d else o for env, o, d in zip(self._envs, obs, done, strict=True)])
        return row

    def _rollout_state(self) -> RolloutState:
        unknown = np.full(self._num_envs, np.nan, np.float32)
        start: Any = self._start_memory
        fields: Any = (None, self._obs, self._step, self._memory, start, self._running, unknown, unknown)
        return RolloutState(*fields)


def stacked(trajectories: list[Trajectory], starts: list[RolloutState | None]) -> tuple[Trajectory, Any]:
    """Put windows side by side, as one batch.

    Shapes: leaves [T, E, ...] of N windows; results [T, N E, ...], those of starts [N E, ...].

    Args:
        trajectories: the windows.
        starts: what each started from, of a recurrent policy; else None.

    Returns:
        One trajectory, and one start or None.
    """
    join = lambda axis: lambda *x: np.concatenate(x, axis)  # noqa: E731
    start = None if starts[0] is None else jax.tree.map(join(0), *starts)
    return jax.tree.map(join(1), *trajectories), start


def _rows(observations: Any) -> Any:
    """Stack observations; whole numbers become float32, as in `rollout`."""

    def stack(*x: Any) -> np.ndarray:
        rows = np.stack(x)
        return rows if rows.dtype.kind == "f" and rows.dtype.itemsize <= 4 else rows.astype(np.float32)

    return jax.tree.map(stack, *observations)


def _plain(x: Any) -> Any:
    """Make a Python number of a single one: what environments outside JAX expect of a choice."""
    return x.item() if np.ndim(x) == 0 else x
