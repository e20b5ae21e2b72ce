"""The layers that every network is made of."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array
Activation = Callable[[Array], Array]


def orthogonal(scale: float) -> Callable[..., Array]:
    """Return Flax's orthogonal initialiser, made safe to vmap on CPU.

    Under vmap its QR decomposition becomes a batched one, which jaxlib spreads over the threads that run the program:
    two of them at once wait for each other for ever (seen with jaxlib 0.10.2 on two cores). One after the other
    they do not.

    Args:
        scale: gain; the matrix has orthonormal rows or columns times it.

    Returns:
        init(key, shape, dtype) -> array of the shape.

    Raises:
        ValueError: by the initialiser, for a shape of fewer than two axes.
    """
    draw = nn.initializers.orthogonal(scale)

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.custom_batching.sequential_vmap(lambda key: draw(key, shape, dtype))(key)

    return init


class MLP(nn.Module):
    """A perceptron: hidden layers, each followed by the activation, then perhaps a linear layer.

    Shapes: [..., F] -> [..., out] float32, or [..., features[-1]] in dtype if out is None.

    Args:
        features: widths of the hidden layers.
        out: width of the linear layer at the end; None for none.
        activation: what follows each hidden layer.
        final_scale: gain of the orthogonal initialisation of the linear layer at the end.
        dtype: what the hidden layers compute in.

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

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply the layers to x, [..., F]."""
        x = x.astype(self.dtype)
        for width in self.features:
            x = self.activation(nn.Dense(width, kernel_init=orthogonal(math.sqrt(2.0)), dtype=self.dtype)(x))
        return x if self.out is None else Head(self.out, self.final_scale)(x)


class Head(nn.Module):
    """A linear layer in float32: bf16 logits would move log-probabilities by 1e-2."""

    out: int
    scale: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Dense(self.out, kernel_init=orthogonal(self.scale), dtype=jnp.float32)(x)
