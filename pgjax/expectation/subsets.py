"""Estimators for finitely many actions that evaluate f at several different ones."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax.distributions import Categorical
from pgjax.distributions._relaxed import gumbel
from pgjax.expectation import laws
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, map_parts, parts, rows_of, stop, support
from pgjax.expectation.terms import difference, gradient_only, weighted

Array = jax.Array

MAX_SUBSET = 12
"""How many actions `unordered_set` takes at most: its cost grows with 2 to this power."""

FLOOR = -200.0  # nats: less probable actions are drawn as if they were so probable, and weighted with what they are


@dataclasses.dataclass(frozen=True, eq=False)
class _Joint(laws.Law):
    """A law of noise for a whole tree of distributions: which of their joint actions are evaluated."""

    def draw(self, key: Array, distribution: Any, options: Mapping[str, Any]) -> Any:
        return self.draw_part(key, distribution)

    def nodes(self, distribution: Any, size: int | None, options: Mapping[str, Any]) -> laws.Nodes:
        return self.nodes_part(distribution, options)  # type: ignore[arg-type]


def _outcomes(name: str, distribution: Any) -> tuple[Any, Array]:
    """Every joint action, leaves [K, ..., *event], and its log-probability, [K, ...]."""
    actions, _ = support(name, distribution)
    each = [d.log_prob(a) for d, a in parts(name, distribution, actions)[1]]
    return actions, sum(each[1:], each[0])


def _largest(x: Array, number: int) -> Array:
    """Where the largest entries along the first axis stand: [number, ...]."""
    return jnp.moveaxis(jax.lax.top_k(jnp.moveaxis(x, 0, -1), number)[1], -1, 0)


def _values(
    name: str, distribution: Any, f: Callable[[Any], Array], actions: Any, index: Array, possible: Array
) -> Array:
    """F at the joint actions [M, ...] that an index [M, ...] picks; at the mode in place of impossible ones."""
    modes = map_parts(name, lambda d: d.mode(), distribution)
    rows = rows_of(name, distribution)

    def pick(all_: Array, mode: Array) -> Array:
        widen = lambda x: x.reshape(x.shape + (1,) * (all_.ndim - x.ndim))  # noqa: E731
        return jnp.where(widen(possible), jnp.take_along_axis(all_, widen(index), axis=0), mode[None])

    return jax.vmap(lambda a: evaluate("f", f, a, rows))(jax.tree.map(pick, actions, modes))


def _outside(index: Array, number: int) -> Array:
    """[K, ...] bool: which of K joint actions an index [M, ...] does not pick."""
    each = jnp.arange(number).reshape(1, number, *(1,) * (index.ndim - 1))
    return ~jnp.any(index[:, None] == each, axis=0)


def _sum(possible: Array, x: Array) -> Array:
    """Over the first axis, where possible."""
    return jnp.sum(jnp.where(possible, x, 0.0), axis=0)


# --- some actions summed, one of the rest sampled ---------------------------------------------------------------


def _draw_number(key: Array, distribution: Any) -> Array:
    rows = rows_of("sum_and_sample", distribution)
    return jax.random.uniform(key, rows.shape or (), rows.dtype)


def _nodes_of_rest(distribution: Any, options: Mapping[str, Any]) -> laws.Nodes:
    """The place of each action that is not summed, in the list of all of them."""
    if "top" not in options:
        raise TypeError("the option top is needed to list the noise: nodes(sum_and_sample, distribution, top=...).")
    _, log_p = _outcomes("sum_and_sample", distribution)
    first = np.asarray(_largest(log_p, min(_as_top(options["top"]), log_p.shape[0])))
    probs = np.exp(np.asarray(log_p, float))
    probs[first] = 0.0
    if not probs.any():
        return first[-1:].astype(np.int32), np.ones(1)
    rest = np.flatnonzero(probs)
    return rest.astype(np.int32), probs[rest] / probs[rest].sum()


def _as_top(top: Any) -> int:
    if not isinstance(top, bool) and isinstance(top, (int, np.integer)) and top < 1:
        raise ValueError(f"top must be at least 1, got {top}. With no action summed it is score_function: use that.")
    return _checks.as_positive_int("top", top)


@rule(x=_Joint("rest", _draw_number, _nodes_of_rest))  # type: ignore[arg-type]
def sum_and_sample(distribution: Any, f: Callable[[Any], Array], *, x: Any, top: int, baseline: Any = 0.0) -> Array:
    """Estimate ∇ E f(x) by adding over the most probable actions, and one sample of the rest.

        Σ_{k ∈ C} (f(k) − b) ∇π(k) + (1 − π(C)) (f(x) − b) ∇log π(x) + ∇f,   x ~ π given that it is not in C

    Shapes: noise x [...]; actions [top + 1, ..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Categorical, OneHotCategorical, or a MultiCategorical or Bernoulli with at most 65,536 actions in
            all; or a tree of such, with so many combinations.
        f: of an action [..., *event], gives [...]; it is mapped over the actions, and not evaluated at those of
            probability 0, so that it may be infinite there.
        top: how many actions C holds, at least 1, the most probable ones of each row; from the number of all on it is
            `enumerated`.
        baseline: b, scalar or [...] float, in the units of f. It must not depend on the sample.

    Returns:
        [...] float: Σ_{k ∈ C} π(k) f(k) + (1 − π(C)) f(x); its gradient is the estimate.

    Raises:
        TypeError: if the actions are continuous, f does not give numbers, or top is no int.
        ValueError: if top is below 1, there are too many actions, or f does not give one number for each row.

    Properties:
        Unbiased. top + 1 evaluations of f. Its variance is at most that of `score_function` with the same baseline,
        and the more of the probability C holds the less. The noise is a uniform number for each row, or an integer,
        the place in ``support()`` of the action that is sampled.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Categorical
        >>> from pgjax.expectation import sum_and_sample
        >>> policy, f = Categorical(jnp.log(jnp.array([0.5, 0.25, 0.25]))), lambda a: 4.0 * a
        >>> print(sum_and_sample.given({"x": jnp.int32(2)}, policy, f, top=1))  # 0.5 · 0 + 0.5 · 8
        4.0

    References:
        Liu, Regier, Tripuraneni, Jordan and McAuliffe (2019), Rao-Blackwellized stochastic gradients for discrete
        distributions.
    """
    rows = rows_of("sum_and_sample", distribution)
    actions, log_p = _outcomes("sum_and_sample", distribution)
    number, probs = log_p.shape[0], jnp.exp(log_p)
    first = _largest(stop(log_p), min(_as_top(top), number))
    outside = _outside(first, number)
    x = _checks.as_array("the noise x", x)
    _checks.require_shape("the noise x", x, log_p.shape[1:], of="the rows")
    if not jnp.issubdtype(x.dtype, jnp.integer):
        rest = Categorical(jnp.moveaxis(jnp.maximum(stop(log_p), FLOOR), 0, -1), jnp.moveaxis(outside, 0, -1))
        x = rest.sample_from(_checks.as_floating("the noise x", x))
    index = jnp.concatenate([first, x[None].astype(first.dtype)])
    mass = jnp.sum(jnp.where(outside, stop(probs), 0.0), axis=0)
    p, log_p = jnp.take_along_axis(probs, index, 0), jnp.take_along_axis(log_p, index[-1:], 0)
    weight = stop(jnp.concatenate([p[:-1], mass[None]]))
    possible = (weight > 0.0) & (p > 0.0)
    value = _values("sum_and_sample", distribution, f, actions, index, possible)
    baseline = _checks.as_scalar_or_shape("baseline", baseline, rows.shape or ())
    term = gradient_only(jnp.concatenate([p[:-1], mass[None] * log_p]))
    return _sum(possible, weight * value) + _sum(possible, weighted(value - baseline, term))


# --- a sample without replacement -------------------------------------------------------------------------------


def _law(log_p: Array) -> Array:
    """Log-probabilities by which sets are drawn: those of the actions, with a floor that keeps them apart from 0."""
    return jnp.maximum(stop(log_p), FLOOR)


def _draw_numbers(key: Array, distribution: Any) -> Array:
    _, log_p = _outcomes("unordered_set", distribution)
    return laws.uniform_numbers(key, log_p.shape, log_p.dtype)


def _nodes_of_sets(distribution: Any, options: Mapping[str, Any]) -> laws.Nodes:
    """Every set of num_samples actions, as their places in the list of all, and its probability over all orders."""
    number = laws.num_samples(options)
    _, log_p = _outcomes("unordered_set", distribution)
    _require_number(number, log_p.shape[0])
    probs = np.exp(np.asarray(_law(log_p), float))
    probs = probs / probs.sum()
    sets = np.array(list(itertools.combinations(range(probs.size), number)), np.int32)
    orders = np.array(list(itertools.permutations(range(number))))
    laws.require_few(len(sets) * len(orders))
    drawn = probs[sets[:, orders]]  # [sets, orders, number]
    left = 1.0 - np.cumsum(drawn, axis=-1)[..., :-1]
    weights = np.prod(drawn, axis=-1) / np.prod(left, axis=-1)
    return sets, weights.sum(-1) / weights.sum()


def _require_number(number: int, actions: int) -> None:
    if number < 2:
        raise ValueError(
            f"num_samples must be at least 2, got {number}: the baseline of each sample is made of the others. "
            "With one sample use score_function."
        )
    if number > actions:
        raise ValueError(
            f"num_samples={number} exceeds the {actions} actions that there are, and none is drawn twice. "
            "Use enumerated, which is the same as num_samples equal to their number."
        )
    if number > MAX_SUBSET:
        raise ValueError(
            f"num_samples must be at most {MAX_SUBSET}, got {number}: the cost grows as 2 to its power. "
            "Use sum_and_sample or score_leave_one_out."
        )


@rule(x=_Joint("without replacement", _draw_numbers, _nodes_of_sets, repeated=True))  # type: ignore[arg-type]
def unordered_set(distribution: Any, f: Callable[[Any], Array], *, x: Any, num_samples: int) -> Array:
    """Estimate ∇ E f(x) from a sample without replacement, whose order is averaged out.

        Σ_{s ∈ S} π(s) R(S, s) (f(s) − b_s) ∇log π(s) + ∇f,   b_s = Σ_{t ∈ S} π(t) R'(S, s, t) f(t)
        R(S, s) = p(S given that s comes first) / p(S)
        R'(S, s, t) = p(S given that s and t come first) / p(S given that s comes first),   R'(S, s, s) = 1

    Shapes: noise x [K, ...] for K actions; actions [num_samples, ..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Categorical, OneHotCategorical, or a MultiCategorical or Bernoulli with at most 65,536 actions in
            all; or a tree of such, with so many combinations.
        f: of an action [..., *event], gives [...]; it is mapped over the actions, and not evaluated at those of
            probability 0, so that it may be infinite there.
        num_samples: how many different actions are drawn, at least 2, at most 12 and at most K.

    Returns:
        [...] float: Σ_{s ∈ S} π(s) R(S, s) f(s), an unbiased estimate of E f(x); its gradient is the estimate.

    Raises:
        TypeError: if the actions are continuous, f does not give numbers, or num_samples is no int.
        ValueError: if num_samples is out of range, there are too many actions, or f does not give one number for each
            row.

    Properties:
        Unbiased; with num_samples = K it is `enumerated`. num_samples evaluations of f, and work of the order of
        num_samples 2^num_samples for the probabilities of sets. It is what `score_leave_one_out` without replacement
        becomes when averaged over the orders in which S can be drawn. The set holds the largest entries of log π +
        Gumbel noise; the noise is a uniform number for each action, or integers [num_samples, ...], the places of the
        set in ``support()``. Actions less probable than exp(−200) are drawn as if they were so probable, and weighted
        with what they are, so that the estimate stays unbiased.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Categorical
        >>> from pgjax.expectation import unordered_set
        >>> policy, f = Categorical(jnp.zeros(3)), lambda a: 3.0 * a
        >>> value = unordered_set.given({"x": jnp.array([1, 2])}, policy, f, num_samples=2)
        >>> print(value.round(5))  # the mean of 3 and 6
        4.5

    References:
        Kool, van Hoof and Welling (2020), Estimating gradients for discrete random variables by sampling without
        replacement.
    """
    actions, log_p = _outcomes("unordered_set", distribution)
    number, size = _checks.as_positive_int("num_samples", num_samples, at_least=0), log_p.shape[0]
    _require_number(number, size)
    x, drawn = _checks.as_array("the noise x", x), _law(log_p)
    if jnp.issubdtype(x.dtype, jnp.integer):
        _checks.require_shape("the noise x", x, (number, *log_p.shape[1:]), of="num_samples and the rows")
        index = x
    else:
        _checks.require_shape("the noise x", x, log_p.shape, of="all actions and the rows")
        index = _largest(drawn + gumbel(_checks.as_floating("the noise x", x)), number)
    rest = jax.nn.logsumexp(jnp.where(_outside(index, size), drawn, -jnp.inf), axis=0)
    first, second = _log_ratios(jnp.take_along_axis(drawn, index, 0), rest)
    log_p = jnp.take_along_axis(log_p, index, 0)
    possible = jnp.exp(log_p) > 0.0
    value = jnp.where(possible, _values("unordered_set", distribution, f, actions, index, possible), 0.0)
    weight = stop(jnp.exp(log_p + first))
    baseline = jnp.sum(stop(jnp.exp(log_p[None] + second)) * value[None], axis=1)
    terms = weighted(weight * difference(value, baseline), gradient_only(log_p))
    return _sum(possible, weight * value) + _sum(possible, terms)


def _log_ratios(log_p: Array, log_rest: Array) -> tuple[Array, Array]:
    """Log R [n, ...] and log R' [n, n, ...] of a set with log-probabilities log_p [n, ...]; the others have log_rest.

    The log-probability that the rest of the set follows once a subset of it has come is found for every subset, from
    the large ones to the empty one: the next may be each that is missing, out of all that is left.
    """
    number = log_p.shape[0]
    subsets = np.arange(2**number)
    has = (subsets[:, None] >> np.arange(number)) & 1 == 1  # [2^n, n]
    missing = ~has.reshape(*has.shape, *(1,) * (log_p.ndim - 1))
    left = jnp.logaddexp(jax.nn.logsumexp(jnp.where(missing, log_p[None], -jnp.inf), axis=1), log_rest[None])
    follows = jnp.zeros((2**number, *log_p.shape[1:]), log_p.dtype)
    for count in reversed(range(number)):
        these = np.flatnonzero(has.sum(1) == count)
        following = np.array([np.flatnonzero(~has[c]) for c in these])
        terms = log_p[following] + follows[these[:, None] | (1 << following)]
        follows = follows.at[these].set(jax.nn.logsumexp(terms, axis=1) - left[these])
    bit = 1 << np.arange(number)
    return follows[bit] - follows[0][None], follows[bit[:, None] | bit] - follows[bit][:, None]
