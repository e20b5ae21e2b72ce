"""Soft actor-critic with actions in a box. Haarnoja et al. (2018b), algorithm 1."""

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
from pgjax.recipes.agents import require_one_agent
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.off_policy import ActorAndCritic
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam for the actor, and for log α
    critic_learning_rate: Number = 1e-3  # of Adam for the critics
    discount: Number = 0.99  # γ, per environment step
    target_rate: Number = 0.005  # τ: how much of the new critics the target takes at each gradient step
    temperature: Number = 1.0  # α, reward units per nat: the fixed one, or the first of the learned ones
    entropy_per_action: Number = -1.0  # H: what the learned α aims at, nats a component, in half widths of the box


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
    """Make a SAC run: a stochastic actor that is paid for its entropy, critics from a replay that count it.

        y = R + Γ (min_j Q'_j(s', a') - α log π(a'|s'));   w_j <- w_j - Adam(∇ ½(Q_j(s, a) - y)²);   a' ~ π(s')
        θ <- θ - Adam(∇ [α log π(a_θ|s) - min_j Q_j(s, a_θ)]);   log α <- log α - Adam(-α (log π(a_θ|s) + H_total))
        targets of the critics <- τ new + (1 - τ) targets

    The target H_total = Σ_i (H + log h_i) with half widths h_i: α does not feel in which units actions are written, as
    a density in action units is that in half widths of the box divided by Π h_i. In [-2, 2] with H = -1 it is -0.31.
    Chance has H = log 2; above that nothing reaches the target, and α grows without end.

    The α of a gradient step is the same in all three losses. Targets are those of one step: over more of them the
    entropies in between would be missing.

    Args:
        env: the environment, with actions in a bounded box; gymnax >= 1.0 or of the same form.
        env_params: its parameters, see `init_rollout`.
        num_envs: environments side by side.
        num_steps: environment steps of each in one update.
        total_steps: environment steps of the run over all environments; a remainder is left out.
        gradient_steps: gradient steps in one update: their ratio to num_envs * num_steps is the replay ratio.
        batch_size: rows of the batch of each gradient step, drawn uniformly from the replay.
        capacity: rows that the replay holds over all environments; the oldest are overwritten.
        warmup: environment steps at the start with actions drawn uniformly, and nothing learned.
        learn_temperature: whether α is learned, from the hyper-parameter temperature on; else it stays that.
        num_critics: critics of the default network; the least of all that there are is what counts.
        model: a Flax module, see `off_policy.as_actor_and_critic`; None takes `networks.default_actor_with_critics`
            with a `TanhNormal`.
        policy: in place of a model, policy(params.actor, obs) -> a distribution of this library whose actions are
            differentiable in its parameters and stay in the box.
        critic: in place of a model, critic(params.critic, obs, action) -> [E, ...].
        init_params: in place of a model, init_params(key, obs) -> (actor, critic).

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor. Of the metrics,
        entropy_per_action is that of the actor on the batches, in the units of the hyper-parameter; temperature is α
        after the step.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, if the box is not bounded, or if a batch is
            larger than what is stored when learning begins.

    Properties:
        A temperature of 0 stays 0, and then it is DDPG with the actor's own noise and without a target of the actor.

    References:
        Haarnoja, Zhou, Abbeel and Levine (2018), Soft actor-critic: off-policy maximum entropy deep reinforcement
        learning with a stochastic actor.
        Haarnoja et al. (2018b), Soft actor-critic algorithms and applications, algorithm 1.
        Fujimoto, van Hoof and Meger (2018), Addressing function approximation error in actor-critic methods, on the
        least of two critics.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    sizes = {"num_envs": num_envs, "num_steps": num_steps}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    low, high = action_box(env, env_params)
    functions = off_policy.as_actor_and_critic(
        env, env_params,
        default=lambda: default_actor_with_critics(env, env_params, head="tanh_normal", num_critics=num_critics),
        model=model, policy=policy, critic=critic, init_params=init_params,
    )  # fmt: skip
    policy, critic, init_params = functions
    behaviour = off_policy.with_warmup(policy, low, high)
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip
    # An entropy in half widths of the box, summed over components, and the same in action units differ by this.
    log_half_widths = jnp.log(0.5 * (high - low)).sum()

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
        target_entropy = low.size * hyper.entropy_per_action + log_half_widths

        def learn(carry: Any, keys: Array) -> tuple[Any, Metrics]:
            (actor, critics), log_temperature, target, (actor_opt, critic_opt, temperature_opt) = carry
            temperature = jnp.exp(log_temperature)
            batch = pg.fold(replay.sample(keys[0], memory), discount=hyper.discount)
            next_action, _, next_log_prob = pg.sample_action(policy(actor, batch.next_obs), keys[1])
            next_q = pg.clipped_double_q(critic(target, batch.next_obs, next_action))
            y = pg.td_target(batch, pg.soft_value(next_q, next_log_prob, temperature=temperature))

            def critic_loss(critics: Any) -> tuple[Array, Array]:
                q = critic(critics, batch.obs, batch.action)
                return pg.value_loss(q, jnp.broadcast_to(y, q.shape)).mean(-1).sum(), q.mean()

            (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
            updates, critic_opt = critic_optimizer.update(grads, critic_opt, critics)
            critics = optax.apply_updates(critics, updates)
            target = optax.incremental_update(critics, target, hyper.target_rate)

            def actor_loss(actor: Any) -> tuple[Array, Array]:
                action, _, log_prob = pg.sample_action(policy(actor, batch.obs), keys[2])
                q = pg.clipped_double_q(critic(critics, batch.obs, action))
                return pg.soft_policy_loss(q, log_prob, temperature=temperature).mean(), log_prob

            (objective, log_prob), slope = jax.value_and_grad(actor_loss, has_aux=True)(actor)
            updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor)
            actor = optax.apply_updates(actor, updates)

            if learn_temperature:
                slope = jax.grad(lambda x: pg.temperature_loss(x, log_prob, target_entropy=target_entropy).mean())(
                    log_temperature
                )
                updates, temperature_opt = temperature_optimizer.update(slope, temperature_opt, log_temperature)
                log_temperature = optax.apply_updates(log_temperature, updates)
            metrics = {
                "loss": loss,
                "actor_loss": objective,
                "action_value": q,
                "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                "entropy_per_action": (-log_prob.mean() - log_half_widths) / low.size,
                "temperature": jnp.exp(log_temperature),
            }
            opt_state = (actor_opt, critic_opt, temperature_opt)
            return (ActorAndCritic(actor, critics), log_temperature, target, opt_state), metrics

        (params, log_temperature, target, opt_state), metrics = off_policy.gradient_steps(
            learn,
            (state.params, state.log_temperature, state.target, state.opt_state),
            jax.random.split(learn_key, (3, gradient_steps)).T,
            skip=state.update < warmup_updates,
        )
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        count = state.update + 1
        return State(params, log_temperature, target, opt_state, rollout, memory, key, count, hyper), metrics

    return Recipe(init, update, num_updates, lambda params, obs: policy(params.actor, obs))
