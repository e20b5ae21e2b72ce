"""The lists of planted faults fit the library as it is, and the runner tells what is caught from what is not.

The faults themselves are planted by `make mutants`.
"""

import functools
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from mutants.run import PAGE, Fault, Outcome, Record, Worker, confirmed, drawn, lists, load, mistake, page, plant

FAULTS = [fault for path in lists() for fault in load(path)]


@pytest.mark.parametrize("path", lists(), ids=lambda path: path.stem)
def test_each_fault_can_be_planted(path: pathlib.Path) -> None:
    wrong = {f"{fault.file}: {fault.note}": mistake(fault) for fault in load(path)}
    assert not {fault: why for fault, why in wrong.items() if why}


def test_no_fault_is_listed_twice_and_there_are_many() -> None:
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)
    assert sum(not fault.equivalent for fault in FAULTS) >= 100
    rooms = {fault.file.split("/")[1].removesuffix(".py") for fault in FAULTS}
    assert rooms >= {"returns", "estimators", "recipes", "rollout", "envs", "exact", "certify", "distributions"}


def test_the_page_tells_of_these_faults() -> None:
    """A page that tells of a fault that is listed no more is out of date: run `make mutants DOCS=1`."""
    text = PAGE.read_text()
    planted = set(re.findall(r"^\| `(.+?)` \| (.+?) \| [`*a-z]", text, flags=re.MULTILINE))
    listed = {(f.file.removeprefix("pgjax/"), f.note.replace("|", "\\|")) for f in FAULTS}
    assert len(planted) >= 100
    assert planted <= listed
    assert " 0 survived, 0 could not be run, " in text


def test_a_sample_holds_about_its_share_and_does_not_move() -> None:
    sample = [fault for fault in FAULTS if drawn(fault, 8)]
    assert 0.75 < 8 * len(sample) / len(FAULTS) < 1.25
    assert [fault for fault in FAULTS[::-1] if drawn(fault, 8)] == sample[::-1]
    assert all(drawn(fault, 1) for fault in FAULTS)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("small")
    (folder / "double.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "test_double.py").write_text("from double import double\n\ndef test_two():\n    assert double(2) == 4\n")
    (folder / "test_red.py").write_text("def test_red():\n    assert False\n")
    worker = Worker(folder, libraries=())
    yield worker
    worker.close()


def fault(new: str, old: str = "2 * x", tests: tuple[str, ...] = ("test_double.py",)) -> Fault:
    return Fault("small", "double.py", old, new, "a fault", tests)


@pytest.mark.parametrize(
    ("planted", "verdict", "by"),
    [
        (fault("3 * x"), "caught", "test_double.py::test_two"),
        (fault("x + 2"), "survived", "test_double.py"),  # 2 + 2 is 4
        (fault("2 * x)"), "broken", "pytest ended with 2"),
        (fault("3 * x", old="5 * x"), "broken", "found 0 times"),
        (fault("3 * x", old="x"), "broken", "found 2 times"),
        (fault("2 * x"), "broken", "new is old"),
        (fault("3 * x", tests=("test_gone.py",)), "broken", "there is no test_gone.py"),
        (fault("x + x")._replace(tests=(), equivalent="the same sum"), "equivalent", "the same sum"),
    ],
)
def test_the_runner_tells_verdicts_apart(small: Worker, planted: Fault, verdict: str, by: str) -> None:
    before = (small.folder / "double.py").read_text()
    outcome = plant(planted, small, limit=60.0)
    assert (outcome.verdict, by in outcome.by) == (verdict, True), outcome
    assert (small.folder / "double.py").read_text() == before


def test_a_fault_that_makes_the_tests_hang_is_caught(small: Worker) -> None:
    planted = fault("double(x)")._replace(new="[x for x in iter(int, 1)]")
    outcome = plant(planted, small, limit=3.0)
    assert (outcome.verdict, outcome.by) == ("caught", "running longer than 3 s")


def test_a_test_that_is_red_anyway_catches_nothing(small: Worker) -> None:
    planted = fault("3 * x", tests=("test_red.py",))
    outcome = plant(planted, small, limit=60.0)
    assert outcome.verdict == "caught"
    assert confirmed([outcome], small)[0].verdict == "broken"
    assert "**broken**" in page([planted], confirmed([outcome], small), 1)


def test_what_was_caught_is_planted_again_only_once_something_has_changed(tmp_path) -> None:
    (tmp_path / "double.py").write_text("2 * x")
    (tmp_path / "test_double.py").write_text("")
    open_record = functools.partial(Record, tmp_path / "out/record.json", root=tmp_path)
    planted, outcome = fault("3 * x"), Outcome("caught", "test_double.py::test_two", 1.0)
    open_record().put(planted, outcome)
    again = open_record()
    assert again.get(planted) == outcome
    assert again.get(fault("4 * x")) is None
    assert open_record(fresh=True).get(planted) is None
    (tmp_path / "test_double.py").write_text("pass")
    assert again.get(planted) is None
    again.put(planted, outcome)
    again.put(planted, Outcome("survived", "test_double.py", 1.0))
    assert open_record().get(planted) is None


def test_the_command_refuses_to_write_the_page_for_a_part() -> None:
    script = pathlib.Path(__file__).parent / "mutants/run.py"
    done = subprocess.run([sys.executable, script, "--docs", "returns"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "name no list" in done.stderr
