"""Multi-agent deep deterministic policy gradient. Lowe, Wu, Tamar, Harb, Abbeel and Mordatch (2017)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.networks import action_box, default_actor_with_critics
from pgjax.recipes import off_policy
from pgjax.recipes.agents import axes_of, require_agents
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.off_policy import ActorAndCritic
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam for the actors
    critic_learning_rate: Number = 1e-3  # of Adam for the critics
    discount: Number = 0.95  # γ, per environment step
    target_rate: Number = 0.01  # τ: how much of the new parameters the targets take at each gradient step
    noise: Number = 0.1  # σ of the exploration, in half widths of the box of actions
    noise_theta: Number = 1.0  # θ: how much the noise forgets in a step; 1 is white noise


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: ActorAndCritic  # leaves [A, ...]
    target: ActorAndCritic  # leaves [A, ...]
    opt_state: Any  # of the actors, of the critics; leaves [A, ...]
    rollout: pg.RolloutState
    replay: Any
    noise: Array  # [num_envs, A, D], the Ornstein-Uhlenbeck process
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 1,
    total_steps: int = 50_000,
    gradient_steps: int = 8,
    batch_size: int = 128,
    capacity: int = 100_000,
    warmup: int = 1_000,
    window: int = 1,
    centralized: bool = True,
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a MADDPG run: DDPG for each of A agents, whose critics see what all of them see and do.

        y_i = R_i + Γ_i Q'_i(x', μ'_1(o'_1), ..., μ'_A(o'_A));   w_i <- w_i - Adam(∇ ½(Q_i(x, a_1, ..., a_A) - y_i)²)
        θ_i <- θ_i + Adam(∇ Q_i(x, a_1, ..., μ_θi(o_i), ..., a_A)),   x = (o_1, ..., o_A), the a_j as replayed
        targets <- τ new + (1 - τ) targets

    Every agent has an actor and a critic of its own: leaves of the parameters have the leading axis A. An actor sees
    its own observation only, so that the critics are needed for training alone.

    Args:
        As `ddpg.make_train`; and:
        env: the environment, with `agents` = (A,) and actions in a bounded box, the same for each agent.
        window: n of n-step targets, each agent followed to its own end; 1 is the paper's.
        centralized: whether a critic takes observations and actions of all agents. False is the comparison of the
            paper: DDPG for each agent by itself, to whom the others are part of the environment.
        model: a Flax module for one agent with the methods `policy(obs)`, of its own observation, and
            `action_value(obs, action)`, of obs [..., A, F] and action [..., A, D], or of [..., F] and [..., D] where
            centralized is False; None takes `networks.default_actor_with_critics`.
        policy: in place of a model, policy(actor_i, obs) -> distribution of one agent, whose mode acts.
        critic: in place of a model, critic(critic_i, obs, action) -> [1, ...], of arrays as the model's action_value.
        init_params: in place of a model, init_params(key, obs) -> (actor, critic) of all agents, leaves [A, ...].

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]), each metric the mean over agents; its policy
        is that of all actors without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has no axis of agents or parameters lack it, if a count is too small, if the box is not
            bounded, or if a batch is larger than what is stored when learning begins.

    Properties:
        With one agent it is DDPG; with centralized=False it is A runs of DDPG with one replay of joint rows. Agents
        that are renumbered, with their parameters, learn the same.

    References:
        Lowe, Wu, Tamar, Harb, Abbeel and Mordatch (2017), Multi-agent actor-critic for mixed cooperative-competitive
        environments.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "window": window}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    num_agents, num_obs_axes = axes_of(env, env_params)
    low, high = action_box(env, env_params)
    functions = off_policy.as_actor_and_critic(
        env, env_params,
        default=lambda: default_actor_with_critics(env, env_params, num_critics=1, joint=centralized),
        model=model, policy=policy, critic=critic, init_params=init_params,
    )  # fmt: skip
    each, critic, init_each = functions
    made_for_one = init_params is None
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size, num_steps=window,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip

    def policy_of_all(params: Any, obs: Any, *_: Any) -> pg.exploration.Deterministic:
        axis = jax.tree.leaves(obs)[0].ndim - num_obs_axes
        mode = jax.vmap(lambda actor, own: each(actor, own).mode(), in_axes=(0, axis), out_axes=axis)
        return pg.exploration.Deterministic(mode(params, obs))

    def judge(critic_i: Any, obs: Any, action: Array, i: Array) -> Array:
        if not centralized:
            obs, action = jax.tree.map(lambda x: x[:, i], (obs, action))
        return critic(critic_i, obs, action)[0]

    behaviour = off_policy.with_noise(policy_of_all, low, high)

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        rates = hyper.learning_rate, hyper.critic_learning_rate
        return tuple(optax.flatten(optax.adam(rate)) for rate in rates)  # type: ignore[return-value]

    def collect(key: Array, state: State) -> tuple[pg.RolloutState, pg.Trajectory, Array]:
        noise_key, act_key = jax.random.split(key)
        process, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=num_steps, theta=state.hyper.noise_theta
        )
        rollout, trajectory = pg.rollout(
            act_key, state.params.actor, state.rollout, env=env, env_params=env_params, num_steps=num_steps,
            policy=pg.bind(behaviour, (state.update < warmup_updates, state.hyper.noise)), noise=noise,
        )  # fmt: skip
        return rollout, off_policy.stored(trajectory), process

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, noise_key, key = jax.random.split(key, 4)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        if made_for_one:
            params = jax.vmap(init_each, in_axes=(0, None))(jax.random.split(model_key, num_agents), rollout.obs)
        else:
            params = init_each(model_key, rollout.obs)
        require_agents(params, num_agents)
        numbers = traced(Hyper, hyper, params)
        opt_state = tuple(jax.vmap(optimizer.init)(x) for optimizer, x in zip(optimizers(numbers), params, strict=True))
        process = jax.random.normal(noise_key, (num_envs, num_agents, *low.shape))
        state = State(params, params, opt_state, rollout, None, process, key, jnp.int32(0), numbers)
        return replace(state, replay=replay.init(jax.eval_shape(collect, key, state)[1]))

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, learn_key) = state.hyper, jax.random.split(state.key, 3)
        rollout, trajectory, process = collect(act_key, state)
        memory = replay.add(state.replay, trajectory)
        actor_optimizer, critic_optimizer = optimizers(hyper)

        def learn(carry: Any, key: Array) -> tuple[Any, Metrics]:
            params, target, opt_state = carry
            batch = pg.fold(replay.sample(key, memory), discount=hyper.discount)
            next_action = policy_of_all(target.actor, batch.next_obs).mode()

            def of_agent(
                i: Array, reward: Array, weight: Array, params: Any, target_critic: Any, opt_state: Any
            ) -> tuple[Any, Any, Metrics]:
                (actor_i, critic_i), (actor_opt, critic_opt) = params, opt_state
                own = batch.replace(reward=reward, discount=weight)
                y = pg.td_target(own, judge(target_critic, batch.next_obs, next_action, i))

                def critic_loss(critic_i: Any) -> tuple[Array, Array]:
                    q = judge(critic_i, batch.obs, batch.action, i)
                    return pg.value_loss(q, y).mean(), q.mean()

                (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critic_i)
                updates, critic_opt = critic_optimizer.update(grads, critic_opt, critic_i)
                critic_i = optax.apply_updates(critic_i, updates)

                def actor_loss(actor_i: Any) -> Array:
                    fresh = each(actor_i, jax.tree.map(lambda x: x[:, i], batch.obs)).mode()
                    return -judge(critic_i, batch.obs, batch.action.at[:, i].set(fresh), i).mean()

                objective, slope = jax.value_and_grad(actor_loss)(actor_i)
                updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor_i)
                metrics = {
                    "loss": loss,
                    "actor_loss": objective,
                    "action_value": q,
                    "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                }
                params = ActorAndCritic(optax.apply_updates(actor_i, updates), critic_i)
                return params, (actor_opt, critic_opt), metrics

            params, opt_state, metrics = jax.vmap(of_agent, in_axes=(0, 1, 1, 0, 0, 0))(
                jnp.arange(num_agents), batch.reward, batch.discount, params, target.critic, opt_state
            )
            target = optax.incremental_update(params, target, hyper.target_rate)
            return (params, target, opt_state), jax.tree.map(jnp.mean, metrics)

        (params, target, opt_state), metrics = off_policy.gradient_steps(
            learn,
            (state.params, state.target, state.opt_state),
            jax.random.split(learn_key, gradient_steps),
            skip=state.update < warmup_updates,
        )
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        return State(params, target, opt_state, rollout, memory, process, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, lambda params, obs: policy_of_all(params.actor, obs))
