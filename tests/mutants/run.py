"""Plant one fault at a time in the library and see that the tests it names go red.

    python tests/mutants/run.py [LIST ...] [--one-in N] [--changed-since COMMIT] [--workers N] [--fresh] [--docs]

The faults are exact replacements, listed by room in the TOML files beside this script. A fault is *caught* if the tests
fail with it, and the test that failed passes without it. Faults that no test can see are listed with the reason, and
are not run. The exit status is 0 if every fault is caught.

A run may be stopped and taken up again: faults that were caught are remembered in out/mutants.json, and planted again
once their file or their tests have changed.
"""

import argparse
import hashlib
import json
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mutants.worker import LIBRARIES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs/mutants.md"
RECORD = ROOT / "out/mutants.json"


class Fault(NamedTuple):
    """An exact replacement in one file, and the tests that see it."""

    room: str  # name of its list
    file: str
    old: str
    new: str
    note: str
    tests: tuple[str, ...] = ()
    select: str = ""  # which of those tests, as for pytest -k; empty for all
    equivalent: str = ""  # why no test can see it; empty if one must


class Outcome(NamedTuple):
    """What became of a fault."""

    verdict: str  # "caught", "survived", "broken" or "equivalent"
    by: str = ""  # the test that failed, or what went wrong
    seconds: float = 0.0


def lists() -> list[Path]:
    """The committed lists, one for each room."""
    return sorted(HERE.glob("*.toml"))


def load(path: Path) -> list[Fault]:
    """Read a list, TOML or JSON."""
    text = path.read_text()
    rows = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)["fault"]
    return [Fault(path.stem, **{key: tuple(x) if key == "tests" else x for key, x in row.items()}) for row in rows]


def drawn(fault: Fault, one_in: int) -> bool:
    """Whether a sample of one fault in so many has this one: by its text, so that the others do not matter."""
    text = "\0".join((fault.file, fault.old, fault.new))
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % one_in == 0


def mistake(fault: Fault, root: Path = ROOT) -> str:
    """What is wrong with the entry itself; empty if nothing."""
    path = root / fault.file
    if not path.is_file():
        return f"there is no {fault.file}"
    count = path.read_text().count(fault.old)
    if count != 1:
        return f"old is found {count} times in {fault.file}, not once"
    if fault.new == fault.old:
        return "new is old"
    if bool(fault.tests) == bool(fault.equivalent):
        return "it needs either tests that see it or a reason why none can"
    missing = [test for test in fault.tests if not (root / test.partition("::")[0]).exists()]
    return f"there is no {missing[0]}" if missing else ""


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what git would keep of the working tree into a new folder."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


class Worker:
    """A copy of the tree, and a process that runs pytest in it."""

    def __init__(self, folder: Path, libraries: Iterable[str] = LIBRARIES):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", *libraries], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def pytest(self, arguments: Iterable[str], limit: float) -> tuple[int | None, str, str]:
        """Exit status (None past the limit), what failed first, and the end of the output."""
        options = "-x -q --no-header --tb=line -p no:cacheprovider --hypothesis-seed=0".split()  # noqa: SIM905
        output = self.folder / "pytest.out"
        asked = {"folder": str(self.folder), "arguments": [*options, *arguments], "limit": limit, "output": str(output)}
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["first"], "\n".join(output.read_text().splitlines()[-8:])

    def close(self) -> None:
        self.process.communicate(timeout=60)  # it ends where its input ends


def plant(fault: Fault, worker: Worker, limit: float) -> Outcome:
    """Run the tests of one fault in the worker's copy, which is left as it was."""
    if wrong := mistake(fault, worker.folder):
        return Outcome("broken", wrong)
    if fault.equivalent:
        return Outcome("equivalent", fault.equivalent)
    path = worker.folder / fault.file
    text = path.read_text()
    path.write_text(text.replace(fault.old, fault.new))
    started = time.perf_counter()
    try:
        status, first, tail = worker.pytest([*fault.tests, *(["-k", fault.select] if fault.select else [])], limit)
    finally:
        path.write_text(text)
    seconds = time.perf_counter() - started
    if status is None:
        return Outcome("caught", f"running longer than {limit:.0f} s", seconds)
    if status == 0:
        return Outcome("survived", ", ".join(fault.tests), seconds)
    if status == 1 and first:
        return Outcome("caught", first, seconds)
    return Outcome("broken", f"pytest ended with {status}: {tail}", seconds)  # the tests did not even start


