"""IMPALA: actors that lag behind the learner, corrected for by V-trace. Espeholt et al. (2018)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import _checks
from pgjax.estimators.terms import policy_and_value
from pgjax.recipes.acting import as_functions, normalized
from pgjax.recipes.host import Actor, stacked
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics
from pgjax.recipes.threads import Channel, Crew


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 3e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of V-trace
    clip_rho: Number = 1.0  # ρ̄, bound of the ratios that weigh temporal differences: which value is learnt
    clip_c: Number = 1.0  # c̄, bound of the ratios that carry them back: how fast
    clip_pg_rho: Number = 1.0  # bound of the ratios of the policy gradient
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat
    max_grad_norm: Number = 10.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # the learner's; with normalize_observations a `Normalized`
    opt_state: Any
    past: Any  # parameters after the latest updates, leaves [lag + 1, ...]: those after update u in row u mod (lag + 1)
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


@struct.dataclass
class HostState:
    """What the learner of `train_host` needs to go on; environments outside JAX start anew."""

    params: Any
    opt_state: Any
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def _optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
    """Make the transformation of one update.

    Shapes: progress scalar.

    Args:
        hyper: its numbers.
        progress: share of the run that is over.

    Returns:
        Clipping of the whole gradient by its norm, then Adam.
    """
    adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
    return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))


def _learn(
    state: Any, trajectory: Any, start: Any, *, policy: Any, value: Any, num_updates: int
) -> tuple[Any, Metrics]:
    """Learn from one batch of windows that older parameters collected: V-trace, then one step of Adam.

    Shapes: trajectory leaves [T, B, ...]; metrics scalars.

    Args:
        state: what learns, with params, opt_state, update and hyper.
        trajectory: the windows, with the log-probabilities of those that acted.
        start: for a recurrent policy, the state that the windows started from.
        policy: as in `make_train`.
        value: as in `make_train`.
        num_updates: of the whole run.

    Returns:
        The state with new params, opt_state and count of updates, and metrics.
    """
    hyper, params = state.hyper, state.params
    grads, info = pg.vtrace_actor_critic(
        params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
        clip_rho=hyper.clip_rho, clip_c=hyper.clip_c, clip_pg_rho=hyper.clip_pg_rho, value_coef=hyper.value_coef,
        entropy_coef=hyper.entropy_coef, state=start,
    )  # fmt: skip
    updates, opt_state = _optimizer(hyper, state.update / num_updates).update(grads, state.opt_state, params)
    distribution, values = policy_and_value(params, trajectory, policy, value, start)
    log_ratio = pg.log_prob_taken(distribution, trajectory) - trajectory.log_prob
    metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
    metrics["kl"] = pg.diagnostics.approximate_kl(log_ratio)  # of the learner's policy from those that acted
    metrics["truncated_fraction"] = jnp.mean(log_ratio > jnp.log(hyper.clip_rho) + 1e-5)  # not by rounding
    metrics["explained_variance"] = pg.diagnostics.explained_variance(values, info.targets["value_target"])
    params = optax.apply_updates(params, updates)
    return state.replace(params=params, opt_state=opt_state, update=state.update + 1), metrics


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 32,
    num_steps: int = 16,
    total_steps: int = 1_000_000,
    lag: int = 1,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make an IMPALA run on the device: actors act with the parameters of `lag` updates ago, and V-trace corrects.

        minimise 1/B Σ_b Σ_t [-ρ_t (r_t + γ v_{t+1} - V(s_t)) log π(a_t|s_t) + c_v ½ (V(s_t) - v_t)² - c_e H(π(·|s_t))]

    with v and ρ of `pg.vtrace_actor_critic`. The lag is the same for all, so that a run can be repeated bit for bit;
    `train_host` has actors that run freely.

    Args:
        As `a2c.make_train`, but rewards are not normalised unless normalize_rewards=True; and:
        lag: updates between the parameters that act and those that learn, at least 0; 0 is an on-policy actor-critic.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]).

    Raises:
        TypeError: if a count is not an int, or if policy, value and init_params do not come together.
        ValueError: if a count is too small, or if total_steps does not allow one update.

    References:
        Espeholt et al. (2018), IMPALA: scalable distributed deep-RL with importance weighted actor-learner
        architectures.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    lag = _checks.as_positive_int("lag", lag, at_least=0)
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        numbers = traced(Hyper, hyper)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        past = jax.tree.map(lambda x: jnp.broadcast_to(x, (lag + 1, *jnp.shape(x))), params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        opt_state = _optimizer(numbers, 0.0).init(params)
        return State(params, opt_state, past, rollout, scale, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key)
        row = (state.update + 1) % (lag + 1)  # of the oldest parameters; the newest will take its place
        acting = jax.tree.map(lambda x: x[row], state.past)
        rollout, trajectory = pg.rollout(
            act_key, acting, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        earned = trajectory
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            earned = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))

        after, metrics = _learn(state, earned, state.rollout, policy=policy, value=value, num_updates=num_updates)
        params = after.params
        if normalize_observations:  # only now: those of the learner's policy were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(params.statistics, trajectory.obs))
        past = jax.tree.map(lambda rows, x: rows.at[row].set(x), state.past, params)
        after = after.replace(params=params, past=past, rollout=rollout, reward_scale=scale, key=key)
        return after, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy, value)


def train_host(
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
        state: a state to go on from, in place of a new one; hyper-parameters are then its own.
        report: report(state, metrics) after each update may log, save, evaluate; if what it returns is true, training
            stops there.
        patience: seconds that actors get to finish their step at the end, see `threads.Crew`.
        **hyper: hyper-parameters, see `Hyper`.

    Returns:
        The state, and the metrics of each update: those of `make_train`; `dropped`, windows lost so far; `staleness`,
        updates between the parameters that acted and those that learned, the mean over the batch; `waiting`, windows
        left in the queue.

    Raises:
        TypeError: if a count is not an int, or if neither a model nor policy, value and init_params are given.
        ValueError: if a count is too small.
    """
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
        state, metrics = _learn(state, trajectory, start, policy=policy, value=value, num_updates=num_updates)
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
            numbers, params = traced(Hyper, hyper), jax.jit(init_params)(model_key, obs, policy_state)
            state = HostState(params, _optimizer(numbers, 0.0).init(params), key, jnp.int32(0), numbers)
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
