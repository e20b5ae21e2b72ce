"""Stein variational policy gradient. Liu, Ramachandran, Liu and Peng (2017), algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

import pgjax as pg
from pgjax import _checks
from pgjax.recipes.acting import as_functions, combine, partition, read_by
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-2  # of Adam
    discount: Number = 0.99  # γ, per environment step
    lam: Number = 0.95  # λ of the advantage; with a critic
    value_coef: Number = 0.5  # weight of the critic's loss; with a critic
    entropy_coef: Number = 0.0  # weight of the entropy, reward units per nat; with a critic
    temperature: Number = 10.0  # α, in the units of the sum of rewards over a window; 0 is without repulsion and prior
    cooling: Number = 0.0  # share of the temperature that is gone at the end of the run, linearly
    prior_scale: Number = float("inf")  # deviation of the prior, a normal around 0; infinite is the flat one
    max_grad_norm: Number = 10.0  # the direction of a particle is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # those of the particle that returned most of late
    particles: Any  # leaves [n, ...]
    opt_state: Any  # leaves [n, ...]
    rollout: pg.RolloutState  # leaves [n, B, ...]
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_particles: int = 16,
    num_envs: int = 16,
    num_steps: int = 32,
    total_steps: int = 2**21,
    critic: bool = True,
    model: Any = None,
    policy: Any = None,
    value: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
) -> Recipe:
    """Make a run of a population of policies that is drawn towards exp(J(θ)/α) q₀(θ), where plain gradients climb.

        θ_i <- θ_i + ε/n Σ_j [k(θ_j, θ_i) (∇J(θ_j) + α ∇log q₀(θ_j)) + α ∇_{θ_j} k(θ_j, θ_i)]      through Adam

    Each particle has environments of its own. The kernel sees the parameters that the policy reads, found by tracing
    it; all others are a critic's, which learns by itself. What both read goes with the policy.

    Args:
        As `a2c.make_train`, and:
        num_particles: n.
        num_envs: B, environments of each particle.
        total_steps: environment steps of the run over all particles and environments.
        critic: advantages from a critic of each particle, as in `a2c`; False takes the returns within a window less
            their mean over the other environments, as in `reinforce`, and needs no value.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). `recipe.policy` takes the parameters of one
        particle: `state.params` are those with the highest mean return over the latest episode of each environment of
        its own (before any particle has one, the first), a maximum over noise that flatters; `state.particles` has
        all. Metrics are means over particles, but `best_return`, and `spread`, the root mean square distance of the
        particles from their middle.

    References:
        Liu, Ramachandran, Liu and Peng (2017), Stein variational policy gradient.
    """
    num_particles = _checks.as_positive_int("num_particles", num_particles)
    num_updates = count_updates(total_steps, num_envs=num_particles * num_envs, num_steps=num_steps)
    policy, value, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, value=value, init_params=init_params,
        policy_state=policy_state, critic=critic,
    )  # fmt: skip

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)

        def start(env_key: Array, model_key: Array) -> tuple[pg.RolloutState, Any]:
            rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
            return rollout, init_params(model_key, rollout.obs, policy_state)

        keys = (jax.random.split(key, num_particles) for key in (env_key, model_key))
        rollout, particles = jax.vmap(start)(*keys)
        numbers = traced(Hyper, hyper, particles)
        opt_state = jax.vmap(optimizer(numbers, 0.0).init)(particles)
        first = jax.tree.map(lambda x: x[0], particles)
        return State(first, particles, opt_state, rollout, key, jnp.int32(0), numbers)

    def act_and_estimate(key: Array, params: Any, start: pg.RolloutState, hyper: Hyper) -> Any:
        rollout, trajectory = pg.rollout(
            key, params, start, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        if not critic:
            return rollout, *pg.reinforce(
                params, trajectory, policy=policy, discount=hyper.discount, baseline=pg.leave_one_out, state=start
            )
        return rollout, *pg.actor_critic(
            params, trajectory, policy=policy, value=value, discount=hyper.discount, lam=hyper.lam,
            value_coef=hyper.value_coef, entropy_coef=hyper.entropy_coef, state=start,
        )  # fmt: skip

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key) = state.hyper, jax.random.split(state.key)
        keys = jax.random.split(act_key, num_particles)
        each = jax.vmap(act_and_estimate, in_axes=(0, 0, 0, None))
        rollout, grads, info = each(keys, state.particles, state.rollout, hyper)

        progress = state.update / num_updates
        one = jax.tree.map(lambda x: x[0], rollout)
        read = read_by(policy, state.params, one.obs, policy_state=one.policy_state)
        theta, _ = partition(state.particles, read)
        along, alone = partition(grads, read)
        along = pg.svgd_direction(
            along, theta, temperature=hyper.temperature * (1.0 - hyper.cooling * progress),
            log_prior=lambda theta: -0.5 * jnp.sum(jnp.square(ravel_pytree(theta)[0] / hyper.prior_scale)),
        )  # fmt: skip
        transform = optimizer(hyper, progress)
        updates, opt_state = jax.vmap(transform.update)(combine(along, alone), state.opt_state, state.particles)
        particles = optax.apply_updates(state.particles, updates)

        returns = rollout.episode_return.reshape(num_particles, -1).mean(1)  # NaN until all its environments have one
        best = jnp.argmax(jnp.where(jnp.isnan(returns), -jnp.inf, returns))
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, **info.metrics}
        metrics = jax.tree.map(jnp.mean, metrics) | {
            "num_nonfinite": info.num_nonfinite.sum(),
            "spread": jnp.sqrt(sum(jnp.sum(jnp.var(x, axis=0)) for x in jax.tree.leaves(theta))),
            "best_return": returns[best],
            **episode_metrics(rollout),
        }
        params = jax.tree.map(lambda x: x[best], particles)
        return State(params, particles, opt_state, rollout, key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy, value)
