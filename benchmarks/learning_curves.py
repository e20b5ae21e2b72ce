"""Train REINFORCE, REINFORCE with leave-one-out, A2C and PPO on CartPole, and compare curves and gradient noise.

Prints one table and writes learning_curves.png, signal_to_noise.png and results.json.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import numpy as np
from common import COLOURS, axes, bootstrap, interquartile_mean, quick_to_compile, save, setting, table, write_json

import pgjax as pg
from pgjax.recipes import a2c, ppo, reinforce

SOLVED = 475.0
FLOOR = 1e-3  # with 512 trajectories a smaller signal cannot be told from none


class Algorithm(NamedTuple):
    """A recipe, what it is trained with, and the environment steps of one of its updates."""

    recipe: pg.recipes.Recipe
    hyper: dict[str, float]
    steps_per_update: int


def algorithms(num_envs: int, scale: float) -> dict[str, Algorithm]:
    """Return each algorithm; scale shortens the runs."""
    env, env_params = gymnax.make("CartPole-v1")

    def make(module: Any, millions: float, num_steps: int, learning_rate: float, **settings: Any) -> Algorithm:
        settings = {"num_envs": num_envs, **settings}
        steps = settings["num_envs"] * num_steps
        total = max(int(scale * millions * 2**20), steps)
        recipe = module.make_train(env, env_params, num_steps=num_steps, total_steps=total, **settings)
        return Algorithm(recipe, {"learning_rate": learning_rate}, steps)

    # Without a critic nothing is known of what comes after a window: it is to hold a whole episode, of 500 steps.
    episodes = {"num_envs": max(num_envs // 8, 2)}

    return {
        "REINFORCE": make(reinforce, 8, 512, 1e-2, baseline=None, **episodes),
        "REINFORCE + leave-one-out": make(reinforce, 8, 512, 1e-2, **episodes),
        "A2C": make(a2c, 8, 8, 3e-3, num_envs=max(num_envs // 4, 2)),
        "PPO": make(ppo, 4, 32, 2.5e-3),
    }


def train(name: str, algorithm: Algorithm, seed: int, chunks: int = 32) -> dict[str, Any]:
    """Run a recipe in chunks of compiled updates, and keep what its reports say."""
    recipe, hyper, steps_per_update = algorithm
    every = max(n for n in range(1, -(-recipe.num_updates // chunks) + 1) if recipe.num_updates % n == 0)
    print(name, file=sys.stderr)
    compile_seconds = compilation(recipe, hyper, every)
    state = recipe.init(jax.random.key(seed), **hyper)
    returns: list[float] = []
    seconds = [0.0]
    checkpoints, unsolved = [state.params], [True]
    started = time.perf_counter()

    def report(state: Any, metrics: dict[str, Any]) -> None:
        seconds.append(time.perf_counter() - started)
        returns.extend(metrics["episode_return"].tolist())
        if len(seconds) % 4 == 1:
            checkpoints.append(state.params)
            unsolved.append(not any(x >= SOLVED for x in returns))

    state = pg.recipes.train(recipe, state, every=every, report=report)
    ends = np.arange(1, recipe.num_updates + 1)
    return {
        "params": state.params,
        "checkpoints": checkpoints,
        "unsolved": unsolved,
        "returns": np.asarray(returns),
        "steps": ends * steps_per_update,
        "seconds": np.interp(ends, np.arange(len(seconds)) * every, seconds),
        "steps_per_second": ends[-1] * steps_per_update / seconds[-1],
        "compile_seconds": compile_seconds,
    }


def compilation(recipe: pg.recipes.Recipe, hyper: dict[str, float], every: int) -> float:
    """Measure what the first chunk of a run takes beyond the second, its start among it."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        state = recipe.init(jax.random.key(0), **hyper)
        pg.recipes.train(recipe, state, every=every, report=lambda *_: True, progress=False)
        seconds.append(time.perf_counter() - started)
    return seconds[0] - seconds[1]


def estimators(value: Any) -> dict[str, Callable[..., Any]]:
    """Return the gradient of each algorithm as per-trajectory contributions, on the policy's parameters alone."""
    plain: dict[str, Any] = {"discount": 0.99}
    return {
        "whole return": lambda policy, params, t: pg.likelihood_ratio.per_trajectory(params, t, policy=policy, **plain)[
            0
        ],
        "REINFORCE": lambda policy, params, t: pg.reinforce.per_trajectory(params, t, policy=policy, **plain)[0],
        "REINFORCE + leave-one-out": lambda policy, params, t: pg.reinforce.per_trajectory(
            params, t, policy=policy, baseline=pg.leave_one_out, **plain
        )[0],
        "A2C": lambda policy, params, t: pg.actor_critic.per_trajectory(
            params, t, policy=policy, value=value, lam=0.95, value_coef=0.0, **plain
        )[0],
    }


