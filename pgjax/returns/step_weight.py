"""The weight of a step in the gradient of the discounted objective."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled(unit_interval=("discount",))
def discount_weight(step: Array, discount: Array | float) -> Array:
    """Compute γ^t, the weight of a step in the gradient of the discounted objective.

        d_t = γ^step_t

    Nearly all practice leaves it out; then the gradient that is followed is not the gradient of any
    function. Multiply it in by hand or pass it as `step_weight` where an estimator takes one.

    Shapes: step [T, ...]; result [T, ...].

    Args:
        step: [T, ...] int, index of the step inside its episode, as `Trajectory.step` carries it.
        discount: γ, scalar or [T, ...], in [0, 1], per environment step.

    Returns:
        [T, ...] float, the weights, dimensionless, in [0, 1].

    Raises:
        TypeError: if step is not an integer array.
        ValueError: if discount is a number outside [0, 1].

    Properties:
        0^0 is 1. Differentiable in discount. Underflows to 0 harmlessly after about 100/(1 - γ) steps.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.discount_weight(jnp.arange(3), 0.5))
        [1.   0.5  0.25]

    References:
        Nota and Thomas (2020), Is the policy gradient a gradient?
    """
    step = _checks.as_integer("step", step)
    discount = _checks.as_scalar_or_shape("discount", discount, step.shape)
    return discount.astype(jnp.promote_types(discount.dtype, jnp.float32)) ** step
