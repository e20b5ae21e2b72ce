"""What recipes with a replay share: functions of actor and critics, noise, what is stored, when learning begins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import _checks, exploration
from pgjax._types import Environment, Params, Policy, RolloutState, Trajectory
from pgjax.envs.description import agents_of, single_params
from pgjax.recipes.acting import Array, checked_init, require_functions
from pgjax.recipes.recipe import Metrics

Critic = Callable[..., Array]


class ActorAndCritic(NamedTuple):
    """Parameters that are trained apart."""

    actor: Params  # of the policy
    critic: Params  # of all critics


class OffPolicyFunctions(NamedTuple):
    """What a recipe with action values needs to know of its networks."""

    policy: Policy  # policy(params.actor, obs) -> distribution
    critic: Critic  # critic(params.critic, obs, action) -> [E, ...]; of discrete actions critic(params.critic, obs)
    init_params: Callable[..., ActorAndCritic]  # init_params(key, obs)


def as_actor_and_critic(
    env: Environment,
    env_params: Any,
    *,
    default: Callable[[], Any],
    model: Any = None,
    policy: Policy | None = None,
    critic: Critic | None = None,
    init_params: Callable[..., Any] | None = None,
) -> OffPolicyFunctions:
    """Make the functions of a Flax module, of a default network, or pass on those that are given.

    Shapes: as the functions.

    Args:
        env: the environment; its action space is looked at where a module is initialised.
        env_params: its parameters.
        default: makes the module that is taken where nothing else is given.
        model: a Flax module with the methods `policy(obs)` and `action_value(obs, action)`, or `action_value(obs)` for
            discrete actions, such as `networks.ActorWithCritics`.
        policy: in place of a model, policy(actor, obs) -> distribution.
        critic: in place of a model, critic(critic, obs, action) -> [E, ...].
        init_params: in place of a model, init_params(key, obs) -> (actor, critic), or init_params(key).

    Returns:
        The functions.

    Raises:
        TypeError: if one of policy, critic and init_params is missing or no function, the model lacks a method, or
            init_params makes a leaf that is not floating.
        ValueError: if a model and functions are both given.
    """
    given = {"policy": policy, "critic": critic, "init_params": init_params}
    if all(x is None for x in given.values()):
        return _of_model(model if model is not None else default(), env, env_params)
    require_functions(model, given)
    init: Any = checked_init(init_params)  # type: ignore[arg-type]
    return OffPolicyFunctions(policy, critic, lambda key, obs: ActorAndCritic(*init(key, obs)))  # type: ignore[arg-type]


def _of_model(model: Any, env: Environment, env_params: Any) -> OffPolicyFunctions:
    missing = [name for name in ("policy", "action_value", "init", "apply") if not callable(getattr(model, name, None))]
    if missing:
        raise TypeError(
            f"model must be a Flax module with the methods policy, action_value, {type(model).__name__} lacks "
            f"{', '.join(missing)}. For another framework pass policy=, critic= and init_params=."
        )
    space = env.action_space(single_params(env, env_params))  # type: ignore[attr-defined]

    def init(key: Array, obs: Any) -> ActorAndCritic:
        actor_key, critic_key = jax.random.split(key)
        batch = jax.tree.leaves(obs)[0].shape[: 1 + len(agents_of(env))]
        action = () if hasattr(space, "n") else (jnp.zeros((*batch, *space.shape)),)
        critic = model.init(critic_key, obs, *action, method="action_value")
        return ActorAndCritic(model.init(actor_key, obs, method="policy"), critic)

    return OffPolicyFunctions(
        lambda params, obs: model.apply(params, obs, method="policy"),
        lambda params, obs, *action: model.apply(params, obs, *action, method="action_value"),
        init,
    )


def with_noise(policy: Policy, low: Any, high: Any) -> Callable[..., exploration.WarmUp]:
    """Make what acts of a deterministic policy: random actions while a flag is set, then Gaussian noise around it.

        a ~ U(low, high) while random,   a = clip(μ(s) + noise · ε) afterwards

    Shapes: low, high [D]; obs [B, ...].

    Args:
        policy: policy(actor, obs) -> distribution; its mode acts.
        low: lower bounds of the actions.
        high: upper bounds.

    Returns:
        A function of ((random, noise), actor, obs) that gives the distribution, for `bind`.
    """

    def act(exploring: Any, actor: Params, obs: Any) -> exploration.WarmUp:
        random, noise = exploring
        noisy = exploration.ClippedNormal(policy(actor, obs).mode(), noise, low, high)
        return exploration.WarmUp(random, noisy, low, high)

    return act


def with_warmup(policy: Policy, low: Any = None, high: Any = None) -> Callable[..., exploration.WarmUp]:
    """Make what acts of a stochastic policy: random actions while a flag is set, then its own.

        a ~ U(low, high), or any discrete action alike, while random;   a ~ π(s) afterwards

    Shapes: low, high [D]; obs [B, ...].

    Args:
        policy: policy(actor, obs) -> distribution of this library; a Categorical for discrete actions.
        low: lower bounds of the actions; None for discrete ones.
        high: upper bounds; None for discrete actions.

    Returns:
        A function of (random, actor, obs) that gives the distribution, for `bind`.
    """
    return lambda random, actor, obs: exploration.WarmUp(random, policy(actor, obs), low, high)


def correlated_noise(
    key: Array, state: Array, rollout: RolloutState, *, num_steps: int, theta: Any
) -> tuple[Array, tuple[Array, Array]]:
    """Draw the noise of a window for `with_noise`: uniform numbers, and an Ornstein-Uhlenbeck process.

    Shapes: state [B, D]; noise [T, B, D] each, T = num_steps.

    Args:
        key: a PRNG key, consumed.
        state: the process after the last window.
        rollout: the environments: where an episode starts with this window, the process starts anew.
        num_steps: T.
        theta: how much the process forgets in a step; 1 is white noise.

    Returns:
        (state, noise) for ``rollout(noise=noise)``.
    """
    uniform_key, key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (num_steps, *state.shape))
    state, noise = exploration.ornstein_uhlenbeck(
        key, state, num_steps=num_steps, theta=theta, restart=rollout.step == 0
    )
    return state, (uniform, noise)


def stored(trajectory: Trajectory) -> Trajectory:
    """Leave out of a window what a replay of transitions has no use for.

    Shapes: leaves [T, B, ...].

    Args:
        trajectory: the window.

    Returns:
        The same without log_prob, raw_action, extras and step.
    """
    left_out: Any = dict.fromkeys(("log_prob", "raw_action", "extras", "step"))
    return replace(trajectory, **left_out)


def count_warmup(warmup: int, batch_size: int, capacity: int, *, num_envs: int, num_steps: int, window: int = 1) -> int:
    """Count the updates that only collect, and check that there is enough to learn from afterwards.

        ceil(warmup / (num_envs · num_steps))

    Shapes: Python ints.

    Args:
        warmup: environment steps, over all environments, with random actions and nothing learned.
        batch_size: rows of a batch.
        capacity: rows that the replay holds.
        num_envs: environments side by side.
        num_steps: environment steps of each in one update.
        window: steps of a row, more than 1 for n-step targets.

    Returns:
        The number of updates.

    Raises:
        TypeError: if one is not an int.
        ValueError: if one is too small, or if fewer rows are stored when learning begins than a batch has.
    """
    warmup = _checks.as_positive_int("warmup", warmup, at_least=0)
    batch_size = _checks.as_positive_int("batch_size", batch_size)
    capacity = _checks.as_positive_int("capacity", capacity)
    rows = num_envs * num_steps
    updates = -(-warmup // rows)
    there = min((updates + 1) * num_steps, capacity // num_envs) - (window - 1)
    if there < 1:
        raise ValueError(
            f"warmup={warmup} and capacity={capacity} must leave a window of {window} steps for each of {num_envs} "
            "environments when learning begins. Raise the smaller one."
        )
    if there * num_envs < batch_size:
        raise ValueError(
            f"batch_size={batch_size} must not be larger than what is stored when learning begins: "
            f"{there * num_envs} windows, by warmup={warmup} and capacity={capacity}. Lower it or raise these."
        )
    return updates


def gradient_steps(
    learn: Callable[[Any, Any], tuple[Any, Metrics]], carry: Any, inputs: Any, *, skip: Array
) -> tuple[Any, Metrics]:
    """Take gradient steps one after the other, or none.

    Shapes: leaves of inputs [G, ...]; metrics scalars.

    Args:
        learn: learn(carry, input) -> (carry, metrics), one gradient step.
        carry: parameters, targets, optimiser states.
        inputs: for each step what it needs, such as keys.
        skip: bool scalar; where it is true nothing is computed, unless it is mapped over.

    Returns:
        The carry after all steps, and the mean of each metric over them; NaN where steps were skipped.
    """

    def run(carry: Any) -> tuple[Any, Metrics]:
        carry, metrics = jax.lax.scan(learn, carry, inputs)
        return carry, jax.tree.map(jnp.mean, metrics)

    empty = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(run, carry)[1])
    return jax.lax.cond(skip, lambda carry: (carry, empty), run, carry)
