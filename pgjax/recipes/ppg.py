"""Phasic policy gradient. Cobbe, Hilton, Klimov and Schulman (2021), algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax._checks import as_positive_int
from pgjax.estimators.terms import policy_and_value, values_and_next
from pgjax.recipes.acting import as_functions, normalized, swap_time
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.minibatches import minibatch_step, ratio_metrics
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam, in both phases
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    clip: Number = 0.2  # ε of the ratio
    clone_coef: Number = 1.0  # β_clone, weight of the divergence in the auxiliary phase, squared reward units per nat
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy
    max_grad_norm: Number = 0.5  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # with normalize_observations a `Normalized`: the network's, and the statistics that act
    opt_state: Any  # of the policy phase
    aux_opt_state: Any
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done: pairs of phases
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 32,
    total_steps: int = 1_000_000,
    num_iterations: int = 8,
    num_epochs: int = 2,
    num_minibatches: int = 4,
    num_aux_epochs: int = 3,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    auxiliary: pg.Value | None = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make a run of phasic policy gradients: a phase of PPO, then one in which the policy's network learns values.

        policy phase, num_iterations times: PPO's update; its observations and value targets v are kept
        auxiliary phase: minimise mean of ½ (V_aux - v)² + β_clone KL(π_old ‖ π) + c_v ½ (V - v)²

    V_aux is read off the features of the policy, π_old is the policy at the start of the auxiliary phase. Where policy
    and value share their features, as those of planes and of recurrent networks do, V is V_aux, and counts once.

    Args:
        As `ppo.make_train`; total_steps must allow num_iterations rollouts; and:
        num_iterations: N_π, rollouts in each update.
        num_epochs: passes over each rollout, for policy and value alike.
        num_minibatches: minibatches in each pass; those of the auxiliary phase have the same size.
        num_aux_epochs: passes over all rollouts of the update in the auxiliary phase; 0 leaves PPO.
        model: a Flax module as for `ppo`. One with methods `auxiliary` and `phasic`, as `networks.ActorCritic`, has
            separate networks; any other shares features or does without V_aux.
        auxiliary: beside policy, value and init_params, auxiliary(params, obs) -> [...]; None takes value for it. Not
            with a recurrent policy.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). `aux_value_loss`, that of V_aux, and
        `clone_kl` are means over the auxiliary phase.

    Raises:
        ValueError: if auxiliary is given with a recurrent policy, and as `ppo.make_train`.

    References:
        Cobbe, Hilton, Klimov and Schulman (2021), Phasic policy gradient, algorithm 1.
    """
    num_iterations = as_positive_int("num_iterations", num_iterations)
    num_aux_epochs = as_positive_int("num_aux_epochs", num_aux_epochs, at_least=0)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps * num_iterations)
    if model is None and policy is None and value is None and init_params is None:
        model = pg.networks.default_actor_critic(env, env_params)
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    if hasattr(model, "auxiliary"):
        auxiliary = lambda params, obs: model.apply(params, obs, method="auxiliary")  # noqa: E731
        functions = functions._replace(init_params=lambda key, obs, _: model.init(key, obs, method="phasic"))
    if auxiliary is not None and functions.policy_state is not None:
        raise ValueError("auxiliary must be None with a recurrent policy: its value is on the features of the policy.")
    if normalize_observations:
        auxiliary = auxiliary and normalized(functions._replace(value=auxiliary)).value
        functions = normalized(functions)
    policy, value, init_params, policy_state = functions
    recurrent = policy_state is not None
    require_divisor("num_minibatches", num_minibatches, num_envs * (1 if recurrent else num_steps))

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
        start = optimizer(numbers, 0.0).init(params)
        return State(params, start, start, rollout, scale, key, jnp.int32(0), numbers)

    def loss(params: Any, minibatch: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, advantage, target = swap_time(data) if recurrent else data
        each, metrics = pg.ppo_objective(
            params, trajectory, policy=policy, value=value, advantage=pg.standardize(advantage), value_target=target,
            clip=hyper.clip, value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip
        log_ratio = metrics.pop("log_ratio")
        metrics = {"loss": each, **metrics}
        return jnp.mean(each), jax.tree.map(jnp.mean, metrics) | ratio_metrics(log_ratio, clip=hyper.clip)

    def aux_loss(params: Any, minibatch: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, target, old = swap_time(data) if recurrent else data
        distribution, values = policy_and_value(params, trajectory, policy, value, start)
        clone_kl = jnp.mean(old.kl_divergence(distribution))
        critic_loss = aux_value_loss = jnp.mean(pg.value_loss(values, target))
        total = hyper.clone_coef * clone_kl + hyper.value_coef * critic_loss
        if auxiliary is not None:
            aux_value_loss = jnp.mean(pg.value_loss(auxiliary(params, trajectory.obs), target))
            total += aux_value_loss
        return total, {"aux_value_loss": aux_value_loss, "clone_kl": clone_kl}

    def update(state: State) -> tuple[State, Metrics]:
        hyper, aux_opt_state = state.hyper, state.aux_opt_state

        def iterate(carry: Any, iteration: Array) -> tuple[Any, Any]:
            params, opt_state, start, scale, key = carry
            key, act_key, shuffle_key = jax.random.split(key, 3)
            rollout, trajectory = pg.rollout(
                act_key, params, start, policy=policy, env=env, env_params=env_params, num_steps=num_steps
            )
            reward = trajectory.reward
            if normalize_rewards:
                scale = pg.envs.update_reward_scale(scale, reward, done=trajectory.done, discount=hyper.discount)
                reward = pg.envs.scale_reward(scale, reward)
            values, next_values = values_and_next(params, trajectory, policy, value, start, None)
            advantage = pg.gae(
                reward, values, next_values, terminated=trajectory.terminated, truncated=trajectory.truncated,
                discount=hyper.discount, lam=hyper.lam,
            )  # fmt: skip
            transform = optimizer(hyper, iteration / (num_updates * num_iterations))
            target, first = advantage + values, start if recurrent else None
            rows = (trajectory, advantage, target)
            rows, num_axes = ((*swap_time(rows), first), 1) if recurrent else ((*rows, None), 2)
            (params, opt_state), metrics = pg.epochs(
                shuffle_key, (params, opt_state), rows, num_axes=num_axes, num_epochs=num_epochs,
                num_minibatches=num_minibatches, step=minibatch_step(loss, transform, hyper),
            )  # fmt: skip
            if normalize_observations:  # only now: those that acted were those of the loss
                params = params._replace(statistics=pg.envs.update_statistics(params.statistics, trajectory.obs))
            metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
            metrics["explained_variance"] = pg.diagnostics.explained_variance(values, target)
            return (params, opt_state, rollout, scale, key), (trajectory, target, first, metrics)

        carry = (state.params, state.opt_state, state.rollout, state.reward_scale, state.key)
        iterations = state.update * num_iterations + jnp.arange(num_iterations)
        (params, opt_state, rollout, scale, key), (*kept, starts, metrics) = jax.lax.scan(iterate, carry, iterations)
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        if num_aux_epochs:
            key, aux_key = jax.random.split(key)
            old = jax.vmap(lambda t, s: pg.action_distribution(params, t, policy=policy, state=s))(kept[0], starts)
            rows = (*kept, old)
            rows, num_axes = ((*jax.vmap(swap_time)(rows), starts), 2) if recurrent else ((*rows, None), 3)
            (params, aux_opt_state), more = pg.epochs(
                aux_key, (params, aux_opt_state), rows, num_axes=num_axes, num_epochs=num_aux_epochs,
                num_minibatches=num_minibatches * num_iterations,
                step=minibatch_step(aux_loss, optimizer(hyper, state.update / num_updates), hyper),
            )  # fmt: skip
            metrics |= {name: jnp.mean(more[name]) for name in ("aux_value_loss", "clone_kl")}
            metrics["num_nonfinite"] += more["num_nonfinite"].sum()
        metrics |= episode_metrics(rollout)
        return State(params, opt_state, aux_opt_state, rollout, scale, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)
