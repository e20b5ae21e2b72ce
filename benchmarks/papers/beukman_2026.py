"""A plateau of PPO, left from the same state by a smaller step size or by more environments."""

from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
from common import COLOURS, bootstrap, save

import pgjax as pg
from papers._form import Finding, number, panels, verdicts
from pgjax.recipes import ppo

TITLE = "Plateaus of PPO: step size against gradient noise"
REFERENCE = (
    "Beukman, Khetarpal, Zheng, Dabney, Foerster, Dennis and Lyle (2026), "
    "Preventing learning stagnation in PPO by scaling to 1 million parallel environments"
)
CLAIM = (
    "PPO's loop of collecting and updating is a stochastic optimisation: its step size is how far an update moves the "
    "policy, its noise falls with the number of samples. A step size too large for the noise makes performance stop at "
    "a plateau below what is possible; a smaller step, or more environments, leaves the plateau."
)
FULL = {
    "environments": (("Acrobot-v1", 8, 1e-2, -83.0), ("CartPole-v1", 4, 3e-2, 500.0)),
    "num_steps": 32, "num_runs": 6, "before": 300, "after": 200, "more": 4, "early": 10, "trajectories": 512,
}  # fmt: skip
FAST = {
    "environments": (("CartPole-v1", 4, 3e-2, 500.0),),
    "num_steps": 4, "num_runs": 2, "before": 4, "after": 4, "more": 2, "early": 1, "trajectories": 8,
}  # fmt: skip
SAME, SMALLER, WIDER = "as before", "smaller learning rate", "more environments"

Array = jax.Array


def measure(size: Any) -> dict[str, Any]:
    """Train to a plateau, then go on from there in three ways with equally many environment steps.

    Args:
        size: FULL or FAST; of each environment the name, how many are stepped side by side, the learning rate, and the
            return that PPO reaches with other settings.

    Returns:
        The figures.
    """
    # Acrobot: 16 environments, learning rate 1e-3, annealed, 500,000 steps; CartPole: the most there is.
    return {
        "environments": {
            name: _environment(name, num_envs, rate, reachable, size)
            for name, num_envs, rate, reachable in size["environments"]
        },
        "more": size["more"],
    }


