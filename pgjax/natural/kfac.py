"""Kronecker-factored curvature of dense layers and convolutions: the factors of a policy's Fisher matrix."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from pgjax._compile import compiled
from pgjax._types import Params, Policy
from pgjax.distributions import log_prob_of, sample_action
from pgjax.expectation.sampling import parts
from pgjax.natural._layers import Layer, Path, Seen, leaf_at, replaced, require_layers, watching
from pgjax.natural.fisher import distribution_of, divergence_from, fisher_vector_product, floating

Array = jax.Array

__all__ = ["KroneckerFactors", "kronecker_factors"]


@struct.dataclass
class KroneckerFactors:
    """Second moments of each dense layer and convolution of a policy, in the order in which they are called.

    A pytree: `optax.ema` averages it over updates.
    """

    inputs: tuple[Array, ...]  # A_l = E a aᵀ, [I, I], a the input of the layer, with a 1 appended if it has a bias
    outputs: tuple[Array, ...]  # G_l = E g gᵀ, [O, O], g the score at the output of the layer
    input_pairs: tuple[Array, ...]  # E a_l a_{l+1}ᵀ, one fewer; 0 beside a convolution
    output_pairs: tuple[Array, ...]  # E g_l g_{l+1}ᵀ
    blocks: tuple[Array, ...]  # Fisher matrices [n, n] of small leaves outside these layers, such as log_std
    layers: tuple[tuple[Path, Path | None], ...] = struct.field(pytree_node=False)  # where kernel and bias stand
    leaves: tuple[Path, ...] = struct.field(pytree_node=False)  # where the leaves of the blocks stand


@compiled()
def kronecker_factors(key: Array | None, params: Params, obs: Any, *, policy: Policy) -> KroneckerFactors:
    """Compute the Kronecker factors of the Fisher matrix of each dense layer and convolution of a Flax policy.

        F_l ≈ A_l ⊗ G_l,   A_l = E a aᵀ,   G_l = E g gᵀ,   g = ∂ log π(a|s) / ∂(output of layer l),  a ~ π

    Of a convolution, a is the patch under the kernel at one of N locations and g the score there, and both are taken to
    be alike and uncorrelated at different ones: A_l = E Σ_t a_t a_tᵀ,  G_l = 1/N E Σ_t g_t g_tᵀ.

    Shapes: obs [..., *obs]; factors of a layer from I to O features [I (+1), I (+1)] and [O, O]; for a convolution I
    counts the numbers of a patch, in the order of its kernel.

    Args:
        key: draws the actions of which the scores are taken, one for each row. None takes the expectation over actions
            exactly, by a backward pass for each parameter of the distribution: 2 for two actions.
        params: parameters of the policy, of any tree that has the arrays of a Flax module as leaves.
        obs: the states to average over.
        policy: policy(params, obs) -> distribution, (distribution, extras) or a tree of distributions: with
            ``{"policy": ..., "value": pg.Normal(value[..., None], 1.0)}`` the critic's layers get the factors of
            Gauss and Newton. It applies Flax modules, each layer once or again on the same arrays, as where policy and
            critic share a trunk, and is not recurrent.

    Returns:
        The factors. Layers that the policy does not use, or whose kernel is no leaf of params, have none, nor have
        convolutions with groups of channels or a mask. Further
        leaves of at most 64 numbers that modules of the policy own, such as log_std, get their whole block of the
        Fisher matrix; larger ones get nothing.

    Raises:
        TypeError: if the policy gives no distribution.
        ValueError: if no layer is found, if one is called on several arrays, or a dense one on other rows than those of
            the distribution.

    Properties:
        Exact for a layer if its input and its score are independent, such as with a single state, and, for a
        convolution, a single location.

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
        Grosse and Martens (2016), A Kronecker-factored approximate Fisher matrix for convolution layers.
    """
    places = {id(leaf): path for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def run(probes: list[Array] | None) -> tuple[Any, Seen]:
        seen = Seen([], [], {})
        with nn.intercept_methods(watching(places, seen, probes)):
            return distribution_of(policy, params, obs), seen

    distribution, seen = run(None)
    distribution = jax.lax.stop_gradient(distribution)
    kl, at = divergence_from(distribution)
    rows = jax.eval_shape(kl, at).shape
    require_layers(seen, rows)
    layers = seen.layers
    probes = [jnp.zeros_like(layer.outputs) for layer in layers]
    if key is None:
        scores, metric = _exact_scores(lambda probes: floating(run(probes)[0])[0], probes, kl, at, rows)
    else:
        scores, metric = _sampled_scores(key, lambda probes: run(probes)[0], distribution, probes, rows), None
    inputs = [_inputs(layer) for layer in layers]
    pairs = [(i, i + 1, max(layers[i].num_locations, layers[i + 1].num_locations) == 1) for i in range(len(layers) - 1)]
    moment = lambda x, y: x.T @ y / len(x)  # noqa: E731
    nothing = lambda x, y: jnp.zeros((x.shape[-1], y.shape[-1]), x.dtype)  # noqa: E731
    return KroneckerFactors(
        inputs=tuple(moment(x, x) for x in inputs),
        outputs=tuple(_score_moment(x, metric, x) for x in scores),
        input_pairs=tuple((moment if dense else nothing)(inputs[i], inputs[j]) for i, j, dense in pairs),
        output_pairs=tuple(
            _score_moment(scores[i], metric, scores[j]) if dense else nothing(scores[i], scores[j])
            for i, j, dense in pairs
        ),
        blocks=tuple(_block(params, obs, policy, path) for path in seen.leaves),
        layers=tuple(layer.place for layer in layers),
        leaves=tuple(seen.leaves),
    )


def _inputs(layer: Layer) -> Array:
    """Return a, with a 1 for the bias, [N · locations, I (+1)], such that the mean over rows sums over locations."""
    x = layer.inputs.reshape(-1, layer.inputs.shape[-1])
    x = x if layer.place[1] is None else jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    return math.sqrt(layer.num_locations) * x if layer.num_locations > 1 else x


def _exact_scores(
    outputs: Callable[[list[Array]], list[Array]],
    probes: list[Array],
    kl: Callable[[list[Array]], Array],
    at: list[Array],
    rows: tuple[int, ...],
) -> tuple[list[Array], Array]:
    """Return ∂z_i/∂(output of each layer), [D, N · locations, O], and F_z of each row, [D, N, D]."""
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
    return [x.reshape(sum(sizes), -1, x.shape[-1]) for x in scores], metric


def _sampled_scores(
    key: Array, policy: Callable[[list[Array]], Any], distribution: Any, probes: list[Array], rows: tuple[int, ...]
) -> list[Array]:
    """Return the score of one action for each row at the output of each layer, [1, N · locations, O]."""
    components = [d for (d,) in parts("kronecker_factors", distribution)[1]]
    keys = jax.random.split(key, len(components))
    actions = [sample_action(d, k) for k, d in zip(keys, components, strict=True)]

    def log_prob(probes: list[Array]) -> Array:
        now = [d for (d,) in parts("kronecker_factors", policy(probes))[1]]
        each = (jnp.sum(log_prob_of(d, x[0], x[1])) for d, x in zip(now, actions, strict=True))
        return sum(each, jnp.zeros(()))

    return [x.reshape(1, -1, x.shape[-1]) for x in jax.grad(log_prob)(probes)]


def _score_moment(x: Array, metric: Array | None, y: Array) -> Array:
    """Average Σ_ij x_i F_ij y_jᵀ over the rows and locations; without a metric the scores are samples."""
    if metric is not None:
        metric = jnp.repeat(metric, y.shape[1] // metric.shape[1], axis=1)
    weighted = y if metric is None else jnp.einsum("inj,jnq->inq", metric, y)
    return jnp.einsum("inp,inq->pq", x, weighted) / x.shape[1]


def _block(params: Params, obs: Any, policy: Policy, path: Path) -> Array:
    """Return the Fisher matrix of one small leaf."""
    leaf = leaf_at(params, path)
    alone = lambda x: policy(replaced(params, {path: x}), obs)  # noqa: E731
    product = fisher_vector_product(leaf, obs, policy=lambda x, _: alone(x))
    identity = jnp.eye(leaf.size, dtype=leaf.dtype)
    return jax.vmap(lambda row: product(row.reshape(leaf.shape)).ravel())(identity)
