"""Kronecker factors against whole Fisher matrices, where they must agree and where they must not."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import natural
from pgjax.networks import ActorCritic, GaussianPolicy

pytestmark = pytest.mark.usefixtures("quick_to_compile", "x64")

OBS = np.random.default_rng(0).normal(size=(6, 3))


class Layers(nn.Module):
    """Two dense layers, the second without a bias."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.tanh(nn.Dense(4, param_dtype=jnp.float64)(x))
        return nn.Dense(3, use_bias=False, param_dtype=jnp.float64)(x)


def network(seed: int = 0) -> tuple[Any, Any]:
    """Parameters, with biases that are not 0, and the policy."""
    params = Layers().init(jax.random.key(seed), OBS)
    params["params"]["Dense_0"]["bias"] = jnp.array([0.3, -0.2, 0.5, 0.1])
    return params, lambda p, obs: pg.Categorical(Layers().apply(p, obs))


def in_order(params: Any, policy: Any, obs: Any) -> np.ndarray:
    """The exact Fisher matrix, its rows and columns in the order of the factors: kernel, bias, kernel."""

    def raveled(x: Any) -> Any:
        first, second = x[:16].reshape(4, 4), x[16:].reshape(4, 3)
        tree = {"params": {"Dense_0": {"kernel": first[:-1], "bias": first[-1]}, "Dense_1": {"kernel": second}}}
        return policy(tree, obs)

    layers = params["params"]
    flat = jnp.concatenate(
        [layers["Dense_0"]["kernel"].ravel(), layers["Dense_0"]["bias"], layers["Dense_1"]["kernel"].ravel()]
    )
    return np.asarray(natural.fisher_matrix(flat, obs, policy=lambda x, _: raveled(x)))


def test_identity_28_for_one_state_each_block_is_exact_and_for_several_the_last_layer_differs() -> None:
    params, policy = network()
    for obs, exact in ((OBS[:1], True), (OBS, False)):
        factors = natural.kronecker_factors(None, params, obs, policy=policy)
        whole = in_order(params, policy, obs)
        blocks = [np.kron(a, g) for a, g in zip(factors.inputs, factors.outputs, strict=True)]
        cross = np.kron(factors.input_pairs[0], factors.output_pairs[0])
        errors = [
            np.abs(found - wanted).max()
            for found, wanted in ((blocks[0], whole[:16, :16]), (blocks[1], whole[16:, 16:]), (cross, whole[:16, 16:]))
        ]
        assert (max(errors) < 1e-14) == exact
        assert exact or min(errors) > 1e-3
    moments = np.concatenate([OBS, np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(factors.inputs[0], moments.T @ moments / 6, atol=1e-14)
    assert [path[-1].key for path, _ in factors.layers] == ["kernel", "kernel"]
    assert factors.layers[1][1] is None


def test_identity_28_of_a_linear_policy_with_one_scale_the_factors_are_exact() -> None:
    """A Gaussian whose mean is linear: the score at the output does not depend on the input."""
    layer = nn.Dense(2, param_dtype=jnp.float64)
    params = layer.init(jax.random.key(0), OBS)
    policy = lambda p, obs: pg.Normal(layer.apply(p, obs), 0.4)  # noqa: E731
    factors = natural.kronecker_factors(None, params, OBS, policy=policy)
    found = np.kron(factors.inputs[0], factors.outputs[0])

    def raveled(x: Any, obs: Any) -> Any:
        return policy({"params": {"kernel": x.reshape(4, 2)[:-1], "bias": x.reshape(4, 2)[-1]}}, obs)

    flat = jnp.concatenate([params["params"]["kernel"].ravel(), params["params"]["bias"]])
    np.testing.assert_allclose(found, natural.fisher_matrix(flat, OBS, policy=raveled), atol=1e-13)


def test_drawn_actions_give_the_exact_factors_in_expectation() -> None:
    """The mean over 3,000 draws lies within 5 standard errors, in every entry."""
    params, policy = network()
    exact = natural.kronecker_factors(None, params, OBS, policy=policy)
    draw = jax.jit(jax.vmap(lambda key: natural.kronecker_factors(key, params, OBS, policy=policy)))
    drawn = draw(jax.random.split(jax.random.key(1), 3000))
    for name in ("outputs", "output_pairs"):
        for wanted, rows in zip(getattr(exact, name), getattr(drawn, name), strict=True):
            error = np.std(rows, axis=0) / np.sqrt(3000)
            assert (np.abs(np.mean(rows, axis=0) - wanted) <= 5 * error + 1e-12).all()
            assert (error > 1e-4).any()
    for wanted, rows in zip(exact.inputs, drawn.inputs, strict=True):
        np.testing.assert_allclose(rows[7], wanted, atol=1e-14)


def flat(tree: Any) -> np.ndarray:
    layers = tree["params"]
    first = np.concatenate([layers["Dense_0"]["kernel"], layers["Dense_0"]["bias"][None]])
    return np.concatenate([first.ravel(), np.ravel(layers["Dense_1"]["kernel"])])


def assembled(factors: Any, damping: float) -> tuple[list[np.ndarray], np.ndarray]:
    """The damped blocks by the formula of the paper, and the cross block."""
    blocks = []
    for a, g in zip(factors.inputs, factors.outputs, strict=True):
        a, g = np.asarray(a), np.asarray(g)
        share = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        damped = np.kron(a + share * np.sqrt(damping) * np.eye(len(a)), g + np.sqrt(damping) / share * np.eye(len(g)))
        blocks.append(damped)
    return blocks, np.kron(factors.input_pairs[0], factors.output_pairs[0])


@pytest.mark.parametrize("tridiagonal", [False, True])
def test_the_step_is_the_inverse_of_the_matrix_that_the_factors_make(tridiagonal: bool) -> None:
    """Of two layers the chain has no pair that is left out: its inverse is that of the whole matrix."""
    params, policy = network()
    factors = natural.kronecker_factors(None, params, OBS, policy=policy)
    gradient = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(x.size).normal(size=x.shape)), params)
    transform = natural.scale_by_kfac(0.3, tridiagonal=tridiagonal)
    step, _ = transform.update(gradient, transform.init(params), factors=factors)
    (first, second), cross = assembled(factors, 0.3)
    off = cross if tridiagonal else np.zeros_like(cross)
    whole = np.block([[first, off], [off.T, second]])
    np.testing.assert_allclose(flat(step), np.linalg.solve(whole, flat(gradient)), atol=1e-9)


