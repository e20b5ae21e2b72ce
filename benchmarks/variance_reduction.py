"""How much each estimator and baseline reduces the variance on CartPole and Pendulum, and where its gradient points.

The policy is one that PPO has partly trained. All estimators get the same number of environment steps, on the same
keys; the gradient that they are compared with is the mean of ten million steps of an unbiased one. Writes
variance_reduction.json, a page and a figure; with --docs the page and the figure of the documentation are written anew.
With --fast the same in seconds, of a few estimators.
"""

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from certificates_page import number, table
from common import COLOURS, axes, quick_to_compile, save, setting, write_json

import pgjax as pg
from pgjax import expectation

DISCOUNT = 0.99
DIFFERENTIABLE = ("Pendulum-v1",)


class Size(NamedTuple):
    """How much is measured."""

    train_steps: int
    num_envs: int
    num_steps: int
    num_pairs: int
    reference_steps: int
    names: tuple[str, ...] | None  # of the estimators; None measures all


FULL = Size(40_000, 64, 128, 64, 10_000_000, None)
FAST = Size(2_048, 8, 8, 4, 1_024, ("REINFORCE", "REINFORCE, value baseline", "evolution strategy, antithetic"))


class Task(NamedTuple):
    """An environment, a policy that is partly trained, its critic in reward units, and its parameters."""

    env: Any
    env_params: Any
    policy: Callable[..., Any]
    value: Callable[..., Any]
    params: Any


def task(name: str, size: Size) -> Task:
    """Train PPO for a while."""
    env, env_params = gymnax.make(name)
    steps = min(64, size.train_steps // 32)
    recipe = pg.recipes.ppo.make_train(env, env_params, num_envs=32, num_steps=steps, total_steps=size.train_steps)
    state, _ = recipe(jax.random.key(0), anneal=0.0)
    scale = jnp.sqrt(state.reward_scale.statistics.var + 1e-8)
    value = pg.bind(lambda scale, params, obs: scale * recipe.value(params, obs), scale)
    if name in DIFFERENTIABLE:
        env = env.with_transition_gradients()
    return Task(env, env_params, recipe.policy, value, state.params)


def first_episodes(trajectory: pg.Trajectory) -> tuple[pg.Trajectory, jax.Array]:
    """Keep the first episode of each column, whose end is that of the window at the latest; and which rows it has.

    So the return of a column is a sum of at most T rewards, and every estimator has whole episodes of one objective.
    """
    done = trajectory.done.at[-1].set(True)
    alive = jnp.cumsum(done, axis=0) - done == 0
    return (
        trajectory.replace(
            reward=jnp.where(alive, trajectory.reward, 0.0),
            terminated=done,
            truncated=jnp.zeros_like(done),
        ),
        alive,
    )


def estimates(t: Task, size: Size) -> dict[str, Callable[..., Any]]:
    """Every estimator by name, as a function (key, params) -> gradient from num_envs trajectories."""
    run = {"env": t.env, "env_params": t.env_params}
    start = functools.partial(pg.init_rollout, **run, num_envs=size.num_envs)

    def with_rollout(estimate: Callable[..., Any]) -> Callable[..., Any]:
        def function(key: jax.Array, params: Any) -> Any:
            first, second = jax.random.split(key)
            _, window = pg.rollout(second, params, start(first), policy=t.policy, **run, num_steps=size.num_steps)
            trajectory, alive = first_episodes(window)
            common = {"policy": t.policy, "mask": alive}
            weight = pg.discount_weight(trajectory.step, DISCOUNT)
            return estimate(params, trajectory, common, weight)

        return function

    def discounted(trajectory: pg.Trajectory) -> jax.Array:
        ends = {"terminated": trajectory.terminated, "truncated": trajectory.truncated}
        return pg.discounted_returns(trajectory.reward, **ends, discount=DISCOUNT)

    def score_function(
        estimator: Any, baseline: Any = None, *, fitted: Callable[..., Any] | None = None, weigh: bool = True
    ) -> Callable[..., Any]:
        """With a baseline of the returns, or with one that is fitted to (params, trajectory, policy and mask)."""

        def estimate(params: Any, trajectory: pg.Trajectory, common: Any, weight: jax.Array) -> Any:
            given = fitted(params, trajectory, common) if fitted else baseline
            further = {"step_weight": weight} if weigh else {}
            return estimator(params, trajectory, **common, discount=DISCOUNT, baseline=given, **further)[0]

        return with_rollout(estimate)

    def by_value(params: Any, trajectory: pg.Trajectory, common: Any) -> jax.Array:
        return pg.value_baseline(params, trajectory, value=t.value)

    def weighted(params: Any, trajectory: pg.Trajectory, common: Any) -> jax.Array:
        squares = pg.square_scores(params, trajectory, **common)
        return pg.optimal_baseline(discounted(trajectory), squares)

    def linear(params: Any, trajectory: pg.Trajectory, common: Any) -> jax.Array:
        features = pg.time_features(trajectory.obs, trajectory.step)
        weight = common["mask"].astype(features.dtype)
        return pg.cross_fitted_baseline(features, discounted(trajectory), weight, num_folds=2)

    def critic(estimator: Any, **options: Any) -> Callable[..., Any]:
        def estimate(params: Any, trajectory: pg.Trajectory, common: Any, weight: jax.Array) -> Any:
            further = {"value": t.value, "discount": DISCOUNT, "value_coef": 0.0, "step_weight": weight}
            return estimator(params, trajectory, **common, **further, **options)[0]

        return with_rollout(estimate)

    def search(key: jax.Array, params: Any) -> Any:
        """Half as many pairs as there are trajectories: as many environment steps."""
        inner, outer = params["params"], jax.random.split(key)[0]
        acting = {name: x for name, x in inner.items() if name != "critic"}

        def cost(key: jax.Array, acting: Any) -> jax.Array:
            whole = {"params": {**inner, **acting}}
            first, second = jax.random.split(key)
            state = pg.init_rollout(first, **run, num_envs=1)
            _, window = pg.rollout(second, whole, state, policy=t.policy, **run, num_steps=size.num_steps)
            return -discounted(first_episodes(window)[0])[0, 0]

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
        "actor-critic λ=0": critic(pg.actor_critic, lam=0.0),
        "actor-critic λ=0.95": critic(pg.actor_critic, lam=0.95),
        "actor-critic λ=1": critic(pg.actor_critic, lam=1.0),
        "actor-critic of 8 steps": critic(pg.n_step_actor_critic, n=8),
        "UPGO": critic(pg.upgo_actor_critic),
        "PPO, first step, standardised": critic(pg.ppo, lam=0.95),
        "evolution strategy, antithetic": search,
    }
    if getattr(t.env, "transition_gradients_enabled", False):
        found["pathwise"] = _pathwise(t, size, run, start)
    return {name: x for name, x in found.items() if size.names is None or name in size.names}


