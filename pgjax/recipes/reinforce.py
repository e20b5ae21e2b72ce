"""REINFORCE with reward-to-go, with or without a baseline. Williams (1992); Sutton and Barto (2018), section 13.4."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax.recipes.acting import as_functions
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates, episode_metrics


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-2  # of Adam
    discount: Number = 0.99  # γ, per environment step
    max_grad_norm: Number = 1e3  # the gradient is scaled down to this norm
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    opt_state: Any
    rollout: pg.RolloutState
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 64,
    num_steps: int = 512,
    total_steps: int = 2**21,
    baseline: Callable[[Array], Array] | None = pg.leave_one_out,
    standardized: bool = False,
    model: Any = None,
    policy: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
) -> Recipe:
    """Make a REINFORCE run: one gradient step for each rollout, no critic.

        θ <- θ + α/B Σ_b Σ_t (G_t - b_t) ∇log π(a_t|s_t)       through Adam, the gradient clipped by its norm

    Hyper-parameters, see `Hyper`, are given to the recipe or to its `init`.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each.
        num_envs: B, environments side by side.
        num_steps: T, environment steps in each rollout; rewards beyond it are not seen, so it should span a few times
            1 / (1 - discount) or whole episodes.
        total_steps: environment steps of the run over all environments.
        baseline: a function of the returns [T, B], or None.
        standardized: whether what the baseline leaves is brought to mean 0 and deviation 1 over the whole window. With
            baseline=None it is the form of PyTorch's example. It is biased: each return is in the mean and in the
            deviation that it is compared with, and the gradient loses its scale, so that steps do not shrink where
            returns hardly differ. One mean serves all steps, so that early ones, of larger returns, are reinforced
            more than late ones: that is no bias but variance.
        model: a Flax module with a method `policy`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [B, ...]; None takes the model's own.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics).

    Raises:
        TypeError: if a count is not an int, or if policy and init_params do not come together.
        ValueError: if a count is below 1, or if total_steps does not allow one update.

    References:
        Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning.
    """
    if standardized:
        baseline = _standardizing(baseline)
    num_updates = count_updates(total_steps, num_envs=num_envs, num_steps=num_steps)
    policy, _, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, init_params=init_params,
        policy_state=policy_state, critic=False,
    )  # fmt: skip

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        adam = optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5)
        return optax.flatten(optax.chain(optax.clip_by_global_norm(hyper.max_grad_norm), adam))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, rollout.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        return State(params, optimizer(numbers, 0.0).init(params), rollout, key, jnp.int32(0), numbers)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, act_key) = state.hyper, jax.random.split(state.key)
        rollout, trajectory = pg.rollout(
            act_key, state.params, state.rollout, policy=policy, env=env, env_params=env_params, num_steps=num_steps
        )
        grads, info = pg.reinforce(
            state.params, trajectory, policy=policy, discount=hyper.discount, baseline=baseline, state=state.rollout
        )
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": info.loss, "grad_norm": info.grad_norm, "num_nonfinite": info.num_nonfinite}
        return State(params, opt_state, rollout, key, state.update + 1, hyper), metrics | episode_metrics(rollout)

    return Recipe(init, update, num_updates, policy)


def _standardizing(baseline: Callable[[Array], Array] | None) -> Callable[[Array], Array]:
    """What is to be taken off the returns to leave the standard scores of what the baseline leaves."""
    return lambda returns: returns - pg.standardize(returns if baseline is None else returns - baseline(returns))
