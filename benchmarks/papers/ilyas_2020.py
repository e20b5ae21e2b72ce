"""How well the gradient of PPO's first step is aligned with the true one, over the number of samples."""

from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
from common import COLOURS, bootstrap, save
from jax.flatten_util import ravel_pytree

import pgjax as pg
from papers._form import Finding, number, panels, verdicts
from pgjax.recipes import ppo
from pgjax.reference import reference_gradient

TITLE = "How well the gradient of one PPO update is aligned with the true one"
REFERENCE = (
    "Ilyas, Engstrom, Santurkar, Tsipras, Janoos, Rudolph and Madry (2020), A closer look at deep policy gradients"
)
CLAIM = (
    "With the number of samples that implementations use in one update, two gradient estimates of the same policy are "
    "nearly orthogonal and far from the true gradient, which takes orders of magnitude more. It gets worse as training "
    "goes on. Still the agents learn."
)
FULL = {
    "training": {"CartPole-v1": 98_304, "Pendulum-v1": 262_144}, "stages": (0, 8, 1), "window": 256, "batch": 8,
    "num_batches": 128, "groups": (1, 2, 4, 8, 16, 32, 64, 128), "reference_batches": 128, "reference_envs": 64,
}  # fmt: skip
FAST = {
    "training": {"CartPole-v1": 4096}, "stages": (0, 1), "window": 4, "batch": 4,
    "num_batches": 4, "groups": (1, 2, 4), "reference_batches": 2, "reference_envs": 4,
}  # fmt: skip
BATCH = 2048  # environment steps of one update, of the recipe below and in most published code
OPTIONS = {"discount": 0.99, "lam": 0.95, "value_coef": 0.0}

Array = jax.Array


def measure(size: Any) -> dict[str, Any]:
    """Train PPO, and compare estimates at three stages with a reference from many samples.

    Args:
        size: FULL or FAST; stages are shares 1/n of the training, 0 its start.

    Returns:
        The figures.
    """
    return {
        "window": size["window"],
        "groups": list(size["groups"]),
        "environments": {name: _environment(name, steps, size) for name, steps in size["training"].items()},
    }


def _environment(name: str, steps: int, size: Any) -> list[dict[str, Any]]:
    env, env_params = gymnax.make(name)
    recipe = ppo.make_train(env, env_params, num_envs=16, num_steps=128, total_steps=steps)
    states: dict[int, Any] = {0: (recipe.init(jax.random.key(0), anneal=0.0), None)}

    def report(state: Any, metrics: Any) -> None:
        states[int(state.update)] = state, float(metrics["episode_return"][-1])

    every = max(1, recipe.num_updates // 8)
    pg.recipes.train(recipe, states[0][0], every=every, report=report, progress=False)
    window, envs = size["window"], size["reference_envs"]
    plain: dict[str, Any] = {"policy": recipe.policy, "value": recipe.value, **OPTIONS}

    @jax.jit
    def run(params: Any, scale: Any, key: Array) -> Any:
        def sample(key: Array, count: int) -> pg.Trajectory:
            start, play = jax.random.split(key)
            state = pg.init_rollout(start, env, env_params, num_envs=count)
            _, trajectory = pg.rollout(
                play, params, state, policy=recipe.policy, env=env, env_params=env_params, num_steps=window
            )
            return trajectory.replace(reward=pg.envs.scale_reward(scale, trajectory.reward))

        def estimates(key: Array) -> Any:
            trajectory = sample(key, size["batch"])
            each, _ = pg.ppo.per_trajectory(params, trajectory, standardized=False, **plain)
            standardized, _ = pg.ppo(params, trajectory, standardized=True, **plain)
            advantage, _ = pg.actor_critic(params, trajectory, **plain)
            return jax.vmap(_flat)(each), _flat(standardized), _flat(advantage)

        first, second = jax.random.split(key)
        reference = reference_gradient(
            first, params, num_batches=size["reference_batches"], trajectories_per_batch=envs,
            steps_per_batch=envs * window,
            estimate=lambda key, _: pg.actor_critic(params, sample(key, envs), **plain)[0],
        )  # fmt: skip
        keys = jax.random.split(second, size["num_batches"])
        found = jax.lax.map(estimates, keys, batch_size=min(8, size["num_batches"]))
        return *found, _flat(reference.gradient), reference.relative_error

    stages = []
    for share in size["stages"]:
        updates = recipe.num_updates // share if share else 0
        state, earned = states[min(states, key=lambda n: abs(n - updates))]
        found = jax.device_get(run(state.params, state.reward_scale, jax.random.key(1 + share)))
        stages.append({
            **_stage(found, size["groups"]),
            "return": earned,
            "trained": int(state.update) * 16 * 128,
            "reference_steps": envs * window * size["reference_batches"],
        })  # fmt: skip
    return stages


def _flat(tree: Any) -> Array:
    return ravel_pytree(tree)[0]


def _unit(x: Any) -> Any:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)


