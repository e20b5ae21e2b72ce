"""REINFORCE with the return of the whole episode: exact moments and optimal baselines."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.exact.tabular._arguments import checked_policy, require_horizon
from pgjax.exact.tabular.mdp import TabularMDP, terminal_states
from pgjax.exact.variance._coefficients import checked_score
from pgjax.exact.variance.moments import Moments

Array = jax.Array


@struct.dataclass
class ReturnMoments:
    """Joint moments of the discounted return R and the total score S of an episode, for powers j = 0, 1, 2 of R.

    Shapes: plain [3]; score [3, P]; square [3, P, P].

    Args:
        plain: E R^j.
        score: E S R^j.
        square: E S Sᵀ R^j.

    Returns:
        A frozen pytree.
    """

    plain: Array
    score: Array
    square: Array


@compiled()
def return_moments(mdp: TabularMDP, probs: Array, *, score: Array | None = None) -> ReturnMoments:
    """Compute the joint moments of the return and the total score of an episode of H steps.

        R = r + γ R',  S = ψ + S',   E[S^i R^j | s] by the binomial formula from those of s'

    Shapes: probs [S, A]; result [3], [3, P], [3, P, P].

    Args:
        mdp: the process, a `TabularMDP` whose horizon is set: without one S has infinite variance.
        probs: [S, A] float, the policy.
        score: [S, A, P] float; None is that of a tabular softmax policy.

    Returns:
        ReturnMoments.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process or mdp has no horizon.
    """
    horizon = require_horizon(mdp, "return_moments")
    probs = checked_policy(mdp, probs)
    score = checked_score(mdp, probs, score)
    running = jnp.where(terminal_states(mdp)[:, None], 0.0, probs)
    # factor[j, m] = C(j, m) r^(j - m) γ^m: the share of R'^m in R^j.
    factor = jnp.stack(
        [
            jnp.stack([math.comb(j, m) * mdp.reward ** max(j - m, 0) * mdp.discount**m for m in range(3)])
            for j in range(3)
        ]
    )
    ended = jnp.where(terminal_states(mdp), 1.0, 0.0)

    def step(after: ReturnMoments, _: None) -> tuple[ReturnMoments, None]:
        def ahead(x: Array) -> Array:
            """Σ_m factor[j, m] Σ_s' P x_m(s'), for each (j, s, a)."""
            return jnp.einsum("jmsa,sau,mu...->jsa...", factor, mdp.transition, x)

        plain, scored, square = ahead(after.plain), ahead(after.score), ahead(after.square)
        cross = jnp.einsum("sap,jsaq->jsapq", score, scored)
        both = jnp.einsum("sap,saq,jsa->jsapq", score, score, plain) + cross + jnp.swapaxes(cross, -1, -2) + square
        now = ReturnMoments(plain, jnp.einsum("sap,jsa->jsap", score, plain) + scored, both)
        now = jax.tree.map(lambda x: jnp.einsum("sa,jsa...->js...", running, x), now)
        return dataclasses.replace(now, plain=now.plain.at[0].add(ended)), None

    states, params = mdp.num_states, score.shape[-1]
    shapes = [(3, states), (3, states, params), (3, states, params, params)]
    dtype = jnp.result_type(mdp.reward, probs, score)
    end = ReturnMoments(*(jnp.zeros(shape, dtype) for shape in shapes))
    end = dataclasses.replace(end, plain=end.plain.at[0].set(1.0))
    first = jax.lax.scan(step, end, length=horizon)[0]
    return jax.tree.map(lambda x: jnp.einsum("s,js...->j...", mdp.initial, x), first)


@compiled()
def reinforce_moments(
    mdp: TabularMDP, probs: Array, *, baseline: Array | float = 0.0, score: Array | None = None
) -> Moments:
    """Compute the exact mean and covariance of REINFORCE with the return of the whole episode (ascent).

        (R - b) S,  R = Σ_t γ^t r_t,  S = Σ_t ψ_t

    Shapes: probs [S, A]; result [P] and [P, P].

    Args:
        mdp, probs, score: as for `return_moments`.
        baseline: b, scalar, or [P] with one for each parameter; reward units.

    Returns:
        Moments.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process or mdp has no horizon.

    Properties:
        The mean is the gradient of the objective for every baseline.

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    moments = return_moments(mdp, probs, score=score)
    params = moments.score.shape[1:]
    b = jnp.broadcast_to(_checks.as_scalar_or_shape("baseline", baseline, params), params)
    mean = moments.score[1] - b * moments.score[0]
    linear, constant = b[:, None] + b[None, :], b[:, None] * b[None, :]
    second = moments.square[2] - linear * moments.square[1] + constant * moments.square[0]
    return Moments(mean, second - jnp.outer(mean, mean))


@compiled()
def optimal_return_baseline(mdp: TabularMDP, probs: Array, *, score: Array | None = None) -> Array:
    """Compute the constant that is best subtracted from the return of the whole episode.

        b = E[‖S‖² R] / E[‖S‖²]

    Shapes: probs [S, A]; result scalar.

    Args:
        mdp, probs, score: as for `return_moments`.

    Returns:
        Scalar float, reward units; zero if the score is always zero.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process or mdp has no horizon.

    References:
        Greensmith, Bartlett and Baxter (2004), Variance reduction techniques for gradient estimates in
        reinforcement learning.
    """
    square = jnp.trace(return_moments(mdp, probs, score=score).square, axis1=1, axis2=2)
    return _ratio(square[1], square[0])


@compiled()
def optimal_parameter_baseline(mdp: TabularMDP, probs: Array, *, score: Array | None = None) -> Array:
    """Compute the constants, one for each parameter, that are best subtracted from the return of the whole episode.

        b_h = E[S_h² R] / E[S_h²]

    Shapes: probs [S, A]; result [P].

    Args:
        mdp, probs, score: as for `return_moments`.

    Returns:
        [P] float, reward units; zero where the score is always zero.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes do not fit the process or mdp has no horizon.

    References:
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    square = jnp.diagonal(return_moments(mdp, probs, score=score).square, axis1=1, axis2=2)
    return _ratio(square[1], square[0])


def _ratio(above: Array, below: Array) -> Array:
    return jnp.where(below > 0, above / jnp.where(below > 0, below, 1.0), 0.0)
