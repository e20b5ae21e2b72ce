"""Laws of noise: each can be drawn for a distribution, and integrated by nodes and weights.

The second is what makes the mean and the variance of a rule a weighted sum; see `pgjax.expectation.nodes`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import _checks
from pgjax.distributions import Beta, Normal, TanhNormal, sample_action
from pgjax.expectation import _quadrature
from pgjax.expectation.sampling import Taken, noise_of_taken, parts, product_index

Array = jax.Array
Nodes = tuple[Any, np.ndarray]

__all__ = ["Law", "independent", "many", "normal", "own", "rayleigh", "sign", "two_sided_maxwell", "uniform"]

MAX_NODES = 2**21
"""How many nodes there may be at once."""


@dataclasses.dataclass(frozen=True, eq=False)
class Law:
    """How the noise of a rule is distributed. For a tree of distributions, each part has noise of its own."""

    name: str
    draw_part: Callable[[Array, Any], Any]  # (key, distribution) -> noise, leaves [..., ...]
    nodes_part: Callable[[Any, int | None], Nodes]  # (one row, size) -> (noise, leaves [N, ...], weights [N])
    repeated: bool = False  # whether it is drawn num_samples times, on a leading axis
    mirror_part: Callable[[Any, Any], Any] | None = None  # (distribution, noise) -> noise of the same law, if there is

    def draw(self, key: Array, distribution: Any, options: Mapping[str, Any]) -> Any:
        """Draw the noise for a distribution.

        Args:
            key: a JAX random key; it is consumed.
            distribution: a distribution or a tree of them.
            options: of the rule; a repeated law needs num_samples.

        Returns:
            The noise, leaves [..., ...] for a distribution with batch axes [...]; num_samples leads.

        Raises:
            TypeError: if num_samples is missing.
        """
        structure, components = parts(self.name, distribution)

        def once(key: Array) -> Any:
            keys = [key] if len(components) == 1 else jax.random.split(key, len(components))
            return structure.unflatten([self.draw_part(k, d) for k, (d,) in zip(keys, components, strict=True)])

        if not self.repeated:
            return once(key)
        return jax.vmap(once)(jax.random.split(key, num_samples(options)))

    def nodes(self, distribution: Any, size: int | None, options: Mapping[str, Any]) -> Nodes:
        """List nodes and weights that integrate a function of the noise.

        Args:
            distribution: one row, no batch axes, concrete; or a tree of such.
            size: nodes for each continuous number; None for the law's default.
            options: of the rule; a repeated law needs num_samples.

        Returns:
            (noise, leaves [N, ...] NumPy; weights [N] float64, summing to one).

        Raises:
            ValueError: if there are too many.
        """
        structure, components = parts(self.name, distribution)
        lists = [self.nodes_part(d, size) for (d,) in components]
        values, weights = product([(x, w) for x, w in lists])
        joint = structure.unflatten(values), weights
        if not self.repeated:
            return joint
        number = num_samples(options)
        copies, weights = product([joint] * number)
        return jax.tree.map(lambda *x: np.stack(x, axis=1), *copies), weights

    def mirror(self, noise: Any, distribution: Any) -> Any:
        """Return the mirrored noise, which has the same law and lies on the other side: −z for z, 1 − u for u.

        Args:
            noise: as from `draw`.
            distribution: what it was drawn for.

        Returns:
            Noise of the same form.

        Raises:
            TypeError: if there is none.
        """
        if self.mirror_part is None:
            raise TypeError(
                f"noise of the law {self.name} has no mirror: average independent draws of the rule instead."
            )
        structure, components = parts(self.name, distribution, noise)
        return structure.unflatten([self.mirror_part(d, x) for d, x in components])

    def __repr__(self) -> str:
        return self.name


def num_samples(options: Mapping[str, Any]) -> int:
    """Read num_samples from the options of a rule.

    Args:
        options: of the rule.

    Returns:
        A scalar int, at least 1.

    Raises:
        TypeError: if it is missing or no int.
    """
    if "num_samples" not in options:
        raise TypeError("the option num_samples is needed to draw the noise: draw(key, distribution, num_samples=...).")
    return _checks.as_positive_int("num_samples", options["num_samples"])


def product(factors: list[Nodes]) -> tuple[list[Any], np.ndarray]:
    """Combine the nodes of independent noises.

    Args:
        factors: of each (nodes, leaves [N_i, ...], weights [N_i]).

    Returns:
        (for each factor its nodes, leaves [N, ...]; weights [N]) with N = Π N_i.

    Raises:
        ValueError: if N is too large.
    """
    sizes = [w.size for _, w in factors]
    require_few(math.prod(sizes))
    values, weights = [], np.ones(math.prod(sizes))
    for (x, w), i in zip(factors, product_index(sizes), strict=True):
        values.append(jax.tree.map(lambda leaf, i=i: leaf[i], x))
        weights = weights * w[i]
    return values, weights


def require_few(number: int) -> None:
    """Raise if there are too many nodes.

    Args:
        number: how many there would be, a scalar.

    Raises:
        ValueError: if it is above `MAX_NODES`.
    """
    if number > MAX_NODES:
        raise ValueError(
            f"there would be {number} nodes, more than {MAX_NODES}: they are the product over all numbers that the "
            f"rule draws. Lower size, take fewer samples or a smaller distribution, or measure by sampling."
        )


def parameter(distribution: Any) -> Array:
    """Return the first parameter of a distribution, which says for how many numbers it needs noise, and the dtype.

    Args:
        distribution: one of `pgjax.distributions`.

    Returns:
        logits [..., K], loc [..., D], alpha [..., D].
    """
    return jax.tree.leaves(distribution)[0]


def independent(
    name: str,
    sample: Callable[..., Array],
    rule: Callable[[int], tuple[np.ndarray, np.ndarray]],
    *,
    size: int,
    mirror: Callable[[Array], Array] | None = None,
) -> Law:
    """Make a law of independent numbers, one for each entry of a distribution's first parameter.

    Shapes: for a Categorical [..., K], for all others [..., D], or [..., D, K] for a MultiCategorical.

    Args:
        name: of the law, for messages.
        sample: (key, shape, dtype) -> array.
        rule: of a number n, gives nodes [n] and weights [n] for one of the numbers.
        size: the n to take if nothing else is said.
        mirror: maps the numbers to others of the same law, on the other side of it; None if there is no such map.

    Returns:
        The law.
    """

    def draw(key: Array, d: Any) -> Array:
        return sample(key, parameter(d).shape, parameter(d).dtype)

    def nodes(d: Any, n: int | None) -> Nodes:
        x, w = rule(size if n is None else n)
        return _grid(x, w, parameter(d))

    return Law(name, draw, nodes, mirror_part=None if mirror is None else lambda d, noise: mirror(noise))


def _grid(x: np.ndarray, w: np.ndarray, like: Array) -> Nodes:
    """Every combination of nodes for the entries of an array, and its weight."""
    require_few(x.size**like.size)
    index = list(product_index([x.size] * like.size))
    nodes = np.stack([x[i] for i in index], axis=-1).reshape(-1, *like.shape)
    return nodes.astype(like.dtype), math.prod(w[i] for i in index)  # type: ignore[return-value]


def many(law: Any) -> Law:
    """Make the law of num_samples independent draws, on a leading axis; num_samples is an option of the rule.

    Shapes: leaves [num_samples, ...].

    Args:
        law: of one draw, or "own".

    Returns:
        The law.
    """
    law = own if law == "own" else law
    return dataclasses.replace(law, name=f"many({law.name})", repeated=True)


def _draw_own(key: Array, d: Any) -> Any:
    if hasattr(d, "base_noise"):
        return d.base_noise(key)
    action, raw, _ = sample_action(d, key)
    return Taken(action, raw)


def _own_nodes(d: Any, size: int | None) -> Nodes:
    if isinstance(d, (Normal, TanhNormal)):
        return _grid(*_quadrature.normal(size or (64 if isinstance(d, Normal) else 128)), d.loc)
    if isinstance(d, Beta):
        return _beta_nodes(d, size or 128)
    if getattr(d, "is_differentiable", True):
        raise TypeError(f"the noise of {type(d).__name__} has no nodes: measure by sampling.")
    actions, probs = (np.asarray(x) for x in d.support())
    possible = probs > 0.0
    weights = probs[possible].astype(float)
    return Taken(actions[possible]), weights / weights.sum()


def _beta_nodes(d: Beta, size: int) -> Nodes:
    """Actions, weighted by their density: the tanh-sinh rule bears the logarithms of the score at both ends."""
    u, w = _quadrature.tanh_sinh(size)
    require_few(size ** d.shape[-1])
    columns = []
    for i in range(d.shape[-1]):
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], d)
        action = np.asarray(one.low) + np.asarray(one.high - one.low) * u
        weights = w * np.exp(np.asarray(one.log_prob(jnp.asarray(action, one.alpha.dtype)[:, None]), float))
        columns.append((action.astype(one.alpha.dtype), weights / weights.sum()))
    values, weights = product(columns)
    return Taken(np.stack(values, axis=-1)), weights


def uniform_numbers(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw uniform numbers in (0, 1).

    Args:
        key: a JAX random key; it is consumed.
        shape: of the result.
        dtype: of the result.

    Returns:
        Float, of that shape.
    """
    return jax.random.uniform(key, shape, dtype, minval=jnp.finfo(dtype).tiny)


