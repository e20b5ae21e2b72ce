"""Every public docstring has the parts that the conventions ask for."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from public_surface import classes, functions, home

SECTIONS = ("Args", "Returns", "Raises", "Properties", "Example", "References")
MATHEMATICAL = {"returns", "baselines", "losses", "estimators"}
DECORATORS = {"estimator"}  # in those modules, but no formula
NO_IMPERATIVE = re.compile(r"(The|An?|This|It|Its|Returns|Computes|Gets|Makes|[A-Z]\w+ing|[A-Z]\w*[^s]s)\b")
SHAPE = re.compile(r"^ *Shapes?: |\[[^\]]*\]|\bscalars?\b", re.MULTILINE)


def sections(docstring: str) -> dict[str, str]:
    """The text under each `Name:` line that starts at the margin, and the text before the first."""
    pieces = re.split(rf"^({'|'.join(SECTIONS)}):[ \t]*$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def first_line_faults(docstring: str | None) -> list[str]:
    line = (docstring or "").strip().split("\n")[0].strip()
    if not line:
        return ["has no docstring"]
    return [] if line.endswith(".") else [f"first line does not end with a full stop: {line!r}"]


def faults(function: Callable[..., Any], *, mathematical: bool) -> list[str]:
    """What the docstring of a function lacks; empty if nothing."""
    docstring = function.__doc__
    found = first_line_faults(docstring)
    if not docstring:
        return found
    first = docstring.strip().split("\n")[0]
    if NO_IMPERATIVE.match(first):
        found.append(f"first line is not imperative: {first!r}")
    parts = sections(docstring)
    parameters = inspect.signature(function).parameters.values()
    if parameters:
        entries = re.findall(
            r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: ", parts.get("Args", ""), re.MULTILINE
        )
        described = {name.lstrip("*") for entry in entries for name in entry.split(", ")}
        found += [f"Args does not describe {p.name}" for p in parameters if p.name not in described]
        found += [f"Args describes {name}, which is no argument" for name in described - {p.name for p in parameters}]
    raises = re.search(r"\braise \w|_checks\.", inspect.getsource(inspect.unwrap(function)))
    needed = (
        "Returns",
        *(("Raises",) if raises else ()),
        *(("Properties", "Example", "References") if mathematical else ()),
    )
    found += [f"has no section {name}" for name in needed if not parts.get(name, "").strip()]
    if mathematical and ">>>" not in parts.get("Example", ""):
        found.append("Example holds nothing that runs")
    if parameters and not SHAPE.search(docstring):
        found.append("names no shape")
    return found


@pytest.mark.parametrize("name", functions())
def test_function_docstring_is_complete(name: str) -> None:
    function = functions()[name]
    assert not faults(function, mathematical=home(function) in MATHEMATICAL and name not in DECORATORS)


@pytest.mark.parametrize("name", classes())
def test_class_and_its_methods_say_what_they_are(name: str) -> None:
    cls = classes()[name]
    found = first_line_faults(cls.__doc__)
    if not getattr(cls, "_is_protocol", False):
        own = [key for key, x in vars(cls).items() if not key.startswith("_") and inspect.isfunction(inspect.unwrap(x))]
        written = [key for key in own if vars(cls)[key].__qualname__.startswith(cls.__qualname__)]
        found += [
            f"{key}: {fault}" for key in written for fault in first_line_faults(inspect.getdoc(getattr(cls, key)))
        ]
    assert not found


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, x in functions().items()
        if "trajectory" in inspect.signature(x).parameters and home(x) == "estimators"
    ],
)
def test_estimator_says_its_sign(name: str) -> None:
    assert "descent" in (functions()[name].__doc__ or "").strip().split("\n")[0]


def good(x: float, *, scale: float) -> float:
    """Scale a number.

    Shapes: scalars.

    Args:
        x: the number.
        scale: the factor.

    Returns:
        The product.

    Raises:
        TypeError: if x is no number.

    Properties:
        Linear.

    Example:
        >>> 2 * 3
        6

    References:
        Euclid (about 300 BC), Elements, book VII.
    """
    if not isinstance(x, float):
        raise TypeError("x must be a number.")
    return x * scale


def test_a_complete_docstring_passes() -> None:
    assert faults(good, mathematical=True) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("number.\n\n    Shapes", "number\n\n    Shapes", "full stop"),
        ("Scale a number", "Scales a number", "imperative"),
        ("Scale a number", "The scaled number", "imperative"),
        ("Shapes: scalars.", "Numbers.", "shape"),
        ("        scale: the factor.\n", "", "does not describe scale"),
        ("scale: the", "factor: the", "factor, which is no argument"),
        ("Returns:", "Gives:", "no section Returns"),
        ("Raises:", "Fails:", "no section Raises"),
        ("        Linear.\n", "", "no section Properties"),
        (">>> 2 * 3", "2 * 3", "nothing that runs"),
        ("References:", "Literature:", "no section References"),
    ],
)
def test_an_incomplete_docstring_is_rejected(old: str, new: str, complaint: str) -> None:
    def bad(x: float, *, scale: float) -> float:
        if scale == 0.0:
            raise ValueError("scale must not be 0.")
        return good(x, scale=scale)

    assert old in str(good.__doc__)
    bad.__doc__ = str(good.__doc__).replace(old, new)
    assert any(complaint in fault for fault in faults(bad, mathematical=True))


def test_a_missing_docstring_is_rejected() -> None:
    assert faults(lambda x: x, mathematical=False) == ["has no docstring"]
