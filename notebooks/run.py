"""Run notebooks one after the other, each from the start in a kernel of its own; a cell that fails ends the run.

    python notebooks/run.py                run all of them and keep nothing (PGJAX_FAST=1 for the short form)
    python notebooks/run.py theory --save  run one and write its outputs into it

Kernels talk over files, not over network ports: two that start at once may choose the same port.
"""

import argparse
import pathlib
import tempfile
import time
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent


def execute(path: pathlib.Path) -> Any:
    """Return the notebook at path with fresh outputs."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}})
    with tempfile.TemporaryDirectory() as folder:
        manager = client.create_kernel_manager()
        manager.transport, manager.ip = "ipc", f"{folder}/kernel"
        client.execute()
    return notebook


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="stems of the notebooks; none means all")
    parser.add_argument("--save", action="store_true", help="write the outputs into the notebooks")
    arguments = parser.parse_args()
    for name in arguments.names or sorted(path.stem for path in HERE.glob("*.ipynb")):
        path, started = HERE / f"{name}.ipynb", time.perf_counter()
        notebook = execute(path)
        if arguments.save:
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)  # times of day: every run would change them
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
