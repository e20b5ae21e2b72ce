"""Estimators that use a continuous sample which rounds to a discrete action: unbiased ones, and biased ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax.expectation import laws
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, map_parts, require_methods, rows_of, sampled
from pgjax.expectation.terms import gradient_only, weighted

Array = jax.Array

LEAST_TEMPERATURE = 1e-8
"""Traced temperatures count as at least this: below it a quotient by them overflows."""


@rule(x="own", u=laws.uniform, v=laws.uniform)
def relax(
    distribution: Any,
    f: Callable[[Any], Array],
    *,
    x: Any,
    u: Any,
    v: Any,
    control: Callable[[Any], Array],
    scale: Any = 1.0,
) -> Array:
    """Estimate ∇ E f(x) by the score function with a control variate on the relaxed sample, whose mean is put back.

        (f(x) − s c(z̃)) ∇ log p(x) + s ∇c(z) − s ∇c(z̃) + ∇f(x)
        z the relaxed sample that rounds to x, differentiated at fixed noise; z̃ another one, drawn given x

    Shapes: x [..., *event]; z, z̃, u, v [..., K], for Bernoulli [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli, Categorical, OneHotCategorical or MultiCategorical, or a tree of such.
        f: of an action [..., *event], gives [...]; only its value at x is used.
        control: of a relaxed sample z, in nats as of `relaxed_from`, gives [...]; differentiable. To learn it,
            pass ``bind(network, parameters)`` and use `control_gradient`.
        scale: s, scalar or [...] float.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is not relaxable, or f or control does not give numbers.
        ValueError: if f or control does not give one number for each row.

    Properties:
        Unbiased for any control and scale; with scale 0 it is `score_function`. Its gradient with respect to the
        parameters of the control is noise of mean zero: train these by `control_gradient` instead, and differentiate
        with respect to what made the distribution only. One evaluation of f, two of control and of its derivative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import relax
        >>> f, control = lambda a: (a[..., 0] - 0.45) ** 2, lambda z: 0.2 * jax.nn.sigmoid(z[..., 0])
        >>> value = relax(jax.random.key(0), Bernoulli(jnp.full(1, 9.0)), f, control=control)
        >>> print(value)  # that of f at the sample
        0.3025

    References:
        Grathwohl et al. (2018), Backpropagation through the void: optimizing control variates for black-box gradient
        estimation.
    """
    require_methods("relax", distribution, "relaxed_given", remedy=_NO_RELAXED_SAMPLE)
    rows = rows_of("relax", distribution)
    action, log_prob = sampled("relax", distribution, x)
    value = evaluate("f", f, action, rows)
    scale = _checks.as_scalar_or_shape("scale", scale, value.shape)
    z, z_given = _consistent(distribution, action, u), _given(distribution, action, v)
    c, c_given = (scale * evaluate("control", control, relaxed, rows) for relaxed in (z, z_given))
    return value + weighted(value - c_given, gradient_only(log_prob)) + gradient_only(c - c_given)


@rule(x="own", u=laws.uniform, v=laws.uniform)
def rebar(
    distribution: Any, f: Callable[[Any], Array], *, x: Any, u: Any, v: Any, temperature: Any = 0.5, scale: Any = 1.0
) -> Array:
    """Estimate ∇ E f(x) by `relax` with f itself, at the softened sample, as the control variate.

        c(z) = f(soften(z, temperature))

    Shapes: x [..., *event]; u, v [..., K], for Bernoulli [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli or OneHotCategorical, or a tree of such.
        f: of an action [..., *event] in floats, gives [...]; differentiable, also between the actions.
        temperature: scalar float, positive: see `gumbel_softmax`; as it falls the control variate comes nearer to f and
            its gradient grows.
        scale: scalar or [...] float, how much of the control variate is used.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is not relaxable or its actions are indices, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Unbiased for any temperature and scale, with a variance that goes to infinity as the temperature falls to 0: at
        1e-8 nearly every sample gives 0. Both can be trained by `control_gradient`. Three evaluations of f, two
        of its derivative. What f depends on gets its gradient at x and, with mean zero, that at z less that at z̃.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import rebar
        >>> f = lambda a: 2.0 * a[..., 0]
        >>> linear = lambda logits: rebar(jax.random.key(1), Bernoulli(logits), f, temperature=0.1)
        >>> print(float(linear(jnp.zeros(1))) in (0.0, 2.0))
        True

    References:
        Tucker et al. (2017), REBAR: low-variance, unbiased gradient estimates for discrete latent variable models.
    """
    require_methods("rebar", distribution, "soften", remedy=_NO_SOFT_ACTION)

    def on_floats(action: Any) -> Array:
        return f(_floating(distribution, action))

    def control(z: Any) -> Array:
        return f(_soft(distribution, z, temperature))

    return relax.given({"x": x, "u": u, "v": v}, distribution, on_floats, control=control, scale=scale)


@rule(u=laws.uniform)
def gumbel_softmax(distribution: Any, f: Callable[[Any], Array], *, u: Any, temperature: Any = 0.5) -> Array:
    """Estimate ∇ E f(x), with bias, by differentiating f at the softened sample.

        ∇ f(soften(z, temperature)),   z the relaxed sample

    Shapes: u, z [..., K], for Bernoulli [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli or OneHotCategorical, or a tree of such.
        f: of a point [..., K] of the simplex or [..., D] of the cube, gives [...]; differentiable.
        temperature: scalar float, positive, which is checked for Python numbers; a traced one below 1e-8 counts as
            1e-8, where softened samples are actions, and have no gradient.

    Returns:
        [...] float: f at the softened sample, not at an action; its gradient is the estimate.

    Raises:
        TypeError: if the distribution is not relaxable or its actions are indices, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Biased for E f(x): value and gradient are those of E f(soften(z)). As the temperature falls the bias goes to 0
        and the variance to infinity. One evaluation of f and of its derivative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import OneHotCategorical
        >>> from pgjax.expectation import gumbel_softmax
        >>> policy = OneHotCategorical(jnp.zeros(3))
        >>> value = gumbel_softmax(jax.random.key(0), policy, lambda a: a.sum(-1), temperature=2.0)
        >>> print(round(float(value), 5))
        1.0

    References:
        Jang, Gu and Poole (2017), Categorical reparameterization with Gumbel-softmax.
        Maddison, Mnih and Teh (2017), The Concrete distribution.
    """
    require_methods("gumbel_softmax", distribution, "soften", remedy=_NO_SOFT_ACTION)
    z = map_parts("gumbel_softmax", lambda d, u: d.relaxed_from(u), distribution, u)
    return evaluate("f", f, _soft(distribution, z, temperature), rows_of("gumbel_softmax", distribution))


@rule(x="own", u=laws.uniform)
def straight_through(distribution: Any, f: Callable[[Any], Array], *, x: Any, u: Any, temperature: Any = 0.5) -> Array:
    """Estimate ∇ E f(x), with bias, by the derivative of f at the action and that of the softened sample.

        ∂f/∂x at the action · ∇ soften(z, temperature),   z the relaxed sample that rounds to the action

    Shapes: x [..., *event]; u, z [..., K], for Bernoulli [..., D]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli or OneHotCategorical, or a tree of such.
        f: of an action [..., *event] in floats, gives [...]; differentiable.
        temperature: scalar float, positive: see `gumbel_softmax`.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the distribution is not relaxable or its actions are indices, or f does not give numbers.
        ValueError: if f does not give one number for each row.

    Properties:
        Biased at any temperature, as the derivative of f at the action stands for a difference of f. For a linear f the
        bias goes to 0 with the temperature, while the variance grows. The value is unbiased. One evaluation of f and of
        its derivative.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import OneHotCategorical
        >>> from pgjax.expectation import straight_through
        >>> value = straight_through(jax.random.key(0), OneHotCategorical(jnp.zeros(3)), lambda a: jnp.max(a, axis=-1))
        >>> print(value)
        1.0

    References:
        Bengio, Léonard and Courville (2013), Estimating or propagating gradients through stochastic neurons for
        conditional computation.
        Jang, Gu and Poole (2017), Categorical reparameterization with Gumbel-softmax, section on straight-through.
    """
    require_methods("straight_through", distribution, "soften", remedy=_NO_SOFT_ACTION)
    action, _ = sampled("straight_through", distribution, x)
    soft = _soft(distribution, _consistent(distribution, action, u), temperature)
    carried = jax.tree.map(lambda hard, soft: hard + gradient_only(soft), _floating(distribution, action), soft)
    return evaluate("f", f, carried, rows_of("straight_through", distribution))


@rule(x="own")
def reinmax(distribution: Any, f: Callable[[Any], Array], *, x: Any, temperature: Any = 1.0) -> Array:
    """Estimate ∇ E f(x), with a bias of higher order, by the derivative of f at the action and a corrected Jacobian.

        ∂f/∂x at the action · (2 J(q) − J(π) / 2) ∂logits/∂θ,   J(p) = diag(p) − p pᵀ
        q = (x + softmax(logits / temperature)) / 2

    It is what the trapezium rule makes of Σ_i Σ_j π_j (f(i) − f(j)) ∇π_i, at temperature 1.

    Shapes: x [..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: Bernoulli or OneHotCategorical, or a tree of such.
        f: of an action [..., *event] in floats, gives [...]; differentiable.
        temperature: scalar float, positive, which is checked for Python numbers only; as it falls to 0 the softmax
            tends to the mode, and at a traced 0 it is the mode.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if the actions of the distribution cannot be softened, or f does not give numbers.
        ValueError: if f does not give one number for each row, or temperature is a Python number that is not positive.

    Properties:
        At temperature 1 its mean is exact for an f that is quadratic in each choice, where `straight_through` is
        biased; beyond that it is biased by the third derivatives of f and above. At other temperatures it is biased for
        a linear f already. The value is unbiased. One evaluation of f and of its derivative, and no further noise.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import reinmax, taken
        >>> f = lambda a: 8.0 * a[..., 0]
        >>> print(jax.grad(lambda l: reinmax.given({"x": taken(jnp.array([1]))}, Bernoulli(l), f))(jnp.zeros(1)))
        [2.]

    References:
        Liu, Dong, Liu, Yu and Gao (2023), Bridging discrete and backpropagation: straight-through and beyond.
    """
    require_methods("reinmax", distribution, "soften", remedy=_NO_SOFT_ACTION)
    _checks.require_positive("temperature", temperature, remedy="The plain form of reinmax has 1.")
    action, _ = sampled("reinmax", distribution, x)
    hard = _floating(distribution, action)
    carried = map_parts("reinmax", lambda d, a: a + _corrected(d, a, temperature), distribution, hard)
    return evaluate("f", f, carried, rows_of("reinmax", distribution))


def _corrected(d: Any, x: Array, temperature: Any) -> Array:
    """0 with the gradient of (2 J(q) − J(π) / 2) logits; for Bernoulli J(p) = p (1 − p)."""
    several = hasattr(d, "log_probs")
    logits = d.log_probs if several else d.logits
    fixed, moves = jax.lax.stop_gradient(logits), gradient_only(logits)
    scaled = fixed - jnp.max(fixed, axis=-1, keepdims=True) if several else fixed
    scaled = scaled / jnp.maximum(jnp.asarray(temperature, fixed.dtype), jnp.finfo(fixed.dtype).tiny)

    def jacobian(p: Array) -> Array:
        return p * (moves - jnp.sum(p * moves, axis=-1, keepdims=True)) if several else p * (1.0 - p) * moves

    soft = jax.nn.softmax(scaled) if several else jax.nn.sigmoid(scaled)
    return 2.0 * jacobian(0.5 * (x + soft)) - 0.5 * jacobian(jax.lax.stop_gradient(d.probs))


_NO_RELAXED_SAMPLE = (
    "It has no relaxed sample that rounds to an action. Use score_function, or pathwise where actions are continuous."
)
_NO_SOFT_ACTION = (
    "It needs actions that can be softened, those of Bernoulli and OneHotCategorical: f is evaluated between the "
    "actions. Write a choice as OneHotCategorical; or use relax, whose control sees the relaxed sample, score_function "
    "or enumerated."
)


def _given(distribution: Any, action: Any, noise: Any) -> Any:
    return map_parts("relaxed_given", lambda d, a, n: d.relaxed_given(a, n), distribution, action, noise)


def _consistent(distribution: Any, action: Any, noise: Any) -> Any:
    """A relaxed sample that rounds to the action, with the gradient that it has at the noise of the relaxed law."""
    z = _given(jax.lax.stop_gradient(distribution), action, noise)
    return map_parts("relaxed_path", lambda d, z: d.relaxed_path(z), distribution, z)


def _soft(distribution: Any, z: Any, temperature: Any) -> Any:
    remedy = "Near 0 softened samples are actions: to have these use score_function or enumerated."
    _checks.require_positive("temperature", temperature, remedy=remedy)
    least = jnp.maximum(temperature, LEAST_TEMPERATURE)
    return map_parts("soften", lambda d, z: d.soften(z, least), distribution, z)


def _floating(distribution: Any, action: Any) -> Any:
    return map_parts("floating", lambda d, a: a.astype(laws.parameter(d).dtype), distribution, action)
