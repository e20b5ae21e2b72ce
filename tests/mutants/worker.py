"""A process that has the libraries loaded, and forks a child for each run of pytest: most of a short run is imports.

Reads lines of JSON, {"folder", "arguments", "limit", "output"}, and answers each with {"status", "first"}: pytest's
exit status, null past the limit, and the test that failed first. What pytest prints goes to the file `output`.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from typing import Any

# Not pgjax, which differs from fault to fault; nor gymnax, which starts threads of XLA that do not survive a fork, nor
# pytest's plugins, which pytest must import itself.
LIBRARIES = ("jax", "flax.linen", "optax", "chex", "scipy.stats", "seaborn")


class First:
    """A plugin that remembers the first failure."""

    test = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.test:
            self.test = report.nodeid

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported is no test that failed."""


def child(folder: str, arguments: list[str], output: str, answer: int) -> None:
    """Run pytest and end the process."""
    os.setsid()
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.dont_write_bytecode = True
    import pytest

    first = First()
    status = int(pytest.main(arguments, plugins=[first]))
    os.write(answer, json.dumps({"status": status, "first": first.test}).encode())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run(folder: str, arguments: list[str], output: str, limit: float) -> dict[str, Any]:
    """Fork a child, wait for it, and end it past the limit."""
    reading, answer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        try:
            child(folder, arguments, output, answer)
        finally:
            os._exit(1)
    os.close(answer)
    end = time.monotonic() + limit
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(reading)
            return {"status": None, "first": ""}
        time.sleep(0.05)
    with os.fdopen(reading) as file:
        text = file.read()
    return json.loads(text) if text else {"status": -1, "first": ""}


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
