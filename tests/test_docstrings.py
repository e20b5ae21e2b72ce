"""Every public docstring has the parts that the conventions ask for."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import claimed_shapes
import jax
import pytest
from contract_cases import CASES, result_shapes
from contract_draws import ACTIONS, FEATURES, B, Draw, T
from public_surface import classes, functions, home

SECTIONS = ("Args", "Returns", "Raises", "Properties", "Example", "References")
MATHEMATICAL = {"returns", "baselines", "losses", "estimators"}
# In those rooms, but neither estimator, baseline nor loss: what they are made with.
HELPERS = {"estimator", "action_distribution", "linearized_critic", "log_prob_taken"}
NO_IMPERATIVE = re.compile(r"(The|An?|This|It|Its|Returns|Computes|Gets|Makes|[A-Z]\w+ing|[A-Z]\w*[^s]s)\b")
# Words written for this test rather than for a reader.
FILLER = re.compile(
    r"never by itself|\bby JAX\.?$|^(nothing|none|see above|tbd|todo)\.?$|"
    r"\b(estimator|problem|argument|policy|function|it) is none\b",  # for: is no estimator
    re.IGNORECASE | re.MULTILINE,
)
AS_OTHER = re.compile(r"\b[Aa]s (?:for |in |of )?`([\w.]+)`")
SHAPE = re.compile(r"^ *Shapes?: |\[[^\]]*\]|\bscalars?\b", re.MULTILINE)


SIZES = {
    "T": T,
    "B": B,
    "D": FEATURES,
    "E": 2,
    "F": FEATURES,
    "G": 1,
    "N": B,
    "K": ACTIONS,
    "M": 2,
    "size": 11,
}  # of the examples, in contract_draws.py


def sections(docstring: str) -> dict[str, str]:
    """The text under each `Name:` line that starts at the margin, and the text before the first."""
    pieces = re.split(rf"^({'|'.join(SECTIONS)}):[ \t]*$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def first_line_faults(docstring: str | None) -> list[str]:
    line = (docstring or "").strip().split("\n")[0].strip()
    if not line:
        return ["has no docstring"]
    return [] if line.endswith(".") else [f"first line does not end with a full stop: {line!r}"]


def entries(section: str) -> dict[str, str]:
    """The text of each entry `name: text`, by name; one entry may have several names."""
    found = re.findall(
        r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: ((?:.|\n {5,})*)", section, flags=re.MULTILINE
    )
    return {name.lstrip("*"): text for names, text in found for name in names.split(", ")}


def arguments_lent(section: str) -> tuple[set[str], list[str]]:
    """Arguments described elsewhere, where a section says "as `lambda_returns`, and:"; and others that are unknown."""
    lent, unknown = set(), []
    free = re.sub(r"^ {4}\*{0,2}\w+(, \*{0,2}\w+)*: (.|\n {5,})*", "", section, flags=re.MULTILINE)
    for name in AS_OTHER.findall(free):
        others = [x for public, x in functions().items() if f".{public}".endswith(f".{name.removeprefix('pg.')}")]
        if others:
            lent |= set(entries(sections(others[0].__doc__ or "").get("Args", "")))
        else:
            unknown.append(name)
    return lent, unknown


def says_nothing(name: str, text: str) -> bool:
    """Whether an entry only repeats the name."""
    return re.sub(r"\W+|\b(the|a|an)\b", "", text).lower() in ("", name.lower().replace("_", ""))


def filled(section: str) -> str:
    """A section with its entries' names cut off and each entry on one line."""
    lines = re.sub(r"\n {5,}", " ", section)
    return re.sub(r"^ +(?:[*\w, ]+: )?", "", lines, flags=re.MULTILINE)


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
        own = entries(parts.get("Args", ""))
        lent, unknown = arguments_lent(parts.get("Args", ""))
        found += [f"Args refers to {name}, which does not exist" for name in unknown]
        found += [f"Args does not describe {p.name}" for p in parameters if p.name not in own and p.name not in lent]
        found += [f"Args describes {name}, which is no argument" for name in own.keys() - {p.name for p in parameters}]
        found += [f"Args says nothing of {name}" for name, text in own.items() if says_nothing(name, text)]
    for section in ("Args", "Returns", "Raises", "Properties"):
        found += [f"{section} holds filler: {x.group()!r}" for x in FILLER.finditer(filled(parts.get(section, "")))]
    raises = re.search(r"\braise \w|_checks\.(as|require)_", inspect.getsource(inspect.unwrap(function)))
    needed = (
        *(() if function.__annotations__.get("return", "") in (None, "None") else ("Returns",)),
        *(("Raises",) if raises else ()),
        *(("Properties", "Example", "References") if mathematical else ()),
    )
    found += [f"has no section {name}" for name in needed if not parts.get(name, "").strip()]
    if mathematical and ">>>" not in parts.get("Example", ""):
        found.append("Example holds nothing that runs")
    arrays = any("Array" in str(annotation) for annotation in function.__annotations__.values())
    if (arrays or mathematical) and not SHAPE.search(docstring):
        found.append("names no shape")
    return found


