"""Actor-critic using Kronecker-factored trust region. Wu, Mansimov, Grosse, Liao and Ba (2017)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import natural
from pgjax.recipes.acting import as_functions, normalized, require_feed_forward
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 4.0  # η, by which a step is scaled at most
    max_kl: Number = 0.05  # δ, mean divergence that a step may have, to second order, nats
    damping: Number = 0.01  # ξ, shared between the factors
    decay: Number = 0.95  # of the running mean of the factors, per update
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage
    value_coef: Number = 0.1  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy
    anneal: Number = 1.0  # share of η and of δ that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # with normalize_observations a `Normalized`: the network's, and the statistics that act
    factors: Any  # running mean of the Kronecker factors
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
    num_steps: int = 16,
    total_steps: int = 1_000_000,
    exact_factors: bool = False,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    normalize_observations: bool = False,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make an ACKTR run: for each rollout a step along the gradient of A2C through the inverse of Kronecker factors.

        θ <- θ - min(η, √(2 δ / xᵀ F x)) x,   x = F̂⁻¹ ∇L,   F̂_l = (A_l + ..) ⊗ (G_l + ..) for each layer l

    F is the Fisher matrix of the policy and of a critic that says N(V, 1), both as one joint distribution, so that they
    may share layers. The critic's part is Gauss and Newton's matrix. Rewards are normalised, so that the gradient is
    small and η is larger here than the 0.25 of the paper, with which the policy stays near uniform.

    Args:
        As `a2c.make_train`, but for feed-forward policies of Flax's dense layers and convolutions. Functions in place
        of a model must call Flax modules as well: see `natural.kronecker_factors`. Parameters outside these layers get
        no factors. And:
        exact_factors: whether the factors are expectations over actions and returns, rather than of one draw of either
            in each step, as in the paper.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). The metric `kl` is that of the policy after
        the update from the one that acted.
    """
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    functions = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )
    policy, value, init_params, _ = normalized(functions) if normalize_observations else functions

    def joint(params: Any, obs: Any) -> dict[str, Any]:
        if normalize_observations:  # once, so that a trunk that both share is called on one array
            params, obs = params.network, pg.envs.normalize(params.statistics, obs)
        values = functions.value(params, obs)[..., None]  # type: ignore[misc]
        return {"policy": functions.policy(params, obs), "value": pg.Normal(values, jnp.ones_like(values))}

    def mean_of(hyper: Hyper) -> optax.GradientTransformation:
        return optax.ema(hyper.decay, debias=True)

    def step_of(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        left = 1.0 - hyper.anneal * progress
        within = natural.scale_to_divergence(left * hyper.max_kl, max_scale=left * hyper.learning_rate)
        return optax.chain(natural.scale_by_kfac(hyper.damping), within, optax.scale(-1.0))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        like = jax.eval_shape(lambda: natural.kronecker_factors(None, params, rollout.obs, policy=joint))
        none_yet = mean_of(numbers).init(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))
        return State(params, none_yet, rollout, scale, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale = state.hyper, state.reward_scale
        key, act_key, *more = jax.random.split(state.key, 2 if exact_factors else 3)
        factor_key = None if exact_factors else more[0]
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))
        grads, info = pg.actor_critic(
            state.params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef,
        )  # fmt: skip
        grads = jax.tree.map(lambda g: g / num_steps, grads)  # a mean over time too, as the factors are
        drawn = natural.kronecker_factors(factor_key, state.params, trajectory.obs, policy=joint)
        factors, running = mean_of(hyper).update(drawn, state.factors)
        transform = step_of(hyper, state.update / num_updates)
        updates, _ = transform.update(
            grads, transform.init(state.params), state.params, factors=factors,
            fisher=natural.fisher_vector_product(state.params, trajectory.obs, policy=joint),
        )  # fmt: skip
        params = optax.apply_updates(state.params, updates)
        old, new = (pg.action_distribution(p, trajectory, policy=policy) for p in (state.params, params))
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
        metrics["kl"] = jnp.mean(old.kl_divergence(new))
        target = info.targets["value_target"]
        metrics["explained_variance"] = pg.diagnostics.explained_variance(target - info.targets["advantage"], target)
        if normalize_observations:  # only now: those that acted were those of the loss
            params = params._replace(statistics=pg.envs.update_statistics(state.params.statistics, trajectory.obs))
        state = State(params, running, rollout, scale, key, state.update + 1, hyper)
        return state, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy, value)
