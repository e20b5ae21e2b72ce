"""Actor-critic with experience replay, for continuous actions. Wang et al. (2017), section on continuous actions."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import _checks
from pgjax.distributions import draw_noise
from pgjax.estimators.replayed_continuous import statistics_of
from pgjax.recipes import windows as replay
from pgjax.recipes.acting import Functions, as_functions, checked_init, normalized, normalizing, require_functions
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 1.0  # λ of both targets
    clip_rho: Number = 5.0  # c, where the ratio of the action taken is truncated
    max_divergence: Number = 1.0  # δ of the trust region, nats
    average_decay: Number = 0.99  # α: what the averaged parameters keep of themselves at each gradient step
    value_coef: Number = 0.5  # weight of the losses of value and critic
    entropy_coef: Number = 0.0  # weight of the entropy, reward units per nat
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
    windows: pg.Trajectory  # the latest, leaves [capacity, T, B, ...]; extras are the statistics of what acted
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 20,
    total_steps: int = 500_000,
    replay_ratio: int = 4,
    capacity: int = 128,
    num_draws: int = 5,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    critic: Any = None,
    init_params: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make an ACER run with continuous actions: a gradient from each new window, and some from windows of a replay.

        θ <- θ - Adam(g of the new window);   replay_ratio times: θ <- θ - Adam(g of windows drawn from the replay)

    with g of `pg.acer_continuous`: a duelling critic, Retrace, truncated ratios with bias correction by an action drawn
    anew, and a trust region around an averaged policy. The paper draws the number of replays from a Poisson law; here
    it is its mean. Normalisers work as in `acer.make_train`: the replay holds what was seen and earned, and the
    statistics of what acted, so that the ratios stay right.

    Args:
        env: the environment, with actions in a box; gymnax >= 1.0 or of the same form.
        env_params: its parameters, see `init_rollout`.
        num_envs: environments side by side.
        num_steps: environment steps of each in one window.
        total_steps: environment steps of the run over all environments; a remainder is left out.
        replay_ratio: gradient steps on replayed windows for each one on a new window; 0 replays nothing.
        capacity: windows of num_envs * num_steps that the replay holds.
        num_draws: n, actions drawn from the policy in each state for the mean of the advantages.
        model: a Flax module with the methods `policy(obs)`, `value(obs)` and `advantage(obs, action)`; None takes
            `networks.default_duelling_actor_critic`.
        policy: in place of a model, policy(params, obs) -> a Normal, TanhNormal or Beta, feed-forward; also a
            `StateDependentNormal` or `StateDependentTanhNormal`, which act with noise that is held.
        value: in place of a model, value(params, obs) -> [...].
        critic: in place of a model, critic(params, obs, action) -> [...], the advantage up to a function of obs.
        init_params: in place of a model, init_params(key, obs) -> params, or init_params(key).
        normalize_observations: standardise observations by running statistics, which travel in `state.params`.
        normalize_rewards: divide rewards by the running deviation of their discounted sum; metrics keep reward units.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]).

    Raises:
        TypeError: if a count is not an int, if policy, value, critic and init_params do not come together, or if
            actions are not in a box.
        ValueError: if a count is too small, if total_steps does not allow one update, or if the box is not bounded.

    References:
        Wang et al. (2017), Sample efficient actor-critic with experience replay.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    replay_ratio = _checks.as_positive_int("replay_ratio", replay_ratio, at_least=0)
    capacity, num_draws = (
        _checks.as_positive_int(name, x) for name, x in (("capacity", capacity), ("num_draws", num_draws))
    )
    given = {"policy": policy, "value": value, "critic": critic, "init_params": init_params}
    if all(x is None for x in given.values()):
        policy, value, critic, init_params = _of_model(env, env_params, num_envs, model)
    else:
        require_functions(model, given)
        init_params = checked_init(init_params)
    if normalize_observations:
        policy, value, init_params, _ = normalized(Functions(policy, value, init_params, None))
        critic = normalizing(critic)

    def one_action(params: Any, obs: Any) -> Any:  # the law of one action by itself: what is learned of held noise
        return _by_itself(policy(params, obs))

    def acting(params: Any, obs: Any) -> tuple[Any, Any]:
        distribution = policy(params, obs)
        law = _by_itself(distribution)
        return distribution, {name: getattr(law, name) for name in statistics_of(law)}

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        windows = replay.empty_windows(
            params, rollout, policy=acting, env=env, env_params=env_params, num_steps=num_steps, capacity=capacity
        )
        ones = jax.tree.map(jnp.ones_like, windows.extras)  # a scale of 0 would be no distribution
        windows, opt_state = replace(windows, extras=ones), optimizer(numbers, 0.0).init(params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        return State(params, params, opt_state, rollout, scale, windows, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale = state.hyper, state.reward_scale
        key, act_key, replay_key, noise_key = jax.random.split(state.key, 4)
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

        def descend(carry: Any, given: tuple[Array, Array]) -> tuple[Any, Metrics]:
            (params, average, opt_state), (rows, key) = carry, given
            window = replay.take_windows(windows, rows)
            if normalize_rewards:
                window = replace(window, reward=pg.envs.scale_reward(scale, window.reward))
            distribution = pg.action_distribution(params, window, policy=one_action)
            grads, info = pg.acer_continuous(
                params, replace(window, extras=None), policy=one_action, value=value, critic=critic,
                behaviour=distribution.replace(**window.extras),
                noise=draw_noise(distribution, key, num_draws=1 + num_draws), average_params=average,
                discount=hyper.discount, lam=hyper.lam, clip_rho=hyper.clip_rho,
                max_divergence=hyper.max_divergence, value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef,
            )  # fmt: skip
            updates, opt_state = transform.update(grads, opt_state, params)
            params = optax.apply_updates(params, updates)
            average = optax.incremental_update(params, average, 1.0 - hyper.average_decay)
            target, taken = info.targets["action_value_target"], info.targets["action_value"]
            metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite}
            metrics["explained_variance"] = pg.diagnostics.explained_variance(taken, target)
            return (params, average, opt_state), metrics | info.metrics

        carry = (state.params, state.average, state.opt_state)
        given = jnp.concatenate([newest, drawn]), jax.random.split(noise_key, 1 + replay_ratio)
        (params, average, opt_state), metrics = jax.lax.scan(descend, carry, given)
        if normalize_observations:  # only now: those that acted were those of the loss
            statistics = pg.envs.update_statistics(state.params.statistics, trajectory.obs)
            params, average = (x._replace(statistics=statistics) for x in (params, average))
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        metrics |= episode_metrics(rollout)
        return State(params, average, opt_state, rollout, scale, windows, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)


def _by_itself(distribution: Any) -> Any:
    return getattr(distribution, "marginal", distribution)


def _of_model(env: Any, env_params: Any, num_envs: int, model: Any) -> tuple[Any, Any, Any, Any]:
    """Policy, value, critic and init_params of a Flax module, or of the default one."""
    if model is None:
        model = pg.networks.default_duelling_actor_critic(env, env_params)
    functions = as_functions(env, env_params, num_envs=num_envs, model=model)
    if not callable(getattr(model, "advantage", None)):
        raise TypeError(
            f"model must be a Flax module with the methods policy, value, advantage, {type(model).__name__} lacks "
            "advantage. Take networks.DuellingActorCritic, or pass policy=, value=, critic= and init_params=."
        )
    critic = lambda params, obs, action: model.apply(params, obs, action, method="advantage")  # noqa: E731
    return functions.policy, functions.value, critic, functions.init_params
