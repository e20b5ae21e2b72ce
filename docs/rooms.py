"""The pages of the API: one a room, made from the package itself, so that nothing public is missing."""

import ast
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from public_surface import home, modules, named

import pgjax

FRONT = "pgjax"  # the page of what belongs to no room, such as Trajectory


def entries() -> dict[str, dict[str, list[str]]]:
    """By room and by part of the room, the full names of all that is public, in the order of the source."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, x in sorted(named().items(), key=lambda item: _place(item[1])):
        room = home(x)
        if not room or room.startswith("_"):
            room = FRONT
        part = x.__module__.removeprefix(f"pgjax.{room}").lstrip(".").partition(".")[0]
        separate = room != FRONT and f"pgjax.{room}.{part}" in modules() and _is_a_part(room, part)
        found.setdefault(room, {}).setdefault(part if separate else "", []).append(f"pgjax.{name}")
    return found


def _place(x: Any) -> tuple[str, int]:
    """Module and line of an object, as far as they can be found."""
    try:
        return x.__module__, inspect.getsourcelines(inspect.unwrap(x))[1]
    except (TypeError, OSError):
        return x.__module__, 0


def _is_a_part(room: str, part: str) -> bool:
    """Whether a module inside a room has a heading of its own: a room inside the room, or a recipe."""
    module = modules()[f"pgjax.{room}.{part}"]
    return hasattr(module, "__path__") or part in getattr(modules()[f"pgjax.{room}"], "__all__", ())


def write_pages(folder: Path) -> None:
    """Write a page for each room, and remove those of rooms that are gone."""
    pages = {room: page(room, parts) for room, parts in entries().items()}
    for path in folder.glob("*.md"):
        if path.stem not in {*pages, "index"}:
            path.unlink()
    for room, text in pages.items():
        path = folder / f"{room}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def page(room: str, parts: dict[str, list[str]]) -> str:
    """The page of a room: what it is, a table, then each function and class."""
    lines = [f"# {room}"]
    for part, names in sorted(parts.items()):
        module = modules()["pgjax" if room == FRONT else f"pgjax.{room}" + (f".{part}" if part else "")]
        if part:
            lines += ["", f"## {part}"]
        lines += ["", "```{eval-rst}"]
        if part or room != FRONT:
            lines += [f".. automodule:: {module.__name__}", "   :no-members:", "   :no-index:", ""]
        lines += [".. py:currentmodule:: pgjax", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [*(f"   ~{name.removeprefix('pgjax.')}" for name in names), ""]
        for name in names:
            lines += [f".. {_directive(name)}:: {name}", ""]
        lines += ["```"]
    return "\n".join(lines) + "\n"


def _directive(name: str) -> str:
    return "autoclass" if inspect.isclass(_resolved(name)) else "autofunction"


def _resolved(name: str) -> Any:
    return named()[name.removeprefix("pgjax.")]


def is_known(target: str) -> bool:
    """Whether a name in a docstring exists: in the package, in a library that it stands on, or as a word of it.

    Words of the package are the names of arguments, fields, methods, modules, constants, and keys of dicts.
    """
    return not target.replace(".", "").isidentifier() or target.split(".")[-1] in words() or _imports(target)


def words() -> set[str]:
    """Names of arguments, fields and methods of everything public, of modules and of constants."""
    global _words
    if not _words:
        for x in named().values():
            if inspect.isclass(x):
                _words |= {*dir(x), *getattr(x, "__annotations__", {})}
            _words |= set(_parameters(x))
        for name, module in modules().items():
            _words |= {name.rpartition(".")[2], *(constant for constant in vars(module) if constant.isupper())}
        _words.add("As")  # of "As `other`, and:", which begins a list of arguments and is taken for the type of one
        _words |= {key for path in Path(pgjax.__file__).parent.rglob("*.py") for key in _keys(path)}
    return _words


_words: set[str] = set()


def _keys(path: Path) -> set[str]:
    """The keys of the dicts that a file writes out, such as the names of metrics."""
    dicts = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Dict))
    return {
        key.value for node in dicts for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def _parameters(x: Any) -> list[str]:
    try:
        return list(inspect.signature(x).parameters)
    except (TypeError, ValueError):
        return []


def _imports(target: str) -> bool:
    """Whether a dotted name leads to an object, from a module that is imported already."""
    head, _, rest = target.partition(".")
    module: ModuleType | Any = sys.modules.get({"pg": "pgjax", "jnp": "jax.numpy", "np": "numpy"}.get(head, head))
    for name in rest.split(".") if rest else ():
        module = getattr(module, name, None)
    return module is not None
