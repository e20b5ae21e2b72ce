"""Gradients of an expectation, E f(x) with x ~ p_θ: rules, and the laws of the noise that they draw.

A rule is called ``rule(key, distribution, f, **options) -> [...]``. Its value is f at a sample, or the exact mean; its
gradient with respect to whatever the distribution was made from is an estimate of the gradient of E f(x). f takes an
action [..., *event] and gives one number for each row, [...]; what f closes over gets its own gradient. f is minimised
where the result is.

The noise can be kept apart, as estimators over trajectories need it: ``noise = rule.draw(key, distribution)`` and
``rule.given(noise, distribution, f)``. Since each law of noise can also be integrated, `nodes` makes the exact mean and
variance of a rule a weighted sum.

The searches, such as `evolution_strategy`, look at no distribution of actions: f is there a function of the parameters,
and the gradient is made of its values at perturbed ones.

A distribution is one of `pgjax.distributions`, or any tree of them (a dict, a tuple), whose parts are independent given
their parameters and have the same batch axes; actions, noise and relaxed samples are then trees of that form.
"""

from pgjax.expectation import laws
from pgjax.expectation._probes import SearchInfo
from pgjax.expectation.antithetic import mirrored
from pgjax.expectation.augmented import arm, disarm
from pgjax.expectation.differences import finite_difference, regressed_difference, spsa
from pgjax.expectation.enumeration import enumerated
from pgjax.expectation.gaussian import quadratic, quadrature
from pgjax.expectation.integration import nodes
from pgjax.expectation.paths import at_mode, pathwise
from pgjax.expectation.relaxations import gumbel_softmax, rebar, reinmax, relax, straight_through
from pgjax.expectation.rules import Rule, rule
from pgjax.expectation.sampling import Taken, taken
from pgjax.expectation.score import dice, score_function, score_leave_one_out
from pgjax.expectation.search import ars, evolution_strategy, pgpe
from pgjax.expectation.shaping import centered_ranks, nes_utilities
from pgjax.expectation.subsets import sum_and_sample, unordered_set
from pgjax.expectation.taylor import taylor, taylor_pathwise
from pgjax.expectation.terms import bind, control_gradient, gradient_only, through
from pgjax.expectation.weak import measure_valued

__all__ = [
    "Rule",
    "SearchInfo",
    "Taken",
    "arm",
    "ars",
    "at_mode",
    "bind",
    "centered_ranks",
    "control_gradient",
    "dice",
    "disarm",
    "enumerated",
    "evolution_strategy",
    "finite_difference",
    "gradient_only",
    "gumbel_softmax",
    "laws",
    "measure_valued",
    "mirrored",
    "nes_utilities",
    "nodes",
    "pathwise",
    "pgpe",
    "quadratic",
    "quadrature",
    "rebar",
    "regressed_difference",
    "reinmax",
    "relax",
    "rule",
    "score_function",
    "score_leave_one_out",
    "spsa",
    "straight_through",
    "sum_and_sample",
    "taken",
    "taylor",
    "taylor_pathwise",
    "through",
    "unordered_set",
]