def _pathwise(t: Task, size: Size, run: dict[str, Any], start: Callable[..., Any]) -> Callable[..., Any]:
    def estimate(key: jax.Array, params: Any) -> Any:
        first, second = jax.random.split(key)
        state = start(first)
        noise = pg.rollout_noise(second, params, state, policy=t.policy, **run, num_steps=size.num_steps)
        return pg.pathwise_gradient(params, state, policy=t.policy, **run, noise=noise, discount=DISCOUNT)[0]

    return estimate


def measure(name: str, size: Size) -> dict[str, Any]:
    """Compare all estimators on one environment."""
    t = task(name, size)
    compared = estimates(t, size)
    per_batch = size.num_envs * size.num_steps
    reference = pg.reference_gradient(
        jax.random.key(1), t.params, estimate=compared["REINFORCE, value baseline"],
        num_batches=max(size.reference_steps // per_batch, 2), steps_per_batch=per_batch,
    )  # fmt: skip
    result = pg.compare_estimators(
        jax.random.key(2), t.params, estimators=compared, num_pairs=size.num_pairs,
        reference=reference.gradient, steps_per_estimate=per_batch,
    )  # fmt: skip
    plain = result.noise["REINFORCE"]
    rows = {
        estimator: {
            "variance": [x / plain.variance.mean for x in noise.variance],
            "variance_per_second": [x / plain.variance_per_second.mean for x in noise.variance_per_second],
            "cosine": list(noise.reference_cosine or ()),
            "signal_to_noise": list(noise.signal_to_noise),
            "seconds": noise.seconds,
        }
        for estimator, noise in result.noise.items()
    }
    return {
        "reference_steps": reference.num_steps,
        "reference_error": float(reference.relative_error),
        "steps": per_batch,
        "rows": rows,
    }


PAGE = """# Variance reduction, measured

What baselines, critics and other estimators are worth on real environments, at equal numbers of environment
steps and of seconds. *This page is written by `make variance DOCS=1`; do not edit it.* Measured on {processor}
({device}), Python {python}, jax {jax}, gymnax {gymnax}, pgjax {pgjax}, on {date}.

The policy is one that PPO has trained for {train} steps with its defaults. The objective is the expected return
of the first episode, discounted by {discount}, cut after {num_steps} steps. Each estimate is made of {num_envs}
trajectories; the evolution strategy plays as many, in pairs, with a deviation of 0.02. Variance is that of one
estimate relative to plain REINFORCE; per second, times the seconds of rollout and estimate. The cosine is that
to the mean of {reference} steps of REINFORCE with the value as baseline, which is unbiased. Intervals hold the
true mean with 95 % probability, from {num_pairs} pairs of estimates; every estimator sees the same keys. The
critic is PPO's, trained on endless episodes: as a baseline it does no harm, as a bootstrap it biases. A
standardised advantage changes the length of the gradient, and so its variance; the cosine tells.

![Variance and cosine](variance_reduction/variance_reduction.png)
"""


def page(found: dict[str, Any], size: Size) -> str:
    """Write the page."""
    first = next(iter(found.values()))
    told = {"train": size.train_steps, "discount": DISCOUNT, **size._asdict(), "reference": first["reference_steps"]}
    told = {name: f"{x:,}" if isinstance(x, int) else x for name, x in told.items()}
    parts = [PAGE.format(**setting(), **told)]
    spread = lambda x: f"{number(x[0])} [{number(x[1])}, {number(x[2])}]"  # noqa: E731
    for name, result in found.items():
        rows = sorted(result["rows"].items(), key=lambda item: item[1]["variance"][0])
        columns = [
            ("Estimator", lambda row: row[0]),
            ("variance", lambda row: spread(row[1]["variance"])),
            ("variance per second", lambda row: spread(row[1]["variance_per_second"])),
            ("cosine", lambda row: spread(row[1]["cosine"])),
            ("signal to noise", lambda row: number(row[1]["signal_to_noise"][0])),
        ]
        error = f"The reference errs by {100 * result['reference_error']:.2g} % of its length."
        parts.append(f"## {name}\n\n{error}\n\n{table(columns, rows)}\n")
    return "\n".join(parts)


def draw(found: dict[str, Any], path: Path) -> None:
    """Variance against cosine, one panel for each environment."""
    figure, panels = axes(len(found), width=6.4, height=5.0)
    for panel, (name, result) in zip(panels, found.items(), strict=True):
        ordered = sorted(result["rows"].items(), key=lambda item: item[1]["cosine"][0])
        at = np.arange(len(ordered))
        mean, low, high = np.array([row["cosine"] for _, row in ordered]).T
        panel.barh(at, mean, xerr=[mean - low, high - mean], color=COLOURS[0], height=0.6, error_kw={"lw": 1})
        panel.set_yticks(at, [f"{estimator}" for estimator, _ in ordered], fontsize=8)
        for y, (_, row) in zip(at, ordered, strict=True):
            panel.text(1.02, y, f"× {row['variance'][0]:.3g}", va="center", fontsize=7)
        panel.set_title(f"{name}, {result['steps']:,} steps each")
        panel.set_xlabel("cosine to the gradient, with 95 % interval; right, variance relative to REINFORCE")
        panel.axvline(0.0, color="0.4", linewidth=0.8)
        panel.set_xlim(-1.0, 1.0)
    save(figure, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/variance"), help="where to write")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figure to write anew")
    parser.add_argument("--fast", action="store_true", help="a few estimators and samples, in seconds")
    options = parser.parse_args(arguments)
    size = FAST if options.fast else FULL
    if options.fast:
        quick_to_compile()
    found = {}
    for name in ("CartPole-v1",) if options.fast else ("CartPole-v1", "Pendulum-v1"):
        started = time.perf_counter()
        found[name] = measure(name, size)
        print(f"{name}: {len(found[name]['rows'])} estimators in {time.perf_counter() - started:.0f} s", flush=True)
    write_json(options.out / "variance_reduction.json", found)
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        (folder / "variance_reduction.md").write_text(page(found, size))
        draw(found, folder / "variance_reduction" / "variance_reduction.png")


if __name__ == "__main__":
    main()
