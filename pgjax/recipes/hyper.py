"""Hyper-parameters: numbers that may be traced, each checked against its range where it is known."""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Number = Array | float
H = TypeVar("H", bound=tuple[Any, ...])

_UNIT, _INSIDE, _NONNEGATIVE, _POSITIVE, _FACTOR = "[0, 1]", "(0, 1)", "[0, inf)", "(0, inf]", "[1, inf)"
_HOLDS: dict[str, Callable[[float], bool]] = {
    _UNIT: lambda x: 0 <= x <= 1,
    _INSIDE: lambda x: 0 < x < 1,
    _NONNEGATIVE: lambda x: 0 <= x < math.inf,
    _POSITIVE: lambda x: x > 0,
    _FACTOR: lambda x: 1 <= x < math.inf,
}
RANGES: dict[str, str] = {
    "learning_rate": _NONNEGATIVE,
    "discount": _UNIT,
    "lam": _UNIT,
    "critic_lam": _UNIT,
    "emphatic_lam": _UNIT,
    "average_rate": _UNIT,
    "temperature": _NONNEGATIVE,
    "behaviour_temperature": _POSITIVE,
    "clip_rho": _POSITIVE,
    "clip_c": _POSITIVE,
    "clip_pg_rho": _POSITIVE,
    "clip": _POSITIVE,
    "value_clip": _POSITIVE,
    "value_coef": _NONNEGATIVE,
    "max_grad_norm": _POSITIVE,
    "anneal": _UNIT,
    "decay": _UNIT,
    "eps": _NONNEGATIVE,
    "max_divergence": _POSITIVE,
    "average_decay": _UNIT,
    "clone_coef": _NONNEGATIVE,
    "kl_coef": _NONNEGATIVE,
    "kl_target": _POSITIVE,
    "kl_factor": _FACTOR,
    "cooling": _UNIT,
    "prior_scale": _POSITIVE,
    "scale": _POSITIVE,
    "epsilon": _POSITIVE,
    "weight_decay": _NONNEGATIVE,
    "max_kl": _NONNEGATIVE,
    "damping": _NONNEGATIVE,
    "shrink": _INSIDE,
    "critic_learning_rate": _NONNEGATIVE,
    "guess_learning_rate": _NONNEGATIVE,
    "target_rate": _UNIT,
    "noise": _NONNEGATIVE,
    "noise_theta": _UNIT,
    "smoothing": _NONNEGATIVE,
    "smoothing_clip": _NONNEGATIVE,
    "entropy_share": _UNIT,
    "importance_exponent": _UNIT,
    "smallest_noise": _NONNEGATIVE,
    "largest_noise": _NONNEGATIVE,
    "multiplier": _NONNEGATIVE,
    "sigma": _POSITIVE,
}
"""Where a hyper-parameter of this name must lie; one of another name must be a number and not NaN."""


def check_hyper(hyper: dict[str, Any]) -> dict[str, Any]:
    """Check hyper-parameters that are known numbers, and make them arrays; traced ones are passed on.

    Shapes: scalars.

    Args:
        hyper: hyper-parameters by name; None stands for one that is switched off.

    Returns:
        The same names with NumPy scalars in place of Python's.

    Raises:
        TypeError: if a value is no number.
        ValueError: if a number is NaN, outside the range that `RANGES` has for its name, or an array with axes.
    """
    return {name: _checked(name, x) for name, x in hyper.items()}


def _checked(name: str, x: Any) -> Any:
    if x is None or isinstance(x, jax.core.Tracer):
        return x
    number = np.asarray(x)
    if number.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a number, got {type(x).__name__}.")
    number = number.astype(jnp.result_type(float))
    if number.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {list(number.shape)}. Use jax.vmap over the recipe.")
    wanted = RANGES.get(name)
    if np.isnan(number) or (wanted and not _HOLDS[wanted](float(number))):
        where = f"lie in {wanted}" if wanted else "not be NaN"
        raise ValueError(f"{name} must {where}, got {float(number)}. Check that two arguments are not swapped.")
    return number


def traced(form: type[H], hyper: dict[str, Any], params: Any = None) -> H:
    """Fill in a recipe's hyper-parameters, each as a scalar array: traced, not a constant of the program.

    Shapes: scalars.

    Args:
        form: the NamedTuple class of the recipe, with its defaults.
        hyper: what differs from the defaults, by name; None switches a hyper-parameter off.
        params: parameters, or None. A product with a scalar of a wider dtype would widen them and the optimiser's
            state; so the scalars have the dtype of the parameters, float32 at least.

    Returns:
        An instance of form, scalars of that dtype; without params of the default floating dtype.

    Raises:
        TypeError: for a name that form does not have, or a value that is no number.
        ValueError: if a value is out of its range or not a scalar.
    """
    fields = cast(Any, form)._fields
    unknown = sorted(set(hyper) - set(fields))
    if unknown:
        raise TypeError(f"unknown hyper-parameter {', '.join(unknown)}; this recipe has {', '.join(sorted(fields))}.")
    values = check_hyper(cast(Any, form)(**hyper)._asdict())
    for name, x in values.items():
        if x is None and cast(Any, form)._field_defaults.get(name, 0) is not None:
            raise TypeError(f"{name} must be a number, got None.")
        if x is not None and jnp.ndim(x):
            raise ValueError(f"{name} must be a scalar, got shape {list(jnp.shape(x))}. Use jax.vmap over the recipe.")
    dtype = jnp.result_type(float) if params is None else jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    return form(**jax.tree.map(lambda x: jnp.asarray(x, dtype), values))


def changed(numbers: H, hyper: dict[str, Any], params: Any) -> H:
    """Change some hyper-parameters of a run that goes on.

    Shapes: scalars.

    Args:
        numbers: those of the run, from `traced`.
        hyper: what to change, by name.
        params: parameters of the run, whose dtype the scalars have.

    Returns:
        The same class, scalars.

    Raises:
        TypeError: as `traced`.
        ValueError: as `traced`.
    """
    given = cast(Any, traced(type(numbers), hyper, params))
    return cast(H, cast(Any, numbers)._replace(**{name: getattr(given, name) for name in hyper}))
