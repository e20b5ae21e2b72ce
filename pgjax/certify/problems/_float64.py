"""Problems are built and their truth is computed in float64, whatever the session computes in."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

R = TypeVar("R")


def exactly(compute: Callable[[Any], R]) -> functools.cached_property[R]:
    """Make a property that is computed once, in float64, also where somebody asks for it while tracing.

    Args:
        compute: self -> its value.

    Returns:
        The property.
    """

    @functools.wraps(compute)
    def in_float64(self: Any) -> R:
        with jax.ensure_compile_time_eval(), jax.enable_x64(True):
            return compute(self)

    return functools.cached_property(in_float64)


def built_in_float64(build: Callable[[], R]) -> Callable[[], R]:
    """Make a function without arguments compute in float64.

    Args:
        build: () -> a problem.

    Returns:
        The function.
    """

    def built() -> R:
        with jax.enable_x64(True):
            return build()

    return built
