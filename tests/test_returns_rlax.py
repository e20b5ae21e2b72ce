"""Returns against rlax, which has one discount and no truncation: an oracle where nothing is truncated."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import pytest
from test_returns import CASES, call, check, window

import pgjax as pg

if importlib.util.find_spec("rlax") is None:
    pytest.skip("rlax is not installed: it comes with the extra `test`", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports; an error is one
    import rlax

pytestmark = pytest.mark.usefixtures("x64")


def rlax_window() -> dict[str, Any]:
    data = window(8, 10)
    data["truncated"] = np.zeros(10, bool)
    data["next_value"][:-1] = data["value"][1:]
    data["discount"], data["lam"] = 0.9, 0.7
    data["gamma"] = 0.9 * (1.0 - data["terminated"])
    assert data["terminated"].any()
    return data


def test_rlax_agrees_on_gae_and_lambda_returns() -> None:
    d = rlax_window()
    values = np.append(d["value"], d["next_value"][-1])
    expected = rlax.truncated_generalized_advantage_estimation(d["reward"], d["gamma"], d["lam"], values)
    check(call(pg.gae, CASES["gae"], d), expected)
    expected = rlax.lambda_returns(d["reward"], d["gamma"], d["next_value"], d["lam"])
    check(call(pg.lambda_returns, CASES["lambda_returns"], d), expected)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rlax_agrees_on_n_step_returns(n: int) -> None:
    d = rlax_window()
    expected = rlax.n_step_bootstrapped_returns(d["reward"], d["gamma"], d["next_value"], n)
    check(call(pg.n_step_returns, CASES[f"n_step_returns, n={n}"], d), expected)


@pytest.mark.parametrize(("clip_rho", "clip_pg_rho"), [(1.0, 1.0), (1.7, 1.2), (np.inf, np.inf)])
def test_rlax_agrees_on_vtrace(clip_rho: float, clip_pg_rho: float) -> None:
    d = rlax_window()
    expected = rlax.vtrace_td_error_and_advantage(
        d["value"], d["next_value"], d["reward"], d["gamma"], np.exp(d["log_ratio"]), d["lam"], clip_rho, clip_pg_rho
    )
    target, advantage = call(pg.vtrace, CASES["vtrace"], d, clip_rho=clip_rho, clip_pg_rho=clip_pg_rho)
    check(target - d["value"], expected.errors)
    check(advantage, expected.pg_advantage)


def test_rlax_agrees_on_retrace() -> None:
    d = rlax_window()
    trace = d["lam"] * np.minimum(1.0, np.exp(d["log_ratio"]))
    expected = rlax.general_off_policy_returns_from_q_and_v(
        d["value"][1:], d["next_value"], d["reward"], d["gamma"], trace[1:]
    )
    check(call(pg.retrace, CASES["retrace"], d), expected)
