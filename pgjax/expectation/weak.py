"""Measure-valued derivatives: that of a density is a multiple of the difference of two densities."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.distributions import Bernoulli, Categorical, MultiCategorical, Normal, OneHotCategorical, TanhNormal
from pgjax.expectation import laws
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import Taken, evaluate, noise_of_taken, parts, rows_of, sampled
from pgjax.expectation.terms import difference, gradient_only, weighted

Array = jax.Array
stop = jax.lax.stop_gradient


def _is_normal(d: Any) -> bool:
    return isinstance(d, (Normal, TanhNormal))


_spread = dataclasses.replace(
    laws.rayleigh,
    name="rayleigh for normal parts",
    draw_part=lambda key, d: laws.rayleigh.draw_part(key, d) if _is_normal(d) else (),
    nodes_part=lambda d, size: laws.rayleigh.nodes_part(d, size) if _is_normal(d) else ((), np.ones(1)),
    mirror_part=lambda d, noise: laws.rayleigh.mirror_part(d, noise) if _is_normal(d) else (),  # type: ignore[misc]
)
"""Rayleigh numbers for the components of Normal and TanhNormal; nothing for discrete distributions."""


@rule(x="own", w=_spread)
def measure_valued(distribution: Any, f: Callable[[Any], Array], *, x: Any, w: Any) -> Array:
    """Estimate ∇ E f(x) by differences of f, one component of the action being changed at a time.

        Normal:    ∂/∂μ_i = (f(μ_i + σ_i w_i) − f(μ_i − σ_i w_i)) / (σ_i √2π),   w Rayleigh
                   ∂/∂σ_i = (f(μ_i + σ_i m_i) − f(μ_i + σ_i z_i)) / σ_i,   m = sign(z) √(z² + w²), two-sided Maxwell
        discrete:  Σ_k (f(a_i = k) − f(x)) ∇π_i(k)

    where f(a_i) stands for f at the sample x with its i-th component replaced.

    Shapes: actions [..., *event], w [..., D] for normal parts; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Normal, TanhNormal, Bernoulli, Categorical, OneHotCategorical or MultiCategorical, or a tree of
            such.
        f: of an action [..., *event], gives [...]; it need not be continuous. It is mapped over the changed actions,
            and not evaluated at those of probability 0, so that it may be infinite there.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is another one, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Unbiased. Both sides of a difference share the sample w, and m is made of the normal sample z, which lies on
        its side: this coupling is what keeps the variance low. Of a discrete component all actions are tried, so
        that only the others are sampled: for one Categorical the gradient is that of `enumerated`. Evaluations of f
        beside that at x: 3 D for a Normal, D for a Bernoulli, K for a Categorical, Σ K for a MultiCategorical. The
        bounds of a TanhNormal are taken as constants.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import measure_valued
        >>> noise, step = {"x": jnp.zeros(1), "w": jnp.full(1, 0.5)}, lambda a: 1.0 * (a[..., 0] > 0.0)
        >>> slope = jax.grad(lambda loc: measure_valued.given(noise, Normal(loc, 1.0), step))(jnp.zeros(1))
        >>> print(slope.round(5))  # at any w, and exact: the density at 0
        [0.39894]

    References:
        Pflug (1989), Sampling derivatives of probabilities.
        Heidergott and Leahu (2010), Weak differentiability of product measures.
        Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, for the coupling.
        Titsias and Lázaro-Gredilla (2015), Local expectation gradients for black box variational inference, which is
        the rule for discrete components.
    """
    rows = rows_of("measure_valued", distribution)
    structure, components = parts("measure_valued", distribution, x, w)
    for d, *_ in components:
        if not isinstance(d, (Normal, TanhNormal, Bernoulli, Categorical, OneHotCategorical, MultiCategorical)):
            raise TypeError(
                f"measure_valued makes no sense for {type(d).__name__}: no difference of densities is known for it. "
                "Use score_function, or pathwise where f is continuous."
            )
    action, _ = sampled("measure_valued", distribution, x)
    value, each = evaluate("f", f, action, rows), structure.flatten_up_to(action)
    result = value
    for i, (d, noise, spread) in enumerate(components):
        changed, share, possible = _normal(d, noise, spread) if _is_normal(d) else _discrete(d, each[i])

        def at(a: Array, i: int = i) -> Array:
            return evaluate("f", f, structure.unflatten([*each[:i], a, *each[i + 1 :]]), rows)

        fits = possible.reshape(possible.shape + (1,) * (changed.ndim - possible.ndim))
        values = jax.vmap(at)(jnp.where(fits, changed, each[i][None]))
        terms = weighted(difference(values, value[None]), gradient_only(share))
        result = result + jnp.sum(jnp.where(possible, terms, 0.0), axis=0)
    return result


def _one_at_a_time(x: Array, to: Array) -> Array:
    """[D, ..., D]: x with its i-th component taken from the other."""
    size = x.shape[-1]
    which = np.eye(size, dtype=bool).reshape(size, *(1,) * (x.ndim - 1), size)
    return jnp.where(which, to[None], x[None])


def _normal(d: Any, noise: Any, w: Array) -> tuple[Array, Array, Array]:
    """Actions [3 D, ..., D], what each value of f is multiplied by in the gradient [3 D, ...], and that all can be."""
    z = stop(noise_of_taken(d, noise) if isinstance(noise, Taken) else noise)
    loc, scale = stop((d.loc, d.scale))
    far = jnp.where(z < 0.0, -1.0, 1.0) * jnp.sqrt(jnp.square(z) + jnp.square(w))
    changed = jnp.concatenate([_one_at_a_time(loc + scale * z, loc + scale * to) for to in (w, -w, far)])
    by_loc, by_scale = d.loc / (scale * math.sqrt(2.0 * math.pi)), d.scale / scale
    share = jnp.concatenate([jnp.moveaxis(s, -1, 0) for s in (by_loc, -by_loc, by_scale)])
    return stop(d.squash(changed)) if hasattr(d, "squash") else changed, share, jnp.ones(share.shape, bool)


def _discrete(d: Any, x: Array) -> tuple[Array, Array, Array]:
    """The same for a discrete distribution: M actions, the probability of each, and whether it is above 0."""
    if isinstance(d, Bernoulli):
        changed = _one_at_a_time(x, 1 - x)
        share = jnp.moveaxis(jax.nn.sigmoid(jnp.where(x == 1, -d.logits, d.logits)), -1, 0)
    elif isinstance(d, MultiCategorical):
        size = d.probs.shape[-1]
        changed = jnp.concatenate([_one_at_a_time(x, jnp.full_like(x, k)) for k in range(size)])
        share = jnp.concatenate([jnp.moveaxis(d.probs[..., k], -1, 0) for k in range(size)])
    else:
        changed, share = d.support()
    return changed, share, share > 0.0
