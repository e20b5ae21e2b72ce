"""Deep deterministic policy gradient. Lillicrap et al. (2016), algorithm 1."""

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

    learning_rate: Number = 1e-3  # of Adam for the actor
    critic_learning_rate: Number = 1e-3  # of Adam for the critic
    discount: Number = 0.99  # γ, per environment step
    target_rate: Number = 0.005  # τ: how much of the new parameters the targets take at each gradient step
    noise: Number = 0.1  # σ of the exploration, in half widths of the box of actions
    noise_theta: Number = 1.0  # θ: how much the noise forgets in a step; 1 is white noise, 0.15 that of the paper


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: ActorAndCritic
    target: ActorAndCritic
    opt_state: Any  # of the actor, of the critic
    rollout: pg.RolloutState
    replay: Any
    noise: Array  # [num_envs, D], the Ornstein-Uhlenbeck process
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
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a DDPG run: a critic by temporal differences from a replay, an actor that follows the critic's slope.

        y = R + Γ Q'(s', μ'(s'));   w <- w - Adam(∇ ½(Q(s, a) - y)²);   θ <- θ + Adam(∇ Q(s, μ_θ(s)))
        targets <- τ new + (1 - τ) targets

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
        window: n of n-step targets, uncorrected for the policy's change; 1 is the paper's.
        model: a Flax module, see `off_policy.as_actor_and_critic`; None takes `networks.default_actor_with_critics`.
        policy: in place of a model, policy(params.actor, obs) -> distribution, whose mode acts.
        critic: in place of a model, critic(params.critic, obs, action) -> [1, ...].
        init_params: in place of a model, init_params(key, obs) -> (actor, critic).

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, if the box is not bounded, or if a batch is
            larger than what is stored when learning begins.

    References:
        Lillicrap et al. (2016), Continuous control with deep reinforcement learning, algorithm 1.
        Silver et al. (2014), Deterministic policy gradient algorithms.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "window": window}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    low, high = (jnp.asarray(bound) for bound in action_box(env, env_params))
    functions = off_policy.as_actor_and_critic(
        env, env_params, default=lambda: default_actor_with_critics(env, env_params, num_critics=1),
        model=model, policy=policy, critic=critic, init_params=init_params,
    )  # fmt: skip
    policy, critic, init_params = functions
    behaviour = off_policy.with_noise(policy, low, high)
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size, num_steps=window,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip

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
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        opt_state = tuple(optimizer.init(x) for optimizer, x in zip(optimizers(numbers), params, strict=True))
        process = jax.random.normal(noise_key, (num_envs, *low.shape))
        state = State(params, params, opt_state, rollout, None, process, key, jnp.int32(0), numbers)
        return replace(state, replay=replay.init(jax.eval_shape(collect, key, state)[1]))

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, learn_key) = state.hyper, jax.random.split(state.key, 3)
        rollout, trajectory, process = collect(act_key, state)
        memory = replay.add(state.replay, trajectory)
        actor_optimizer, critic_optimizer = optimizers(hyper)

        def learn(carry: Any, key: Array) -> tuple[Any, Metrics]:
            (actor, critics), target, (actor_opt, critic_opt) = carry
            batch = pg.fold(replay.sample(key, memory), discount=hyper.discount)
            next_action = policy(target.actor, batch.next_obs).mode()
            y = pg.td_target(batch, critic(target.critic, batch.next_obs, next_action)[0])

            def critic_loss(critics: Any) -> tuple[Array, Array]:
                q = critic(critics, batch.obs, batch.action)[0]
                return pg.value_loss(q, y).mean(), q.mean()

            (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
            updates, critic_opt = critic_optimizer.update(grads, critic_opt, critics)
            critics = optax.apply_updates(critics, updates)

            def actor_loss(actor: Any) -> Array:
                return -critic(critics, batch.obs, policy(actor, batch.obs).mode())[0].mean()

            objective, slope = jax.value_and_grad(actor_loss)(actor)
            updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor)
            params = ActorAndCritic(optax.apply_updates(actor, updates), critics)
            target = optax.incremental_update(params, target, hyper.target_rate)
            metrics = {
                "loss": loss,
                "actor_loss": objective,
                "action_value": q,
                "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
            }
            return (params, target, (actor_opt, critic_opt)), metrics

        (params, target, opt_state), metrics = off_policy.gradient_steps(
            learn,
            (state.params, state.target, state.opt_state),
            jax.random.split(learn_key, gradient_steps),
            skip=state.update < warmup_updates,
        )
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        return State(params, target, opt_state, rollout, memory, process, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, lambda params, obs: policy(params.actor, obs))
