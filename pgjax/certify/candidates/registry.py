"""Every estimator, every rule and every search of the library with what it claims.

Nothing is defined here: one that is exported without an entry has no certificate, which a test looks for.
"""

from pgjax.certify.candidates.action_critics import action_critic_candidates
from pgjax.certify.candidates.candidate import Candidate
from pgjax.certify.candidates.controls import control_candidates
from pgjax.certify.candidates.critics import critic_candidates
from pgjax.certify.candidates.fitted_baselines import fitted_baseline_candidates
from pgjax.certify.candidates.higher_order import higher_order_candidates
from pgjax.certify.candidates.inference import inference_candidates
from pgjax.certify.candidates.pathwise import pathwise_candidates
from pgjax.certify.candidates.rules import rule_candidates
from pgjax.certify.candidates.score_function import score_function_candidates
from pgjax.certify.candidates.searches import search_candidates


def registry() -> tuple[Candidate, ...]:
    """List every estimator, rule and search of the library, in the forms in which they are used, with their claims.

    Returns:
        The candidates, names all different.
    """
    return (
        *score_function_candidates(),
        *fitted_baseline_candidates(),
        *critic_candidates(),
        *action_critic_candidates(),
        *control_candidates(),
        *higher_order_candidates(),
        *pathwise_candidates(),
        *rule_candidates(),
        *inference_candidates(),
        *search_candidates(),
    )