def test_a_chain_of_three_layers_inverts_the_matrix_whose_inverse_is_tridiagonal() -> None:
    """Built from the definition: block (1, 3) is Ψ₁ F₂₃, so that layers 1 and 3 are independent given the second."""

    class Three(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for width in (2, 2):
                x = nn.tanh(nn.Dense(width, use_bias=False, param_dtype=jnp.float64)(x))
            return nn.Dense(2, use_bias=False, param_dtype=jnp.float64)(x)

    params = Three().init(jax.random.key(0), OBS)
    factors = natural.kronecker_factors(None, params, OBS, policy=lambda p, obs: pg.Categorical(Three().apply(p, obs)))
    blocks = []
    for a, g in zip(factors.inputs, factors.outputs, strict=True):
        share = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        blocks.append(np.kron(a + share * np.sqrt(0.5) * np.eye(len(a)), g + np.sqrt(0.5) / share * np.eye(len(g))))
    c12, c23 = (np.kron(a, g) for a, g in zip(factors.input_pairs, factors.output_pairs, strict=True))
    c13 = c12 @ np.linalg.solve(blocks[1], c23)
    whole = np.block([[blocks[0], c12, c13], [c12.T, blocks[1], c23], [c13.T, c23.T, blocks[2]]])
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), params)
    transform = natural.scale_by_kfac(0.5, tridiagonal=True)
    step, _ = transform.update(gradient, transform.init(params), factors=factors)
    by_layer = lambda tree: np.concatenate([np.ravel(tree["params"][f"Dense_{i}"]["kernel"]) for i in range(3)])  # noqa: E731
    np.testing.assert_allclose(by_layer(step), np.linalg.solve(whole, by_layer(gradient)), atol=1e-9)
    diagonal, _ = natural.scale_by_kfac(0.5).update(gradient, transform.init(params), factors=factors)
    assert np.abs(by_layer(step) - by_layer(diagonal)).max() > 1e-3


def test_identity_28_with_large_damping_the_direction_is_that_of_the_gradient() -> None:
    params, policy = network()
    factors = natural.kronecker_factors(None, params, OBS, policy=policy)
    random = np.random.default_rng(0)
    gradient = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), params)
    for damping, alike in ((1e10, True), (1.0, False)):
        transform = natural.scale_by_kfac(damping)
        step, _ = transform.update(gradient, transform.init(params), factors=factors)
        pairs = zip(jax.tree.leaves(step), jax.tree.leaves(gradient), strict=True)
        errors = [np.abs(x * damping - g).max() for x, g in pairs]
        assert (max(errors) < 1e-3) == alike


