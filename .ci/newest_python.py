"""Print the newest supported interpreter of this machine that can make an environment: "3.13 /path/to/python".

Supported are the versions that pyproject.toml names; they are looked for on the path and among pyenv's. The running
interpreter is what is left if there is no other.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"


def works(python: str, minor: str) -> bool:
    """Whether an interpreter starts, is of the version that it is taken for, and can make an environment."""
    code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == minor


def newest() -> tuple[str, str]:
    """Version and path."""
    minors = re.findall(r"Python :: 3\.(\d+)", PROJECT.read_text())
    for minor in (f"3.{number}" for number in sorted(map(int, minors), reverse=True)):
        on_path = shutil.which(f"python{minor}")
        for python in filter(None, (on_path, *map(str, sorted(PYENV.glob(f"{minor}.*/bin/python"))))):
            if works(python, minor):
                return minor, python
    return "%d.%d" % sys.version_info[:2], sys.executable  # noqa: UP031


if __name__ == "__main__":
    print(*newest())
