"""The layers that every network is made of."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.networks.initialization import orthogonal

Array = jax.Array
Activation = Callable[[Array], Array]


class MLP(nn.Module):
    """A perceptron: hidden layers, each followed by the activation, then perhaps a linear layer.

    Shapes: [..., F] -> [..., out] float32, or [..., features[-1]] in dtype if out is None.

    Args:
        features: widths of the hidden layers.
        out: width of the linear layer at the end; None for none.
        activation: what follows each hidden layer.
        final_scale: gain of the orthogonal initialisation of the linear layer at the end.
        dtype: what the hidden layers compute in.
        layer_norm: whether each hidden layer is normalised before its activation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.networks import MLP
        >>> y, _ = MLP(features=(8,), out=3).init_with_output(jax.random.key(0), jnp.ones((5, 2, 4)))
        >>> print(y.shape)
        (5, 2, 3)
    """

    features: tuple[int, ...] = (64, 64)
    out: int | None = None
    activation: Activation = nn.tanh
    final_scale: float = 1.0
    dtype: Any = jnp.float32
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the layers to x, [..., F]."""
        x = x.astype(self.dtype)
        for width in self.features:
            x = nn.Dense(width, kernel_init=orthogonal(math.sqrt(2.0)), dtype=self.dtype)(x)
            x = self.activation(nn.LayerNorm(dtype=self.dtype)(x) if self.layer_norm else x)
        return x if self.out is None else Head(self.out, self.final_scale)(x)


class Convolutions(nn.Module):
    """Convolutions of 3 x 3 without padding, each followed by the activation; what comes out is flattened.

    Shapes: [..., H, W, C] -> [..., F] in dtype; each convolution takes 2 from H and from W.

    Args:
        channels: numbers of channels.
        activation: what follows each convolution.
        dtype: what they compute in.
    """

    channels: tuple[int, ...] = (16,)
    activation: Activation = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the convolutions to x, [..., H, W, C]."""
        x, init = x.astype(self.dtype), orthogonal(math.sqrt(2.0))
        for number in self.channels:
            layer = nn.Conv(
                number, (3, 3), padding="VALID", kernel_init=init, dtype=self.dtype,
                conv_general_dilated_cls=lambda: _as_product,
            )  # fmt: skip
            x = self.activation(layer(x))
        return x.reshape(*x.shape[:-3], -1)


def _as_product(x: Array, kernel: Array, *_: Any, precision: Any = None, **__: Any) -> Array:
    """A convolution with stride 1 and no padding as a matrix product: the cells of each patch side by side.

    XLA's own gradient of a convolution is several times as slow inside a scan on a CPU, and under vmap over networks it
    is a convolution by groups.
    """
    (height, width), features = kernel.shape[:2], kernel.shape[-1]
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = [x[:, i : i + rows, j : j + columns] for i in range(height) for j in range(width)]
    return jnp.matmul(jnp.concatenate(patches, -1), kernel.reshape(-1, features), precision=precision)


class Head(nn.Module):
    """A linear layer in float32: bf16 logits would move log-probabilities by 1e-2."""

    out: int
    scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.out, kernel_init=orthogonal(self.scale), dtype=jnp.float32)(x)