def fingerprint(fault: Fault, root: Path) -> str:
    """What a verdict depends on: the entry, the file that it changes and the files of its tests."""
    paths = [root / name for name in (fault.file, *(test.partition("::")[0] for test in fault.tests))]
    files = [f for path in paths for f in (sorted(path.rglob("*.py")) if path.is_dir() else [path]) if f.is_file()]
    text = "\0".join([repr(fault), *(f.read_text() for f in files)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Record:
    """The faults that were caught, by fingerprint, in a file that is written as each of them ends."""

    def __init__(self, path: Path, *, fresh: bool = False, root: Path = ROOT):
        self.path, self.root, self.lock = path, root, threading.Lock()
        self.known = json.loads(path.read_text()) if path.exists() and not fresh else {}

    def get(self, fault: Fault) -> Outcome | None:
        row = self.known.get(fingerprint(fault, self.root))
        return Outcome(*row) if row else None

    def put(self, fault: Fault, outcome: Outcome) -> None:
        """Remember what is caught, and forget what is not."""
        with self.lock:
            if outcome.verdict == "caught":
                self.known[fingerprint(fault, self.root)] = outcome
            else:
                self.known.pop(fingerprint(fault, self.root), None)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.known, indent=1))


def run(faults: list[Fault], num_workers: int, limit: float, record: Record) -> list[Outcome]:
    """Plant every fault that is not known to be caught, several at a time; print a line for each as it ends."""
    known = [record.get(fault) for fault in faults]
    if count := sum(outcome is not None for outcome in known):
        print(f"{count} of {len(faults)} were caught before and nothing has changed; --fresh plants them again")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free: queue.Queue[Worker] = queue.Queue()
        workers = [Worker(copy_of_the_tree(Path(folder) / str(i))) for i in range(num_workers)]
        for worker in workers:
            free.put(worker)

        def one(fault: Fault, known: Outcome | None) -> Outcome:
            if known is not None:
                return known
            worker = free.get()
            try:
                outcome = plant(fault, worker, limit)
            finally:
                free.put(worker)
            record.put(fault, outcome)
            print(f"{outcome.verdict:10s} {outcome.seconds:5.0f} s  {fault.file}: {fault.note}", flush=True)
            if outcome.verdict in ("survived", "broken"):
                print(f"{'':20s}{outcome.by}", flush=True)
            return outcome

        try:
            with ThreadPoolExecutor(num_workers) as pool:
                outcomes = list(pool.map(one, faults, known))
            new = [i for i, outcome in enumerate(known) if outcome is None]
            for i, outcome in zip(new, confirmed([outcomes[i] for i in new], workers[0]), strict=True):
                outcomes[i] = outcome
                record.put(faults[i], outcome)
            return outcomes
        finally:
            for worker in workers:
                worker.close()


def confirmed(outcomes: list[Outcome], worker: Worker) -> list[Outcome]:
    """Call broken what was caught by a test that fails without the fault too."""
    catchers = sorted({o.by for o in outcomes if o.verdict == "caught" and "::" in o.by})
    red = set()
    while catchers:
        status, first, tail = worker.pytest(catchers, 3600)
        if status == 0:
            break
        if first not in catchers:
            raise RuntimeError(f"the tests that caught faults cannot be run without them: {tail}")
        red.add(first)
        catchers.remove(first)
    for test in sorted(red):
        print(f"{test} fails without any fault")
    return [Outcome("broken", f"{o.by} fails anyway", o.seconds) if o.by in red else o for o in outcomes]


