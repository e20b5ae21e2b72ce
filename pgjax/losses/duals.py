"""What temperatures and multipliers minimise, so that a constraint on a divergence holds."""

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled
from pgjax.losses.weights import Axis, as_temperature, below_greatest

Array = jax.Array


@compiled("axis")
def softmax_temperature_loss(
    value: Array,
    mask: Array | None = None,
    *,
    temperature: Array | float,
    max_kl: Array | float,
    axis: Axis = None,
) -> Array:
    """Compute the dual whose minimum over the temperature of `softmax_weight` keeps the weights near equal ones.

        L = η ε + η log [ Σ_i m_i exp(stop(x_i) / η) / Σ_i m_i ]

    MPO: x = Q [N, T, ...] of actions drawn in each state, axis=0, the result averaged over states. V-MPO: x = A
    [T, ...], mask=top_half(A), all axes.

    Shapes: value, mask [...]; result [...] without the axes named.

    Args:
        value: [...] float, reward units; a constant here.
        mask: [...] bool, the entries that count; None counts all.
        temperature: η > 0, reward units, a scalar, differentiable. Keep it positive, for instance as the softplus of a
            parameter: below 1e-8 it is taken as 1e-8 and has no gradient.
        max_kl: ε, nats, the divergence of the weighted actions from the policy that drew them; scalar.
        axis: axes that the softmax runs over; None means all of them; static.

    Returns:
        The dual, reward units; η ε where nothing counts. Entries outside the mask may be anything.

    Raises:
        TypeError: if value is not floating or mask is not boolean.
        ValueError: if shapes differ, value is empty, or temperature or max_kl is no scalar.

    Properties:
        Convex in η. Its derivative is ε - KL(w ‖ equal weights), w those of `softmax_weight`, so that it is least where
        the divergence is ε, and tends to η = 0 where no temperature spends so much. The mean inside the logarithm
        makes it biased by O(1/N) for the dual of infinitely many actions.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.softmax_temperature_loss(jnp.ones(3), temperature=2.0, max_kl=0.5))
        2.0

    References:
        Abdolmaleki et al. (2018), Maximum a posteriori policy optimisation.
        Song et al. (2020), V-MPO: on-policy maximum a posteriori policy optimization for discrete and continuous
        control.
    """
    below, counts, top = jax.lax.stop_gradient(below_greatest(value, mask, axis))
    temperature, max_kl = as_temperature(temperature), _checks.as_scalar_or_shape("max_kl", max_kl, ())
    # Less the greatest before the quotient: neither exponent overflows, and η keeps its gradient through x / η.
    total = jnp.where(counts, jnp.exp(below / temperature), 0.0).sum(axis)
    count = counts.sum(axis)
    log_mean = jnp.log(jnp.where(count == 0, 1.0, total) / jnp.maximum(count, 1))
    return temperature * max_kl + top.reshape(log_mean.shape) + temperature * log_mean


@compiled()
def kl_constraint_loss(kl: Array, *, multiplier: Array | float, max_kl: Array | float) -> Array:
    """Compute the loss that makes a policy keep a divergence below a bound, and its multiplier enforce it.

        L_t = stop(α) KL_t + α (ε - stop(KL_t))

    MPO and V-MPO add one for each constraint. Decoupled, a normal policy has two, its mean's
    old.kl_divergence(pg.Normal(new.loc, old.scale)) and its scale's old.kl_divergence(pg.Normal(old.loc, new.scale)),
    each with a multiplier and a bound of its own.

    Shapes: kl [T, ...]; result [T, ...].

    Args:
        kl: [T, ...] float, nats, for instance old.kl_divergence(new); differentiable.
        multiplier: α >= 0, reward units per nat, scalar or [T, ...], differentiable. Keep it positive, for instance as
            the softplus of a parameter.
        max_kl: ε, nats, scalar or [T, ...].

    Returns:
        [T, ...] float. Only its gradient has a meaning.

    Raises:
        TypeError: if kl is not floating.
        ValueError: if shapes differ.

    Properties:
        The policy's gradient is α ∇KL; the multiplier's is ε - KL, so that descent raises it while the divergence
        exceeds the bound. Neither sees the other's part. A multiplier for each dimension is broadcast by the caller.

    Example:
        >>> import jax, jax.numpy as jnp, pgjax as pg
        >>> print(jax.grad(lambda a: pg.kl_constraint_loss(jnp.ones(1), multiplier=a, max_kl=0.25).sum())(2.0))
        -0.75

    References:
        Abdolmaleki et al. (2018), Relative entropy regularized policy iteration.
        Song et al. (2020), V-MPO: on-policy maximum a posteriori policy optimization for discrete and continuous
        control.
    """
    kl = _checks.as_floating("kl", kl)
    multiplier = _checks.as_scalar_or_shape("multiplier", multiplier, kl.shape)
    max_kl = _checks.as_scalar_or_shape("max_kl", max_kl, kl.shape)
    return jax.lax.stop_gradient(multiplier) * kl + multiplier * (max_kl - jax.lax.stop_gradient(kl))


@compiled()
def adapt_kl_coefficient(
    coefficient: Array | float,
    kl: Array | float,
    *,
    target: Array | float,
    factor: Array | float = 2.0,
    tolerance: Array | float = 1.5,
) -> Array:
    """Adapt the weight of a divergence penalty to the divergence that an update reached.

        β <- β f   if KL > 1.5 d_targ
        β <- β / f if KL < d_targ / 1.5

    Shapes: coefficient, kl [...]; result alike.

    Args:
        coefficient: β >= 0, the weight that was used, scalar or [...].
        kl: the mean divergence between the policies before and after the update, nats, scalar or [...].
        target: d_targ, nats.
        factor: f, at least 1; 1 leaves β as it is.
        tolerance: what stands as 1.5 above, at least 1.

    Returns:
        The weight for the next update, at least float32; a constant. It stays between 1e-8 and 1e8, so that a policy
        that rests for long does not lose the penalty for ever; a weight of 0 stays 0.

    Raises:
        TypeError: if an argument is no number.
        ValueError: if shapes do not broadcast.

    Properties:
        Only the ratio to the target counts, so that the rule does not depend on the scale of advantages. A divergence
        that is NaN changes nothing.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.adapt_kl_coefficient(jnp.ones(3), jnp.array([0.02, 0.01, 0.005]), target=0.01))
        [2.  1.  0.5]

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, section 4.
    """
    kl = _checks.as_floating("kl", kl)
    coefficient = _checks.as_scalar_or_shape("coefficient", coefficient, kl.shape)
    coefficient = coefficient.astype(jnp.promote_types(coefficient.dtype, jnp.float32))
    target, factor, tolerance = (
        _checks.as_scalar_or_shape(name, x, kl.shape)
        for name, x in (("target", target), ("factor", factor), ("tolerance", tolerance))
    )
    changed = jnp.where(
        kl > tolerance * target,
        coefficient * factor,
        jnp.where(kl < target / tolerance, coefficient / factor, coefficient),
    )
    bounds = jnp.minimum(coefficient, 1e-8), jnp.maximum(coefficient, 1e8)
    return jax.lax.stop_gradient(jnp.clip(changed, *bounds))
