"""Off-policy actor-critic, with or without emphatic weights. Degris et al. (2012); Imani et al. (2018)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax._ratios import ratio_of
from pgjax._types import Policy
from pgjax.distributions import tempered
from pgjax.recipes.acting import as_functions, require_feed_forward
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics
from pgjax.rollout.policies import apply_policy


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.9  # λ of the V-trace target
    behaviour_temperature: Number = 1.5  # τ of the default behaviour, π^(1/τ)
    emphatic_lam: Number = 1.0  # λ_a of the emphasis: 0 counts each visited state alike, 1 in full; if emphatic
    clip_rho: Number = float("inf")  # ρ̄, bound of the ratios of the critic's errors; inf: V of the learned policy
    clip_c: Number = 1.0  # c̄, bound of the ratios that carry errors back
    clip_pg_rho: Number = float("inf")  # bound of the ratios of the actor
    value_coef: Number = 0.5  # weight of the critic's loss
    entropy_coef: Number = 0.01  # weight of the entropy, reward units per nat
    max_grad_norm: Number = 10.0  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    opt_state: Any
    followed: Array  # [B] float, γ ρ F of the last step, 0 where an episode ended: the follow-on trace goes on from it
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 4,
    total_steps: int = 2**20,
    behaviour: Policy | None = None,
    emphatic: bool = False,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    normalize_rewards: bool = True,
) -> Recipe:
    """Make an off-policy actor-critic run: another policy acts, one gradient step for each rollout.

        ρ_t = π(a_t|s_t) / μ(a_t|s_t),   v and q of V-trace
        minimise 1/B Σ_b Σ_t [-M_t ρ_t (r_t + γ q_t - V(s_t)) log π(a_t|s_t) + c_v ½ (V(s_t) - v_t)² - c_e H]   by Adam
        M_t = 1,  or emphatic  M_t = (1 - λ_a) + λ_a F_t,   F_t = 1 + γ ρ_{t-1} F_{t-1}

    Only the action is corrected for; states are those that μ visits. With M = 1 the direction leaves out how π changes
    the values of later states: where states share parameters it need not ascend the objective Σ_s d_μ(s) V(s). With
    λ_a = 1 it is that objective's gradient, at the price of a variance that may be infinite: see
    `exact.followon_spectral_radius`. The critic learns from V-trace targets, without a bound on the errors' ratios by
    default, so that its fixed point is the value of π; the paper's is GTD(λ). Hyper-parameters, see `Hyper`, are given
    to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each.
        num_envs: B, environments side by side.
        num_steps: T, environment steps in each rollout.
        total_steps: environment steps of the run over all environments.
        behaviour: μ, behaviour(params, obs) -> distribution, the policy that acts; it need not look at params. It must
            be able to take every action that π can take. None takes π flattened by the temperature, see
            `distributions.tempered`.
        emphatic: whether to weigh steps by their emphasis. The follow-on trace is carried from rollout to rollout.
        model: a Flax module, see `recipes.as_functions`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, feed-forward, of any framework.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        normalize_rewards: divide rewards by the running deviation of their discounted sum. The critic then counts in
            scaled units; the metrics of episodes keep reward units.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics). `episode_return` is that of the policy that acts, which is
        not the one that learns: play `recipe.policy` with `evaluate`. `ratio_max` is the greatest ρ, `effective_share`
        the effective sample size of the weights M ρ as a share of the window.

    Raises:
        TypeError: if a count is not an int, if policy, value and init_params do not come together, if the model is
            recurrent, or if behaviour is no function.
        ValueError: if a count is below 1, or if total_steps does not allow one update.

    References:
        Degris, White and Sutton (2012), Off-policy actor-critic.
        Imani, Graves and White (2018), An off-policy policy gradient theorem using emphatic weightings.
        Espeholt et al. (2018), IMPALA: scalable distributed deep-RL with importance weighted actor-learner
        architectures, for the targets.
    """
    if behaviour is not None and not callable(behaviour):
        raise TypeError(f"behaviour must be a function of (params, obs) or None, got {type(behaviour).__name__}.")
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    policy, value, init_params, _ = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )

    def flattened(temperature: Array, params: Any, obs: Any) -> Any:
        return tempered(apply_policy(policy, params, obs, None)[0], temperature)

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        agents = rollout.episode_return.shape[1:]
        scale = pg.envs.init_reward_scale(num_envs=num_envs, agents=agents) if normalize_rewards else None
        followed = jnp.zeros_like(rollout.running_return)
        opt_state = optimizer(numbers, 0.0).init(params)
        return State(params, opt_state, followed, rollout, scale, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key)
        acting = pg.bind(flattened, hyper.behaviour_temperature) if behaviour is None else behaviour
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=acting, env=env, env_params=env_params, num_steps=num_steps
        )
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, trajectory.reward, done=trajectory.done, discount=hyper.discount)
            trajectory = replace(trajectory, reward=pg.envs.scale_reward(scale, trajectory.reward))
        distribution = pg.action_distribution(state.params, trajectory, policy=policy)
        log_ratio = pg.log_prob_taken(distribution, trajectory) - trajectory.log_prob

        weight, followed = jnp.ones_like(log_ratio), state.followed
        if emphatic:
            follow_on = pg.emphatic_weight(
                log_ratio, terminated=trajectory.terminated, truncated=trajectory.truncated, discount=hyper.discount,
                initial=followed,
            )  # fmt: skip
            weight = (1.0 - hyper.emphatic_lam) + hyper.emphatic_lam * follow_on
            handed_on = hyper.discount * ratio_of(log_ratio[-1]) * follow_on[-1]
            followed = jnp.where(trajectory.done[-1], 0.0, handed_on)
        grads, info = pg.vtrace_actor_critic(
            state.params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            clip_rho=hyper.clip_rho, clip_c=hyper.clip_c, clip_pg_rho=hyper.clip_pg_rho, step_weight=weight,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef,
        )  # fmt: skip
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite, **info.metrics}
        log_weight = (log_ratio + jnp.log(weight)).ravel()
        metrics["ratio_max"] = ratio_of(log_ratio.max())
        metrics["effective_share"] = pg.diagnostics.effective_sample_size(log_weight) / log_weight.size
        return State(
            optax.apply_updates(state.params, updates), opt_state, followed, rollout, scale, key, state.update + 1,
            hyper,
        ), metrics | episode_metrics(rollout)  # fmt: skip

    return Recipe(init, update, num_updates, policy, value)
