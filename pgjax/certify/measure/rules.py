"""Moments of rules: over every node of their noise, or over samples of it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.measure.finding import Finding
from pgjax.certify.measure.listed import distance, tilt
from pgjax.certify.measure.programs import KEPT, QUICK, in_chunks
from pgjax.certify.measure.sampled import batches_of, tested_moments
from pgjax.certify.problems.expectation import is_discrete, is_distribution
from pgjax.exact.enumeration import weighted_moments
from pgjax.expectation import Taken, nodes

Array = jax.Array


@functools.lru_cache(maxsize=KEPT)
def for_noise(candidates: tuple[Candidate, ...], problem: Any) -> Callable[..., list[Array]]:
    """Build the program that applies rules to given noise.

    Args:
        candidates: the rules.
        problem: the problem.

    Returns:
        (noise of each rule, leaves [N, ...]; change of f) -> for each the gradients [N, P].
    """

    def gradient(candidate: Candidate, noise: Any, change: Array) -> Array:
        rule: Any = candidate.estimator

        def value(params: Any) -> Array:
            f = functools.partial(problem.changed, change, params)
            return rule.given(noise, problem.distribution(params), f, **candidate.arguments(problem, noise))

        return ravel_pytree(jax.grad(value)(problem.params))[0]

    def at(candidate: Candidate, change: Array, noise: Any) -> Array:
        return gradient(candidate, noise, change)

    def estimates(noises: Sequence[Any], change: Array) -> list[Array]:
        pairs = zip(candidates, noises, strict=True)
        return [
            gradient(c, {}, change)[None] if not noise else in_chunks(functools.partial(at, c, change), noise)
            for c, noise in pairs
        ]

    return jax.jit(estimates, compiler_options=QUICK)


def noise_of(
    candidate: Candidate, problem: Any, size: int | Mapping[str, int] | None, limit: int, required: bool
) -> tuple[Any, Any] | None:
    """List the nodes of the noise of a rule.

    Args:
        candidate: the rule.
        problem: the problem.
        size: nodes for each continuous number, as in `pgjax.expectation.nodes`; None leaves it to the problem.
        limit: the most nodes.
        required: whether to raise where there are none, or too many.

    Returns:
        (noise, leaves [N, ...]; weights [N]); None where there are none, or too many.

    Raises:
        ValueError: if there are more than the limit, and they are required.
    """
    rule: Any = candidate.estimator
    size = problem.num_nodes if size is None else size
    try:
        noise, weights = nodes(
            rule, problem.distribution(problem.params), size=size, **candidate.arguments(problem, None)
        )
    except (TypeError, ValueError):
        if required:
            raise
        return None
    noise = {name: _as_drawn(x, problem.distribution(problem.params)) for name, x in noise.items()}
    if len(weights) > limit and required:
        raise ValueError(
            f"limit={limit} is exceeded by the {len(weights)} nodes of the noise of {candidate.name!r} on problem "
            f"{problem.name!r}. Lower num_nodes, raise the limit, or use method='sampling'."
        )
    return None if len(weights) > limit else (noise, weights)


def _as_drawn(noise: Any, distribution: Any) -> Any:
    """Actions that stand for noise, replaced by the noise: a rule of somebody's may know no other form."""

    def one(part: Any, noise: Any) -> Any:
        return part.noise_of(noise.action) if isinstance(noise, Taken) and is_discrete(part) else noise

    if isinstance(noise, (np.ndarray, jax.Array)):  # of one law for all parts
        return noise
    return jax.tree.map(one, distribution, noise, is_leaf=is_distribution)


def listed_rules(
    candidates: Sequence[Candidate],
    problem: Any,
    noises: Sequence[tuple[Any, Any]],
    *,
    targets: Sequence[Any],
    controls: bool,
) -> list[Finding]:
    """Compute the exact moments of rules, all in one program.

    Args:
        candidates: the rules.
        problem: the problem.
        noises: for each its nodes and their weights.
        targets: for each, the direction that it claims.
        controls: whether to measure the distance from the target for another f and under another law.

    Returns:
        For each what was found.
    """
    program = for_noise(tuple(candidates), problem)
    values, weights = [noise for noise, _ in noises], [jnp.asarray(w) for _, w in noises]
    found = program(values, jnp.zeros(()))
    checks: list[Any] = [None] * len(candidates)
    if controls:
        other = program(values, jnp.ones(()))
        checks = [
            {"another law": distance(tilt(w), x, t), "another f": distance(w, y, t)}
            for x, y, w, t in zip(found, other, weights, targets, strict=True)
        ]
    return [
        Finding("enumeration", *weighted_moments(x, w), len(w), controls=check)
        for x, w, check in zip(found, weights, checks, strict=True)
    ]


def sampled_rules(
    key: Array, candidates: Sequence[Candidate], problem: Any, *, targets: Sequence[Any], num_samples: int
) -> list[Finding]:
    """Estimate the moments of rules from samples of their noise.

    Args:
        key: a PRNG key, consumed.
        candidates: the rules.
        problem: the problem.
        targets: for each, the direction that its mean is tested against.
        num_samples: how many to draw, rounded up to whole batches.

    Returns:
        For each what was found.
    """
    at_once, batches = batches_of(num_samples, 1)
    program = for_noise(tuple(candidates), problem)

    @jax.jit
    def draw(key: Array) -> list[Any]:
        distribution, keys = problem.distribution(problem.params), jax.random.split(key, at_once)
        return [jax.vmap(lambda key, c=c: _drawn(c, key, problem, distribution))(keys) for c in candidates]

    def estimates(key: Array) -> list[Array]:
        found = program(draw(key), jnp.zeros(()))
        return [jnp.broadcast_to(x, (at_once, x.shape[1])) for x in found]

    tested = tested_moments(estimates, jax.random.split(key, batches), [np.asarray(t) for t in targets])
    return [Finding("sampling", m, v, test.num_estimates, sampling=test) for m, v, test in tested]


def _drawn(candidate: Candidate, key: Array, problem: Any, distribution: Any) -> Any:
    rule: Any = candidate.estimator
    return rule.draw(key, distribution, **candidate.arguments(problem, None))
