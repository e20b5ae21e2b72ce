"""What counts as public, found by looking: used by the contract test and the docstring test."""

import ast
import functools
import importlib
import inspect
import pathlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pgjax

TESTS = pathlib.Path(__file__).parent
# Rooms whose tests do not all begin with their name.
MORE_TESTS = {"envs": ("normalization",), "returns": ("fold",), "rollout": ("agents",)}
# Modules that stand on an extra; without it they cannot be imported and are left out.
EXTRAS = {"tqdm", "orbax", "matplotlib"}


@functools.cache
def modules() -> dict[str, ModuleType]:
    """pgjax and every module below it whose path has no underscore, by full name."""
    found = {"pgjax": pgjax}
    for info in pkgutil.walk_packages(pgjax.__path__, "pgjax."):
        if any(part.startswith("_") for part in info.name.split(".")):
            continue
        try:
            found[info.name] = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] not in EXTRAS:
                raise
    return found


def names(module: ModuleType) -> list[str]:
    """`__all__`, or else what the module defines itself under a name without underscore.

    A module inside a package that lists its names, such as pgjax.returns.on_policy, is public through that list only.
    """
    if hasattr(module, "__all__"):
        return list(module.__all__)
    parent = module.__name__.rpartition(".")[0]
    if parent not in ("", "pgjax") and hasattr(modules()[parent], "__all__"):
        return []
    here = lambda x: getattr(x, "__module__", None) == module.__name__  # noqa: E731
    return [name for name, x in vars(module).items() if not name.startswith("_") and callable(x) and here(x)]


def is_function(x: Any) -> bool:
    """Whether x is a function, or an object that stands for one, such as an estimator."""
    return callable(x) and not inspect.isclass(x) and hasattr(x, "__name__") and x.__module__.startswith("pgjax")


@functools.cache
def functions() -> dict[str, Callable[..., Any]]:
    """Every public function once: `gae` if pgjax itself exports it, `diagnostics.cosine` if not."""
    return _collect(is_function)


@functools.cache
def classes() -> dict[str, type]:
    """Every public class once, named alike."""
    return _collect(lambda x: inspect.isclass(x) and x.__module__.startswith("pgjax"))


@functools.cache
def named() -> dict[str, Any]:
    """Every public function and class, named alike."""
    return dict(sorted({**functions(), **classes()}.items()))


def home(x: Any) -> str:
    """The part of the package that x belongs to: "returns" for a function of pgjax.returns.on_policy."""
    return x.__module__.partition(".")[2].partition(".")[0]


def _collect(wanted: Callable[[Any], bool]) -> dict[str, Any]:
    found: dict[int, tuple[str, Any]] = {}
    for module_name, module in sorted(modules().items(), key=lambda item: (item[0].count("."), item[0])):
        prefix = module_name.removeprefix("pgjax").removeprefix(".")
        for name in names(module):
            x = getattr(module, name)
            if wanted(x) and id(x) not in found:
                found[id(x)] = (f"{prefix}.{name}".removeprefix("."), x)
    return dict(sorted(found.values()))


def tests_of(room: str) -> list[pathlib.Path]:
    """The test files of a room: tests/<room>/ and tests/test_<room>*.py."""
    names = (room, *MORE_TESTS.get(room, ()))
    return sorted(
        path
        for path in TESTS.rglob("test_*.py")
        if any(path.is_relative_to(TESTS / name) or path.name.startswith(f"test_{name}") for name in names)
    )


def used_in_the_tests_of(room: str) -> set[int]:
    """Ids of the objects of pgjax that the tests of a room name outside their imports."""
    return set().union(*map(objects_used_in, tests_of(room)))


def objects_used_in(path: pathlib.Path) -> set[int]:
    """Ids of what a file names, found by following its imports: `pg.gae`, `exact.value`, or `gae` itself."""
    tree = ast.parse(path.read_text())
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "pgjax":
                    module = importlib.import_module(alias.name)
                    known[alias.asname or "pgjax"] = module if alias.asname else pgjax
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pgjax":
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if hasattr(module, alias.name):
                    known[alias.asname or alias.name] = getattr(module, alias.name)
    read = (node for node in ast.walk(tree) if isinstance(node, (ast.Name, ast.Attribute)))
    return {id(x) for x in (_value_of(node, known) for node in read) if x is not None}


def _value_of(node: ast.AST, known: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    return getattr(_value_of(node.value, known), node.attr, None) if isinstance(node, ast.Attribute) else None