def test_scales_get_their_own_block_and_critics_pass_through_or_join() -> None:
    """A Normal's log_std has information 2; a critic has none of the policy, and Gauss and Newton's as a Normal."""
    model = ActorCritic(GaussianPolicy(2), features=(4,))
    params = model.init(jax.random.key(0), jnp.asarray(OBS, jnp.float32))
    policy = lambda p, obs: model.apply(p, obs, method="policy")  # noqa: E731
    obs = jnp.asarray(OBS, jnp.float32)
    factors = natural.kronecker_factors(None, params, obs, policy=policy)
    assert len(factors.inputs) == 2
    np.testing.assert_allclose(factors.blocks[0], 2 * np.eye(2), rtol=1e-5)
    transform = natural.scale_by_kfac(0.5)
    gradient = jax.tree.map(jnp.ones_like, params)
    step, _ = transform.update(gradient, transform.init(params), factors=factors)
    np.testing.assert_allclose(step["params"]["head"]["log_std"], 1 / 2.5, rtol=1e-5)
    np.testing.assert_array_equal(step["params"]["critic"]["MLP_0"]["Dense_0"]["kernel"], 1.0)

    def joint(p: Any, obs: Any) -> Any:
        return {"policy": policy(p, obs), "value": pg.Normal(model.apply(p, obs, method="value")[..., None], 1.0)}

    both = natural.kronecker_factors(None, params, obs, policy=joint)
    assert len(both.inputs) == 4
    np.testing.assert_allclose(both.outputs[-1], [[1.0]], rtol=1e-6)  # Gauss and Newton's, of a squared error by half
    np.testing.assert_allclose(both.outputs[0], factors.outputs[0], atol=1e-7)


def test_factors_are_averaged_by_optax_and_vmapped() -> None:
    params, policy = network()
    one = natural.kronecker_factors(None, params, OBS[:3], policy=policy)
    other = natural.kronecker_factors(None, params, OBS[3:], policy=policy)
    ema = optax.ema(0.9, debias=True)
    mean, state = ema.update(one, ema.init(one))
    np.testing.assert_allclose(mean.inputs[0], one.inputs[0], atol=1e-14)
    mean, _ = ema.update(other, state)
    weights = np.array([0.09, 0.1]) / 0.19
    np.testing.assert_allclose(mean.outputs[1], weights[0] * one.outputs[1] + weights[1] * other.outputs[1], atol=1e-13)
    transform = natural.scale_by_kfac(0.1)
    gradient = jax.tree.map(jnp.ones_like, params)
    step = lambda f: transform.update(gradient, transform.init(params), factors=f)[0]  # noqa: E731
    together = jax.jit(jax.vmap(step))(jax.tree.map(lambda *x: jnp.stack(x), one, other))
    np.testing.assert_allclose(
        ravel_pytree(step(other))[0], ravel_pytree(jax.tree.map(lambda x: x[1], together))[0], atol=1e-9
    )


def test_what_cannot_be_factorised_is_named() -> None:
    params, _ = network()
    with pytest.raises(ValueError, match=r"policy calls no flax.linen.Dense or Conv"):
        natural.kronecker_factors(None, jnp.zeros((3, 2)), OBS, policy=lambda p, obs: pg.Categorical(obs @ p))

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            layer = nn.Dense(3, param_dtype=jnp.float64)
            return layer(layer(x))

    twice = Twice().init(jax.random.key(0), OBS)
    with pytest.raises(ValueError, match="the layer Dense_0 is called twice on different arrays"):
        natural.kronecker_factors(None, twice, OBS, policy=lambda p, obs: pg.Categorical(Twice().apply(p, obs)))
    shared = lambda p, obs: pg.Categorical(Layers().apply(p, jnp.stack([obs, obs], 1)).sum(1))  # noqa: E731
    with pytest.raises(ValueError, match=r"Dense_0 sees rows \[6, 2\], the distribution has \[6\]"):
        natural.kronecker_factors(None, params, OBS, policy=shared)
    with pytest.raises(TypeError, match="factors must be"):
        natural.scale_by_kfac().update(params, optax.EmptyState(), factors=params)
