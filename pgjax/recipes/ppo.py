"""Proximal policy optimisation."""

from typing import Any

import jax
import optax
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax.recipes._recipe import Metrics, Recipe, TrainState, build, optimizer, policy_of, value_of

Array = jax.Array


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 2048,
    num_steps: int = 32,
    total_steps: int = 2**21,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    model: Any = None,
) -> Recipe:
    """Make a PPO training run: rollout, generalised advantage, clipped surrogate over shuffled minibatches.

    Hyper-parameters, which may be traced and vmapped over, are given to the recipe or to its `init`: learning_rate,
    discount, lam, clip, value_clip, value_coef, entropy_coef, max_grad_norm, anneal.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters.
        num_envs: environments that run side by side.
        num_steps: environment steps in each rollout.
        total_steps: environment steps of the run over all environments.
        num_epochs: passes over each rollout.
        num_minibatches: minibatches in each pass; must divide num_envs * num_steps.
        model: a Flax module with methods `policy` and `value`; None takes two tanh layers of 64 for each.

    Returns:
        The recipe: train(key, **hyper) -> (TrainState, metrics).

    Raises:
        TypeError: if a count is not an int.
        ValueError: if total_steps does not allow one update, or num_minibatches does not divide the batch.

    Example:
        >>> import gymnax, jax, pgjax.recipes
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> train = pgjax.recipes.ppo.make_train(env, env_params, num_envs=4, num_steps=8, total_steps=64)
        >>> state, metrics = jax.jit(train)(jax.random.key(0), learning_rate=1e-3)
        >>> metrics["kl"].shape
        (2,)

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, algorithm 1.
    """
    model = model or pg.networks.default_actor_critic(env, env_params)
    policy, value = policy_of(model), value_of(model)
    num_updates = total_steps // (num_envs * num_steps)
    minibatch_steps = num_epochs * num_minibatches

    def step(state: TrainState, key: Array) -> tuple[Any, Any, Any, Metrics]:
        hyper = state.hyper
        act_key, shuffle_key = jax.random.split(key)
        transform = optimizer(hyper, state.update / num_updates)

        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        values, next_values = pg.bootstrap_values(state.params, trajectory, value=value)
        advantage = pg.gae(
            trajectory.reward, values, next_values,
            terminated=trajectory.terminated, truncated=trajectory.truncated,
            discount=hyper["discount"], lam=hyper["lam"],
        )  # fmt: skip
        batch = (trajectory.obs, trajectory.action, trajectory.raw_action, trajectory.log_prob, advantage, values)

        def loss(params: Any, minibatch: Any) -> tuple[Array, Metrics]:
            obs, action, raw_action, old_log_prob, advantage, old_value = minibatch
            distribution = policy(params, obs)
            log_ratio = pg.log_prob_of(distribution, action, raw_action) - old_log_prob
            target = advantage + old_value
            total = (
                pg.ppo_clip_loss(log_ratio, pg.standardize(advantage), clip=hyper["clip"])
                + hyper["value_coef"]
                * pg.clipped_value_loss(value(params, obs), target, old_value=old_value, clip=hyper["value_clip"])
                + hyper["entropy_coef"] * pg.entropy_loss(distribution.entropy())
            )
            log_ratio = jax.lax.stop_gradient(log_ratio)
            return pg.masked_mean(total), {
                "kl": pg.diagnostics.approximate_kl(log_ratio),
                "clip_fraction": pg.diagnostics.clip_fraction(log_ratio, clip=hyper["clip"]),
            }

        # All parameters as one vector: the optimiser then takes a few kernels, not a few for each leaf.
        flat, unravel = ravel_pytree(state.params)

        def descend(carry: Any, minibatch: Any) -> tuple[Any, Metrics]:
            flat, opt_state = carry
            grads, metrics = jax.grad(lambda flat: loss(unravel(flat), minibatch), has_aux=True)(flat)
            updates, opt_state = transform.update(grads, opt_state)
            return (optax.apply_updates(flat, updates), opt_state), metrics

        (flat, opt_state), metrics = pg.epochs(
            shuffle_key, (flat, state.opt_state), batch,
            step=descend, num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        metrics = jax.tree.map(lambda x: x.sum() / minibatch_steps, metrics)
        metrics["explained_variance"] = pg.diagnostics.explained_variance(values, advantage + values)
        return unravel(flat), opt_state, rollout, metrics

    hyper = {
        "learning_rate": 2.5e-4, "discount": 0.99, "lam": 0.95, "clip": 0.2, "value_clip": 0.2, "value_coef": 0.5,
        "entropy_coef": 0.01, "max_grad_norm": 0.5, "anneal": 1.0,
    }  # fmt: skip
    return build(
        step, env, env_params, model=model, num_envs=num_envs, num_steps=num_steps, total_steps=total_steps, hyper=hyper
    )
