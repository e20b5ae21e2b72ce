"""The page about papers: a verdict follows from the figures, and says so where a finding is not there."""

import copy
import json
import math
import pathlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import reproduce  # noqa: E402
from papers import kool_2020, mohamed_2020, silver_2014, suh_2022, tucker_2017  # noqa: E402
from papers._form import FOUND, NOT_FOUND, Finding, number, verdicts  # noqa: E402

from pgjax.distributions import Bernoulli  # noqa: E402

Figures = dict[str, Any]


def outcome(module: Any, figures: Figures) -> list[bool]:
    """Which of the findings are there."""
    lines = module.verdict(json.loads(json.dumps(figures))).splitlines()
    assert all(line.startswith((f"- {FOUND}", f"- {NOT_FOUND}")) for line in lines)
    return [line.startswith(f"- {FOUND}") for line in lines]


def mohamed() -> Figures:
    def cost(k: list[float], mean: list[list[float]], deviation: list[list[float]]) -> Figures:
        rows = {
            rule: {"mean": m, "deviation": d} for rule, m, d in zip(mohamed_2020.RULES, mean, deviation, strict=True)
        }
        return {"k": k, "variance": rows, "error": 0.0}

    deviation = [[9.0, 2.0, 1.5], [1.0, 1.0, 1.2], [0.9, 0.9, 1.0]]
    return {
        "(x − k)²": cost([-3.0, 1.0, 5.0], [[500.0, 15.0, 500.0], [4.0, 4.0, 4.0], [17.0, 0.0, 17.0]], deviation),
        "exp(−k x²)": cost([0.1, 1.0, 10.0], [[0.6, 0.2, 0.1], [0.02, 0.3, 1.0], [0.01, 0.01, 0.02]], deviation),
        "cos(k x)": cost([0.1, 1.0, 10.0], [[1.0, 0.3, 0.5], [1e-4, 0.4, 50.0], [1e-5, 0.01, 0.1]], deviation),
    }


def suh() -> Figures:
    score = [7.0, 14.0, 28.0, 56.0, 112.0]
    rows = {"stable": [0.1, 1.0, 1.2, 1.3, 1.3], "chaotic": [0.01, 0.3, 5.0, 1e4, 1e9]}
    wall = {
        "values": [1.0, 10.0, 100.0],
        "variance": {"pathwise": [0.2, 3.0, 38.0, 0.0], "score function": [0.3] * 4, "measure-valued": [0.03] * 4},
        "ratio": {"pathwise": [1.0, 1.0, 1.0, 0.0], "score function": [1.0] * 4, "measure-valued": [1.0] * 4},
        "silent": [0.0, 0.1, 0.7, 1.0],
    }
    variance = {name: {"pathwise": x, "score function": list(score)} for name, x in rows.items()}
    return weighted({"horizon": {"horizons": [1, 2, 4, 8, 16], "variance": variance, "apart": 1.0}, "stiffness": wall})


def weighted(figures: Figures, factor: float = 0.95) -> Figures:
    """With the variance of the weighted mean that belongs to the others."""
    for x in figures["horizon"]["variance"].values():
        pairs = zip(x["pathwise"], x["score function"], strict=True)
        x[suh_2022.BOTH] = [factor * min(pair) for pair in pairs]
    return figures


def tucker() -> Figures:
    targets, names = [0.45, 0.499, 0.0], ("score function", "REBAR", "RELAX", "ARM", "DisARM", "Gumbel-softmax")
    left = {**dict.fromkeys(names, 0.1), "RELAX": 0.05, "Gumbel-softmax": 0.9}
    p = 1.0 / (1.0 + math.exp(-tucker_2017.APART))
    slope = [p * (1.0 - p) * (1.0 - 2.0 * t) for t in targets]
    variance = dict(zip(names, (1.0, 0.5, 0.1, 0.02, 0.01, 1.0), strict=True))
    return {
        "targets": targets,
        "steps": [0, 100],
        "loss": {n: [[0.25, t**2 + left[n] * (0.5 - t)] for t in targets] for n in names},
        "variance_apart": {name: [v] * 3 for name, v in variance.items()},
        "mean_apart": {name: [-x for x in slope] if name == "Gumbel-softmax" else list(slope) for name in names},
        "scale": [1.0] * 3,
        "biased": ["Gumbel-softmax"],
    }


def kool() -> Figures:
    names = (kool_2020.PLAIN, kool_2020.OTHERS, kool_2020.SUMMED, kool_2020.WITHOUT)
    rows = {"high entropy": ([9.0, 4.0], [1.0, 0.5], [8.0, 3.0], [0.9, 0.2])}
    rows["low entropy"] = ([90.0, 40.0], [30.0, 15.0], [2.0, 1.0], [1.0, 0.9])
    return {
        "evaluations": [2, 4],
        "settings": {
            setting: {
                "variance": dict(zip(names, x, strict=True)),
                "bias": dict.fromkeys(names, 0.0),
                "own": {"bias": [-0.5, -0.25], "squared_error": [1.0, 1.0]},
            }
            for setting, x in rows.items()
        },
    }


