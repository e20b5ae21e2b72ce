"""Natural gradients and trust regions as optax transforms; update takes the functions that they need."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax import _checks
from pgjax._types import Params
from pgjax.natural._conjugate import conjugate_gradients, dot

Array = jax.Array
Number = Array | float
OfParams = Callable[[Params], Array]

__all__ = [
    "BacktrackState",
    "backtrack",
    "scale_by_natural_gradient",
    "scale_to_divergence",
    "trpo",
]


def scale_by_natural_gradient(
    num_iters: int = 10, damping: Number = 0.1, tol: float = 1e-5
) -> optax.GradientTransformationExtraArgs:
    """Multiply a gradient by the inverse of a Fisher matrix, by conjugate gradients.

        g -> (F + ξ)⁻¹ g

    Shapes: updates like params.

    Args:
        num_iters: iterations at most, each with one product.
        damping: ξ, in the units of F; it keeps directions that F does not see finite.
        tol: relative residual at which the iterations stop.

    Returns:
        An optax transform without state; its update takes `fisher=`, a function v -> F v such as
        `fisher_vector_product` gives.

    Raises:
        TypeError: if num_iters is not an int, or fisher is no function.
        ValueError: if num_iters < 1.

    Properties:
        With damping 0 and enough iterations the distributions move in the same direction however the policy is
        parametrised. Where F is singular, such as in a direction that no distribution depends on, damping is needed.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> transform = pg.natural.scale_by_natural_gradient(damping=0.0)
        >>> state = transform.init(jnp.zeros(2))
        >>> print(transform.update(jnp.ones(2), state, fisher=lambda v: 4.0 * v)[0])
        [0.25 0.25]

    References:
        Amari (1998), Natural gradient works efficiently in learning.
        Kakade (2001), A natural policy gradient.
    """
    num_iters = _checks.as_positive_int("num_iters", num_iters)

    def update(updates: Any, state: Any, params: Any = None, *, fisher: Callable[..., Any], **_: Any) -> Any:
        _checks.require_callable("fisher", fisher)
        damped = lambda v: jax.tree.map(lambda f, x: f + damping * x, fisher(v), v)  # noqa: E731
        return conjugate_gradients(damped, updates, num_iters=num_iters, tol=tol), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_to_divergence(
    max_kl: Number = 0.01, max_scale: Number | None = None
) -> optax.GradientTransformationExtraArgs:
    """Scale a step to a divergence, in the quadratic model that the Fisher matrix gives of it.

        x -> x min(η, √(2 δ / xᵀ F x)),   so that ½ xᵀ F x = δ, or less

    Shapes: updates like params.

    Args:
        max_kl: δ, nats.
        max_scale: η, by how much a step is scaled at most; None sets no bound.

    Returns:
        An optax transform without state; its update takes `fisher=`, a function v -> F v. A step of which F sees
        nothing, or that is not finite, becomes 0.

    Raises:
        TypeError: if fisher is no function.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> transform = pg.natural.scale_to_divergence(0.5)
        >>> print(transform.update(jnp.array([3.0]), transform.init(jnp.zeros(1)), fisher=lambda v: 4.0 * v)[0])
        [0.5]

    References:
        Schulman, Levine, Moritz, Jordan and Abbeel (2015), Trust region policy optimization, appendix C.
        Wu, Mansimov, Grosse, Liao and Ba (2017), Scalable trust-region method for deep reinforcement learning using
        Kronecker-factored approximation, whose bound on the scale is the learning rate.
    """

    def update(updates: Any, state: Any, params: Any = None, *, fisher: Callable[..., Any], **_: Any) -> Any:
        _checks.require_callable("fisher", fisher)
        square = dot(updates, fisher(updates))
        allowed = (square > 0) & jnp.isfinite(square)
        scale = jnp.where(allowed, jnp.sqrt(2 * max_kl / jnp.where(allowed, square, 1.0)), 0.0)
        scale = scale if max_scale is None else jnp.minimum(scale, max_scale)
        return jax.tree.map(lambda x: jnp.where(allowed, scale * x, 0.0).astype(x.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class BacktrackState(NamedTuple):
    """What the last line search came to."""

    scale: Array  # share of the step that was taken; 0 if none was allowed
    divergence: Array  # at the new parameters, nats
    improvement: Array  # by how much the objective fell


def backtrack(
    max_kl: Number = 0.01, shrink: Number = 0.8, max_steps: int = 10
) -> optax.GradientTransformationExtraArgs:
    """Shorten a step until the divergence is allowed and the objective falls; without such a step take none.

        the first j = 0, 1, ... with  KL(θ + αʲ x) ≤ δ  and  L(θ + αʲ x) < L(θ)

    Shapes: updates like params; scalars in the state.

    Args:
        max_kl: δ, nats, at least 0.
        shrink: α, in (0, 1).
        max_steps: how many lengths are tried.

    Returns:
        An optax transform whose state is a `BacktrackState`. Its update takes params, `objective=` and `divergence=`,
        functions of params that give scalars: what is minimised, and the mean divergence from the old policy.

    Raises:
        TypeError: if max_steps is not an int, params is missing, or objective or divergence is no function.
        ValueError: if max_steps < 1, or if a known max_kl or shrink is out of its range.

    Properties:
        The bound holds for the sample on which divergence is measured; what is not a number is never taken. A
        divergence above δ by the rounding of 64 units in the last place counts as δ: a step that was scaled to δ is not
        shortened for it.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> transform = pg.natural.backtrack(max_kl=0.3, shrink=0.5)
        >>> step, state = transform.update(
        ...     jnp.array(-1.0), transform.init(jnp.array(1.0)), jnp.array(1.0),
        ...     objective=lambda x: x**2, divergence=lambda x: (x - 1.0) ** 2)
        >>> print(step, state.scale)
        -0.5 0.5

    References:
        Schulman, Levine, Moritz, Jordan and Abbeel (2015), Trust region policy optimization, appendix C.
    """
    _checks.require_nonnegative("max_kl", max_kl)
    _checks.require_open_unit_interval("shrink", shrink)
    max_steps = _checks.as_positive_int("max_steps", max_steps)

    def init(params: Any) -> BacktrackState:
        return BacktrackState(*(jnp.zeros((), jnp.float32) for _ in BacktrackState._fields))

    def update(
        updates: Any, state: Any, params: Any = None, *, objective: OfParams, divergence: OfParams, **_: Any
    ) -> Any:
        _checks.require_callable("objective", objective)
        _checks.require_callable("divergence", divergence)
        if params is None:
            raise TypeError("backtrack needs params: update(updates, state, params, objective=, divergence=).")
        start = objective(params)
        scaled = lambda scale: jax.tree.map(lambda x: (scale * x).astype(x.dtype), updates)  # noqa: E731

        def look(scale: Array) -> tuple[Array, Array, Array]:
            there = optax.apply_updates(params, scaled(scale))
            kl, gain = jnp.asarray(divergence(there)), start - objective(there)
            return kl, gain, (kl <= max_kl * (1.0 + 64.0 * jnp.finfo(kl.dtype).eps)) & (gain > 0)

        def shorten(carry: Any) -> Any:
            number, scale, *_ = carry
            scale = (scale * shrink).astype(scale.dtype)
            return number + 1, scale, *look(scale)

        one = jnp.ones((), start.dtype)
        _, scale, kl, gain, good = jax.lax.while_loop(
            lambda carry: (carry[0] < max_steps) & ~carry[-1], shorten, (jnp.int32(1), one, *look(one))
        )
        taken = jax.tree.map(lambda x: jnp.where(good, scale * x, 0.0).astype(x.dtype), updates)
        found = (jnp.where(good, x, 0.0).astype(jnp.float32) for x in (scale, kl, gain))
        return taken, BacktrackState(*found)

    return optax.GradientTransformationExtraArgs(init, update)


def trpo(
    max_kl: Number = 0.01, num_iters: int = 10, damping: Number = 0.1, *, shrink: Number = 0.8, max_steps: int = 10
) -> optax.GradientTransformationExtraArgs:
    """Make the step of trust region policy optimisation out of a descent direction's gradient.

        x = (F + ξ)⁻¹ g;   Δθ = -αʲ √(2 δ / xᵀ F x) x,   j the first with KL ≤ δ and a lower objective

    Shapes: updates like params.

    Args:
        max_kl: δ, the mean divergence from the old policy that is allowed, nats.
        num_iters: iterations of conjugate gradients.
        damping: ξ, in the units of F.
        shrink: α of the line search.
        max_steps: lengths that the line search tries.

    Returns:
        An optax transform: update(grads, state, params, fisher=, objective=, divergence=) gives what
        `optax.apply_updates` adds. The last entry of its state is the `BacktrackState`.

    Raises:
        TypeError: if a count is not an int, or an argument of update is missing.
        ValueError: if a count is below 1.

    Properties:
        The direction is the natural gradient's. grads is the gradient of objective at params; parameters that objective
        does not depend on stay as they are.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> transform, logits = pg.natural.trpo(), jnp.zeros(2)
        >>> policy = lambda logits, obs: pg.Categorical(obs @ logits[None])
        >>> obs, old = jnp.ones((1, 1)), pg.Categorical(jnp.zeros((1, 2)))
        >>> objective = lambda logits: -policy(logits, obs).probs[0, 0]
        >>> step, state = transform.update(
        ...     jax.grad(objective)(logits), transform.init(logits), logits, objective=objective,
        ...     fisher=pg.natural.fisher_vector_product(logits, obs, policy=policy),
        ...     divergence=lambda logits: old.kl_divergence(policy(logits, obs)).mean())
        >>> print(f"{old.kl_divergence(policy(step, obs))[0]:.4f} nats")
        0.0100 nats

    References:
        Schulman, Levine, Moritz, Jordan and Abbeel (2015), Trust region policy optimization, section 6 and appendix C.
    """
    return optax.chain(
        scale_by_natural_gradient(num_iters, damping),
        scale_to_divergence(max_kl),
        optax.scale(-1.0),
        backtrack(max_kl, shrink, max_steps),
    )
