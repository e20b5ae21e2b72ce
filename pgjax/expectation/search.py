"""Searches over parameters: gradients from values of f at perturbed parameters, where f is a black box.

Here f takes parameters, not actions: ``f(params) -> scalar``, the mean cost of some rollouts for instance. It is
minimised, and what comes back is a descent direction for optax. One-sided evolution strategies are `score_function` on
a normal distribution over the parameters; the antithetic form is that with every noise and its negative.

Randomness inside f is common to all evaluations if f closes over one key. With ``keyed=True`` it is ``f(key, params)``
with a new key for each pair, which both members of the pair share.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import _checks
from pgjax._types import Params
from pgjax.expectation._probes import Probes, SearchInfo, info_of
from pgjax.expectation.shaping import Shaping, shaped

Array = jax.Array
F = Callable[..., Any]


def evolution_strategy(
    key: Array,
    params: Params,
    f: F,
    *,
    num_pairs: int,
    scale: Any,
    shaping: Shaping | None = None,
    antithetic: bool = True,
    baseline: Array | float | None = None,
    keyed: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Params, SearchInfo]:
    """Estimate the gradient of E f(θ + σε), ε normal, from values of f alone: a descent direction.

        g = 1/(2Nσ) Σ_i [f(θ + σ ε_i) - f(θ - σ ε_i)] ε_i;   one-sided 1/(Nσ) Σ_i [f(θ + σ ε_i) - b] ε_i

    Shapes: gradient like params.

    Args:
        key: a JAX random key; it is consumed.
        params: θ, a pytree of floats with P entries in all.
        f: f(params) -> scalar, minimised; f(key, params) with keyed. It is mapped over parameters.
        num_pairs: N, pairs, or one-sided single perturbations.
        scale: σ, positive, in the units of the parameters: a scalar, or a pytree like params.
        shaping: what becomes of all values [n] of f before they are weighed, [n] again, n = 2N or N: `centered_ranks`,
            `nes_utilities` or a function of your own; None leaves them.
        antithetic: evaluate f on both sides of θ.
        baseline: b, scalar, in the units of f, for the one-sided form without shaping; f(params) there makes it the
            forward difference. It must not depend on the perturbations. None subtracts nothing.
        keyed: give f a key of its own for each pair, the same on both sides; else what is random in f comes from a key
            that it closes over, the same for all pairs.
        chunk_size: how many pairs are evaluated side by side; None takes all at once. The noise is made again from
            keys, so that the memory is that of chunk_size copies of the parameters and the values, whatever N is.
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        The gradient, a pytree like params; and `SearchInfo`.

    Raises:
        TypeError: if params are not floating, f or shaping is no function, f gives no numbers, num_pairs is no int.
        ValueError: if f does not give one number, scale is not positive or has another shape, shaping changes the
            shape, or a baseline comes where it has no effect.

    Properties:
        Unbiased for the gradient of the smoothed function E f(θ + σε), which is that of f itself for quadratic f. With
        shaping biased, and the same for every increasing function of f. One-sided it is `score_function` on
        Normal(θ, σ). For quadratic f with gradient g the total variance is (P + 1)‖g‖²/N, without a contribution of
        the curvature; one-sided it also has [P (E f - b)² + ...]/(Nσ²), which diverges as σ falls. The first pairs
        of a larger search are those of a smaller one.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import evolution_strategy
        >>> f = lambda x: jnp.sum((x - 1.0) ** 2)
        >>> grads, info = evolution_strategy(jax.random.key(0), jnp.zeros(2), f, num_pairs=50_000, scale=0.1)
        >>> print(grads.round(1), info.num_nonfinite)
        [-2. -2.] 0

    References:
        Salimans, Ho, Chen, Sidor and Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
        learning. Nesterov and Spokoiny (2017), Random gradient-free minimization of convex functions.
    """
    probes = Probes(
        "evolution_strategy", params, f, scale, "scale", key, num_pairs, keyed, chunk_size, jax.random.normal, has_aux
    )
    if baseline is not None and (antithetic or shaping is not None):
        raise ValueError(
            "baseline has no effect with antithetic=True, where it cancels, and with shaping, which replaces the "
            "values. Leave it out, or pass antithetic=False and shaping=None."
        )
    values = probes.pairs() if antithetic else probes.singles()
    weights = values if shaping is None else shaped(shaping, values)
    if antithetic:
        weights = (weights[:, 0] - weights[:, 1]) / 2.0
    elif baseline is not None:
        weights = weights - _checks.as_scalar_or_shape("baseline", baseline, ())
    return probes.back(probes.combined(weights / probes.num) / probes.spread), info_of(values, probes.aux)


def pgpe(
    key: Array,
    params: Params,
    f: F,
    *,
    num_pairs: int,
    scale: Any,
    baseline: Array | float | None = None,
    keyed: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[tuple[Params, Params], SearchInfo]:
    """Estimate the gradients of E f(μ + σε) with respect to the mean μ and the scale σ: descent directions.

        g_μ = 1/N Σ_i ½(f⁺_i - f⁻_i) ε_i / σ,   g_σ = 1/N Σ_i [½(f⁺_i + f⁻_i) - b_i] (ε_i² - 1) / σ,   f^± = f(μ ± σε)

    Symmetric sampling of policy gradients with parameter-based exploration: the distribution over the parameters, a
    normal with independent entries, is what is trained.

    Shapes: both gradients like params.

    Args:
        key: a JAX random key; it is consumed.
        params: μ, a pytree of floats.
        f: f(params) -> scalar, minimised; f(key, params) with keyed. It is mapped over parameters.
        num_pairs: N, at least 2 without a baseline.
        scale: σ, positive, in the units of the parameters: a pytree like params, or a scalar, which stands for one in
            each entry.
        baseline: b, scalar, in the units of f, such as a moving mean of `SearchInfo.value`; it must not depend on the
            perturbations. None takes the mean over the other pairs.
        keyed: give f a key of its own for each pair, the same on both sides; else what is random in f comes from a key
            that it closes over, the same for all pairs.
        chunk_size: how many pairs are evaluated side by side; None takes all at once. The noise is made again from
            keys, so that the memory is that of chunk_size copies of the parameters and the values, whatever N is.
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        (gradient with respect to the mean, gradient with respect to the scale), pytrees like params; and
        `SearchInfo`. For a logarithm of the scale multiply the second by σ.

    Raises:
        TypeError: if params are not floating, f is no function or does not give numbers, or num_pairs is no int.
        ValueError: if f does not give one number, scale is not positive or has another shape, or num_pairs is 1
            without a baseline.

    Properties:
        Both unbiased. That of the mean is the one of `evolution_strategy`, and the baseline plays no part in it.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import pgpe
        >>> f = lambda x: jnp.sum(x**2)  # E f = μ² + σ²
        >>> (mean, scale), _ = pgpe(jax.random.key(0), jnp.array([1.0]), f, num_pairs=20_000, scale=0.5)
        >>> print(mean.round(1), scale.round(1))
        [2.] [1.]

    References:
        Sehnke, Osendorfer, Rückstieß, Graves, Peters and Schmidhuber (2010), Parameter-exploring policy gradients.
    """
    probes = Probes("pgpe", params, f, scale, "scale", key, num_pairs, keyed, chunk_size, jax.random.normal, has_aux)
    if baseline is None and probes.num < 2:
        raise ValueError(
            "num_pairs must be at least 2 without a baseline, which is then the mean over the other pairs, got 1. "
            "Pass baseline=..."
        )
    values = probes.pairs()
    middle = values.mean(1)
    if baseline is None:
        others = (jnp.sum(middle) - middle) / (probes.num - 1)
    else:
        others = _checks.as_scalar_or_shape("baseline", baseline, ())
    weights = jnp.stack([(values[:, 0] - values[:, 1]) / 2.0, middle - others], axis=1) / probes.num
    sums = probes.combined(weights, lambda noise: jnp.stack([noise, jnp.square(noise) - 1.0]))
    mean, spread = (probes.back(row / probes.spread) for row in sums)
    return (mean, spread), info_of(values, probes.aux)


def ars(
    key: Array,
    params: Params,
    f: F,
    *,
    num_pairs: int,
    num_top: int,
    scale: Any,
    keyed: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Params, SearchInfo]:
    """Compute the step of augmented random search, from the best of many directions: a descent direction.

        g = 1/(b s) Σ_{i in top b} [f(θ + ν δ_i) - f(θ - ν δ_i)] δ_i,   s the standard deviation of these 2b values

    The top b directions are those with the lowest value on their better side; δ is normal.

    Shapes: direction like params.

    Args:
        key: a JAX random key; it is consumed.
        params: θ, a pytree of floats.
        f: f(params) -> scalar, minimised; f(key, params) with keyed. It is mapped over parameters.
        num_pairs: N, how many directions are tried.
        num_top: b, how many of them are used, at most N; N leaves none out.
        scale: ν, positive, in the units of the parameters: a scalar, or a pytree like params.
        keyed: give f a key of its own for each pair, the same on both sides; else what is random in f comes from a key
            that it closes over, the same for all pairs.
        chunk_size: how many pairs are evaluated side by side; None takes all at once. The noise is made again from
            keys, so that the memory is that of chunk_size copies of the parameters and the values, whatever N is.
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        The direction, a pytree like params; and `SearchInfo`, of all 2N values.

    Raises:
        TypeError: if params are not floating, f is no function or does not give numbers, or a count is no int.
        ValueError: if f does not give one number, scale is not positive or has another shape, or num_top is above
            num_pairs.

    Properties:
        An estimate of no gradient: the choice of directions and the division bias it, and it has no units of f. It does
        not change if f is multiplied by a positive number or shifted. 0 if all values are equal. Values that are not
        finite count as the worst; a direction that is used and has one on its other side makes the step NaN. The paper
        also standardises observations, which belongs to the policy.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import ars
        >>> f = lambda x: jnp.sum((x - 1.0) ** 2)
        >>> step, _ = ars(jax.random.key(0), jnp.zeros(2), f, num_pairs=32, num_top=8, scale=0.1)
        >>> print(bool(f(-0.1 * step) < f(jnp.zeros(2))))
        True

    References:
        Mania, Guy and Recht (2018), Simple random search of static policies is competitive for reinforcement learning.
    """
    probes = Probes("ars", params, f, scale, "scale", key, num_pairs, keyed, chunk_size, jax.random.normal, has_aux)
    num_top = _checks.as_positive_int("num_top", num_top)
    if num_top > num_pairs:
        raise ValueError(f"num_top must be at most num_pairs={num_pairs}, got {num_top}. Try more directions.")
    values = probes.pairs()
    best = jnp.where(jnp.isfinite(values), values, jnp.inf).min(1)
    _, top = jax.lax.top_k(-best, num_top)
    used = values[top]
    # Counted from the first, equal values have a deviation of exactly 0.
    deviation = jnp.std(used - used[0, 0])
    weights = (used[:, 0] - used[:, 1]) / (num_top * jnp.where(deviation == 0, 1.0, deviation))
    return probes.back(probes.combined(weights, indices=top)), info_of(values, probes.aux)
