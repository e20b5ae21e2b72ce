"""Advantage actor-critic, synchronous. Mnih et al. (2016), with the generalised advantage of Schulman et al. (2016)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax.recipes.acting import as_functions, normalized
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 3e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat
    max_grad_norm: Number = 10.0  # the gradient is scaled down to this norm
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
    num_steps: int = 8,
    total_steps: int = 1_000_000,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make an advantage actor-critic run: one gradient step for each rollout.

        minimise 1/B Σ_b Σ_t [-A_t log π(a_t|s_t) + c_v ½ (V(s_t) - A_t - v_t)² - c_e H(π(·|s_t))]       by Adam

    Hyper-parameters, see `Hyper`, are given to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each.
        num_envs: B, environments side by side.
        num_steps: T, environment steps in each rollout.
        total_steps: environment steps of the run over all environments.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [B, ...]; None takes the model's own.
        normalize_observations: standardise observations by running statistics, which travel in `state.params`.
        normalize_rewards: divide rewards by the running deviation of their discounted sum; metrics keep reward units.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics).

    Raises:
        TypeError: if a count is not an int, or if policy, value and init_params do not come together.
        ValueError: if a count is below 1, or if total_steps does not allow one update.

    Example:
        >>> import gymnax, jax, pgjax.recipes
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> train = pgjax.recipes.a2c.make_train(env, env_params, num_envs=4, num_steps=8, total_steps=64)
        >>> state, metrics = train(jax.random.key(0), learning_rate=1e-3)
        >>> metrics["grad_norm"].shape
        (2,)

    References:
        Mnih et al. (2016), Asynchronous methods for deep reinforcement learning.
        Schulman et al. (2016), High-dimensional continuous control using generalized advantage estimation, eq. 16.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions

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

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))

        grads, info = pg.actor_critic(
            state.params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=state.rollout,
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if normalize_observations:  # only now: those that acted were those of the loss
            statistics = pg.envs.update_statistics(state.params.statistics, trajectory.obs)
            params = params._replace(statistics=statistics)
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
        target = info.targets["value_target"]
        metrics["explained_variance"] = pg.diagnostics.explained_variance(target - info.targets["advantage"], target)
        return State(params, opt_state, rollout, scale, key, state.update + 1, hyper), metrics | episode_metrics(
            rollout
        )

    return Recipe(init, update, num_updates, policy, value)
