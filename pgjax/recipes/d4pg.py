"""Distributed distributional deterministic policy gradient, D4PG. Barth-Maron et al. (2018), algorithm 1."""

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
    noise: Number = 0.2  # σ of the exploration, in half widths of the box of actions
    noise_theta: Number = 1.0  # θ: how much the noise forgets in a step; 1 is white noise
    low_value: Number = -1_500.0  # the first atom, reward units: below every discounted return
    high_value: Number = 150.0  # the last atom: above every discounted return
    importance_exponent: Number = 1.0  # β: how much of the prioritised draw the weights of the loss undo; 1 is all


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
    num_envs: int = 32,
    num_steps: int = 1,
    total_steps: int = 50_000,
    gradient_steps: int = 8,
    batch_size: int = 128,
    capacity: int = 100_000,
    warmup: int = 1_000,
    window: int = 5,
    num_atoms: int = 51,
    prioritized: bool = True,
    priority_exponent: float = 0.6,
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a D4PG run: DDPG with a critic of the distribution of returns, n-step targets and prioritised replay.

        m = projection of R + Γ z onto z, with the probabilities p' of the target critic at (s', μ'(s'))
        w <- w - Adam(∇ ω · -Σ_i m_i log p_i(s, a)),   ω = (1 / (M P))^β of the row, over the greatest of the batch
        θ <- θ + Adam(∇ Σ_i z_i p_i(s, μ_θ(s)));   targets <- τ new + (1 - τ) targets

    The atoms z lie evenly from `low_value` to `high_value` and must hold the discounted returns: a reward of r at every
    step is worth r / (1 - γ). The defaults are those of Pendulum-v1, whose returns are negative. The metric `end_mass`,
    the probability that the critic gives to the first and the last atom, stays near 0 where they hold; where it does
    not, move the ends apart, and where `action_value` fills a small part of the interval, together.

    Where the paper copies the targets after a number of steps, they move a little at each; its actor learns from the
    critic before the step, here from the critic after it, as in `ddpg`.

    Args:
        As `ddpg.make_train`; and:
        num_envs: environments side by side: the paper's actors, 32 or 64 of them.
        window: n of n-step targets, uncorrected for the policy's change; 5 is the paper's.
        num_atoms: K, atoms of the critic.
        prioritized: draw windows in proportion to a power of the loss they had when they were last drawn; False draws
            uniformly, and all weights are 1.
        priority_exponent: that power, α in [0, 1].
        critic: in place of a model, critic(params.critic, obs, action) -> [1, ..., K], the logits of the atoms.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, if the box is not bounded, if a batch is larger
            than what is stored when learning begins, or if the critic gives other than K logits.

    Properties:
        With window 1, a uniform replay, many atoms, and a critic whose logits are those of a normal of unit variance
        around a number, it is DDPG with that number as its critic.

    References:
        Barth-Maron et al. (2018), Distributed distributional deterministic policy gradients, algorithm 1.
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
        Schaul et al. (2016), Prioritized experience replay.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    num_atoms = _checks.as_positive_int("num_atoms", num_atoms, at_least=2)
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "window": window}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    low, high = action_box(env, env_params)
    functions = off_policy.as_actor_and_critic(
        env, env_params, model=model, policy=policy, critic=critic, init_params=init_params,
        default=lambda: default_actor_with_critics(env, env_params, num_critics=1, num_outputs=num_atoms),
    )  # fmt: skip
    policy, critic, init_params = functions
    behaviour = off_policy.with_noise(policy, low, high)
    layout = {"num_envs": num_envs, "capacity": capacity, "batch_size": batch_size, "num_steps": window}
    layout["obs_dtype"] = pg.envs.observation_dtype(env, env_params)
    replay: Any = (
        pg.replay.make_prioritized_replay(**layout, exponent=priority_exponent)
        if prioritized
        else pg.replay.make_replay(**layout)
    )

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

    def of_rows(memory: Any) -> dict[str, Array]:
        """What a gradient step changes of the replay: the rows themselves stay out of the loop."""
        return {"node": memory.node, "greatest": memory.greatest} if prioritized else {}

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
        atoms = jnp.linspace(hyper.low_value, hyper.high_value, num_atoms)

        def learn(carry: Any, key: Array) -> tuple[Any, Metrics]:
            (actor, critics), target, (actor_opt, critic_opt), priorities = carry
            if prioritized:
                drawn = replay.sample(key, memory.replace(**priorities), hyper.importance_exponent)
                rows, weight = drawn.window, drawn.weight
            else:
                rows, weight = replay.sample(key, memory), jnp.ones(batch_size)
            batch = pg.fold(rows, discount=hyper.discount)
            next_action = policy(target.actor, batch.next_obs).mode()
            next_probs = jax.nn.softmax(critic(target.critic, batch.next_obs, next_action)[0])
            m = pg.categorical_target(batch, next_probs, atoms=atoms)

            def critic_loss(critics: Any) -> tuple[Array, tuple[Array, Array]]:
                logits = critic(critics, batch.obs, batch.action)[0]
                each = pg.categorical_loss(logits, m)
                return (weight * each).mean(), (each, logits)

            (loss, (each, logits)), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
            updates, critic_opt = critic_optimizer.update(grads, critic_opt, critics)
            critics = optax.apply_updates(critics, updates)

            def actor_loss(actor: Any) -> Array:
                logits = critic(critics, batch.obs, policy(actor, batch.obs).mode())[0]
                return -pg.categorical_value(logits, atoms=atoms).mean()

            objective, slope = jax.value_and_grad(actor_loss)(actor)
            updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor)
            params = ActorAndCritic(optax.apply_updates(actor, updates), critics)
            target = optax.incremental_update(params, target, hyper.target_rate)
            if prioritized:
                priorities = of_rows(replay.update(memory.replace(**priorities), drawn.rows, each))
            metrics = {
                "loss": loss,
                "actor_loss": objective,
                "action_value": pg.categorical_value(logits, atoms=atoms).mean(),
                "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                "end_mass": jax.nn.softmax(logits)[..., jnp.array([0, -1])].sum(-1).mean(),
            }
            return (params, target, (actor_opt, critic_opt), priorities), metrics

        (params, target, opt_state, priorities), metrics = off_policy.gradient_steps(
            learn,
            (state.params, state.target, state.opt_state, of_rows(memory)),
            jax.random.split(learn_key, gradient_steps),
            skip=state.update < warmup_updates,
        )
        memory = memory.replace(**priorities)
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        return State(params, target, opt_state, rollout, memory, process, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, lambda params, obs: policy(params.actor, obs))
