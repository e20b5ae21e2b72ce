"""What recipes share that go over a window in minibatches: the step down a loss, and what is told of ratios."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from pgjax import diagnostics
from pgjax.recipes.recipe import Array, Metrics


def minibatch_step(
    loss: Callable[..., tuple[Array, Metrics]], transform: optax.GradientTransformationExtraArgs, *constants: Any
) -> Callable[[Any, Any], tuple[Any, Metrics]]:
    """Make the step that `pgjax.epochs` takes with each minibatch: down the gradient of a loss, by an optimiser.

        (θ, o) <- optimiser(∇ loss(θ, minibatch))

    Shapes: metrics scalars.

    Args:
        loss: loss(params, minibatch, *constants) -> (scalar, metrics).
        transform: the optimiser, from optax.
        *constants: what the loss is told besides: hyper-parameters, a coefficient.

    Returns:
        step((params, opt_state), minibatch) -> ((params, opt_state), metrics): those of the loss, `grad_norm` before
        the optimiser, and `num_nonfinite`, entries of the gradient that are not finite.
    """

    def step(carry: Any, minibatch: Any) -> tuple[Any, Metrics]:
        params, opt_state = carry
        grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, *constants)
        updates, opt_state = transform.update(grads, opt_state, params)
        flat = ravel_pytree(grads)[0]
        metrics |= {"grad_norm": jnp.linalg.norm(flat), "num_nonfinite": jnp.sum(~jnp.isfinite(flat))}
        return (optax.apply_updates(params, updates), opt_state), metrics

    return step


def ratio_metrics(log_ratio: Array, *, clip: Array | float) -> Metrics:
    """Summarise the ratios of a clipped objective.

    Shapes: log_ratio [...]; scalars.

    Args:
        log_ratio: of the policy that learns to that which acted, nats.
        clip: ε of the ratio.

    Returns:
        `kl`, `clip_fraction` and `bound_fraction`, as `pgjax.diagnostics` has them.
    """
    return {
        "kl": diagnostics.approximate_kl(log_ratio),
        "clip_fraction": diagnostics.clip_fraction(log_ratio, clip=clip),
        "bound_fraction": diagnostics.bound_fraction(log_ratio),
    }
