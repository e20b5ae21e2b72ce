"""Differences of f between two points: along each parameter, and along random signs of all. See `search` for f."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax._types import Params
from pgjax.expectation._probes import Probes, SearchInfo, info_of, stacked

Array = jax.Array
F = Callable[..., Any]


def finite_difference(
    params: Params,
    f: F,
    *,
    epsilon: Any,
    one_sided: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Params, SearchInfo]:
    """Compute the gradient of f by central differences along each parameter: a descent direction.

        g_k = [f(θ + ε e_k) - f(θ - ε e_k)] / 2ε;   one-sided [f(θ + ε e_k) - f(θ)] / ε

    Shapes: gradient like params.

    Args:
        params: θ, a pytree of floats with P entries in all.
        f: f(params) -> scalar, minimised. It is mapped over parameters and must give the same for the same ones: what
            is random in it must come from a key that it closes over, so that both sides have common random numbers.
        epsilon: ε, positive, in the units of the parameters: a scalar, or a pytree like params.
        one_sided: evaluate f at θ in place of one side of each pair.
        chunk_size: how many entries are looked at side by side; None takes all at once, P copies of the parameters.
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        The gradient, a pytree like params; and `SearchInfo`.

    Raises:
        TypeError: if params are not floating, f is no function or does not give numbers.
        ValueError: if f does not give one number, or epsilon is not positive or has another shape.

    Properties:
        2P evaluations, or P + 1. Bias of order ε² for smooth f, of order ε one-sided; none for quadratic f, but for
        rounding, which costs about the precision of f over ε. With common random numbers and discrete actions f is
        piecewise constant: the variance then grows like 1/ε, with different random numbers on the two sides like 1/ε².

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.expectation import finite_difference
        >>> grads, info = finite_difference({"x": jnp.array([1.0, 2.0])}, lambda p: jnp.sum(p["x"] ** 2), epsilon=0.5)
        >>> print(grads["x"], info.value)
        [2. 4.] 5.25

    References:
        Kiefer and Wolfowitz (1952), Stochastic estimation of the maximum of a regression function.
        Peters and Schaal (2008), Reinforcement learning of motor skills with policy gradients.
    """
    probes = Probes("finite_difference", params, f, epsilon, "epsilon", chunk_size=chunk_size, has_aux=has_aux)
    step = probes.spread
    entries = jnp.arange(probes.start.size)

    def at(index: Array, sign: float) -> tuple[Array, Any]:
        return probes.value(probes.start.at[index].add(sign * step[index]))

    if one_sided:
        values, aux = probes.each(lambda index: at(index, 1.0), entries)
        here, aux_here = probes.value(probes.start)
        aux = jax.tree.map(lambda rows, row: jnp.concatenate([rows, row[None]])[:, None], aux, aux_here)
        return probes.back((values - here) / step), info_of(jnp.append(values, here), aux)
    values, probes.aux = probes.each(lambda index: stacked([at(index, 1.0), at(index, -1.0)]), entries)
    return probes.back((values[:, 0] - values[:, 1]) / (2.0 * step)), info_of(values, probes.aux)


def spsa(
    key: Array,
    params: Params,
    f: F,
    *,
    epsilon: Any,
    num_pairs: int = 1,
    keyed: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Params, SearchInfo]:
    """Estimate the gradient of f by simultaneous perturbation of all parameters: a descent direction.

        g = 1/N Σ_i [f(θ + ε Δ_i) - f(θ - ε Δ_i)] / 2ε · Δ_i,   Δ_i of signs, each ±1 with probability ½

    Shapes: gradient like params.

    Args:
        key: a JAX random key; it is consumed.
        params: θ, a pytree of floats.
        f: f(params) -> scalar, minimised; f(key, params) with keyed. It is mapped over parameters.
        epsilon: ε, positive, in the units of the parameters: a scalar, or a pytree like params.
        num_pairs: N.
        keyed: give f a key of its own for each pair, the same on both sides; else what is random in f comes from a key
            that it closes over, the same for all pairs.
        chunk_size: how many pairs are evaluated side by side; None takes all at once. Signs are made again from keys,
            so that the memory is that of chunk_size copies of the parameters, whatever N is.
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        The gradient, a pytree like params; and `SearchInfo`.

    Raises:
        TypeError: if params are not floating, f is no function or does not give numbers, or num_pairs is no int.
        ValueError: if f does not give one number, or epsilon is not positive or has another shape.

    Properties:
        2N evaluations, whatever the number of parameters. Bias of order ε² for smooth f, none for quadratic f. The
        total variance is (P - 1)‖∇f‖²/N for quadratic f of P parameters. The first pairs of a larger search are those
        of a smaller one. Apart from the law of the noise it is the antithetic `evolution_strategy`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import spsa
        >>> grads, _ = spsa(jax.random.key(0), jnp.array([3.0]), lambda x: jnp.sum(x**2), epsilon=0.5)
        >>> print(grads)
        [6.]

    References:
        Spall (1992), Multivariate stochastic approximation using a simultaneous perturbation gradient approximation.
    """
    probes = Probes(
        "spsa", params, f, epsilon, "epsilon", key, num_pairs, keyed, chunk_size, jax.random.rademacher, has_aux
    )
    values = probes.pairs()
    total = probes.combined((values[:, 0] - values[:, 1]) / (2.0 * probes.num))
    return probes.back(total / probes.spread), info_of(values, probes.aux)


def regressed_difference(
    key: Array,
    params: Params,
    f: F,
    *,
    epsilon: Any,
    num_pairs: int,
    keyed: bool = False,
    chunk_size: int | None = None,
    has_aux: bool = False,
) -> tuple[Params, SearchInfo]:
    """Estimate the gradient of f by least squares through differences along random directions: a descent direction.

        g = argmin_g Σ_i [f(θ + ε δ_i) - f(θ - ε δ_i) - 2ε δ_iᵀ g]²,   δ_i normal

    Shapes: gradient like params.

    Args:
        key: a JAX random key; it is consumed.
        params: θ, a pytree of floats with P entries in all.
        f: f(params) -> scalar, minimised; f(key, params) with keyed. It is mapped over parameters.
        epsilon: ε, positive, in the units of the parameters: a scalar, or a pytree like params.
        num_pairs: N; from P on they determine the gradient. With fewer it is the shortest that fits, in the units in
            which epsilon is 1.
        keyed: give f a key of its own for each pair, the same on both sides; else what is random in f comes from a key
            that it closes over, the same for all pairs.
        chunk_size: how many pairs are evaluated side by side; None takes all at once. The directions are held, [N, P].
        has_aux: f gives (value, aux), aux a pytree of arrays that comes back in `SearchInfo.aux`.

    Returns:
        The gradient, a pytree like params; and `SearchInfo`.

    Raises:
        TypeError: if params are not floating, f is no function or does not give numbers, or num_pairs is no int.
        ValueError: if f does not give one number, or epsilon is not positive or has another shape.

    Properties:
        2N evaluations. From N = P on it is the gradient itself for quadratic f, whatever the directions, where `spsa`
        and `evolution_strategy` have a variance. Noise of f with variance s² at each evaluation gives a total variance
        of about s² P / (2 ε² (N - P - 1)), infinite for N = P.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.expectation import regressed_difference
        >>> f = lambda x: jnp.sum((x - 1.0) ** 2)
        >>> grads, _ = regressed_difference(jax.random.key(0), jnp.zeros(2), f, epsilon=0.5, num_pairs=3)
        >>> print(grads.round(3))
        [-2. -2.]

    References:
        Peters and Schaal (2006), Policy gradient methods for robotics.
    """
    probes = Probes(
        "regressed_difference", params, f, epsilon, "epsilon", key, num_pairs, keyed, chunk_size, jax.random.normal,
        has_aux,
    )  # fmt: skip
    values = probes.pairs()
    directions = jax.vmap(probes.noise)(jnp.arange(probes.num))
    slopes = jnp.linalg.lstsq(directions, (values[:, 0] - values[:, 1]) / 2.0)[0]
    return probes.back(slopes / probes.spread), info_of(values, probes.aux)
