"""Train every recipe on the small environments over several seeds, beside the published figures.

A cell is a recipe in an environment, with the settings of learn/RECIPE.toml. Each is one JSON file in the folder, and
is run only if its settings, or the number of seeds, have changed: a run can be stopped and taken up again. A cell that
ran beside other work holds what it learned, but no seconds; --seconds times a part of such cells again.
"""

import argparse
import importlib
import inspect
import json
import math
import time
import tomllib
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from common import Beside, bootstrap, fingerprint, interquartile_mean, quick_to_compile, setting, table, write_json
from learn_page import OFF_POLICY, ON_POLICY, alone, file_name, write_page

import pgjax as pg
from pgjax.recipes import Recipe
from pgjax.recipes import train as drive

FOLDER = Path(__file__).parent / "learn"
THRESHOLDS = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "MountainCar-v0": -120.0,
    "Pendulum-v1": -200.0,
    "MountainCarContinuous-v0": 90.0,
    "Breakout-MinAtar": 20.0,
    "Reacher-misc": 45.0,
    "brax:inverted_pendulum": 190.0,
}
ENVIRONMENTS = tuple(THRESHOLDS)
CURVE, BRAX_LIMIT = 100, 200
# How many episodes a final policy plays. Reacher draws goals that differ more than policies do: many are out of reach.
NUM_EPISODES = dict.fromkeys(ENVIRONMENTS, 64) | {"Reacher-misc": 1024}
PART = 4.0  # seconds of a run that is only timed
WITH_ACTION_VALUES = ("d4pg", "ddpg", "dpg", "fasttd3", "reppo", "sac", "sac_discrete", "td3")


def cells(only: list[str] | None, environments: list[str] | None) -> dict[tuple[str, str], dict[str, Any]]:
    """Read the settings of each recipe and environment, without the notes; the order is that of the environments."""
    found = {}
    for path in sorted(FOLDER.glob("*.toml")):
        if path.stem == "published" or (only and path.stem not in only):
            continue
        for env_name, settings in tomllib.loads(path.read_text()).items():
            if env_name not in ENVIRONMENTS:
                raise ValueError(f"{path.name} has a table {env_name}; it must be one of {', '.join(ENVIRONMENTS)}.")
            if not environments or env_name in environments:
                settings = {name: x for name, x in settings.items() if name != "note"}
                found[path.stem, env_name] = {"make": {}, "hyper": {}, "model": {}, **settings}
    if unknown := set(environments or ()) - set(ENVIRONMENTS):
        raise ValueError(f"no environment {', '.join(sorted(unknown))}; there are {', '.join(ENVIRONMENTS)}.")
    missing = set(only or ()) - {name for name, _ in found}
    if missing:
        where = f" on {', '.join(environments)}" if environments else ""
        raise ValueError(f"no settings for {', '.join(sorted(missing))}{where} in {FOLDER.name}/.")
    return dict(sorted(found.items(), key=lambda item: (ENVIRONMENTS.index(item[0][1]), item[0][0])))


