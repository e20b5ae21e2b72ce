"""The certificate of an estimator: its bias and its variance against the exact gradient."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pgjax import _checks
from pgjax.certify.candidates.candidate import Candidate, candidate_of
from pgjax.certify.certificate import Certificate, Certificates
from pgjax.certify.certificate.directions import transposed
from pgjax.certify.measure.cost import measure_cost
from pgjax.certify.measure.finding import Finding
from pgjax.certify.measure.listed import count_of, listed_moments
from pgjax.certify.measure.rules import listed_rules, noise_of, sampled_rules
from pgjax.certify.measure.sampled import Sampler, sample_trajectories, sampled_moments
from pgjax.estimators import Estimator
from pgjax.exact.variance.moments import pair_moments
from pgjax.expectation import Rule

Array = jax.Array
Tried = Estimator | Rule | Candidate

METHODS = ("auto", "enumeration", "recursion", "sampling")


def certify(estimator: Tried, problem: Any, **options: Any) -> Certificate:
    """Measure the bias and the variance of an estimator against the exact gradient, in float64.

    The estimator itself runs on trajectories of the problem. Where they can be listed, all of them, or all groups of
    K of them, are: mean and covariance are then sums, without noise. Otherwise they are rolled out, and
    the bias is tested. Without end of the trajectories, the moments come from a recursion, if the candidate has one.
    A rule is applied to every node of its noise, or to samples of it. ``print`` says what the certificate means.

    Shapes: P parameters; see `Certificate`.

    Args:
        estimator: an estimator made with `pgjax.estimator`, which then claims the gradient of the discounted objective
            and is called with the policy, the discount and the exact value function of the problem where it takes
            them; a rule of `pgjax.expectation`, which claims that of E f; or a `Candidate`, which says otherwise.
        problem: what to hold it against, from `tabular_problem`, `lqr_problem`, `expectation_problem` or
            `certificate_problems`.
        **options: those of `certify_all`, for instance ``group_size`` for an estimator that looks at several
            trajectories together.

    Returns:
        The certificate.

    Raises:
        TypeError: if estimator is no estimator, or there is no such option.
        ValueError: if the method does not exist or is not possible, or if the estimator depends on the other
            trajectories of its batch and no group_size says on how many.

    Example:
        >>> import pgjax as pg
        >>> from pgjax import exact
        >>> @pg.estimator()
        ... def hasty(params, trajectory, *, policy):
        ...     def loss(params, trajectory, reward, state):
        ...         return pg.policy_gradient_loss(policy(params, trajectory.obs).log_prob(trajectory.action), reward)
        ...     return pg.Surrogate(loss, trajectory.reward)
        >>> certificate = exact.certify(hasty, exact.tabular_problem("two states", exact.two_state(), num_steps=3))
        >>> print(certificate.unbiased, f"{certificate.relative_bias:.2f}", certificate.found[0])
        False 0.24 immediate rewards, dropped discount

    References:
        Tucker et al. (2018), The mirage of action-dependent baselines in reinforcement learning, on the split.
    """
    return certify_all((estimator,), problem, **options)[0]


def certify_all(
    estimators: Sequence[Tried],
    problem: Any,
    *,
    group_size: int | None = None,
    method: str = "auto",
    limit: int = 500_000,
    num_trajectories: int = 100_000,
    num_nodes: int | Mapping[str, int] | None = None,
    key: Array | None = None,
    sample: Sampler = sample_trajectories,
    terms: bool = False,
    controls: bool = False,
    cost_batch: int | None = None,
) -> Certificates:
    """Measure the bias and the variance of several estimators on the same trajectories, in float64: see `certify`.

    Shapes: P parameters; see `Certificate`.

    Args:
        estimators: estimators, rules or candidates; those that are measured alike share one program, and sampled ones
            share their trajectories.
        problem: what to hold them against.
        group_size: how many trajectories each looks at together, in place of what candidates say; None is 1 for an
            estimator by itself. See `Candidate`.
        method: "enumeration", "recursion", "sampling", or "auto": recursion for endless trajectories, enumeration
            within the limit, otherwise sampling.
        limit: the most trajectories, or groups of them, or nodes of the noise of a rule, to list.
        num_trajectories: how many to sample; of a rule, how many values of its noise.
        num_nodes: nodes for each continuous number in the noise of a rule, as in `pgjax.expectation.nodes`.
        key: a PRNG key for sampling; None takes key 0.
        sample: (key, problem, num_envs) -> trajectories; replaces the rollout of the problem's environment.
        terms: whether to split the variance; only where trajectories are listed and an estimator takes a `mask`.
        controls: whether to measure as well how far the mean is from the target for other rewards (another f) and
            under another law; only where trajectories or noise are listed.
        cost_batch: the batch on which to measure the cost, or None not to; endless trajectories have none.

    Returns:
        The certificates, in the order of the estimators: a tuple whose ``print`` compares them.

    Raises:
        TypeError: if one of them is no estimator.
        ValueError: if the method does not exist or is not possible, if an estimator depends on the other trajectories
            of its batch and its group size is 1, or if a rule meets trajectories or an estimator a distribution.
    """
    candidates = [candidate_of(estimator, group_size) for estimator in estimators]
    _require_kind(candidates, problem)
    key = jax.random.key(0) if key is None else key
    with jax.enable_x64(True):
        targets = [np.asarray(problem.direction(c.claim or problem.directions[0])) for c in candidates]
        measure = _of_rules if problem.takes_rules else _of_estimators
        found = measure(
            candidates, problem, targets,
            {"method": method, "limit": limit, "number": num_trajectories, "nodes": num_nodes, "key": key}
            | {"sample": sample, "terms": terms, "controls": controls},
        )  # fmt: skip
        costs = _costs(candidates, problem, cost_batch, sample)
        known = _known(problem)
        return Certificates(
            _certificate(*one, problem, known) for one in zip(candidates, targets, found, costs, strict=True)
        )


def _require_kind(candidates: Sequence[Candidate], problem: Any) -> None:
    for candidate in candidates:
        if candidate.is_rule != problem.takes_rules:
            kinds = ("a rule", "distributions") if problem.takes_rules else ("an estimator", "trajectories")
            raise ValueError(
                f"{candidate.name} must be {kinds[0]} on problem {problem.name!r}, which is about {kinds[1]}. Rules go "
                "with expectation_problem, estimators with tabular_problem and lqr_problem."
            )


def _of_estimators(
    candidates: Sequence[Candidate], problem: Any, targets: Sequence[Any], options: Mapping[str, Any]
) -> list[Finding]:
    """What was measured of each, those that are measured alike together."""
    alike: dict[Any, list[int]] = {}
    for i, candidate in enumerate(candidates):
        method = _method(candidate, problem, options)
        alike.setdefault((method, candidate.group_size, candidate.noise), []).append(i)
    found: dict[int, Finding] = {}
    for (method, *_), members in alike.items():
        chosen, aims = [candidates[i] for i in members], [targets[i] for i in members]
        if method == "enumeration":
            parts = listed_moments(
                chosen, problem,
                targets=aims, num_nodes=options["nodes"], terms=options["terms"], controls=options["controls"],
            )  # fmt: skip
        elif method == "recursion":
            moments = [pair_moments(problem.mdp, c.pair(problem)) for c in chosen]  # type: ignore[misc]
            parts = [Finding("recursion", m.mean, m.covariance, 0) for m in moments]
        else:
            parts = sampled_moments(
                options["key"], chosen, problem,
                targets=aims, num_trajectories=options["number"], sample=options["sample"],
            )  # fmt: skip
        found.update(zip(members, parts, strict=True))
    return [found[i] for i in range(len(candidates))]


def _of_rules(
    candidates: Sequence[Candidate], problem: Any, targets: Sequence[Any], options: Mapping[str, Any]
) -> list[Finding]:
    """What was measured of each rule: over the nodes of its noise if there are few enough, else over samples."""
    method, noises = options["method"], {}
    if method not in ("auto", "enumeration", "sampling"):
        raise ValueError(f"method must be 'auto', 'enumeration' or 'sampling' for rules, got {method!r}.")
    for i, candidate in enumerate(candidates):
        if method != "sampling":
            noise = noise_of(candidate, problem, options["nodes"], options["limit"], method == "enumeration")
            noises.update({} if noise is None else {i: noise})
    found: dict[int, Finding] = {}
    if listed := list(noises):
        chosen, aims = [candidates[i] for i in listed], [targets[i] for i in listed]
        parts = listed_rules(chosen, problem, list(noises.values()), targets=aims, controls=options["controls"])
        found.update(zip(listed, parts, strict=True))
    if drawn := [i for i in range(len(candidates)) if i not in noises]:
        chosen, aims = [candidates[i] for i in drawn], [targets[i] for i in drawn]
        parts = sampled_rules(options["key"], chosen, problem, targets=aims, num_samples=options["number"])
        found.update(zip(drawn, parts, strict=True))
    return [found[i] for i in range(len(candidates))]


def _method(candidate: Candidate, problem: Any, options: Mapping[str, Any]) -> str:
    method, limit = options["method"], options["limit"]
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}. Leave it out to have one chosen.")
    endless = problem.num_steps is None
    to_list = np.inf if endless else count_of(candidate, problem, options["nodes"]) ** candidate.group_size
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
            f"problem {problem.name!r} has trajectories without end, which cannot be sampled. Give it a num_steps."
        )
    return method


def _costs(candidates: Sequence[Candidate], problem: Any, batch_size: int | None, sample: Sampler) -> list[Any]:
    """What each costs on the same batch."""
    if batch_size is None or problem.takes_rules or problem.num_steps is None:
        return [None] * len(candidates)
    batch_size = _checks.as_positive_int("cost_batch", batch_size)
    batch = jax.jit(lambda key: sample(key, problem, batch_size))(jax.random.key(0))
    return [measure_cost(candidate, problem, batch) for candidate in candidates]


def _known(problem: Any) -> dict[str, Any]:
    """The directions of a problem, the gradient first."""
    known = {name: np.asarray(x) for name, x in problem.known.items()}
    turned = transposed([np.shape(x) for x in jax.tree.leaves(problem.params)], next(iter(known.values())))
    return known if turned is None else known | {"transposed": turned}


def _certificate(
    candidate: Candidate, target: Any, finding: Finding, cost: Any, problem: Any, known: dict[str, Any]
) -> Certificate:
    measured = {**vars(finding), "mean": np.asarray(finding.mean), "covariance": np.asarray(finding.covariance)}
    return Certificate(
        estimator=candidate.name,
        problem=problem.name,
        objective=problem.objective,
        gradient=next(iter(known.values())),
        claim=candidate.claim,
        target=target,
        cost=cost,
        known=known,
        num_steps=problem.num_steps,
        **measured,
    )
