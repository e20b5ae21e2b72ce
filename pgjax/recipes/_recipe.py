"""What all recipes share: the state of a training run, and the loop over updates."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from pgjax import _checks
from pgjax._types import Environment, Params, Policy, RolloutState, Value
from pgjax.envs.boundary import batched_reset
from pgjax.rollout import init_rollout

Array = jax.Array
Metrics = dict[str, Array]


@struct.dataclass
class TrainState:
    """Everything a run needs to go on, bit for bit: save this pytree and nothing else."""

    params: Params
    opt_state: Any
    rollout: RolloutState
    key: Array
    update: Array  # int32, updates done
    hyper: dict[str, Array]  # the traced hyper-parameters of this run


@dataclass(frozen=True)
class Recipe:
    """A training run as pure functions: call it, or drive `init` and `update` from a loop of your own.

    Args:
        init: init(key, **hyper) -> TrainState.
        update: update(TrainState) -> (TrainState, metrics).
        num_updates: updates that the whole run takes.
        steps_per_update: environment steps in one update, over all environments.
        policy: policy(params, obs) -> distribution, as it was trained.
        value: value(params, obs) -> [...] or None.

    Returns:
        A callable: recipe(key, **hyper) -> (TrainState, metrics with leaves [num_updates]).

    Raises:
        TypeError: for a hyper-parameter that the recipe does not know.
    """

    init: Callable[..., TrainState]
    update: Callable[[TrainState], tuple[TrainState, Metrics]]
    num_updates: int
    steps_per_update: int
    policy: Policy
    value: Value | None

    def __call__(self, key: Array, **hyper: Any) -> tuple[TrainState, Metrics]:
        return jax.lax.scan(lambda state, _: self.update(state), self.init(key, **hyper), length=self.num_updates)


def build(
    step: Callable[[TrainState, Array], tuple[Params, Any, RolloutState, Metrics]],
    env: Environment,
    env_params: Any,
    *,
    model: Any,
    num_envs: int,
    num_steps: int,
    total_steps: int,
    hyper: dict[str, float],
) -> Recipe:
    """Make a recipe of its one step: the rest (start, counting, keys, episode metrics) is the same for all.

    Args:
        step: step(TrainState, key) -> (params, opt_state, rollout, metrics).
        env: the environment.
        env_params: its parameters.
        model: a Flax module with methods `policy` and `value`.
        num_envs: B.
        num_steps: T.
        total_steps: environment steps of the run over all environments; whole updates only.
        hyper: default hyper-parameters, by name; each may be overridden, and vmapped over, in `init`.

    Returns:
        The recipe.

    Raises:
        ValueError: if total_steps does not allow one update.
    """
    policy, value = policy_of(model), value_of(model)
    steps_per_update = _checks.as_positive_int("num_envs", num_envs) * _checks.as_positive_int("num_steps", num_steps)
    if total_steps < steps_per_update:
        raise ValueError(
            f"total_steps must allow one update of num_envs * num_steps = {steps_per_update} steps, got {total_steps}."
        )

    def init(key: Array, **overrides: Any) -> TrainState:
        unknown = sorted(set(overrides) - set(hyper))
        if unknown:
            raise TypeError(
                f"unknown hyper-parameter {', '.join(unknown)}; this recipe has {', '.join(sorted(hyper))}."
            )
        model_key, env_key, key = jax.random.split(key, 3)
        obs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda: _one_obs(env, env_params)))
        params = model.init(model_key, obs)
        return TrainState(
            params=params,
            opt_state=optimizer({"learning_rate": 0.0, "max_grad_norm": 1.0}, 0.0).init(ravel_pytree(params)[0]),
            rollout=init_rollout(env_key, env, env_params, num_envs=num_envs),
            key=key,
            update=jnp.int32(0),
            hyper={name: jnp.float32(x) for name, x in {**hyper, **overrides}.items()},
        )

    def update(state: TrainState) -> tuple[TrainState, Metrics]:
        key, step_key = jax.random.split(state.key)
        params, opt_state, rollout, metrics = step(state, step_key)
        metrics["episode_return"] = jnp.nanmean(rollout.episode_return)
        metrics["finished"] = jnp.mean(rollout.episode_length > 0, dtype=jnp.float32)
        after = dataclasses.replace(
            state, params=params, opt_state=opt_state, rollout=rollout, key=key, update=state.update + 1
        )
        return after, metrics

    return Recipe(init, update, total_steps // steps_per_update, steps_per_update, policy, value)


def optimizer(hyper: dict[str, Any], progress: Array | float) -> optax.GradientTransformation:
    """Adam with gradient clipping by norm and a learning rate that falls linearly to 0 with progress, if `anneal` is 1.

    Args:
        hyper: `learning_rate`, `max_grad_norm` and perhaps `anneal`; may be traced.
        progress: share of the run that is done, in [0, 1].

    Returns:
        The transformation; its state does not depend on the arguments.

    Raises:
        KeyError: if hyper lacks a name.
    """
    learning_rate = hyper["learning_rate"] * (1.0 - hyper.get("anneal", 0.0) * progress)
    return optax.chain(
        optax.clip_by_global_norm(hyper["max_grad_norm"]), optax.scale_by_adam(eps=1e-5), optax.scale(-learning_rate)
    )


def descend(
    params: Params, grads: Params, opt_state: Any, transform: optax.GradientTransformation
) -> tuple[Params, Any]:
    """Take one step of the optimiser, on all parameters as one vector: a few kernels, not a few for each leaf.

    Args:
        params: pytree of parameters.
        grads: the gradient, a pytree alike.
        opt_state: state of transform for the raveled parameters.
        transform: the optimiser.

    Returns:
        The new parameters and the new state of the optimiser.

    Raises:
        TypeError: if the trees differ.
    """
    flat, unravel = ravel_pytree(params)
    updates, opt_state = transform.update(ravel_pytree(grads)[0], opt_state, flat)
    return unravel(optax.apply_updates(flat, updates)), opt_state


def policy_of(model: Any) -> Policy:
    """Return policy(params, obs) of a Flax module.

    Args:
        model: a Flax module with a method `policy`.

    Returns:
        The pure function.

    Raises:
        AttributeError: when called, if the module has no such method.
    """
    return lambda params, obs: model.apply(params, obs, method="policy")


def value_of(model: Any) -> Value:
    """Return value(params, obs) of a Flax module.

    Args:
        model: a Flax module with a method `value`.

    Returns:
        The pure function.

    Raises:
        AttributeError: when called, if the module has no such method.
    """
    return lambda params, obs: model.apply(params, obs, method="value")


def _one_obs(env: Environment, env_params: Any) -> Any:
    obs, _ = batched_reset(jax.random.key(0), env, env_params, 1)
    return obs
