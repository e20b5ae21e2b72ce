"""The page of the documentation says what the certificates say: its tables are read back."""

import pathlib
import sys

import pytest

from certify.suite import chosen, problem_of
from pgjax import exact

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import which_estimator  # noqa: E402
from certificates_page import page  # noqa: E402

SETTING = {"processor": "p", "device": "d", "python": "3", "jax": "0", "pgjax": "0", "date": "today"}


def tables(text):
    """By the heading before it, each table as (header, rows); "Bias" for the first two."""
    found, heading, header = {}, "", None
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        cells = [cell.strip("| ") for cell in cells]
        if header is None:
            header = cells
            found.setdefault(heading, []).append((header, []))
        else:
            found[heading][-1][1].append(cells)
    return found


def figure(cell):
    """The number in a cell, and None for a dash; infinity for its sign."""
    plain = cell.strip("*?").removesuffix(" %").removesuffix(" µs")
    return None if plain == "–" else float("inf") if plain == "∞" else float(plain)


def row_of(found, problem, estimator):
    ((header, rows),) = found[problem]
    (cells,) = [row for row in rows[1:] if row[0] == estimator]
    return dict(zip(header, cells, strict=True))


def require_equal(cells, c):
    """Cells of one row against the figures of the certificate, to the digits that are shown."""
    near = lambda x: pytest.approx(x, rel=6e-3, abs=1e-4)  # noqa: E731
    assert figure(cells["cosine"]) == near(c["cosine"])
    assert figure(cells["variance"]) == near(c["trace"])
    assert figure(cells["signal to noise"]) == near(float(c["signal_to_noise"]))
    assert figure(cells["n for 0.9"]) == near(float(c["samples_for_cosine_0.9"]))
    for name in ("state", "action", "trajectory", "between"):
        if c["terms"] is not None:
            assert figure(cells[name]) == pytest.approx(100 * c["terms"][name] / c["trace"], abs=0.6)


def test_finding_3_cells_stand_below_the_headers_that_name_them():
    bandit, expectation = problem_of("softmax_bandit"), problem_of("one-hot")
    names = ("REINFORCE", "REINFORCE without γ^t", "REINFORCE, mean with self")
    rules = ("score function", "Gumbel-softmax", "enumerated")
    certificates = [
        *exact.certify_all(chosen(*names), bandit, terms=True, cost_batch=8),
        *exact.certify_all(chosen(*rules), expectation, num_trajectories=2000),
    ]
    shown = [c.as_dict() for c in certificates]
    text = page(shown, SETTING, references=dict.fromkeys((*names, *rules), "Somebody (2000)"))
    found = tables(text)
    for heading, several in found.items():
        for header, rows in several:
            assert {len(row) for row in rows} == {len(header)}, heading
    for c in shown:
        cells = row_of(found, c["problem"], c["estimator"])
        if c["truth"] == "expectation":
            cells |= dict.fromkeys(("state", "action", "trajectory", "between"), "–")
        else:
            assert figure(cells["time"]) == pytest.approx(1e6 * c["cost"]["run_seconds"] / 8, rel=0.06)
        require_equal(cells, c)
    (header, biases), (_, of_rules) = found["Bias"]
    assert header == ["Estimator", "claims", "softmax_bandit"]
    assert biases[1:] == [
        ["REINFORCE", "discounted", "**0**"],
        ["REINFORCE without γ^t", "dropped discount", "**0**"],
        ["REINFORCE, mean with self", "nothing", "0.5"],
    ]
    assert [row[0] for row in of_rules[1:]] == list(rules)
    assert of_rules[2][2].startswith("*0.")
    assert "REINFORCE on softmax_bandit: the gradient is right." in text
    assert "- score function: Somebody (2000)" in text


def test_the_page_of_the_documentation_is_whole_and_true():
    text = (ROOT / "docs" / "certificates.md").read_text()
    found = tables(text)
    for heading, several in found.items():
        for header, rows in several:
            assert {len(row) for row in rows} == {len(header)}, heading
    assert set(found) == {"Bias", *exact.certificate_problems()}
    listed = [row[0] for _, rows in found["Bias"] for row in rows[1:]]
    assert set(listed) == {candidate.name for candidate in exact.registry()}
    for picture in ("bias_variance", "variance_batch", "cosine_envs", "variance_second", "rules"):
        assert f"(certificates/{picture}.png)" in text
        assert (ROOT / "docs" / "certificates" / f"{picture}.png").stat().st_size > 10_000
    names = ("REINFORCE", "REINFORCE without γ^t", "actor-critic λ=0, wrong value")
    for c in exact.certify_all(chosen(*names), problem_of("two_state"), terms=True):
        require_equal(row_of(found, "two_state", c.estimator), c.as_dict())
    for c in exact.certify_all(chosen("score function", "REBAR"), problem_of("Bernoulli")):
        require_equal(row_of(found, "Bernoulli", c.estimator), c.as_dict())
    header, biases = found["Bias"][0]
    for row in biases[1:]:
        for problem, cell in zip(header[2:], row[2:], strict=True):
            assert not (row[1] == "discounted" and cell not in ("–", "**0**", "**0?**")), (row[0], problem)


def test_the_choice_shows_bias_and_variance_relative_to_the_plain_estimator():
    names = ("REINFORCE", "REINFORCE without γ^t", "likelihood ratio", "REINFORCE, mean with self")
    rules = ("score function", "Gumbel-softmax", "enumerated")
    certificates = [
        *exact.certify_all(chosen(*names), problem_of("softmax_bandit"), cost_batch=8),
        *exact.certify_all(chosen(*names[:3]), problem_of("two_state"), cost_batch=8),
        *exact.certify_all(chosen(*rules), problem_of("one-hot"), num_trajectories=2000),
    ]
    candidates = chosen(*names, *rules)
    text = which_estimator.page(
        [c.as_dict() for c in certificates], SETTING,
        needs={c.name: c.needs for c in candidates}, references={c.name: c.reference for c in candidates},
    )  # fmt: skip
    ((header, rows),) = tables(text)["Trajectories"]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows[1:]}
    assert (found["REINFORCE"]["bias"], found["REINFORCE"]["variance"]) == ("**0**", "1")
    by_name = {(c.estimator, c.problem): c for c in certificates}
    ratios = [
        by_name["likelihood ratio", problem].trace / by_name["REINFORCE", problem].trace
        for problem in ("softmax_bandit", "two_state")
    ]
    assert figure(found["likelihood ratio"]["variance"]) == pytest.approx(sum(ratios) / 2, rel=6e-3)
    assert found["likelihood ratio"]["range"] == f"{min(ratios):.3g} to {max(ratios):.3g}"
    assert float(found["REINFORCE without γ^t"]["bias"]) == pytest.approx(
        by_name["REINFORCE without γ^t", "two_state"].relative_bias, rel=6e-3
    )
    assert found["REINFORCE, mean with self"]["estimates"] == "nothing"
    ((header, rows),) = tables(text)["E f(x)"]
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows[1:]}
    assert found["enumerated"]["variance"] == "0"
    assert found["Gumbel-softmax"]["bias"] not in ("**0**", "**0?**")


def test_the_page_of_the_choice_names_every_estimator():
    found = tables((ROOT / "docs" / "which_estimator.md").read_text())
    listed = [row[0] for ((_, rows),) in found.values() for row in rows[1:]]
    assert set(listed) == {candidate.name for candidate in exact.registry()}