def _stage(found: Any, groups: Any) -> dict[str, Any]:
    """Cosines of means over groups of trajectories, with intervals over the repetitions."""
    each, standardized, advantage, truth, error = (np.asarray(x, np.float64) for x in found)
    gap = np.linalg.norm(each.mean(1) - advantage, axis=-1) / np.linalg.norm(advantage, axis=-1)
    rows, truth = each.reshape(-1, each.shape[-1]), _unit(truth)
    cosine, pairwise = [], []
    for group in groups:
        unit = _unit(rows.reshape(-1, group, rows.shape[1]).mean(1))
        cosine.append(_interval(unit @ truth))
        count = len(unit)
        pairwise.append(float((np.sum(unit.sum(0) ** 2) - count) / (count * (count - 1))))
    return {
        "cosine": cosine,
        "pairwise": pairwise,
        "standardized": _interval(_unit(standardized) @ truth),
        "differ": float(gap.max()),
        "relative_error": float(error),
    }


def _interval(x: Any) -> dict[str, float]:
    low, high = bootstrap(x, statistic=np.mean)
    return {"mean": float(np.mean(x)), "low": low, "high": high}


def _at_batch(figures: dict[str, Any], stage: dict[str, Any]) -> tuple[float, float]:
    """Cosine to the reference and between estimates at the number of samples nearest to that of an update."""
    steps = np.array(figures["groups"]) * figures["window"]
    i = int(np.argmin(np.abs(np.log(steps / BATCH))))
    return stage["cosine"][i]["mean"], stage["pairwise"][i]


def verdict(figures: dict[str, Any]) -> str:
    """Say how well the gradient of one update is aligned.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    environments = figures["environments"]
    at = {name: [_at_batch(figures, stage) for stage in stages] for name, stages in environments.items()}
    every = [stage for stages in environments.values() for stage in stages]
    most = figures["groups"][-1] * figures["window"]
    standardized, largest = (
        {name: ", ".join(f"{read(stage)['mean']:.2f}" for stage in stages) for name, stages in environments.items()}
        for read in (lambda stage: stage["standardized"], lambda stage: stage["cosine"][-1])
    )
    each = [
        Finding(
            f"{name}: once training is under way, gradients from {BATCH} steps have a cosine below 0.5 with the true "
            "one, and below 0.25 with each other.",
            all(x < 0.5 and y < 0.25 for x, y in rows[1:]),
            f"before training and at the stages after it {', '.join(f'{x:.2f}' for x, _ in rows)} with the true one, "
            f"and {', '.join(f'{y:.2f}' for _, y in rows)} with each other; with standardised advantages "
            f"{standardized[name]} with the true one.",
        )
        for name, rows in at.items()
    ]
    return verdicts(
        *each,
        Finding(
            "Many times more samples align the estimate.",
            all(stage["cosine"][-1]["low"] > stage["cosine"][0]["high"] for stage in every),
            f"from {most} steps the cosine with the true gradient is "
            f"{'; '.join(f'{name} {x}' for name, x in largest.items())}. The reference has "
            f"{number(every[0]['reference_steps'])} steps, and an expected relative error up to "
            f"{number(max(s['relative_error'] for s in every))}. The gradient of PPO at ratio 1 is that of the "
            f"actor-critic, to {number(max(s['differ'] for s in every))}.",
        ),
        Finding(
            "The alignment gets worse as training goes on.",
            all(rows[-1][0] < rows[0][0] for rows in at.values()),
            f"first stage against last: {'; '.join(f'{n} {r[0][0]:.2f} and {r[-1][0]:.2f}' for n, r in at.items())}.",
        ),
    )


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the cosines over the number of samples, one panel for each environment.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    environments = figures["environments"]
    figure, grid = panels(1, len(environments), width=5.4, height=4.2)
    steps = np.array(figures["groups"]) * figures["window"]
    for panel, (name, stages) in zip(grid[0], environments.items(), strict=True):
        for stage, colour, marker in zip(stages, COLOURS, "osD^", strict=False):
            low, mean, high = (np.array([x[key] for x in stage["cosine"]]) for key in ("low", "mean", "high"))
            label = "before training"
            if stage["trained"]:
                label = f"after {stage['trained'] / 1000:.0f} k steps, return {stage['return'] or np.nan:.0f}"
            panel.plot(steps, mean, marker + "-", color=colour, markersize=4, label=label)
            panel.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.plot(steps, stage["pairwise"], marker + "--", color=colour, markersize=3, linewidth=1)
        panel.plot([], [], "k-", label="with the true gradient")
        panel.plot([], [], "k--", linewidth=1, label="of two estimates")
        panel.axvline(BATCH, color="black", linewidth=0.8, linestyle=":")
        panel.annotate(
            "one PPO update", (BATCH, 0.01), xytext=(-3, 0), textcoords="offset points", fontsize=8, ha="right",
            xycoords=("data", "axes fraction"),
        )  # fmt: skip
        panel.set(xscale="log", xlabel="environment steps in the estimate", title=name, ylim=(-0.09, 1.02))
        panel.legend(frameon=False, fontsize=8)
    grid[0][0].set_ylabel("cosine (shaded: 95 % interval)")
    save(figure, path)
