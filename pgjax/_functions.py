"""Functions as arguments of compiled functions: how they travel, and what is noticed about them.

A function that owns arrays is a pytree: `bind(f, arrays)`, or a callable module that JAX can flatten. Its arrays
are traced and differentiable. A plain function is a pytree without leaves that selects the program; arrays that it
reads from its closure become constants of that program, so that a change of them would have no effect. `Watch` looks
for such changes.
"""

import difflib
import dis
import functools
import inspect
import types
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial as bind

from pgjax import _checks

MANY_PROGRAMS = 8
"""Programs of one piece of code, each compiled for a function object of its own, after which a warning is given."""

_LARGEST_COPIED = 4096  # elements of a NumPy array that are compared by value: it may be changed in place
_DEEPEST = 4


@jax.tree_util.register_pytree_node_class
class Selector:
    """A value that selects a program rather than feeding it: a pytree without leaves."""

    def __init__(self, value: Any):
        self.value = value

    def tree_flatten(self) -> tuple[tuple[()], Any]:
        return (), (type(self.value), self.value)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "Selector":
        return cls(aux[1])


@jax.tree_util.register_pytree_node_class
class CallablePytree:
    """A callable module of any framework: its arrays are leaves, whatever else it holds selects the program."""

    def __init__(self, arrays: Any, structure: Any, rest: Any):
        self.arrays, self.structure, self.rest = arrays, structure, rest

    @classmethod
    def of(cls, module: Any) -> "CallablePytree":
        leaves, structure = jax.tree.flatten(module)
        kept = [isinstance(leaf, (jax.Array, np.ndarray, np.number)) for leaf in leaves]
        arrays = tuple(leaf for leaf, keep in zip(leaves, kept, strict=True) if keep)
        return cls(arrays, structure, tuple(None if keep else (leaf,) for leaf, keep in zip(leaves, kept, strict=True)))

    def rebuilt(self) -> Any:
        """The module, around the arrays that are here now."""
        arrays = iter(self.arrays)
        return self.structure.unflatten([next(arrays) if slot is None else slot[0] for slot in self.rest])

    def tree_flatten(self) -> tuple[Any, Any]:
        return self.arrays, (self.structure, self.rest)

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> "CallablePytree":
        return cls(tuple(children), *aux)


def as_pytree(name: str, x: Any) -> Any:
    """Make an argument that selects a program into a pytree that jit takes; `from_pytree` is the way back."""
    if isinstance(x, bind):
        _checks.require_hashable(name, x.func)
        return x
    if callable(x):
        if not jax.tree_util.all_leaves([x]):
            module = CallablePytree.of(x)
            _checks.require_hashable(name, (module.structure, module.rest))
            return module
        _checks.require_hashable(name, x)
        return bind(x)
    _checks.require_hashable(name, x)
    return Selector(x)


def from_pytree(x: Any) -> Any:
    """Undo `as_pytree`; a plain function comes back as itself."""
    if isinstance(x, Selector):
        return x.value
    if isinstance(x, CallablePytree):
        return x.rebuilt()
    if isinstance(x, bind) and not x.args and not x.keywords:
        return x.func
    return x


class Watch:
    """What one compiled function has seen of the functions that it was called with."""

    def __init__(self, name: str):
        self.name = name
        self._programs: Counter[tuple[str, Any]] = Counter()
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(self, argument: str, function: Any) -> None:
        """Raise if arrays that a function reads from its closure have changed; warn of many programs of one code."""
        function = function.func if isinstance(function, bind) else function
        owner = getattr(function, "__self__", function)
        try:
            snapshots = _SNAPSHOTS.setdefault(owner, {})
        except TypeError:  # not weakly referable, or not hashable: nothing can be remembered of it
            return
        self._count(argument, function)
        now = dict(_arrays_of(function))
        before = snapshots.setdefault(getattr(function, "__func__", None), now)
        changed = sorted(path for path in before if path in now and not _same(before[path], now[path]))
        if changed:
            raise ValueError(
                f"{argument} reads {changed[0]} from its closure, which has changed since {argument} was first used. A "
                "compiled program keeps the values that it saw first. Pass the arrays in params, or write "
                f"{argument}=pg.bind(function, arrays), whose first argument is then the arrays."
            )

    def _count(self, argument: str, function: Any) -> None:
        code = getattr(function, "__code__", None)
        if code is None or function in self._seen:
            return
        self._seen.add(function)
        self._programs[argument, code] += 1
        if self._programs[argument, code] == MANY_PROGRAMS:
            warnings.warn(
                f"{self.name} has compiled {MANY_PROGRAMS} programs, one for each new function object that was passed "
                f"as {argument} (from {code.co_filename}:{code.co_firstlineno}). Each costs a compilation and memory "
                "that is not given back. Make the function once, outside the loop, and pass what varies in params "
                "or with pg.bind.",
                stacklevel=4,
            )


