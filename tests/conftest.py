"""What holds for every test: ranks are never promoted silently, and float64 is asked for, not set.

The settings are made here rather than in a fixture because the doctests of the package must run under them too.
"""

from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


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


@pytest.fixture(scope="module")
def quick_to_compile() -> Iterator[None]:
    """Compile without most optimisations for one module: three times faster where each program runs once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
