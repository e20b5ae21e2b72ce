"""Actor-critic with eligibility traces. Sutton and Barto (2018), section 13.5; van Seijen et al. (2016)."""

from dataclasses import replace
from typing import Any, Literal, NamedTuple

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

    learning_rate: Number = 0.1  # α, size of the actor's plain steps
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.9  # λ of the actor's trace
    critic_lam: Number = 0.9  # λ of the critic's trace
    value_coef: Number = 0.5  # size of the critic's steps, in those of the actor
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat; not in the trace
    max_grad_norm: Number = 1.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    actor_trace: Any  # leaves [B, *param]; that of an episode that ended is dropped at the first step of the next
    critic_trace: Any  # leaves [B, *param]
    expected: Array  # [B] float, value of the present observation by the parameters before their last step
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 32,
    total_steps: int = 2**20,
    traces: Literal["accumulating", "dutch"] = "accumulating",
    weight_by_discount: bool = False,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make a run of an actor-critic with eligibility traces: a plain gradient step after each environment step.

        δ_b = r_b + γ V(s'_b) - V(s_b)
        e_b <- γ λ e_b + w_b ∇log π(a_b|s_b),   z_b <- γ λ_v z_b + ∇V(s_b),   both 0 where an episode starts
        θ <- θ + α/B Σ_b [δ_b e_b + c_v δ_b z_b + c_e ∇H(π(·|s_b))]

    One update is num_steps such steps; its metrics are means over them. Episodes may end or not: a truncated one is
    bootstrapped from its true last observation before its traces are cut. `average_reward_actor_critic` is the same
    without discounting. Hyper-parameters, see `Hyper`, are given to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each.
        num_envs: B, environments side by side, each with traces of its own.
        num_steps: environment steps, and gradient steps, in one update.
        total_steps: environment steps of the run over all environments.
        traces: "accumulating", as above, or "dutch" for the critic's: true online TD(λ). With a critic that is linear
            in its parameters, one environment and no max_grad_norm, the critic then is that of the online λ-return
            algorithm after each step, exactly. With several environments it is where no two of them share a feature;
            with other critics, such as networks, to first order in α only, as with accumulating traces.
        weight_by_discount: w = γ^t, t the index of the step inside its episode, in place of w = 1; see
            `one_step_actor_critic`.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, feed-forward, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        normalize_rewards: divide rewards by the running deviation of their discounted sum: plain steps know no scale.
            The critic then counts in scaled units; metrics keep reward units, but for `loss` and `td_error`.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics). `loss` is the mean of ½ δ², `td_error` that of δ, and
        `trace_norm` the norm of an environment's traces, in the mean.

    Raises:
        TypeError: if a count is not an int, if policy, value and init_params do not come together, or if the model is
            recurrent.
        ValueError: if a count is below 1, if total_steps does not allow one update, or if traces is of no known kind.

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.5.
        Van Seijen, Mahmood, Pilarski, Machado and Sutton (2016), True online temporal-difference learning.
    """
    if traces not in ("accumulating", "dutch"):
        raise ValueError(f'traces must be "accumulating" or "dutch", got {traces!r}.')
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    policy, value, init_params, _ = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        empty = jax.tree.map(lambda x: jnp.zeros((*rollout.running_return.shape, *x.shape), x.dtype), params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        expected = jnp.zeros_like(rollout.running_return)
        return State(params, empty, empty, expected, rollout, scale, key, jnp.int32(0), traced(Hyper, hyper, params))

    def step(state: State, noise: Any) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key)
        learning_rate = hyper.learning_rate * (1.0 - hyper.anneal * state.update / num_updates)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=1,
            noise=noise,
        )  # fmt: skip
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))
        values, next_values = (x[0] for x in pg.bootstrap_values(state.params, trajectory, value=value))
        td_error = trajectory.reward[0] + hyper.discount * next_values - values
        batch = tuple(range(td_error.ndim))  # axes of the environments and their agents

        score, slope = pg.scores_and_slopes(state.params, trajectory, policy=policy, value=value)
        if weight_by_discount:
            weight = pg.discount_weight(trajectory.step[0], hyper.discount)
            score = jax.tree.map(lambda x: x * weight.reshape(*weight.shape, *(1,) * (x.ndim - weight.ndim)), score)
        fade = jnp.where(trajectory.step[0] == 0, 0.0, hyper.discount)
        actor_trace = pg.accumulating_trace(state.actor_trace, score, decay=fade * hyper.lam)
        if traces == "dutch":
            critic_trace = pg.dutch_trace(
                state.critic_trace, slope, decay=fade * hyper.critic_lam,
                step_size=learning_rate * hyper.value_coef / td_error.size,
            )  # fmt: skip
            change = values - state.expected
        else:
            critic_trace = pg.accumulating_trace(state.critic_trace, slope, decay=fade * hyper.critic_lam)
            change = jnp.zeros_like(values)

        actor = pg.trace_gradient(actor_trace, score, td_error=td_error)
        critic = pg.trace_gradient(critic_trace, slope, td_error=td_error, value_change=change)
        entropy, bonus = jax.value_and_grad(
            lambda params: jnp.mean(pg.action_distribution(params, trajectory, policy=policy).entropy())
        )(state.params)
        grads = jax.tree.map(
            lambda a, c, h: (a + hyper.value_coef * c).mean(batch) - hyper.entropy_coef * h, actor, critic, bonus
        )
        transform = optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), optax.sgd(learning_rate))
        updates, _ = transform.update(grads, transform.init(state.params))
        flat = ravel_pytree(grads)[0]
        metrics = {
            "loss": jnp.mean(0.5 * td_error**2),
            "grad_norm": jnp.linalg.norm(flat),
            "num_nonfinite": jnp.sum(~jnp.isfinite(flat)),
            "entropy": entropy,
            "td_error": jnp.mean(td_error),
            "trace_norm": jnp.mean(
                jax.vmap(lambda z: jnp.linalg.norm(ravel_pytree(z)[0]))((actor_trace, critic_trace))
            ),
        }
        return State(
            optax.apply_updates(state.params, updates), actor_trace, critic_trace,
            jnp.where(trajectory.done[0], 0.0, next_values), rollout, scale, key, state.update, hyper,
        ), metrics  # fmt: skip

    def update(state: State) -> tuple[State, Metrics]:
        noise = held_noise(state.key, state.params, state.rollout, policy=policy, num_steps=num_steps)
        state, steps = jax.lax.scan(step, state, noise, length=num_steps)
        metrics = {**jax.tree.map(jnp.mean, steps), "num_nonfinite": steps["num_nonfinite"].sum()}
        return replace(state, update=state.update + 1), metrics | episode_metrics(state.rollout)

    return Recipe(init, update, num_updates, policy, value)
