"""Every script in benchmarks/ runs, in a short form, so that what types do not show in one of them is seen."""

import os
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())
# Started by another script, or in the environment of another library.
SERVANTS = {"peers_pgjax.py", "peers_rejax.py", "peers_sbx.py", "learn_rejax.py"}
DEAR = {"agents.py", "certificates.py", "peers.py", "peers_off_policy.py", "ppo_failures.py", "reproduce.py"}  # minutes
NEEDS = {"agents.py": "jaxmarl"}  # an extra
SHORTER = {"learn.py": ["--only", "reinforce", "--scale", "0.01", "--docs", "docs"]}  # its fast form takes ten minutes


@pytest.mark.parametrize(
    "script",
    [pytest.param(x, marks=pytest.mark.slow if x in DEAR else ()) for x in SCRIPTS if x not in SERVANTS],
)
def test_the_fast_form_runs_and_writes_what_it_says(script: str, tmp_path: pathlib.Path) -> None:
    if script in NEEDS:
        pytest.importorskip(NEEDS[script])
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05"}
    done = subprocess.run(
        [sys.executable, "-W", "error", BENCHMARKS / script, "--fast", "--out", tmp_path, *SHORTER.get(script, [])],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    assert list(tmp_path.rglob("*.json")), "no figures were written"


def test_there_are_scripts_and_what_they_import_of_each_other_is_used() -> None:
    texts = {path.stem: path.read_text() for path in BENCHMARKS.glob("*.py")}
    helpers = texts.keys() - {name.removesuffix(".py") for name in SCRIPTS}
    assert len(SCRIPTS) >= 4
    for helper in helpers:
        assert any(f"from {helper} import" in text for text in texts.values()), f"nothing uses {helper}.py"
