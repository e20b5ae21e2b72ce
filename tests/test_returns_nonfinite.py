"""Finding 9: NaN and infinity stay in the episode that they belong to, and what no target uses may be anything."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_returns import CASES, call, window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
T, B, END = 7, 3, 2  # the first episode of each column ends at row END, the second with the window
FUNCTIONS = ["discounted_returns", "n_step_returns, n=2", "n_step_returns, n=99"]
FUNCTIONS += ["lambda_returns", "gae", "vtrace, other clips", "retrace", "upgo"]
GRADIENTS_IN_PARALLEL = [("gae", "associative"), ("retrace", "associative")]
every_function = pytest.mark.parametrize(
    ("name", "method"),
    [(name, method) for name in FUNCTIONS for method in ("scan", "associative") if "n_step" not in name]
    + [(name, None) for name in FUNCTIONS if "n_step" in name],
)
BAD = [np.nan, np.inf, -np.inf]
every_end = pytest.mark.parametrize("end", ["terminated", "truncated"])


def two_episodes(end: str) -> dict[str, Any]:
    data = window(11, T, B, ends=0.0)
    data["value"] = data["value"] - 9.0  # what follows is always better: upgo looks as far as it can
    data[end][END] = True
    return data


def poisoned(data: dict[str, Any], name: str, row: int, bad: float) -> dict[str, Any]:
    changed = data[name].copy()
    changed[row] = bad
    return {**data, name: changed}


def run(name: str, method: str | None, data: dict[str, Any]) -> tuple[Any, ...]:
    more = {"method": method} if method else {}
    result = call(CASES[name].function, CASES[name], data, **more)
    return result if isinstance(result, tuple) else (result,)


def inputs(name: str) -> list[str]:
    return [*CASES[name].positional, "discount", *CASES[name].keywords]


@every_end
@every_function
def test_nothing_crosses_the_end_of_an_episode(name: str, method: str | None, end: str) -> None:
    data = two_episodes(end)
    clean = run(name, method, data)
    rates = [(array, np.nan) for array in ("discount", *CASES[name].keywords)]
    for array, bad in [*itertools.product(CASES[name].positional, BAD), *rates]:
        for got, want in zip(run(name, method, poisoned(data, array, END + 1, bad)), clean, strict=True):
            np.testing.assert_array_equal(got[: END + 1], want[: END + 1])


@every_function
def test_the_value_after_a_termination_does_not_matter(name: str, method: str | None) -> None:
    data = two_episodes("terminated")
    clean = run(name, method, data)
    for bad in BAD:
        for got, want in zip(run(name, method, poisoned(data, "next_value", END, bad)), clean, strict=True):
            np.testing.assert_array_equal(got, want)


@every_function
def test_trouble_shows_in_every_step_that_it_belongs_to(name: str, method: str | None) -> None:
    data = two_episodes("truncated")
    # At the end of the window as at a truncation the value counts, too.
    places = [("reward", 0), ("reward", END), ("next_value", END), ("reward", T - 1), ("next_value", T - 1)]
    for (array, row), bad in itertools.product(places, BAD):
        start = END + 1 if row > END else 0
        if name == "n_step_returns, n=2":
            start = max(start, row - 1)
        if name == "upgo" and bad < 0:
            start = row  # worse than expected: the step before does not follow
        for got in run(name, method, poisoned(data, array, row, bad)):
            wrong = ~np.isfinite(got)
            assert wrong[start : row + 1].all()
            assert wrong.sum() == (row + 1 - start) * B


@every_end
@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "scan" if "n_step" not in name else None) for name in FUNCTIONS), *GRADIENTS_IN_PARALLEL],
)
def test_gradients_do_not_see_what_does_not_count(name: str, method: str | None, end: str) -> None:
    """The loss looks at the first episode: poison in the second must not turn a gradient of 0 into NaN."""
    data, names = two_episodes(end), inputs(name)
    floats = {key: jnp.asarray(data[key]) for key in names}
    weights = jnp.cos(jnp.arange(1.0, 1.0 + (END + 1) * B)).reshape(END + 1, B)

    def loss(floats: Any) -> Any:
        return sum((weights * x[: END + 1]).sum() for x in run(name, method, {**data, **floats}))

    slope = jax.jit(jax.grad(loss))
    clean = slope(floats)
    assert all(np.any(clean[key][: END + 1] != 0) for key in ("reward", "discount"))
    for array in CASES[name].positional:
        for bad in (np.nan, np.inf):
            got = slope({**floats, array: floats[array].at[END + 1].set(bad)})
            for key in names:
                np.testing.assert_array_equal(got[key], clean[key], err_msg=f"{array} {bad} {key}")
    if end == "terminated":
        got = slope({**floats, "next_value": floats["next_value"].at[END].set(jnp.inf)})
        for key in names:
            np.testing.assert_array_equal(got[key], clean[key])


@pytest.mark.parametrize("method", ["scan", "associative"])
@pytest.mark.parametrize("reverse", [True, False])
def test_a_weight_of_zero_keeps_the_neighbour_out_and_has_its_gradient(method: Any, reverse: bool) -> None:
    u, w = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0.5, 0.0, 0.0, 0.5])
    at = 3 if reverse else 0
    got = pg.affine_recurrence(u.at[at].set(jnp.nan), w, reverse=reverse, method=method)
    clean = pg.affine_recurrence(u, w, reverse=reverse, method=method)
    seen = np.arange(4) != at
    np.testing.assert_array_equal(got[seen], clean[seen])
    assert np.isnan(got[at])
    slope = jax.grad(lambda w: pg.affine_recurrence(u, w, reverse=reverse, method=method).sum())(w)
    neighbour = np.append(clean[1:], 0.0) if reverse else np.append(0.0, clean[:-1])
    onward = np.array([1.0, 1.5, 1.0, 1.0]) if reverse else np.array([1.0, 1.0, 1.5, 1.0])
    np.testing.assert_allclose(slope, onward * neighbour)
