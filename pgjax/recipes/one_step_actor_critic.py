"""One-step actor-critic, an update after each environment step. Sutton and Barto (2018), section 13.5."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax.recipes.acting import as_functions, held_noise, normalized
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
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
    num_steps: int = 32,
    total_steps: int = 2**20,
    weight_by_discount: bool = False,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make a one-step actor-critic run: a gradient step after each environment step.

        δ_b = r_b + γ V(s'_b) - V(s_b)
        minimise 1/B Σ_b [-w_b δ_b log π(a_b|s_b) + c_v ½ (V(s_b) - δ_b - v_b)² - c_e H(π(·|s_b))]    by Adam, each step

    One update is num_steps such steps; its metrics are means over them, and what falls with the progress of the run
    falls between updates. Hyper-parameters, see `Hyper`, are given to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each.
        num_envs: B, environments side by side; each gradient step sees one transition of each.
        num_steps: environment steps, and gradient steps, in one update.
        total_steps: environment steps of the run over all environments.
        weight_by_discount: w = γ^t, t the index of the step inside its episode, in place of w = 1. With an exact critic
            the gradient is then that of the discounted objective, Σ_t over an episode; without, states late in an
            episode count as much as early ones, as nearly everywhere in practice, and it is no gradient.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [B, ...]; None takes the model's own.
            Gradients do not reach beyond the step.
        normalize_observations: standardise observations by running statistics, which travel in `state.params`.
        normalize_rewards: divide rewards by the running deviation of their discounted sum; metrics keep reward units.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics).

    Raises:
        TypeError: if a count is not an int, or if policy, value and init_params do not come together.
        ValueError: if a count is below 1, or if total_steps does not allow one update.

    References:
        Sutton and Barto (2018), Reinforcement Learning: An Introduction, section 13.5.
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

    def step(state: State, noise: Any) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=1,
            noise=noise,
        )  # fmt: skip
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))

        grads, info = pg.actor_critic(
            state.params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=0.0,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=state.rollout,
            step_weight=pg.discount_weight(trajectory.step, hyper.discount) if weight_by_discount else None,
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
        return State(params, opt_state, rollout, scale, key, state.update, hyper), metrics

    def update(state: State) -> tuple[State, Metrics]:
        noise = held_noise(state.key, state.params, state.rollout, policy=policy, num_steps=num_steps)
        state, steps = jax.lax.scan(step, state, noise, length=num_steps)
        metrics = {**jax.tree.map(jnp.mean, steps), "num_nonfinite": steps["num_nonfinite"].sum()}
        return replace(state, update=state.update + 1), metrics | episode_metrics(state.rollout)

    return Recipe(init, update, num_updates, policy, value)
