"""Every estimator of the library with what it claims.

An estimator that is exported without an entry here has no certificate; a test looks for that. Where the library has
the parts of an estimator but leaves it to the user to put them together, it is put together here as a user would.
"""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Params, Policy, Trajectory, Value
from pgjax.baselines import batch_mean, leave_one_out, value_baseline
from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.problems.tabular import TabularProblem
from pgjax.estimators import Surrogate, actor_critic, estimator, gpomdp, likelihood_ratio, reinforce
from pgjax.exact.variance.moments import AffinePair
from pgjax.exact.variance.offpolicy_pairs import vtrace_pair
from pgjax.exact.variance.pairs import gae_pair, gpomdp_pair
from pgjax.losses import policy_gradient_loss, ppo_clip_loss, standardize
from pgjax.returns import bootstrap_values, discount_weight, gae, vtrace

Array = jax.Array

WHOLE = ("own data", "whole episodes")


@estimator("clip", unit_interval=("discount", "lam"))
def vtrace_actor(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float = 1.0,
    clip: float = 1.0,
    step_weight: Array | None = None,
    mask: Array | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by the actor of V-trace: a descent direction."""
    log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
    _, advantage = vtrace(
        trajectory.reward, *bootstrap_values(params, trajectory, value=value),
        log_ratio=log_prob - trajectory.log_prob, terminated=trajectory.terminated, truncated=trajectory.truncated,
        discount=discount, lam=lam, clip_rho=clip, clip_c=clip, clip_pg_rho=clip,
    )  # fmt: skip

    def loss(params: Params, trajectory: Trajectory, weight: Array, _: Any) -> Array:
        return policy_gradient_loss(policy(params, trajectory.obs).log_prob(trajectory.action), weight)

    return Surrogate(loss, advantage if step_weight is None else advantage * step_weight, mask)


@estimator("standardized", unit_interval=("discount", "lam"))
def ppo_first_step(
    params: Params,
    trajectory: Trajectory,
    *,
    policy: Policy,
    value: Value,
    discount: Array | float,
    lam: Array | float = 0.95,
    clip: float = 0.2,
    standardized: bool = False,
    mask: Array | None = None,
) -> Surrogate:
    """Estimate the gradient of -J by PPO before its parameters have moved: a descent direction."""
    advantage = gae(
        trajectory.reward, *bootstrap_values(params, trajectory, value=value),
        terminated=trajectory.terminated, truncated=trajectory.truncated, discount=discount, lam=lam,
    )  # fmt: skip

    def loss(params: Params, trajectory: Trajectory, advantage: Array, _: Any) -> Array:
        log_prob = policy(params, trajectory.obs).log_prob(trajectory.action)
        return ppo_clip_loss(log_prob - trajectory.log_prob, advantage, clip=clip)

    return Surrogate(loss, standardize(advantage) if standardized else advantage, mask)


def registry() -> tuple[Candidate, ...]:
    """List every estimator of the library, in the forms in which it is used, with its claims.

    Returns:
        The candidates, names all different.
    """
    return (*_score_function(), *_reinforce(), *_gpomdp(), *_actor_critic(), *_surrogates())


def _weight(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    """The weight γ^t of the states, without which the discounted objective is missed."""
    return {"step_weight": discount_weight(trajectory.step, problem.discount)}


def _constant(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    return {"baseline": problem.objective}


def _others(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
    return {"baseline": leave_one_out}


def _score_function() -> list[Candidate]:
    reference = "Williams (1992)"
    return [
        Candidate("likelihood ratio", likelihood_ratio, needs=WHOLE, reference=reference),
        Candidate("likelihood ratio, constant baseline", likelihood_ratio, _constant, needs=WHOLE, reference=reference),
        Candidate(
            "likelihood ratio, leave-one-out", likelihood_ratio, _others,
            needs=WHOLE, group_size=2, reference="Kool et al. (2019)",
        ),
    ]  # fmt: skip


def _reinforce() -> list[Candidate]:
    def with_values(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        baseline = value_baseline(problem.params, trajectory, value=problem.value)
        return {**_weight(problem, trajectory), "baseline": baseline}

    def with_bootstrap(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        next_value = problem.value(problem.params, trajectory.next_obs)
        return {**with_values(problem, trajectory), "next_value": next_value}

    def pair(problem: TabularProblem, **kwargs: Any) -> AffinePair:
        return gpomdp_pair(problem.mdp, problem.probs, score=problem.score, **kwargs)

    flat = lambda problem: jnp.full(problem.mdp.num_states, problem.objective)  # noqa: E731
    williams, kool = "Williams (1992)", "Kool et al. (2019)"
    return [
        Candidate("REINFORCE", reinforce, _weight, needs=WHOLE, pair=pair, reference=williams),
        Candidate(
            "REINFORCE without γ^t", reinforce, claim="dropped discount", needs=WHOLE,
            pair=lambda p: pair(p, state_discount=1.0), reference="Nota and Thomas (2020)",
        ),
        Candidate(
            "REINFORCE, constant baseline", reinforce, lambda p, t: _weight(p, t) | _constant(p, t), needs=WHOLE,
            pair=lambda p: pair(p, baseline=flat(p)), reference=williams,
        ),
        Candidate(
            "REINFORCE, value baseline", reinforce, with_values, needs=WHOLE,
            pair=lambda p: pair(p, baseline=p.state_value), reference="Sutton and Barto (2018)",
        ),
        Candidate(
            "REINFORCE, value baseline and bootstrap", reinforce, with_bootstrap, needs=("own data", "exact value"),
            reference="Pardo et al. (2018)",
        ),
        Candidate(
            "REINFORCE, leave-one-out", reinforce, lambda p, t: _weight(p, t) | _others(p, t), needs=WHOLE,
            group_size=2, reference=kool,
        ),
        Candidate(
            "REINFORCE, mean with self", reinforce, lambda p, t: _weight(p, t) | {"baseline": batch_mean},
            claim=None, needs=WHOLE, group_size=2, reference=kool,
        ),
    ]  # fmt: skip


def _gpomdp() -> list[Candidate]:
    """Baselines of single rewards ask for episodes of equal length: whether step l comes at all depends on actions."""
    reference, equal = "Baxter and Bartlett (2001)", (*WHOLE, "equal lengths")
    return [
        Candidate(
            "GPOMDP", gpomdp, needs=WHOLE, reference=reference,
            pair=lambda p: gpomdp_pair(p.mdp, p.probs, score=p.score),
        ),
        Candidate(
            "GPOMDP, constant baseline", gpomdp, lambda p, t: {"baseline": p.objective / t.reward.shape[0]},
            needs=equal, reference=reference,
        ),
        Candidate("GPOMDP, leave-one-out", gpomdp, _others, needs=equal, group_size=2, reference=reference),
    ]  # fmt: skip


def _actor_critic() -> list[Candidate]:
    """The policy's part alone: the value functions are constants."""

    def entry(lam: float, exact: bool, weighted: bool = True) -> Candidate:
        # Whatever the value function says, λ = 1 is right, as long as nothing is cut.
        claim = ("discounted" if weighted else "dropped discount") if exact or lam == 1.0 else None
        return Candidate(
            f"actor-critic λ={lam:g}, {'exact' if exact else 'wrong'} value{'' if weighted else ', without γ^t'}",
            actor_critic,
            lambda p, t: {
                "lam": lam,
                "value": p.value if exact else p.erring_value,
                **(_weight(p, t) if weighted else {}),
            },
            claim=claim,
            needs=("own data", "exact value") if exact else WHOLE,
            pair=lambda p: gae_pair(
                p.mdp, p.probs, p.state_value if exact else p.wrong_value,
                lam=lam, score=p.score, state_discount=None if weighted else 1.0,
            ),
            reference="Schulman et al. (2016)",
        )  # fmt: skip

    lams = (0.0, 0.95, 1.0)
    return [*(entry(lam, exact) for exact in (True, False) for lam in lams), entry(0.95, True, weighted=False)]


def _surrogates() -> list[Candidate]:
    """V-trace, which corrects actions but not the states in which they are taken, and PPO before the first step."""
    impala, schulman = "Espeholt et al. (2018)", "Schulman et al. (2017)"

    def trace(name: str, claim: str | None, needs: tuple[str, ...], clip: float) -> Candidate:
        return Candidate(
            name,
            vtrace_actor,
            lambda p, t: {"value": p.erring_value, "clip": clip, **_weight(p, t)},
            claim=claim,
            needs=needs,
            pair=lambda p: vtrace_pair(
                p.mdp, p.probs, p.wrong_value, behaviour=p.collector, score=p.score,
                clip_rho=clip, clip_c=clip, clip_pg_rho=clip,
            ),
            reference=impala,
        )  # fmt: skip

    other = ("other data", "whole episodes")
    return [
        trace("V-trace, own data, wrong value", "discounted", WHOLE, 1.0),
        trace("V-trace, other data, no clipping, wrong value", "off-policy", other, 1e6),
        trace("V-trace, other data, clips 1, wrong value", None, other, 1.0),
        Candidate(
            "PPO, first step, exact value", ppo_first_step, claim="dropped discount",
            needs=("own data", "exact value"), reference=schulman,
        ),
        Candidate(
            "PPO, first step, standardised", ppo_first_step, lambda p, t: {"standardized": True},
            claim=None, needs=("own data",), group_size=2, reference=schulman,
        ),
    ]  # fmt: skip
