"""How much each estimator and baseline reduces the variance on CartPole and Pendulum, and where its gradient points.

The policy is one that PPO has partly trained, the critic is fitted to the returns of that policy. All estimators get
the same number of environment steps, on the same keys; the gradient that they are compared with is the mean of ten
million steps of an unbiased one. Writes variance_reduction.json, a page and a figure; with --docs those of the
documentation are written anew. With --fast the same in seconds, of a few estimators.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import optax
from common import quick_to_compile, write_json
from variance_noise import draw_pairs, with_figures
from variance_page import draw, page

import pgjax as pg
from pgjax import expectation

Array = jax.Array
DISCOUNT = 0.99
DIFFERENTIABLE = ("Pendulum-v1",)
TRAIN_STEPS = {"CartPole-v1": 20_000, "Pendulum-v1": 40_000}  # of PPO: so that there is something left to learn
WINDOWS = {"CartPole-v1": 500, "Pendulum-v1": 200}  # the limits of the environments: every episode is whole
DEAR = {"REINFORCE, leave-one-out weighted by scores": 2}  # rounds, of what takes a gradient for every step


class Size(NamedTuple):
    """How much is measured, as a share of the steps that the constants above name, and counts."""

    scale: float
    num_envs: int
    num_rounds: int
    pairs_per_round: int
    critic_steps: int  # environment steps of the windows that the critic is fitted to
    critic_updates: int
    reference_steps: int
    names: tuple[str, ...] | None  # of the estimators; None measures all


FULL = Size(1.0, 16, 8, 8, 800_000, 3_000, 10_000_000, None)
FAST = Size(0.03, 8, 2, 2, 240, 20, 1_024, ("REINFORCE", "REINFORCE, value baseline", "evolution strategy, antithetic"))


class Task(NamedTuple):
    """An environment, a policy that is partly trained, its critic in reward units, and its parameters."""

    env: Any
    env_params: Any
    policy: Callable[..., Any]
    value: Callable[..., Any]
    params: Any
    num_steps: int  # of a window
    train_steps: int  # of PPO


def task(name: str, size: Size) -> Task:
    """Train PPO for a while."""
    env, env_params = gymnax.make(name)
    total, window = int(TRAIN_STEPS[name] * size.scale), int(WINDOWS[name] * size.scale)
    recipe = pg.recipes.ppo.make_train(env, env_params, num_envs=32, num_steps=min(64, total // 32), total_steps=total)
    state, _ = recipe(jax.random.key(0), anneal=0.0)
    scale = jnp.sqrt(state.reward_scale.statistics.var + 1e-8)
    value = pg.bind(lambda scale, params, obs: scale * recipe.value(params, obs), scale)
    if name in DIFFERENTIABLE:
        env = env.with_transition_gradients()
    return Task(env, env_params, recipe.policy, value, state.params, window, total)


def first_episodes(trajectory: pg.Trajectory) -> tuple[pg.Trajectory, Array]:
    """Keep the first episode of each column, whose end is that of the window at the latest; and which rows it has.

    So the return of a column is a sum of at most T rewards, and every estimator has whole episodes of one objective.
    What is left of it depends on the time, so the observations get one more entry, the share of the window that is
    over.
    """
    done = trajectory.done.at[-1].set(True)
    alive = jnp.cumsum(done, axis=0) - done == 0

    def timed(obs: Array, step: Array) -> Array:
        return jnp.concatenate([obs, step[..., None] / len(done)], axis=-1)

    return (
        trajectory.replace(
            obs=timed(trajectory.obs, trajectory.step),
            next_obs=timed(trajectory.next_obs, trajectory.step + 1),
            reward=jnp.where(alive, trajectory.reward, 0.0),
            terminated=done,
            truncated=jnp.zeros_like(done),
        ),
        alive,
    )


def untimed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a policy or a value see observations without the time."""
    return lambda params, obs: function(params, obs[..., :-1])


def discounted(trajectory: pg.Trajectory) -> Array:
    ends = {"terminated": trajectory.terminated, "truncated": trajectory.truncated}
    return pg.discounted_returns(trajectory.reward, **ends, discount=DISCOUNT)


def play(key: Array, params: Any, t: Task, num_envs: int) -> tuple[pg.Trajectory, Array]:
    """Play the first episodes of num_envs environments."""
    first, second = jax.random.split(key)
    run = {"env": t.env, "env_params": t.env_params}
    state = pg.init_rollout(first, **run, num_envs=num_envs)
    return first_episodes(pg.rollout(second, params, state, policy=t.policy, **run, num_steps=t.num_steps)[1])


