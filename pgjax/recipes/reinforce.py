"""REINFORCE with reward-to-go, with or without a baseline."""

from collections.abc import Callable
from typing import Any

import jax

import pgjax as pg
from pgjax.recipes._recipe import Metrics, Recipe, TrainState, build, descend, optimizer, policy_of

Array = jax.Array


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 2048,
    num_steps: int = 128,
    total_steps: int = 2**22,
    baseline: Callable[[Array], Array] | None = pg.leave_one_out,
    model: Any = None,
) -> Recipe:
    """Make a REINFORCE run: one gradient step for each rollout, no critic.

    Hyper-parameters, which may be traced and vmapped over, are given to the recipe or to its `init`: learning_rate,
    discount, max_grad_norm, anneal.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters.
        num_envs: environments that run side by side.
        num_steps: environment steps in each rollout; rewards beyond it are not seen, so it should span
            a few times 1 / (1 - discount) or whole episodes.
        total_steps: environment steps of the run over all environments.
        baseline: a function of the returns [T, B], or None.
        model: a Flax module with a method `policy`; None takes two tanh layers of 64.

    Returns:
        The recipe: train(key, **hyper) -> (TrainState, metrics).

    Raises:
        TypeError: if a count is not an int.
        ValueError: if total_steps does not allow one update.

    Example:
        >>> import gymnax, jax, pgjax.recipes
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> train = pgjax.recipes.reinforce.make_train(env, env_params, num_envs=4, num_steps=8, total_steps=64)
        >>> state, metrics = jax.jit(train)(jax.random.key(0))
        >>> metrics["grad_norm"].shape
        (2,)

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    model = model or pg.networks.default_actor_critic(env, env_params)
    policy = policy_of(model)
    num_updates = total_steps // (num_envs * num_steps)

    def step(state: TrainState, key: Array) -> tuple[Any, Any, Any, Metrics]:
        rollout, trajectory = pg.rollout(
            key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        grads, info = pg.reinforce(
            state.params, trajectory, policy=policy, discount=state.hyper["discount"], baseline=baseline
        )
        transform = optimizer(state.hyper, state.update / num_updates)
        params, opt_state = descend(state.params, grads, state.opt_state, transform)
        return params, opt_state, rollout, {"grad_norm": info.grad_norm}

    hyper = {"learning_rate": 1e-2, "discount": 0.99, "max_grad_norm": 1e3, "anneal": 1.0}
    return build(
        step, env, env_params, model=model, num_envs=num_envs, num_steps=num_steps, total_steps=total_steps, hyper=hyper
    )
