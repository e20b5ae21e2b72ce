"""PPO with a penalty on the divergence in place of the clip. Schulman et al. (2017), section 4; Hsu et al. (2020)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax.estimators.terms import policy_and_value, values_and_next
from pgjax.recipes.acting import as_functions, normalized, swap_time
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.minibatches import minibatch_step
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    kl_coef: Number = 1.0  # β at the start, standardised advantages per nat
    kl_target: Number = 0.01  # d_targ, nats: what the divergence after an update should be
    kl_factor: Number = 2.0  # what β is multiplied or divided by after an update that missed d_targ; 1 keeps it fixed
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
    kl_coef: Array  # β
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
    penalty: Literal["forward", "reverse"] = "forward",
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make a run of PPO with a divergence penalty, fixed or adaptive, in either direction.

        minimise mean of -ρ A + β KL + c_v ½ (V - A - v)² - c_e H,   ρ = π(a|s) / π_old(a|s)
        forward: KL(π_old ‖ π),   reverse: KL(π ‖ π_old)
        after each update: β <- β f if KL > 1.5 d_targ,  β / f if KL < d_targ / 1.5

    Args:
        As `ppo.make_train`, and:
        penalty: the direction of the divergence. The forward one holds on to every action that the old policy took;
            the reverse one, mirror descent, may give some up. Distributions must have a method kl_divergence.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). Of the metrics `divergence` is what the
        update reached, `kl_coef` the β that it leads to, and `kl` PPO's estimate from single actions along the way.

    Raises:
        ValueError: if penalty is neither, and as `ppo.make_train`.

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov (2017), Proximal policy optimization algorithms, section 4.
        Hsu, Mendler-Dünner and Hardt (2020), Revisiting design choices in proximal policy optimization.
    """
    if penalty not in ("forward", "reverse"):
        raise ValueError(f'penalty must be "forward" or "reverse", got {penalty!r}.')
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

    def divergence(old: Any, new: Any) -> Array:
        return old.kl_divergence(new) if penalty == "forward" else new.kl_divergence(old)

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        opt_state = optimizer(numbers, 0.0).init(params)
        return State(params, opt_state, rollout, scale, jnp.asarray(numbers.kl_coef), key, jnp.int32(0), numbers)

    def loss(params: Any, minibatch: Any, hyper: Hyper, kl_coef: Array) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, advantage, target, old = swap_time(data) if recurrent else data
        distribution, values = policy_and_value(params, trajectory, policy, value, start)
        log_ratio = pg.log_prob_taken(distribution, trajectory) - trajectory.log_prob
        metrics = {
            "policy_loss": pg.kl_penalty_loss(
                log_ratio, pg.standardize(advantage), kl=divergence(old, distribution), coefficient=kl_coef
            ),
            "value_loss": pg.value_loss(values, target),
            "entropy": distribution.entropy(),
        }
        metrics = jax.tree.map(jnp.mean, metrics)
        total = metrics["policy_loss"] + hyper.value_coef * metrics["value_loss"]
        total -= hyper.entropy_coef * metrics["entropy"]
        bound = pg.diagnostics.bound_fraction(log_ratio)
        return total, metrics | {"loss": total, "kl": pg.diagnostics.approximate_kl(log_ratio), "bound_fraction": bound}

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
        old = pg.action_distribution(state.params, trajectory, policy=policy, state=state.rollout)
        descend = minibatch_step(loss, optimizer(hyper, state.update / num_updates), hyper, state.kl_coef)
        rows = (trajectory, advantage, advantage + values, old)  # of a recurrent policy whole sequences
        rows, num_axes = ((*swap_time(rows), state.rollout), 1) if recurrent else ((*rows, None), 2)
        (params, opt_state), metrics = pg.epochs(
            shuffle_key, (state.params, state.opt_state), rows, step=descend, num_axes=num_axes,
            num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        new = pg.action_distribution(params, trajectory, policy=policy, state=state.rollout)
        reached = jnp.mean(divergence(old, new))
        kl_coef = pg.adapt_kl_coefficient(state.kl_coef, reached, target=hyper.kl_target, factor=hyper.kl_factor)
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        metrics |= {"divergence": reached, "kl_coef": kl_coef} | episode_metrics(rollout)
        metrics["explained_variance"] = pg.diagnostics.explained_variance(values, advantage + values)
        return State(params, opt_state, rollout, scale, kl_coef, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)
