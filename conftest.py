"""What every test and doctest finds: compiled programs kept between runs, strict ranks, fixtures, a ready-made window.

The settings are made on import rather than in a fixture because doctests must run under them too.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _compile_quickly() -> None:
    """Choose the code generators of XLA's CPU backend that compile in a third of the time, where jax has that choice.

    They are read when JAX first computes, which importing gymnax makes it do: hence the import of pgjax below.
    Flags that are set already are left alone.
    """
    if jax.__version_info__ < (0, 11):
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ.setdefault("XLA_FLAGS", flags)


def _keep_compiled_programs() -> None:
    """Turn on JAX's persistent compilation cache in the user's cache folder, unless one is set already."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "pgjax" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


_compile_quickly()
_keep_compiled_programs()
jax.config.update("jax_numpy_rank_promotion", "raise")

import pgjax as pg  # noqa: E402  see _compile_quickly


@pytest.fixture
def x64() -> Iterator[None]:
    """Compute in float64 for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def foreign_ranks() -> Iterator[None]:
    """Let code from elsewhere promote ranks for one test: gymnax's Swimmer subtracts [2] from [5, 2]."""
    with jax.numpy_rank_promotion("allow"):
        yield


@contextlib.contextmanager
def _without_most_optimisations() -> Iterator[None]:
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Compile without most optimisations for one module: three times faster where each program runs once."""
    with _without_most_optimisations():
        yield


@pytest.fixture(autouse=True)
def quick_doctests(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same for every doctest."""
    with _without_most_optimisations() if isinstance(request.node, pytest.DoctestItem) else contextlib.nullcontext():
        yield


def _resident() -> int:
    """The bytes of memory that this process holds; 0 where the system does not say."""
    held = Path("/proc/self/statm")
    return int(held.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if held.exists() else 0


HELD = {"bytes": _resident()}


@pytest.fixture(scope="module", autouse=True)
def programs_given_back() -> Iterator[None]:
    """Forget compiled programs after a file once they hold 1.5 GB more: with many of them each further one is slow."""
    yield
    if _resident() > HELD["bytes"] + 1_500_000_000:
        jax.clear_caches()
        HELD["bytes"] = _resident()


def _policy(params: Any, obs: Any) -> pg.Categorical:
    return pg.Categorical(obs @ params["policy"])


def _value(params: Any, obs: Any) -> jax.Array:
    return obs @ params["value"]


def _window() -> dict[str, Any]:
    """The window of the doctests: 4 steps of 3 environments, two features, two actions.

    The first environment terminates at its second step, the second is truncated at its third, the last goes on.
    """
    steps, envs = 4, 3
    terminated, truncated = np.zeros((2, steps, envs), bool)
    terminated[1, 0] = truncated[2, 1] = True
    done = terminated | truncated
    obs = np.linspace(-1.0, 1.0, (steps + 1) * envs * 2, dtype=np.float32).reshape(steps + 1, envs, 2)
    next_obs = np.where(done[..., None], obs[1:] + np.float32(0.5), obs[1:])
    action = (np.arange(steps * envs).reshape(steps, envs) % 2).astype(np.int32)
    step = np.zeros((steps, envs), np.int32)
    for t in range(1, steps):
        step[t] = np.where(done[t - 1], 0, step[t - 1] + 1)
    params = {"policy": np.array([[0.5, -0.5], [0.0, 1.0]], np.float32), "value": np.array([1.0, 2.0], np.float32)}
    logits = obs[:-1] @ params["policy"]
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    log_prob = np.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]
    reward = np.ones((steps, envs), np.float32)
    rows = (obs[:-1], action, reward, next_obs, terminated, truncated, log_prob, step)
    trajectory = pg.Trajectory(*map(jnp.asarray, rows))
    return {"trajectory": trajectory, "params": jax.tree.map(jnp.asarray, params), "policy": _policy, "value": _value}


@pytest.fixture(scope="session", autouse=True)
def ready_made(doctest_namespace: dict[str, Any]) -> None:
    """Put the window and the usual imports among the names that a doctest can use."""
    doctest_namespace.update(_window(), jax=jax, jnp=jnp, np=np, pg=pg)
