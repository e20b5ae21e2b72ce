"""The exact expectation of a discrete distribution."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, map_parts, rows_of, support

Array = jax.Array


@rule()
def enumerated(distribution: Any, f: Callable[[Any], Array]) -> Array:
    """Compute E f(x) and its gradient by adding over every action.

        E f(x) = Σ_x p_θ(x) f(x)

    Shapes: actions [K, ..., *event]; result [...].

    Args:
        key: a JAX random key; not used.
        distribution: Categorical, OneHotCategorical, or a MultiCategorical or Bernoulli with at most 65,536 actions in
            all; or a tree of such, with so many combinations.
        f: of an action [..., *event], gives [...]; it is mapped over the actions. It is not evaluated at actions
            of probability 0, in whose place the mode is taken, so that it may be infinite there.

    Returns:
        [...] float: E f(x), exact, and so are its derivatives of any order.

    Raises:
        TypeError: if the actions are continuous, or f does not give numbers.
        ValueError: if there are too many, or f does not give one number for each row.

    Properties:
        Without variance. K evaluations of f, at once.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import enumerated
        >>> mean = lambda logits: enumerated.given({}, Bernoulli(logits), lambda a: 4.0 * a[..., 0])
        >>> print(mean(jnp.zeros(1)), jax.grad(mean)(jnp.zeros(1)))
        2.0 [1.]

    References:
        Allen et al. (2017), Mean actor critic, where f is a critic.
    """
    rows = rows_of("enumerated", distribution)
    actions, probs = support("enumerated", distribution)
    possible = probs > 0.0

    def or_mode(action: Array, mode: Array) -> Array:
        chosen = possible.reshape(possible.shape + (1,) * (action.ndim - possible.ndim))
        return jnp.where(chosen, action, mode[None])

    modes = map_parts("enumerated", lambda d: d.mode(), distribution)
    value = jax.vmap(lambda a: evaluate("f", f, a, rows))(jax.tree.map(or_mode, actions, modes))
    return jnp.sum(jnp.where(possible, probs * jnp.where(possible, value, 0.0), 0.0), axis=0)
