"""The shapes that a docstring states, read from its text and held against the arrays themselves.

A shape is a group such as [T, B], [S, A] or [N, ...]. Letters stand for a length, the same throughout a docstring; T
and B have the lengths that contract_cases.py gives them. What is no shape (an interval "in [0, 1]", an expression) is
left alone.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from contract_cases import B as BATCH
from contract_cases import T as LENGTH
from jax.tree_util import Partial

GROUP = re.compile(r"(?<!in )(?<!\w)(?<!\()\[([^\[\]]*)\](?!\()")
SCALAR = re.compile(r"\bscalars?\b", re.IGNORECASE)
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): ((?:.|\n {5,})*)", re.MULTILINE)

Lengths = Mapping[str, int]


def candidates(text: str) -> list[tuple[str, ...]]:
    """Every shape in a text; () for the word scalar. Groups that are no plain shape are left out."""
    groups = [tuple(part.strip() for part in group.split(",")) for group in GROUP.findall(text)]
    plain = re.compile(r"\.\.\.|\*\w+|\d+|[A-Za-z]'?(?: ?[+*^] ?\w+)?|\w+")
    found = [group for group in groups if all(plain.fullmatch(part) for part in group)]
    return [*found, ()] if SCALAR.search(text) else found


def fits(shape: tuple[int, ...], stated: tuple[str, ...], lengths: Lengths) -> Lengths | None:
    """The lengths of the letters if an array may have the stated shape, else None."""
    if "..." in stated or any(part.startswith("*") for part in stated):
        at = next(i for i, part in enumerate(stated) if part == "..." or part.startswith("*"))
        before, after = stated[:at], stated[at + 1 :]
        if len(shape) < len(before) + len(after):
            return None
        shape = shape[: len(before)] + shape[len(shape) - len(after) :]
        stated = before + after
    if len(shape) != len(stated):
        return None
    known = dict(lengths)
    for length, part in zip(shape, stated, strict=True):
        if part.isdigit() and int(part) != length:
            return None
        if part.isidentifier() and known.setdefault(part, length) != length:
            return None
    return known


def wrong_shapes(function: Callable[..., Any], arguments: Mapping[str, Any], result: Any) -> list[str]:
    """What the docstring of a function says of shapes that is not so, for one call of it."""
    docstring = inspect.getdoc(function) or ""
    lengths: Lengths = {"T": LENGTH, "B": BATCH}
    found = []
    parts = re.split(r"^(Args|Returns|Raises|Properties|Example|References):[ \t]*$", docstring, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    entries = {name: text for names, text in ENTRY.findall(sections.get("Args", "")) for name in names.split(", ")}
    for name, value in arguments.items():
        if not is_array(value) or not (stated := candidates(entries.get(name, ""))):
            continue
        matches = [match for shape in stated if (match := fits(jnp.shape(value), shape, lengths)) is not None]
        if matches:
            lengths = matches[0]
        else:
            found.append(f"{name} is {list(jnp.shape(value))}, the docstring says {stated}")
    stated = candidates(sections.get("Returns", "").split("\n\n")[0])
    results = list(result) if isinstance(result, tuple) else [result]
    if stated and all(is_array(x) for x in results):
        for x in results:
            if all(fits(jnp.shape(x), shape, lengths) is None for shape in stated):
                found.append(f"the result is {list(jnp.shape(x))}, the docstring says {stated}")
    return found


def shapes_of_a_call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """The result of a call as shapes, without running it; functions and structures among the arguments are fixed."""
    dynamic = {name: x for name, x in arguments.items() if feeds(x)}
    fixed = {name: x for name, x in arguments.items() if name not in dynamic}
    return jax.eval_shape(lambda dynamic: function(**by_position(function, {**dynamic, **fixed})), dynamic)


def by_position(function: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in inspect.signature(function).parameters if name in arguments}


def feeds(x: Any) -> bool:
    """Whether an argument is a pytree of arrays and numbers."""
    leaves = jax.tree.leaves(x)
    return bool(leaves) and all(is_array(leaf) or type(leaf) is float for leaf in leaves) and not isinstance(x, Partial)


def is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype")
