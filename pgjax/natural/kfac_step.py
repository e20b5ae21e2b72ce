"""The step that Kronecker factors give: the gradient through the inverse of each layer's block."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.custom_batching import sequential_vmap

from pgjax import _checks
from pgjax.natural._layers import Path, Place, leaf_at, replaced
from pgjax.natural.kfac import KroneckerFactors
from pgjax.natural.transforms import Number

Array = jax.Array

__all__ = ["scale_by_kfac"]


def scale_by_kfac(damping: Number = 1e-2, *, tridiagonal: bool = False) -> optax.GradientTransformationExtraArgs:
    """Multiply the gradient of each dense layer and convolution by the inverse of its Kronecker factors.

        ∇W -> (A + π √ξ I)⁻¹ ∇W (G + √ξ/π I)⁻¹,   π² = (tr A / dim A) / (tr G / dim G)

    Shapes: updates like params.

    Args:
        damping: ξ, in the units of the Fisher matrix, shared between the factors.
        tridiagonal: whether neighbouring layers are taken together: the inverse is then that of a chain of layers, in
            which each depends on the next alone. It builds matrices of the size of whole layers, for small networks.

    Returns:
        An optax transform without state; its update takes `factors=`, from `kronecker_factors`, perhaps averaged by
        `optax.ema`. Leaves without factors pass through; small leaves are multiplied by the inverse of their block.

    Raises:
        TypeError: if factors are no `KroneckerFactors`.

    Properties:
        With large damping the direction of each layer is that of its gradient. Cost: one inverse for each factor.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, pgjax as pg
        >>> layer, obs = nn.Dense(2), jnp.ones((5, 3))
        >>> params = layer.init(jax.random.key(0), obs)
        >>> policy = lambda params, obs: pg.Categorical(layer.apply(params, obs))
        >>> factors = pg.natural.kronecker_factors(None, params, obs, policy=policy)
        >>> transform = pg.natural.scale_by_kfac(damping=1e-3)
        >>> updates, _ = transform.update(params, transform.init(params), factors=factors)
        >>> print(updates["params"]["kernel"].shape)
        (3, 2)

    References:
        Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate curvature, sections 4
        and 6.
    """

    def update(updates: Any, state: Any, params: Any = None, *, factors: KroneckerFactors, **_: Any) -> Any:
        _checks.require_instance("factors", factors, KroneckerFactors, remedy="Take them from kronecker_factors.")
        inputs, outputs = _damped(factors, damping)
        weights = [_joined(updates, layer) for layer in factors.layers]
        if tridiagonal:
            steps = _through_chain(weights, inputs, outputs, factors)
        else:
            steps = [inverse(a) @ w @ inverse(g) for a, w, g in zip(inputs, weights, outputs, strict=True)]
        new: dict[Path, Array] = {}
        for (kernel, bias), step in zip(factors.layers, steps, strict=True):
            whole = step if bias is None else step[:-1]
            new[kernel] = whole.reshape(leaf_at(updates, kernel).shape)
            if bias is not None:
                new[bias] = step[-1]
        for path, block in zip(factors.leaves, factors.blocks, strict=True):
            leaf = leaf_at(updates, path)
            new[path] = (inverse(block + damping * jnp.eye(len(block))) @ leaf.ravel()).reshape(leaf.shape)
        return jax.tree.map(lambda x, old: x.astype(old.dtype), replaced(updates, new), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


@sequential_vmap
def inverse(matrix: Array) -> Array:
    """Invert a symmetric positive definite matrix; under vmap one after the other.

    Several batched solves of LAPACK in one program may never return on two cores (jaxlib 0.10.2).

    Args:
        matrix: [n, n] float.

    Returns:
        [n, n] float, symmetric.
    """
    half = jnp.linalg.cholesky(matrix)
    whole = jax.scipy.linalg.cho_solve((half, True), jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    return 0.5 * (whole + whole.T)


def _damped(factors: KroneckerFactors, damping: Number) -> tuple[list[Array], list[Array]]:
    """Share the damping between the factors of a layer, in proportion to their mean eigenvalues."""
    inputs, outputs = [], []
    for a, g in zip(factors.inputs, factors.outputs, strict=True):
        floor = jnp.finfo(a.dtype).tiny
        balance = jnp.sqrt(jnp.maximum(jnp.trace(a) / len(a), floor) / jnp.maximum(jnp.trace(g) / len(g), floor))
        balance = jnp.clip(balance, 1e-3, 1e3)  # where a layer has no score at all
        inputs.append(a + balance * jnp.sqrt(damping) * jnp.eye(len(a), dtype=a.dtype))
        outputs.append(g + jnp.sqrt(damping) / balance * jnp.eye(len(g), dtype=g.dtype))
    return inputs, outputs


def _joined(updates: Any, layer: Place) -> Array:
    kernel = leaf_at(updates, layer[0])
    kernel = kernel.reshape(-1, kernel.shape[-1])  # of a convolution it has an axis for each of the image, and one more
    return kernel if layer[1] is None else jnp.concatenate([kernel, leaf_at(updates, layer[1])[None]])


def _through_chain(
    weights: list[Array], inputs: list[Array], outputs: list[Array], factors: KroneckerFactors
) -> list[Array]:
    """Multiply by Ξᵀ Λ Ξ: Ψ_l = F_{l,l+1} F_{l+1}⁻¹, Λ_l = (F_l - Ψ_l F_{l+1} Ψ_lᵀ)⁻¹, Ξ with -Ψ beside its ones."""
    own = [jnp.kron(a, g) for a, g in zip(inputs, outputs, strict=True)]
    cross = [jnp.kron(a, g) for a, g in zip(factors.input_pairs, factors.output_pairs, strict=True)]
    vectors = [w.ravel() for w in weights]
    last = len(own) - 1
    to_next = [cross[i] @ inverse(own[i + 1]) for i in range(last)]
    rest = [own[i] - to_next[i] @ cross[i].T for i in range(last)] + [own[last]]
    forward = [vectors[i] - (to_next[i] @ vectors[i + 1] if i < last else 0.0) for i in range(last + 1)]
    scaled = [inverse(block) @ x for block, x in zip(rest, forward, strict=True)]
    back = [scaled[i] - (to_next[i - 1].T @ scaled[i - 1] if i else 0.0) for i in range(last + 1)]
    return [x.reshape(w.shape) for x, w in zip(back, weights, strict=True)]