def _environment(name: str, num_envs: int, rate: float, reachable: float, size: Any) -> dict[str, Any]:
    env, env_params = gymnax.make(name)
    more, num_steps = size["more"], size["num_steps"]

    def recipe_of(envs: int) -> Any:
        # Minibatches keep their size: what more environments change is what one policy collects, and averages over.
        return ppo.make_train(
            env, env_params, num_envs=envs, num_steps=num_steps, total_steps=10**9, num_minibatches=4 * envs // num_envs
        )

    narrow, wide = recipe_of(num_envs), recipe_of(more * num_envs)

    def chunk(recipe: Any) -> Any:
        """One program, however many updates are made with it."""

        def step(state: Any, _: Any) -> Any:
            state, metrics = recipe.update(state)
            return state, {name: metrics[name] for name in ("episode_return", "kl")}

        return jax.jit(jax.vmap(lambda state: jax.lax.scan(step, state, length=size["early"])))

    def run(program: Any, state: Any, updates: int) -> Any:
        found = []
        for _ in range(max(1, updates // size["early"])):
            state, metrics = program(state)
            found.append(jax.device_get(metrics))
        return state, jax.tree.map(lambda *x: np.concatenate(x, axis=1), *found)

    def branch(recipe: Any, learning_rate: float) -> Any:
        """The same parameters, moments of Adam and scale of the rewards, on environments that start anew."""

        def one(key: Array, state: Any) -> Any:
            fresh = recipe.init(jax.random.fold_in(key, 3), learning_rate=learning_rate, anneal=0.0)
            scale = fresh.reward_scale.replace(statistics=state.reward_scale.statistics)
            return fresh.replace(params=state.params, opt_state=state.opt_state, reward_scale=scale)

        return jax.jit(jax.vmap(one))(keys, state)

    keys = jax.random.split(jax.random.key(0), size["num_runs"])
    signal = jax.jit(jax.vmap(lambda state, key: num_envs * _signal(narrow, env, env_params, state, key, size)))
    program, wide_program = chunk(narrow), chunk(wide)
    state = jax.jit(jax.vmap(lambda key: narrow.init(key, learning_rate=rate, anneal=0.0)))(keys)
    state, first = run(program, state, size["early"])
    ratios = {"early": signal(state, jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys))}
    state, rest = run(program, state, size["before"] - size["early"])
    ratios["late"] = signal(state, jax.vmap(lambda key: jax.random.fold_in(key, 2))(keys))
    before = jax.tree.map(lambda *x: np.concatenate(x, axis=1), first, rest)
    after = {
        SAME: run(program, branch(narrow, rate), size["after"])[1],
        SMALLER: run(program, branch(narrow, rate / more), size["after"])[1],
        WIDER: run(wide_program, branch(wide, rate), size["after"] // more)[1],
    }
    return {
        "before": {name: np.asarray(x).tolist() for name, x in before.items()},
        "after": {name: {k: np.asarray(x).tolist() for k, x in rows.items()} for name, rows in after.items()},
        "signal_to_noise": {name: np.asarray(x).tolist() for name, x in ratios.items()},
        "steps": {SAME: num_envs * num_steps, SMALLER: num_envs * num_steps, WIDER: more * num_envs * num_steps},
        "learning_rate": rate,
        "reachable": reachable,
    }


def _signal(recipe: Any, env: Any, env_params: Any, state: Any, key: Array, size: Any) -> Array:
    """The signal-to-noise ratio of the gradient of one trajectory as long as an update's, by many of them."""
    count, (start, warm, play) = size["trajectories"], jax.random.split(key, 3)

    def go(key: Array, rollout: Any) -> Any:
        return pg.rollout(
            key, state.params, rollout, policy=recipe.policy, env=env, env_params=env_params,
            num_steps=size["num_steps"],
        )  # fmt: skip

    rollout, _ = jax.lax.scan(
        lambda rollout, key: (go(key, rollout)[0], None),
        pg.init_rollout(start, env, env_params, num_envs=count), jax.random.split(warm, 4),
    )  # fmt: skip
    _, trajectory = go(play, rollout)
    trajectory = trajectory.replace(reward=pg.envs.scale_reward(state.reward_scale, trajectory.reward))
    grads, _ = pg.ppo.per_trajectory(
        state.params, trajectory, policy=recipe.policy, value=recipe.value, discount=0.99, value_coef=0.0,
        standardized=False,
    )  # fmt: skip
    return pg.diagnostics.signal_to_noise(grads)


def _mean(rows: Any) -> Any:
    """The mean of each run over the updates that have a return, [runs]; NaN where none has."""
    rows = np.array(rows, float)
    known = ~np.isnan(rows)
    total = np.where(known, rows, 0.0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def _late(rows: Any) -> Any:
    """The mean return of each run over the second half, [runs]."""
    rows = np.array(rows, float)
    return _mean(rows[:, rows.shape[1] // 2 :])


def verdict(figures: dict[str, Any]) -> str:
    """Say whether there was a plateau, and what left it.

    Args:
        figures: from `measure`.

    Returns:
        Markdown.
    """
    found = [_findings(name, rows, figures["more"]) for name, rows in figures["environments"].items()]
    return verdicts(*(finding for findings in found for finding in findings))


def _findings(name: str, figures: dict[str, Any], more: int) -> list[Finding]:
    late = {way: _late(rows["episode_return"]) for way, rows in figures["after"].items()}
    gains = {way: late[way] - late[SAME] for way in (SMALLER, WIDER)}
    bounds = {way: bootstrap(gain, statistic=np.mean) for way, gain in gains.items()}
    kl = {way: float(np.mean(rows["kl"])) for way, rows in figures["after"].items()}
    early, end = (np.median(figures["signal_to_noise"][when]) for when in ("early", "late"))
    rows = np.array(figures["before"]["episode_return"], float)
    quarter = rows.shape[1] // 4
    third, fourth = (_mean(rows[:, i * quarter : (i + 1) * quarter]) for i in (2, 3))
    low, high = bootstrap(fourth - third, statistic=np.mean)
    _, most = bootstrap(fourth, statistic=np.mean)

    def told(way: str) -> str:
        low, high = bounds[way]
        return (
            f"return {late[way].mean():.0f} against {late[SAME].mean():.0f} after equally many steps, a gain of "
            f"{gains[way].mean():.0f} with 95 % interval [{low:.0f}, {high:.0f}] over {len(late[SAME])} runs; mean "
            f"KL of an update {number(kl[way])} against {number(kl[SAME])}."
        )

    return [
        Finding(
            f"{name}: with learning rate {figures['learning_rate']:g} PPO reaches a plateau below what is possible.",
            low <= 0.0 and most < figures["reachable"],
            f"mean return {third.mean():.0f} in the third quarter of training and {fourth.mean():.0f} in the fourth, a "
            f"change of {(fourth - third).mean():.0f} with 95 % interval [{low:.0f}, {high:.0f}]; PPO reaches "
            f"{figures['reachable']:.0f} with other settings.",
        ),
        Finding(
            f"{name}: there the noise of an update's gradient has grown against its signal.",
            end < early,
            f"signal-to-noise ratio of the gradient from the samples of one update, median over the runs: "
            f"{number(early)} early and {number(end)} on the plateau.",
        ),
        Finding(f"{name}: a learning rate {more} times smaller leaves it.", bounds[SMALLER][0] > 0.0, told(SMALLER)),
        Finding(
            f"{name}: {more} times more environments leave it as well.",
            bounds[WIDER][0] > 0.0,
            told(WIDER) + f" Minibatches keep their size, so that an update has {more} times the gradient steps.",
        ),
    ]


def draw(figures: dict[str, Any], path: Path) -> None:
    """Draw the returns before and after the branch, and how far an update moves the policy.

    Args:
        figures: from `measure`.
        path: of the PNG.
    """
    environments = figures["environments"]
    figure, grid = panels(len(environments), 2, width=5.6, height=3.4)
    for row, (name, found) in zip(grid, environments.items(), strict=True):
        _draw_row(row, name, found, figures["more"])
    for panel in grid[-1]:
        panel.set_xlabel("environment steps (thousands)")
    grid[0][1].legend(frameon=False, fontsize=8, loc="lower left")
    save(figure, path)


def _draw_row(row: Any, name: str, figures: dict[str, Any], more: int) -> None:
    styles = {
        SAME: (COLOURS[1], "-", "as before"),
        SMALLER: (COLOURS[0], "--", f"learning rate / {more}"),
        WIDER: (COLOURS[2], "-.", f"environments x {more}"),
    }
    steps, count = figures["steps"][SAME], len(figures["before"]["kl"][0])
    window, start = max(1, count // 20), count * figures["steps"][SAME] / 1e3
    for panel, metric in zip(row, ("episode_return", "kl"), strict=True):
        x, mean, low, high = _smooth(figures["before"][metric], steps, window)
        panel.plot(x, mean, color="black", label="up to the branch")
        panel.fill_between(x, low, high, color="black", alpha=0.12, linewidth=0)
        for way, rows in figures["after"].items():
            width, (colour, line, label) = figures["steps"][way], styles[way]
            x, mean, low, high = _smooth(rows[metric], width, max(1, window * steps // width))
            panel.plot(start + x, mean, line, color=colour, label=label)
            panel.fill_between(start + x, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axvline(start, color="black", linewidth=0.8, linestyle=":")
    rate = f"learning rate {figures['learning_rate']:g}"
    row[0].axhline(figures["reachable"], color="black", linewidth=0.8, linestyle="--")
    row[0].annotate(
        "reached with other settings", (0, figures["reachable"]), xytext=(0, -3), textcoords="offset points",
        fontsize=8, va="top",
    )  # fmt: skip
    row[0].set(ylabel="episode return (mean, 95 %)", title=f"{name}, {rate}")
    row[1].set(yscale="log", ylabel="KL of an update (nats)", title=f"{name}: step size of an update")


def _smooth(rows: Any, steps: int, window: int) -> tuple[Any, Any, Any, Any]:
    """Means over blocks of updates and over the runs, with their intervals: (thousands of steps, mean, low, high)."""
    rows = np.array(rows, float)
    blocks = rows[:, : rows.shape[1] // window * window].reshape(len(rows), -1, window)
    known = ~np.isnan(blocks).any(axis=(0, 2))
    means = blocks[:, known].mean(-1)
    bounds = np.array([bootstrap(column, statistic=np.mean, repeats=500) for column in means.T]).reshape(-1, 2)
    x = (np.flatnonzero(known) + 0.5) * window * steps / 1e3
    return x, means.mean(0), bounds[:, 0], bounds[:, 1]
