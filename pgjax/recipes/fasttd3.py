"""FastTD3: TD3 with distributional critics, for many environments side by side. Seo et al. (2025)."""

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

    learning_rate: Number = 3e-4  # of AdamW for the actor
    critic_learning_rate: Number = 3e-4  # of AdamW for the critics
    weight_decay: Number = 0.1  # of AdamW: each step takes this share of a rate from every parameter
    discount: Number = 0.99  # γ, per environment step
    target_rate: Number = 0.1  # τ: how much of the new critics the target critics take at each gradient step
    smallest_noise: Number = 0.001  # σ of the exploration in the first environment, in half widths of the box
    largest_noise: Number = 0.4  # σ in the last one; the others lie evenly between
    noise_theta: Number = 1.0  # θ: how much the noise forgets in a step; 1 is white noise
    smoothing: Number = 0.001  # σ~ of the noise on the target's actions, in half widths of the box
    smoothing_clip: Number = 0.5  # c, where that noise is clipped, in half widths of the box
    low_value: Number = -1_500.0  # the first atom, reward units: below every discounted return
    high_value: Number = 150.0  # the last atom: above every discounted return


class Params(NamedTuple):
    """Parameters that are trained apart, and the statistics by which their observations are standardised."""

    actor: Any
    critic: Any  # of all critics
    statistics: Any  # `RunningStatistics`, or None; frozen while they act and while an update learns


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Params
    target: Any  # the target critics
    opt_state: Any  # of the actor, of the critics
    rollout: pg.RolloutState
    replay: Any
    noise: Array  # [num_envs, D], the Ornstein-Uhlenbeck process
    key: Array
    update: Array  # int32, updates done
    num_learned: Array  # int32, gradient steps done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 1,
    total_steps: int = 100_000,
    gradient_steps: int = 4,
    batch_size: int = 1_024,
    capacity: int = 100_000,
    warmup: int = 1_000,
    window: int = 1,
    policy_delay: int = 2,
    num_critics: int = 2,
    num_atoms: int = 101,
    normalize_observations: bool = True,
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a FastTD3 run: TD3 with the distributional critics of D4PG, large batches and environments of unlike noise.

        a_b = clip(μ(s_b) + σ_b ε),   σ_b evenly from the smallest to the largest noise over the environments b
        a~ = clip(μ(s') + clip(σ~ ε, -c, c));   p' of the target critic whose mean at (s', a~) is the least
        m = projection of R + Γ z onto z;   w_j <- w_j - AdamW(∇ -Σ_i m_i log p_ji(s, a)),   w' <- τ w + (1 - τ) w'
        every policy_delay steps: θ <- θ + AdamW(∇ min_j Σ_i z_i p_ji(s, μ_θ(s)))

    There is no target actor: the actor that is trained chooses a~. The published code draws σ_b anew, uniformly, at the
    start of each episode; here each environment keeps its own. The atoms z must hold the discounted returns, see
    `d4pg.make_train`, and the metric `end_mass` tells where they do not. `episode_return` is that of all environments
    with their noise, of which the last half explores widely: ``pg.evaluate`` plays the policy.

    The sizes are such that a CPU need not wait long. On an accelerator the paper takes 128 to 4096 environments, 2
    gradient steps for each step of all of them, batches of 32 768, and networks of some hundred to a thousand units.

    Args:
        As `td3.make_train`; and:
        num_envs: environments side by side, each with a noise of its own.
        num_atoms: K, atoms of each critic.
        normalize_observations: standardise observations by running statistics, which travel in `state.params`. The
            replay keeps them as they came.
        critic: in place of a model, critic(params.critic, obs, action) -> [E, ..., K], the logits of the atoms.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, if the box is not bounded, if a batch is larger
            than what is stored when learning begins, or if the critics give other than K logits.

    Properties:
        With many atoms, a critic whose logits are those of a normal of unit variance around a number, one scale of
        noise, no weight decay and observations as they come, it is `td3` with policy_delay 1 wherever a target actor
        makes no difference: with target_rate 1, and with learning_rate 0.

    References:
        Seo, Sferrazza, Geng, Nauman, Yin and Abbeel (2025), FastTD3: simple, fast, and capable reinforcement learning
        for humanoid control.
        Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    policy_delay = _checks.as_positive_int("policy_delay", policy_delay)
    num_atoms = _checks.as_positive_int("num_atoms", num_atoms, at_least=2)
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "window": window}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    low, high = (jnp.asarray(bound) for bound in action_box(env, env_params))
    functions = off_policy.as_actor_and_critic(
        env, env_params, model=model, policy=policy, critic=critic, init_params=init_params,
        default=lambda: default_actor_with_critics(
            env, env_params, num_critics=num_critics, num_outputs=num_atoms),
    )  # fmt: skip
    network, critic, init_params = functions
    spread = pg.exploration.spread_of_scales(num_envs, smallest=0.0, largest=1.0)
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size, num_steps=window,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip

    def seen(statistics: Any, obs: Any) -> Any:
        return pg.envs.normalize(statistics, obs) if normalize_observations else obs

    def standardized(params: Params, obs: Any) -> Any:
        return network(params.actor, seen(params.statistics, obs))

    behaviour = off_policy.with_noise(standardized, low, high)

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        rates = hyper.learning_rate, hyper.critic_learning_rate
        return tuple(  # type: ignore[return-value]
            optax.flatten(optax.adamw(rate, weight_decay=hyper.weight_decay)) for rate in rates
        )

    def collect(key: Array, state: State) -> tuple[pg.RolloutState, pg.Trajectory, Array]:
        hyper, (noise_key, act_key) = state.hyper, jax.random.split(key)
        process, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=num_steps, theta=hyper.noise_theta
        )
        scale = hyper.smallest_noise + (hyper.largest_noise - hyper.smallest_noise) * spread
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, env=env, env_params=env_params, num_steps=num_steps,
            policy=pg.bind(behaviour, (state.update < warmup_updates, scale)), noise=noise,
        )  # fmt: skip
        return rollout, off_policy.stored(trajectory), process

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, noise_key, key = jax.random.split(key, 4)
        zero = jnp.int32(0)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        first = jax.tree.map(lambda x: x[0], rollout.obs)
        statistics = pg.envs.init_statistics(first) if normalize_observations else None
        networks = init_params(model_key, seen(statistics, rollout.obs))
        numbers = traced(Hyper, hyper, networks)
        opt_state = tuple(optimizer.init(x) for optimizer, x in zip(optimizers(numbers), networks, strict=True))
        params = Params(networks.actor, networks.critic, statistics)
        process = jax.random.normal(noise_key, (num_envs, *low.shape))
        state = State(params, params.critic, opt_state, rollout, None, process, key, zero, zero, numbers)
        return replace(state, replay=replay.init(jax.eval_shape(collect, key, state)[1]))

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, learn_key) = state.hyper, jax.random.split(state.key, 3)
        rollout, trajectory, process = collect(act_key, state)
        memory = replay.add(state.replay, trajectory)
        actor_optimizer, critic_optimizer = optimizers(hyper)
        atoms = jnp.linspace(hyper.low_value, hyper.high_value, num_atoms)
        statistics = state.params.statistics

        def learn(carry: Any, keys: Array) -> tuple[Any, Metrics]:
            (actor, critics), target, (actor_opt, critic_opt), count = carry
            batch = pg.fold(replay.sample(keys[0], memory), discount=hyper.discount)
            obs, next_obs = seen(statistics, batch.obs), seen(statistics, batch.next_obs)
            next_action = pg.exploration.smooth_action(
                keys[1], network(actor, next_obs).mode(), scale=hyper.smoothing, clip=hyper.smoothing_clip,
                low=low, high=high,
            )  # fmt: skip
            next_logits = critic(target, next_obs, next_action)
            least = jnp.argmin(pg.categorical_value(next_logits, atoms=atoms), axis=0)
            next_probs = jnp.take_along_axis(jax.nn.softmax(next_logits), least[None, ..., None], axis=0)[0]
            m = pg.categorical_target(batch, next_probs, atoms=atoms)

            def critic_loss(critics: Any) -> tuple[Array, Array]:
                logits = critic(critics, obs, batch.action)
                return pg.categorical_loss(logits, m).mean(-1).sum(), logits

            (loss, logits), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
            updates, critic_opt = critic_optimizer.update(grads, critic_opt, critics)
            critics = optax.apply_updates(critics, updates)
            target = optax.incremental_update(critics, target, hyper.target_rate)

            def actor_loss(actor: Any) -> Array:
                logits = critic(critics, obs, network(actor, obs).mode())
                return -pg.categorical_value(logits, atoms=atoms).min(0).mean()

            def follow(actor: Any, actor_opt: Any) -> Any:
                objective, slope = jax.value_and_grad(actor_loss)(actor)
                updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor)
                return optax.apply_updates(actor, updates), actor_opt, objective

            def wait(actor: Any, actor_opt: Any) -> Any:
                return actor, actor_opt, actor_loss(actor)

            count = count + 1
            actor, actor_opt, objective = jax.lax.cond(count % policy_delay == 0, follow, wait, actor, actor_opt)
            metrics = {
                "loss": loss,
                "actor_loss": objective,
                "action_value": pg.categorical_value(logits, atoms=atoms).mean(),
                "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                "end_mass": jax.nn.softmax(logits)[..., jnp.array([0, -1])].sum(-1).mean(),
            }
            return (ActorAndCritic(actor, critics), target, (actor_opt, critic_opt), count), metrics

        (networks, target, opt_state, count), metrics = off_policy.gradient_steps(
            learn,
            (ActorAndCritic(state.params.actor, state.params.critic), state.target, state.opt_state, state.num_learned),
            jax.random.split(learn_key, (2, gradient_steps)).T,
            skip=state.update < warmup_updates,
        )
        if normalize_observations:  # only now: those that acted were those that learned
            statistics = pg.envs.update_statistics(statistics, trajectory.obs)
        params = Params(networks.actor, networks.critic, statistics)
        metrics |= {"num_nonfinite": jnp.sum(~jnp.isfinite(trajectory.reward))} | episode_metrics(rollout)
        return State(params, target, opt_state, rollout, memory, process, key, state.update + 1, count, hyper), metrics

    return Recipe(init, update, num_updates, standardized)
