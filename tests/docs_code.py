"""The code of the documentation's pages: where it stands, what it continues, and how it runs in seconds.

HTML comments right above a block of Python, which no reader sees, say what a test needs to know of it:

    <!-- continues -->                        it goes on from the block before it; without this it starts from nothing
    <!-- continues: 1 -->                     it goes on from the page's first block
    <!-- tested with: 256 -> 8; 60)) -> 2)) -->   each left side, which must occur, is replaced by the right one
    <!-- raises: pattern -->                  it ends with an exception whose message matches
    <!-- not run: reason -->                  a sketch; the reason is printed
"""

import linecache
import pathlib
import re
import traceback
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<fence>`{3,})python *\n(?P<code>.*?)^(?P=fence) *$", re.MULTILINE | re.DOTALL)
COMMENTS = re.compile(r"(?:<!--(?:(?!-->).)*-->[ \n]*)+\Z", re.DOTALL)
COMMENT = re.compile(r"<!--\s*([a-z ]+?)\s*(?::\s*((?:(?!-->).)*?))?\s*-->", re.DOTALL)
DIRECTIVES = {"continues", "tested with", "raises", "not run"}


class Block(NamedTuple):
    """One fenced block of Python."""

    page: pathlib.Path
    line: int  # of its first line of code
    code: str
    directives: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"

    def short(self) -> str:
        """The code with the replacements that make it run in seconds."""
        code = self.code
        for pair in filter(None, self.directives.get("tested with", "").split(";")):
            old, arrow, new = (part.strip() for part in pair.partition("->"))
            if not arrow or old not in code:
                raise ValueError(f"{self.name}: {old!r} is to be replaced and is not there")
            code = code.replace(old, new)
        return code


def blocks(page: pathlib.Path, text: str | None = None) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text() if text is None else text
    found = []
    for match in FENCE.finditer(text):
        above = COMMENTS.search(text[: match.start()])
        directives = {word: value or "" for word, value in COMMENT.findall(above.group() if above else "")}
        line = text[: match.start("code")].count("\n") + 1
        unknown = set(directives) - DIRECTIVES
        if unknown:
            raise ValueError(f"{page.name}:{line}: unknown directive {', '.join(sorted(unknown))}")
        found.append(Block(page, line, match["code"], directives))
    return found


def chain(page_blocks: list[Block], index: int) -> list[Block]:
    """The blocks that one needs before it, and it: those that it continues, from the first on."""
    block = page_blocks[index]
    if "continues" not in block.directives:
        return [block]
    before = block.directives["continues"]
    at = int(before) - 1 if before else index - 1
    if not 0 <= at < index:
        raise ValueError(f"{block.name}: there is no block {before or 'before it'} to continue")
    return [*chain(page_blocks, at), block]


def run(block: Block, names: dict[str, Any]) -> None:
    """Run a block in a namespace, and see that it raises what it says it does, and nothing else."""
    source = "\n" * (block.line - 1) + block.short()
    linecache.cache[block.name] = (len(source), None, source.splitlines(keepends=True), block.name)
    pattern = block.directives.get("raises")
    try:
        exec(compile(source, block.name, "exec"), names)
    except Exception as error:
        if pattern is None:
            raise
        message = "".join(traceback.format_exception_only(error))
        if not re.search(pattern, message):
            raise AssertionError(f"{block.name} raised {message!r}, which does not match {pattern!r}") from error
    else:
        if pattern is not None:
            raise AssertionError(f"{block.name} raised nothing, and {pattern!r} was expected")
