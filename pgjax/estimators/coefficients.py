"""How much of a control variate to subtract, as the other trajectories tell."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._compile import compiled

Array = jax.Array


@compiled()
def leave_one_out_covariance(advantage: Array, control: Array, mask: Array | None = None) -> Array:
    """Estimate the covariance of advantage and control variate from all trajectories but the own.

        C_b = mean over t and j ≠ b of A_tj φ_tj

    Shapes: advantage, control [T, B], or [..., N] with the trajectories last; result alike.

    Args:
        advantage: A, [T, B] float, reward units; without a baseline made of other trajectories, through which each
            would see the others.
        control: φ, [T, B] float, the control variate at the action taken, less its mean over actions: `critic` minus
            its expectation, which `linearized_critic` has at its point.
        mask: [T, B] bool, steps that count; None counts all.

    Returns:
        [T, B] float, the covariance for each step, reward units squared, the same for all steps of a trajectory; 0
        where no other step counts.

    Raises:
        TypeError: if an array is not floating or mask is not boolean.
        ValueError: if there are fewer than two trajectories, or shapes differ.

    Properties:
        Does not look at the own trajectory, so that a coefficient made of it keeps an estimator unbiased.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.leave_one_out_covariance(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, -1.0, 1.0])))
        [ 0.5  2.  -0.5]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop: sample-efficient policy gradient with an off-policy
        critic, whose covariance is `single_sample_covariance`.
    """
    advantage, control, mask = _checked(advantage, control, mask)
    others, count = _others(advantage * control, mask)
    return others / jnp.maximum(count, 1)


@compiled()
def leave_one_out_coefficient(advantage: Array, control: Array, mask: Array | None = None) -> Array:
    """Estimate the coefficient of a control variate by regression over all trajectories but the own.

        η_b = Σ_{t, j≠b} A_tj φ_tj / Σ_{t, j≠b} φ_tj²

    Shapes: advantage, control [T, B], or [..., N] with the trajectories last; result alike.

    Args:
        As `leave_one_out_covariance`, and:
        advantage: A, [T, B] float, reward units.
        control: φ, [T, B] float, of mean zero over actions.
        mask: [T, B] bool, steps that count; None counts all.

    Returns:
        [T, B] float, the `coefficient` of `control_variate`, the same for all steps of a trajectory; 0 where the
        control variate of the others is 0.

    Raises:
        TypeError: if an array is not floating or mask is not boolean.
        ValueError: if there are fewer than two trajectories, or shapes differ.

    Properties:
        Does not look at the own trajectory: keeps `control_variate` unbiased. Minimises the mean square of A - η φ over
        the others, not the variance of the gradient, for which see `leave_one_out_control`. With few trajectories
        its own noise may raise the variance.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.leave_one_out_coefficient(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, -1.0, 2.0])))
        [ 0.8  1.4 -0.5]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop, for the coefficient Cov/Var. Owen (2013), Monte
        Carlo theory, methods and examples, on control variates by regression.
    """
    advantage, control, mask = _checked(advantage, control, mask)
    return _ratio(_others(advantage * control, mask)[0], _others(jnp.square(control), mask)[0])


@compiled()
def single_sample_covariance(advantage: Array, control: Array) -> Array:
    """Estimate the covariance of advantage and control variate at each step from that step alone.

        C_t = A_t φ_t

    Shapes: advantage, control [T, ...]; result alike.

    Args:
        advantage: A, [T, ...] float, reward units.
        control: φ, [T, ...] float, of mean zero over actions.

    Returns:
        [T, ...] float, reward units squared.

    Raises:
        TypeError: if an array is not floating.
        ValueError: if shapes differ.

    Properties:
        It depends on the own action: a coefficient made of it biases `control_variate`. It is here because it is
        what Q-Prop was published with; `leave_one_out_covariance` does not bias.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.single_sample_covariance(jnp.array([1.0, 2.0]), jnp.array([1.0, -1.0])))
        [ 1. -2.]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop: sample-efficient policy gradient with an off-policy
        critic.
    """
    advantage, control = _checks.as_floating("advantage", advantage), _checks.as_floating("control", control)
    _checks.require_same_shape("advantage", advantage.shape, control=control)
    return advantage * control


@compiled()
def conservative_coefficient(covariance: Array) -> Array:
    """Give 1 where advantage and control variate go together, and 0 elsewhere.

        η = 1 if C > 0, else 0

    Shapes: covariance [T, ...]; result alike.

    Args:
        covariance: C, [T, ...] float, such as `leave_one_out_covariance`, reward units squared.

    Returns:
        [T, ...] float, the `coefficient` of `control_variate`.

    Raises:
        TypeError: if covariance is not floating.

    Properties:
        As unbiased as the covariance is independent of the own action: see `leave_one_out_covariance`. Its gradient
        is 0.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.conservative_coefficient(jnp.array([0.3, -2.0])))
        [1. 0.]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop, conservative Q-Prop.
    """
    covariance = _checks.as_floating("covariance", covariance)
    return (covariance > 0).astype(covariance.dtype)


@compiled()
def aggressive_coefficient(covariance: Array) -> Array:
    """Give 1 where advantage and control variate go together, and -1 where they go against each other.

        η = sign C

    Shapes: covariance [T, ...]; result alike.

    Args:
        covariance: C, [T, ...] float, such as `leave_one_out_covariance`, reward units squared.

    Returns:
        [T, ...] float, the `coefficient` of `control_variate`.

    Raises:
        TypeError: if covariance is not floating.

    Properties:
        As unbiased as the covariance is independent of the own action: see `leave_one_out_covariance`. Its gradient
        is 0.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> print(pg.aggressive_coefficient(jnp.array([0.3, -2.0])))
        [ 1. -1.]

    References:
        Gu, Lillicrap, Ghahramani, Turner and Levine (2017), Q-Prop, aggressive Q-Prop.
    """
    return jnp.sign(_checks.as_floating("covariance", covariance))


@compiled()
def leave_one_out_control(contributions: Any, control: Any) -> Any:
    """Subtract a control variate of whole gradients, with the coefficient that the other trajectories give.

        g'_b = g_b - η_b h_b,   η_b = Σ_{j≠b} <g_j, h_j> / Σ_{j≠b} <h_j, h_j>

    Shapes: leaves [B, ...]; result alike.

    Args:
        contributions: g, what each trajectory adds to the gradient, as `per_trajectory` of an estimator gives it:
            leaves [B, ...] float.
        control: h, of the same form and of mean zero, such as the difference of two unbiased estimators on the same
            trajectories.

    Returns:
        A pytree like contributions: give it to `Contributions`, or average over B.

    Raises:
        TypeError: if a leaf is not floating.
        ValueError: if there are fewer than two trajectories, or the forms differ.

    Properties:
        Unbiased for whatever contributions is, if the mean of h is 0 and trajectories are independent: η_b does not
        depend on trajectory b. As B grows η tends to E<g, h> / E<h, h>, which gives the least total variance, not more
        than without the control variate; the noise of η from few trajectories costs.

    Example:
        >>> import jax.numpy as jnp, pgjax as pg
        >>> g, h = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[-1.0], [0.0], [1.0]])
        >>> print(pg.leave_one_out_control(g, h).ravel())
        [4. 2. 4.]

    References:
        Owen (2013), Monte Carlo theory, methods and examples, on control variates by regression.
    """
    _checks.require_same_structure("control", control, contributions, of="contributions")
    pairs = list(zip(jax.tree.leaves(contributions), jax.tree.leaves(control), strict=True))
    pairs = [(_checks.as_floating("contributions", g), _checks.as_floating("control", h)) for g, h in pairs]
    for g, h in pairs:
        _checks.require_same_shape("contributions", g.shape, control=h)
    size = pairs[0][0].shape[0]
    _require_others("contributions", size, pairs[0][0].shape)
    along = lambda x: jnp.sum(x.reshape(size, -1), axis=1)  # noqa: E731
    both = sum(along(g * h) for g, h in pairs)
    square = sum(along(h * h) for _, h in pairs)
    eta = _ratio(jnp.sum(both) - both, jnp.sum(square) - square)
    left = [g - eta.reshape(size, *(1,) * (g.ndim - 1)) * h for g, h in pairs]
    return jax.tree.unflatten(jax.tree.structure(contributions), left)


def _checked(advantage: Any, control: Any, mask: Any) -> tuple[Array, Array, Array]:
    advantage = _checks.as_floating("advantage", advantage, ndim_at_least=1)
    control = _checks.as_floating("control", control)
    _checks.require_same_shape("advantage", advantage.shape, control=control)
    mask = jnp.ones_like(advantage, bool) if mask is None else _checks.as_boolean("mask", mask, like=advantage)
    _require_others("advantage", advantage.shape[-1], advantage.shape)
    return advantage, control, mask


def _require_others(name: str, size: int, shape: tuple[int, ...]) -> None:
    if size < 2:
        raise ValueError(
            f"{name} must hold at least 2 trajectories, got shape {list(shape)}. One trajectory has no others: "
            "use a coefficient that is a constant."
        )


def _others(x: Array, mask: Array) -> tuple[Array, Array]:
    """Sums over the steps of all other columns, and how many these are."""
    time = tuple(range(min(x.ndim - 1, 1)))
    total, count = jnp.where(mask, x, 0.0).sum(time, keepdims=True), mask.sum(time, keepdims=True)
    others, number = total.sum(-1, keepdims=True) - total, count.sum(-1, keepdims=True) - count
    return jnp.broadcast_to(others, x.shape), jnp.broadcast_to(number, x.shape)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where the denominator is not above 0."""
    positive = denominator > 0
    return jnp.where(positive, numerator / jnp.where(positive, denominator, 1.0), 0.0)