def fit_critic(key: Array, t: Task, size: Size) -> tuple[Callable[..., Any], dict[str, float]]:
    """Fit a network of observation and time to the discounted returns of independent episodes, by least squares.

    Returns:
        value(params, obs), which does not read params; and what it and PPO's own critic explain of the variance of the
        returns of further episodes, the share of rows that belong to first episodes, and the mean return.
    """

    def examples(key: Array) -> tuple[Array, Array, Array]:
        trajectory, alive = play(key, t.params, t, size.num_envs)
        return trajectory.obs, discounted(trajectory), alive

    data_key, init_key, draw_key, test_key = jax.random.split(key, 4)
    num_windows = max(size.critic_steps // (size.num_envs * t.num_steps), 2)
    gather = jax.jit(lambda keys: jax.lax.map(examples, keys))
    obs, target, alive = gather(jax.random.split(data_key, num_windows))
    inputs, target = obs[alive], target[alive]
    centre, spread = inputs.mean(0), inputs.std(0) + 1e-6
    low, high = target.mean(), target.std() + 1e-6
    inputs, target = (inputs - centre) / spread, (target - low) / high
    network = pg.networks.ValueNetwork()
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, size.critic_updates))

    def descend(carry: Any, key: Array) -> tuple[Any, None]:
        weights, memory = carry
        index = jax.random.randint(key, (1024,), 0, len(target))
        error = lambda weights: jnp.mean(jnp.square(network.apply(weights, inputs[index]) - target[index]))  # noqa: E731
        updates, memory = optimizer.update(jax.grad(error)(weights), memory)
        return (optax.apply_updates(weights, updates), memory), None

    start = network.init(init_key, inputs[:1])
    keys = jax.random.split(draw_key, size.critic_updates)
    weights, _ = jax.jit(lambda x: jax.lax.scan(descend, (x, optimizer.init(x)), keys))(start)[0]

    def fitted(weights: Any, params: Any, obs: Array) -> Array:
        return low + high * network.apply(weights, (obs - centre) / spread)

    value = pg.bind(fitted, weights)
    obs, target, alive = gather(jax.random.split(test_key, 2))
    explained = {
        name: float(pg.diagnostics.explained_variance(x(t.params, obs[alive]), target[alive]))
        for name, x in {"explained": value, "explained_by_ppo": untimed(t.value)}.items()
    }
    return value, {**explained, "share": float(alive.mean()), "objective": float(target[:, 0].mean())}


