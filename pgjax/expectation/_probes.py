"""Values of f at perturbed parameters, chunk by chunk, with noise that is made anew from keys and never stored."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pgjax import _checks
from pgjax._flat import flat, unflatten
from pgjax._types import Params

Array = jax.Array
Draw = Callable[..., Array]


@struct.dataclass
class SearchInfo:
    """What a search saw on the way."""

    value: Array  # scalar, mean of all values of f
    num_nonfinite: Array  # scalar int32, values of f that are NaN or infinite
    aux: Any = None  # with has_aux what else f gave: leaves [N, 2, ...], [N, 1, ...] where one side is evaluated


@struct.dataclass
class Listed:
    """The noise itself in place of a key: what a certificate lists, so that moments of a search are exact."""

    rows: Array  # [N, P], noise number i in row i


def info_of(values: Array, aux: Any = None) -> SearchInfo:
    """Summarise values of f, of any shape."""
    return SearchInfo(jnp.mean(values), jnp.sum(~jnp.isfinite(values), dtype=jnp.int32), aux)


class Probes:
    """A search: where it starts, how far its perturbations go, and the noise of each, by number.

    `draw` is a function of (key, shape, dtype). Noise number i is a function of the key and i alone.
    """

    def __init__(
        self,
        name: str,
        params: Params,
        f: Callable[..., Any],
        spread: Any,
        spread_name: str,
        key: Array | None = None,
        num: int = 1,
        keyed: bool = False,
        chunk_size: int | None = None,
        draw: Draw = jax.random.normal,
        has_aux: bool = False,
    ):
        _checks.require_callable("f", f)
        _checks.require_differentiable("params", params)
        if not jax.tree.leaves(params):
            raise ValueError(f"params holds no array, and {name} has nothing to perturb. Pass the parameters first.")
        params = jax.tree.map(jnp.asarray, params)
        self.f, self.keyed, self.key, self.draw, self.has_aux = f, keyed, key, draw, has_aux
        self.aux: Any = None  # of all values that were asked for last
        self.start = flat(params)  # [P]
        self.back = unflatten(params)
        self.spread = _spread_of(spread_name, spread, params)  # [P]
        self.num = _checks.as_positive_int("num_pairs", num)
        self.chunk_size = None if chunk_size is None else _checks.as_positive_int("chunk_size", chunk_size)

    def value(self, at: Array, key: Array | None = None) -> tuple[Array, Any]:
        """Evaluate f at a vector [P]: a scalar, and what else f gave."""
        params = self.back(at)
        result, aux = self.f(key, params) if self.keyed else self.f(params), None
        if self.has_aux:
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(f"with has_aux=True f must give (value, aux), got {type(result).__name__}.")
            result, aux = result
        result = _checks.as_array("the result of f", result)
        if result.ndim:
            raise ValueError(
                f"f must give one number, got shape {list(result.shape)}. Take the mean over rollouts inside f."
            )
        if jnp.issubdtype(result.dtype, jnp.integer) or result.dtype == jnp.bool_:
            result = result.astype(self.start.dtype)
        return _checks.as_floating("the result of f", result), aux

    def each(self, function: Callable[[Array], Any], indices: Array) -> Any:
        """Map a function over numbers, a chunk at a time."""
        return jax.lax.map(function, indices, batch_size=self.chunk_size or len(indices))

    def noise(self, index: Array) -> Array:
        """Return noise number `index`, [P]."""
        if isinstance(self.key, Listed):
            return self.key.rows[index]
        return self.draw(self._keys(index)[0], self.start.shape, self.start.dtype)

    def pairs(self) -> Array:
        """Evaluate f on both sides of the start: [N, 2]."""
        return self._evaluated(1.0, -1.0)

    def singles(self) -> Array:
        """Evaluate f on one side of the start: [N]."""
        return self._evaluated(1.0)[:, 0]

    def combined(
        self, weights: Array, of_noise: Callable[[Array], Array] = lambda noise: noise, indices: Array | None = None
    ) -> Array:
        """Sum weights times noise over some numbers, or weights [n, K] times K vectors made of it: [P] or [K, P]."""
        indices = jnp.arange(self.num) if indices is None else indices
        chunk = min(self.chunk_size or len(indices), len(indices))
        missing = -len(indices) % chunk
        # What fills the last chunk up has weight 0.
        rows = jnp.pad(weights, [(0, missing)] + [(0, 0)] * (weights.ndim - 1))
        rows = rows.reshape(-1, chunk, *weights.shape[1:])
        numbers = jnp.pad(indices, (0, missing)).reshape(-1, chunk)
        contract = "n,np->p" if weights.ndim == 1 else "nk,nkp->kp"

        def add(total: Array, part: tuple[Array, Array]) -> tuple[Array, None]:
            row, number = part
            vectors = jax.vmap(lambda index: of_noise(self.noise(index)))(number)
            return total + jnp.einsum(contract, row, vectors, precision=jax.lax.Precision.HIGHEST), None

        zero = jnp.zeros((*weights.shape[1:], self.start.size), jnp.result_type(weights, self.start))
        return jax.lax.scan(add, zero, (rows, numbers))[0]

    def _keys(self, index: Array) -> tuple[Array, Array | None]:
        """Keys of the noise and of f."""
        if self.key is None:
            raise TypeError("key is required, got None.")
        key = jax.random.fold_in(self.key, index)
        return (key, None) if not self.keyed else tuple(jax.random.split(key))  # type: ignore[return-value]

    def _evaluated(self, *signs: float) -> Array:
        def one(index: Array) -> Any:
            step, key = self.spread * self.noise(index), self._keys(index)[1] if self.keyed else None
            return stacked([self.value(self.start + sign * step, key) for sign in signs])

        values, self.aux = self.each(one, jnp.arange(self.num))
        return values


def stacked(rows: list[Any]) -> Any:
    """Trees alike as one, its leaves with a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def _spread_of(name: str, x: Any, params: Params) -> Array:
    """A scalar, or a pytree like params, as one positive number for each parameter: [P]."""
    for leaf in jax.tree.leaves(x):
        _checks.require_positive(name, leaf, remedy="It is the size of the perturbations.")
    came: Any = jax.tree.structure(x)
    if came == jax.tree.structure(params):
        tree = x
    elif jax.tree_util.all_leaves([x]) and jnp.ndim(x) == 0:
        tree = jax.tree.map(lambda _: x, params)
    else:
        raise ValueError(f"{name} must be a scalar or a pytree like params, got {came}.")

    def one(size: Any, p: Array) -> Array:
        size = _checks.as_scalar_or_shape(f"each leaf of {name}", size, p.shape)
        return jnp.broadcast_to(size, p.shape).astype(_checks.widened(p).dtype)

    return flat(jax.tree.map(one, tree, params))
