"""Deterministic policy gradient with a compatible critic, learned as it acts. Silver et al. (2014)."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax.networks import action_box, default_actor_critic
from pgjax.recipes.acting import as_functions, require_feed_forward
from pgjax.recipes.agents import require_one_agent
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-3  # of Adam for the actor
    critic_learning_rate: Number = 3e-3  # of Adam for the value and for the weights of the compatible critic
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.9  # λ of the returns that the critic learns from; 0 is the one-step target of the paper
    noise: Number = 0.5  # σ of the exploration, in half widths of the box of actions
    noise_theta: Number = 0.2  # θ: how much the noise forgets in a step; 1 is white noise


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # of policy and value
    weights: Any  # w, like params: the advantage of an action is (a - μ(s))ᵀ J(s) w
    opt_state: Any  # of the actor, of value and weights
    rollout: pg.RolloutState
    reward_scale: Any  # `RewardScale`, or None
    noise: Array  # [num_envs, D], the Ornstein-Uhlenbeck process
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int = 8,
    total_steps: int = 1_000_000,
    normalize_rewards: bool = True,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
) -> Recipe:
    """Make a run of the deterministic policy gradient: actor and compatible critic from each window, then it is gone.

        Q_w(s, a) = (a - μ_θ(s))ᵀ J w + V_v(s),   J = ∂μ_θ(s)/∂θ;   y = the λ-return of r and V_v
        (w, v) <- (w, v) - Adam(∇ mean ½ (Q_w(s, a) - y)²);   θ <- θ + Adam(mean Jᵀ J w)

    It is the seed of `ddpg`, without replay and targets: since Q_w(s', μ(s')) = V_v(s'), the target needs no action.
    Returns over several steps are those of the policy with its noise. Windows are short, since each is worth one step
    of the optimisers, and the noise lasts for some steps, so that it moves what is slow.

    Args:
        env: the environment, with actions in a bounded box; gymnax >= 1.0 or of the same form.
        env_params: its parameters, see `init_rollout`.
        num_envs: environments side by side.
        num_steps: environment steps of each in one update.
        total_steps: environment steps of the run over all environments; a remainder is left out.
        normalize_rewards: whether rewards are divided by the running deviation of their discounted sum.
        model: a Flax module with the methods `policy` and `value`; None takes `networks.default_actor_critic` with a
            deterministic head.
        policy: in place of a model, policy(params, obs) -> distribution, whose mode acts.
        value: in place of a model, value(params, obs) -> [...].
        init_params: in place of a model, init_params(key, obs) -> params, or init_params(key).

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]); its policy is the actor without noise.

    Raises:
        TypeError: if a count is not an int, if the functions do not come together, or if actions are not in a box.
        ValueError: if env has several agents, if a count is too small, or if the box is not bounded.

    References:
        Silver, Lever, Heess, Degris, Wierstra and Riedmiller (2014), Deterministic policy gradient algorithms:
        COPDAC-Q, the mean over a batch taken and Adam in place of plain steps.
    """
    require_one_agent(env)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    low, high = (jnp.asarray(bound) for bound in action_box(env, env_params))
    if model is None and policy is None and value is None and init_params is None:
        model = default_actor_critic(env, env_params, head="deterministic")
    functions = require_feed_forward(
        as_functions(
            env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params
        )
    )
    policy, init_params = functions.policy, functions.init_params
    critic: Any = functions.value

    def behaviour(noise: Number, params: Any, obs: Any) -> pg.exploration.ClippedNormal:
        return pg.exploration.ClippedNormal(policy(params, obs).mode(), noise, low, high)

    def optimizers(hyper: Hyper) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        rates = hyper.learning_rate, hyper.critic_learning_rate
        return tuple(optax.flatten(optax.adam(rate)) for rate in rates)  # type: ignore[return-value]

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, noise_key, key = jax.random.split(key, 4)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs)
        params = init_params(model_key, rollout.obs, None)
        numbers = traced(Hyper, hyper, params)
        weights = jax.tree.map(jnp.zeros_like, params)
        actor_optimizer, critic_optimizer = optimizers(numbers)
        opt_state = actor_optimizer.init(params), critic_optimizer.init((params, weights))
        process = jax.random.normal(noise_key, (num_envs, *low.shape))
        scale = pg.envs.init_reward_scale(num_envs=num_envs) if normalize_rewards else None
        return State(params, weights, opt_state, rollout, scale, process, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, scale, (key, noise_key, act_key) = state.hyper, state.reward_scale, jax.random.split(state.key, 3)
        process, noise = pg.exploration.ornstein_uhlenbeck(
            noise_key, state.noise, num_steps=num_steps, theta=hyper.noise_theta, restart=state.rollout.step == 0
        )
        rollout, t = pg.rollout(
            act_key, state.params, state.rollout, env=env, env_params=env_params, num_steps=num_steps, noise=noise,
            policy=pg.bind(behaviour, hyper.noise),
        )  # fmt: skip
        wrong = jnp.sum(~jnp.isfinite(t.reward))
        if normalize_rewards:
            scale = pg.envs.update_reward_scale(scale, t.reward, done=t.done, discount=hyper.discount)
            t = replace(t, reward=pg.envs.scale_reward(scale, t.reward))
        y = pg.lambda_returns(
            t.reward, critic(state.params, t.next_obs), terminated=t.terminated, truncated=t.truncated,
            discount=hyper.discount, lam=hyper.lam,
        )  # fmt: skip

        def critic_loss(trained: Any) -> tuple[Array, tuple[Array, Array]]:
            params, weights = trained
            advantage, slope = pg.natural.deterministic_compatible_value(
                weights, jax.lax.stop_gradient(params), t.obs, action=t.action, policy=policy
            )
            q = advantage + critic(params, t.obs)
            return pg.value_loss(q, y).mean(), (q, slope)

        before = (state.params, state.weights)
        (loss, (q, slope)), grads = jax.value_and_grad(critic_loss, has_aux=True)(before)
        ascent = jax.grad(lambda params: -jnp.sum(policy(params, t.obs).mode() * slope, axis=-1).mean())(state.params)
        actor_optimizer, critic_optimizer = optimizers(hyper)
        critic_updates, critic_opt = critic_optimizer.update(grads, state.opt_state[1], before)
        actor_updates, actor_opt = actor_optimizer.update(ascent, state.opt_state[0], state.params)
        params, weights = optax.apply_updates(before, critic_updates)
        params = optax.apply_updates(params, actor_updates)
        metrics = {
            "loss": loss,
            "action_value": q.mean(),
            "slope": jnp.linalg.norm(slope, axis=-1).mean(),
            "grad_norm": jnp.linalg.norm(ravel_pytree(ascent)[0]),
            "num_nonfinite": wrong,
        }
        state = State(params, weights, (actor_opt, critic_opt), rollout, scale, process, key, state.update + 1, hyper)
        return state, metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy, critic)
