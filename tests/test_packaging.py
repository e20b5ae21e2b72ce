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


def test_pins_cover_both_generations_of_jax_and_rejax_runs_on_the_same() -> None:
    for name, jax_minor in (("py311", 10), ("py312", 11)):
        pins, peers = pinned(ROOT / f"constraints/{name}.txt"), pinned(ROOT / f"constraints/peers-{name}.txt")
        assert pins["jax"].minor == jax_minor
        assert (peers["jax"], peers["jaxlib"]) == (pins["jax"], pins["jaxlib"])
        assert peers["gymnax"] < Version("1") <= pins["gymnax"]


def test_the_package_imports_only_what_it_declares() -> None:
    required = {r.name.replace("-", "_") for r in REQUIRED}
    optional = {MODULES.get(r.name, r.name.replace("-", "_")) for r in OPTIONAL}
    oracles = {"distrax", "rlax", "tensorflow_probability", "scipy", "hypothesis", "pytest"}
    extra_only = {ROOT / "pgjax/envs" / f"{name}.py" for name in ("brax", "jaxmarl", "gymnasium")}
    for path in (ROOT / "pgjax").rglob("*.py"):
        assert imported(path, at_top=False) <= (required | optional) - oracles, path
        if path not in extra_only:
            assert imported(path, at_top=True) <= required, path
    assert "six" in required  # gymnax imports it without declaring it


def test_a_fresh_process_imports_the_package_without_warnings_or_oracles() -> None:
    code = "import sys, pgjax; print(sorted({'distrax', 'rlax', 'tensorflow_probability'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_licence_and_type_marker_are_there() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in licence
    assert re.search(r"Copyright \d{4} The pgjax authors", licence)
    assert PROJECT["license"] == "Apache-2.0"
    assert (ROOT / "pgjax/py.typed").exists()


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
    assert script.read_text().rstrip().endswith("make test")
    subprocess.run(["bash", "-n", str(script)], check=True)
