"""What is published is complete: the licence, the metadata, the pins, the gates."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = pathlib.Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"]]
OPTIONAL = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
PINS = sorted((ROOT / "constraints").glob("*.txt"))
FULL_PINS = [path for path in PINS if not path.name.startswith("peers")]
MAKEFILE = (ROOT / "Makefile").read_text()
# Packages whose module has another name.
MODULES = {"orbax-checkpoint": "orbax"}


def pinned(path: pathlib.Path) -> dict[str, Version]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    wrong = [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", line)]
    assert not wrong, f"a constraint is name==version and nothing else: {wrong}"
    return {name: Version(version) for name, version in (line.split("==") for line in lines)}


def imported(path: pathlib.Path, *, at_top: bool) -> set[str]:
    """Top-level packages that a file imports, on loading (at_top) or at all."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"pgjax"}


@pytest.mark.parametrize("requirement", REQUIRED + OPTIONAL, ids=str)
def test_a_requirement_has_a_floor_and_no_ceiling(requirement: Requirement) -> None:
    assert [clause.operator for clause in requirement.specifier] == [">="]


@pytest.mark.parametrize("path", FULL_PINS, ids=lambda path: path.name)
def test_pins_meet_every_floor(path: pathlib.Path) -> None:
    pins = pinned(path)
    for requirement in REQUIRED + OPTIONAL:
        assert requirement.name in pins
        assert requirement.specifier.contains(pins[requirement.name]), requirement


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_pins_are_plain(path: pathlib.Path) -> None:
    assert len(pinned(path)) > 20


def test_pins_cover_both_generations_of_jax_and_the_peers_run_on_the_same() -> None:
    for name, jax_minor in (("py311", 10), ("py312", 11)):
        pins, peers, sbx = (pinned(ROOT / f"constraints/{kind}{name}.txt") for kind in ("", "peers-", "peers-sbx-"))
        assert pins["jax"].minor == jax_minor
        for other in (peers, sbx):
            assert (other["jax"], other["jaxlib"]) == (pins["jax"], pins["jaxlib"])
        assert peers["gymnax"] < Version("1") <= pins["gymnax"]


# Requirements that no file imports, and how they are used.
TOOLS = {
    "jax": "cuda[12] is the same package with its plugin",
    "pytest-xdist": "pytest -n",
    "pytest-cov": "pytest --cov",
    "ruff": "make lint",
    "mypy": "make types",
    "sphinx": "make docs",
    "furo": "html_theme",
    "myst-parser": "extensions",
    "ipykernel": "runs the notebooks",
    "nbclient": "make notebooks",
    "equinox": "docs/policies.md, whose code is tested",
}
FOLDERS = {"bench": ["benchmarks"], "test": ["tests", "conftest.py"]}  # who uses an extra, if not anybody


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_an_extra_holds_only_what_is_used(extra: str) -> None:
    text = "\n".join(
        path.read_text()
        for folder in FOLDERS.get(extra, ["pgjax", "tests", "benchmarks", "notebooks", "docs", "conftest.py"])
        for path in ([ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".ipynb", ".md") and "_build" not in path.parts
    )
    for line in PROJECT["optional-dependencies"][extra]:
        name = Requirement(line).name
        module = MODULES.get(name, name.replace("-", "_"))
        called = rf"(^|[ \"])(import|from) {module}\b|(import_module|importorskip)\(.{module}"
        used = re.search(called, text, re.MULTILINE)
        assert used or name in TOOLS, f"nothing under {extra} imports {module}"


def test_the_readme_names_the_extras() -> None:
    line = re.search(r"further extras: (.*)", (ROOT / "README.md").read_text())
    assert line
    assert {"plot", *re.findall(r"\w+", line[1])} == PROJECT["optional-dependencies"].keys() - {"cuda"}


def test_the_package_imports_only_what_it_declares() -> None:
    required = {r.name.replace("-", "_") for r in REQUIRED}
    optional = {MODULES.get(r.name, r.name.replace("-", "_")) for r in OPTIONAL}
    oracles = {"distrax", "rlax", "tensorflow_probability", "scipy", "hypothesis", "pytest", "equinox"}
    for path in (ROOT / "pgjax").rglob("*.py"):
        assert imported(path, at_top=False) <= (required | optional) - oracles, path
        assert imported(path, at_top=True) <= required, path
    assert "six" in required  # gymnax imports it without declaring it


def test_a_fresh_process_imports_the_package_without_warnings_or_oracles() -> None:
    unwanted = {"distrax", "rlax", "tensorflow_probability", "flashbax"}
    code = f"import sys, pgjax; print(sorted({unwanted} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_licence_and_type_marker_are_there() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert re.search(r"Copyright \d{4} The pgjax authors", licence)
    assert PROJECT["license"] == "Apache-2.0"
    assert (ROOT / "pgjax/py.typed").exists()


def test_supported_pythons_are_named_where_they_are_looked_for() -> None:
    minors = re.findall(r"Programming Language :: Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert f">={minors[0]}" == PROJECT["requires-python"]
    done = subprocess.run([sys.executable, ROOT / ".ci/newest_python.py"], capture_output=True, text=True, check=True)
    minor, _, python = done.stdout.strip().partition(" ")
    assert minor in minors
    asked = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    assert f"Python {minor}." in asked.stdout


def test_changelog_knows_the_version() -> None:
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_makefile_explains_its_targets_and_names_scripts_that_exist() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    assert set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)) == set(phony[1].split())
    for script in re.findall(r"benchmarks/\w+\.py", MAKEFILE):
        assert (ROOT / script).exists(), script


def test_the_gate_can_be_run_and_ends_with_the_tests() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    lines = [line.split()[1:] for line in script.read_text().splitlines() if line.startswith("make ")]
    steps = [[word for word in line if word[0] != "-" and "=" not in word] for line in lines]
    assert steps == [["install"], ["test-newest", "docs", "notebooks", "types"], ["test"]]
    assert script.read_text().rstrip().endswith("make test")
    subprocess.run(["bash", "-n", str(script)], check=True)
