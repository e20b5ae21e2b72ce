"""Networks that judge: the value of an observation, or of an action in it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.networks.layers import MLP, Activation

Array = jax.Array


class ValueNetwork(nn.Module):
    """An MLP that gives one number for each observation.

    Shapes: [..., F] -> [...] float32.

    Args:
        features: widths of the hidden layers.
        activation: what follows each hidden layer.
        dtype: what the hidden layers compute in.
    """

    features: tuple[int, ...] = (64, 64)
    activation: Activation = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Return the value of obs, [..., F]."""
        return MLP(self.features, 1, self.activation, dtype=self.dtype)(obs)[..., 0]


class QNetwork(nn.Module):
    """An MLP that gives the value of every discrete action.

    Shapes: [..., F] -> [..., num_actions] float32.

    Args:
        num_actions: number of actions.
        features: widths of the hidden layers.
        activation: what follows each hidden layer.
        dtype: what the hidden layers compute in.
    """

    num_actions: int
    features: tuple[int, ...] = (64, 64)
    activation: Activation = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Return the values of all actions in obs, [..., F]."""
        return MLP(self.features, self.num_actions, self.activation, dtype=self.dtype)(obs)


class ContinuousQNetwork(nn.Module):
    """An MLP that gives the value of an observation and a continuous action together.

    Shapes: obs [..., F], action [..., D] -> [...] float32.

    Args:
        features: widths of the hidden layers.
        activation: what follows each hidden layer.
        dtype: what the hidden layers compute in.
    """

    features: tuple[int, ...] = (256, 256)
    activation: Activation = nn.relu
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        """Return the value of action, [..., D], in obs, [..., F]."""
        x = jnp.concatenate([obs, action.astype(obs.dtype)], axis=-1)
        return MLP(self.features, 1, self.activation, dtype=self.dtype)(x)[..., 0]


class Ensemble(nn.Module):
    """Several copies of a network with parameters of their own, evaluated together.

    Shapes: whatever the member gives, with a leading axis [size]; so do the parameters.

    Args:
        member: the network, for instance ``ContinuousQNetwork()``.
        size: number of copies.
    """

    member: nn.Module
    size: int = 2

    @nn.compact
    def __call__(self, *inputs: Any) -> Any:
        """Return what each copy gives for the same inputs, stacked, [size, ...]."""
        every = nn.vmap(
            lambda member, *x: member(*x),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=self.size,
        )
        return every(self.member, *inputs)
