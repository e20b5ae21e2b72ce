"""Evolution strategies over whole episodes: Salimans et al. (2017), algorithm 1, PGPE and augmented random search."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

import pgjax as pg
from pgjax import expectation as ex
from pgjax._checks import as_positive_int
from pgjax.expectation.shaping import Shaping
from pgjax.recipes.acting import as_functions
from pgjax.recipes.hyper import Number, traced
from pgjax.recipes.recipe import Array, Metrics, Recipe, count_updates
from pgjax.recipes.searching import longest_episode, search_metrics
from pgjax.rollout import Evaluation


class Hyper(NamedTuple):
    """Hyper-parameters: traced, so that any of them may be vmapped over."""

    learning_rate: Number = 3e-2  # of Adam; of the plain step with method="ars"
    scale: Number = 0.1  # σ, deviation of the perturbations, units of the parameters; with method="pgpe" at the start
    weight_decay: Number = 0.0  # c of the penalty c/2 ‖θ‖², units of the direction per unit of the parameters
    anneal: Number = 1.0  # share of the learning rate that is gone at the end of the run, linearly


@struct.dataclass
class State:
    """Everything a run needs to go on, bit for bit."""

    params: Any  # the middle of the perturbations
    log_scale: Any  # a pytree like params, the logarithm of σ; None but with method="pgpe"
    opt_state: Any
    env_steps: Array  # int32, environment steps taken
    key: Array
    update: Array  # int32, updates done
    hyper: Hyper


def make_train(
    env: Any,
    env_params: Any,
    *,
    num_pairs: int = 32,
    num_envs: int = 2,
    num_steps: int | None = None,
    total_steps: int = 10_000_000,
    method: Literal["evolution_strategy", "pgpe", "ars"] = "evolution_strategy",
    shaping: Shaping | None = ex.centered_ranks,
    num_top: int | None = None,
    greedy: bool = True,
    chunk_size: int | None = None,
    model: Any = None,
    policy: Any = None,
    init_params: Any = None,
    policy_state: Any = None,
) -> Recipe:
    """Make a run of an evolution strategy: returns of whole episodes at perturbed parameters, no gradient of a policy.

        θ <- θ - ε/(2Nσ) Σ_i [u(f(θ + σ ε_i)) - u(f(θ - σ ε_i))] ε_i,   f = -mean return of whole episodes, by Adam

    The two sides of a pair have common random numbers: the same start states, transitions and noise of the actions.

    Shapes: metrics [num_updates].

    Args:
        env: the environment, gymnax >= 1.0 or of the same form.
        env_params: its parameters, for all environments or with one row for each of the num_envs.
        num_pairs: N.
        num_envs: episodes, side by side, of each of the 2N perturbed policies.
        num_steps: environment steps after which an episode is given up; None takes env_params.max_steps_in_episode,
            within which each ends. A return that was cut short is never taken for a whole one: f is then not a number,
            which ranks take for the worst, and which otherwise gives the direction 0.
        total_steps: environment steps of the run at most, if each episode takes num_steps; `env_steps` of the
            metrics has those that were taken.
        method: "evolution_strategy"; "pgpe" trains σ, one for each parameter, along with θ; "ars" weighs the num_top
            best directions by f over its deviation, and takes a plain step. See the functions of `pgjax.expectation`.
        shaping: u, for "evolution_strategy" alone: what becomes of all 2N values of f; None leaves them.
        num_top: for "ars" alone; None takes all N.
        greedy: act by the mode of the policy's distribution, as its perturbations explore; False takes a sample. Let
            the policy that was found act in the same way.
        chunk_size: how many pairs are evaluated side by side; None takes all at once.
        model: a Flax module with a method `policy`; None takes `networks.default_actor_critic`.
        policy: in place of a model, policy(params, obs) -> distribution, of any framework.
        init_params: in place of a model, init_params(key, obs) or init_params(key) -> params.
        policy_state: memory of a recurrent policy at the start of an episode, [num_envs, ...]; None takes the model's.

    Returns:
        The recipe: train(key, **hyper) -> (State, metrics). `episode_return` is the mean over the perturbed policies,
        and NaN if an episode was given up; `num_nonfinite` counts the policies with such a one.

    Raises:
        TypeError: if a count is not an int, or if policy and init_params do not come together.
        ValueError: if a count is below 1, if total_steps does not allow one update, if method is unknown, or if the
            environment does not say how long an episode may be and num_steps does not either.

    References:
        Salimans, Ho, Chen, Sidor and Sutskever (2017), Evolution strategies as a scalable alternative to reinforcement
        learning. Sehnke et al. (2010), Parameter-exploring policy gradients. Mania, Guy and Recht (2018), Simple random
        search of static policies is competitive for reinforcement learning.
    """
    num_steps = longest_episode(env, env_params) if num_steps is None else num_steps
    num_pairs = as_positive_int("num_pairs", num_pairs)
    num_updates = count_updates(total_steps, num_envs=2 * num_pairs * num_envs, num_steps=num_steps)
    if method not in ("evolution_strategy", "pgpe", "ars"):
        raise ValueError(f'method must be "evolution_strategy", "pgpe" or "ars", got {method!r}.')
    policy, _, init_params, policy_state = as_functions(
        env, env_params, num_envs=num_envs, model=model, policy=policy, init_params=init_params,
        policy_state=policy_state, critic=False,
    )  # fmt: skip

    def optimizer(hyper: Hyper, progress: Number) -> optax.GradientTransformationExtraArgs:
        rate = hyper.learning_rate * (1.0 - hyper.anneal * progress)
        return optax.flatten(optax.sgd(rate) if method == "ars" else optax.adam(rate, eps=1e-5))

    def init(key: Array, **hyper: Any) -> State:
        env_key, model_key, key = jax.random.split(key, 3)
        start = pg.init_rollout(env_key, env, env_params, num_envs=num_envs, policy_state=policy_state)
        params = init_params(model_key, start.obs, policy_state)
        numbers = traced(Hyper, hyper, params)
        log_scale = jax.tree.map(lambda x: jnp.full_like(x, jnp.log(numbers.scale)), params)
        log_scale = log_scale if method == "pgpe" else None
        opt_state = optimizer(numbers, 0.0).init((params, log_scale))
        return State(params, log_scale, opt_state, jnp.int32(0), key, jnp.int32(0), numbers)

    def cost(key: Array, params: Any) -> tuple[Array, Evaluation]:
        episodes = pg.evaluate(
            key, params, policy=policy, env=env, env_params=env_params, num_episodes=num_envs,
            policy_state=policy_state, max_steps=num_steps, greedy=greedy,
        )  # fmt: skip
        return -jnp.mean(episodes.episode_return), episodes

    def search(key: Array, state: State) -> Any:
        """Directions for (params, log_scale), and what was seen."""
        common: Any = {"num_pairs": num_pairs, "keyed": True, "chunk_size": chunk_size, "has_aux": True}
        scale = state.hyper.scale
        if method == "pgpe":
            scale = jax.tree.map(jnp.exp, state.log_scale)
            (grads, of_scale), info = ex.pgpe(key, state.params, cost, scale=scale, **common)
            return (grads, jax.tree.map(jnp.multiply, of_scale, scale)), info
        if method == "ars":
            grads, info = ex.ars(
                key, state.params, cost, scale=scale, num_top=num_pairs if num_top is None else num_top, **common
            )
        else:
            grads, info = ex.evolution_strategy(key, state.params, cost, scale=scale, shaping=shaping, **common)
        return (grads, None), info

    def update(state: State) -> tuple[State, Metrics]:
        hyper, (key, search_key) = state.hyper, jax.random.split(state.key)
        (grads, of_scale), info = search(search_key, state)
        grads, of_scale = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), (grads, of_scale))
        metrics = search_metrics(info, grads, num_steps=num_steps, env_steps=state.env_steps)
        grads = jax.tree.map(lambda g, x: g + hyper.weight_decay * x, grads, state.params)
        transform, middle = optimizer(hyper, state.update / num_updates), (state.params, state.log_scale)
        updates, opt_state = transform.update((grads, of_scale), state.opt_state, middle)
        params, log_scale = optax.apply_updates(middle, updates)
        return State(params, log_scale, opt_state, metrics["env_steps"], key, state.update + 1, hyper), metrics

    return Recipe(init, update, num_updates, policy)
