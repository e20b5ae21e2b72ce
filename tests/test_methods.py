"""The table of named methods names what there is: functions, and options that they have."""

import inspect
import operator
import re
from pathlib import Path

import pgjax as pg

TEXT = (Path(__file__).parents[1] / "docs" / "methods.md").read_text()
CELLS = [line.split(" | ")[1] for line in TEXT.splitlines() if line.startswith("| ") and "---" not in line]


def calls() -> list[tuple[str, list[str]]]:
    """Every name in the column of calls, with the options that are given to it."""
    found = re.findall(r"`([\w.]+)(?:\(([^)]*)\))?`", " ".join(CELLS[:]))
    return [(name, re.findall(r"(\w+)=", options)) for name, options in found]


def resolved(name: str):
    room, name = (pg.expectation, name.removeprefix("ex.")) if name.startswith("ex.") else (pg, name)
    return operator.attrgetter(name)(room)


def test_every_call_names_a_function_with_these_options() -> None:
    assert len(calls()) > 80
    for name, options in calls():
        if name == "step_weight":
            continue
        parameters = inspect.signature(resolved(name)).parameters
        assert set(options) <= set(parameters), (name, options, list(parameters))


def test_every_rule_and_every_estimator_is_some_method() -> None:
    named = {name for name, _ in calls()}
    rules = {
        f"ex.{name}"
        for name in pg.expectation.__all__
        if isinstance(getattr(pg.expectation, name), pg.expectation.Rule)
    }
    estimators = {name for name in pg.__all__ if isinstance(getattr(pg, name), pg.estimators.Estimator)}
    assert rules | estimators <= named | {"ppo"}, (rules | estimators) - named
