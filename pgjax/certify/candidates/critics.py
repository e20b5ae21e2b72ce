"""Candidates with a critic, whose policy's part alone is certified: the value functions are constants in params."""

from collections.abc import Callable
from typing import Any

from pgjax._types import Trajectory
from pgjax.certify.candidates.arguments import WHOLE, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import actor_critic, n_step_actor_critic, ppo, upgo_actor_critic, vtrace_actor_critic
from pgjax.exact.variance.offpolicy_pairs import vtrace_pair
from pgjax.exact.variance.pairs import gae_pair
from pgjax.losses import (
    binary_weight,
    discovered_loss,
    exponential_weight,
    importance_weighted_loss,
    ppo_clip_loss,
    preference_weight,
    sequence_log_ratio,
    softmax_weight,
    spo_loss,
    top_half,
)


def critic_candidates() -> list[Candidate]:
    """List the estimators with a value function.

    Returns:
        The candidates.
    """
    return [*_actor_critic(), *_multistep(), *_vtrace(), *_ppo(), *_surrogates(), *_weighted_likelihoods()]


def _actor_critic() -> list[Candidate]:
    def entry(lam: float, exact: bool, weighted: bool = True) -> Candidate:
        # Whatever the value function says, λ = 1 is right, as long as nothing is cut.
        claim = ("gradient" if weighted else "dropped discount") if exact or lam == 1.0 else None
        return Candidate(
            f"actor-critic λ={lam:g}, {'exact' if exact else 'wrong'} value{'' if weighted else ', without γ^t'}",
            actor_critic,
            lambda p, t: {
                "lam": lam,
                "value": p.value if exact else p.erring_value,
                **(weight(p, t) if weighted else {}),
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


def _multistep() -> list[Candidate]:
    """n-step returns, unbiased with the exact value or with all steps; upgoing ones, never."""

    def steps(name: str, n: int, claim: str | None, exact: bool) -> Candidate:
        return Candidate(
            name,
            n_step_actor_critic,
            lambda p, t: {"n": n, "value": p.value if exact else p.erring_value, **weight(p, t)},
            claim=claim,
            needs=("own data", "exact value") if exact else WHOLE,
            reference="Mnih et al. (2016)",
        )

    return [
        steps("actor-critic of 2 steps, exact value", 2, "gradient", True),
        steps("actor-critic of 1 step, wrong value", 1, None, False),
        steps("actor-critic of all steps, wrong value", 10_000, "gradient", False),
        Candidate(
            "UPGO, wrong value", upgo_actor_critic, lambda p, t: {"value": p.erring_value, **weight(p, t)}, claim=None,
            needs=WHOLE, reference="Vinyals et al. (2019)",
        ),
    ]  # fmt: skip


def _vtrace() -> list[Candidate]:
    """V-trace corrects the actions, but not the states in which they are taken."""

    def trace(name: str, claim: str | None, needs: tuple[str, ...], clip: float) -> Candidate:
        bounds = {"clip_rho": clip, "clip_c": clip, "clip_pg_rho": clip}
        return Candidate(
            name,
            vtrace_actor_critic,
            lambda p, t: {"value": p.erring_value, **bounds, **weight(p, t)},
            claim=claim,
            needs=needs,
            pair=lambda p: vtrace_pair(
                p.mdp, p.probs, p.wrong_value, behaviour=p.collector, score=p.score, **bounds
            ),
            reference="Espeholt et al. (2018)",
        )  # fmt: skip

    other = ("other data", "whole episodes")
    return [
        trace("V-trace, own data, wrong value", "gradient", WHOLE, 1.0),
        trace("V-trace, other data, no clipping, wrong value", "off-policy", other, 1e6),
        trace("V-trace, other data, clips 1, wrong value", None, other, 1.0),
    ]


def _ppo() -> list[Candidate]:
    """PPO before its parameters have moved."""

    def plain(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        return {"standardized": False}

    schulman = "Schulman et al. (2017)"
    return [
        Candidate(
            "PPO, first step, exact value", ppo, plain, claim="dropped discount",
            needs=("own data", "exact value"), reference=schulman,
        ),
        Candidate(
            "PPO, first step, exact value, with γ^t", ppo, lambda p, t: plain(p, t) | weight(p, t),
            needs=("own data", "exact value"), reference=schulman,
        ),
        Candidate(
            "PPO, first step, standardised", ppo, claim=None, needs=("own data",), group_size=2, reference=schulman,
        ),
    ]  # fmt: skip


def _cispo(log_ratio: Any, advantage: Any) -> Any:
    return importance_weighted_loss(log_ratio, advantage, lower=0.8, upper=1.28)


def _gspo(log_ratio: Any, advantage: Any) -> Any:
    # Times the length: each advantage meets the mean of the scores, to which its own step adds one part of many.
    return log_ratio.shape[0] * ppo_clip_loss(sequence_log_ratio(log_ratio), advantage)


def _gspo_token(log_ratio: Any, advantage: Any) -> Any:
    return ppo_clip_loss(sequence_log_ratio(log_ratio, per_token=True), advantage)


def _of_surrogate(
    name: str, surrogate: Callable[..., Any], reference: str, claim: str | None, **more: Any
) -> Candidate:
    """Make a candidate of a surrogate with advantages of one step."""

    def arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
        return {"standardized": False, "surrogate": surrogate, "lam": 0.0, **weight(problem, trajectory)}

    return Candidate(name, ppo, arguments, claim=claim, reference=reference, **more)


def _surrogates() -> list[Candidate]:
    """Other surrogates on ratios: before the parameters have moved, and on the data of another policy."""

    own, other = ("own data", "exact value"), ("other data", "exact value")
    first = [
        ("importance weighting", importance_weighted_loss, "Espeholt et al. (2018)"),
        ("CISPO", _cispo, "MiniMax (2025)"),
        ("SPO", spo_loss, "Xie et al. (2024)"),
        ("discovered policy optimisation", discovered_loss, "Lu et al. (2022)"),
    ]
    means = [
        ("GSPO times the length", _gspo, "Zheng et al. (2025)"),
        ("GSPO-token", _gspo_token, "Zheng et al. (2025)"),
    ]
    # Behind the end of a short episode rows have log-ratios too, and a mean over the sequence would hold them.
    equal = (*own, "equal lengths")
    return [
        *(_of_surrogate(f"{name}, first step, exact value", f, who, "gradient", needs=own) for name, f, who in first),
        *(_of_surrogate(f"{name}, first step, exact value", f, who, "gradient", needs=equal) for name, f, who in means),
        _of_surrogate("importance weighting, other data, exact value", *first[0][1:], "off-policy", needs=other),
        _of_surrogate("CISPO, other data, exact value", *first[1][1:], None, needs=other),
    ]  # fmt: skip


def _weighted_likelihoods() -> list[Candidate]:
    """Likelihoods weighted by functions of the advantage: where they head is not the gradient of the return."""

    def entry(name: str, weight_of: Callable[..., Any], reference: str, **more: Any) -> Candidate:
        def surrogate(log_ratio: Any, advantage: Any) -> Any:
            return -weight_of(advantage) * log_ratio

        return _of_surrogate(f"{name}, exact value", surrogate, reference, None, **more)

    own = ("own data", "exact value")
    # The weights of the batch count the rows behind the end of a short episode too.
    batch: dict[str, Any] = {"group_size": 2, "needs": (*own, "equal lengths")}
    return [
        entry("AWR", exponential_weight, "Peng et al. (2019)", needs=own),
        entry("CRR, binary", binary_weight, "Wang et al. (2020)", needs=own),
        entry(
            "V-MPO", lambda a: a.size * softmax_weight(a, top_half(a), temperature=1.0), "Song et al. (2020)", **batch
        ),
        entry("PMPO", lambda a: a.size * preference_weight(top_half(a)), "Abdolmaleki et al. (2025)", **batch),
    ]
