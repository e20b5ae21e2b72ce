"""Nodes and weights over all the noise of a rule, from which its exact mean and variance follow."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pgjax.expectation.laws import product
from pgjax.expectation.rules import Rule
from pgjax.expectation.sampling import rows_of


def nodes(
    rule: Rule, distribution: Any, *, size: int | Mapping[str, int] | None = None, **options: Any
) -> tuple[dict[str, Any], np.ndarray]:
    """List nodes and weights that integrate a function of the noise of a rule.

        E[g(noise)] = Σ_n w_n g(noise_n)

    Shapes: N nodes, the product over the laws; leaves of the noise [N, ...], weights [N].

    Args:
        rule: whose noise it is.
        distribution: one row, without batch axes, and concrete, since nodes and weights of discrete noise follow from
            its probabilities; or a tree of such.
        size: nodes for each continuous number, at least 2, or a dict from names of noise to such; None for the default
            of each law: 96 for uniform numbers, 64 for normal ones, 128 for a TanhNormal and a Beta.
        **options: of the rule; of them num_samples matters.

    Returns:
        (noise as from ``rule.draw``, NumPy, with a leading axis [N]; weights [N] float64, summing to one). Discrete
        distributions and Beta come as `taken` actions. A rule without noise has N = 1 and an empty dict.

    Raises:
        TypeError: if there is no such option, or the noise has no nodes.
        ValueError: if the distribution has batch axes, or there are more than 2,097,152 nodes.

    Properties:
        Exact for discrete noise; for smooth functions of continuous noise the error falls geometrically with size, to
        about 1e-13 with the defaults, as long as nothing varies faster than a tenth of a standard deviation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Categorical
        >>> from pgjax.expectation import nodes, score_function
        >>> noise, weights = nodes(score_function, Categorical(jnp.log(jnp.array([0.25, 0.75]))))
        >>> print(noise["x"].action, weights.round(6))
        [0 1] [0.25 0.75]

    References:
        Takahasi and Mori (1974), Double exponential formulas for numerical integration.
        Golub and Welsch (1969), Calculation of Gauss quadrature rules.
    """
    batch = rows_of(rule.name, distribution).shape
    if batch:
        raise ValueError(f"nodes needs a distribution of one row, without batch axes, got batch axes {list(batch)}.")
    options = rule._with(options)
    sizes = size if isinstance(size, Mapping) else dict.fromkeys(rule.laws, size)
    unknown = set(sizes) - set(rule.laws)
    if unknown:
        raise TypeError(f"size names {sorted(unknown)}, but the noise of {rule.name} is {sorted(rule.laws)}.")
    factors = [law.nodes(distribution, sizes.get(name), options) for name, law in rule.laws.items()]
    values, weights = product(factors)
    return dict(zip(rule.laws, values, strict=True)), weights
