"""Expectations under independent normal components without sampling: a closed form, and Gauss-Hermite quadrature."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax.distributions import Normal, TanhNormal
from pgjax.expectation import _quadrature
from pgjax.expectation.laws import MAX_NODES
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, product_index, rows_of

Array = jax.Array


@rule()
def quadratic(distribution: Any, f: Callable[[Any], Array]) -> Array:
    """Compute E f(x) of a normal from the second derivatives of f at the mean, exact for a quadratic f.

        E f(x) ≈ f(μ) + ½ Σ_i σ_i² ∂²f/∂x_i² (μ);   by μ: ∇f(μ),  by the variances: half the diagonal of the Hessian

    With a critic that is quadratic in the action it makes `expected_gradient` the closed form of expected policy
    gradients: the mean follows the slope of the critic, and exploration grows where the critic curves upwards.

    Shapes: actions [..., D]; result [...].

    Args:
        key: a JAX random key; not used.
        distribution: a Normal.
        f: of an action [..., D], gives [...], twice differentiable; each number must depend on its own row alone.

    Returns:
        [...] float: E f(x) of the quadratic that f is near μ; its gradient is that of the expression.

    Raises:
        TypeError: if the distribution is no Normal, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Without noise. Exact for polynomials of degree up to three, whose odd central moments vanish; for others it is
        off by terms of order σ⁴, without a sign of it. D second derivatives of f along an axis, D + 1 evaluations.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import quadratic
        >>> f = lambda a: 3.0 * a[..., 0] ** 2
        >>> mean = lambda loc, scale: quadratic.given({}, Normal(loc, scale), f)
        >>> print(mean(jnp.ones(1), jnp.full(1, 2.0)), *jax.grad(mean, (0, 1))(jnp.ones(1), jnp.full(1, 2.0)))
        15.0 [6.] [12.]

    References:
        Ciosek and Whiteson (2018), Expected policy gradients.
    """
    if type(distribution) is not Normal:
        raise TypeError(
            f"quadratic needs a Normal, got {type(distribution).__name__}: the moments of other distributions differ. "
            "Use quadrature for a TanhNormal, enumerated for finitely many actions, pathwise else."
        )
    loc, scale, rows = distribution.loc, distribution.scale, rows_of("quadratic", distribution)
    value = lambda x: evaluate("f", f, x, rows)  # noqa: E731

    def curvature(direction: Array) -> Array:
        along = jnp.broadcast_to(direction, loc.shape).astype(loc.dtype)
        slope = lambda x: jax.jvp(value, (x,), (along,))[1]  # noqa: E731
        return jax.jvp(slope, (loc,), (along,))[1]

    eye = np.eye(loc.shape[-1]).reshape(loc.shape[-1], *(1 for _ in loc.shape[:-1]), loc.shape[-1])
    diagonal = jax.vmap(curvature, out_axes=-1)(jnp.asarray(eye, loc.dtype))
    return value(loc) + 0.5 * jnp.sum(jnp.square(scale) * diagonal, axis=-1)


@rule()
def quadrature(distribution: Any, f: Callable[[Any], Array], *, num_nodes: int = 8) -> Array:
    """Compute E f(x) of a normal, or of a squashed one, by Gauss-Hermite quadrature over its noise.

        E f(x) ≈ Σ_n w_n f(g_θ(z_n)),   z_n the nodes of the standard normal law, a grid over the D components

    Shapes: actions [..., D]; result [...].

    Args:
        key: a JAX random key; not used.
        distribution: a Normal or a TanhNormal.
        f: of an action [..., D], gives [...]; it is mapped over the nodes.
        num_nodes: nodes for each component, at least 1; num_nodes to the power of D evaluations of f.

    Returns:
        [...] float: the sum; its gradient is that of the sum, along the path of each node.

    Raises:
        TypeError: if the distribution is neither, f does not give numbers, or num_nodes is no int.
        ValueError: if num_nodes < 1, there are more than 2,097,152 nodes, or f does not give one number for each row.

    Properties:
        Without noise. For a Normal exact for polynomials of degree below 2 num_nodes in each component; for smooth f
        the error falls geometrically with num_nodes, for one with a jump hardly at all. One node is `at_mode`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import quadrature
        >>> mean = lambda loc: quadrature.given({}, Normal(loc, 2.0), lambda a: a[..., 0] ** 4, num_nodes=3)
        >>> print(f"{mean(jnp.zeros(1)):.3f} {jax.grad(mean)(jnp.ones(1))[0]:.3f}")
        48.000 52.000

    References:
        Golub and Welsch (1969), Calculation of Gauss quadrature rules.
        Ciosek and Whiteson (2018), Expected policy gradients, for critics that are not quadratic.
    """
    if type(distribution) not in (Normal, TanhNormal):
        raise TypeError(
            f"quadrature needs a Normal or a TanhNormal, got {type(distribution).__name__}. "
            "Use enumerated for finitely many actions, pathwise or score_function else."
        )
    number, size = _checks.as_positive_int("num_nodes", num_nodes), distribution.shape[-1]
    if number**size > MAX_NODES:
        raise ValueError(
            f"num_nodes={number} for each of {size} components makes more than {MAX_NODES} nodes. Lower it, or use "
            "pathwise."
        )
    x, w = _quadrature.normal(number)
    index = list(product_index([number] * size))
    nodes = np.stack([x[i] for i in index], axis=-1)
    weights = math.prod((w[i] for i in index), start=np.ones(1))
    rows, dtype = rows_of("quadrature", distribution), jax.tree.leaves(distribution)[0].dtype

    def at(node: Array) -> Array:
        noise = jnp.broadcast_to(node.reshape((1,) * (len(distribution.shape) - 1) + (size,)), distribution.shape)
        return evaluate("f", f, distribution.sample_from(noise), rows)

    values = jax.vmap(at)(jnp.asarray(nodes, dtype))
    return jnp.tensordot(jnp.asarray(weights, values.dtype), values, 1)
