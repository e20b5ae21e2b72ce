"""Networks that fit an environment, for those who do not want to choose."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.networks.actor_critics import ActorCritic, ConvActorCritic, RecurrentActorCritic
from pgjax.networks.heads import BernoulliPolicy, BetaPolicy, DiscretePolicy, GaussianPolicy, TanhGaussianPolicy
from pgjax.networks.layers import Activation
from pgjax.networks.observations import Features, features_of


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
    vector inside the network: whole numbers of a discrete space one-hot, everything else flattened, parts of a dict, a tuple
    or a dataclass side by side.

    Actions have a distribution by their space: Categorical for a discrete one, and for a box of one axis a Normal,
    TanhNormal or Beta. The latter two stay within the bounds of the box, which may differ from one component to another.
    A Normal starts at its centre with a standard deviation of a quarter of its width and reaches beyond it: what
    becomes of an action out there is up to the environment. Some clip it (Pendulum-v1, PointRobot-misc), some take it as
    it is (Reacher-misc, Swimmer-misc).

    Shapes: obs as `rollout` gives it, [..., *obs].

    Args:
        env: the environment.
        env_params: its parameters, concrete numbers, shared or with one row for each environment: a box then
            reaches from the least lower to the greatest upper bound.
        head: "normal", "tanh_normal" or "beta" for a box; "categorical" or "bernoulli" for the discrete spaces; None takes
            the first that fits. Or a Flax module of your own from features [..., F] to a distribution.
        features: widths of the hidden layers; None takes (64, 64) for vectors and (128,) after convolutions.
        activation: what follows each of them; None takes tanh for vectors and relu for planes.
        dtype: what the hidden layers compute in.

    Returns:
        A Flax module with methods `policy(obs)` -> distribution and `value(obs)` -> [...]; equal arguments give equal modules.

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
    head = _head(env, env_params, head)
    encode = _encoder(env, env_params)
    if encode is None:
        return ConvActorCritic(head, features=features or (128,), activation=activation or nn.relu, dtype=dtype)
    return ActorCritic(head, features or (64, 64), activation or nn.tanh, dtype, encode)


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

    Observations and actions are treated as `default_actor_critic` treats them. See `RecurrentActorCritic` for how its policy
    and its value are called.

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
        A Flax module with methods `policy(obs, memory)` -> (distribution, value, memory), `value(obs, memory)` -> [...] and
        `initial_state(num_envs)` -> memory; equal arguments give equal modules.

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
    head = _head(env, env_params, head)
    encode = _encoder(env, env_params)
    planes = encode is None
    return RecurrentActorCritic(
        head,
        hidden,
        features or ((128,) if planes else (64,)),
        activation or (nn.relu if planes else nn.tanh),
        dtype,
        (16,) if planes else (),
        encode,
    )


def _encoder(env: Any, env_params: Any) -> Features | None:
    """How an observation becomes a vector; None for planes large enough to convolve."""
    one = _first_row(env, env_params)
    obs = jax.eval_shape(lambda: env.reset(jax.random.key(0), one)[0])
    shape = getattr(obs, "shape", ())
    if len(shape) == 3 and min(shape[:2]) >= 3:
        return None
    space = getattr(env, "observation_space", None)
    return features_of(obs, space(one) if callable(space) else None)


def _head(env: Any, env_params: Any, head: str | nn.Module | None) -> nn.Module:
    if isinstance(head, nn.Module):
        return head
    space = env.action_space(_first_row(env, env_params))
    heads = _heads(space, lambda: _bounds(env, env_params, space.shape))
    if not heads:
        raise TypeError(
            f"head is required: there is no default for the action space {space}. Pass head=, a Flax module from "
            "features [..., F] to a distribution, or wrap env so that its actions are one whole number or one vector."
        )
    if head is not None and head not in heads:
        raise ValueError(f"head must be one of {', '.join(map(repr, heads))} for the action space {space}, got {head!r}.")
    return heads[head or next(iter(heads))]()


def _heads(space: Any, bounds: Callable[[], tuple[np.ndarray, np.ndarray]]) -> dict[str, Callable[[], nn.Module]]:
    """The heads that fit a space, by name. Spaces of gymnax and of other libraries are told apart by their attributes."""
    shape = getattr(space, "shape", None)
    if getattr(space, "nvec", None) is not None and np.ndim(space.nvec) == 1:
        return {"categorical": lambda: DiscretePolicy(tuple(int(n) for n in space.nvec))}
    if getattr(space, "n", None) is not None:
        if shape in ((), None) and getattr(space, "start", 0) == 0:
            return {"categorical": lambda: DiscretePolicy(int(space.n))}
        return {"bernoulli": lambda: BernoulliPolicy(shape[0])} if len(shape or ()) == 1 else {}
    if not hasattr(space, "low") or len(shape or ()) != 1:
        return {}

    def normal() -> nn.Module:
        low, high = bounds()
        if not _finite(low, high):
            return GaussianPolicy(shape[0])
        return GaussianPolicy(shape[0], -math.log(2.0), low=_numbers(low), high=_numbers(high))

    def within(name: str, policy: Callable[..., nn.Module]) -> nn.Module:
        low, high = bounds()
        if not _finite(low, high):
            raise ValueError(
                f"head={name!r} needs finite bounds, low below high, got {low.tolist()} and {high.tolist()}. "
                "Pass head='normal', or give env a bounded action space."
            )
        return policy(shape[0], low=_numbers(low), high=_numbers(high))

    return {
        "normal": normal,
        "tanh_normal": lambda: within("tanh_normal", TanhGaussianPolicy),
        "beta": lambda: within("beta", BetaPolicy),
    }


def _bounds(env: Any, env_params: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The bounds of a box, the outermost ones where environments differ."""

    def bounds(params: Any) -> tuple[Any, Any]:
        space = env.action_space(params)
        return jnp.broadcast_to(jnp.asarray(space.low), shape), jnp.broadcast_to(jnp.asarray(space.high), shape)

    axes = _row_axes(env, env_params)
    try:
        with jax.ensure_compile_time_eval():
            if not jax.tree.leaves(axes):
                low, high = (np.asarray(bound) for bound in bounds(env_params))
                return low, high
            low, high = (np.asarray(bound) for bound in jax.vmap(bounds, in_axes=(axes,))(env_params))
            return low.min(axis=0), high.max(axis=0)
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            "env_params must be concrete where they set the bounds of the actions, which are fields of the network; got "
            "traced ones. Make the network outside jit and vmap."
        ) from error


def _finite(low: np.ndarray, high: np.ndarray) -> bool:
    return bool(np.all(np.isfinite(low) & np.isfinite(high) & (low < high)))


def _numbers(bound: np.ndarray) -> tuple[float, ...]:
    return tuple(bound.tolist())


def _row_axes(env: Any, env_params: Any) -> Any:
    """0 for each leaf of env_params that holds one row for each environment, None for the others."""
    default = getattr(env, "default_params", None)
    structures: list[Any] = [jax.tree.structure(default), jax.tree.structure(env_params)]
    if structures[0] != structures[1]:
        return None
    return jax.tree.map(lambda leaf, shared: 0 if jnp.ndim(leaf) > jnp.ndim(shared) else None, env_params, default)


def _first_row(env: Any, env_params: Any) -> Any:
    axes = _row_axes(env, env_params)
    if not jax.tree.leaves(axes):
        return env_params
    return jax.tree.map(lambda axis, leaf: leaf if axis is None else leaf[0], axes, env_params, is_leaf=lambda x: x is None)
