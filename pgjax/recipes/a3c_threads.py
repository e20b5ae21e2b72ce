"""Asynchronous advantage actor-critic with real threads that share parameters. Mnih et al. (2016)."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.recipes.a3c import Hyper, gradient_metrics
from pgjax.recipes.acting import as_functions
from pgjax.recipes.hyper import changed, traced
from pgjax.recipes.recipe import Array, count_updates, register_keys, typed
from pgjax.recipes.threads import Channel, Crew


@struct.dataclass
class SharedState:
    """What the threads share; the environments of each start anew."""

    params: Any
    square: Any  # mean square of the gradients, a vector in the order of `ravel_pytree(params)`
    key: Array
    update: int  # updates done
    hyper: Hyper


def train(
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
    become: RMSProp with one mean square for all. With one thread and the same key it is `a3c.make_train` with one
    worker; with more, runs differ. An exception in any thread or in report, and Ctrl-C, stop all and are raised here.

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
        state: a state to go on from, in place of a new one; hyper-parameters are its own where none is given.
        report: report(state, metrics) after each update, in the thread of the caller; if what it returns is true,
            training stops there.
        patience: seconds that threads get to finish their update at the end, see `threads.Crew`.
        **hyper: hyper-parameters, see `a3c.Hyper`.

    Returns:
        The state, and the metrics of each update: those of `a3c.make_train` and `staleness`, updates of others between
        the copy and the update.

    Raises:
        TypeError: if a count is not an int, if policy, value and init_params do not come together, or for an unknown
            hyper-parameter.
        ValueError: if a count is below 1, or if total_steps does not allow one update.
    """
    register_keys()
    key = typed(key)
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
        state = SharedState(params, jnp.zeros_like(ravel_pytree(params)[0]), key, 0, traced(Hyper, hyper, params))
    else:
        state = replace(state, hyper=changed(state.hyper, hyper, state.params))
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
        return rollout, ravel_pytree(grads)[0], gradient_metrics(info)

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
