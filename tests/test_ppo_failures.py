"""The three failures of the clip, with few seeds: each shows, and what is said to repair it does."""

import pathlib
import sys
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import ppo_failures  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_to_compile")


def solved(name: str, *methods: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The share of eight runs that each method solves."""
    failure = ppo_failures.FAILURES[name]
    kept = tuple(x for x in failure.methods if x[:2] in methods)
    assert len(kept) == len(methods)
    monkeypatch.setitem(ppo_failures.FAILURES, name, failure._replace(methods=kept))
    found = ppo_failures.measure(name, seeds=8, num_updates=200)
    return [found[", ".join(method)]["solved"] for method in methods]


def test_a_normal_policy_leaves_the_region_of_rewards_and_points_or_a_penalty_keep_it_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = (("normal", "clip"), ("points", "clip"), ("normal", "reverse penalty"))
    clip, points, penalty = solved("bounded", *methods, monkeypatch=monkeypatch)
    assert clip < 0.5
    assert points == 1.0
    assert penalty >= 0.75


def test_a_softmax_policy_settles_too_early_and_a_penalty_holds_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = (("softmax", "clip"), ("softmax", "forward penalty"), ("softmax", "reverse penalty"))
    clip, forward, reverse = solved("rare", *methods, monkeypatch=monkeypatch)
    assert clip < 0.6
    assert forward >= 0.9
    assert reverse >= 0.9


def test_a_normal_policy_stays_on_the_hill_where_it_starts_and_points_find_the_higher_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip, points = solved("start", ("normal", "clip"), ("points", "clip"), monkeypatch=monkeypatch)
    assert clip < 0.25
    assert points == 1.0


def test_a_verdict_says_so_where_a_finding_does_not_show() -> None:
    def found(broken: float, repaired: float) -> dict[str, Any]:
        failure = ppo_failures.FAILURES["start"]
        shares = {", ".join(method[:2]): broken for method in failure.methods}
        return {name: {"solved": x} for name, x in (shares | dict.fromkeys(failure.repairs, repaired)).items()}

    counts = [
        ppo_failures.verdict("start", found(*shares)).count("**Found again.**")
        for shares in ((0.1, 1.0), (0.1, 0.3), (0.9, 1.0))
    ]
    assert counts == [3, 1, 0]


def test_the_problems_pay_what_they_say() -> None:
    np.testing.assert_allclose(
        ppo_failures.bounded(np.array([0.5, -0.5, 1.01, -1.01])), [1.0, 0.0, 0.0, 0.0], atol=1e-6
    )
    np.testing.assert_allclose(ppo_failures.rare(np.array([0, 10, 11])), [1.0, 0.5, 0.0])
    np.testing.assert_allclose(ppo_failures.two_hills(np.array([0.8, -0.2])), [1.0, 0.5], atol=1e-6)
