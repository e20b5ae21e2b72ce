"""How every public function is compiled: one decorator, so that the rule is written once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

from pgjax import _checks

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*static: str, unit_interval: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that jits a function and inlines it into an outer jit.

    Args:
        *static: names of the arguments that select the program rather than feed it: callables,
            environments, integers that set a shape. They must be hashable.
        unit_interval: names of arguments that, when they come as Python numbers, must lie in
            [0, 1]. They are looked at here because jit would hide their value.

    Returns:
        A decorator that keeps the signature, the docstring and the name.

    Raises:
        TypeError: by the decorated function, if a static argument is not hashable.
        ValueError: by the decorated function, if a number lies outside [0, 1].
    """

    def wrap(function: F) -> F:
        jitted = jax.jit(function, static_argnames=static, inline=True)
        position = {name: i for i, name in enumerate(inspect.signature(function).parameters)}

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for names, check in ((unit_interval, _checks.require_unit_interval), (static, _checks.require_hashable)):
                for name in names:
                    at = position.get(name, len(args))
                    check(name, args[at] if at < len(args) else kwargs.get(name))
            return jitted(*args, **kwargs)

        call.jitted = jitted  # type: ignore[attr-defined]
        return cast(F, call)

    return wrap
