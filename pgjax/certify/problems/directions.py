"""The directions of a tabular problem: those that may be claimed, and those that common mistakes lead to.

Each is Σ_{s,a} w(s, a) ∇π(a | s): the table w, a *sensitivity*, is all that tells one from another.
"""

from typing import Any

import numpy as np

from pgjax.exact.tabular.objectives import dropped_discount_sensitivity
from pgjax.exact.tabular.values import running_visitation

Table = Any  # NumPy [S, A]


def sensitivities(problem: Any) -> dict[str, Table]:
    """Compute the sensitivities of the directions of a tabular problem.

        w(s, a) = Σ_t γ^t Pr(s_t = s) A(s, a),  t < num_steps, and the variants that `PHRASES` names

    Shapes: results [S, A].

    Args:
        problem: a `TabularProblem`.

    Returns:
        By name, the gradient of the objective first; without those that do not exist on the problem.
    """
    reward = np.asarray(problem.mdp.reward)
    advantage = _advantage(problem, problem.discount, np.asarray(problem.state_value))
    if problem.num_steps is None:
        visits, elsewhere = (np.asarray(running_visitation(problem.mdp, p)) for p in (problem.probs, problem.collector))
        return {
            "discounted": visits[:, None] * advantage,
            "dropped discount": np.asarray(dropped_discount_sensitivity(problem.mdp, problem.probs)),
            "off-policy": elsewhere[:, None] * advantage,
            "immediate rewards": visits[:, None] * reward,
        }
    states = problem.states_over_time(problem.probs)

    def visits_of(base: float, states: Any = states) -> Table:
        return (base ** np.arange(problem.num_steps) @ states)[:, None]

    found = {
        "discounted": visits_of(problem.discount) * advantage,
        "dropped discount": visits_of(1.0) * advantage,
        "off-policy": visits_of(problem.discount, problem.states_over_time(problem.collector)) * advantage,
        "twice discounted": visits_of(problem.discount**2) * advantage,
        "immediate rewards": visits_of(problem.discount) * reward,
        "immediate rewards, dropped discount": visits_of(1.0) * reward,
    }
    if not problem.whole:
        return found | {"up to the cut": _up_to_the_cut(problem, states)}
    undiscounted = _advantage(problem, 1.0, _values_to_go(problem, 1.0)[-1])
    return found | {
        "undiscounted": visits_of(1.0) * undiscounted,
        "undiscounted returns": visits_of(problem.discount) * undiscounted,
    }


def _advantage(problem: Any, discount: float, value: Any, before: Any = None) -> Table:
    """r + γ P V - V; `before` is the value of the state itself where it is another function."""
    after = np.asarray(problem.mdp.transition) @ value
    return np.asarray(problem.mdp.reward) + discount * after - (value if before is None else before)[:, None]


def _values_to_go(problem: Any, discount: float) -> Any:
    """[num_steps + 1, S]: the expected return of the next 0, 1, ... steps."""
    probs, reward = np.asarray(problem.probs), np.asarray(problem.mdp.reward)
    chain = np.einsum("sa,sat->st", probs, np.asarray(problem.mdp.transition))
    values = [np.zeros(len(reward))]
    for _ in range(problem.num_steps):
        values.append((probs * reward).sum(1) + discount * chain @ values[-1])
    return np.stack(values)


def _up_to_the_cut(problem: Any, states: Any) -> Table:
    """As if nothing followed the last step of the trajectory."""
    values, steps, discount = _values_to_go(problem, problem.discount), problem.num_steps, problem.discount
    each = [
        discount**t * states[t][:, None] * _advantage(problem, discount, values[steps - t - 1], values[steps - t])
        for t in range(steps)
    ]
    return np.sum(each, axis=0)
