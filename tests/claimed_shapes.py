"""Shapes and dtypes that a docstring claims, against those that come out.

A docstring claims shapes in its `Shapes:` paragraph ("probs [S, A]; result [S]"), in the entries of `Args:` ("probs:
[S, A] float, the policy.") and at the start of `Returns:`. Sizes are given by name for one example call.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

SHAPE = re.compile(r"\[([^\]]*)\]|\bscalar\b", re.IGNORECASE)
KINDS = {"float": np.floating, "int": np.integer, "int32": np.integer, "bool": np.bool_}


class Claim(NamedTuple):
    """One shape in words, ["S", "A"], and a kind of number, "" if none is named."""

    dims: list[str]
    kind: str

    def fits(self, leaf: Any, sizes: Mapping[str, Any]) -> bool:
        shape, dtype = np.shape(leaf), getattr(leaf, "dtype", np.asarray(leaf).dtype if np.isscalar(leaf) else None)
        kind_fits = not self.kind or dtype is None or np.issubdtype(dtype, KINDS[self.kind])
        wanted: list[Any] = []
        for dim in self.dims:
            if dim == "...":
                wanted.append(...)
            elif dim.startswith("*"):
                wanted += sizes[dim[1:]]
            else:
                wanted.append(eval(dim.replace("^", "**"), {}, dict(sizes)))
        if ... in wanted:
            at = wanted.index(...)
            tail = wanted[at + 1 :]
            return kind_fits and list(shape[:at]) == wanted[:at] and list(shape[len(shape) - len(tail) :]) == tail
        return kind_fits and list(shape) == wanted


def claims(text: str) -> list[Claim]:
    """Every shape that a piece of text names, in order."""
    found = []
    for match in SHAPE.finditer(text):
        dims = [] if match[1] is None else [dim.strip() for dim in match[1].split(",") if dim.strip()]
        kind = re.match(rf" ({'|'.join(KINDS)})\b", text[match.end() :])
        found.append(Claim(dims, kind[1] if kind else ""))
    return found


def section(docstring: str, name: str) -> str:
    match = re.search(rf"^{name}:[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)", inspect.cleandoc(docstring), re.MULTILINE)
    return inspect.cleandoc(match[1]) if match else ""


def first_clause(text: str) -> str:
    return re.split(r"[.;:](?:\s|$)", text, maxsplit=1)[0]


def claimed_arguments(docstring: str) -> list[tuple[str, list[Claim]]]:
    """(name, alternatives) from the Shapes paragraph and from Args; an argument may come twice."""
    found = []
    for names, text in shape_paragraph(docstring):
        found += [(name, claims(text)) for name in names if name != "result"]
    for entry in re.split(r"\n(?=\S)", section(docstring, "Args")):
        names, _, text = entry.partition(": ")
        found += [(name, claims(first_clause(text))) for name in names.split(", ")]
    return [(name, alternatives) for name, alternatives in found if alternatives]


def shape_paragraph(docstring: str) -> list[tuple[list[str], str]]:
    """(names, text) for each part of "Shapes: probs, behaviour [S, A]; result scalar."."""
    match = re.search(r"^Shapes: (.*?)(?:\n\n|\Z)", inspect.cleandoc(docstring), re.MULTILINE | re.DOTALL)
    parts = re.split(r";\s", match[1].split(". ")[0].replace("\n", " ")) if match else []
    found = []
    for part in parts:
        head = re.match(r"[\w, ]*?(?= ?\[| scalar| see| like|$)", part)
        found.append((re.findall(r"\w+", head[0]) if head else [], part))
    return found


def claimed_results(docstring: str) -> list[list[Claim]]:
    """The shapes of the result from the Shapes paragraph and from Returns; empty where neither names one."""
    found = [claims(text) for names, text in shape_paragraph(docstring) if "result" in names]
    returns = section(docstring, "Returns")
    if re.match(r"\[|Scalar|\(", returns):
        found.append(claims(first_clause(re.sub(r"^\([^)]*\)[:,]", "", returns))))
    return [shapes for shapes in found if shapes]


def record_claims(cls: type) -> dict[str, list[Claim]]:
    """What the docstring of a record says of its fields."""
    merged: dict[str, list[Claim]] = {}
    for name, alternatives in claimed_arguments(cls.__doc__ or ""):
        merged.setdefault(name, []).extend(alternatives)
    return merged


def disagreements(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, sizes: Mapping[str, Any]
) -> list[str]:
    """Where the docstring of a function claims another shape than an example call has; empty if nowhere.

    A result that is a tuple of arrays must be claimed array by array; a record is held against its own docstring.
    """
    docstring, found = function.__doc__ or "", []
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    for name, alternatives in claimed_arguments(docstring):
        leaves = [leaf for leaf in jax.tree.leaves(given.get(name)) if not callable(leaf)]
        if len(leaves) == 1 and not any(claim.fits(leaves[0], sizes) for claim in alternatives):
            found.append(f"{name} is {np.shape(leaves[0])}, not {[claim.dims for claim in alternatives]}")
        if len(leaves) > 1 and not all(c.fits(x, sizes) for c, x in zip(alternatives, leaves, strict=False)):
            found.append(f"{name} is {[np.shape(x) for x in leaves]}, not {[claim.dims for claim in alternatives]}")
    if hasattr(result, "__dataclass_fields__"):
        fields = record_claims(type(result))
        for name in result.__dataclass_fields__:
            leaf = getattr(result, name)
            if not any(claim.fits(leaf, sizes) for claim in fields.get(name, [])):
                found.append(f"{type(result).__name__}.{name} is {np.shape(leaf)}, not {fields.get(name)}")
        return found
    leaves = jax.tree.leaves(result)
    for shapes in claimed_results(docstring):
        several = isinstance(result, tuple) and len(leaves) > 1
        fits = (
            len(shapes) == len(leaves) and all(c.fits(x, sizes) for c, x in zip(shapes, leaves, strict=True))
            if several
            else any(claim.fits(leaves[0], sizes) for claim in shapes)
        )
        if not fits:
            found.append(f"result is {[(x.shape, str(x.dtype)) for x in leaves]}, not {[tuple(c) for c in shapes]}")
    return found
