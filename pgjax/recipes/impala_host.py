"""IMPALA on environments outside JAX: actors in threads, V-trace in the learner. Espeholt et al. (2018)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

import pgjax as pg
from pgjax import _checks
from pgjax.recipes.acting import as_functions, normalized
from pgjax.recipes.host import Actor, stacked
from pgjax.recipes.hyper import changed, traced
from pgjax.recipes.impala import Hyper, learn, optimizer
from pgjax.recipes.recipe import Array, Metrics, count_updates, register_keys, typed
from pgjax.recipes.threads import Channel, Crew


@struct.dataclass
class HostState:
    """What the learner needs to go on; environments outside JAX start anew."""

    params: Any
    opt_state: Any
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def train(
    key: Array,
    make_env: Callable[[int], Any],
    *,
    num_actors: int = 2,
    envs_per_actor: int = 4,
    num_steps: int = 16,
    total_steps: int,
    num_windows: int = 2,
    queue_size: int = 4,
    drop: bool = True,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    state: HostState | None = None,
    report: Callable[[HostState, dict[str, Any]], Any] | None = None,
    patience: float = 10.0,
    **hyper: Any,
) -> tuple[HostState, list[dict[str, Any]]]:
    """Train by IMPALA on environments outside JAX: actor threads fill a queue of windows, and a learner empties it.

    Each actor steps its environments with the newest parameters that it finds at the start of a window; the learner,
    in the thread of the caller, takes num_windows of them for each update. How far the one lags behind the other is
    left to the threads, so that runs differ. An exception anywhere, in an environment, a thread or report, and Ctrl-C
    stop all threads and are raised here.

    Shapes: a batch has leaves [num_steps, num_windows * envs_per_actor, ...].

    Args:
        key: a PRNG key, consumed.
        make_env: make_env(index) -> an environment with ``reset(seed=...) -> (obs, info)`` and ``step(action) -> (obs,
            reward, terminated, truncated, info)``, as Gymnasium's; index counts all environments. It is called in the
            thread of the actor.
        num_actors: threads that act.
        envs_per_actor: environments that each of them steps in turn.
        num_steps: environment steps in each window.
        total_steps: environment steps of the run that are learnt from, over all environments.
        num_windows: windows in each update.
        queue_size: windows that wait at most.
        drop: whether a full queue drops its oldest window, and counts it; otherwise actors wait.
        model: a Flax module, see `recipes.as_functions`; there is no default network for environments outside JAX.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [envs_per_actor, ...]; None takes the
            model's own.
        normalize_observations: standardise observations by running statistics, which travel in `state.params`.
        state: a state to go on from, in place of a new one; hyper-parameters are its own where none is given.
        report: report(state, metrics) after each update may log, save, evaluate; if what it returns is true, training
            stops there.
        patience: seconds that actors get to finish their step at the end, see `threads.Crew`.
        **hyper: hyper-parameters, see `impala.Hyper`.

    Returns:
        The state, and the metrics of each update: those of `impala.make_train`; `dropped`, windows lost so far;
        `staleness`, updates between the parameters that acted and those that learned, the mean over the batch;
        `waiting`, windows left in the queue.

    Raises:
        TypeError: if a count is not an int, if neither a model nor policy, value and init_params are given, or for an
            unknown hyper-parameter.
        ValueError: if a count is too small.
    """
    register_keys()
    key = typed(key)
    counts = {"num_actors": num_actors, "envs_per_actor": envs_per_actor, "num_windows": num_windows}
    for name, count in {**counts, "queue_size": queue_size}.items():
        _checks.as_positive_int(name, count)
    num_updates = count_updates(total_steps, num_envs=num_windows * envs_per_actor, num_steps=num_steps)
    if model is None and policy is None:
        raise TypeError("model must be given, or policy, value and init_params: no default fits environments unseen.")
    unseen: Any = None
    functions = as_functions(
        unseen, None, num_envs=envs_per_actor, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions

    @jax.jit
    def step(state: HostState, trajectory: Any, start: Any) -> tuple[HostState, Metrics]:
        state, metrics = learn(state, trajectory, start, policy=policy, value=value, num_updates=num_updates)
        if normalize_observations:
            statistics = pg.envs.update_statistics(state.params.statistics, trajectory.obs)
            state = replace(state, params=state.params._replace(statistics=statistics))
        return state, metrics

    act_key, model_key, key = jax.random.split(key, 3)
    newest: Any = [None]  # (count of updates, parameters), replaced as a whole by the learner
    returns = jnp.full((num_actors, envs_per_actor), jnp.nan)
    rows: list[dict[str, Any]] = []
    with Crew(patience=patience) as crew:
        ready = Channel(crew, num_actors)  # first observations, to make the parameters of
        windows = Channel(crew, queue_size, drop=drop)
        actors = [
            Actor(i, make_env, envs_per_actor, jax.random.fold_in(act_key, i), policy, policy_state)
            for i in range(num_actors)
        ]
        for actor in actors:
            crew.start(f"actor {actor.index}", actor.run, crew, ready, windows, newest, num_steps)
        obs = ready.get()
        if state is None:
            params = jax.jit(init_params)(model_key, obs, policy_state)
            numbers = traced(Hyper, hyper, params)
            state = HostState(params, optimizer(numbers, 0.0).init(params), key, jnp.int32(0), numbers)
        else:
            state = replace(state, hyper=changed(state.hyper, hyper, state.params))
        newest[0] = (int(state.update), state.params)
        while int(state.update) < num_updates:
            batch = [windows.get() for _ in range(num_windows)]
            trajectory, start = stacked([window.trajectory for window in batch], [window.start for window in batch])
            done = int(state.update)
            state, metrics = step(state, trajectory, start)
            newest[0] = (done + 1, state.params)
            for window in batch:
                returns = returns.at[window.actor].set(window.episode_return)
            rows.append(jax.device_get(metrics) | {
                "episode_return": float(returns.mean()), "finished": float((~jnp.isnan(returns)).mean()),
                "staleness": sum(done - window.version for window in batch) / num_windows,
                "dropped": windows.dropped, "waiting": len(windows),
            })  # fmt: skip
            if report is not None and report(state, rows[-1]):
                break
    return state, rows
