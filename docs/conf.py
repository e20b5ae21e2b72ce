"""Sphinx configuration: MyST pages, and the docstrings of the package as they stand."""

import importlib.metadata
import re
from typing import Any

import pgjax.estimators

project = "pgjax"
author = "The pgjax authors"
copyright = f"2026, {author}"
release = importlib.metadata.version("pgjax")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"pgjax {release}"

smartquotes = False
strip_signature_backslash = True  # an argument may be called return_
highlight_language = "text"
default_role = "py:obj"  # `name` links where the name is known and is code everywhere else
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the shapes in Args say more
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Properties", "notes_style")]

SECTION = re.compile(r"^(Args|Returns|Raises|Properties|Example|References):$")
ENTRY = re.compile(r"^ {4}(\*{0,2}\w+(, \*{0,2}\w+)*): ")  # "    name: what it is"
CODE = re.compile(r"(``?[^`]+``?)")


def plain(text: str) -> str:
    """Escape what would be markup in reStructuredText and is notation here: a trailing underscore, a star, a bar."""
    pieces = CODE.split(text)
    return "".join(x if i % 2 else re.sub(r"(?<=\w)_(?!\w)|[*|]", r"\\\g<0>", x) for i, x in enumerate(pieces))


def read_as_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Show indented blocks above the first section, which hold mathematics, verbatim, and take all else as text."""
    shown: list[str] = []
    above, formula, doctest = True, False, False
    for line in lines:
        above = above and not SECTION.match(line)
        blank = not line.strip()
        if above and line.startswith("    ") and not formula and (not shown or not shown[-1].strip()):
            shown += ["::", ""]
            formula = True
        elif formula and not blank and not line.startswith(" "):
            shown.append("")
            formula = False
        doctest = line.lstrip().startswith(">>>") or (doctest and not blank)
        if formula or doctest:
            shown.append(line)
        else:
            entry = ENTRY.match(line)
            start = entry.end() if entry else 0
            shown.append(line[:start] + plain(line[start:]))
    lines[:] = [*shown, ""]


def setup(app: Any) -> None:
    """Register the hook, and let autodoc see the functions that estimators are made of."""
    for name, x in list(vars(pgjax.estimators).items()):
        if isinstance(x, pgjax.estimators.Estimator):
            setattr(pgjax.estimators, name, x.__wrapped__)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", read_as_text, priority=400)