def silver() -> Figures:
    sigma = [0.01 * 2.0**k for k in range(7)]
    distance = [0.5 * x**2 for x in sigma]
    return {"sigma": sigma, "distance": distance, "variance": [70.0 / x**2 for x in sigma], "error": 1e-12}


def planted(*path: Any, value: Any) -> Callable[[Figures], None]:
    """Put something else where a path of keys leads."""

    def plant(figures: Figures) -> None:
        for key in path[:-1]:
            figures = figures[key]
        figures[path[-1]] = value

    return plant


def weak_is_always_the_best(figures: Figures) -> None:
    for cost in figures.values():
        cost["variance"]["measure-valued"] = {p: [1e-9] * 3 for p in ("mean", "deviation")}


SQUARE, PEAK, WAVE = ([cost, "variance"] for cost in ("(x − k)²", "exp(−k x²)", "cos(k x)"))
STABLE, CHAOTIC = (["horizon", "variance", name] for name in ("stable", "chaotic"))
HIGH, LOW = (["settings", name] for name in ("high entropy", "low entropy"))
# What each doctored figure takes away, by the place of the finding.
DOCTORED: dict[str, tuple[Any, Callable[[], Figures], list[tuple[int, Callable[[Figures], None]]]]] = {
    "mohamed_2020": (
        mohamed_2020,
        mohamed,
        [
            (0, weak_is_always_the_best),
            (1, planted(*SQUARE, "score function", "mean", value=[500.0, 3.0, 500.0])),
            (2, planted(*PEAK, "pathwise", "mean", value=[0.02, 0.03, 0.04])),
            (3, planted(*WAVE, "score function", "mean", value=[1.0, 1.0, 100.0])),
            (4, planted(*WAVE, "pathwise", "mean", value=[1e-4, 0.4, 5.0])),
        ],
    ),
    "suh_2022": (
        suh_2022,
        suh,
        [
            (0, planted(*CHAOTIC, "pathwise", value=[0.01, 30.0, 60.0, 120.0, 240.0])),
            (1, planted(*CHAOTIC, "score function", value=[7.0, 14.0, 100.0, 1e3, 9e3])),
            (2, planted(*STABLE, "score function", value=[0.05, 14.0, 28.0, 56.0, 112.0])),
            (4, planted("stiffness", "variance", "pathwise", value=[0.2, 0.2, 0.2, 0.0])),
            (5, planted("stiffness", "ratio", "score function", value=[1.0, 1.0, 1.0, 0.5])),
            (5, planted("stiffness", "ratio", "pathwise", value=[1.0, 1.0, 1.0, 1.0])),
        ],
    ),
    "silver_2014": (
        silver_2014,
        silver,
        [
            (0, planted("distance", value=[0.1] * 7)),
            (0, planted("distance", 0, value=0.02)),
            (1, planted("variance", value=[70.0] * 7)),
        ],
    ),
    "tucker_2017": (
        tucker_2017,
        tucker,
        [
            (0, planted("mean_apart", "RELAX", 1, value=0.1)),
            (1, planted("variance_apart", "REBAR", 2, value=1.0)),
            (2, planted("variance_apart", "REBAR", 0, value=1.0)),
            (3, planted("loss", "ARM", 0, 1, value=0.25)),
            (3, planted("loss", "Gumbel-softmax", 0, 1, value=0.45**2)),
            (4, planted("variance_apart", "RELAX", 1, value=0.6)),
            (5, planted("loss", "RELAX", 1, 1, value=0.25)),
            (6, planted("variance_apart", "DisARM", 1, value=0.03)),
        ],
    ),
    "kool_2020": (
        kool_2020,
        kool,
        [
            (0, planted(*LOW, "bias", kool_2020.OTHERS, value=0.1)),
            (0, planted(*HIGH, "variance", kool_2020.PLAIN, value=[0.95, 4.0])),
            (1, planted(*LOW, "own", "bias", value=[-0.5, 0.0])),
            (2, planted(*HIGH, "variance", kool_2020.WITHOUT, value=[1.5, 0.2])),
            (3, planted(*HIGH, "variance", kool_2020.SUMMED, value=[0.95, 3.0])),
            (4, planted(*LOW, "variance", kool_2020.SUMMED, value=[2.0, 0.01])),
        ],
    ),
}


@pytest.mark.parametrize("name", DOCTORED)
def test_a_verdict_turns_where_the_figures_do(name: str) -> None:
    module, make, doctored = DOCTORED[name]
    findings = outcome(module, make())
    assert all(findings), findings
    assert {place for place, _ in doctored} >= set(range(len(findings))) - ({3} if name == "suh_2022" else set())
    for place, plant in doctored:
        figures = copy.deepcopy(make())
        plant(figures)
        found = outcome(module, weighted(figures) if name == "suh_2022" else figures)
        assert [i for i, holds in enumerate(found) if not holds] == [place], (place, found)


