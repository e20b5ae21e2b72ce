"""Convolutions are matrix products: they are those of XLA, forwards and backwards, and stay products under vmap."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.networks import Convolutions

pytestmark = pytest.mark.usefixtures("quick_to_compile")


class Plain(nn.Module):
    """The same layers as `Convolutions`, from flax alone."""

    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number in self.channels:
            x = nn.relu(nn.Conv(number, (3, 3), padding="VALID", dtype=x.dtype, param_dtype=x.dtype)(x))
        return x.reshape(*x.shape[:-3], -1)


@pytest.mark.parametrize("channels", [(5,), (4, 3)])
@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_convolutions_and_their_gradients_are_those_of_xla(
    channels: tuple[int, ...], lead: tuple[int, ...], x64: None
) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*lead, 7, 6, 2), jnp.float64)
    ours, plain = Convolutions(channels, nn.relu, jnp.float64), Plain(channels)
    params = jax.tree.map(lambda p: jax.random.normal(keys[1], p.shape), plain.init(keys[2], x))
    assert jax.tree.structure(params) == jax.tree.structure(ours.init(keys[2], x))

    def outcome(model: nn.Module) -> object:
        weigh = lambda p, x: jnp.square(model.apply(p, x)).sum()  # noqa: E731
        return model.apply(params, x), jax.grad(weigh, argnums=(0, 1))(params, x)

    for one, other in zip(jax.tree.leaves(outcome(ours)), jax.tree.leaves(outcome(plain)), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-9)


def test_no_convolution_is_left_for_the_compiler_also_not_under_vmap_over_networks() -> None:
    model, x = Convolutions((4, 3)), jnp.ones((2, 7, 6, 2))
    params = jax.vmap(lambda key: model.init(key, x))(jax.random.split(jax.random.key(0), 3))
    slope = jax.vmap(jax.grad(lambda p: model.apply(p, x).sum()))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(slope)(params))
    assert "conv_general_dilated" in str(jax.make_jaxpr(lambda x: Plain((4,)).init(jax.random.key(0), x))(x))
