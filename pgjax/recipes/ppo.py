"""Proximal policy optimisation. Schulman, Wolski, Dhariwal, Radford and Klimov (2017), algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax.estimators.terms import values_and_next
from pgjax.recipes.acting import as_functions, normalized, swap_time
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.minibatches import minibatch_step, ratio_metrics
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    clip: Number = 0.2  # ε of the ratio
    value_clip: Number | None = None  # reward units that a value may move while a rollout is used; None sets no bound
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy
    max_grad_norm: Number = 0.5  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # with normalize_observations a `Normalized`: the network's, and the statistics that act
    opt_state: Any
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 32,
    total_steps: int = 1_000_000,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make a PPO run: rollout, generalised advantage, epochs over shuffled minibatches of the clipped objective.

        minimise mean of -min(ρ A, clip(ρ, 1-ε, 1+ε) A) + c_v ½ (V - A - v)² - c_e H,   ρ = π(a|s) / π_old(a|s)

    Args:
        As `a2c.make_train`, and:
        num_epochs: passes over each rollout.
        num_minibatches: minibatches in each pass; must divide num_envs * num_steps. With a recurrent policy whole
            sequences are kept, the environments alone are shuffled, and it must divide num_envs.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]).
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions
    recurrent = policy_state is not None
    require_divisor("num_minibatches", num_minibatches, num_envs * (1 if recurrent else num_steps))

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        return State(params, optimizer(numbers, 0.0).init(params), rollout, scale, key, jnp.int32(0), numbers)

    def loss(params: Any, minibatch: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, advantage, old_value = swap_time(data) if recurrent else data
        each, metrics = pg.ppo_objective(
            params, trajectory, policy=policy, value=value, advantage=pg.standardize(advantage),
            value_target=advantage + old_value, old_value=old_value, clip=hyper.clip, value_clip=hyper.value_clip,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip
        log_ratio = metrics.pop("log_ratio")
        return jnp.mean(each), {
            "loss": jnp.mean(each),
            **jax.tree.map(jnp.mean, metrics),
            **ratio_metrics(log_ratio, clip=hyper.clip),
        }

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key, shuffle_key) = state.hyper, state.reward_scale, jax.random.split(state.key, 3)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        reward = trajectory.reward
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, reward, done=trajectory.done, discount=hyper.discount)
            reward = pg.envs.scale_reward(scale, reward)
        values, next_values = values_and_next(state.params, trajectory, policy, value, state.rollout, None)
        advantage = pg.gae(
            reward, values, next_values, terminated=trajectory.terminated, truncated=trajectory.truncated,
            discount=hyper.discount, lam=hyper.lam,
        )  # fmt: skip
        descend = minibatch_step(loss, optimizer(hyper, state.update / num_updates), hyper)
        rows = (trajectory, advantage, values)  # of a recurrent policy whole sequences, environments first
        rows, num_axes = ((*swap_time(rows), state.rollout), 1) if recurrent else ((*rows, None), 2)
        (params, opt_state), metrics = pg.epochs(
            shuffle_key, (state.params, state.opt_state), rows, step=descend, num_axes=num_axes,
            num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        metrics |= episode_metrics(rollout)
        metrics["explained_variance"] = pg.diagnostics.explained_variance(values, advantage + values)
        return State(params, opt_state, rollout, scale, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)
