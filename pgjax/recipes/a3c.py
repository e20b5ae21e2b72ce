"""Asynchronous advantage actor-critic: workers whose parameters have fallen behind. Mnih et al. (2016)."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.recipes.acting import as_functions, normalized
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics
from pgjax.recipes.threads import Channel, Crew


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


@struct.dataclass
class SharedState:
    """What the threads of `train_threads` share; the environments of each start anew."""

    params: Any
    square: Any  # mean square of the gradients, a vector in the order of `ravel_pytree(params)`
    key: Array
    update: int  # updates done
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
    those of now. There is no correction for it. `train_threads` leaves the order to real threads.

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
        numbers = traced(Hyper, hyper)
        rollouts = [
            pg.init_rollout(
                jax.random.fold_in(env_key, w), env, env_params, num_envs=num_envs, policy_state=policy_state
            )
            for w in range(num_workers)
        ]
        params = init_params(model_key, rollouts[0].obs, policy_state)
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
        metrics = _metrics_of(info) | episode_metrics(rollout)
        return State(params, opt_state, workers, rollout, scale, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)


def _metrics_of(info: pg.estimators.GradientInfo) -> Metrics:
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


def train_threads(
    key: Array,
    env: Any,
    env_params: Any,
    *,
    num_threads: int = 2,
    locked: bool = True,
    num_envs: int = 8,
    num_steps: int = 8,
    total_steps: int = 1_000_000,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    state: SharedState | None = None,
    report: Callable[[SharedState, dict[str, Any]], Any] | None = None,
    patience: float = 10.0,
    **hyper: Any,
) -> tuple[SharedState, list[dict[str, Any]]]:
    """Train by A3C with real threads that share parameters: each has its environments, its rollouts and its gradients.

    A thread copies the shared parameters, takes a gradient there, and applies it in place to what the parameters have
    become: RMSProp with one mean square for all. With one thread and the same key it is `make_train` with one worker;
    with more, runs differ. An exception in any thread or in report, and Ctrl-C, stop all and are raised here.

    Shapes: metrics scalars.

    Args:
        key: a PRNG key, consumed.
        env: as in `a2c.make_train`; its steps are compiled.
        env_params: its parameters, for all environments or with one row for each of a thread's.
        num_threads: threads that learn.
        locked: whether one thread at a time reads or writes the shared vectors; without it, as in the paper, a copy
            may be half old and half new, and additions that meet may be lost.
        num_envs: environments of each thread.
        num_steps: environment steps of each in one update.
        total_steps: environment steps of the run over all threads.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [num_envs, ...].
        state: a state to go on from, in place of a new one; hyper-parameters are then its own.
        report: report(state, metrics) after each update, in the thread of the caller; if what it returns is true,
            training stops there.
        patience: seconds that threads get to finish their update at the end, see `threads.Crew`.
        **hyper: hyper-parameters, see `Hyper`.

    Returns:
        The state, and the metrics of each update: those of `make_train` and `staleness`, updates of others between the
        copy and the update.

    Raises:
        TypeError: if a count is not an int, or if policy, value and init_params do not come together.
        ValueError: if a count is below 1, or if total_steps does not allow one update.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    num_threads = _checks.as_positive_int("num_threads", num_threads)
    policy, value, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    env_key, model_key, key = jax.random.split(key, 3)
    starts = [
        pg.init_rollout(jax.random.fold_in(env_key, i), env, env_params, num_envs=num_envs, policy_state=policy_state)
        for i in range(num_threads)
    ]
    if state is None:
        params = jax.jit(init_params)(model_key, starts[0].obs, policy_state)
        state = SharedState(params, jnp.zeros_like(ravel_pytree(params)[0]), key, 0, traced(Hyper, hyper))
    shared = _Shared(state, num_updates)

    @jax.jit
    def gradient(vector: Array, start: Any, key: Array, hyper: Hyper) -> Any:
        params = shared.unravel(vector)
        rollout, trajectory = pg.rollout(
            key, params, start, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        grads, info = pg.actor_critic(
            params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip
        grads = optax.clip_by_global_norm(hyper.max_grad_norm).update(grads, optax.EmptyState())[0]
        return rollout, ravel_pytree(grads)[0], _metrics_of(info)

    def work(i: int, rollout: pg.RolloutState, crew: Crew, told: Channel) -> None:
        while not crew.stopped and (ticket := shared.ticket()) is not None:
            number, act_key = ticket
            vector, seen = shared.read(locked)
            rollout, grads, metrics = gradient(vector, rollout, act_key, state.hyper)
            behind = shared.apply(np.asarray(grads), number, locked) - seen
            told.put((i, jax.device_get(metrics), np.asarray(rollout.episode_return), behind))

    returns = np.full((num_threads, *starts[0].episode_return.shape), np.nan, np.float32)
    rows: list[dict[str, Any]] = []
    with Crew(patience=patience) as crew:
        told = Channel(crew, 2 * num_threads)
        for i, start in enumerate(starts):
            crew.start(f"learner {i}", work, i, start, crew, told)
        while len(rows) < num_updates - state.update:
            i, metrics, returns[i], behind = told.get()
            ended = {"episode_return": float(returns.mean()), "finished": float((~np.isnan(returns)).mean())}
            rows.append(metrics | ended | {"staleness": behind})
            if report is not None and report(shared.state(locked), rows[-1]):
                break
    return shared.state(True), rows


class _Shared:
    """Parameters and mean square as vectors that are changed in place, and the count of the updates given out."""

    def __init__(self, state: SharedState, num_updates: int):
        vector, self.unravel = ravel_pytree(state.params)
        self._vector, self._square = np.array(vector), np.array(state.square)
        self._hyper = jax.tree.map(float, state.hyper)
        self._form, self._num_updates = state, num_updates
        self._key, self._given, self._done = state.key, state.update, state.update
        self._lock, self._tickets = threading.Lock(), threading.Lock()

    def ticket(self) -> tuple[int, Array] | None:
        """The number of the next update and a key for it; None once all have been given out."""
        with self._tickets:
            if self._given >= self._num_updates:
                return None
            self._given += 1
            self._key, key = jax.random.split(self._key)
            return self._given - 1, key

    def read(self, locked: bool) -> tuple[np.ndarray, int]:
        with self._lock if locked else contextlib.nullcontext():
            return self._vector.copy(), self._done

    def apply(self, grads: np.ndarray, number: int, locked: bool) -> int:
        """Change the vectors in place; the count of updates that went before."""
        hyper = self._hyper
        rate = hyper.learning_rate * (1.0 - hyper.anneal * number / self._num_updates)
        with self._lock if locked else contextlib.nullcontext():
            self._square *= np.float32(hyper.decay)
            self._square += np.float32(1.0 - hyper.decay) * np.square(grads)
            self._vector -= np.float32(rate) * grads / np.sqrt(self._square + np.float32(hyper.eps))
            self._done += 1
            return self._done - 1

    def state(self, locked: bool) -> SharedState:
        with self._lock if locked else contextlib.nullcontext():
            vector, square, done = self._vector.copy(), self._square.copy(), self._done
        params = self.unravel(jnp.asarray(vector))
        return replace(self._form, params=params, square=jnp.asarray(square), key=self._key, update=done)
