"""The problems that every estimator is certified on: short enough to list every trajectory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._types import Params
from pgjax.certify.problems._float64 import built_in_float64
from pgjax.certify.problems.building import shared_policy, tabular_problem
from pgjax.certify.problems.expectation import ExpectationProblem, expectation_problem
from pgjax.certify.problems.lqr import lqr_problem
from pgjax.certify.problems.search import SearchProblem, search_problem
from pgjax.certify.problems.tabular import TabularProblem
from pgjax.distributions import Bernoulli, Normal, OneHotCategorical
from pgjax.exact.problems import tabular as problems
from pgjax.exact.problems.gridworlds import cliff4x12
from pgjax.exact.problems.lqr import scalar_lqr
from pgjax.exact.tabular import values_over_time

Array = jax.Array

START = np.array([0.5, -0.8])  # where the searches of two parameters begin


def certificate_problems() -> dict[str, Callable[[], Any]]:
    """List the problems of the certificates by name: processes for estimators, with few steps, and then expectations.

    Episodes are whole except in "two_state, cut", whose trajectories a time limit cuts; the data are the policy's own
    except in the two off-policy problems; trajectories have no end in "two_state, endless". The expectations are those
    under a normal, a one-hot and a Bernoulli distribution, of functions that are not linear, for rules. The searches
    are those for the least of a function of two parameters, and for the greatest return of two processes.

    Returns:
        Functions without arguments that build them, in float64.
    """

    def sine(name: str, build: Callable[[], Any], num_steps: int) -> tuple[str, Callable[[], TabularProblem]]:
        return name, built_in_float64(lambda: tabular_problem(name, build(), num_steps=num_steps))

    def two_state(name: str, **kwargs: Any) -> tuple[str, Callable[[], TabularProblem]]:
        return name, built_in_float64(
            lambda: tabular_problem(name, problems.two_state(), params=problems.two_state_logits(), **kwargs)
        )

    return dict(
        [
            two_state("two_state", num_steps=4),
            sine("chain5", problems.chain5, 4),
            sine("riverswim6", problems.riverswim6, 5),
            sine("cliff4x12", cliff4x12, 4),
            sine("garnet8x3", problems.garnet8x3, 2),
            ("alias_discount", built_in_float64(_alias_discount)),
            ("alias_offpolicy", built_in_float64(lambda: _alias_offpolicy(False))),
            ("softmax_bandit", built_in_float64(_bandit)),
            two_state("two_state, cut", num_steps=3, whole=False),
            ("two_state, other data", built_in_float64(_two_state_other)),
            ("alias_offpolicy, other data", built_in_float64(lambda: _alias_offpolicy(True))),
            ("scalar_lqr", built_in_float64(lambda: lqr_problem("scalar_lqr", *scalar_lqr(), num_steps=3))),
            two_state("two_state, endless"),
            ("normal", _normal),
            ("one-hot", _one_hot),
            ("Bernoulli", _bernoulli),
            ("search", lambda: _search("search")),
            ("search, quadratic", _search_quadratic),
            ("search, mean and scale", lambda: _search("search, mean and scale", free_scale=True)),
            ("search, scalar_lqr", _search_lqr),
            ("search, two_state", _search_two_state),
        ]
    )


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


def _normal() -> ExpectationProblem:
    """Two components that f joins; it depends on the parameters as well."""

    def f(params: Params, x: Array) -> Array:
        return jnp.sin(x[..., 0]) + x[..., 0] * x[..., 1] ** 2 + jnp.sum(params["loc"] * x, axis=-1)

    def distribution(params: Params) -> Normal:
        return Normal(params["loc"], jnp.exp(params["log_scale"]))

    params = {"loc": np.array([0.3, -0.7]), "log_scale": np.array([-0.5, 0.2])}
    return expectation_problem("normal", distribution, f, params=params, num_nodes=20)


def _one_hot() -> ExpectationProblem:
    values = np.array([0.2, 1.1, -0.6])

    def f(params: Params, x: Array) -> Array:
        return jnp.square(jnp.sum(values * x, axis=-1) - 0.45)

    return expectation_problem("one-hot", OneHotCategorical, f, params=np.array([0.4, -0.3, 0.1]))


def _bernoulli() -> ExpectationProblem:
    """The toy problem of Tucker et al. (2017), away from one half."""

    def f(params: Params, x: Array) -> Array:
        return jnp.square(x[..., 0] - 0.45)

    return expectation_problem("Bernoulli", Bernoulli, f, params=np.array([0.4]))


def _search(name: str, **more: Any) -> SearchProblem:
    """Neither even nor odd around the start, so that both sides matter."""

    def f(x: Array) -> Array:
        return jnp.sin(2.0 * x[0]) + x[0] * x[1] ** 2 + 0.5 * x[1] ** 4

    return search_problem(name, f, params=START, scale=0.3, num_nodes=16, **more)


def _search_quadratic() -> SearchProblem:
    def f(x: Array) -> Array:
        return 0.8 + 1.5 * x[0] - 0.6 * x[1] + 0.45 * x[0] ** 2 + 0.4 * x[0] * x[1] - 0.65 * x[1] ** 2

    return search_problem("search, quadratic", f, params=START, scale=0.3, num_nodes=8)


def _search_lqr() -> SearchProblem:
    """Minus the exact return of a gain, a polynomial in it."""
    problem = lqr_problem("scalar_lqr", *scalar_lqr(), num_steps=3)
    return search_problem(
        "search, scalar_lqr", lambda gain: -problem.lqr.objective(gain), params=problem.params, scale=0.1, num_nodes=16
    )


def _search_two_state() -> SearchProblem:
    """Minus the exact return of a table of logits."""
    with jax.enable_x64(True):
        mdp = problems.two_state().replace(horizon=3)

    def lost(logits: Array) -> Array:
        return -mdp.initial @ values_over_time(mdp, jax.nn.softmax(logits))[0]

    return search_problem("search, two_state", lost, params=problems.two_state_logits(), scale=0.2, num_nodes=8)
