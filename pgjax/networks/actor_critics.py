"""Networks that act and judge: a policy and a value in one module."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.networks.critics import ValueNetwork
from pgjax.networks.layers import MLP, Activation, Head, orthogonal

Array = jax.Array


class ActorCritic(nn.Module):
    """A policy and a value with separate trunks, for observations that are vectors.

    Shapes: [..., F] -> (distribution [..., ...], value [...]).

    Args:
        head: what turns features into a distribution, for instance ``DiscretePolicy(num_actions=2)``.
        features: widths of the hidden layers of either trunk.
        activation: what follows each hidden layer.
        dtype: what the hidden layers compute in.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.networks import ActorCritic, DiscretePolicy
        >>> model = ActorCritic(DiscretePolicy(num_actions=2))
        >>> params = model.init(jax.random.key(0), jnp.ones(4))
        >>> distribution, value = model.apply(params, jnp.ones((8, 4)))
        >>> print(distribution.probs.shape, value.shape)
        (8, 2) (8,)
    """

    head: nn.Module
    features: tuple[int, ...] = (64, 64)
    activation: Activation = nn.tanh
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Make the two trunks."""
        self.actor = MLP(self.features, None, self.activation, dtype=self.dtype)
        self.critic = ValueNetwork(self.features, self.activation, self.dtype)

    def policy(self, obs: Array, *args: Any) -> Any:
        """Return the distribution for obs, [..., F]; further arguments, such as a mask, go to the head."""
        return self.head(self.actor(obs), *args)

    def value(self, obs: Array) -> Array:
        """Return the value of obs, [..., F], as [...]."""
        return self.critic(obs)

    def __call__(self, obs: Array, *args: Any) -> tuple[Any, Array]:
        """Return distribution and value for obs, [..., F]."""
        return self.policy(obs, *args), self.value(obs)


class ConvActorCritic(nn.Module):
    """A policy and a value on one convolutional trunk, for small images such as those of MinAtar.

    Shapes: [..., H, W, C] -> (distribution [..., ...], value [...]); in MinAtar H = W = 10.

    Args:
        head: what turns features into a distribution.
        channels: numbers of channels of the convolutions, 3 x 3 without padding.
        features: widths of the layers that follow.
        activation: what follows each layer.
        dtype: what the trunk computes in.
    """

    head: nn.Module
    channels: tuple[int, ...] = (16,)
    features: tuple[int, ...] = (128,)
    activation: Activation = nn.relu
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Make the trunk and the head of the value."""
        init = orthogonal(math.sqrt(2.0))
        self.convolutions = [
            nn.Conv(n, (3, 3), padding="VALID", kernel_init=init, dtype=self.dtype) for n in self.channels
        ]
        self.dense = MLP(self.features, None, self.activation, dtype=self.dtype)
        self.critic = Head(1, 1.0)

    def trunk(self, obs: Array) -> Array:
        """Return the features of obs, [..., H, W, C], as [..., features[-1]]."""
        x = obs.astype(self.dtype)
        for convolution in self.convolutions:
            x = self.activation(convolution(x))
        return self.dense(x.reshape(*x.shape[:-3], -1))

    def policy(self, obs: Array, *args: Any) -> Any:
        """Return the distribution for obs, [..., H, W, C]; further arguments go to the head."""
        return self.head(self.trunk(obs), *args)

    def value(self, obs: Array) -> Array:
        """Return the value of obs, [..., H, W, C], as [...]."""
        return self.critic(self.trunk(obs))[..., 0]

    def __call__(self, obs: Array, *args: Any) -> tuple[Any, Array]:
        """Return distribution and value for obs, [..., H, W, C], with one pass through the trunk."""
        x = self.trunk(obs)
        return self.head(x, *args), self.critic(x)[..., 0]


class RecurrentActorCritic(nn.Module):
    """A policy and a value on one gated recurrent unit, for one step at a time.

    Its result has the form that a rollout asks of a recurrent policy, with the value as extras:
    (distribution, value, carry). It does not reset the carry at the end of an episode: the rollout does.

    Shapes: obs [..., F], carry [..., hidden] -> (distribution [..., ...], value [...], carry [..., hidden]).

    Args:
        head: what turns features into a distribution.
        hidden: width of the carry.
        features: widths of the layers before the recurrent unit.
        activation: what follows each of these layers.
        dtype: what everything before the heads computes in; the carry is float32.
    """

    head: nn.Module
    hidden: int = 64
    features: tuple[int, ...] = (64,)
    activation: Activation = nn.tanh
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, obs: Array, carry: Array, *args: Any) -> tuple[Any, Array, Array]:
        """Return distribution, value and next carry for obs, [..., F], and carry, [..., hidden]."""
        x = MLP(self.features, None, self.activation, dtype=self.dtype)(obs)
        carry, x = nn.GRUCell(self.hidden, dtype=self.dtype)(carry.astype(self.dtype), x)
        return self.head(x, *args), Head(1, 1.0)(x)[..., 0], carry.astype(jnp.float32)

    @nn.nowrap
    def initial_carry(self, *batch: int) -> Array:
        """Return the carry at the start of an episode, zeros [*batch, hidden]."""
        return jnp.zeros((*batch, self.hidden), jnp.float32)