def changed_since(commit: str) -> set[str]:
    """Files that differ from a commit, as they lie in the working tree."""
    done = subprocess.run(["git", "diff", "--name-only", commit], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def page(faults: list[Fault], outcomes: list[Outcome], listed: int) -> str:
    """The page of the docs: what was planted of so many that are listed, and which test saw it."""
    count = {v: sum(o.verdict == v for o in outcomes) for v in ("caught", "survived", "broken", "equivalent")}
    lines = [
        "# Planted faults", "",
        "Written by `make mutants DOCS=1`, never by hand. Each fault is one replacement in the library, planted alone;",
        "the tests of its module must fail with it. The lists are in `tests/mutants/`; `ONE_IN=8` draws one fault in",
        "eight of them, by the text of the fault.", "",
        f"{len(faults)} of {listed} faults drawn: {count['caught']} caught, {count['survived']} survived, "
        f"{count['broken']} could not be run, {count['equivalent']} not planted, since no result can change.",
    ]  # fmt: skip
    cell = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    for room in dict.fromkeys(fault.room for fault in faults):
        lines += ["", f"## {room}", "", "| file | fault | seen by |", "|---|---|---|"]
        for fault, outcome in zip(faults, outcomes, strict=True):
            if fault.room == room:
                seen = f"`{outcome.by}`" if outcome.verdict == "caught" else f"**{outcome.verdict}**: {outcome.by}"
                lines.append(f"| `{fault.file.removeprefix('pgjax/')}` | {cell(fault.note)} | {cell(seen)} |")
    return "\n".join(lines) + "\n"


def summary(faults: list[Fault], outcomes: list[Outcome]) -> str:
    """A table: how many of each verdict in each list, and the time."""
    verdicts = ("caught", "survived", "broken", "equivalent")
    rows = [["", *verdicts, "seconds"]]
    for room in [*dict.fromkeys(fault.room for fault in faults), ""]:
        mine = [o for f, o in zip(faults, outcomes, strict=True) if room in ("", f.room)]
        counts = [str(sum(o.verdict == verdict for o in mine)) for verdict in verdicts]
        rows.append([room or "all", *counts, f"{sum(o.seconds for o in mine):.0f}"])
    return "\n".join("  ".join(x.ljust(14) if i == 0 else x.rjust(10) for i, x in enumerate(row)) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="*", help="lists to run, by path or by room; all of them if none is named")
    parser.add_argument(
        "--changed-since", metavar="COMMIT", help="only faults whose file, tests or list differ from it"
    )
    parser.add_argument("--one-in", type=int, default=1, metavar="N", help="a sample: about one fault in N")
    parser.add_argument("--workers", type=int, default=2, help="how many faults at a time")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a run counts as caught")
    parser.add_argument("--fresh", action="store_true", help="plant the faults that were caught before again")
    parser.add_argument("--docs", action="store_true", help="write docs/mutants.md anew; only for all lists")
    options = parser.parse_args()
    if options.docs and (options.lists or options.changed_since):
        parser.error("--docs describes all faults: name no list and no commit")
    paths = [HERE / f"{name}.toml" if "." not in name else Path(name) for name in options.lists] or lists()
    listed = [fault for path in paths for fault in load(path)]
    faults = [fault for fault in listed if drawn(fault, options.one_in)]
    if options.changed_since:
        changed = changed_since(options.changed_since)
        mine = lambda f: {f.file, f"tests/mutants/{f.room}.toml", *(t.partition("::")[0] for t in f.tests)}  # noqa: E731
        faults = [fault for fault in faults if mine(fault) & changed]
    outcomes = run(faults, options.workers, options.limit, Record(RECORD, fresh=options.fresh)) if faults else []
    print()
    print(summary(faults, outcomes))
    bad = [(f, o) for f, o in zip(faults, outcomes, strict=True) if o.verdict in ("survived", "broken")]
    for fault, outcome in bad:
        print(f"\n{outcome.verdict}: {fault.file}: {fault.note}\n  {outcome.by}")
    if options.docs:
        PAGE.write_text(page(faults, outcomes, len(listed)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
