"""Threads that live and die together, and a bounded queue between them: what the asynchronous recipes run on."""

import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self


class Stopped(Exception):
    """What waiting raises once the crew has stopped: a thread that gets it has nothing left to do."""


class Crew:
    """A group of threads: the first exception in any of them, or in the block of the caller, stops all and is raised.

    The caller's ``with`` block is one of them. When it ends, however it ends, all are told to stop and waited for, and
    the exception that came first leaves the block; a KeyboardInterrupt of the caller always does. An exception of a
    thread that comes only after the block has ended well is told as a warning, since its result is whole.

    Args:
        patience: seconds that threads get to finish once they are told to stop. Those that do not, such as one in a
            system call that never returns, are named in a warning and left behind; they cannot keep the process alive.

    Returns:
        The crew, which is entered by ``with``.

    Example:
        >>> from pgjax.recipes.threads import Crew, Channel
        >>> with Crew() as crew:
        ...     channel = Channel(crew, size=2)
        ...     crew.start("counter", lambda: [channel.put(i) for i in range(3)])
        ...     print([channel.get() for _ in range(3)])
        [0, 1, 2]
    """

    def __init__(self, *, patience: float = 10.0):
        self.patience = patience
        self.changed = threading.Condition()
        self._stopped = False
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    @property
    def stopped(self) -> bool:
        """Whether all have been told to stop."""
        return self._stopped

    def start(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        """Run a function in a thread of its own.

        Args:
            name: of the thread, for messages.
            function: what it runs; it should look at `stopped`, or wait on a `Channel`, now and then.
            *args: what it is called with.
        """
        thread = threading.Thread(target=self._guarded, args=(name, function, args), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Tell all to stop: whoever waits on a channel wakes up with `Stopped`."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()

    def _guarded(self, name: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except Stopped:
            pass
        except BaseException as error:
            error.add_note(f"in the thread {name!r}")
            with self.changed:
                self._error = self._error or error
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        first = self._error
        self.stop()
        limit = time.monotonic() + self.patience
        for thread in self._threads:
            thread.join(max(limit - time.monotonic(), 0.0))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        if left:
            warnings.warn(f"{', '.join(left)} did not stop within {self.patience} s and was left behind.", stacklevel=2)
        if isinstance(error, Stopped) or (first is not None and not isinstance(error, KeyboardInterrupt)):
            raise (first or self._error or RuntimeError("the crew was stopped while it was waited for")) from None
        if error is None and self._error is not None:
            warnings.warn(f"after the end of the run: {self._error!r}", stacklevel=2)


class Channel:
    """A queue with a bound, between the threads of a crew; whoever waits on it wakes up when the crew stops.

    Args:
        crew: whose threads use it.
        size: how many items it holds at most.
        drop: whether a full queue drops its oldest item for a new one, and counts it in `dropped`. Otherwise whoever
            puts waits, and nothing is lost.

    Returns:
        The queue.
    """

    def __init__(self, crew: Crew, size: int, *, drop: bool = False):
        self.dropped = 0
        self._crew, self._size, self._drop = crew, size, drop
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Add an item.

        Args:
            item: what the other side gets.

        Raises:
            Stopped: if the crew has stopped.
        """
        with self._crew.changed:
            while len(self._items) >= self._size and not self._drop:
                self._wait()
            self._require_running()
            if len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._crew.changed.notify_all()

    def get(self) -> Any:
        """Take the oldest item, and wait for it if there is none.

        Returns:
            The item.

        Raises:
            Stopped: if the crew has stopped.
        """
        with self._crew.changed:
            while not self._items:
                self._wait()
            self._require_running()
            item = self._items.popleft()
            self._crew.changed.notify_all()
            return item

    def __len__(self) -> int:
        return len(self._items)

    def _wait(self) -> None:
        self._require_running()
        self._crew.changed.wait(0.1)  # with a limit, so that Ctrl-C is seen on every platform

    def _require_running(self) -> None:
        if self._crew.stopped:
            raise Stopped
