"""Returns against loops written from the papers, in float64, and on the boundary of episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import return_loops as loops

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


class Case(NamedTuple):
    """One function, its second writing, and the names of the arrays that both take."""

    function: Callable[..., Any]
    loop: Callable[..., Any]
    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012  nobody writes to it


V, Q = ("reward", "value", "next_value"), ("reward", "next_value")
CASES = {
    "discounted_returns": Case(pg.discounted_returns, loops.discounted, Q),
    "n_step_returns, n=1": Case(pg.n_step_returns, loops.n_step, Q, (), {"n": 1}),
    "n_step_returns, n=2": Case(pg.n_step_returns, loops.n_step, Q, (), {"n": 2}),
    "n_step_returns, n=7": Case(pg.n_step_returns, loops.n_step, Q, (), {"n": 7}),
    "n_step_returns, n=99": Case(pg.n_step_returns, loops.n_step, Q, (), {"n": 99}),
    "lambda_returns": Case(pg.lambda_returns, loops.lambda_return, Q, ("lam",)),
    "gae": Case(pg.gae, loops.gae, V, ("lam",)),
    "vtrace": Case(pg.vtrace, loops.vtrace, V, ("log_ratio", "lam")),
    "vtrace, other clips": Case(
        pg.vtrace, loops.vtrace, V, ("log_ratio", "lam"), {"clip_rho": 1.7, "clip_c": 0.8, "clip_pg_rho": 1.2}
    ),
    "vtrace, no clips": Case(
        pg.vtrace, loops.vtrace, V, ("log_ratio", "lam"), dict.fromkeys(("clip_rho", "clip_c", "clip_pg_rho"), np.inf)
    ),
    "retrace": Case(pg.retrace, loops.retrace, V, ("log_ratio", "lam")),
    "upgo": Case(pg.upgo, loops.upgo, V),
}
every_case = pytest.mark.parametrize("name", CASES)


def window(seed: int, *shape: int, ends: float = 0.25) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    arrays = {name: random.normal(size=shape) for name in ("reward", "value", "next_value", "log_ratio")}
    rates = {name: random.uniform(0.3, 1.0, size=shape) for name in ("discount", "lam")}
    masks = {name: random.random(shape) < ends for name in ("terminated", "truncated")}
    return {**arrays, **rates, **masks}


def call(function: Callable[..., Any], case: Case, data: dict[str, Any], **more: Any) -> Any:
    keywords = ("terminated", "truncated", "discount", *case.keywords)
    return function(
        *(data[name] for name in case.positional), **{name: data[name] for name in keywords}, **case.options, **more
    )


def by_columns(case: Case, data: dict[str, Any]) -> Any:
    """The loop, run on each column of the batch."""
    size = data["reward"].shape[0]
    flat = {name: x.reshape(size, -1) for name, x in data.items()}
    columns = [call(case.loop, case, {n: x[:, b] for n, x in flat.items()}) for b in range(flat["reward"].shape[1])]
    return jax.tree.map(lambda *xs: np.stack(xs, 1).reshape(data["reward"].shape), *columns)


def check(actual: Any, desired: Any, **tolerance: float) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **(tolerance or TIGHT)), actual, desired)


@every_case
@pytest.mark.parametrize("shape", [(9, 5), (4, 2, 3), (1,)])
def test_equals_the_loop(name: str, shape: tuple[int, ...]) -> None:
    case, data = CASES[name], window(0, *shape)
    result = call(case.function, case, data)
    check(result, by_columns(case, data))
    assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(result))


@every_case
def test_scalar_rates_equal_arrays_full_of_them(name: str) -> None:
    case, data = CASES[name], window(1, 9, 5)
    full = {**data, "discount": np.full((9, 5), 0.9), "lam": np.full((9, 5), 0.7)}
    check(call(case.function, case, {**data, "discount": 0.9, "lam": 0.7}), call(case.function, case, full))


@every_case
def test_float32_stays_float32_beside_rates_that_are_numbers(name: str) -> None:
    case = CASES[name]
    data = {key: x.astype(np.float32) if x.dtype == float else x for key, x in window(1, 9, 5).items()}
    results = jax.eval_shape(lambda: call(case.function, case, {**data, "discount": 0.9, "lam": 0.7}))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(results))


@pytest.mark.parametrize("name", ["discounted_returns", "lambda_returns", "gae", "vtrace", "retrace", "upgo"])
def test_identity_39_parallel_in_time_equals_the_scan(name: str) -> None:
    case, data = CASES[name], window(2, 9, 5)
    check(call(case.function, case, data, method="associative"), call(case.function, case, data, method="scan"))


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("method", ["scan", "associative"])
def test_affine_recurrence_equals_the_loop(size: int, reverse: bool, method: Any) -> None:
    random = np.random.default_rng(3)
    u, w, start = random.normal(size=(size, 2)), random.normal(size=(size, 2)), random.normal(size=2)
    expected, x = np.zeros((size, 2)), start
    for t in range(size)[:: -1 if reverse else 1]:
        x = expected[t] = u[t] + w[t] * x
    check(pg.affine_recurrence(u, w, initial=start, reverse=reverse, method=method), expected)


def test_upgo_follows_where_the_step_is_exactly_as_good_as_expected() -> None:
    """Whole numbers, so that q equals v in about a fifth of the rows."""
    data = {name: np.round(x) for name, x in window(12, 40, 8).items() if name in ("reward", "value", "next_value")}
    data |= {"terminated": np.zeros((40, 8), bool), "truncated": np.zeros((40, 8), bool), "discount": np.ones((40, 8))}
    ties = data["reward"] + data["next_value"] == data["value"]
    assert 0.1 < ties[1:].mean() < 0.4
    case = CASES["upgo"]
    check(call(case.function, case, data), by_columns(case, data))
    given = np.append(data["value"][1:], data["value"][-1:], 0)  # every estimate of the next action is a tie
    complete = call(pg.discounted_returns, CASES["discounted_returns"], data)
    check(call(case.function, case, data, next_action_value=given), complete)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_ratios_are_bounded_at_20_nats(sign: float) -> None:
    data = {**window(13, 2, 3, ends=0.0), "log_ratio": sign * np.array([[19.0, 20.5, 1e4]] * 2)}
    bounded = {**data, "log_ratio": sign * np.array([[19.0, 20.0, 20.0]] * 2)}
    case = CASES["vtrace, no clips"]
    target, advantage = call(case.function, case, data)
    want_target, want_advantage = by_columns(case, bounded)
    check(target - data["value"], want_target - data["value"], rtol=1e-6, atol=0)
    check(advantage, want_advantage, rtol=1e-10, atol=0)
    if sign < 0:  # above 1 the trace of Retrace is 1 whatever the ratio is
        data, bounded = ({**x, "reward": 1e12 * x["reward"]} for x in (data, bounded))
        case = CASES["retrace"]
        check(call(case.function, case, data)[0], by_columns(case, bounded)[0], rtol=1e-13, atol=0)
        assert np.all(by_columns(case, data)[0, 1:] != by_columns(case, bounded)[0, 1:])


def boundary_example() -> dict[str, Any]:
    """Four steps: truncated after t=1, terminated after t=3. Between the two the next row is another episode."""
    data = window(4, 4)
    data["terminated"] = np.array([False, False, False, True])
    data["truncated"] = np.array([False, True, False, False])
    data["value"][2] = data["reward"][2] + data["discount"][2] * data["next_value"][2] - 0.3  # upgo would follow
    data["next_value"][[0, 2]] = data["value"][[1, 3]]  # consistent inside the episodes
    return data


def as_termination(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "terminated": data["terminated"] | data["truncated"]}


def ignored(data: dict[str, Any]) -> dict[str, Any]:
    """As if the next row, after the reset, were what the action led to."""
    next_value = np.where(data["truncated"], np.append(data["value"][1:], 0.0), data["next_value"])
    return {**data, "truncated": np.zeros(4, bool), "next_value": next_value}


def across(data: dict[str, Any]) -> dict[str, Any]:
    """The true bootstrap, but the recursion runs on into the next episode."""
    return {**data, "truncated": np.zeros(4, bool)}


@pytest.mark.parametrize("name", [name for name in CASES if name != "n_step_returns, n=1"])
def test_boundary_example(name: str) -> None:
    case, data = CASES[name], boundary_example()
    right = call(case.function, case, data)
    check(right, by_columns(case, data))
    for wrong in (as_termination, ignored, across):
        for good, bad in zip(
            jax.tree.leaves(right), jax.tree.leaves(call(case.function, case, wrong(data))), strict=True
        ):
            np.testing.assert_allclose(bad[2:], good[2:], **TIGHT)
            assert np.abs(bad[1] - good[1]) > 1e-3, wrong.__name__


def test_both_at_once_is_a_termination() -> None:
    data = window(5, 9, 5)
    both = {**data, "truncated": data["truncated"] | data["terminated"]}
    for case in CASES.values():
        check(call(case.function, case, both), call(case.function, case, data), rtol=0, atol=0)


def test_the_last_row_of_a_window_is_cut_like_a_truncation() -> None:
    data = window(6, 9, 5)
    cut = {**data, "truncated": np.concatenate([data["truncated"][:-1], np.ones((1, 5), bool)])}
    for case in CASES.values():
        check(call(case.function, case, cut), call(case.function, case, data), rtol=0, atol=0)


def test_without_next_value_nothing_is_added_at_a_cut() -> None:
    data = window(7, 5, 4)
    del data["value"], data["log_ratio"], data["lam"]
    next_value = np.zeros_like(data.pop("next_value"))
    reward = data.pop("reward")
    check(pg.discounted_returns(reward, **data), pg.discounted_returns(reward, next_value, **data))
