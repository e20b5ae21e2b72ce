"""An environment outside JAX, in plain Python, with faults that can be planted; and a limit of time for a test."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import pgjax as pg


class Choice:
    """Two steps: action 1 at the first earns 1 at the second, action 0 earns -1; then the end, or a cut.

    Args:
        index: of the environment.
        cut: whether the episode is truncated rather than terminated.
        planted: called with (index, steps done) before each step.
    """

    def __init__(self, index: int, cut: bool = False, planted: Callable[[int, int], Any] | None = None):
        self.index, self.cut, self.planted = index, cut, planted
        self.steps, self.time, self.closed, self.choice = 0, 0, False, 0

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert isinstance(action, int)
        if self.planted is not None:
            self.planted(self.index, self.steps)
        self.steps += 1
        self.time += 1
        if self.time == 1:
            self.choice = action
        last = self.time == 2
        return self._obs(), 2.0 * self.choice - 1.0 if last else 0.0, last and not self.cut, last and self.cut, {}

    def close(self) -> None:
        self.closed = True

    def _obs(self) -> np.ndarray:
        return np.eye(3)[self.time]  # float64, as NumPy makes it


def policy(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params["actor"])


def value(params: Any, obs: Any) -> jax.Array:
    return obs @ params["critic"]


def init_params(key: jax.Array) -> dict[str, jax.Array]:
    return {"actor": 0.1 * jax.random.normal(key, (3, 2)), "critic": np.zeros(3, np.float32) + jax.numpy.zeros(3)}


FUNCTIONS: dict[str, Any] = {"policy": policy, "value": value, "init_params": init_params}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail rather than hang: the block raises TimeoutError after so long, and leaves no thread of a crew behind."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs without
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, ctrl_c)
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith(("actor", "learner", "crew"))]
    assert not alive


def interrupt(after: float) -> None:
    """Press Ctrl-C in a while."""

    def press() -> None:
        time.sleep(after)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
