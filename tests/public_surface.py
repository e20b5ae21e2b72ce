"""What counts as public, found by looking: used by the contract test and the docstring test."""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pgjax

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
