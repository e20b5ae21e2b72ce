"""A policy and critics of its actions: what deterministic and off-policy methods train."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.networks.critics import Ensemble
from pgjax.networks.heads import Bound
from pgjax.networks.layers import MLP, Activation, Convolutions

Array = jax.Array
Encoder = Callable[[Any], Array]


class ActorWithCritics(nn.Module):
    """A policy, and an ensemble of critics that value its actions, each with a trunk of its own.

    Actions are handed to the critics in units of half the width of their box, around its centre.

    Shapes: obs [..., F], action [..., D]; distribution [..., ...]; values [E, ...], or [E, ..., K] of K outputs each;
    of discrete actions [E, ..., A] or [E, ..., A, K] for all A of them. Of joint critics obs [..., G, F] and action
    [..., G, D], an axis of G agents before the last, which the values do not have.

    Args:
        head: what turns features into a distribution, for instance ``DeterministicPolicy(action_dim=1)``.
        features: widths of the hidden layers of each trunk.
        num_critics: E, at least 1.
        num_actions: A where actions are discrete, else None.
        num_outputs: K, for critics that give logits of atoms or quantiles; None for one number.
        low: lower bounds of the action, one number or one for each component.
        high: upper bounds.
        activation: what follows each hidden layer.
        layer_norm: whether each hidden layer is normalised before its activation.
        channels: channels of the convolutions of each trunk, for observations that are images; () for vectors.
        dtype: what the hidden layers compute in.
        encode: what makes a vector of an observation that is none, for instance `Features`; None takes it as it is.
        joint: whether critics value what several agents see and do together; the policy sees what one agent sees.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.networks import ActorWithCritics, DeterministicPolicy
        >>> model = ActorWithCritics(DeterministicPolicy(action_dim=1), features=(8,), num_critics=2)
        >>> actor = model.init(jax.random.key(0), jnp.ones((5, 3)), method="policy")
        >>> critics = model.init(jax.random.key(1), jnp.ones((5, 3)), jnp.ones((5, 1)), method="action_value")
        >>> action = model.apply(actor, jnp.ones((5, 3)), method="policy").mode()
        >>> print(model.apply(critics, jnp.ones((5, 3)), action, method="action_value").shape)
        (2, 5)
    """

    head: nn.Module
    features: tuple[int, ...] = (128, 128)
    num_critics: int = 2
    num_actions: int | None = None
    num_outputs: int | None = None
    low: Bound = -1.0
    high: Bound = 1.0
    activation: Activation = nn.relu
    layer_norm: bool = False
    channels: tuple[int, ...] = ()
    dtype: Any = jnp.float32
    encode: Encoder | None = None
    joint: bool = False

    def setup(self) -> None:
        """Make the trunks."""
        self.actor = MLP(self.features, None, self.activation, layer_norm=self.layer_norm, dtype=self.dtype)
        self.outputs = tuple(n for n in (self.num_actions, self.num_outputs) if n is not None)
        width = math.prod(self.outputs)
        critic = MLP(self.features, width, self.activation, layer_norm=self.layer_norm, dtype=self.dtype)
        self.critics = Ensemble(critic, self.num_critics)
        if self.channels:
            self.actor_convolutions = Convolutions(self.channels, self.activation, self.dtype)
            self.critic_convolutions = Convolutions(self.channels, self.activation, self.dtype)

    def policy(self, obs: Any) -> Any:
        """Return the distribution for obs."""
        x = obs if self.encode is None else self.encode(obs)
        return self.head(self.actor(self.actor_convolutions(x) if self.channels else x))

    def action_value(self, obs: Any, action: Array | None = None) -> Array:
        """Return the values of an action [..., D] in obs, or of all discrete actions, by each critic."""
        x = obs if self.encode is None else self.encode(obs)
        x = self.critic_convolutions(x) if self.channels else x
        x = self._of_all(x)
        if action is not None:
            x = jnp.concatenate([x, self._of_all(self._in_half_widths(action).astype(x.dtype))], axis=-1)
        values = self.critics(x)
        return values.reshape(*values.shape[:-1], *self.outputs)

    def __call__(self, obs: Any, action: Array | None = None) -> tuple[Any, Array]:
        """Return the distribution for obs and the values of an action in it."""
        return self.policy(obs), self.action_value(obs, action)

    def _in_half_widths(self, action: Array) -> Array:
        """An action around the centre of its box."""
        low, high = (jnp.broadcast_to(jnp.asarray(bound, jnp.float32), action.shape) for bound in (self.low, self.high))
        return (action - 0.5 * (low + high)) / (0.5 * (high - low))

    def _of_all(self, x: Array) -> Array:
        """The rows of all agents side by side."""
        return x.reshape(*x.shape[:-2], -1) if self.joint else x
