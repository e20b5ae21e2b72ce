"""The problems that every estimator is certified on: short enough to list every trajectory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.certify.lqr_problem import lqr_problem
from pgjax.certify.problem import TabularProblem
from pgjax.certify.tabular import shared_policy, tabular_problem
from pgjax.exact.problems import tabular as problems
from pgjax.exact.problems.gridworlds import cliff4x12
from pgjax.exact.problems.lqr import scalar_lqr

Array = jax.Array


def certificate_problems() -> dict[str, Callable[[], Any]]:
    """List the problems of the certificates by name: the suite, with few steps.

    Episodes are whole except in "two_state, cut", whose trajectories a time limit cuts; the data are the policy's own
    except in the two off-policy problems; trajectories have no end in "two_state, endless".

    Returns:
        Functions without arguments that build them, in float64.
    """

    def sine(name: str, build: Callable[[], Any], num_steps: int) -> tuple[str, Callable[[], TabularProblem]]:
        return name, _in_float64(lambda: tabular_problem(name, build(), num_steps=num_steps))

    def two_state(name: str, **kwargs: Any) -> tuple[str, Callable[[], TabularProblem]]:
        return name, _in_float64(
            lambda: tabular_problem(name, problems.two_state(), params=problems.two_state_logits(), **kwargs)
        )

    return dict(
        [
            two_state("two_state", num_steps=4),
            sine("chain5", problems.chain5, 4),
            sine("riverswim6", problems.riverswim6, 5),
            sine("cliff4x12", cliff4x12, 4),
            sine("garnet8x3", problems.garnet8x3, 2),
            ("alias_discount", _in_float64(_alias_discount)),
            ("alias_offpolicy", _in_float64(lambda: _alias_offpolicy(False))),
            ("softmax_bandit", _in_float64(_bandit)),
            two_state("two_state, cut", num_steps=3, whole=False),
            ("two_state, other data", _in_float64(_two_state_other)),
            ("alias_offpolicy, other data", _in_float64(lambda: _alias_offpolicy(True))),
            ("scalar_lqr", _in_float64(lambda: lqr_problem("scalar_lqr", *scalar_lqr(), num_steps=3))),
            two_state("two_state, endless"),
        ]
    )


def _in_float64(build: Callable[[], Any]) -> Callable[[], Any]:
    def built() -> Any:
        with jax.enable_x64(True):
            return build()

    return built


def _alias_discount() -> TabularProblem:
    mdp, policy = problems.alias_discount()
    params = jnp.array([[0.3, -0.2], [0.0, 0.0]])
    return tabular_problem("alias_discount", mdp, params=params, policy=shared_policy(policy.groups), num_steps=4)


def _alias_offpolicy(other: bool) -> TabularProblem:
    """π(0 | s_0) = 0.9 and 1/2 in the states that look alike; the behaviour takes action 0 once in four times."""
    mdp, policy = problems.alias_offpolicy()
    behaviour = jnp.tile(jnp.array([[0.25, 0.75]]), (mdp.num_states, 1)) if other else None
    return tabular_problem(
        "alias_offpolicy, other data" if other else "alias_offpolicy",
        mdp,
        params=jnp.array([[jnp.log(9.0), 0.0], [0.0, 0.0]]),
        policy=shared_policy(policy.groups),
        num_steps=2,
        behaviour=behaviour,
    )


def _bandit() -> TabularProblem:
    return tabular_problem("softmax_bandit", problems.softmax_bandit(), params=problems.softmax_bandit_logits())


def _two_state_other() -> TabularProblem:
    return tabular_problem(
        "two_state, other data",
        problems.two_state(),
        params=problems.two_state_logits(),
        num_steps=3,
        behaviour=problems.two_state_behaviour(),
    )
