"""What recipes share that go over a window in minibatches: the step down a loss, and what is told of ratios."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from pgjax import diagnostics
from pgjax._types import Policy, Value
from pgjax.losses import value_loss
from pgjax.recipes.acting import read_by
from pgjax.recipes.recipe import Array, Metrics


def minibatch_step(
    loss: Callable[..., tuple[Array, Metrics]], transform: optax.GradientTransformationExtraArgs, *constants: Any
) -> Callable[[Any, Any], tuple[Any, Metrics]]:
    """Make the step that `pgjax.epochs` takes with each minibatch: down the gradient of a loss, by an optimiser.

        (θ, o) <- optimiser(∇ loss(θ, minibatch))

    Shapes: metrics scalars.

    Args:
        loss: loss(params, minibatch, *constants) -> (scalar, metrics).
        transform: the optimiser, from optax, inside `optax.flatten`: the parameters are handed to it as one vector.
        *constants: what the loss is told besides: hyper-parameters, a coefficient.

    Returns:
        step((params, opt_state), minibatch) -> ((params, opt_state), metrics): those of the loss, `grad_norm` before
        the optimiser, and `num_nonfinite`, entries of the gradient that are not finite.

    Raises:
        ValueError: when the step is taken, if opt_state is not that of one vector.
    """

    def step(carry: Any, minibatch: Any) -> tuple[Any, Metrics]:
        params, opt_state = carry
        grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, *constants)
        # All parameters as one vector: the step then takes a few kernels, not a few for each leaf.
        (vector, unravel), (slope, _) = ravel_pytree(params), ravel_pytree(grads)
        of_vector = jax.eval_shape(transform.init, vector)
        if jax.tree.map(jnp.shape, opt_state) != jax.tree.map(jnp.shape, of_vector):
            raise ValueError(
                "opt_state is not that of an optimiser of one vector, as which the parameters are handed to it. "
                "Make the optimiser with optax.flatten(...), and opt_state with its init(params)."
            )
        updates, opt_state = transform.update(slope, opt_state, vector)
        metrics |= {"grad_norm": jnp.linalg.norm(slope), "num_nonfinite": jnp.sum(~jnp.isfinite(slope))}
        return (unravel(optax.apply_updates(vector, updates)), opt_state), metrics

    return step


def value_step(
    value: Value, transform: optax.GradientTransformationExtraArgs, policy: Policy | None = None
) -> Callable[[Any, Any], tuple[Any, Metrics]]:
    """Make the step of a value function that learns by itself: `minibatch_step` down its squared error.

        loss(θ, (s, v)) = mean ½ (V_θ(s) - v)²

    Shapes: rows of obs and targets [N, ...] and [N]; metrics scalars.

    Args:
        value: value(params, obs) -> [N] float, reward units.
        transform: as for `minibatch_step`.
        policy: a feed-forward policy(params, obs) that must not move: parameters that it reads stay as they are, and
            the value learns by what it has to itself. None trains all that the value reads.

    Returns:
        As `minibatch_step`; minibatches are (obs, target), and the metric of the loss is `value_loss`.
    """

    def loss(params: Any, rows: tuple[Any, Array]) -> tuple[Array, Metrics]:
        obs, target = rows
        if policy is not None:
            read = read_by(policy, params, obs)
            params = jax.tree.map(lambda x, is_read: jax.lax.stop_gradient(x) if is_read else x, params, read)
        mean = jnp.mean(value_loss(value(params, obs), target))
        return mean, {"value_loss": mean}

    return minibatch_step(loss, transform)


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
