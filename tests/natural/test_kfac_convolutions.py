"""Kronecker factors of convolutions against dense layers and loops, and of trunks that policy and critic share."""

import functools
from typing import Any

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pgjax as pg
from pgjax import natural
from pgjax.networks import ConvActorCritic, DiscretePolicy
from pgjax.recipes import acktr

pytestmark = pytest.mark.usefixtures("quick_to_compile")
RNG = np.random.default_rng(1)


class Picture(nn.Module):
    """A convolution, its outputs flattened, and a dense layer without a bias to three logits."""

    kernel: tuple[int, ...]
    padding: Any = "VALID"
    strides: Any = 1
    channels: int = 2

    @nn.compact
    def __call__(self, x: Any) -> Any:
        layer = nn.Conv(
            self.channels, self.kernel, padding=self.padding, strides=self.strides, param_dtype=jnp.float64,
            bias_init=nn.initializers.normal(),
        )  # fmt: skip
        x = nn.tanh(layer(x))
        return nn.Dense(3, use_bias=False, param_dtype=jnp.float64)(x.reshape(*x.shape[: -len(self.kernel) - 1], -1))


class Flat(nn.Module):
    """The same of a dense layer."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.tanh(nn.Dense(2, param_dtype=jnp.float64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3, use_bias=False, param_dtype=jnp.float64)(x)


def factors_of(model: Any, params: Any, obs: Any, key: Any = None) -> Any:
    policy = lambda p, obs: pg.Categorical(model.apply(p, obs))  # noqa: E731
    return jax.jit(functools.partial(natural.kronecker_factors, policy=policy))(key, params, obs)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_kernel_that_covers_the_image_is_a_dense_layer(x64: None, shape: tuple[int, ...], drawn: bool) -> None:
    obs = RNG.normal(size=(5, *shape, 3))
    model, key = Picture(shape), jax.random.key(3) if drawn else None
    params = jax.jit(model.init)(jax.random.key(0), obs)
    conv, last = params["params"]["Conv_0"], params["params"]["Dense_0"]
    kernel = conv["kernel"].reshape(-1, 2)
    flat = {"params": {"Dense_0": {"kernel": kernel, "bias": conv["bias"]}, "Dense_1": last}}
    found, wanted = factors_of(model, params, obs, key), factors_of(Flat(), flat, obs, key)
    assert kernel.shape[0] == 3 * shape[0] * shape[1]
    for name in ("inputs", "outputs", "input_pairs", "output_pairs"):
        for x, y in zip(getattr(found, name), getattr(wanted, name), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-12, err_msg=name)
    assert found.blocks == wanted.blocks == ()
    for tridiagonal in (False, True):
        transform = natural.scale_by_kfac(0.1, tridiagonal=tridiagonal)
        one, other = (
            transform.update(p, transform.init(p), factors=f)[0]["params"] for p, f in ((params, found), (flat, wanted))
        )
        np.testing.assert_allclose(one["Conv_0"]["kernel"].reshape(-1, 2), other["Dense_0"]["kernel"], atol=1e-10)
        np.testing.assert_allclose(one["Conv_0"]["bias"], other["Dense_0"]["bias"], atol=1e-10)
        assert one["Conv_0"]["kernel"].shape == (*shape, 3, 2)


@pytest.mark.parametrize(
    ("padding", "stride", "places"),
    [("VALID", 1, [(0, 0), (0, 1), (1, 0), (1, 1)]), ("SAME", 2, [(0, 0), (0, 2), (2, 0), (2, 2)])],
)
def test_the_factors_of_several_locations_are_those_of_loops(
    x64: None, padding: str, stride: int, places: list[tuple[int, int]]
) -> None:
    """Ω = E Σ_t a_t a_tᵀ,  Γ = 1/N E Σ_t g_t g_tᵀ, the expectation over actions too; a kernel of 3 x 3 on 4 x 4."""
    obs = RNG.normal(size=(3, 4, 4, 2))
    model = Picture((3, 3), padding, stride)
    params = jax.jit(model.init)(jax.random.key(0), obs)
    kernel, bias, last = (
        np.asarray(params["params"][layer][name])
        for layer, name in (("Conv_0", "kernel"), ("Conv_0", "bias"), ("Dense_0", "kernel"))
    )
    padded = np.pad(obs, ((0, 0), (0, 1), (0, 1), (0, 0)))  # what SAME adds with strides of 2: one row at the far end
    omega, gamma = np.zeros((19, 19)), np.zeros((2, 2))
    for image in padded:
        patches = [np.append(image[i : i + 3, j : j + 3].ravel(), 1.0) for i, j in places]
        hidden = np.tanh([patch @ np.vstack([kernel.reshape(18, 2), bias]) for patch in patches])
        logits = hidden.ravel() @ last
        p = np.exp(logits) / np.exp(logits).sum()
        for patch in patches:
            omega += np.outer(patch, patch) / len(obs)
        for action in range(3):
            at_hidden = (last @ (np.eye(3)[action] - p)).reshape(4, 2)
            for t in range(4):
                g = at_hidden[t] * (1 - hidden[t] ** 2)
                gamma += p[action] * np.outer(g, g) / (4 * len(obs))
    found = factors_of(model, params, obs)
    np.testing.assert_allclose(found.inputs[0], omega, atol=1e-12)
    np.testing.assert_allclose(found.outputs[0], gamma, atol=1e-12)
    np.testing.assert_array_equal(found.input_pairs[0], np.zeros((19, 8)))
    np.testing.assert_array_equal(found.output_pairs[0], np.zeros((2, 3)))
    step = natural.scale_by_kfac(1e-2).update(params, None, factors=found)[0]["params"]["Conv_0"]
    joined = np.vstack([kernel.reshape(18, 2), bias])
    balance = np.sqrt(np.trace(omega) / 19 / (np.trace(gamma) / 2))
    wanted = np.linalg.inv(omega + balance * 0.1 * np.eye(19)) @ joined
    wanted = wanted @ np.linalg.inv(gamma + 0.1 / balance * np.eye(2))
    np.testing.assert_allclose(step["kernel"], wanted[:-1].reshape(3, 3, 2, 2), atol=1e-9)
    np.testing.assert_allclose(step["bias"], wanted[-1], atol=1e-9)
    drawn = jax.vmap(lambda key: factors_of(model, params, obs, key).outputs[0])(
        jax.random.split(jax.random.key(2), 400)
    )
    np.testing.assert_allclose(drawn.mean(0), gamma, atol=5 * np.asarray(drawn).std(0).max() / 20)


def test_a_trunk_that_policy_and_critic_share_counts_once_with_the_scores_of_both() -> None:
    model = ConvActorCritic(DiscretePolicy(num_actions=3), channels=(2,), features=(4,))
    obs = RNG.normal(size=(6, 4, 4, 2)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(0), obs)

    def apart(p: Any, obs: Any, again: Any = None) -> Any:
        value = model.apply(p, obs if again is None else again, method="value")
        return {"policy": model.apply(p, obs, method="policy"), "value": pg.Normal(value[..., None], 1.0)}

    def together(p: Any, obs: Any) -> Any:
        distribution, value = model.apply(p, obs)
        return {"policy": distribution, "value": pg.Normal(value[..., None], 1.0)}

    one, other = (
        jax.jit(lambda p, obs, policy=policy: natural.kronecker_factors(None, p, obs, policy=policy))(params, obs)
        for policy in (apart, together)
    )
    order = [one.layers.index(place) for place in other.layers]
    assert len(order) == 4
    for i, j in enumerate(order):
        np.testing.assert_allclose(one.inputs[j], other.inputs[i], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(one.outputs[j], other.outputs[i], rtol=1e-5, atol=1e-7)
    alone = natural.kronecker_factors(None, params, obs, policy=lambda p, obs: apart(p, obs)["policy"])
    assert np.abs(alone.outputs[0] - one.outputs[0]).max() > 0.1 * np.abs(alone.outputs[0]).max()
    with pytest.raises(ValueError, match="layer convolutions/Conv_0 is called twice on different arrays"):
        natural.kronecker_factors(None, params, obs, policy=lambda p, obs: apart(p, obs, obs + 1.0))


def test_groups_of_channels_and_masks_are_left_out_and_small_leaves_get_their_block() -> None:
    class Grouped(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Conv(2, (1, 1), feature_group_count=2)(x)
            return nn.Dense(2)(x.reshape(x.shape[0], -1))

    obs = RNG.normal(size=(4, 1, 1, 2)).astype(np.float32)
    params = jax.jit(Grouped().init)(jax.random.key(0), obs)
    found = factors_of(Grouped(), params, obs)
    assert [x.shape for x in found.inputs] == [(3, 3)]
    assert sorted(x.shape for x in found.blocks) == [(2, 2), (2, 2)]


@pytest.mark.parametrize("normalize", [False, True])
def test_acktr_takes_a_convolutional_trunk(normalize: bool) -> None:
    env, env_params = gymnax.make("Breakout-MinAtar")
    model = ConvActorCritic(DiscretePolicy(num_actions=3), channels=(4,), features=(8,))
    recipe = acktr.make_train(
        env, env_params, model=model, num_envs=4, num_steps=4, total_steps=64, normalize_observations=normalize
    )
    state = recipe.init(jax.random.key(0))
    after, metrics = jax.jit(recipe.update)(state)
    before = state.params.network if normalize else state.params
    now = after.params.network if normalize else after.params
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), before, now)["params"]
    assert moved["convolutions"]["Conv_0"]["kernel"] > 0
    assert 0 < float(metrics["kl"]) < 0.02
    assert metrics["num_nonfinite"] == 0
    assert after.factors.ema.inputs[0].shape == (37, 37)
