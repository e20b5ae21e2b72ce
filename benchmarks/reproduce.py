"""Measure published findings again, with the rules and estimators of the library: a figure and verdict for each.

Writes papers.json, papers.md and one PNG for each paper. What the JSON in the folder holds already is kept, so that a
run that was stopped goes on where it was; --fresh measures anew. With --docs the page and the figures of the
documentation are written anew as well. With --fast all of it in a small form, in seconds: what a test runs.
"""

import argparse
import dataclasses
import importlib
import json
import pkgutil
import time
from pathlib import Path
from typing import Any

import papers
from common import quick_to_compile, setting, write_json
from papers._form import FOUND, NOT_FOUND

INTRODUCTION = """# Published findings, measured again

Does this library show what the papers say? For each of these papers the experiment in small that carries its point
was done anew, with the rules and estimators that users call. The sentences below the figures are written by the
script, from its figures: it says **Not found** where the claim did not show. *This page is written by
`make papers DOCS=1`; do not edit it.*

One of them alone: `make papers ONLY={example}`; the scripts are in `benchmarks/papers`.

| Paper | found again |
| :-- | --: |
{table}
"""

SECTION = """
## {title}

{reference}

*The claim.* {claim}

![{title}](papers/{name}.png)

{verdict}

Measured on {processor} ({device}), Python {python}, jax {jax}, pgjax {pgjax}, on {date}, in {seconds:.0f} s.
"""


def modules() -> dict[str, Any]:
    """Find the modules about papers, by year and then by name."""
    names = [module.name for module in pkgutil.iter_modules(papers.__path__) if not module.name.startswith("_")]
    ordered = sorted(names, key=lambda name: (name.rsplit("_", 1)[-1], name))
    return {name: importlib.import_module(f"papers.{name}") for name in ordered}


def as_json(x: Any) -> Any:
    """Give figures the form that they have when they are read again."""
    return json.loads(json.dumps(x, default=float))


def size_of(module: Any, fast: bool) -> Any:
    """How much is measured, as it stands in the JSON."""
    size = module.FAST if fast else module.FULL
    return as_json(dataclasses.asdict(size) if dataclasses.is_dataclass(size) else size)  # type: ignore[arg-type]


def measure(module: Any, fast: bool) -> dict[str, Any]:
    """Measure one paper."""
    start = time.perf_counter()
    figures = as_json(module.measure(module.FAST if fast else module.FULL))
    seconds = time.perf_counter() - start
    return {"size": size_of(module, fast), "seconds": seconds, "setting": setting(), "figures": figures}


def page(found: dict[str, Any], known: dict[str, Any]) -> str:
    """Write the page from figures."""
    rows, sections = [], []
    for name, module in known.items():
        entry = found[name]
        verdict = module.verdict(entry["figures"])
        good, all_ = verdict.count(FOUND), verdict.count(FOUND) + verdict.count(NOT_FOUND)
        rows.append(f"| [{module.TITLE}](#{_anchor(module.TITLE)}) | {good} of {all_} |")
        sections.append(
            SECTION.format(
                title=module.TITLE, reference=module.REFERENCE, claim=module.CLAIM, name=name, verdict=verdict,
                seconds=entry["seconds"], **entry["setting"],
            )
        )  # fmt: skip
    return INTRODUCTION.format(example=next(iter(known)), table="\n".join(rows)) + "".join(sections)


def _anchor(title: str) -> str:
    """What a heading is called in a link: as on GitHub."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def main(arguments: list[str] | None = None) -> None:
    known = modules()
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/papers"), help="where to write")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figures to write anew")
    parser.add_argument("--only", nargs="+", choices=list(known), help="these papers alone", metavar="NAME")
    parser.add_argument("--fresh", action="store_true", help="measure anew what the folder holds already")
    parser.add_argument("--fast", action="store_true", help="a small form of each, in seconds")
    options = parser.parse_args(arguments)
    if options.fast:
        quick_to_compile()
    written = options.out / "papers.json"
    found = json.loads(written.read_text())["papers"] if written.exists() else {}
    for name in options.only or known:
        if options.fresh or found.get(name, {}).get("size") != size_of(known[name], options.fast):
            found[name] = measure(known[name], options.fast)
            write_json(written, {"papers": found})  # after each, so that a run that is stopped loses one at most
            print(f"{name}: measured in {found[name]['seconds']:.0f} s", flush=True)
        print(f"{known[name].TITLE}\n{known[name].verdict(found[name]['figures'])}\n", flush=True)
    measured = {name: module for name, module in known.items() if name in found}
    missing = [name for name in known if found.get(name, {}).get("size") != size_of(known[name], options.fast)]
    if options.docs and missing:
        raise SystemExit(f"the page of the documentation needs all papers, {', '.join(missing)} is not measured yet.")
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        for name, module in measured.items():
            module.draw(found[name]["figures"], folder / "papers" / f"{name}.png")
        (folder / "papers.md").write_text(page(found, measured))
    print(f"{len(measured)} papers; see {options.out}", flush=True)


if __name__ == "__main__":
    main()