def test_a_weighted_mean_that_is_worse_than_the_better_one_is_seen() -> None:
    assert outcome(suh_2022, weighted(suh(), factor=2.0)) == [True, True, True, False, True, True]


def test_samples_with_replacement_are_listed_with_their_probabilities() -> None:
    noise, weights = kool_2020._multisets(Bernoulli(np.full(3, -1.0, np.float32)), 3)
    assert noise["x"].action.shape == (120, 3, 3)  # 10 choose 3 multisets of three of eight outcomes
    assert abs(weights.sum() - 1.0) < 1e-6
    p = 1.0 / (1.0 + math.exp(1.0))
    assert abs(np.sum(weights * noise["x"].action.mean((1, 2))) - p) < 1e-6


def test_the_slope_of_a_wall_is_that_of_its_mean() -> None:
    x = np.linspace(-9.0, 9.0, 400_001)
    for stiffness in (1.0, 10.0):
        f = np.asarray(suh_2022._contact(x, stiffness), float)
        at = [np.sum(f * np.exp(-0.5 * (x - m) ** 2)) * (x[1] - x[0]) / math.sqrt(2.0 * math.pi) for m in (-0.01, 0.01)]
        assert abs((at[1] - at[0]) / 0.02 - suh_2022._slope(stiffness)) < 1e-4


def test_numbers_and_verdicts_are_written_as_the_page_wants_them() -> None:
    assert [number(x) for x in (0.0, 1.0, 0.12345, 12345.6, 3.4e-7, 9.9e9)] == [
        "0", "1", "0.123", "12346", "3.4e-7", "9.9e9",
    ]  # fmt: skip
    lines = verdicts(Finding("A.", True, "b."), Finding("C.", False, "d.")).splitlines()
    assert lines == [f"- {FOUND} A. *Here:* b.", f"- {NOT_FOUND} C. *Here:* d."]


@pytest.fixture
def two_papers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for two papers, which count how often they are measured."""

    def paper(name: str) -> Any:
        module = types.SimpleNamespace(
            TITLE=f"Of {name}", REFERENCE="Nobody.", CLAIM="None.", FULL={"n": 2}, FAST={"n": 1}, measured=[]
        )

        def measure(size: dict[str, int]) -> Figures:
            module.measured.append(size["n"])
            return {"n": np.float32(size["n"])}

        def draw(figures: Figures, path: pathlib.Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(figures["n"]))

        module.measure, module.draw = measure, draw
        module.verdict = lambda figures: verdicts(Finding("There are two.", figures["n"] == 2.0, f"{figures['n']:g}."))
        return module

    known = {name: paper(name) for name in ("one", "other")}
    monkeypatch.setattr(reproduce, "modules", lambda: known)
    monkeypatch.setattr(reproduce, "quick_to_compile", lambda: None)
    return known


def test_what_is_measured_is_kept_until_it_is_to_be_fresh(two_papers: dict[str, Any], tmp_path: pathlib.Path) -> None:
    out, docs = str(tmp_path / "out"), tmp_path / "docs"
    docs.mkdir()
    with pytest.raises(SystemExit, match="other is not measured yet"):
        reproduce.main(["--out", out, "--only", "one", "--docs", str(docs)])
    assert not list(docs.iterdir())
    reproduce.main(["--out", out, "--docs", str(docs)])
    assert [module.measured for module in two_papers.values()] == [[2], [2]]
    reproduce.main(["--out", out, "--only", "one", "--fresh"])
    assert [module.measured for module in two_papers.values()] == [[2, 2], [2]]
    reproduce.main(["--out", out, "--fast"])  # another size: what is there does not count
    assert [module.measured for module in two_papers.values()] == [[2, 2, 1], [2, 1]]
    page = (docs / "papers.md").read_text()
    assert page.count("![Of") == page.count(FOUND) == page.count("| 1 of 1 |") == 2
    assert page.count("pgjax") >= 2
    assert NOT_FOUND not in page.split("| Paper")[1]
    assert "| 0 of 1 |" in (tmp_path / "out" / "papers.md").read_text()
    assert sorted(path.name for path in (docs / "papers").iterdir()) == ["one.png", "other.png"]


def test_every_module_has_what_the_runner_needs() -> None:
    known = reproduce.modules()
    assert {"mohamed_2020", "tucker_2017", "kool_2020", "suh_2022"} <= known.keys()
    for name, module in known.items():
        assert all(isinstance(getattr(module, text), str) for text in ("TITLE", "REFERENCE", "CLAIM")), name
        assert reproduce.size_of(module, True) != reproduce.size_of(module, False), name
        assert all(callable(getattr(module, function)) for function in ("measure", "draw", "verdict")), name
