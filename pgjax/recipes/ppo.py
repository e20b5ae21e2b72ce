"""Proximal policy optimisation. Schulman, Wolski, Dhariwal, Radford and Klimov (2017), algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax.recipes._objective import ppo_objective
from pgjax.recipes.acting import as_functions, normalized, window_values
from pgjax.recipes.recipe import Metrics, Recipe, count_updates, episode_metrics, require_divisor, traced

Array = jax.Array
Number = Array | float


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 2.5e-4  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    clip: Number = 0.2  # ε of the ratio
    value_clip: Number | None = None  # reward units that a value may move while a rollout is used; None sets no bound
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
    reward_scale: pg.envs.RewardScale | None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 2048,
    num_steps: int = 32,
    total_steps: int = 2**21,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
) -> Recipe:
    """Make a PPO run: rollout, generalised advantage, epochs over shuffled minibatches of the clipped objective.

        minimise mean of -min(ρ A, clip(ρ, 1-ε, 1+ε) A) + c_v ½ (V - A - v)² - c_e H,   ρ = π(a|s) / π_old(a|s)

    Shapes: metrics [num_updates].

    Args:
        As `a2c.make_train`, and:
        num_epochs: passes over each rollout.
        num_minibatches: minibatches in each pass; must divide num_envs * num_steps. With a recurrent policy whole
            sequences are kept, the environments alone are shuffled, and it must divide num_envs.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics).

    Example:
        >>> import gymnax, jax, pgjax.recipes
        >>> env, env_params = gymnax.make("CartPole-v1")
        >>> train = pgjax.recipes.ppo.make_train(env, env_params, num_envs=4, num_steps=8, total_steps=64)
        >>> state, metrics = train(jax.random.key(0), learning_rate=1e-3)
        >>> metrics["kl"].shape
        (2,)
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    functions = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state,
    )  # fmt: skip
    policy, value, init_params, policy_state = normalized(functions) if normalize_observations else functions
    recurrent = policy_state is not None
    require_divisor("num_minibatches", num_minibatches, num_envs * (1 if recurrent else num_steps))

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        learning_rate = hyper.learning_rate * (1.0 - hyper.anneal * progress)
        clip = optax.clip_by_global_norm(hyper.max_grad_norm)
        return optax.flatten(optax.chain(clip, optax.adam(learning_rate, eps=1e-5)))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        numbers = traced(Hyper, hyper)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        scale = pg.envs.init_reward_scale(num_envs=num_envs) if normalize_rewards else None
        return State(params, optimizer(numbers, 0.0).init(params), rollout, scale, key, jnp.int32(0), numbers)

    def loss(params: Any, minibatch: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        *data, start = minibatch
        trajectory, advantage, old_value = _turned(data) if recurrent else data
        each, metrics = ppo_objective(
            params, trajectory, policy=policy, value=value, advantage=pg.standardize(advantage), old_value=old_value,
            value_target=advantage + old_value, clip=hyper.clip, value_clip=hyper.value_clip,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip
        log_ratio = metrics.pop("log_ratio")
        metrics = {"loss": each, **metrics, "out_of_bounds_fraction": jnp.abs(log_ratio) > 20.0}
        metrics = {name: jnp.mean(x, dtype=jnp.float32) for name, x in metrics.items()}
        metrics["kl"] = pg.diagnostics.approximate_kl(log_ratio)
        metrics["clip_fraction"] = pg.diagnostics.clip_fraction(log_ratio, clip=hyper.clip)
        return jnp.mean(each), metrics

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key, shuffle_key) = state.hyper, state.reward_scale, jax.random.split(state.key, 3)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps,
            truncation_value=value if recurrent else None,
        )  # fmt: skip
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = trajectory.replace(reward=pg.envs.scale_reward(scale, trajectory.reward))
        values, next_values = window_values(state.params, trajectory, rollout, value=value)
        advantage = pg.gae(
            trajectory.reward, values, next_values, terminated=trajectory.terminated, truncated=trajectory.truncated,
            discount=hyper.discount, lam=hyper.lam,
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)

        def descend(carry: Any, minibatch: Any) -> tuple[Any, Metrics]:
            params, opt_state = carry
            grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, hyper)
            updates, opt_state = transform.update(grads, opt_state, params)
            flat = ravel_pytree(grads)[0]
            metrics |= {"grad_norm": jnp.linalg.norm(flat), "num_nonfinite": jnp.sum(~jnp.isfinite(flat))}
            return (optax.apply_updates(params, updates), opt_state), metrics

        data = (trajectory, advantage, values)
        (params, opt_state), metrics = pg.epochs(
            shuffle_key, (state.params, state.opt_state), (*_turned(data), state.rollout) if recurrent else (*data, None),
            step=descend, num_epochs=num_epochs, num_minibatches=num_minibatches, num_axes=1 if recurrent else 2,
        )  # fmt: skip
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        num_nonfinite = metrics.pop("num_nonfinite").sum()
        metrics = jax.tree.map(jnp.mean, metrics) | episode_metrics(rollout) | {"num_nonfinite": num_nonfinite}
        metrics["explained_variance"] = pg.diagnostics.explained_variance(values, advantage + values)
        return State(params, opt_state, rollout, scale, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)


def _turned(tree: Any) -> Any:
    """Swap time and environments."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