_SNAPSHOTS: "weakref.WeakKeyDictionary[Any, dict[Any, dict[str, Any]]]" = weakref.WeakKeyDictionary()


def _arrays_of(function: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of each array that a function reads without having it as an argument."""
    seen: set[int] = set()

    def walk(path: str, x: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > _DEEPEST or id(x) in seen or isinstance(x, (types.ModuleType, type, str, bytes, jax.core.Tracer)):
            return
        if isinstance(x, jax.Array):
            yield path, x
        elif isinstance(x, np.ndarray):
            yield path, x.copy() if x.size <= _LARGEST_COPIED else x
        else:
            seen.add(id(x))
            for name, part in _parts(x):
                yield from walk(f"{path}{name}" if path else name.lstrip("."), part, depth + 1)

    return walk("", function, 0)


def _parts(x: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, with the name under which it holds it."""
    if isinstance(x, types.FunctionType):
        for name, cell in zip(x.__code__.co_freevars, x.__closure__ or (), strict=True):
            if cell != types.CellType():  # an empty cell has no contents yet
                yield f".{name}", cell.cell_contents
        for name in _globals_read(x.__code__):
            value = x.__globals__.get(name)
            # A function of another module brings its own globals along: that would be a walk through libraries.
            if not callable(value) or getattr(value, "__module__", None) == x.__module__:
                yield f".{name}", value
    elif isinstance(x, types.MethodType):
        yield f".{type(x.__self__).__name__}", x.__self__
        yield from _parts(x.__func__)
    elif isinstance(x, functools.partial):
        yield ".func", x.func
        yield ".args", x.args
        yield ".keywords", x.keywords
    elif isinstance(x, dict):
        yield from ((f"[{key!r}]", value) for key, value in x.items())
    elif isinstance(x, (list, tuple)):
        yield from ((f"[{i}]", value) for i, value in enumerate(x))
    elif not isinstance(x, (int, float, complex)) and hasattr(x, "__dict__"):
        yield from ((f".{name}", value) for name, value in vars(x).items())


@functools.lru_cache(maxsize=4096)
def _globals_read(code: types.CodeType) -> tuple[str, ...]:
    return tuple({i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"})


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, np.ndarray) and isinstance(now, np.ndarray) and before.size <= _LARGEST_COPIED:
        return before.shape == now.shape and bool(np.array_equal(before, now, equal_nan=before.dtype.kind == "f"))
    return before is now


def by_name(function: str, parameters: Mapping[str, inspect.Parameter], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by name, or raise a TypeError that names what is unknown, missing or too many."""
    arguments = dict(zip(parameters, args, strict=False), **kwargs)
    keyword_only = [n for n, p in list(parameters.items())[: len(args)] if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if keyword_only or len(args) > len(parameters):
        position = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        raise TypeError(
            f"{function}() takes {len(position)} arguments by position ({', '.join(position)}), got {len(args)}. Pass "
            "the others by name."
        )
    for name in kwargs:
        if name not in parameters:
            close = difflib.get_close_matches(name, parameters, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(parameters)}."
            raise TypeError(f"{function}() got an unexpected argument {name!r}: {hint}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if missing:
        word = "argument" if len(missing) == 1 else "arguments"
        raise TypeError(f"{function}() misses the {word} {', '.join(missing)}. It takes {', '.join(parameters)}.")
    return arguments


def is_traced(arguments: Any) -> bool:
    """Whether a call stands inside a transformation, as its arguments tell."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments))
