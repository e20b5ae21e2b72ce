"""Scores, the gradients of log-probabilities, of a policy table."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._compile import compiled
from pgjax._types import Params

Array = jax.Array
PolicyProbs = Callable[[Params], Array]


@compiled()
def softmax_score(probs: Array) -> Array:
    """Compute the score of a tabular softmax policy with respect to its logits.

        ∂ log π(a | s) / ∂θ(s', b) = 1[s = s'] (1[a = b] - π(b | s))

    Shapes: probs [S, A]; result [S, A, S * A].

    Args:
        probs: [S, A] float, the policy.

    Returns:
        [S, A, S * A] float; the last axis is logits [S, A] raveled.

    Raises:
        TypeError: if probs is not floating.
        ValueError: if probs has fewer than two axes.
    """
    probs = _checks.as_floating("probs", probs, ndim_at_least=2)
    states, actions = probs.shape
    within = jnp.eye(actions, dtype=probs.dtype)[None] - probs[:, None, :]
    blocks = jnp.eye(states, dtype=probs.dtype)[:, None, :, None] * within[:, :, None, :]
    return blocks.reshape(states, actions, states * actions)


@compiled("policy_probs")
def score_of(params: Params, policy_probs: PolicyProbs) -> Array:
    """Compute the score of any differentiable policy, for instance a network on aliased states.

        ψ(s, a) = ∇_θ log π_θ(a | s);  zero where π = 0

    Shapes: result [S, A, P], P the number of parameters.

    Args:
        params: any pytree of P parameters.
        policy_probs: params -> [S, A] float, probabilities.

    Returns:
        [S, A, P] float; the last axis is params raveled.

    Raises:
        TypeError: if policy_probs is not a function.
    """
    _checks.require_callable("policy_probs", policy_probs)
    flat, unravel = ravel_pytree(params)
    probs = policy_probs(params)
    # One backward pass for each entry of the table, or one forward pass for each parameter: the fewer.
    jacobian = jax.jacrev if probs.size < flat.size else jax.jacfwd
    slopes = jacobian(lambda x: policy_probs(unravel(x)))(flat)
    positive = probs[..., None] > 0
    return jnp.where(positive, slopes / jnp.where(positive, probs[..., None], 1.0), 0.0)
