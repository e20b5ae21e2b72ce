"""Everything on arrays, and rollouts, work under `jax.shard_map` with its default checks, on eight CPU devices."""

import os
import pathlib
import subprocess
import sys

import sharded

SCRIPT = pathlib.Path(sharded.__file__)


def test_every_function_runs_under_shard_map_with_its_default_checks() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={sharded.DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    path = os.pathsep.join([str(SCRIPT.parents[1]), environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, str(SCRIPT)], env={**environment, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    passed = run.stdout.split("\n")
    for group in (sharded.RETURNS, sharded.PER_STEP, sharded.LOCAL, sharded.REDUCED, sharded.ROLLED):
        assert set(group) <= set(passed)
