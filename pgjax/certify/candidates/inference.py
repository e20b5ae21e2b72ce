"""MPO's weighted likelihood as candidates: the gradient of a soft maximum, which for whole trajectories is another."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import expectation as ex
from pgjax.certify.candidates.arguments import FINITE, weight
from pgjax.certify.candidates.candidate import Candidate
from pgjax.estimators import expected_gradient
from pgjax.expectation.laws import many
from pgjax.expectation.sampling import sampled
from pgjax.losses import softmax_weight

Array = jax.Array
F = Callable[[Any], Array]


def inference_candidates() -> list[Candidate]:
    """List the weighted likelihood of MPO at temperature 1, with all actions and with some that are drawn.

    With all actions it follows log E exp f, the objective that its E-step improves. Weights that are normalised over
    the actions drawn are biased.

    Returns:
        The candidates.
    """
    reference = "Abdolmaleki et al. (2018)"
    return [
        Candidate("MPO, all actions", _every_action, claim="exponentiated", needs=(FINITE,), reference=reference),
        Candidate(
            "MPO, 2 actions drawn", _drawn_actions, lambda p, noise: {"num_samples": 2}, claim=None, needs=(FINITE,),
            reference=reference,
        ),
        Candidate(
            "MPO, all actions, exact critic", expected_gradient,
            lambda p, t: {"critic": p.critic, "rule": _every_action, **weight(p, t)}, claim=None,
            needs=("own data", "exact value", FINITE), reference=reference,
        ),
    ]  # fmt: skip


@ex.rule()
def _every_action(distribution: Any, f: F) -> Array:
    """Weight the log-probability of each action by π(a) exp f(a), normalised."""
    actions, probs = distribution.support()
    log_prob = jax.vmap(distribution.log_prob)(actions)
    value = jax.vmap(f)(actions)
    weights = softmax_weight(value + jnp.log(probs), probs > 0.0, temperature=1.0, axis=0)
    mean = jax.lax.stop_gradient(jnp.sum(probs * value, axis=0))
    return mean + ex.gradient_only(jnp.sum(weights * log_prob, axis=0))


@ex.rule(x=many("own"))
def _drawn_actions(distribution: Any, f: F, *, x: Any, num_samples: int) -> Array:
    """Weight the log-probability of each action drawn by exp f(a), normalised over them."""
    actions, log_prob = sampled("_drawn_actions", distribution, x)
    value = jax.vmap(f)(actions)
    weights = softmax_weight(value, temperature=1.0, axis=0)
    return jax.lax.stop_gradient(jnp.mean(value, axis=0)) + ex.gradient_only(jnp.sum(weights * log_prob, axis=0))