def environment(env_name: str, settings: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Make an environment of gymnax, or of Brax (extra `envs`) by a name such as brax:inverted_pendulum.

    The settings of a cell may say that its observations are rescaled.
    """
    library, _, inside = env_name.rpartition(":")
    if not library:
        env, env_params = gymnax.make(env_name)
        return pg.envs.RescaledObservation(env) if (settings or {}).get("rescaled") else env, env_params
    envs = importlib.import_module("brax.envs")  # only where it is asked for
    limited = pg.envs.from_brax(envs.get_environment(inside, backend="spring"), episode_length=BRAX_LIMIT)
    return pg.envs.PooledReset(limited), None


def build(name: str, env_name: str, settings: dict[str, Any], scale: float) -> Recipe:
    """Make the run of a cell; scale shortens it."""
    env, env_params = environment(env_name, settings)
    make = dict(settings["make"])
    make_train = importlib.import_module(f"pgjax.recipes.{name}").make_train
    taken = inspect.signature(make_train).parameters
    sizes = [make.get(size, taken[size].default) for size in ("num_envs", "num_steps") if size in taken]
    known = [size for size in sizes if size]  # None: whole episodes
    make["total_steps"] = max(int(scale * make["total_steps"]), 2 * math.prod(known))
    if settings["model"]:
        options: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in settings["model"].items()}
        judges = {judge for judge in ("value", "critic") if judge in taken and taken[judge].default is None}
        network: Any = pg.networks.default_actor_critic
        if "critic" in judges:
            duelling = "value" in judges  # action values made of a value and advantages
            network = pg.networks.default_duelling_actor_critic if duelling else pg.networks.default_actor_with_critics
        if isinstance(options.get("head"), dict):  # a head by its name, and what of it is to be otherwise
            fields = dict(options["head"])
            head = pg.networks.default_actor_critic(env, env_params, head=fields.pop("name")).head
            options["head"] = head.clone(**fields)
        make["model"] = network(env, env_params, **options)
    return make_train(env, env_params, **make)


def train(recipe: Recipe, hyper: dict[str, float], seeds: int, *, part: float = math.inf) -> tuple[Any, dict[str, Any]]:
    """Train all seeds side by side in one program, for so many seconds or to the end.

    The first chunk is run twice to take compilation apart.
    """
    every = max(recipe.num_updates // CURVE, 1)
    keys = jax.random.split(jax.random.key(0), seeds)
    init = jax.jit(jax.vmap(lambda key: recipe.init(key, **hyper)))
    first = []
    for _ in range(2):
        started = time.perf_counter()
        drive(recipe, init(keys), every=every, report=lambda *_: True, progress=False, donate=True)
        first.append(time.perf_counter() - started)
    rows: list[Any] = []
    seconds, started = [], time.perf_counter()

    def report(_: Any, metrics: dict[str, Any]) -> bool:
        seconds.append(time.perf_counter() - started)
        rows.append({name: x for name, x in metrics.items() if name in ("episode_return", "env_steps")})
        return seconds[-1] > part

    state = drive(recipe, init(keys), every=every, report=report, progress=False, donate=True)
    run = {
        "every": every,
        "seconds": seconds,
        "compile_seconds": first[0] - first[1],
        "episode_return": np.concatenate([row["episode_return"] for row in rows]),
    }
    if "env_steps" in rows[0]:
        run["env_steps"] = np.concatenate([row["env_steps"] for row in rows])
    return state, run


def evaluate(
    recipe: Recipe, world: tuple[Any, Any], state: Any, *, seeds: int, num_episodes: int, greedy: bool
) -> np.ndarray:
    """Play whole episodes with the last policy of each seed: their mean returns, [seeds]."""
    env, env_params = world

    def play(key: jax.Array, params: Any) -> jax.Array:
        result = pg.evaluate(
            key, params, policy=recipe.policy, env=env, env_params=env_params, num_episodes=num_episodes, greedy=greedy
        )
        return result.episode_return.mean()

    return np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), seeds), state.params))


def steps_of(settings: dict[str, Any], scale: float) -> int:
    """Count the environment steps of a cell."""
    return max(int(scale * settings["make"]["total_steps"]), 1)


def curve_rows(recipe: Recipe) -> np.ndarray:
    """Choose the updates that stand in a curve."""
    return np.unique(np.linspace(0, recipe.num_updates - 1, CURVE).astype(int))


def measure(name: str, env_name: str, settings: dict[str, Any], seeds: int, scale: float) -> dict[str, Any]:
    """Run a cell and say what came out."""
    recipe, beside = build(name, env_name, settings, scale), Beside()
    state, run = train(recipe, settings["hyper"], seeds)
    others = beside.share
    returns = run["episode_return"]  # [num_updates, seeds]
    total = steps_of(settings, scale)
    even = np.linspace(total / recipe.num_updates, total, recipe.num_updates)
    steps = run.get("env_steps", np.broadcast_to(even[:, None], returns.shape))
    ends = np.minimum(np.arange(1, len(run["seconds"]) + 1) * run["every"], recipe.num_updates)
    seconds = np.interp(np.arange(1, recipe.num_updates + 1), ends, run["seconds"])
    there = returns >= THRESHOLDS[env_name]
    reached = [int(np.argmax(column)) if column.any() else None for column in there.T]
    played = {"seeds": seeds, "num_episodes": NUM_EPISODES[env_name]}
    world = environment(env_name, settings)
    final, sampled = (evaluate(recipe, world, state, greedy=greedy, **played) for greedy in (True, False))
    rows = curve_rows(recipe)
    return {
        "final_return": interquartile_mean(final),
        "interval": bootstrap(final),
        "final_by_seed": final.tolist(),
        "sampled_by_seed": sampled.tolist(),
        "steps_to_threshold": [None if i is None else float(steps[i, s]) for s, i in enumerate(reached)],
        "seconds_to_threshold": [None if i is None else float(seconds[i]) for i in reached],
        "threshold": THRESHOLDS[env_name],
        "seconds": run["seconds"][-1],
        "others": others,
        "compile_seconds": run["compile_seconds"],
        "curve": {
            "steps": np.mean(steps[rows], axis=1).tolist(),
            "seconds": seconds[rows].tolist(),
            "return": [[None if np.isnan(x) else round(float(x), 3) for x in row] for row in returns[rows]],
        },
    }


def time_again(
    name: str, env_name: str, settings: dict[str, Any], seeds: int, scale: float, known: dict[str, Any]
) -> dict[str, Any]:
    """Time a part of a cell and say how long it would have taken alone: its updates all take equally long.

    Where they do not, as an update of whole episodes, the cell is run again.
    """
    recipe = build(name, env_name, settings, scale)
    if "env_steps" in jax.eval_shape(lambda key: recipe.update(recipe.init(key))[1], jax.random.key(0)):
        return {"setting": setting(), **measure(name, env_name, settings, seeds, scale)}
    beside = Beside()
    _, run = train(recipe, settings["hyper"], seeds, part=PART)
    others = beside.share
    timed = min(len(run["seconds"]) * run["every"], recipe.num_updates)
    each = run["seconds"][-1] / timed
    whole, total = each * recipe.num_updates, steps_of(settings, scale)
    return {
        "seconds_to_threshold": [None if x is None else x / total * whole for x in known["steps_to_threshold"]],
        "seconds": whole,
        "others": others,
        "compile_seconds": run["compile_seconds"],
        "timed": {"updates": timed, **setting()},
        "curve": {**known["curve"], "seconds": ((curve_rows(recipe) + 1) * each).tolist()},
    }


def uniform_policy(space: Any, num_obs_axes: int = 1) -> Any:
    """Make a policy that draws actions uniformly, for observations of so many axes."""

    def uniform(params: Any, obs: jax.Array) -> Any:
        batch = obs.shape[: obs.ndim - num_obs_axes]
        if hasattr(space, "n"):
            return pg.Categorical(jnp.zeros((*batch, space.n)))
        ones = jnp.ones((*batch, *space.shape))
        return pg.Beta(ones, ones, space.low, space.high)

    return uniform


def random_return(env_name: str) -> float:
    """Measure what actions drawn uniformly earn, the mean over 256 episodes."""
    env, env_params = environment(env_name)
    uniform = uniform_policy(env.action_space(env_params), len(env.observation_space(env_params).shape))
    played = pg.evaluate(jax.random.key(2), (), policy=uniform, env=env, env_params=env_params, num_episodes=256)
    return float(played.episode_return.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/learn"), help="folder of the JSON files")
    parser.add_argument("--only", nargs="*", help="recipes; all without it")
    parser.add_argument("--off-policy", action="store_true", help="the recipes with action values, and their page")
    parser.add_argument("--env", nargs="*", help="environments; all without it")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--scale", type=float, help="length of the runs; 1, or 0.05 with --fast")
    parser.add_argument("--fresh", action="store_true", help="run again what is there")
    parser.add_argument("--seconds", action="store_true", help="time again what ran beside other work")
    parser.add_argument("--docs", type=Path, help="folder in which to write the page, its figures and the JSON files")
    parser.add_argument("--fast", action="store_true", help="CartPole and Pendulum, 2 seeds, a twentieth of each run")
    options = parser.parse_args()
    if options.fast:
        options.env, options.seeds = options.env or ["CartPole-v1", "Pendulum-v1"], 2
        quick_to_compile()
    scale = options.scale or (0.05 if options.fast else 1.0)
    mine = {path.stem for path in FOLDER.glob("*.toml") if (path.stem in WITH_ACTION_VALUES) == options.off_policy}
    chosen = cells(options.only or sorted(mine - {"published"}), options.env)
    rows = []
    for (name, env_name), settings in chosen.items():
        path = options.out / name / f"{file_name(env_name)}.json"
        mark = fingerprint(settings, options.seeds, scale)
        known = json.loads(path.read_text()) if path.exists() else {}
        if options.seconds and known.get("fingerprint") == mark and not alone(known):
            known |= time_again(name, env_name, settings, options.seeds, scale, known)
            write_json(path, known)
        if options.fresh or known.get("fingerprint") != mark:
            command = f"python benchmarks/learn.py --only {name} --env {env_name} --seeds {options.seeds}"
            found = measure(name, env_name, settings, options.seeds, scale)
            known = {"recipe": name, "env": env_name, "settings": settings, "seeds": options.seeds, **found}
            write_json(path, {**known, "fingerprint": mark, "scale": scale, "command": command})
        low, high = known["interval"]
        reached = [x for x in known["steps_to_threshold"] if x is not None]
        rows.append([
            f"{name} on {env_name}",
            f"{known['final_return']:.1f} [{low:.1f}, {high:.1f}]",
            f"{len(reached)}/{known['seeds']}",
            f"{np.median(reached):.3g}" if reached else "-",
            f"{known['seconds']:.1f}" if alone(known) else "-",
            f"{known['compile_seconds']:.1f}",
        ])  # fmt: skip
        print(table([""] * 6, rows[-1:]).splitlines()[-1], flush=True)
    print(table(["", "final return", "reached", "steps to threshold", "seconds", "compile"], rows))
    if options.docs:
        at_random = {name: random_return(name) for name in {env_name for _, env_name in chosen}}
        layout = OFF_POLICY if options.off_policy else ON_POLICY
        write_page(
            options.out, options.docs, layout=layout, recipes=mine, at_random=at_random, num_episodes=NUM_EPISODES
        )


if __name__ == "__main__":
    main()
