"""Asynchronous advantage actor-critic: workers that take turns, their parameters behind. Mnih et al. (2016)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import _checks
from pgjax.recipes.acting import as_functions, normalized
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of RMSProp
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 1.0  # λ of the advantage; the paper has 1
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat
    max_grad_norm: Number = 40.0  # the gradient is scaled down to this norm
    decay: Number = 0.99  # α of RMSProp: what is kept of the mean square of the gradient at each update
    eps: Number = 1e-5  # ε of RMSProp, inside the root, squared gradient units
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # shared by all; with normalize_observations a `Normalized`
    opt_state: Any  # shared too: one mean square of the gradients of all workers
    workers: Any  # parameters of each worker, leaves [W, ...]
    rollout: pg.RolloutState  # leaves [W, B, ...]
    reward_scale: Any  # `RewardScale` of each worker, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_workers: int = 8,
    staleness: int | None = None,
    num_envs: int = 8,
    num_steps: int = 8,
    total_steps: int = 1_000_000,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make an A3C run in which the order of the workers is fixed: lag as it is among threads, but repeatable.

        worker w = u mod W:   g from its own rollout at its own θ_w;   θ <- θ - RMSProp(g);   θ_w <- θ at its turn

    Each update is the gradient of one worker, taken at the shared parameters of `staleness` updates ago and applied to
    those of now. There is no correction for it. `a3c_threads.train` leaves the order to real threads.

    Args:
        As `a2c.make_train`, but rewards are not normalised unless normalize_rewards=True; and:
        num_workers: W, workers with parameters and environments of their own.
        staleness: updates of others between the parameters that a worker takes and the update that it makes of them,
            from 0 to W - 1; None means W - 1, as if all were equally fast. With 0 it is the synchronous algorithm.
        num_envs: B, environments of each worker.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]).

    Raises:
        TypeError: if a count is not an int, or if policy, value and init_params do not come together.
        ValueError: if a count is too small, staleness is not below num_workers, or total_steps allows no update.

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    num_workers = _checks.as_positive_int("num_workers", num_workers)
    lag = num_workers - 1 if staleness is None else _checks.as_positive_int("staleness", staleness, at_least=0)
    if lag >= num_workers:
        raise ValueError(f"staleness must be below num_workers = {num_workers}, got {lag}. Take more workers.")
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        rms = optax.rmsprop(hyper.learning_rate * (1.0 - hyper.anneal * progress), hyper.decay, hyper.eps)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), rms))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollouts = [
            pg.init_rollout(
                jax.random.fold_in(env_key, w), env, env_params, num_envs=num_envs, policy_state=policy_state
            )
            for w in range(num_workers)
        ]
        params = init_params(model_key, rollouts[0].obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        each = lambda tree: jax.tree.map(lambda x: jnp.broadcast_to(x, (num_workers, *jnp.shape(x))), tree)  # noqa: E731
        agents = rollouts[0].episode_return.shape[1:]
        scale = each(pg.envs.init_reward_scale(num_envs=num_envs, agents=agents)) if normalize_rewards else None
        rollout = jax.tree.map(lambda *x: jnp.stack(x), *rollouts)
        opt_state = optimizer(numbers, 0.0).init(params)
        return State(params, opt_state, each(params), rollout, scale, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key) = state.hyper, jax.random.split(state.key)
        turn = state.update % num_workers
        own, start, scale = jax.tree.map(lambda x: x[turn], (state.workers, state.rollout, state.reward_scale))
        rollout, trajectory = pg.rollout(
            act_key, own, start, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        earned = trajectory
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            earned = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))

        grads, info = pg.actor_critic(
            own, earned, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if normalize_observations:  # what was seen is shared; each worker goes on with the statistics it took
            statistics = pg.envs.update_statistics(state.params.statistics, trajectory.obs)
            params = params._replace(statistics=statistics)
        put = lambda row: lambda rows, x: rows.at[row].set(x)  # noqa: E731
        workers = jax.tree.map(put((turn + 1 + lag) % num_workers), state.workers, params)
        rollout, scale = jax.tree.map(put(turn), (state.rollout, state.reward_scale), (rollout, scale))
        metrics = gradient_metrics(info) | episode_metrics(rollout)
        return State(params, opt_state, workers, rollout, scale, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)


def gradient_metrics(info: pg.estimators.GradientInfo) -> Metrics:
    """Collect what is reported of one gradient.

    Args:
        info: from `actor_critic`.

    Returns:
        Metrics by name, scalars.
    """
    target = info.targets["value_target"]
    explained = pg.diagnostics.explained_variance(target - info.targets["advantage"], target)
    metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
    return metrics | {"explained_variance": explained}
