"""The README's first example with its estimator swapped: it learns on, or the error names every argument it needs."""

import inspect
import re
from typing import Any

import docs_code
import jax
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
EXAMPLE = docs_code.blocks(docs_code.ROOT / "README.md")[0].short()
LINE, GIVEN = "pg.reinforce(", ("params", "trajectory", "policy", "discount", "baseline")
BASELINE = "baseline=pg.leave_one_out"
VALUE = 'value=lambda params, obs: model.apply(params, obs, method="value")'
ESTIMATORS = {name: getattr(pg, name) for name in pg.__all__ if hasattr(getattr(pg, name), "surrogate")}
# What stands in place of the baseline where the state's value does.
INSTEAD = {
    "reinforce": BASELINE,
    "likelihood_ratio": BASELINE,
    "gpomdp": BASELINE,
    "dice": BASELINE,
    "actor_critic": f"{VALUE}, lam=0.95",
    "n_step_actor_critic": f"{VALUE}, n=5",
    "ppo": VALUE,
    "upgo_actor_critic": VALUE,
    "vtrace_actor_critic": VALUE,
}
# A model of the environment, a critic of actions, advantages or a rule: the example has none of these.
NEED_MORE = sorted(set(ESTIMATORS) - set(INSTEAD))


def swapped(name: str, instead: str = BASELINE) -> str:
    assert EXAMPLE.count(LINE) == EXAMPLE.count(BASELINE) == 1
    return EXAMPLE.replace(LINE, f"pg.{name}(").replace(BASELINE, instead)


def test_the_estimators_of_the_readme_are_among_those_that_run() -> None:
    named = ("likelihood_ratio", "gpomdp", "actor_critic", "ppo")
    words = (docs_code.ROOT / "README.md").read_text()
    assert all(name in INSTEAD and f"`pg.{name}`" in words for name in named)
    assert set(INSTEAD) < set(ESTIMATORS)
    assert NEED_MORE


@pytest.mark.parametrize("name", INSTEAD)
def test_with_one_line_swapped_the_example_runs_and_moves_the_actor(name: str) -> None:
    names: dict[str, Any] = {}
    exec(swapped(name, INSTEAD[name]), names)
    assert np.isfinite(names["returns"]).all()
    before, after = names["params"]["params"], names["carry"][0]["params"]
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), before, after)
    assert all(0 < step < 1 for step in jax.tree.leaves(moved["actor"]))


@pytest.mark.parametrize("name", NEED_MORE)
def test_where_the_example_has_too_little_the_error_names_all_that_is_needed(name: str) -> None:
    parameters = inspect.signature(ESTIMATORS[name]).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty and p.name not in GIVEN]
    with pytest.raises(TypeError) as caught:
        exec(swapped(name), {})
    message = str(caught.value)
    assert message.startswith(f"{name}() ")
    assert set(needed) <= set(re.findall(r"\w+", message))
