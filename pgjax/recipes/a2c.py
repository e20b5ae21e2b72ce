"""Advantage actor-critic, synchronous."""

from typing import Any

import jax

import pgjax as pg
from pgjax.recipes._recipe import (
    Metrics,
    Recipe,
    TrainState,
    build,
    descend,
    optimizer,
    policy_of,
    value_of,
)

Array = jax.Array


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 2048,
    num_steps: int = 8,
    total_steps: int = 2**21,
    model: Any = None,
) -> Recipe:
    """Make an advantage actor-critic run: one gradient step for each rollout.

    Hyper-parameters, which may be traced and vmapped over, are given to the recipe or to its `init`: learning_rate,
    discount, lam, value_coef, entropy_coef, max_grad_norm, anneal.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters.
        num_envs: environments that run side by side.
        num_steps: environment steps in each rollout.
        total_steps: environment steps of the run over all environments.
        model: a Flax module with methods `policy` and `value`; None takes two tanh layers of 64 for each.

    Returns:
        The recipe: train(key, **hyper) -> (TrainState, metrics).

    Raises:
        TypeError: if a count is not an int.
        ValueError: if total_steps does not allow one update.

    Example:
        >>> import gymnax, jax, pgjax.recipes
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> train = pgjax.recipes.a2c.make_train(env, env_params, num_envs=4, num_steps=8, total_steps=64)
        >>> state, metrics = jax.jit(train)(jax.random.key(0))
        >>> metrics["grad_norm"].shape
        (2,)

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
    """
    model = model or pg.networks.default_actor_critic(env, env_params)
    policy, value = policy_of(model), value_of(model)
    num_updates = total_steps // (num_envs * num_steps)

    def step(state: TrainState, key: Array) -> tuple[Any, Any, Any, Metrics]:
        hyper = state.hyper
        rollout, trajectory = pg.rollout(
            key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        grads, info = pg.actor_critic(
            state.params, trajectory, policy=policy, value=value, discount=hyper["discount"], lam=hyper["lam"],
            value_coef=hyper["value_coef"], entropy_coef=hyper["entropy_coef"],
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)
        params, opt_state = descend(state.params, grads, state.opt_state, transform)
        return params, opt_state, rollout, {"grad_norm": info.grad_norm}

    hyper = {
        "learning_rate": 1e-2, "discount": 0.99, "lam": 0.95, "value_coef": 0.5, "entropy_coef": 0.01,
        "max_grad_norm": 10.0, "anneal": 1.0,
    }  # fmt: skip
    return build(
        step, env, env_params, model=model, num_envs=num_envs, num_steps=num_steps, total_steps=total_steps, hyper=hyper
    )
