"""The fields of a linear-quadratic problem, and what they must satisfy: what the functions of the room work on.

`LQR` is this record with those functions as its methods.
"""

import dataclasses
from typing import Any, Self

import jax

from pgjax import _checks
from pgjax._pytree import concrete, static

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class LQRRecord:
    """The fields of `LQR`, described there."""

    A: Any
    B: Any
    Q: Any
    R: Any
    noise_covariance: Any
    action_covariance: Any
    initial_mean: Any
    initial_covariance: Any
    discount: Any
    horizon: int | None = static(default=None)

    def __post_init__(self) -> None:
        n, m = _checks.as_floating("B", self.B, ndim_at_least=2).shape
        shapes = {
            "A": (n, n),
            "B": (n, m),
            "Q": (n, n),
            "R": (m, m),
            "noise_covariance": (n, n),
            "action_covariance": (m, m),
            "initial_mean": (n,),
            "initial_covariance": (n, n),
        }
        for name, shape in shapes.items():
            array = _checks.as_floating(name, getattr(self, name))
            _checks.require_shape(name, array, shape, f"[{', '.join('n' if k == n else 'm' for k in shape)}]")
            object.__setattr__(self, name, array)
        discount = _checks.as_scalar_or_shape("discount", self.discount, ()).astype(self.A.dtype)
        object.__setattr__(self, "discount", discount)
        if self.horizon is not None:
            _checks.as_positive_int("horizon", self.horizon)
        if concrete(discount):
            _checks.require_unit_interval("discount", float(discount))
            if self.horizon is None and float(discount) == 1.0:
                raise ValueError("discount must be below 1 without horizon, got 1.0. Set horizon=...")

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields replaced, validated anew.

        Args:
            **changes: new values by field name.

        Returns:
            The new problem.

        Raises:
            TypeError: as the constructor does, or for a field that does not exist.
            ValueError: as the constructor does.
        """
        return dataclasses.replace(self, **changes)


def checked_gain(lqr: LQRRecord, gain: Array) -> Array:
    """Return a gain as floats of shape [m, n]; raise for other kinds and shapes."""
    gain = _checks.as_floating("gain", gain)
    _checks.require_shape("gain", gain, lqr.B.shape[::-1], "[m, n]")
    return gain
