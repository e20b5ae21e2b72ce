"""The linear-quadratic regulator.

    x' = A x + B u + w,   u = -K x + e,   cost xᵀ Q x + uᵀ R u,   J = -E Σ_t γ^t cost_t

w and e are normal with covariances ``noise_covariance`` and ``action_covariance``. Costs are minimised
and objectives maximised: `objective` is minus `cost`, and `policy_gradient` minus `cost_gradient`.
"""

import jax

import pgjax.exact.lqr.gradients as gradients
import pgjax.exact.lqr.optimal as optimal
import pgjax.exact.lqr.stability as stability
import pgjax.exact.lqr.values as values
from pgjax._pytree import validated_pytree
from pgjax.exact.lqr._record import LQRRecord

Array = jax.Array


@validated_pytree
class LQR(LQRRecord):
    """A linear system with quadratic cost and normal noise; the policy is normal around a linear feedback.

    Shapes: n the size of the state, m that of the action; a gain is [m, n].

    The functions of `pgjax.exact.lqr` are its methods as well: ``lqr.cost(gain)`` is ``cost(lqr, gain)``.

    Args:
        A: [n, n] float, the drift.
        B: [n, m] float, the effect of the action.
        Q: [n, n] float, cost of the state, symmetric.
        R: [m, m] float, cost of the action, symmetric.
        noise_covariance: [n, n] float, of w.
        action_covariance: [m, m] float, of the exploration noise e.
        initial_mean: [n] float, mean of the first state.
        initial_covariance: [n, n] float, covariance of the first state.
        discount: γ, scalar in [0, 1], per environment step.
        horizon: number of steps in an episode, or None for infinitely many; static.

    Returns:
        A frozen pytree.

    Raises:
        TypeError: if an array is not floating or horizon is not an int.
        ValueError: if shapes disagree, if discount lies outside [0, 1], or is 1 without horizon.

    Example:
        >>> import pgjax.exact as exact
        >>> lqr, gain = exact.double_integrator()
        >>> print(f"{exact.lqr.cost(lqr, gain):.3f}")
        12.959
    """

    closed_loop = stability.closed_loop
    stable = stability.stable
    check_stable = stability.check_stable
    cost_matrix = values.cost_matrix
    cost_to_go = values.cost_to_go
    state_moment = values.state_moment
    cost = values.cost
    cost_gradient = gradients.cost_gradient
    objective = values.objective
    policy_gradient = gradients.policy_gradient
    value = values.value
    riccati = optimal.riccati

    def action_value(self, gain: Array, x: Array, u: Array) -> Array:
        """Compute `pgjax.exact.lqr.action_value`."""
        return values.action_value(self, gain, x, u=u)
