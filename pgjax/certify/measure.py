"""The certificate of an estimator: its bias and its variance against the exact gradient."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pgjax import _checks
from pgjax.certify.candidate import Candidate, candidate_of
from pgjax.certify.certificate import Certificate
from pgjax.certify.cost import measure_cost
from pgjax.certify.enumeration import enumerated_moments
from pgjax.certify.sampling import Sampler, sample_trajectories, sampled_moments
from pgjax.estimators import Estimator
from pgjax.exact.variance.moments import pair_moments

Array = jax.Array

METHODS = ("auto", "enumeration", "recursion", "sampling")


def certify(estimator: Estimator | Candidate, problem: Any, **options: Any) -> Certificate:
    """Measure the bias and the variance of an estimator against the exact gradient, in float64.

    The estimator itself runs on trajectories of the problem. Where they can be listed, all of them, or all groups of
    K of them, are: mean and covariance are then sums, without noise. Otherwise they are rolled out, and
    the bias is tested. Without end of the trajectories, the moments come from a recursion, if the candidate has one.

    Shapes: P parameters; see `Certificate`.

    Args:
        estimator: an estimator made with `pgjax.estimator`, which then claims the gradient of the discounted objective
            and is called with the policy, the discount and the exact value function of the problem where it takes
            them; or a `Candidate`, which says otherwise.
        problem: what to hold it against, from `tabular_problem`, `lqr_problem` or `certificate_problems`.
        **options: those of `certify_all`.

    Returns:
        The certificate.

    Raises:
        TypeError: if estimator is none.
        ValueError: if the method does not exist or is not possible.

    Example:
        >>> import pgjax as pg
        >>> from pgjax import exact
        >>> @pg.estimator()
        ... def hasty(params, trajectory, *, policy):
        ...     def loss(params, trajectory, reward, state):
        ...         return pg.policy_gradient_loss(policy(params, trajectory.obs).log_prob(trajectory.action), reward)
        ...     return pg.Surrogate(loss, trajectory.reward)
        >>> certificate = exact.certify(hasty, exact.tabular_problem("two states", exact.two_state(), num_steps=3))
        >>> print(certificate.unbiased, f"{certificate.relative_bias:.2f}")
        False 0.24

    References:
        Tucker et al. (2018), The mirage of action-dependent baselines in reinforcement learning, on the split.
    """
    return certify_all((estimator,), problem, **options)[0]


def certify_all(
    estimators: Sequence[Estimator | Candidate],
    problem: Any,
    *,
    method: str = "auto",
    limit: int = 500_000,
    num_trajectories: int = 100_000,
    key: Array | None = None,
    sample: Sampler = sample_trajectories,
    terms: bool = False,
    cost_batch: int | None = None,
) -> tuple[Certificate, ...]:
    """Measure the bias and the variance of several estimators on the same trajectories, in float64: see `certify`.

    Shapes: P parameters; see `Certificate`.

    Args:
        estimators: estimators or candidates; those that are measured alike share one program, and sampled ones share
            their trajectories.
        problem: what to hold them against.
        method: "enumeration", "recursion", "sampling", or "auto": recursion for endless trajectories, enumeration
            within the limit, otherwise sampling.
        limit: the most trajectories, or groups of them, to list.
        num_trajectories: how many to sample.
        key: a PRNG key for sampling; None takes key 0.
        sample: (key, problem, num_envs) -> trajectories; replaces the rollout of the problem's environment.
        terms: whether to split the variance; only where trajectories are listed and an estimator takes a `mask`.
        cost_batch: the batch on which to measure the cost, or None not to; endless trajectories have none.

    Returns:
        The certificates, in the order of the estimators.

    Raises:
        TypeError: if an estimator is none.
        ValueError: if the method does not exist or is not possible.
    """
    candidates = [candidate_of(estimator) for estimator in estimators]
    key = jax.random.key(0) if key is None else key
    with jax.enable_x64(True):
        alike: dict[tuple[str, int], list[int]] = {}
        for i, candidate in enumerate(candidates):
            alike.setdefault((_method(candidate, problem, method, limit), candidate.group_size), []).append(i)
        targets = [np.asarray(problem.direction(c.claim or "discounted")) for c in candidates]
        found: dict[int, dict[str, Any]] = {}
        for (chosen, size), members in alike.items():
            chosen_ones = [candidates[i] for i in members]
            if chosen == "enumeration":
                split = enumerated_moments(chosen_ones, problem, terms=terms)
                parts = [dict(zip(("mean", "covariance", "terms"), x, strict=True)) for x in split]
                parts = [part | {"num_trajectories": int(problem.count())} for part in parts]
            elif chosen == "recursion":
                moments = [pair_moments(problem.mdp, c.pair(problem)) for c in chosen_ones]  # type: ignore[misc]
                parts = [{"mean": m.mean, "covariance": m.covariance, "num_trajectories": 0} for m in moments]
            else:
                tested = sampled_moments(
                    key, chosen_ones, problem,
                    targets=[targets[i] for i in members], num_trajectories=num_trajectories, sample=sample,
                )  # fmt: skip
                parts = [dict(zip(("mean", "covariance", "sampling"), x, strict=True)) for x in tested]
                parts = [part | {"num_trajectories": part["sampling"].num_estimates * size} for part in parts]
            found.update(zip(members, ({"method": chosen} | part for part in parts), strict=True))
        costs = _costs(candidates, problem, cost_batch, sample)
        return tuple(
            _certificate(candidate, problem, targets[i], found[i] | {"cost": costs[i]})
            for i, candidate in enumerate(candidates)
        )


def _method(candidate: Candidate, problem: Any, method: str, limit: int) -> str:
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}. Leave it out to have one chosen.")
    endless, to_list = problem.num_steps is None, problem.count() ** candidate.group_size
    if method == "auto":
        method = "recursion" if endless else "enumeration" if to_list <= limit else "sampling"
    if method == "enumeration" and to_list > limit:
        raise ValueError(
            f"limit={limit} is exceeded by the {to_list:.3g} groups of {candidate.group_size} trajectories of "
            f"problem {problem.name!r}. Shorten them, raise the limit, or use method='sampling'."
        )
    if method == "recursion" and candidate.pair is None:
        raise ValueError(
            f"method 'recursion' needs candidate.pair, which {candidate.name!r} has not. Give it one, or give the "
            "problem a num_steps."
        )
    if method == "sampling" and endless:
        raise ValueError(
            f"problem {problem.name!r} has trajectories without end, which nobody can sample. Give it a num_steps."
        )
    return method


def _costs(candidates: Sequence[Candidate], problem: Any, batch_size: int | None, sample: Sampler) -> list[Any]:
    """What each costs on the same batch."""
    if batch_size is None or problem.num_steps is None:
        return [None] * len(candidates)
    batch_size = _checks.as_positive_int("cost_batch", batch_size)
    batch = jax.jit(lambda key: sample(key, problem, batch_size))(jax.random.key(0))
    return [measure_cost(candidate, problem, batch) for candidate in candidates]


def _certificate(candidate: Candidate, problem: Any, target: Any, found: dict[str, Any]) -> Certificate:
    found = found | {name: np.asarray(found[name]) for name in ("mean", "covariance")}
    return Certificate(
        estimator=candidate.name,
        problem=problem.name,
        group_size=1 if found["method"] == "recursion" else candidate.group_size,
        objective=problem.objective,
        gradient=np.asarray(problem.direction()),
        claim=candidate.claim,
        target=target,
        **found,
    )