def estimates(t: Task, value: Callable[..., Any], size: Size) -> dict[str, Callable[..., Any]]:
    """Every estimator by name, as a function (key, params) -> gradient from num_envs trajectories."""
    policy, own_value = untimed(t.policy), untimed(t.value)

    def with_rollout(estimate: Callable[..., Any]) -> Callable[..., Any]:
        def function(key: Array, params: Any) -> Any:
            trajectory, alive = play(key, params, t, size.num_envs)
            common = {"policy": policy, "mask": alive}
            weight = pg.discount_weight(trajectory.step, DISCOUNT)
            return estimate(params, trajectory, common, weight)

        return function

    def score_function(
        estimator: Any, baseline: Any = None, *, fitted: Callable[..., Any] | None = None, weigh: bool = True
    ) -> Callable[..., Any]:
        """With a baseline of the returns, or with one that is fitted to (params, trajectory, policy and mask)."""

        def estimate(params: Any, trajectory: pg.Trajectory, common: Any, weight: Array) -> Any:
            given = fitted(params, trajectory, common) if fitted else baseline
            further = {"step_weight": weight} if weigh else {}
            return estimator(params, trajectory, **common, discount=DISCOUNT, baseline=given, **further)[0]

        return with_rollout(estimate)

    def by_value(params: Any, trajectory: pg.Trajectory, common: Any, value: Callable[..., Any] = value) -> Array:
        return pg.value_baseline(params, trajectory, value=value)

    def weighted(params: Any, trajectory: pg.Trajectory, common: Any) -> Array:
        squares = pg.square_scores(params, trajectory, **common)
        return pg.optimal_baseline(discounted(trajectory), squares)

    def linear(params: Any, trajectory: pg.Trajectory, common: Any) -> Array:
        features = pg.time_features(trajectory.obs[..., :-1], trajectory.step)
        weight = common["mask"].astype(features.dtype)
        return pg.cross_fitted_baseline(features, discounted(trajectory), weight, num_folds=2)

    def critic(estimator: Any, value: Callable[..., Any] = value, **options: Any) -> Callable[..., Any]:
        def estimate(params: Any, trajectory: pg.Trajectory, common: Any, weight: Array) -> Any:
            further = {"value": value, "discount": DISCOUNT, "value_coef": 0.0, "step_weight": weight}
            return estimator(params, trajectory, **common, **further, **options)[0]

        return with_rollout(estimate)

    def search(key: Array, params: Any) -> Any:
        """Half as many pairs as there are trajectories: as many environment steps."""
        inner, outer = params["params"], jax.random.split(key)[0]
        acting = {name: x for name, x in inner.items() if name != "critic"}

        def cost(key: Array, acting: Any) -> Array:
            whole = {"params": {**inner, **acting}}
            return -discounted(play(key, whole, t, 1)[0])[0, 0]

        pairs = max(size.num_envs // 2, 1)
        grads, _ = expectation.evolution_strategy(outer, acting, cost, num_pairs=pairs, scale=0.02, keyed=True)
        return {"params": {**jax.tree.map(jnp.zeros_like, inner), **grads}}

    found = {
        "likelihood ratio": score_function(pg.likelihood_ratio, weigh=False),
        "likelihood ratio, leave-one-out": score_function(pg.likelihood_ratio, pg.leave_one_out, weigh=False),
        "REINFORCE": score_function(pg.reinforce),
        "REINFORCE, leave-one-out": score_function(pg.reinforce, pg.leave_one_out),
        "REINFORCE, leave-one-out weighted by scores": score_function(pg.reinforce, fitted=weighted),
        "REINFORCE, linear baseline of the others": score_function(pg.reinforce, fitted=linear),
        "REINFORCE, value baseline": score_function(pg.reinforce, fitted=by_value),
        "GPOMDP": score_function(pg.gpomdp, weigh=False),
        "GPOMDP, leave-one-out": score_function(pg.gpomdp, pg.leave_one_out, weigh=False),
        "REINFORCE, value baseline, PPO's critic": score_function(
            pg.reinforce, fitted=functools.partial(by_value, value=own_value)
        ),
        "actor-critic λ=0": critic(pg.actor_critic, lam=0.0),
        "actor-critic λ=0, PPO's critic": critic(pg.actor_critic, own_value, lam=0.0),
        "actor-critic λ=0.95": critic(pg.actor_critic, lam=0.95),
        "actor-critic λ=1": critic(pg.actor_critic, lam=1.0),
        "actor-critic of 8 steps": critic(pg.n_step_actor_critic, n=8),
        "UPGO": critic(pg.upgo_actor_critic),
        "PPO, first step, standardised": critic(pg.ppo, lam=0.95),
        "evolution strategy, antithetic": search,
    }
    if getattr(t.env, "transition_gradients_enabled", False):
        found["pathwise"] = _pathwise(t, size)
    return {name: x for name, x in found.items() if size.names is None or name in size.names}


def _pathwise(t: Task, size: Size) -> Callable[..., Any]:
    def estimate(key: Array, params: Any) -> Any:
        first, second = jax.random.split(key)
        run = {"policy": t.policy, "env": t.env, "env_params": t.env_params}
        state = pg.init_rollout(first, t.env, t.env_params, num_envs=size.num_envs)
        noise = pg.rollout_noise(second, params, state, **run, num_steps=t.num_steps)
        return pg.pathwise_gradient(params, state, **run, noise=noise, discount=DISCOUNT)[0]

    return estimate


def measure(name: str, size: Size) -> dict[str, Any]:
    """Compare all estimators on one environment."""
    t = task(name, size)
    value, known = fit_critic(jax.random.key(3), t, size)
    compared = estimates(t, value, size)
    per_batch = size.num_envs * t.num_steps
    reference = pg.reference_gradient(
        jax.random.key(1), t.params, estimate=compared["REINFORCE, value baseline"],
        num_batches=max(size.reference_steps // per_batch, 2), steps_per_batch=per_batch,
    )  # fmt: skip
    error = float(reference.relative_error)
    print(f"{name}: the reference errs by {100 * error:.2g} %; {known}", flush=True)
    pairs, seconds = draw_pairs(
        compared, t.params, reference.gradient, num_rounds=size.num_rounds, num_pairs=size.pairs_per_round, dear=DEAR
    )
    return {
        "train_steps": t.train_steps,
        "num_steps": t.num_steps,
        "reference_steps": reference.num_steps,
        "reference_error": error,
        "steps": per_batch,
        **known,
        "seconds": seconds,
        "pairs": {estimator: {key: x.tolist() for key, x in each.items()} for estimator, each in pairs.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/variance"), help="where to write")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figure to write anew")
    parser.add_argument("--fast", action="store_true", help="a few estimators and samples, in seconds")
    parser.add_argument("--only", nargs="+", choices=list(WINDOWS), help="measure these; others are taken from --out")
    parser.add_argument("--again", action="store_true", help="measure nothing: write the page of the figures in --out")
    options = parser.parse_args(arguments)
    size = FAST if options.fast else FULL
    if options.fast:
        quick_to_compile()
    written = options.out / "variance_reduction.json"
    found = json.loads(written.read_text())["environments"] if options.only or options.again else {}
    for name in [] if options.again else options.only or (["CartPole-v1"] if options.fast else list(WINDOWS)):
        started = time.perf_counter()
        found[name] = measure(name, size)
        write_json(written, {"environments": found})
        print(f"{name}: {len(found[name]['pairs'])} estimators in {time.perf_counter() - started:.0f} s", flush=True)
    setting = json.loads(written.read_text())["setting"]
    kind = "processor seconds" if jax.default_backend() == "cpu" else "seconds"
    shown = {name: with_figures(result) for name, result in found.items()}
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        (folder / "variance_reduction.md").write_text(
            page(shown, size._asdict(), setting, discount=DISCOUNT, kind=kind)
        )
        for name, result in shown.items():
            draw(name, result, folder / "variance_reduction" / f"{name}.png")
        write_json(
            folder / "variance_reduction" / "variance_reduction.json", {"setting": setting, "environments": shown}
        )


if __name__ == "__main__":
    main()
