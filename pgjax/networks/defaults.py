"""Networks that fit an environment, for those who do not want to choose."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from pgjax.envs.description import agents_of, single_params
from pgjax.networks.action_values import ActorWithCritics
from pgjax.networks.actor_critics import ActorCritic, ConvActorCritic, RecurrentActorCritic
from pgjax.networks.layers import Activation
from pgjax.networks.observations import Features, features_of
from pgjax.networks.spaces import action_box, count_actions, head_for


def default_actor_critic(
    env: Any,
    env_params: Any,
    *,
    head: str | nn.Module | None = None,
    features: tuple[int, ...] | None = None,
    activation: Activation | None = None,
    dtype: Any = jnp.float32,
) -> ActorCritic | ConvActorCritic:
    """Make an actor-critic that fits an environment: two trunks of tanh layers, or one of convolutions for planes.

    Observations [H, W, C] with H and W of at least 3 go through one convolution with 16 channels. All others become a
    vector inside the network: whole numbers of a discrete space one-hot, everything else flattened, parts of a dict, a
    tuple or a dataclass side by side.

    Actions have a distribution by their space: Categorical for a discrete one, and for a box of one axis a Normal,
    TanhNormal or Beta. The latter two stay within the bounds of the box, which may differ between components. A Normal
    starts at the centre of the box with a standard deviation of a quarter of its width, and it reaches beyond the
    bounds: what becomes of an action out there is up to the environment. Some clip it (Pendulum-v1, PointRobot-misc),
    some take it as it is (Reacher-misc, Swimmer-misc).

    Shapes: obs as `rollout` gives it, [..., *obs].

    Args:
        env: the environment.
        env_params: its parameters, concrete numbers, shared or with one row for each environment: a box then
            reaches from the least lower to the greatest upper bound.
        head: "normal", "tanh_normal", "beta", "deterministic" or "state_dependent" for a box, "categorical" or
            "bernoulli" for discrete spaces; None takes the first that fits. Or your own Flax module from features
            [..., F] to a distribution.
        features: widths of the hidden layers; None takes (64, 64) for vectors and (128,) after convolutions.
        activation: what follows each of them; None takes tanh for vectors and relu for planes.
        dtype: what the hidden layers compute in.

    Returns:
        A Flax module with methods `policy(obs)` -> distribution and `value(obs)` -> [...]; equal arguments give equal
        modules.

    Raises:
        TypeError: if the action space has no default head.
        ValueError: if head does not fit the action space, or needs finite bounds where there are none.

    Example:
        >>> import gymnax, jax, pgjax as pg
        >>> env, env_params = gymnax.make("Pendulum-v1")
        >>> model = pg.networks.default_actor_critic(env, env_params, head="beta")
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=3)
        >>> params = model.init(jax.random.key(1), state.obs)
        >>> model.apply(params, state.obs, method="value").shape
        (3,)
    """
    head = head_for(env, env_params, head)
    encode = _encoder(env, env_params)
    if encode is None:
        features = (128,) if features is None else features
        return ConvActorCritic(head, features=features, activation=activation or nn.relu, dtype=dtype)
    return ActorCritic(head, (64, 64) if features is None else features, activation or nn.tanh, dtype, encode)


def default_recurrent_actor_critic(
    env: Any,
    env_params: Any,
    *,
    head: str | nn.Module | None = None,
    hidden: int = 64,
    features: tuple[int, ...] | None = None,
    activation: Activation | None = None,
    dtype: Any = jnp.float32,
) -> RecurrentActorCritic:
    """Make an actor-critic with a gated recurrent unit that fits an environment.

    Observations and actions are treated as `default_actor_critic` treats them. See `RecurrentActorCritic` for how its
    policy and its value are called.

    Shapes: obs as `rollout` gives it, [..., *obs]; memory [..., hidden].

    Args:
        env: as for `default_actor_critic`, like the others that are not said here.
        env_params: its parameters.
        head: name of a head, a Flax module, or None.
        hidden: width of the memory.
        features: widths of the layers before it; None takes (64,) for vectors and (128,) after convolutions.
        activation: what follows each of them; None takes tanh for vectors and relu for planes.
        dtype: what everything before the heads computes in.

    Returns:
        A Flax module with methods `policy(obs, memory)` -> (distribution, value, memory), `value(obs, memory)` -> [...]
        and `initial_state(num_envs)` -> memory; equal arguments give equal modules.

    Raises:
        TypeError: if the action space has no default head.
        ValueError: if head does not fit the action space, or needs finite bounds where there are none.

    Example:
        >>> import gymnax, jax, pgjax as pg
        >>> env, env_params = gymnax.make("MemoryChain-bsuite")
        >>> model = pg.networks.default_recurrent_actor_critic(env, env_params, hidden=16)
        >>> state = pg.init_rollout(
        ...     jax.random.key(0), env, env_params, num_envs=3, policy_state=model.initial_state(3))
        >>> params = model.init(jax.random.key(1), state.obs, state.policy_state)
        >>> model.apply(params, state.obs, state.policy_state, method="value").shape
        (3,)
    """
    head = head_for(env, env_params, head)
    encode = _encoder(env, env_params)
    planes = encode is None
    if features is None:
        features = (128,) if planes else (64,)
    activation = activation or (nn.relu if planes else nn.tanh)
    return RecurrentActorCritic(head, hidden, features, activation, dtype, (16,) if planes else (), encode)


def default_actor_with_critics(
    env: Any,
    env_params: Any,
    *,
    head: str | nn.Module | None = None,
    features: tuple[int, ...] = (128, 128),
    num_critics: int = 2,
    num_outputs: int | None = None,
    activation: Activation = nn.relu,
    layer_norm: bool = False,
    dtype: Any = jnp.float32,
    joint: bool = False,
) -> ActorWithCritics:
    """Make a policy with critics of its actions that fits an environment, for deterministic and off-policy methods.

    Observations are treated as `default_actor_critic` treats them, by each trunk for itself.

    Shapes: obs as `rollout` gives it, [..., *obs]; values [E, ...] with E = num_critics, and with a last axis of
    num_outputs where that is given; [E, ..., A] of all A discrete actions.

    Args:
        env: as for `default_actor_critic`, like the others that are not said here.
        env_params: its parameters.
        head: "deterministic" or "tanh_normal" for a box, "categorical" for discrete actions, or a Flax module; None
            takes the first of these that fits.
        features: widths of the hidden layers of each trunk.
        num_critics: E, critics with parameters of their own.
        num_outputs: numbers that each critic gives, such as logits of atoms; None for one.
        activation: what follows each hidden layer.
        layer_norm: whether each hidden layer is normalised before its activation.
        dtype: what the hidden layers compute in.
        joint: whether critics value what all agents of an environment with agents see and do together: obs [..., A, F],
            action [..., A, D]. The policy is that of one agent either way.

    Returns:
        A Flax module with methods `policy(obs)` -> distribution and `action_value(obs, action)` -> [E, ...], or
        `action_value(obs)` for discrete actions; equal arguments give equal modules.

    Raises:
        TypeError: if the actions are neither one vector in a box nor one discrete number.
        ValueError: if head does not fit the action space, or the box is not bounded.

    Example:
        >>> import gymnax, jax, pgjax as pg
        >>> env, env_params = gymnax.make("Pendulum-v1")
        >>> model = pg.networks.default_actor_with_critics(env, env_params, features=(8,))
        >>> state = pg.init_rollout(jax.random.key(0), env, env_params, num_envs=3)
        >>> actor = model.init(jax.random.key(1), state.obs, method="policy")
        >>> model.apply(actor, state.obs, method="policy").mode().shape
        (3, 1)
    """
    space: dict[str, Any]
    if hasattr(env.action_space(single_params(env, env_params)), "n"):
        space = {"num_actions": count_actions(env, env_params)}
        head = head_for(env, env_params, head)
    else:
        low, high = action_box(env, env_params)
        space = {"low": tuple(low.tolist()), "high": tuple(high.tolist())}
        head = head_for(env, env_params, "deterministic" if head is None else head)
    encode = _encoder(env, env_params)
    channels = (16,) if encode is None else ()
    return ActorWithCritics(
        head, features, num_critics, num_outputs=num_outputs, activation=activation, layer_norm=layer_norm,
        channels=channels, dtype=dtype, encode=encode, joint=joint, **space,
    )  # fmt: skip


def _encoder(env: Any, env_params: Any) -> Features | None:
    """How an observation becomes a vector; None for planes large enough to convolve."""
    one = single_params(env, env_params)
    obs = jax.eval_shape(lambda: env.reset(jax.random.key(0), one)[0])
    agents = len(agents_of(env))  # each sees a row of its own
    obs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[agents:], x.dtype), obs)
    shape = getattr(obs, "shape", ())
    if len(shape) == 3 and min(shape[:2]) >= 3:
        return None
    space = getattr(env, "observation_space", None)
    return features_of(obs, space(one) if callable(space) else None)
