"""Small Flax modules to act and to judge with. Nothing else in the library depends on them.

Every module takes any leading batch axes and has only hashable fields, so that a module, its `apply` and its
bound methods can select a compiled program. `dtype` is what the hidden layers compute in, for instance
``jnp.bfloat16``; parameters are float32 and so is what comes out.

A policy is a function of parameters and observations. With Flax:

    model = ActorCritic(DiscretePolicy(num_actions=2))
    params = model.init(key, obs)
    policy = lambda params, obs: model.apply(params, obs, method="policy")
    value = lambda params, obs: model.apply(params, obs, method="value")

The initialisation is that of PPO practice: orthogonal, with gain √2 for hidden layers, 0.01 for the head of a
policy, so that it starts near the uniform or the central action, and 1 for the head of a value; biases are 0.
"""

from pgjax.networks.action_values import ActorWithCritics
from pgjax.networks.actor_critics import ActorCritic, ConvActorCritic, RecurrentActorCritic
from pgjax.networks.critics import ContinuousQNetwork, Ensemble, QNetwork, ValueNetwork
from pgjax.networks.defaults import default_actor_critic, default_actor_with_critics, default_recurrent_actor_critic
from pgjax.networks.duelling import DuellingActorCritic, default_duelling_actor_critic
from pgjax.networks.heads import (
    BernoulliPolicy,
    BetaPolicy,
    DeterministicPolicy,
    DiscretePolicy,
    GaussianPolicy,
    StateDependentPolicy,
    TanhGaussianPolicy,
)
from pgjax.networks.layers import MLP, Convolutions
from pgjax.networks.observations import Features
from pgjax.networks.spaces import action_box, count_actions

__all__ = [
    "MLP",
    "ActorCritic",
    "ActorWithCritics",
    "BernoulliPolicy",
    "BetaPolicy",
    "ContinuousQNetwork",
    "ConvActorCritic",
    "Convolutions",
    "DeterministicPolicy",
    "DiscretePolicy",
    "DuellingActorCritic",
    "Ensemble",
    "Features",
    "GaussianPolicy",
    "QNetwork",
    "RecurrentActorCritic",
    "StateDependentPolicy",
    "TanhGaussianPolicy",
    "ValueNetwork",
    "action_box",
    "count_actions",
    "default_actor_critic",
    "default_actor_with_critics",
    "default_duelling_actor_critic",
    "default_recurrent_actor_critic",
]