@pytest.mark.parametrize("name", functions())
def test_function_docstring_is_complete(name: str) -> None:
    function = functions()[name]
    assert not faults(function, mathematical=home(function) in MATHEMATICAL and name not in HELPERS)


def _one_array(x: Any) -> Any:
    """The argument itself, or None for a pytree of several arrays, which no single shape describes."""
    return x if len(jax.tree.leaves(x)) == 1 else None


@pytest.mark.parametrize("name", CASES)
def test_stated_shapes_are_those_of_a_call(name: str) -> None:
    function, case = functions()[name], CASES[name](Draw(0))
    result = result_shapes(name, case)
    if hasattr(result, "__dataclass_fields__"):
        pytest.skip("the result is a record")
    names = list(inspect.signature(function).parameters)
    given = {**dict(zip(names, case.args, strict=False)), **case.kwargs, **case.static}
    arguments = {key: _one_array(x) for key, x in given.items()}
    assert not claimed_shapes.disagreements(function, (), arguments, result, SIZES)


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
    [name for name, x in functions().items() if hasattr(x, "per_trajectory")],
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
        ("number.\n\nShapes", "number\n\nShapes", "full stop"),
        ("Scale a number", "Scales a number", "imperative"),
        ("Scale a number", "The scaled number", "imperative"),
        ("Shapes: scalars.", "Numbers.", "shape"),
        ("    scale: the factor.\n", "", "does not describe scale"),
        ("scale: the", "factor: the", "factor, which is no argument"),
        ("Returns:", "Gives:", "no section Returns"),
        ("Raises:", "Fails:", "no section Raises"),
        ("    Linear.\n", "", "no section Properties"),
        (">>> 2 * 3", "2 * 3", "nothing that runs"),
        ("References:", "Literature:", "no section References"),
        ("TypeError: if x is no number.", "TypeError: never by itself.", "filler"),
        ("TypeError: if x is no number.", "TypeError: by JAX.", "filler"),
        ("scale: the factor.", "scale: the scale.", "says nothing of scale"),
        ("scale: the factor.", "As `no_such_function`.", "no_such_function, which does not exist"),
    ],
)
def test_an_incomplete_docstring_is_rejected(old: str, new: str, complaint: str) -> None:
    def bad(x: float, *, scale: float) -> float:
        if scale == 0.0:
            raise ValueError("scale must not be 0.")
        return good(x, scale=scale)

    right = inspect.getdoc(good) or ""  # Python 3.13 takes the indent off, others do not
    assert old in right
    bad.__doc__ = right.replace(old, new)
    assert any(complaint in fault for fault in faults(bad, mathematical=True))


def test_a_variant_may_refer_to_the_arguments_of_another_function() -> None:
    def variant(x: float, *, discount: float, scale: float) -> float:
        return x * discount * scale

    right = inspect.getdoc(good) or ""
    variant.__doc__ = right.replace("    x: the number.\n", "    As `gae`, and:\n\n    x: the number.\n")
    assert faults(variant, mathematical=True) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gae", "[T, ...] float, the advantages", "[B, ...] float, the advantages"),
        ("gae", "result [T, ...].", "result [T]."),
        ("leave_one_out", "return_: [..., N] float", "return_: [N] float"),
        ("permutation", "[size] int32", "[size, 2] int32"),
    ],
)
def test_a_wrong_shape_is_seen(name: str, old: str, new: str) -> None:
    function, case = functions()[name], CASES[name](Draw(0))
    assert old in (function.__doc__ or ""), function.__doc__

    def wrong() -> None: ...

    wrong.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    wrong.__doc__ = (function.__doc__ or "").replace(old, new)
    given = {**case.kwargs, **case.static}
    assert claimed_shapes.disagreements(wrong, case.args, given, result_shapes(name, case), SIZES)


def test_a_missing_docstring_is_rejected() -> None:
    assert faults(lambda x: x, mathematical=False) == ["has no docstring"]
