"""IMPALA: actors that lag behind the learner, corrected for by V-trace. Espeholt et al. (2018)."""

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
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


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


def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
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


def learn(state: Any, trajectory: Any, start: Any, *, policy: Any, value: Any, num_updates: int) -> tuple[Any, Metrics]:
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
    updates, opt_state = optimizer(hyper, state.update / num_updates).update(grads, state.opt_state, params)
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
    `impala_host.train` has actors that run freely.

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
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        past = jax.tree.map(lambda x: jnp.broadcast_to(x, (lag + 1, *jnp.shape(x))), params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        opt_state = optimizer(numbers, 0.0).init(params)
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

        after, metrics = learn(state, earned, state.rollout, policy=policy, value=value, num_updates=num_updates)
        params = after.params
        if normalize_observations:  # only now: those of the learner's policy were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(params.statistics, trajectory.obs))
        past = jax.tree.map(lambda rows, x: rows.at[row].set(x), state.past, params)
        after = after.replace(params=params, past=past, rollout=rollout, reward_scale=scale, key=key)
        return after, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy, value)
