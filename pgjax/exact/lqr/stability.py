"""Whether a feedback has a finite cost."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.lqr._record import LQRRecord, checked_gain
from pgjax.exact.spectrum import spectral_radius

Array = jax.Array


@compiled()
def closed_loop(lqr: LQRRecord, gain: Array) -> Array:
    """Compute the drift under a feedback.

        A - B K

    Shapes: gain [m, n]; result [n, n].

    Args:
        lqr: the problem, an `LQR`.
        gain: [m, n] float, K.

    Returns:
        [n, n] float.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    return lqr.A - lqr.B @ checked_gain(lqr, gain)


@compiled()
def stable(lqr: LQRRecord, gain: Array) -> Array:
    """Tell whether the cost of a feedback is finite.

        √γ ρ(A - B K) < 1, ρ the spectral radius;  always with a horizon

    Shapes: gain [m, n]; result scalar.

    Args:
        lqr, gain: as for `closed_loop`.

    Returns:
        Scalar bool.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n].
    """
    radius = spectral_radius(closed_loop(lqr, gain))
    return (jnp.sqrt(lqr.discount) * radius < 1.0) | (lqr.horizon is not None)


def check_stable(lqr: LQRRecord, gain: Array) -> None:
    """Raise if the cost of a feedback is infinite.

    Shapes: gain [m, n].

    Args:
        lqr: the problem, an `LQR`.
        gain: [m, n] float, K, concrete.

    Raises:
        TypeError: if gain is not floating.
        ValueError: if gain has not shape [m, n], or does not stabilise the discounted system.
    """
    if not bool(stable(lqr, gain)):
        raise ValueError(
            f"gain must satisfy sqrt(discount) * radius(A - B gain) < 1, got a radius of "
            f"{float(spectral_radius(closed_loop(lqr, gain)))}. Choose a gain nearer to that of lqr.riccati()."
        )