def _rayleigh(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    return jnp.sqrt(-2.0 * jnp.log(uniform_numbers(key, shape, dtype)))


def _maxwell(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    sign_key, key = jax.random.split(key)
    size = jnp.linalg.norm(jax.random.normal(key, (3, *shape), dtype), axis=0)
    return size * jax.random.rademacher(sign_key, shape, dtype)


def _reflected(u: Array) -> Array:
    """1 − u, below 1 like u itself."""
    return jnp.minimum(1.0 - u, 1.0 - jnp.finfo(u.dtype).epsneg)


def _other_rayleigh(x: Array) -> Array:
    """√(−2 log(1 − u)) for x = √(−2 log u)."""
    return jnp.sqrt(-2.0 * jnp.log(-jnp.expm1(-0.5 * jnp.square(jnp.maximum(x, jnp.finfo(x.dtype).eps)))))


def _mirrored_own(d: Any, noise: Any) -> Any:
    normal = isinstance(d, (Normal, TanhNormal))
    if isinstance(noise, Taken) and normal:
        return -noise_of_taken(d, noise)
    if isinstance(noise, Taken) or not (normal or hasattr(d, "support")) or isinstance(d, Beta):
        raise TypeError(
            f"the noise of this {type(d).__name__} has no mirror: that of Normal and TanhNormal has, and that of "
            "discrete distributions unless an action stands for it. Average independent draws of the rule instead."
        )
    return -noise if normal else _reflected(noise)


own = Law("own", _draw_own, _own_nodes, mirror_part=_mirrored_own)
"""The noise that the distribution itself samples from."""

uniform = independent("uniform", uniform_numbers, _quadrature.tanh_sinh, size=96, mirror=_reflected)
"""Uniform numbers in (0, 1)."""

normal = independent("normal", jax.random.normal, _quadrature.normal, size=64, mirror=jnp.negative)
"""Standard normal numbers."""

rayleigh = independent("rayleigh", _rayleigh, _quadrature.rayleigh, size=96, mirror=_other_rayleigh)
"""Positive numbers with density w exp(−w²/2)."""

two_sided_maxwell = independent(
    "two_sided_maxwell", _maxwell, _quadrature.two_sided_maxwell, size=64, mirror=jnp.negative
)
"""Numbers of either sign with density m² exp(−m²/2) / √(2π)."""

sign = independent("sign", jax.random.rademacher, _quadrature.signs, size=2, mirror=jnp.negative)
"""−1 or 1, each with probability one half."""
