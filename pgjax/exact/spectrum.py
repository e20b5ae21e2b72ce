"""The spectral radius, by which it is decided whether a moment exists."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled()
def spectral_radius(matrix: Array) -> Array:
    """Compute the largest modulus of the eigenvalues of a square matrix, on any backend.

        ρ(M) = lim_k ‖M^k‖^{1/k},  along k = 2^n, rescaled at each squaring

    Shapes: matrix [N, N]; result scalar.

    Args:
        matrix: [N, N] float.

    Returns:
        Scalar float, to rounding error; 0 for a nilpotent matrix.

    Raises:
        TypeError: if matrix is not floating.
        ValueError: if matrix is not square.

    References:
        Gelfand (1941), Normierte Ringe.
    """
    matrix = _checks.as_floating("matrix", matrix, ndim_at_least=2)
    _checks.require_shape("matrix", matrix, (matrix.shape[0], matrix.shape[0]), "[N, N]")

    def square(power: Array, _: None) -> tuple[Array, Array]:
        norm = jnp.linalg.norm(power)
        unit = power / jnp.where(norm > 0, norm, 1.0)
        return unit @ unit, jnp.log(norm)

    # The norm taken at the n-th squaring belongs to the power 2^n, and so counts 2^-n.
    _, logs = jax.lax.scan(square, matrix, length=60)
    return jnp.exp(jnp.sum(logs * 0.5 ** jnp.arange(60, dtype=matrix.dtype)))