def gradient_noise(
    run: dict[str, Any], recipe: Any, names: list[str], num_envs: int, seed: int
) -> dict[str, list[float]]:
    """Measure the signal-to-noise ratio of one trajectory's gradient at each checkpoint of a run.

    Environments start anew and are first stepped for a while, so that they are out of step with one another.
    """
    env, env_params = gymnax.make("CartPole-v1")
    policy, menu = recipe.policy, estimators(recipe.value)

    def measure(params: Any, key: jax.Array) -> dict[str, jax.Array]:
        start_key, warm_key, key = jax.random.split(key, 3)
        go = lambda key, state: pg.rollout(  # noqa: E731
            key, params, state, policy=policy, env=env, env_params=env_params, num_steps=128
        )
        state = pg.init_rollout(start_key, env, env_params, num_envs=num_envs)
        state, _ = go(warm_key, state)
        _, trajectory = go(key, state)
        return {name: pg.diagnostics.signal_to_noise(menu[name](policy, params, trajectory)) for name in names}

    measure = jax.jit(measure)
    rows = [measure(params, jax.random.key(seed + i)) for i, params in enumerate(run["checkpoints"])]
    return {name: [float(row[name]) for row in rows] for name in names}


def evaluate(recipe: Any, params: Any, seed: int, num_episodes: int = 256) -> np.ndarray:
    """Play whole episodes with the final policy."""
    env, env_params = gymnax.make("CartPole-v1")
    result = pg.evaluate(
        jax.random.key(seed), params, policy=recipe.policy, env=env, env_params=env_params, num_episodes=num_episodes
    )
    return np.asarray(result.episode_return)


def draw(runs: dict[str, Any], noise: dict[str, list[float]], out: Path) -> None:
    """Draw the learning curves, and the gradient's signal-to-noise ratio per estimator."""
    figure, (left, right) = axes(2)
    for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
        left.plot(run["steps"] / 1e6, run["returns"], color=colour, label=name)
        right.plot(run["seconds"], run["returns"], color=colour)
    left.set(xlabel="environment steps (millions)", ylabel="episode return", title="CartPole-v1")
    right.set(
        xlabel="seconds, compilation apart",
        title=setting()["processor"] if jax.default_backend() == "cpu" else setting()["device"],
    )
    left.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, out / "learning_curves.png")

    figure, (panel,) = axes(width=6.4)
    progress = np.linspace(0, 100, len(next(iter(noise.values()))))
    for colour, (name, row) in zip((COLOURS[4], *COLOURS), noise.items(), strict=False):
        panel.plot(progress, np.maximum(row, FLOOR), "o-", markersize=3.5, color=colour, label=name)
    panel.set(
        yscale="log",
        xlabel="progress of one PPO run (%)",
        ylabel="signal-to-noise of one trajectory's gradient",
        title="same policies, same trajectories (128 steps each)",
    )
    panel.annotate("not to be told from 0", (0, FLOOR), xytext=(0, 5), textcoords="offset points", fontsize=8)
    panel.legend(frameon=False, fontsize=8)
    save(figure, out / "signal_to_noise.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the figures and results.json")
    parser.add_argument("--num-envs", type=int, default=2048, help="environments side by side")
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs; 0.1 for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="a few updates, to see that everything runs")
    options = parser.parse_args()
    if options.fast:
        options.num_envs, options.scale = 16, 1e-3
        quick_to_compile()
    print("  ".join(f"{name} {value}" for name, value in setting().items()))

    runs, rows, results = {}, [], {}
    recipes = algorithms(options.num_envs, options.scale)
    for name, algorithm in recipes.items():
        recipe = algorithm.recipe
        run = runs[name] = train(name, algorithm, options.seed)
        own = "A2C" if name == "PPO" else name  # at ratio 1 the gradient of PPO is that of A2C
        own_noise = gradient_noise(run, recipe, [own], min(512, options.num_envs), options.seed)[own]
        signal_to_noise = float(np.median(np.array(own_noise)[run["unsolved"]]))
        final = evaluate(recipe, run["params"], options.seed + 1)
        low, high = bootstrap(final)
        solved = np.flatnonzero(run["returns"] >= SOLVED)
        steps_to = float(run["steps"][solved[0]]) if solved.size else None
        results[name] = {
            "final_return": interquartile_mean(final),
            "interval": [low, high],
            "steps_to_475": steps_to,
            "steps_per_second": run["steps_per_second"],
            "compile_seconds": run["compile_seconds"],
            "signal_to_noise": signal_to_noise,
            "curve": {
                "steps": run["steps"].tolist(),
                "seconds": run["seconds"].tolist(),
                "return": [None if np.isnan(x) else x for x in run["returns"]],  # not all had finished an episode
            },
        }
        rows.append([
            name,
            f"{interquartile_mean(final):.1f} [{low:.1f}, {high:.1f}]",
            f"{steps_to / 1e6:.2f} M" if steps_to else "-",
            f"{run['steps_per_second'] / 1e3:.0f} k",
            f"{run['compile_seconds']:.1f}",
            f"{signal_to_noise:.4f}",
        ])  # fmt: skip
    noise = gradient_noise(
        runs["PPO"], recipes["PPO"].recipe, list(estimators(None)), min(512, options.num_envs), options.seed
    )
    draw(runs, noise, options.out)
    write_json(options.out / "results.json", {"algorithms": results, "signal_to_noise_on_ppo_policies": noise})
    print()
    print(table(["", "final return", "steps to 475", "steps/s", "compile s", "gradient SNR"], rows))
    print(
        "\nfinal return: interquartile mean of 256 whole episodes of the final policy, 95 % bootstrap interval\n"
        "gradient SNR: |mean|^2 / tr(cov) of one trajectory of 128 steps, median over the checkpoints before 475\n"
        f"figures and results.json in {options.out}"
    )


if __name__ == "__main__":
    main()
