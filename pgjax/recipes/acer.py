"""Actor-critic with experience replay, for discrete actions. Wang et al. (2017)."""

from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import _checks
from pgjax.estimators.replayed import as_categorical, expected_value
from pgjax.networks.actor_critics import seen_by_critics
from pgjax.recipes import windows as replay
from pgjax.recipes.acting import as_functions, normalized, require_feed_forward
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 1.0  # λ of Retrace
    clip_rho: Number = 10.0  # c, where the ratio of the action taken is truncated
    max_divergence: Number = 1.0  # δ of the trust region, nats
    average_decay: Number = 0.99  # α: what the averaged parameters keep of themselves at each gradient step
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat
    max_grad_norm: Number = 10.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # with normalize_observations a `Normalized`: the network's, and the statistics that act
    average: Any  # averaged parameters: the trust region is around their policy
    opt_state: Any
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    windows: pg.Trajectory  # the latest, leaves [capacity, T, B, ...]; extras are the fields of what acted
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


class ActionValues(nn.Module):
    """The policy of an actor-critic, and the value of every action in place of that of the state.

    Shapes: obs as the actor-critic takes it; distribution [...], values [..., K].

    Args:
        base: `networks.ActorCritic` or `networks.ConvActorCritic`; its own value is left out.
        num_actions: K.
    """

    base: Any
    num_actions: int

    def setup(self) -> None:
        """Make the critic: with a trunk of its own, or a head on the convolutions that the policy uses too."""
        features = () if hasattr(self.base, "trunk") else self.base.features
        self.critic = pg.networks.QNetwork(self.num_actions, features, self.base.activation, self.base.dtype)

    def policy(self, obs: Any) -> Any:
        """Return the distribution for obs."""
        return self.base.policy(obs)

    def value(self, obs: Any) -> Array:
        """Return the value of every action in obs, [..., K]."""
        return self.critic(seen_by_critics(self.base, obs))

    def __call__(self, obs: Any) -> tuple[Any, Array]:
        """Return distribution and action values for obs."""
        return self.policy(obs), self.value(obs)


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 20,
    total_steps: int = 500_000,
    replay_ratio: int = 4,
    capacity: int = 128,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make an ACER run: one gradient from each new window, and some from windows of a replay, corrected by ratios.

        θ <- θ - Adam(g of the new window);   replay_ratio times: θ <- θ - Adam(g of windows drawn from the replay)

    with g of `pg.acer`: Retrace, truncated ratios with bias correction, and a trust region around an averaged policy.
    The paper draws the number of replays from a Poisson law; here it is its mean.

    The replay holds observations and rewards as they were. A window is normalised when it is learnt from, by the
    statistics of that moment, as if they had always been known. Its ratios stay right, because the logits of what
    acted are stored with it, under the statistics that it acted with.

    Args:
        As `a2c.make_train`, for feed-forward policies, but rewards are not normalised unless normalize_rewards=True;
            and:
        replay_ratio: gradient steps on replayed windows for each one on a new window; 0 replays nothing.
        capacity: windows of num_envs * num_steps that the replay holds.
        model: a Flax module whose `policy` gives a Categorical and whose `value` gives [..., K]; None takes
            `ActionValues` of `networks.default_actor_critic`.
        value: in place of a model, value(params, obs) -> [..., K], the value of every action.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). Its `value` is E_π Q, [...].

    Raises:
        TypeError: if a count is not an int, if policy, value and init_params do not come together, or if actions are
            not discrete.
        ValueError: if a count is too small, or if total_steps does not allow one update.

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    replay_ratio = _checks.as_positive_int("replay_ratio", replay_ratio, at_least=0)
    capacity = _checks.as_positive_int("capacity", capacity)
    if model is None and policy is None and value is None and init_params is None:
        model = _default_model(env, env_params)
    functions = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )
    functions = normalized(functions) if normalize_observations else functions
    policy, init_params = functions.policy, functions.init_params
    critic: Any = functions.value

    def acting(params: Any, obs: Any) -> tuple[Any, Any]:
        distribution = as_categorical("what policy returns", policy(params, obs))
        return distribution, {"logits": distribution.logits, "mask": distribution.mask}  # stored with the window

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs, None)
        numbers = traced(Hyper, hyper, params)
        windows = replay.empty_windows(
            params, rollout, policy=acting, env=env, env_params=env_params, num_steps=num_steps, capacity=capacity
        )
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        opt_state = optimizer(numbers, 0.0).init(params)
        return State(params, params, opt_state, rollout, scale, windows, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key, replay_key) = state.hyper, state.reward_scale, jax.random.split(state.key, 3)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=acting, env=env, env_params=env_params, num_steps=num_steps
        )
        windows = replay.add_window(state.windows, state.update, trajectory)
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
        count = jnp.minimum(state.update + 1, capacity)
        drawn = replay.draw_windows(replay_key, count, num_draws=replay_ratio, num_envs=num_envs)
        newest = jnp.full((1, num_envs), state.update % capacity, drawn.dtype)
        transform = optimizer(hyper, state.update / num_updates)

        def descend(carry: Any, rows: Array) -> tuple[Any, Metrics]:
            params, average, opt_state = carry
            window = replay.take_windows(windows, rows)
            if normalize_rewards:
                window = replace(window, reward=pg.envs.scale_reward(scale, window.reward))
            grads, info = pg.acer(
                params, replace(window, extras=None), policy=policy, critic=critic,
                behaviour=pg.Categorical(**window.extras), average_params=average, discount=hyper.discount,
                lam=hyper.lam, clip_rho=hyper.clip_rho,
                max_divergence=hyper.max_divergence, value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef,
            )  # fmt: skip
            updates, opt_state = transform.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            average = optax.incremental_update(params, average, 1.0 - hyper.average_decay)
            target, taken = info.targets["value_target"], info.targets["action_value"]
            metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite}
            metrics["explained_variance"] = pg.diagnostics.explained_variance(taken, target)
            return (params, average, opt_state), metrics | info.metrics

        carry = (state.params, state.average, state.opt_state)
        (params, average, opt_state), metrics = jax.lax.scan(descend, carry, jnp.concatenate([newest, drawn]))
        if normalize_observations:  # only now: those that acted were those of the loss
            statistics = pg.envs.update_statistics(state.params.statistics, trajectory.obs)
            params, average = (x._replace(statistics=statistics) for x in (params, average))
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        metrics |= episode_metrics(rollout)
        return State(params, average, opt_state, rollout, scale, windows, key, state.update + 1, hyper), metrics

    def state_value(params: Any, obs: Any) -> Array:
        return expected_value(policy(params, obs), critic(params, obs))

    return Recipe(init, update, num_updates, policy, state_value)


def _default_model(env: Any, env_params: Any) -> ActionValues:
    num_actions = pg.networks.count_actions(env, env_params)  # the correction lists all of them
    return ActionValues(pg.networks.default_actor_critic(env, env_params), num_actions)
