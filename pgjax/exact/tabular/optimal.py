"""Optimal policies and their values."""

import jax
import jax.numpy as jnp

from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import require_no_horizon
from pgjax.exact.tabular.mdp import TabularMDP
from pgjax.exact.tabular.values import action_value

Array = jax.Array


@compiled()
def optimal_policy(mdp: TabularMDP) -> Array:
    """Find an optimal deterministic policy by policy iteration.

        π_{k+1}(s) = argmax_a Q_{π_k}(s, a), until no action is better than the one in use

    Shapes: result [S, A].

    Args:
        mdp: the process, a `TabularMDP` without horizon (with one, the optimal policy depends on time).

    Returns:
        [S, A] float, one-hot rows.

    Raises:
        ValueError: if mdp has a horizon.

    Example:
        >>> import pgjax.exact as exact
        >>> print(exact.optimal_policy(exact.two_state()))
        [[0. 1.]
         [0. 1.]]
    """
    require_no_horizon(mdp, "optimal_policy")
    one_hot = jax.nn.one_hot
    uniform = jnp.full_like(mdp.reward, 1.0 / mdp.num_actions)
    # The uniform policy ends every episode that can end, so that its value exists even without discount.
    first = jnp.argmax(action_value(mdp, uniform), axis=1)
    tolerance = 100 * jnp.finfo(mdp.reward.dtype).eps

    def improve(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        action, _ = carry
        values = action_value(mdp, one_hot(action, mdp.num_actions, dtype=mdp.reward.dtype))
        best = jnp.max(values, axis=1)
        current = jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]
        # Equal actions are not exchanged: rounding would exchange them forever.
        better = best > current + tolerance * (1.0 + jnp.max(jnp.abs(values)))
        return jnp.where(better, jnp.argmax(values, axis=1), action), jnp.any(better)

    action, _ = jax.lax.while_loop(lambda carry: carry[1], improve, (first, jnp.asarray(True)))
    return one_hot(action, mdp.num_actions, dtype=mdp.reward.dtype)


@compiled()
def optimal_value(mdp: TabularMDP) -> Array:
    """Compute the value of each state under the best policy.

        V*(s) = max_a [r(s, a) + γ Σ_s' P(s' | s, a) V*(s')];  with horizon H, V* of the first step

    Shapes: result [S].

    Args:
        mdp: the process, a `TabularMDP`.

    Returns:
        [S] float, reward units; ``mdp.initial @ optimal_value(mdp)`` is the best objective.
    """
    if mdp.horizon is None:
        return jnp.max(action_value(mdp, optimal_policy(mdp)), axis=1)

    def step(value: Array, _: None) -> tuple[Array, None]:
        return jnp.max(mdp.reward + mdp.discount * mdp.transition @ value, axis=1), None

    return jax.lax.scan(step, jnp.zeros_like(mdp.initial), length=mdp.horizon)[0]
