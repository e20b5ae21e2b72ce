"""MADDPG with several policies for each agent, one drawn for each episode. Lowe et al. (2017), section 4.3."""

import functools
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

    params: ActorAndCritic  # leaves [A, K, ...] of the actors, [A, ...] of the critics
    target: ActorAndCritic
    opt_state: Any  # of the actors, of the critics
    rollout: pg.RolloutState  # its policy_state [num_envs, A] says which policy of each agent plays
    replay: Any
    noise: Array  # [num_envs, A, D], the Ornstein-Uhlenbeck process
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_policies: int = 3,
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
    """Make a MADDPG run in which each agent has K policies, of which one plays a whole episode.

        k_i ~ U{1, ..., K} at the start of an episode, for each agent;   a_i = μ_i^(k_i)(o_i)
        θ_i^(k) <- θ_i^(k) + Adam(1/K E[∇ Q_i(x, a_1, ..., μ_i^(k)(o_i), ..., a_A) | k_i = k])
        y_i = R_i + Γ_i Q'_i(x', μ'_1^(k_1)(o'_1), ..., μ'_A^(k_A)(o'_A)),   critics and targets as in MADDPG

    An agent that trains against K policies of each other one depends less on what a particular one of them does. The
    replay keeps which policy acted in each row, and a policy learns from its own rows only: those of a batch are drawn
    uniformly from its part of the replay, as from a replay of its own, about batch_size / K of them. An agent has one
    critic, which learns from all rows.

    Args:
        As `maddpg.make_train`; and:
        num_policies: K, policies of each agent.
        num_steps: environment steps of each environment in one update. The policies of episodes that begin in it are
            drawn once for each environment.
        model: a Flax module for one agent with the methods `policy(obs)` and `action_value(obs, action)`.
        init_params: in place of a model, init_params(key, obs) -> (actor, critic), leaves [A, K, ...] of the actors and
            [A, ...] of the critics.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]), each metric the mean over agents; its policy
        is that of the first policies of all agents without noise. `choose` puts others in their place.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has no axis of agents or parameters lack those of agents and policies, if a count is too
            small, if the box is not bounded, or if a batch is larger than what is stored when learning begins.

    Properties:
        With one policy it is MADDPG, bit for bit. A policy without a row in a batch has gradient 0 there.

    References:
        Lowe, Wu, Tamar, Harb, Abbeel and Mordatch (2017), Multi-agent actor-critic for mixed cooperative-competitive
        environments, section 4.3.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    num_policies = _checks.as_positive_int("num_policies", num_policies)
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

    def act_by(actor_i: Any, own: Any, k: int) -> Array:
        return each(jax.tree.map(lambda x: x[k], actor_i), own).mode()

    def acts(actor_i: Any, own: Any, which: Array) -> Array:
        """What an agent does in [...] rows, in each by the policy that plays there."""
        action = act_by(actor_i, own, 0)
        for k in range(1, num_policies):
            action = jnp.where(which[..., None] == k, act_by(actor_i, own, k), action)
        return action

    def rows_of(which: Array) -> list[Array | None]:
        """For each policy the rows in which it plays; None says all."""
        return [which == k for k in range(num_policies)] if num_policies > 1 else [None]

    def policy_of_all(params: Any, obs: Any, which: Array | None = None) -> pg.exploration.Deterministic:
        axis = jax.tree.leaves(obs)[0].ndim - num_obs_axes
        if which is None:  # the first of each agent
            mode = jax.vmap(functools.partial(act_by, k=0), in_axes=(0, axis), out_axes=axis)(params, obs)
        else:
            mode = jax.vmap(acts, in_axes=(0, axis, axis), out_axes=axis)(params, obs, which)
        return pg.exploration.Deterministic(mode)

    def judge(critic_i: Any, obs: Any, action: Array, i: Array) -> Array:
        if not centralized:
            obs, action = jax.tree.map(lambda x: x[:, i], (obs, action))
        return critic(critic_i, obs, action)[0]

    def draw(key: Array) -> Array:
        return jax.random.randint(key, (num_envs, num_agents), 0, num_policies)

    def behaviour(exploring: Any, actor: Any, obs: Any, which: Array) -> tuple[Any, Array, Array]:
        of_those = off_policy.with_noise(lambda actor, obs: policy_of_all(actor, obs, which), low, high)
        return of_those(exploring, actor, obs), which, which  # which is kept, and handed on to the next step

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        rates = hyper.learning_rate, hyper.critic_learning_rate
        return tuple(optax.flatten(optax.adam(rate)) for rate in rates)  # type: ignore[return-value]

    def collect(key: Array, state: State) -> tuple[pg.RolloutState, pg.Trajectory, Array]:
        noise_key, act_key = jax.random.split(key)
        process, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=num_steps, theta=state.hyper.noise_theta
        )
        # No child of noise_key that a split in two has.
        start = state.rollout.replace(start_policy_state=draw(jax.random.fold_in(noise_key, 2)))
        rollout, trajectory = pg.rollout(
            act_key, state.params.actor, start, env=env, env_params=env_params, num_steps=num_steps,
            policy=pg.bind(behaviour, (state.update < warmup_updates, state.hyper.noise)), noise=noise,
        )  # fmt: skip
        return rollout, off_policy.stored(trajectory).replace(extras=trajectory.extras), process

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, noise_key, key = jax.random.split(key, 4)
        which = draw(jax.random.fold_in(model_key, num_agents))
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=which)
        if made_for_one:
            of_agent = functools.partial(_init_policies, init_each, rollout.obs, num_policies)
            params = jax.vmap(of_agent)(jax.random.split(model_key, num_agents))
        else:
            params = init_each(model_key, rollout.obs)
        require_agents(params.actor, num_agents, num_policies)
        require_agents(params.critic, num_agents)
        numbers = traced(Hyper, hyper, params)
        of_actor, of_critic = optimizers(numbers)
        opt_state = jax.vmap(jax.vmap(of_actor.init))(params.actor), jax.vmap(of_critic.init)(params.critic)
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
            rows = replay.sample(key, memory)
            batch, which = pg.fold(rows, discount=hyper.discount), rows.extras[0]
            next_action = policy_of_all(target.actor, batch.next_obs, which).mode()

            def of_agent(
                i: Array, which_i: Array, reward: Array, weight: Array, params: Any, target_critic: Any, opt_state: Any
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
                    fresh = acts(actor_i, jax.tree.map(lambda x: x[:, i], batch.obs), which_i)
                    q = judge(critic_i, batch.obs, batch.action.at[:, i].set(fresh), i)
                    means = [pg.masked_mean(q, mine) for mine in rows_of(which_i)]
                    return -functools.reduce(jnp.add, means) / num_policies

                objective, slope = jax.value_and_grad(actor_loss)(actor_i)
                updates, actor_opt = jax.vmap(actor_optimizer.update)(slope, actor_opt, actor_i)
                metrics = {
                    "loss": loss,
                    "actor_loss": objective,
                    "action_value": q,
                    "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                }
                params = ActorAndCritic(optax.apply_updates(actor_i, updates), critic_i)
                return params, (actor_opt, critic_opt), metrics

            params, opt_state, metrics = jax.vmap(of_agent, in_axes=(0, 1, 1, 1, 0, 0, 0))(
                jnp.arange(num_agents), which, batch.reward, batch.discount, params, target.critic, opt_state
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


def choose(params: ActorAndCritic, which: Any) -> ActorAndCritic:
    """Say which policy of each agent plays: it comes to stand first, where `Recipe.policy` takes it.

        actor_i^(1) <- actor_i^(which_i)

    Shapes: leaves of the actors [A, K, ...]; which [A]; leaves of the actors of the result [A, 1, ...].

    Args:
        params: what `make_train` trains, the field params of its state.
        which: int, for each agent a number below K, or one for all.

    Returns:
        The parameters with one policy for each agent.

    Raises:
        TypeError: if which is no integer.
        ValueError: if which is neither a scalar nor [A], or a known number outside 0 ... K - 1.
    """
    num_agents, num_policies = jnp.shape(jax.tree.leaves(params.actor)[0])[:2]
    which = _checks.as_scalar_or_shape("which", _checks.as_integer("which", which), (num_agents,))
    if not isinstance(which, jax.core.Tracer) and ((which < 0) | (which >= num_policies)).any():
        raise ValueError(f"which must lie in 0 ... {num_policies - 1}, got {which.tolist()}: a policy of each agent.")
    which = jnp.broadcast_to(which, (num_agents,))
    return params._replace(actor=jax.tree.map(lambda x: x[jnp.arange(num_agents), which][:, None], params.actor))


def _init_policies(init_each: Any, obs: Any, num_policies: int, key: Array) -> ActorAndCritic:
    """One critic and K actors, the first of which is that of MADDPG; init_each splits its key in two."""
    first = init_each(key, obs)
    more = [init_each(jax.random.fold_in(key, 1 + k), obs).actor for k in range(1, num_policies)]
    return first._replace(actor=jax.tree.map(lambda *x: jnp.stack(x), first.actor, *more))
