"""Score-function estimators: f need not be differentiable in the action, nor the action in the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax.expectation.laws import many
from pgjax.expectation.rules import rule
from pgjax.expectation.sampling import evaluate, rows_of, sampled
from pgjax.expectation.terms import gradient_only, weighted

Array = jax.Array


@rule(x="own")
def score_function(distribution: Any, f: Callable[[Any], Array], *, x: Any, baseline: Any = 0.0) -> Array:
    """Estimate ∇ E f(x) by the score function, (f(x) − b) ∇ log p(x).

        ∇ E f(x) = E[ (f(x) − b) ∇ log p_θ(x) + ∇ f(x) ],   the last for what f itself depends on

    Shapes: actions [..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: any of `pgjax.distributions`, a tree of them, or one of another library.
        f: of an action [..., *event], gives [...]; it need not be continuous.
        baseline: scalar or [...] float, in the units of f. It must not depend on the sample.

    Returns:
        [...] float: f(x); its gradient is the estimate.

    Raises:
        TypeError: if f does not give numbers.
        ValueError: if f does not give one number for each row, or baseline has another shape.

    Properties:
        Unbiased for any baseline. Its derivatives with respect to the baseline are 0, those of its gradient are not, so
        that `control_gradient` can train a baseline. Where f is infinite, the value is and the gradient is NaN. One
        evaluation of f. For second derivatives use `dice`: here they lack f ∇log p ∇log pᵀ.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Bernoulli
        >>> from pgjax.expectation import score_function, taken
        >>> f = lambda a: (a[..., 0] - 0.45) ** 2
        >>> at_one = lambda logits: score_function.given({"x": taken(jnp.array([1]))}, Bernoulli(logits), f)
        >>> print(at_one(jnp.zeros(1)), jax.grad(at_one)(jnp.zeros(1)))
        0.3025 [0.15125]

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
        Mohamed et al. (2020), Monte Carlo gradient estimation in machine learning, section 4.
    """
    action, log_prob = sampled("score_function", distribution, x)
    value = evaluate("f", f, action, rows_of("score_function", distribution))
    baseline = _checks.as_scalar_or_shape("baseline", baseline, value.shape)
    return value + weighted(value - baseline, gradient_only(log_prob))


@rule(x=many("own"))
def score_leave_one_out(distribution: Any, f: Callable[[Any], Array], *, x: Any, num_samples: int) -> Array:
    """Estimate ∇ E f(x) by several score functions, each with the mean of the other samples as its baseline.

        (1/N) Σ_i [ (f(x_i) − b_i) ∇ log p(x_i) + ∇ f(x_i) ],   b_i = Σ_{j≠i} f(x_j) / (N − 1)

    Shapes: noise [N, ...]; actions [N, ..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: any of `pgjax.distributions`, or a tree of them.
        f: of an action [..., *event], gives [...]; it is mapped over the samples.
        num_samples: N, at least 2.

    Returns:
        [...] float: the mean of f over the samples; its gradient is the estimate.

    Raises:
        TypeError: if f does not give numbers, or num_samples is no int.
        ValueError: if num_samples is below 2 or the noise has another number of samples.

    Properties:
        Unbiased. N evaluations of f. Equal to the covariance of f and score over the samples, with N − 1 below.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Categorical
        >>> from pgjax.expectation import score_leave_one_out
        >>> constant = lambda logits: score_leave_one_out(
        ...     jax.random.key(0), Categorical(logits), lambda a: jnp.float32(7.0), num_samples=4)
        >>> print(jax.grad(constant)(jnp.array([0.0, 1.0])))
        [0. 0.]

    References:
        Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free.
    """
    number = _checks.as_positive_int("num_samples", num_samples)
    if number < 2:
        raise ValueError(
            f"num_samples must be at least 2, got {number}: the baseline of each sample is made of the others. "
            "With one sample use score_function."
        )
    rows = rows_of("score_leave_one_out", distribution)
    came = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else None for leaf in jax.tree.leaves(x)}
    if came != {number}:
        raise ValueError(f"the noise x must lead with num_samples={number} samples, got {came}.")
    action, log_prob = sampled("score_leave_one_out", distribution, x)
    value = jax.vmap(lambda a: evaluate("f", f, a, rows))(action)
    others = (jnp.sum(value, axis=0, keepdims=True) - value) / (number - 1)
    return jnp.mean(value + weighted(value - others, gradient_only(log_prob)), axis=0)


@rule(x="own")
def dice(distribution: Any, f: Callable[[Any], Array], *, x: Any, baseline: Any = 0.0) -> Array:
    """Estimate derivatives of any order of E f(x) by differentiating one expression again and again.

        f(x) + (□ − 1)(f(x) − b),   □ = exp(log p − stop(log p)), which is 1

    Shapes: actions [..., *event]; result [...].

    Args:
        key: a JAX random key; it is consumed.
        distribution: any of `pgjax.distributions`, a tree of them, or one of another library.
        f: of an action [..., *event], gives [...]; it need not be continuous in the action.
        baseline: scalar or [...] float, in the units of f. It must depend neither on the sample nor on the parameters.

    Returns:
        [...] float: f(x); its n-th derivative is an estimate of that of E f(x).

    Raises:
        TypeError: if f does not give numbers.
        ValueError: if f does not give one number for each row, or baseline has another shape.

    Properties:
        Unbiased in every order. The gradient is that of `score_function`. One evaluation of f.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.distributions import Normal
        >>> from pgjax.expectation import dice
        >>> f = lambda a: jnp.float32(2.0)
        >>> g = lambda loc: dice.given({"x": jnp.array([2.0])}, Normal(loc, 1.0), f)
        >>> print(jax.hessian(g)(jnp.zeros(1)))  # 2 (z² − 1)
        [[6.]]

    References:
        Foerster et al. (2018), DiCE: the infinitely differentiable Monte Carlo estimator.
    """
    action, log_prob = sampled("dice", distribution, x)
    value = evaluate("f", f, action, rows_of("dice", distribution))
    baseline = _checks.as_scalar_or_shape("baseline", baseline, value.shape)
    return value + weighted(value - baseline, jnp.expm1(gradient_only(log_prob)))
