"""Sphinx configuration: MyST pages, and the docstrings of the package as they stand."""

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import rooms  # noqa: E402
from sphinx.util import logging  # noqa: E402

project = "pgjax"
author = "The pgjax authors"
copyright = f"2026, {author}"
release = importlib.metadata.version("pgjax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
nitpicky = True  # a reference to nothing is an error; see `resolve` for what counts as something
autosummary_generate = False  # the pages are made by rooms.py
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
napoleon_custom_sections = [("Properties", "notes_style"), ("Returns", "notes_style")]  # no types before a colon

logger = logging.getLogger(__name__)

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
    if what in ("property", "attribute") and shown:
        shown[0] = shown[0].replace(": ", " – ", 1)  # napoleon would take what stands before a colon for a type
    lines[:] = [*shown, ""]


def resolve(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a short name such as `gae` to its entry, and leave what exists elsewhere as code; else the build warns."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removeprefix("pg.").removeprefix("pgjax.")
    domain = env.get_domain("py")
    found = sorted((name for name in domain.objects if f".{name}".endswith(f".{target}")), key=len)
    if found:
        node["reftarget"] = found[0]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)
    return content if rooms.is_known(node["reftarget"]) else None


def complain_of_what_is_missing(app: Any, env: Any) -> None:
    """Warn of each public name that has no entry on any page."""
    documented = env.get_domain("py").objects
    for name in rooms.named():
        if f"pgjax.{name}" not in documented:
            logger.warning("pgjax.%s is public and on no page", name)


def setup(app: Any) -> None:
    """Register the hooks; the pages of the rooms are written before anything is read."""
    app.connect("builder-inited", lambda app: rooms.write_pages(HERE / "api"))
    app.connect("autodoc-process-docstring", read_as_text, priority=400)
    app.connect("missing-reference", resolve)
    app.connect("env-check-consistency", complain_of_what_is_missing)
