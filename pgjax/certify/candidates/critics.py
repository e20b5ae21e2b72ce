"""Candidates with a critic, whose policy's part alone is certified: the value functions are constants in params."""

from typing import Any

from pgjax._types import Trajectory
from pgjax.certify.candidates.arguments import WHOLE, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import actor_critic, n_step_actor_critic, ppo, upgo_actor_critic, vtrace_actor_critic
from pgjax.exact.variance.offpolicy_pairs import vtrace_pair
from pgjax.exact.variance.pairs import gae_pair


def critic_candidates() -> list[Candidate]:
    """List the estimators with a value function.

    Returns:
        The candidates.
    """
    return [*_actor_critic(), *_multistep(), *_vtrace(), *_ppo()]


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
