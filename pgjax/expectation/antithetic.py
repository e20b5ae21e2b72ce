"""Two draws for one: a rule averaged over its noise and the mirrored noise."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pgjax import _checks
from pgjax.distributions import Bernoulli, MultiCategorical, Normal, TanhNormal
from pgjax.expectation import _quadrature, laws
from pgjax.expectation.rules import Rule

Array = jax.Array


def mirrored(rule: Rule) -> Rule:
    """Make a rule that averages another one over its noise and the mirrored noise.

        (ĝ(ε) + ĝ(ε')) / 2,   ε' = −ε for normal noise, 1 − u for uniform noise, for all noise at once

    Shapes: noise, f and result as those of the rule.

    Args:
        rule: one of `pgjax.expectation` or of one's own, whose noise is mirrored as a whole. Its options remain.

    Returns:
        A rule with the same noise and options, named mirrored_ and the name.

    Raises:
        TypeError: if rule is not a `Rule`, draws nothing, or draws noise that has no mirror, as `unordered_set` and
            `sum_and_sample` do. The made rule raises when it meets noise without a mirror: that of Beta, or a discrete
            action that was `taken`.

    Properties:
        Unbiased for whatever the rule is unbiased for, at twice its cost. With f odd about the mean of a normal the
        value, with f even the gradient of `score_function` with respect to the mean, has no variance. For a normal of
        dimension d and a quadratic f with slope g at the mean, the variance of that gradient is (d + 1) ‖g‖² whatever
        the curvature. Nothing is promised for an f of another kind: the variance may be as high as that of one draw.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import mirrored, pathwise
        >>> value = mirrored(pathwise)(jax.random.key(0), Normal(jnp.ones(1), 2.0), lambda a: 3.0 * a[..., 0])
        >>> print(value.round(4))  # that at the mean, as f is linear
        3.0

    References:
        Hammersley and Morton (1956), A new Monte Carlo technique: antithetic variates.
    """
    _checks.require_instance("rule", rule, Rule, remedy="Pass one of pgjax.expectation, such as score_function.")
    if not rule.laws:
        raise TypeError(f"mirrored({rule.name}) makes no sense: {rule.name} draws no noise. Use {rule.name} itself.")
    for name, law in rule.laws.items():
        if law.mirror_part is None:
            raise TypeError(
                f"mirrored({rule.name}) makes no sense: its noise {name}, of the law {law.name}, has no mirror. "
                f"Average {rule.name} over independent draws instead."
            )
    return Rule(_averaged(rule.function, tuple(rule.laws.items())), _integrable(rule.laws), rule.options)


@functools.lru_cache(maxsize=256)
def _averaged(function: Callable[..., Array], named: tuple[tuple[str, laws.Law], ...]) -> Callable[..., Array]:
    """The same function object for the same rule, so that a program compiled with one serves the next."""

    @functools.wraps(function)
    def average(distribution: Any, f: Callable[[Any], Array], **given: Any) -> Array:
        other = {name: law.mirror(given[name], distribution) for name, law in named}
        return 0.5 * (function(distribution, f, **given) + function(distribution, f, **{**given, **other}))

    average.__name__ = average.__qualname__ = f"mirrored_{function.__name__}"
    average.__doc__ = f"Average {function.__name__} over its noise and the mirrored noise: see `mirrored`."
    return average


@functools.lru_cache(maxsize=256)
def _with_numbers(law: laws.Law) -> laws.Law:
    return dataclasses.replace(law, nodes_part=_number_nodes)


def _integrable(named: dict[str, laws.Law]) -> dict[str, laws.Law]:
    """Laws whose nodes are noise, where those of the distribution's own law are actions, which have no mirror."""
    own = laws.own.nodes_part
    return {name: _with_numbers(law) if law.nodes_part is own else law for name, law in named.items()}


def _number_nodes(d: Any, size: int | None) -> laws.Nodes:
    """For the uniform numbers of a discrete distribution: between these breaks both actions stay the same."""
    if isinstance(d, (Normal, TanhNormal)):
        return laws.own.nodes_part(d, size)
    if not hasattr(d, "probs"):
        raise TypeError(f"the mirrored noise of {type(d).__name__} has no nodes: measure by sampling.")
    probs = np.asarray(d.probs, float)
    rows = np.stack([probs, 1.0 - probs], -1) if isinstance(d, Bernoulli) else probs.reshape(-1, probs.shape[-1])
    sums = np.cumsum(rows / rows.sum(-1, keepdims=True), axis=-1)[:, :-1]
    values, weights = laws.product([_quadrature.pieces(np.concatenate([c, 1.0 - c]), 1) for c in sums])
    vector = isinstance(d, (Bernoulli, MultiCategorical))
    return (np.stack(values, -1) if vector else values[0]).astype(laws.parameter(d).dtype), weights
