"""Actor-critic for the average reward of a continuing task. Sutton and Barto (2018), sections 13.5 and 13.6."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax.recipes.acting import as_functions, held_noise, require_feed_forward
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    average_rate: Number = 1e-2  # β, size of the steps of the average reward r̄, in those of the error
    reward_scale: Number = 1.0  # c: what a reward is multiplied by in the error, so that a critic can learn large ones
    lam: Number = 0.9  # λ of the actor's trace; 0 leaves the trace out
    critic_lam: Number = 0.9  # λ of the critic's trace
    value_coef: Number = 0.5  # weight of the critic's gradient
    entropy_coef: Number = 0.01  # weight of the entropy, units of the error per nat; not in the trace
    max_grad_norm: Number = 10.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    opt_state: Any
    average_reward: Array  # r̄, scalar, reward units per environment step
    actor_trace: Any  # leaves [B, *param], kept until a truncation cuts them
    critic_trace: Any  # leaves [B, *param]
    rollout: pg.RolloutState
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 32,
    total_steps: int = 2**20,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a run of an actor-critic for the average reward: a gradient step after each environment step, no discount.

        δ_b = c (r_b - r̄) + V(s'_b) - V(s_b),   r̄ <- r̄ + β/(cB) Σ_b δ_b
        e_b <- λ e_b + ∇log π(a_b|s_b),   z_b <- λ_v z_b + ∇V(s_b)
        ascend 1/B Σ_b [δ_b e_b + c_v δ_b z_b + c_e ∇H(π(·|s_b))]    by Adam, each step

    V is c times the differential value, known up to a constant; c is 1 in the book. The task goes on for ever: where an
    episode terminates, the start of the next one is what the step led to, and the traces run on. Where one is
    truncated, its true last observation is, and the traces are cut. One update is num_steps such steps; its metrics are
    means over them.
    Hyper-parameters, see `Hyper`, are given to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form. One that pays the same at each step of an episode, such
            as CartPole and MountainCar, has the same average whatever is done: nothing can be learned there.
        env_params: its parameters, for all environments or with one row for each, if all have one average reward.
        num_envs: B, environments side by side, each with traces of its own.
        num_steps: environment steps, and gradient steps, in one update.
        total_steps: environment steps of the run over all environments.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, feed-forward, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics). `average_reward` is r̄ after the update, `reward` the mean
        of what was paid, `loss` that of ½ δ², and `trace_norm` the mean norm of an environment's traces.

    Raises:
        TypeError: if a count is not an int, if policy, value and init_params do not come together, or if the model is
            recurrent.
        ValueError: if a count is below 1, or if total_steps does not allow one update.

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, sections 13.5 and 13.6.
        Degris, Pilarski and Sutton (2012), Model-free reinforcement learning with continuous action in practice.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    policy, value, init_params, _ = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        opt_state = optimizer(numbers, 0.0).init(params)
        empty = jax.tree.map(lambda x: jnp.zeros((*rollout.running_return.shape, *x.shape), x.dtype), params)
        average = jnp.zeros((), rollout.running_return.dtype)
        return State(params, opt_state, average, empty, empty, rollout, key, jnp.int32(0), numbers)

    def step(state: State, noise: Any) -> tuple[State, Metrics]:
        hyper, (key, act_key) = state.hyper, jax.random.split(state.key)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=1,
            noise=noise,
        )  # fmt: skip
        cut = (trajectory.truncated & ~trajectory.terminated)[0]
        # rollout.obs is what follows in time: the start of the next episode where one ended.
        led_to = jax.tree.map(
            lambda before, after: jnp.where(_along(cut, after), before[0], after),
            trajectory.next_obs, rollout.obs,
        )  # fmt: skip
        values, next_values = value(state.params, trajectory.obs)[0], value(state.params, led_to)
        reward = trajectory.reward[0]
        td_error = hyper.reward_scale * (reward - state.average_reward) + next_values - values
        batch = tuple(range(td_error.ndim))  # axes of the environments and their agents

        score, slope = pg.scores_and_slopes(state.params, trajectory, policy=policy, value=value)
        actor_trace = pg.accumulating_trace(state.actor_trace, score, decay=jnp.full_like(reward, hyper.lam))
        critic_trace = pg.accumulating_trace(state.critic_trace, slope, decay=jnp.full_like(reward, hyper.critic_lam))
        entropy, bonus = jax.value_and_grad(
            lambda params: jnp.mean(pg.action_distribution(params, trajectory, policy=policy).entropy())
        )(state.params)
        grads = jax.tree.map(
            lambda a, c, h: (a + hyper.value_coef * c).mean(batch) - hyper.entropy_coef * h,
            pg.trace_gradient(actor_trace, score, td_error=td_error),
            pg.trace_gradient(critic_trace, slope, td_error=td_error),
            bonus,
        )
        average = state.average_reward + hyper.average_rate / hyper.reward_scale * jnp.mean(td_error)
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        flat = ravel_pytree(grads)[0]
        metrics = {
            "loss": jnp.mean(0.5 * td_error**2),
            "grad_norm": jnp.linalg.norm(flat),
            "num_nonfinite": jnp.sum(~jnp.isfinite(flat)),
            "entropy": entropy,
            "reward": jnp.mean(reward),
            "trace_norm": jnp.mean(
                jax.vmap(lambda z: jnp.linalg.norm(ravel_pytree(z)[0]))((actor_trace, critic_trace))
            ),
        }
        keep = lambda z: jnp.where(_along(cut, z), 0.0, z)  # noqa: E731
        return State(
            optax.apply_updates(state.params, updates), opt_state,
            average.astype(state.average_reward.dtype),
            jax.tree.map(keep, actor_trace), jax.tree.map(keep, critic_trace), rollout, key, state.update, hyper,
        ), metrics  # fmt: skip

    def update(state: State) -> tuple[State, Metrics]:
        noise = held_noise(state.key, state.params, state.rollout, policy=policy, num_steps=num_steps)
        state, steps = jax.lax.scan(step, state, noise, length=num_steps)
        metrics = {**jax.tree.map(jnp.mean, steps), "num_nonfinite": steps["num_nonfinite"].sum()}
        metrics |= episode_metrics(state.rollout) | {"average_reward": state.average_reward}
        return replace(state, update=state.update + 1), metrics

    return Recipe(init, update, num_updates, policy, value)


def _along(mask: Array, leaf: Array) -> Array:
    """Give a mask [B] the axes of a leaf [B, ...]."""
    return mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
