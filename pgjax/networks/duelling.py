"""A policy, a value and advantages of actions in a box: a stochastic duelling network. Wang et al. (2017)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.losses.duelling import stochastic_duelling
from pgjax.networks.actor_critics import seen_by_critics
from pgjax.networks.critics import ContinuousQNetwork
from pgjax.networks.defaults import default_actor_critic
from pgjax.networks.heads import Bound
from pgjax.networks.layers import Activation
from pgjax.networks.spaces import action_box

Array = jax.Array


class DuellingActorCritic(nn.Module):
    """A policy, a value and advantages of actions in a box, for `stochastic_duelling`.

    Actions are handed to the network of advantages in units of half the width of their box, around its centre. It has
    hidden layers of its own; for images they follow the trunk of the other two.

    Shapes: obs as base takes it, action [..., D]; distribution [..., ...], value [...], advantage [...].

    Args:
        base: `ActorCritic` or `ConvActorCritic`, the policy and the value.
        low: lower bounds of the action, one number or one for each component.
        high: upper bounds.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.networks import ActorCritic, DuellingActorCritic, GaussianPolicy
        >>> model = DuellingActorCritic(ActorCritic(GaussianPolicy(action_dim=1), features=(8,)), low=-2.0, high=2.0)
        >>> params = model.init(jax.random.key(0), jnp.ones((5, 3)))
        >>> draws = model.apply(params, jnp.ones((5, 3)), method="policy").sample_from(jnp.ones((4, 5, 1)))
        >>> model.apply(params, jnp.ones((5, 3)), draws[0], draws, method="action_value").shape
        (5,)
    """

    base: Any
    low: Bound = -1.0
    high: Bound = 1.0

    def setup(self) -> None:
        """Make the network of advantages."""
        self.critic = ContinuousQNetwork(self.base.features, self.base.activation, self.base.dtype)

    def policy(self, obs: Any) -> Any:
        """Return the distribution for obs."""
        return self.base.policy(obs)

    def value(self, obs: Any) -> Array:
        """Return the value of obs, [...]."""
        return self.base.value(obs)

    def advantage(self, obs: Any, action: Array) -> Array:
        """Return A of action, [..., D], in obs, as [...]."""
        low, high = (jnp.broadcast_to(jnp.asarray(bound, jnp.float32), action.shape) for bound in (self.low, self.high))
        action = (action - 0.5 * (low + high)) / (0.5 * (high - low))
        return self.critic(seen_by_critics(self.base, obs), action)

    def action_value(self, obs: Any, action: Array, draws: Array) -> Array:
        """Return Q̃ of action, [..., D], in obs, given n actions of the policy in it, [n, ..., D], as [...]."""
        of_draws = jnp.stack([self.advantage(obs, u) for u in draws])
        return stochastic_duelling(self.value(obs), self.advantage(obs, action), of_draws=of_draws)

    def __call__(self, obs: Any) -> tuple[Any, Array, Array]:
        """Return the distribution, the value and the advantage of the distribution's mode for obs."""
        distribution = self.policy(obs)
        return distribution, self.value(obs), self.advantage(obs, distribution.mode())


def default_duelling_actor_critic(
    env: Any,
    env_params: Any,
    *,
    head: str | nn.Module | None = None,
    features: tuple[int, ...] | None = None,
    activation: Activation | None = None,
    dtype: Any = jnp.float32,
) -> DuellingActorCritic:
    """Make a policy, a value and advantages of actions that fit an environment with actions in a box.

    Shapes: obs as `rollout` gives it, [..., *obs]; action [..., D].

    Args:
        env: as for `default_actor_critic`, like the others that are not said here.
        env_params: its parameters.
        head: "normal", "tanh_normal" or "beta", or a Flax module; None takes the first.
        features: widths of the hidden layers of each trunk; None takes (64, 64) for vectors.
        activation: what follows each of them; None takes tanh for vectors.
        dtype: what the hidden layers compute in.

    Returns:
        A Flax module with the methods `policy(obs)`, `value(obs)`, `advantage(obs, action)` and
        `action_value(obs, action, draws)`; equal arguments give equal modules.

    Raises:
        TypeError: if the actions are no vector in a box.
        ValueError: if head does not fit the action space, or the box is not bounded.

    Example:
        >>> import gymnax, jax, pgjax as pg
        >>> env, env_params = gymnax.make("Pendulum-v1")
        >>> model = pg.networks.default_duelling_actor_critic(env, env_params, features=(8,))
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=3)
        >>> params = model.init(jax.random.key(1), state.obs)
        >>> model.apply(params, state.obs, method="value").shape
        (3,)
    """
    low, high = action_box(env, env_params)
    base = default_actor_critic(env, env_params, head=head, features=features, activation=activation, dtype=dtype)
    return DuellingActorCritic(base, tuple(low.tolist()), tuple(high.tolist()))
