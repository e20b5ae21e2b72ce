"""Finite-difference policy gradient over whole episodes. Kiefer and Wolfowitz (1952); Spall (1992); Peters (2006)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import expectation as ex
from pgjax._checks import as_positive_int
from pgjax.recipes.acting import as_functions
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates
from pgjax.recipes.searching import longest_episode, search_metrics
from pgjax.rollout import Evaluation


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 1e-1  # of Adam
    epsilon: Number = 0.1  # ε, size of the perturbations, units of the parameters
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any
    opt_state: Any
    env_steps: Array  # int32, environment steps taken
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def linear_policy(env: Any, env_params: Any) -> Any:
    """Make the network that this recipe has by default: the head of the action space on the observation itself.

    Shapes: as `networks.default_actor_critic`.

    Args:
        env: the environment.
        env_params: its parameters.

    Returns:
        A Flax module with a method `policy`, without hidden layers.
    """
    return pg.networks.default_actor_critic(env, env_params, features=())


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_envs: int = 16,
    num_steps: int | None = None,
    total_steps: int = 10_000_000,
    method: Literal["central", "spsa", "regression"] = "central",
    num_pairs: int = 8,
    greedy: bool = True,
    chunk_size: int | None = None,
    model: Any = None,
    policy: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
) -> Recipe:
    """Make a run along finite differences of the return in the parameters of a small policy.

        θ_k <- θ_k - ε' [f(θ + ε e_k) - f(θ - ε e_k)] / 2ε,   f = -mean return of whole episodes,   through Adam

    All evaluations of an update have common random numbers with "central"; with the others the two sides of a pair do.

    Args:
        As `evolution_strategies.make_train`, and:
        num_envs: episodes, side by side, of each perturbed policy.
        method: "central" differences along each of the P parameters, 2P policies an update; "spsa", along num_pairs
            random signs of all; "regression", least squares through num_pairs differences along such signs.
        num_pairs: for "spsa" and "regression" alone; the latter determines the gradient from P pairs on.
        model: a Flax module with a method `policy`; None takes `linear_policy`.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics [num_updates]). `episode_return` is the mean over the
        perturbed policies.

    References:
        Kiefer and Wolfowitz (1952), Stochastic estimation of the maximum of a regression function. Spall (1992),
        Multivariate stochastic approximation using a simultaneous perturbation gradient approximation. Peters and
        Schaal (2006), Policy gradient methods for robotics.
    """
    num_steps = longest_episode(env, env_params) if num_steps is None else num_steps
    if method not in ("central", "spsa", "regression"):
        raise ValueError(f'method must be "central", "spsa" or "regression", got {method!r}.')
    if model is None and policy is None and init_params is None:
        model = linear_policy(env, env_params)
    policy, _, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, init_params=init_params,
        policy_state=policy_state, critic=False,
    )  # fmt: skip

    def start(key: Array) -> Any:
        env_key, model_key = jax.random.split(key)
        rollout = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        return init_params(model_key, rollout.obs, policy_state)

    num_params = sum(x.size for x in jax.tree.leaves(jax.eval_shape(start, jax.random.key(0))))
    members = 2 * (num_params if method == "central" else as_positive_int("num_pairs", num_pairs))
    num_updates = count_updates(total_steps, num_envs=members * num_envs, num_steps=num_steps)

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        return optax.flatten(optax.adam(hyper.learning_rate * (1.0 - hyper.anneal * progress), eps=1e-5))

    def init(key: Array, **hyper: Any) -> State:
        start_key, key = jax.random.split(key)
        params = start(start_key)
        numbers = traced(Hyper, hyper, params)
        return State(params, optimizer(numbers, 0.0).init(params), jnp.int32(0), key, jnp.int32(0), numbers)

    def cost(key: Array, params: Any) -> tuple[Array, Evaluation]:
        episodes = pg.evaluate(
            key, params, policy=policy, env=env, env_params=env_params, num_episodes=num_envs,
            policy_state=policy_state, max_steps=num_steps, greedy=greedy,
        )  # fmt: skip
        return -jnp.mean(episodes.episode_return), episodes

    def search(key: Array, params: Any, hyper: Hyper) -> Any:
        common: Any = {"epsilon": hyper.epsilon, "chunk_size": chunk_size, "has_aux": True}
        if method == "central":
            return ex.finite_difference(params, lambda params: cost(key, params), **common)
        along = ex.spsa if method == "spsa" else ex.regressed_difference
        return along(key, params, cost, num_pairs=num_pairs, keyed=True, **common)

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, search_key) = state.hyper, jax.random.split(state.key)
        grads, info = search(search_key, state.params, hyper)
        grads = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), grads)
        transform = optimizer(hyper, state.update / num_updates)
        updates, opt_state = transform.update(grads, state.opt_state, state.params)
        metrics = search_metrics(info, grads, num_steps=num_steps, env_steps=state.env_steps)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, metrics["env_steps"], key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy)
