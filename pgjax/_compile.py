"""How every public function is compiled: one decorator, so that the rule is written once."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

from pgjax import _checks
from pgjax._functions import Watch, as_pytree, by_name, from_pytree, is_traced

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*selects: str, unit_interval: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Return a decorator that jits a function and inlines it into an outer jit.

    Args:
        *selects: names of the arguments that select the program rather than feed it: environments, integers that set
            a shape. They must be hashable. Functions select it wherever they stand, and need no mention; the
            arrays of one that owns some (`pg.bind`) feed it.
        unit_interval: names of arguments that, when they come as Python numbers, must lie in
            [0, 1]. They are looked at here because jit would hide their value.

    Returns:
        A decorator that keeps the signature, the docstring and the name.

    Raises:
        TypeError: by the decorated function, if an argument is unknown or missing, or one that selects is not hashable.
        ValueError: by the decorated function, if a number lies outside [0, 1], or if a function reads arrays from its
            closure that have changed since it was compiled.
    """

    def wrap(function: F) -> F:
        parameters = inspect.signature(function).parameters
        watch = Watch(function.__name__)

        @functools.wraps(function)
        def inner(arguments: dict[str, Any]) -> Any:
            return function(**{key: from_pytree(x) for key, x in arguments.items()})

        jitted = jax.jit(inner, inline=True)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = by_name(function.__name__, parameters, args, kwargs)
            for key in unit_interval:
                _checks.require_unit_interval(key, arguments.get(key))
            functions = [key for key, x in arguments.items() if callable(x)]
            if functions and not is_traced(arguments):
                for key in functions:
                    watch.look(key, arguments[key])
            for key in {*selects, *functions} & arguments.keys():
                arguments[key] = as_pytree(key, arguments[key])
            return jitted(arguments)

        call.jitted = jitted  # type: ignore[attr-defined]
        return cast(F, call)

    return wrap
