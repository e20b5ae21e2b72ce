"""MADDPG whose agents do not know each other's policies and infer them. Lowe et al. (2017), section 4.2."""

from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.networks import action_box, default_actor_critic, default_actor_with_critics
from pgjax.recipes import off_policy
from pgjax.recipes.acting import checked_init, require_functions
from pgjax.recipes.agents import axes_of, require_agents
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam for the actors
    critic_learning_rate: Number = 1e-3  # of Adam for the critics
    guess_learning_rate: Number = 1e-3  # of Adam for what agents think of each other
    entropy_coef: Number = 1e-3  # λ: how much the entropy of a guess counts beside the log-probability
    discount: Number = 0.95  # γ, per environment step
    target_rate: Number = 0.01  # τ: how much of the new parameters the targets take at each gradient step
    noise: Number = 0.1  # σ of the exploration, in half widths of the box of actions
    noise_theta: Number = 1.0  # θ: how much the noise forgets in a step; 1 is white noise


class WithGuesses(NamedTuple):
    """Parameters that are trained apart."""

    actor: Any  # leaves [A, ...]
    critic: Any  # leaves [A, ...]
    guess: Any  # leaves [A, A - 1, ...]: row i holds what agent i thinks of the others, in their order


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: WithGuesses
    target: WithGuesses
    opt_state: Any  # of the actors, of the critics, of the guesses
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
    model: Any = None,
    guess_model: Any = None,
    policy: Any = None,
    critic: Any = None,
    guess: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a MADDPG run in which each agent learns what the others do from watching them.

        φ_ij <- φ_ij - Adam(∇ -mean(log μ̂_ij(a_j|o_j) + λ H(μ̂_ij(·|o_j))))   over the newest window, before the critic
        y_i = R_i + Γ_i Q'_i(x', μ̂'_i1(o'_1), ..., μ'_i(o'_i), ..., μ̂'_iA(o'_A))
        critics, actors and targets as in `maddpg.make_train`, the guesses with targets of their own

    Where MADDPG needs the target policies of all agents to train the critic of one, this needs their observations and
    actions only. What agent i thinks of agent j is a distribution, whose mode stands for the other's action.

    Args:
        As `maddpg.make_train`, but for centralized; and:
        guess_model: a Flax module for one guess with the method `policy(obs)`, of what the other sees, to a
            distribution with an entropy; None takes a normal of `networks.default_actor_critic`.
        guess: in place of a model, guess(guess_ij, obs) -> distribution.
        init_params: in place of a model, init_params(key, obs) -> (actor, critic, guess) of all agents, leaves [A, ...]
            and of the guesses [A, A - 1, ...].

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]), each metric the mean over agents, among them
        `guess_loss`, and `guess_error`, the squared distance of a guessed action from that of the other's actor; its
        policy is that of all actors without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has no axis of two or more agents or parameters lack it, if a count is too small, if the box
            is not bounded, or if a batch is larger than what is stored when learning begins.

    Properties:
        Guesses that are right, with their targets, make it MADDPG.

    References:
        Lowe, Wu, Tamar, Harb, Abbeel and Mordatch (2017), Multi-agent actor-critic for mixed cooperative-competitive
        environments, section 4.2.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    gradient_steps = _checks.as_positive_int("gradient_steps", gradient_steps)
    sizes = {"num_envs": num_envs, "num_steps": num_steps, "window": window}
    warmup_updates = off_policy.count_warmup(warmup, batch_size, capacity, **sizes)
    num_agents, num_obs_axes = axes_of(env, env_params)
    if num_agents < 2:
        raise ValueError("env.agents is (1,): there is nobody to infer. Take maddpg, or ddpg for one agent.")
    others = jnp.array([[j for j in range(num_agents) if j != i] for i in range(num_agents)])
    low, high = action_box(env, env_params)
    given = {"policy": policy, "critic": critic, "guess": guess, "init_params": init_params}
    if all(x is None for x in given.values()):
        each, critic, guess, init_params = _of_models(env, env_params, model, guess_model, others.shape)
    else:
        require_functions(model if model is not None else guess_model, given)
        each, init_params = policy, checked_init(init_params)
    replay = pg.replay.make_replay(
        num_envs=num_envs, capacity=capacity, batch_size=batch_size, num_steps=window,
        obs_dtype=pg.envs.observation_dtype(env, env_params),
    )  # fmt: skip

    def policy_of_all(params: Any, obs: Any, *_: Any) -> pg.exploration.Deterministic:
        axis = jax.tree.leaves(obs)[0].ndim - num_obs_axes
        mode = jax.vmap(lambda actor, own: each(actor, own).mode(), in_axes=(0, axis), out_axes=axis)
        return pg.exploration.Deterministic(mode(params, obs))

    def of_agent_alone(obs: Any, j: Array) -> Any:
        return jax.tree.map(lambda x: x[:, j], obs)

    def guessed(guess_ij: Any, obs: Any, j: Array) -> Array:
        mode = guess(guess_ij, of_agent_alone(obs, j)).mode()
        return jnp.clip(mode, jnp.broadcast_to(low, mode.shape), jnp.broadcast_to(high, mode.shape))

    behaviour = off_policy.with_noise(policy_of_all, low, high)

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, ...]:
        rates = hyper.learning_rate, hyper.critic_learning_rate, hyper.guess_learning_rate
        return tuple(optax.flatten(optax.adam(rate)) for rate in rates)

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
        params = WithGuesses(*init_params(model_key, rollout.obs))
        require_agents(params, num_agents)
        require_agents(params.guess, *others.shape)
        numbers = traced(Hyper, hyper, params)
        of_actor, of_critic, of_guess = optimizers(numbers)
        opt_state = (
            jax.vmap(of_actor.init)(params.actor),
            jax.vmap(of_critic.init)(params.critic),
            jax.vmap(jax.vmap(of_guess.init))(params.guess),
        )
        process = jax.random.normal(noise_key, (num_envs, num_agents, *low.shape))
        state = State(params, params, opt_state, rollout, None, process, key, jnp.int32(0), numbers)
        return replace(state, replay=replay.init(jax.eval_shape(collect, key, state)[1]))

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key, learn_key) = state.hyper, jax.random.split(state.key, 3)
        rollout, trajectory, process = collect(act_key, state)
        memory = replay.add(state.replay, trajectory)
        newest = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (trajectory.obs, trajectory.action))
        actor_optimizer, critic_optimizer, guess_optimizer = optimizers(hyper)

        def learn(carry: Any, key: Array) -> tuple[Any, Metrics]:
            params, target, opt_state = carry
            batch = pg.fold(replay.sample(key, memory), discount=hyper.discount)
            next_action = policy_of_all(target.actor, batch.next_obs).mode()
            true_action = policy_of_all(params.actor, newest[0]).mode()

            def infer(guess_ij: Any, opt_state: Any, j: Array) -> tuple[Any, Any, Metrics]:
                def guess_loss(guess_ij: Any) -> Array:
                    distribution = guess(guess_ij, of_agent_alone(newest[0], j))
                    log_prob, entropy = distribution.log_prob(newest[1][:, j]), distribution.entropy()
                    return pg.policy_inference_loss(log_prob, entropy, coefficient=hyper.entropy_coef).mean()

                loss, slope = jax.value_and_grad(guess_loss)(guess_ij)
                error = jnp.square(guessed(guess_ij, newest[0], j) - true_action[:, j]).sum(-1).mean()
                updates, opt_state = guess_optimizer.update(slope, opt_state, guess_ij)
                return optax.apply_updates(guess_ij, updates), opt_state, {"guess_loss": loss, "guess_error": error}

            def of_agent(
                i: Array, them: Array, reward: Array, weight: Array, params: Any, target: Any, opt_state: Any
            ) -> tuple[Any, Any, Metrics]:
                (actor_i, critic_i, guess_i), (actor_opt, critic_opt, guess_opt) = params, opt_state
                guess_i, guess_opt, inferred = jax.vmap(infer)(guess_i, guess_opt, them)
                theirs = jax.vmap(guessed, in_axes=(0, None, 0), out_axes=1)(target.guess, batch.next_obs, them)
                own = batch.replace(reward=reward, discount=weight)
                following = next_action.at[:, them].set(theirs)
                y = pg.td_target(own, critic(target.critic, batch.next_obs, following)[0])

                def critic_loss(critic_i: Any) -> tuple[Array, Array]:
                    q = critic(critic_i, batch.obs, batch.action)[0]
                    return pg.value_loss(q, y).mean(), q.mean()

                (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critic_i)
                updates, critic_opt = critic_optimizer.update(grads, critic_opt, critic_i)
                critic_i = optax.apply_updates(critic_i, updates)

                def actor_loss(actor_i: Any) -> Array:
                    fresh = each(actor_i, of_agent_alone(batch.obs, i)).mode()
                    return -critic(critic_i, batch.obs, batch.action.at[:, i].set(fresh))[0].mean()

                objective, slope = jax.value_and_grad(actor_loss)(actor_i)
                updates, actor_opt = actor_optimizer.update(slope, actor_opt, actor_i)
                metrics = {
                    "loss": loss,
                    "actor_loss": objective,
                    "action_value": q,
                    "grad_norm": jnp.linalg.norm(ravel_pytree(grads)[0]),
                } | jax.tree.map(jnp.mean, inferred)
                params = WithGuesses(optax.apply_updates(actor_i, updates), critic_i, guess_i)
                return params, (actor_opt, critic_opt, guess_opt), metrics

            params, opt_state, metrics = jax.vmap(of_agent, in_axes=(0, 0, 1, 1, 0, 0, 0))(
                jnp.arange(num_agents), others, batch.reward, batch.discount, params, target, opt_state
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


def _of_models(env: Any, env_params: Any, model: Any, guess_model: Any, lead: tuple[int, ...]) -> tuple[Any, ...]:
    """The functions of Flax modules: policy, critic, guess, init_params."""
    policy, critic, init_each = off_policy.as_actor_and_critic(
        env, env_params, model=model,
        default=lambda: default_actor_with_critics(env, env_params, num_critics=1, joint=True),
    )  # fmt: skip
    if guess_model is None:
        guess_model = default_actor_critic(env, env_params, head="normal", features=(128, 128), activation=nn.relu)
    elif not callable(getattr(guess_model, "policy", None)):
        raise TypeError(f"guess_model must be a Flax module with the method policy, got {type(guess_model).__name__}.")

    def init(key: Array, obs: Any) -> WithGuesses:
        key, guess_key = jax.random.split(key)
        params = jax.vmap(init_each, in_axes=(0, None))(jax.random.split(key, lead[0]), obs)
        init_guess = lambda key: guess_model.init(key, obs, method="policy")  # noqa: E731
        return WithGuesses(*params, jax.vmap(jax.vmap(init_guess))(jax.random.split(guess_key, lead)))

    return policy, critic, lambda params, obs: guess_model.apply(params, obs, method="policy"), init
