"""All code of the README and of the documentation's pages runs. `docs_code` says how a page marks its blocks."""

import pathlib
from typing import Any

import docs_code
import pytest
from docs_code import Block, blocks, chain, run

pytestmark = pytest.mark.usefixtures("quick_to_compile")
FOUND = {page: blocks(page) for page in docs_code.PAGES}
# A block runs at the end of its chain; one that others go on from runs with the first of them.
CHAINS = {
    all_blocks[index].name: chain(all_blocks, index)
    for all_blocks in FOUND.values()
    for index in range(len(all_blocks))
}


@pytest.fixture(scope="module")
def namespaces() -> dict[str, dict[str, Any]]:
    """The names that each block left behind, so that none runs twice."""
    return {}


def names_after(block: Block, before: list[Block], namespaces: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if block.name not in namespaces:
        start = names_after(before[-1], before[:-1], namespaces) if before else {"__name__": "__main__"}
        names = dict(start)
        run(block, names)
        namespaces[block.name] = names
    return namespaces[block.name]


@pytest.mark.parametrize("name", CHAINS)
def test_code_runs(name: str, namespaces: dict[str, dict[str, Any]]) -> None:
    *before, block = CHAINS[name]
    for one in CHAINS[name]:
        if "not run" in one.directives:
            pytest.skip(f"{one.name}: {one.directives['not run']}")
    names_after(block, before, namespaces)


def test_every_page_is_read_and_every_fence_of_python_is_found() -> None:
    for page, found in FOUND.items():
        fences = sum(line.strip().startswith("```py") for line in page.read_text().splitlines())
        assert fences == len(found), f"{page.name}: a fence must be written ```python, without indentation"
    assert FOUND[docs_code.ROOT / "README.md"]
    assert FOUND[docs_code.ROOT / "docs" / "policies.md"]


def of(text: str) -> list[Block]:
    return blocks(pathlib.Path("page.md"), text)


def fenced(code: str, above: str = "") -> str:
    return f"Words.\n\n{above}```python\n{code}\n```\n"


def test_a_fault_in_a_block_is_seen_on_its_line() -> None:
    (block,) = of(fenced("x = 1\nassert x == 2"))
    with pytest.raises(AssertionError) as caught:
        run(block, {})
    assert caught.traceback[-1].lineno + 1 == 5
    assert block.name == "page.md:4"


def test_replacements_must_be_there() -> None:
    (block,) = of(fenced("x = f(256)\ny = 60", "<!-- tested with: 256 -> 8; 60 -> 2 -->\n"))
    assert block.short() == "x = f(8)\ny = 2\n"
    for pairs in ("257 -> 8", "256"):
        with pytest.raises(ValueError, match=r"page.md:5: '25\d' is to be replaced"):
            of(fenced("x = f(256)", f"<!-- tested with: {pairs} -->\n"))[0].short()


def test_blocks_start_from_nothing_unless_they_continue_one() -> None:
    page = of(
        fenced("a = 1")
        + fenced("b = a")
        + fenced("c = a", "<!-- continues: 1 -->\n")
        + fenced("d = c", "<!-- continues -->\n")
    )
    assert [[block.code for block in chain(page, i)] for i in (1, 3)] == [
        ["b = a\n"],
        ["a = 1\n", "c = a\n", "d = c\n"],
    ]
    with pytest.raises(NameError, match="'a' is not defined"):
        names_after(page[1], chain(page, 1)[:-1], {})
    assert names_after(page[3], chain(page, 3)[:-1], {})["d"] == 1
    with pytest.raises(ValueError, match="no block 7 to continue"):
        chain(of(fenced("a = 1", "<!-- continues: 7 -->\n")), 0)
    with pytest.raises(ValueError, match=r"unknown directive continue$"):
        of(fenced("a = 1", "<!-- continue -->\n"))


def test_what_is_to_raise_must_raise_it() -> None:
    marked = lambda code: of(fenced(code, "<!-- raises: Error: bad -->\n"))[0]  # noqa: E731
    run(marked("raise ValueError('bad luck')"), {})
    plain = of(fenced("pass", "<!-- raises: Error -->\n") + fenced("pass", "<!-- continues -->\n"))[1]
    assert plain.directives == {"continues": ""}
    for code, match in (("pass", "raised nothing"), ("raise ValueError('other')", "does not match")):
        with pytest.raises(AssertionError, match=match):
            run(marked(code), {})
