"""Networks that fit an environment, for those who do not want to choose."""

from typing import Any

from gymnax.environments import spaces

from pgjax.networks.actor_critics import ActorCritic, ConvActorCritic
from pgjax.networks.heads import DiscretePolicy, GaussianPolicy


def default_actor_critic(env: Any, env_params: Any) -> ActorCritic | ConvActorCritic:
    """Make an actor-critic that fits an environment: separate two-layer trunks, or convolutions for planes.

    Shapes: obs [..., F] or [..., H, W, C].

    Args:
        env: the environment.
        env_params: its parameters.

    Returns:
        A Flax module with methods `policy(obs)` -> distribution and `value(obs)` -> [...].

    Raises:
        TypeError: if the action space has no default.
    """
    space = env.action_space(env_params)
    planes = len(getattr(env.observation_space(env_params), "shape", ())) == 3
    actor_critic = ConvActorCritic if planes else ActorCritic
    if isinstance(space, spaces.Discrete):
        return actor_critic(DiscretePolicy(int(space.n)))
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return actor_critic(GaussianPolicy(int(space.shape[0])))
    raise TypeError(
        f"model is required: there is no default for the action space {type(space).__name__}. Pass a Flax module "
        "with methods policy(obs) and value(obs)."
    )
