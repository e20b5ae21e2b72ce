"""Networks that act and judge: a policy and a value in one module."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.networks.critics import ValueNetwork
from pgjax.networks.initialization import orthogonal
from pgjax.networks.layers import MLP, Activation, Convolutions, Head

Array = jax.Array
Encoder = Callable[[Any], Array]


class ActorCritic(nn.Module):
    """A policy and a value with separate trunks, for observations that are vectors.

    `auxiliary` is a second value, on the trunk of the policy, for phasic policy gradients; only a module that is
    initialised through `phasic` has the parameters of its head.

    Shapes: [..., F] -> (distribution [..., ...], value [...]).

    Args:
        head: what turns features into a distribution, for instance ``DiscretePolicy(num_actions=2)``.
        features: widths of the hidden layers of either trunk.
        activation: what follows each hidden layer.
        dtype: what the hidden layers compute in.
        encode: what makes a vector of an observation that is none, for instance `Features`; None takes it as it is.

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
    encode: Encoder | None = None

    def setup(self) -> None:
        """Make the two trunks."""
        self.actor = MLP(self.features, None, self.activation, dtype=self.dtype)
        self.critic = ValueNetwork(self.features, self.activation, self.dtype)
        self.second_critic = Head(1, 1.0)

    def policy(self, obs: Any, *args: Any) -> Any:
        """Return the distribution for obs, [..., F]; further arguments, such as a mask, go to the head."""
        return self.head(self.actor(_encoded(self.encode, obs)), *args)

    def value(self, obs: Any) -> Array:
        """Return the value of obs, [..., F], as [...]."""
        return self.critic(_encoded(self.encode, obs))

    def auxiliary(self, obs: Any) -> Array:
        """Return the value of obs, [..., F], that is read off the trunk of the policy, as [...]."""
        return self.second_critic(self.actor(_encoded(self.encode, obs)))[..., 0]

    def phasic(self, obs: Any) -> tuple[Any, Array, Array]:
        """Return the distribution, the value and the auxiliary value for obs, [..., F]."""
        return self.policy(obs), self.value(obs), self.auxiliary(obs)

    def __call__(self, obs: Any, *args: Any) -> tuple[Any, Array]:
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
        self.convolutions = Convolutions(self.channels, self.activation, self.dtype)
        self.dense = MLP(self.features, None, self.activation, dtype=self.dtype)
        self.critic = Head(1, 1.0)

    def trunk(self, obs: Array) -> Array:
        """Return the features of obs, [..., H, W, C], as [..., features[-1]]."""
        return self.dense(self.convolutions(obs))

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

        m' = GRU(m, f(obs)),   π = head(m'),   V = linear(m')

    `policy` and `value` both take the memory m from before the observation, which is the `policy_state` of a rollout,
    and both read the memory m' that has taken it in. `policy` returns (distribution, value, m'), the form that a
    rollout asks of a recurrent policy, with the value as its extras; `value` returns the same value alone. Neither sets
    the memory back at the end of an episode: the rollout does.

        policy = lambda params, obs, memory: model.apply(params, obs, memory, method="policy")
        value = lambda params, obs, memory: model.apply(params, obs, memory, method="value")
        before = pg.init_rollout(key, env, env_params, num_envs=B, policy_state=model.initial_state(B))
        after, trajectory = pg.rollout(key, params, before, policy=policy, ...)
        grads, info = pg.actor_critic(params, trajectory, policy=policy, value=value, ..., state=before)

    The values of the window are `trajectory.extras`, and what follows it is worth
    ``value(params, after.obs, after.policy_state)``. The estimators bootstrap where an episode was truncated, too, with
    the memory from before the restart; a rollout that keeps no next_obs asks for ``truncation_value=value``.

    Shapes: obs [..., F], memory [..., hidden] -> (distribution [..., ...], value [...], memory [..., hidden]).

    Args:
        head: what turns features into a distribution.
        hidden: width of the memory.
        features: widths of the layers before the recurrent unit.
        activation: what follows each of these layers.
        dtype: what everything before the heads computes in; the memory is float32.
        channels: numbers of channels of 3 x 3 convolutions before these layers; then obs is [..., H, W, C].
        encode: what makes a vector of an observation that is none; None takes it as it is.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.networks import DiscretePolicy, RecurrentActorCritic
        >>> model = RecurrentActorCritic(DiscretePolicy(num_actions=2), hidden=16)
        >>> obs, memory = jnp.ones((8, 4)), model.initial_state(8)
        >>> params = model.init(jax.random.key(0), obs, memory)
        >>> distribution, value, memory = model.apply(params, obs, memory, method="policy")
        >>> print(distribution.probs.shape, value.shape, memory.shape)
        (8, 2) (8,) (8, 16)
    """

    head: nn.Module
    hidden: int = 64
    features: tuple[int, ...] = (64,)
    activation: Activation = nn.tanh
    dtype: Any = jnp.float32
    channels: tuple[int, ...] = ()
    encode: Encoder | None = None

    def setup(self) -> None:
        """Make the layers before the memory, the memory, and the head of the value."""
        if self.channels:
            self.convolutions = Convolutions(self.channels, self.activation, self.dtype)
        self.dense = MLP(self.features, None, self.activation, dtype=self.dtype)
        one = orthogonal(1.0)
        self.memory = nn.GRUCell(self.hidden, dtype=self.dtype, kernel_init=one, recurrent_kernel_init=one)
        self.critic = Head(1, 1.0)

    def remember(self, obs: Any, memory: Array) -> tuple[Array, Array]:
        """Return the features [..., hidden] that the heads read, and the memory after obs."""
        x = _encoded(self.encode, obs)
        x = self.dense(self.convolutions(x) if self.channels else x)
        memory, x = self.memory(memory.astype(self.dtype), x)
        return x, memory.astype(jnp.float32)

    def policy(self, obs: Any, memory: Array, *args: Any) -> tuple[Any, Array, Array]:
        """Return distribution, value and next memory for obs and the memory before it."""
        x, memory = self.remember(obs, memory)
        return self.head(x, *args), self.critic(x)[..., 0], memory

    def value(self, obs: Any, memory: Array) -> Array:
        """Return the value of obs, given the memory before it, as [...]."""
        return self.critic(self.remember(obs, memory)[0])[..., 0]

    def __call__(self, obs: Any, memory: Array, *args: Any) -> tuple[Any, Array, Array]:
        """Return what `policy` returns."""
        return self.policy(obs, memory, *args)

    @nn.nowrap
    def initial_state(self, *batch: int) -> Array:
        """Return the memory at the start of an episode, zeros [*batch, hidden]: the `policy_state` to start from."""
        return jnp.zeros((*batch, self.hidden), jnp.float32)


def seen_by_critics(base: Any, obs: Any) -> Array:
    """Return what a further critic beside an actor-critic takes.

    Shapes: obs as base takes it; result [..., F].

    Args:
        base: a bound `ActorCritic` or `ConvActorCritic`.
        obs: the observation.

    Returns:
        The features of the trunk of convolutions, or obs as the other two encode it.
    """
    x: Array = base.trunk(obs) if hasattr(base, "trunk") else _encoded(base.encode, obs)
    return x


def _encoded(encode: Encoder | None, obs: Any) -> Array:
    return obs if encode is None else encode(obs)
