"""Candidates whose surrogates may be differentiated again; what is certified is their first derivative."""

from typing import Any

from pgjax._types import Trajectory
from pgjax.baselines import value_baseline
from pgjax.certify.candidates.arguments import WHOLE, returns, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import dice, loaded_dice
from pgjax.exact.variance.pairs import gpomdp_pair


def higher_order_candidates() -> list[Candidate]:
    """List DiCE and Loaded DiCE over trajectories.

    Returns:
        The candidates.
    """

    def values(problem: Any, trajectory: Trajectory) -> Any:
        return value_baseline(problem.params, trajectory, value=problem.value)

    def loaded(dice_lam: float) -> Any:
        def arguments(problem: Any, trajectory: Trajectory) -> dict[str, Any]:
            advantage = returns(problem, trajectory) - values(problem, trajectory)
            return {"advantage": advantage, "dice_lam": dice_lam, **weight(problem, trajectory)}

        return arguments

    foerster, farquhar = "Foerster et al. (2018)", "Farquhar et al. (2019)"
    return [
        Candidate(
            "DiCE over trajectories", dice, needs=WHOLE,
            pair=lambda p: gpomdp_pair(p.mdp, p.probs, score=p.score), reference=foerster,
        ),
        Candidate(
            "DiCE over trajectories, value baseline", dice, lambda p, t: {"baseline": values(p, t)}, needs=WHOLE,
            pair=lambda p: gpomdp_pair(p.mdp, p.probs, score=p.score, baseline=p.state_value), reference=foerster,
        ),
        Candidate("Loaded DiCE, value baseline", loaded_dice, loaded(1.0), needs=WHOLE, reference=farquhar),
        Candidate(
            "Loaded DiCE λ_D=0, value baseline", loaded_dice, loaded(0.0), needs=WHOLE,
            reference="Rothfuss et al. (2019)",
        ),
    ]  # fmt: skip
