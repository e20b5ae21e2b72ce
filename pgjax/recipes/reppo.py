"""Relative entropy pathwise policy optimisation. Voelcker et al. (2025): action values without a replay."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.networks import action_box, default_actor_with_critics
from pgjax.recipes import off_policy
from pgjax.recipes.agents import require_one_agent
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.off_policy import ActorAndCritic
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics, require_divisor


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam, for all that is learned
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the critic's target
    max_kl: Number = 0.1  # ε, nats: beyond it a state pulls the policy back to the one that acted
    entropy_per_action: Number = -0.5  # H, nats for each component of the action, in half widths of the box
    temperature: Number = 0.01  # α where the run starts, reward units per nat
    multiplier: Number = 0.01  # β where the run starts, reward units per nat
    low_value: Number = -10.0  # where the bins of the critic begin, in units of the rewards that it sees
    high_value: Number = 10.0  # where they end
    sigma: Number = 0.75  # of the normal around a target, in widths of a bin
    max_grad_norm: Number = 0.5  # the gradient is scaled down to this norm


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: ActorAndCritic
    log_temperature: Array
    log_multiplier: Array
    opt_state: Any
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def actor_objective(
    log_prob: Array, action_value: Array, kl: Array, *, temperature: Array, multiplier: Array, max_kl: Number
) -> Array:
    """Compute what actor and multiplier minimise: the loss of soft actor-critic near the old policy, the way back else.

        L = α log π(a|s) - Q(s, a) where KL < ε, β KL elsewhere;   and β (ε - stop(KL)) everywhere

    Only the gradient has a meaning. The arrays are [N].
    """
    near = kl < max_kl
    pulled = jnp.where(near, jax.lax.stop_gradient(kl), kl)
    held = pg.kl_constraint_loss(pulled, multiplier=multiplier, max_kl=max_kl)
    return held + jnp.where(near, pg.soft_policy_loss(action_value, log_prob, temperature=temperature), 0.0)


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 32,
    total_steps: int = 1_000_000,
    num_epochs: int = 4,
    num_minibatches: int = 16,
    num_bins: int = 151,
    normalize_rewards: bool = True,
    model: Any = None,
    policy: Any = None,
    critic: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a REPPO run: rollout, soft λ-returns of the actions taken, epochs over critic, actor and two multipliers.

        V' = Q(s', a') - α log π(a'|s'), a' ~ π;   H_t = r_t - α log π(a_t|s_t) + γ [(1 - λ) V'_t + λ H_{t+1}]
        the critic, a distribution over bins, by cross-entropy to a normal around G_t = H_t + α log π(a_t|s_t)
        the actor by α log π(a|s) - Q(s, a), a fresh, where KL(π_old ‖ π) < ε, and by β KL(π_old ‖ π) elsewhere
        log α by -α (log π(a|s) + H D),   log β by β (ε - KL)

    Targets are computed once for each window, with the parameters that acted. All four losses are taken in one step.
    Densities are those of actions in half widths of the box, so that a box in other units is the same problem.
    What the authors do otherwise: a critic's step before that of the actor in each minibatch; a divergence from draws,
    here in closed form; entropies in targets from the fresh actions, here from those taken; windows cut at a limit are
    left out of the critic's loss, here they are bootstrapped; and an auxiliary loss, by which the critic predicts its
    own features and the reward, which is left out here.

    Args:
        env: the environment, with actions in a bounded box; gymnax >= 1.0 or of the same form.
        env_params: its parameters, see `init_rollout`.
        num_envs: environments side by side.
        num_steps: environment steps of each in one update.
        total_steps: environment steps of the run over all environments; a remainder is left out.
        num_epochs: passes over each rollout.
        num_minibatches: minibatches in each pass; must divide num_envs * num_steps.
        num_bins: bins of the critic, at least 2. They reach from low_value to high_value, which must hold the returns.
        normalize_rewards: whether rewards are divided by the running deviation of their discounted sum, so that the
            same bins serve most environments.
        model: a Flax module with the methods `policy(obs)` and `action_value(obs, action)` -> [1, ..., num_bins]; None
            takes `networks.default_actor_with_critics` with a TanhNormal and normalised layers.
        policy: in place of a model, policy(params.actor, obs) -> a distribution with `sample_and_log_prob` and
            `kl_divergence`, whose samples carry gradients.
        critic: in place of a model, critic(params.critic, obs, action) -> [1, ..., num_bins], logits.
        init_params: in place of a model, init_params(key, obs) -> (actor, critic), or init_params(key).

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]).

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, if num_minibatches does not divide the rows, or
            if the box is not bounded.

    References:
        Voelcker et al. (2025), Relative entropy pathwise policy optimization.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    require_divisor("num_minibatches", num_minibatches, num_envs * num_steps)
    num_bins = _checks.as_positive_int("num_bins", num_bins, at_least=2)
    low, high = action_box(env, env_params)
    functions = off_policy.as_actor_and_critic(
        env, env_params, model=model, policy=policy, critic=critic, init_params=init_params,
        default=lambda: default_actor_with_critics(
            env, env_params, head="tanh_normal", num_critics=1, num_outputs=num_bins, layer_norm=True
        ),
    )  # fmt: skip
    policy, critic, init_params = functions
    units = float(np.log(0.5 * (high - low)).sum())  # log-densities count in half widths of the box

    def optimizer(hyper: Hyper) -> optax.GradientTransformationExtraArgs:
        clip = optax.clip_by_global_norm(hyper.max_grad_norm)
        return optax.flatten(optax.chain(clip, optax.adam(hyper.learning_rate)))

    def bins(hyper: Hyper) -> tuple[Array, Array]:
        edges = hyper.low_value + (hyper.high_value - hyper.low_value) * jnp.linspace(0.0, 1.0, num_bins + 1)
        return edges, 0.5 * (edges[1:] + edges[:-1])

    def draw(key: Array, distribution: Any) -> tuple[Array, Array]:
        action, log_prob = distribution.sample_and_log_prob(key)
        return action, log_prob + units

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs)
        numbers = traced(Hyper, hyper, params)
        scale = pg.envs.init_reward_scale(num_envs=num_envs) if normalize_rewards else None
        logs = jnp.log(numbers.temperature), jnp.log(numbers.multiplier)
        return State(
            params, *logs, optimizer(numbers).init((params, *logs)), rollout, scale, key, jnp.int32(0), numbers
        )

    def targets(key: Array, state: State, t: pg.Trajectory) -> Array:
        next_action, next_log_prob = draw(key, policy(state.params.actor, t.next_obs))
        q = pg.categorical_value(
            critic(state.params.critic, t.next_obs, next_action)[0], atoms=bins(state.hyper)[1]
        )  # fmt: skip
        temperature = jnp.exp(state.log_temperature)
        bonus = -temperature * (t.log_prob + units)
        return pg.lambda_returns(
            t.reward + bonus, pg.soft_value(q, next_log_prob, temperature=temperature), terminated=t.terminated,
            truncated=t.truncated, discount=state.hyper.discount, lam=state.hyper.lam,
        ) - bonus  # fmt: skip

    def loss(learned: Any, key: Array, rows: Any, hyper: Hyper) -> tuple[Array, Metrics]:
        params, log_temperature, log_multiplier = learned
        (obs, taken, y, old), (edges, middles) = rows, bins(hyper)
        logits = critic(params.critic, obs, taken)[0]
        probs = pg.hl_gauss_target(y, edges=edges, sigma=hyper.sigma * (edges[1] - edges[0]))
        new = policy(params.actor, obs)
        action, log_prob = draw(key, new)
        judged = critic(jax.lax.stop_gradient(params.critic), obs, action)[0]
        kl = old.kl_divergence(new)
        target_entropy = hyper.entropy_per_action * low.size
        parts = {
            "loss": pg.categorical_loss(logits, probs),
            "actor_loss": actor_objective(
                log_prob, pg.categorical_value(judged, atoms=middles), kl, max_kl=hyper.max_kl,
                temperature=jnp.exp(log_temperature), multiplier=jnp.exp(log_multiplier),
            ),
            "temperature_loss": pg.temperature_loss(log_temperature, log_prob, target_entropy=target_entropy),
        }  # fmt: skip
        parts = jax.tree.map(jnp.mean, parts)
        metrics = {
            "loss": parts["loss"],
            "actor_loss": parts["actor_loss"],
            "action_value": pg.categorical_value(logits, atoms=middles).mean(),
            "entropy": -log_prob.mean(),
            "kl": kl.mean(),
            "held_fraction": jnp.mean(kl >= hyper.max_kl, dtype=jnp.float32),
        }
        return parts["loss"] + parts["actor_loss"] + parts["temperature_loss"], metrics

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale = state.hyper, state.reward_scale
        key, act_key, target_key, shuffle_key, draw_key = jax.random.split(state.key, 5)
        rollout, t = pg.rollout(
            act_key, state.params.actor, state.rollout, policy=policy, env=env, env_params=env_params,
            num_steps=num_steps,
        )  # fmt: skip
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, t.reward, done=t.done, discount=hyper.discount)
            t = replace(t, reward=pg.envs.scale_reward(scale, t.reward))
        y, transform = targets(target_key, state, t), optimizer(hyper)

        def descend(carry: Any, rows: Any) -> tuple[Any, Metrics]:
            learned, opt_state, key = carry
            key, noise_key = jax.random.split(key)
            grads, metrics = jax.grad(loss, has_aux=True)(learned, noise_key, rows, hyper)
            updates, opt_state = transform.update(grads, opt_state, learned)
            flat = ravel_pytree(grads)[0]
            metrics |= {"grad_norm": jnp.linalg.norm(flat), "num_nonfinite": jnp.sum(~jnp.isfinite(flat))}
            return (optax.apply_updates(learned, updates), opt_state, key), metrics

        before = state.params, state.log_temperature, state.log_multiplier
        rows = t.obs, t.action, y, policy(state.params.actor, t.obs)
        (learned, opt_state, _), metrics = pg.epochs(
            shuffle_key, (before, state.opt_state, draw_key), rows, step=descend,
            num_epochs=num_epochs, num_minibatches=num_minibatches,
        )  # fmt: skip
        params, log_temperature, log_multiplier = learned
        metrics = {**jax.tree.map(jnp.mean, metrics), "num_nonfinite": metrics["num_nonfinite"].sum()}
        outside = (y < hyper.low_value) | (y > hyper.high_value)
        metrics |= {
            "temperature": jnp.exp(log_temperature),
            "multiplier": jnp.exp(log_multiplier),
            "clipped_fraction": jnp.mean(outside, dtype=jnp.float32),
        }
        state = State(
            params, log_temperature, log_multiplier, opt_state, rollout, scale, key, state.update + 1, hyper
        )  # fmt: skip
        return state, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, lambda params, obs: policy(params.actor, obs))
