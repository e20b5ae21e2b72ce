"""What the tests of the certificates share: problems, built once, and certificates, computed once for each problem."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import pgjax as pg
from pgjax import exact

PROBLEMS = list(exact.certificate_problems())
DEFAULT = ("two_state", "two_state, other data", "scalar_lqr")
"""Three processes on which every estimator is certified by default; the others are slow."""
EXPECTATIONS = ("normal", "one-hot", "Bernoulli")
SEARCHES = tuple(name for name in PROBLEMS if name.startswith("search"))
LISTED = [name for name in PROBLEMS if "endless" not in name and name not in (*EXPECTATIONS, *SEARCHES)]
LIMIT = 500_000


def close(x: Any, y: Any, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)


@functools.cache
def problem_of(name: str) -> Any:
    return exact.certificate_problems()[name]()


@functools.cache
def certificates(name: str) -> dict[str, exact.Certificate]:
    """Certificates of all candidates that can be listed, with the split of the variance and the controls."""
    problem = problem_of(name)
    fitting = [c for c in exact.registry() if c.fits(problem)]
    if not problem.takes_rules:
        fitting = [c for c in fitting if c.noise is None and problem.count() ** c.group_size <= LIMIT]
    found = exact.certify_all(fitting, problem, controls=True)
    return {c.estimator: c for c in found}


def require_kept(certificate: exact.Certificate, floor: float) -> None:
    """A claim is kept to rounding, or a sample shows no bias; without a claim the bias is at least the floor."""
    where = f"{certificate.estimator} on {certificate.problem}"
    if certificate.claim is None:
        assert certificate.relative_bias >= floor, where
    else:
        assert certificate.unbiased, where
        assert certificate.sampling is not None or certificate.claim_error < 1e-10, where
    assert np.linalg.eigvalsh(certificate.covariance)[0] > -1e-9 * max(certificate.trace, 1.0), where


def chosen(*names: str) -> list[exact.Candidate]:
    by_name = {candidate.name: candidate for candidate in exact.registry()}
    return [by_name[name] for name in names]


def two_state(num_steps: int | None = None, **kwargs: Any) -> exact.TabularProblem:
    return exact.tabular_problem(
        "two_state", exact.two_state(), params=exact.two_state_logits(), num_steps=num_steps, **kwargs
    )


@pg.estimator("fault")
def faulty(
    params: Any,
    trajectory: pg.Trajectory,
    *,
    policy: Any,
    discount: Any,
    value: Any,
    baseline: Any = None,
    fault: str = "",
    scale: float = 1.0,
    mask: Any = None,
) -> pg.Surrogate:
    """REINFORCE with a value baseline and a bootstrap where the trajectory is cut, or with a fault by name."""
    t = trajectory
    ends = {"terminated": t.terminated, "truncated": t.truncated}
    if fault == "truncation taken for termination":
        ends = {"terminated": t.done, "truncated": jnp.zeros_like(t.done)}
    gamma = 1.0 if "undiscounted returns" in fault else discount
    returns = pg.discounted_returns(t.reward, value(params, t.next_obs), **ends, discount=gamma)
    if fault == "rewards":
        returns = t.reward
    if fault == "off by one":
        returns = jnp.concatenate([returns[1:], jnp.zeros_like(returns[:1])])
    advantage = returns - (value(params, t.obs) if baseline is None else baseline(returns))
    if fault == "own baseline":
        advantage = returns - 0.5 * returns
    if fault == "action baseline":
        advantage = advantage - 0.5 * t.action
    for _ in range({"without γ^t": 0, "γ^t twice": 2}.get(fault, 1)):
        advantage = advantage * pg.discount_weight(t.step, discount)
    if fault == "wrong sign":
        scale = -scale
    if fault == "mean over time":
        scale = scale / t.reward.shape[0]

    def loss(params: Any, trajectory: Any, weight: Any, state: Any) -> Any:
        log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
        return pg.policy_gradient_loss(log_prob, weight)

    return pg.Surrogate(loss, scale * advantage, mask)


def with_fault(fault: str, **further: Any) -> exact.Candidate:
    return exact.Candidate(fault or "right", faulty, lambda p, t: {"fault": fault, **further})


def as_certificate(mean: Any, covariance: Any, gradient: Any, **kwargs: Any) -> exact.Certificate:
    """A certificate of given figures."""
    gradient = np.asarray(gradient, float)
    options: dict[str, Any] = {
        "estimator": "x", "problem": "y", "method": "enumeration", "num_trajectories": 1, "group_size": 1,
        "objective": 0.0, "claim": "discounted", "target": gradient, "known": {"discounted": gradient},
    }  # fmt: skip
    options |= kwargs
    return exact.Certificate(
        gradient=gradient, mean=np.asarray(mean, float), covariance=np.asarray(covariance, float), **options
    )


def brute_force_split(problem: Any) -> Any:
    """The three terms of REINFORCE on two_state over two steps, by loops over states, actions and what follows."""
    mdp, gamma = exact.two_state(), 0.9
    probs = jax.nn.softmax(problem.params)
    chain, score = np.asarray(exact.state_transition(mdp, probs)), np.asarray(exact.softmax_score(probs))
    transition, reward, probs = (np.asarray(x) for x in (mdp.transition, mdp.reward, probs))
    follow, start = (probs * reward).sum(1), np.asarray(mdp.initial)
    terms = np.zeros(3)
    for t, reach in enumerate((start, start @ chain)):
        means = np.zeros((2, 2, 4))
        for s, a in np.ndindex(2, 2):
            if t == 1:
                means[s, a] = gamma * reward[s, a] * score[s, a]
                continue
            q = reward[s, a] + gamma * transition[s, a] @ follow
            means[s, a] = q * score[s, a]
            square = 0.0
            for after, b in np.ndindex(2, 2):
                p = transition[s, a, after] * probs[after, b]
                square += p * (reward[s, a] + gamma * reward[after, b] - q) ** 2
            terms[2] += reach[s] * probs[s, a] * square * (score[s, a] @ score[s, a])
        by_state = np.einsum("sa,sap->sp", probs, means)
        spread = np.einsum("sa,sap->s", probs, (means - by_state[:, None]) ** 2)
        terms[1] += reach @ spread
        terms[0] += reach @ np.sum((by_state - reach @ by_state) ** 2, axis=1)
    return terms
