"""Soft actor-critic with discrete actions. Christodoulou (2019), algorithm 1."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.networks import count_actions, default_actor_with_critics
from pgjax.recipes import off_policy
from pgjax.recipes.agents import require_one_agent
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.off_policy import ActorAndCritic
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 2e-3  # of Adam for the actor, and for log α
    critic_learning_rate: Number = 2e-3  # of Adam for the critics
    discount: Number = 0.99  # γ, per environment step
    target_rate: Number = 0.05  # τ: how much of the new critics the target takes at each gradient step
    temperature: Number = 1.0  # α, reward units per nat: the fixed one, or the first of the learned ones
    entropy_share: Number = 0.2  # h: what the learned α aims at, as a share of log A, the entropy of chance


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: ActorAndCritic
    log_temperature: Array  # log α
    target: Any  # of the critics alone
    opt_state: Any  # of the actor, of the critics, of log α
    rollout: pg.RolloutState
    replay: Any
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
    learn_temperature: bool = True,
    num_critics: int = 2,
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a discrete SAC run: a stochastic actor that is paid for its entropy, with sums over all actions.

        V'(s') = Σ_a π(a|s') (min_j Q'_j(s', a) - α log π(a|s'));   w_j <- w_j - Adam(∇ ½(Q_j(s, a) - R - Γ V'(s'))²)
        θ <- θ - Adam(∇ Σ_a π_θ(a|s) [α log π_θ(a|s) - min_j Q_j(s, a)]);   log α <- log α - Adam(α (H(π) - h log A))
        targets of the critics <- τ new + (1 - τ) targets

    A share h near 1 is hard to hold where episodes end by mistakes: entropies to come are part of Q, so that α and the
    differences of Q grow together. On CartPole-v1, α rose past 100 with h = 0.98.

    Rates and τ are larger than those of `sac`: on CartPole-v1 with rates of 0.001 and τ = 0.01 the returns of two seeds
    stayed near 200 for 40 000 steps, with h of 0.02 as of 0.6; with 0.002, 0.05 and h = 0.2 they came to 500.

    Args:
        As `sac.make_train`, but of env: it has A discrete actions; and:
        model: a Flax module, see `off_policy.as_actor_and_critic`; None takes `networks.default_actor_with_critics`.
        policy: in place of a model, policy(params.actor, obs) -> `Categorical`.
        critic: in place of a model, critic(params.critic, obs) -> [E, ..., A].

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor. Of the metrics,
        entropy_share is that of the actor on the batches, in the units of the hyper-parameter; temperature is α after
        the step.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not discrete.
        ValueError: if env has several agents, if a count is too small, or if a batch is larger than what is stored when
            learning begins.

    Properties:
        Nothing is drawn but batches and what is done. Given Q, the actor's best is exp(Q / α) / Z.

    References:
        Christodoulou (2019), Soft actor-critic for discrete action settings, algorithm 1.
        Haarnoja et al. (2018b), Soft actor-critic algorithms and applications.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    sizes = {"num_envs": num_envs, "num_steps": num_steps}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    num_actions = count_actions(env, env_params)
    functions = off_policy.as_actor_and_critic(
        env, env_params, default=lambda: default_actor_with_critics(env, env_params, num_critics=num_critics),
        model=model, policy=policy, critic=critic, init_params=init_params,
    )  # fmt: skip
    policy, critic, init_params = functions
    behaviour = off_policy.with_warmup(policy)
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip
    most = math.log(num_actions)  # the entropy of chance, nats

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, ...]:
        rates = hyper.learning_rate, hyper.critic_learning_rate, hyper.learning_rate
        return tuple(optax.flatten(optax.adam(rate)) for rate in rates)

    def collect(key: Array, state: State) -> tuple[pg.RolloutState, pg.Trajectory]:
        rollout, trajectory = pg.rollout(
            key, state.params.actor, state.rollout, env=env, env_params=env_params, num_steps=num_steps,
            policy=pg.bind(behaviour, state.update < warmup_updates),
        )  # fmt: skip
        return rollout, off_policy.stored(trajectory)

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        log_temperature = jnp.log(numbers.temperature)
        trained = (*params, log_temperature)
        opt_state = tuple(optimizer.init(x) for optimizer, x in zip(optimizers(numbers), trained, strict=True))
        zero = jnp.int32(0)
        state = State(params, log_temperature, params.critic, opt_state, rollout, None, key, zero, numbers)
        return replace(state, replay=replay.init(jax.eval_shape(collect, key, state)[1]))

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, learn_key) = state.hyper, jax.random.split(state.key, 3)
        rollout, trajectory = collect(act_key, state)
        memory = replay.add(state.replay, trajectory)
        actor_optimizer, critic_optimizer, temperature_optimizer = optimizers(hyper)
        target_entropy = hyper.entropy_share * most

        def learn(carry: Any, key: Array) -> tuple[Any, Metrics]:
            (actor, critics), log_temperature, target, (actor_opt, critic_opt, temperature_opt) = carry
            temperature = jnp.exp(log_temperature)
            batch = pg.fold(replay.sample(key, memory), discount=hyper.discount)
            next_q = pg.clipped_double_q(critic(target, batch.next_obs))
            following = policy(actor, batch.next_obs).log_probs
            y = pg.td_target(batch, pg.expected_soft_value(following, next_q, temperature=temperature))
            taken = jax.nn.one_hot(batch.action, num_actions)

            def critic_loss(critics: Any) -> tuple[Array, Array]:
                q = jnp.einsum("ena,na->en", critic(critics, batch.obs), taken)
                return pg.value_loss(q, jnp.broadcast_to(y, q.shape)).mean(-1).sum(), q.mean()

            (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
            updates, critic_opt = critic_optimizer.update(grads, critic_opt, critics)
            critics = optax.apply_updates(critics, updates)
            target = optax.incremental_update(critics, target, hyper.target_rate)

            all_q = pg.clipped_double_q(critic(critics, batch.obs))

            def actor_loss(actor: Any) -> tuple[Array, Array]:
                chosen = policy(actor, batch.obs)
                value = pg.expected_soft_value(chosen.log_probs, all_q, temperature=temperature)
                return -value.mean(), chosen.entropy()

            (objective, entropy), slope = jax.value_and_grad(actor_loss, has_aux=True)(actor)
            updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor)
            actor = optax.apply_updates(actor, updates)

            if learn_temperature:
                slope = jax.grad(lambda x: pg.temperature_loss(x, -entropy, target_entropy=target_entropy).mean())(
                    log_temperature
                )
                updates, temperature_opt = temperature_optimizer.update(slope, temperature_opt, log_temperature)
                log_temperature = optax.apply_updates(log_temperature, updates)
            metrics = {
                "loss": loss,
                "actor_loss": objective,
                "action_value": q,
                "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                "entropy_share": entropy.mean() / most,
                "temperature": jnp.exp(log_temperature),
            }
            opt_state = (actor_opt, critic_opt, temperature_opt)
            return (ActorAndCritic(actor, critics), log_temperature, target, opt_state), metrics

        (params, log_temperature, target, opt_state), metrics = off_policy.gradient_steps(
            learn,
            (state.params, state.log_temperature, state.target, state.opt_state),
            jax.random.split(learn_key, gradient_steps),
            skip=state.update < warmup_updates,
        )
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        count = state.update + 1
        return State(params, log_temperature, target, opt_state, rollout, memory, key, count, hyper), metrics

    return Recipe(init, update, num_updates, lambda params, obs: policy(params.actor, obs))
