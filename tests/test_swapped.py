"""The README's first example with its estimator swapped: it runs, or the error names every argument it needs."""

import inspect
import re
from typing import Any

import docs_code
import jax
import numpy as np
import pytest

import pgjax as pg

pytestmark = pytest.mark.usefixtures("quick_to_compile")
README = docs_code.ROOT / "README.md"
EXAMPLE = docs_code.blocks(README)[0].short()
LINE, GIVEN = "pg.reinforce(", ("params", "trajectory", "policy", "discount", "baseline")
BASELINE, LAM = "baseline=pg.leave_one_out", "lam=0.95"
VALUE = 'value=lambda params, obs: model.apply(params, obs, method="value")'
ESTIMATORS = {name: getattr(pg, name) for name in pg.__all__ if hasattr(getattr(pg, name), "surrogate")}
# What stands in place of the baseline where the state's value does.
INSTEAD = {
    "reinforce": BASELINE,
    "likelihood_ratio": BASELINE,
    "gpomdp": BASELINE,
    "dice": BASELINE,
    "actor_critic": f"{VALUE}, {LAM}",
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


def test_the_readme_says_of_those_that_it_names_what_each_takes() -> None:
    words = " ".join(README.read_text().split())
    assert "`pg.likelihood_ratio` and `pg.gpomdp` as they are, `pg.ppo` with" in words
    assert f"`pg.ppo` with `{VALUE}` in place of the baseline, `pg.actor_critic` with that and `{LAM}`" in words
    assert set(INSTEAD) < set(ESTIMATORS)


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
