"""The natural policy gradient, its step scaled to a divergence. Kakade (2001)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import natural
from pgjax.estimators.terms import values_and_next
from pgjax.recipes.acting import as_functions, normalized, require_feed_forward
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.minibatches import value_step
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 0.5  # α of the policy
    max_kl: Number = 0.01  # δ, mean divergence of a step from the old policy at most, to second order, nats
    damping: Number = 0.1  # ξ, added to the Fisher matrix
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.97  # λ of the advantage
    critic_learning_rate: Number = 3e-3  # of Adam, for the critic


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # with normalize_observations a `Normalized`: the network's, and the statistics that act
    opt_state: Any  # of the policy's step, and of the critic's
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 64,
    total_steps: int = 1_000_000,
    num_iters: int = 10,
    num_epochs: int = 10,
    num_minibatches: int = 4,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make a natural policy gradient run: a step along the natural gradient for each rollout, then a fit of the critic.

        θ <- θ - min(α, √(2 δ / xᵀ F x)) x,   x = (F + ξ)⁻¹ ∇ mean -A log π(a|s),   F over the states visited

    Args:
        As `a2c.make_train`, but for feed-forward policies; and:
        num_iters: iterations of conjugate gradients.
        num_epochs: passes of the critic over each rollout.
        num_minibatches: minibatches in each pass; must divide num_envs * num_steps.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). The metric `kl` is that of the policy after
        the update from the one that acted.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    require_divisor("num_minibatches", num_minibatches, num_envs * num_steps)
    functions = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )
    policy, value, init_params, _ = normalized(functions) if normalize_observations else functions

    def step_of(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        along = natural.scale_by_natural_gradient(num_iters, hyper.damping)
        within = natural.scale_to_divergence(hyper.max_kl, max_scale=hyper.learning_rate)
        return optax.chain(along, within, optax.scale(-1.0))

    def critic_step(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        return optax.flatten(optax.adam(hyper.critic_learning_rate, eps=1e-5))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        opt_state = (step_of(numbers).init(params), critic_step(numbers).init(params))
        return State(params, opt_state, rollout, scale, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key, shuffle_key) = state.hyper, state.reward_scale, jax.random.split(state.key, 3)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        reward = trajectory.reward
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, reward, done=trajectory.done, discount=hyper.discount)
            reward = pg.envs.scale_reward(scale, reward)
        values, next_values = values_and_next(state.params, trajectory, policy, value, None, None)
        advantage = pg.gae(
            reward, values, next_values, terminated=trajectory.terminated, truncated=trajectory.truncated,
            discount=hyper.discount, lam=hyper.lam,
        )  # fmt: skip
        weight, old = pg.standardize(advantage), pg.action_distribution(state.params, trajectory, policy=policy)

        def objective(params: Any) -> Array:
            log_prob = pg.log_prob_taken(pg.action_distribution(params, trajectory, policy=policy), trajectory)
            return jnp.mean(pg.policy_gradient_loss(log_prob, weight))

        def divergence(params: Any) -> Array:
            return jnp.mean(old.kl_divergence(pg.action_distribution(params, trajectory, policy=policy)))

        loss, grads = jax.value_and_grad(objective)(state.params)
        updates, opt_state = step_of(hyper).update(
            grads, state.opt_state[0], fisher=natural.fisher_vector_product(state.params, trajectory.obs, policy=policy)
        )
        params = optax.apply_updates(state.params, updates)

        (params, critic_state), critic = pg.epochs(
            shuffle_key, (params, state.opt_state[1]), (trajectory.obs, advantage + values),
            step=value_step(value, critic_step(hyper), policy), num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        flat = ravel_pytree(grads)[0]
        metrics = {
            "loss": loss,
            "value_loss": jnp.mean(critic["value_loss"]),
            "entropy": jnp.mean(old.entropy()),
            "kl": divergence(params),
            "grad_norm": jnp.linalg.norm(flat),
            "num_nonfinite": jnp.sum(~jnp.isfinite(flat)),
            "explained_variance": pg.diagnostics.explained_variance(values, advantage + values),
        }
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        state = State(params, (opt_state, critic_state), rollout, scale, key, state.update + 1, hyper)
        return state, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy, value)
