"""Kronecker-factored curvature of dense layers: the factors of a policy's Fisher matrix, and the step they give."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.custom_batching import sequential_vmap

from pgjax import _checks
from pgjax._types import Params, Policy
from pgjax.distributions import log_prob_of, sample_action
from pgjax.expectation.sampling import parts
from pgjax.natural.fisher import distribution_of, divergence_from, fisher_vector_product, floating
from pgjax.natural.transforms import Number

Array = jax.Array
Path = tuple[Any, ...]

MAX_BLOCK = 64
"""Up to how many numbers a leaf outside the dense layers may have to get its own exact block."""

__all__ = ["KroneckerFactors", "kronecker_factors", "scale_by_kfac"]


@struct.dataclass
class KroneckerFactors:
    """Second moments of each dense layer of a policy, in the order in which the layers are called.

    A pytree: `optax.ema` averages it over updates.
    """

    inputs: tuple[Array, ...]  # A_l = E a aᵀ, [I, I], a the input of the layer, with a 1 appended if it has a bias
    outputs: tuple[Array, ...]  # G_l = E g gᵀ, [O, O], g the score at the output of the layer
    input_pairs: tuple[Array, ...]  # E a_l a_{l+1}ᵀ, one fewer
    output_pairs: tuple[Array, ...]  # E g_l g_{l+1}ᵀ
    blocks: tuple[Array, ...]  # Fisher matrices [n, n] of small leaves outside dense layers, such as log_std
    layers: tuple[tuple[Path, Path | None], ...] = struct.field(pytree_node=False)  # where kernel and bias stand
    leaves: tuple[Path, ...] = struct.field(pytree_node=False)  # where the leaves of the blocks stand


class _Seen(NamedTuple):
    """What the interceptor saw of a run of the network."""

    names: list[str]
    layers: list[tuple[Path, Path | None]]
    inputs: list[Array]
    outputs: list[Array]
    leaves: list[Path]


def kronecker_factors(key: Array | None, params: Params, obs: Any, *, policy: Policy) -> KroneckerFactors:
    """Compute the Kronecker factors of the Fisher matrix of each dense layer of a Flax policy.

        F_l ≈ A_l ⊗ G_l,   A_l = E a aᵀ,   G_l = E g gᵀ,   g = ∂ log π(a|s) / ∂(output of layer l),  a ~ π

    Shapes: obs [..., *obs]; factors of a layer from I to O features [I (+1), I (+1)] and [O, O].

    Args:
        key: draws the actions of which the scores are taken, one for each row. None takes the expectation over actions
            exactly, by a backward pass for each parameter of the distribution: 2 for two actions.
        params: parameters of the policy, of any tree that has the arrays of a Flax module as leaves.
        obs: the states to average over.
        policy: policy(params, obs) -> distribution, (distribution, extras) or a tree of distributions: with
            ``{"policy": ..., "value": pg.Normal(value[..., None], 1.0)}`` the critic's layers get the factors of
            Gauss and Newton. It applies Flax modules, each dense layer once, and is not recurrent.

    Returns:
        The factors. Layers that the policy does not use, or whose kernel is no leaf of params, have none. Further
        leaves of at most 64 numbers that modules of the policy own, such as log_std, get their whole block of the
        Fisher matrix; larger ones get nothing.

    Raises:
        TypeError: if the policy gives no distribution.
        ValueError: if no dense layer is found, if one is called twice, or on other rows than those of the distribution.

    Properties:
        Exact for a layer if its input and its score are independent, such as with a single state.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, pgjax as pg
        >>> layer, obs = nn.Dense(2), jnp.ones((5, 3))
        >>> params = layer.init(jax.random.key(0), obs)
        >>> policy = lambda params, obs: pg.Categorical(layer.apply(params, obs))
        >>> factors = pg.natural.kronecker_factors(None, params, obs, policy=policy)
        >>> print(factors.inputs[0].shape, factors.outputs[0].shape)
        (4, 4) (2, 2)

    References:
        Martens and Grosse (2015), Optimizing neural networks with Kronecker-factored approximate curvature, section 3.
        Wu et al. (2017), Scalable trust-region method for deep reinforcement learning using Kronecker-factored
        approximation.
    """
    places = {id(leaf): path for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def run(probes: list[Array] | None) -> tuple[Any, _Seen]:
        seen = _Seen([], [], [], [], [])
        with nn.intercept_methods(_watching(places, seen, probes)):
            return distribution_of(policy, params, obs), seen

    distribution, seen = run(None)
    distribution = jax.lax.stop_gradient(distribution)
    kl, at = divergence_from(distribution)
    rows = jax.eval_shape(kl, at).shape
    _require_dense(seen, rows)
    probes = [jnp.zeros_like(x) for x in seen.outputs]
    if key is None:
        scores, metric = _exact_scores(lambda probes: floating(run(probes)[0])[0], probes, kl, at, rows)
    else:
        scores, metric = _sampled_scores(key, lambda probes: run(probes)[0], distribution, probes, rows), None
    inputs = [
        _with_one(x.reshape(-1, x.shape[-1]), bias) for x, (_, bias) in zip(seen.inputs, seen.layers, strict=True)
    ]
    moment = lambda x, y: x.T @ y / len(x)  # noqa: E731
    pairs = list(zip(range(len(inputs) - 1), range(1, len(inputs)), strict=True))
    return KroneckerFactors(
        inputs=tuple(moment(x, x) for x in inputs),
        outputs=tuple(_score_moment(x, metric, x) for x in scores),
        input_pairs=tuple(moment(inputs[i], inputs[j]) for i, j in pairs),
        output_pairs=tuple(_score_moment(scores[i], metric, scores[j]) for i, j in pairs),
        blocks=tuple(_block(params, obs, policy, path) for path in seen.leaves),
        layers=tuple(seen.layers),
        leaves=tuple(seen.leaves),
    )


def _watching(places: dict[int, Path], seen: _Seen, probes: list[Array] | None) -> Callable[..., Any]:
    """Note each dense layer with its input, and each small leaf of other modules; add the probes to the outputs."""

    def interceptor(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        result, module = next_fun(*args, **kwargs), context.module
        own = {name: x for name, x in module.variables.get("params", {}).items() if id(x) in places}
        if "kernel" in own and isinstance(module, nn.Dense) and context.method_name == "__call__":
            result = result if probes is None else result + probes[len(seen.layers)]
            bias = places[id(own["bias"])] if "bias" in own else None
            seen.names.append("/".join(module.path))
            seen.layers.append((places[id(own["kernel"])], bias))
            seen.inputs.append(args[0].astype(jnp.promote_types(args[0].dtype, jnp.float32)))
            seen.outputs.append(result)
        elif not isinstance(module, nn.Dense):
            new = [places[id(x)] for x in own.values() if jnp.size(x) <= MAX_BLOCK]
            seen.leaves.extend(path for path in new if path not in seen.leaves)
        return result

    return interceptor


def _require_dense(seen: _Seen, rows: tuple[int, ...]) -> None:
    if not seen.layers:
        raise ValueError(
            "policy calls no flax.linen.Dense whose kernel is a leaf of params: there is nothing to factorise. "
            "Pass the parameters of a Flax module with dense layers, or use scale_by_natural_gradient."
        )
    for i, (name, x) in enumerate(zip(seen.names, seen.inputs, strict=True)):
        if seen.layers[i][0] in [kernel for kernel, _ in seen.layers[:i]]:
            raise ValueError(f"the dense layer {name} is called twice; its factors would mix two places.")
        if x.shape[:-1] != rows:
            raise ValueError(
                f"the dense layer {name} sees rows {list(x.shape[:-1])}, the distribution has {list(rows)}. "
                "Layers that are shared over further axes are not factorised here."
            )


def _with_one(x: Array, bias: Path | None) -> Array:
    return x if bias is None else jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)


def _exact_scores(
    outputs: Callable[[list[Array]], list[Array]],
    probes: list[Array],
    kl: Callable[[list[Array]], Array],
    at: list[Array],
    rows: tuple[int, ...],
) -> tuple[list[Array], Array]:
    """Return ∂z_i/∂(output of each layer), [D, N, O], and F_z of each row, [D, N, D]."""
    sizes = [x[(0,) * len(rows)].size for x in at]
    ends = [sum(sizes[:i]) for i in range(1, len(sizes))]

    def spread(row: Array) -> list[Array]:
        pieces = jnp.split(row, ends)
        return [
            jnp.broadcast_to(piece.reshape(x.shape[len(rows) :]), x.shape).astype(x.dtype)
            for piece, x in zip(pieces, at, strict=True)
        ]

    basis = jax.vmap(spread)(jnp.eye(sum(sizes), dtype=at[0].dtype))
    columns = jax.vmap(lambda u: jax.jvp(jax.grad(lambda z: jnp.sum(kl(z))), (at,), (u,))[1])(basis)
    number = max(1, jnp.size(jnp.zeros(rows)))
    metric = jnp.concatenate([x.reshape(sum(sizes), number, -1) for x in columns], axis=-1)
    _, pull = jax.vjp(outputs, probes)
    scores = jax.vmap(lambda u: pull(u)[0])(basis)
    return [x.reshape(sum(sizes), number, -1) for x in scores], metric


def _sampled_scores(
    key: Array, policy: Callable[[list[Array]], Any], distribution: Any, probes: list[Array], rows: tuple[int, ...]
) -> list[Array]:
    """Return the score of one action for each row at the output of each layer, [1, N, O]."""
    components = [d for (d,) in parts("kronecker_factors", distribution)[1]]
    keys = jax.random.split(key, len(components))
    actions = [sample_action(d, k) for k, d in zip(keys, components, strict=True)]

    def log_prob(probes: list[Array]) -> Array:
        now = [d for (d,) in parts("kronecker_factors", policy(probes))[1]]
        each = (jnp.sum(log_prob_of(d, x[0], x[1])) for d, x in zip(now, actions, strict=True))
        return sum(each, jnp.zeros(()))

    return [x.reshape(1, -1, x.shape[-1]) for x in jax.grad(log_prob)(probes)]


def _score_moment(x: Array, metric: Array | None, y: Array) -> Array:
    """Average Σ_ij x_i F_ij y_jᵀ over the rows; without a metric the scores are samples."""
    weighted = y if metric is None else jnp.einsum("inj,jnq->inq", metric, y)
    return jnp.einsum("inp,inq->pq", x, weighted) / x.shape[1]


def _block(params: Params, obs: Any, policy: Policy, path: Path) -> Array:
    """Return the Fisher matrix of one small leaf."""
    leaf = leaf_at(params, path)
    alone = lambda x: policy(replaced(params, {path: x}), obs)  # noqa: E731
    product = fisher_vector_product(leaf, obs, policy=lambda x, _: alone(x))
    identity = jnp.eye(leaf.size, dtype=leaf.dtype)
    return jax.vmap(lambda row: product(row.reshape(leaf.shape)).ravel())(identity)


def leaf_at(tree: Any, path: Path) -> Array:
    """Look up a leaf.

    Args:
        tree: a pytree.
        path: where the leaf stands, as jax.tree_util.tree_leaves_with_path has it.

    Returns:
        The leaf.
    """
    return dict(jax.tree_util.tree_leaves_with_path(tree))[path]


def replaced(tree: Any, new: dict[Path, Array]) -> Any:
    """Put other leaves at some paths.

    Args:
        tree: a pytree.
        new: leaves by path.

    Returns:
        The tree with them.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: new.get(path, x), tree)


def scale_by_kfac(damping: Number = 1e-2, *, tridiagonal: bool = False) -> optax.GradientTransformationExtraArgs:
    """Multiply the gradient of each dense layer by the inverse of its Kronecker factors.

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
            new[kernel] = step if bias is None else step[:-1]
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


def _joined(updates: Any, layer: tuple[Path, Path | None]) -> Array:
    kernel = leaf_at(updates, layer[0])
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
