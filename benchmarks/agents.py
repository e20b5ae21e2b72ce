"""Train MADDPG and independent DDPG on two particle environments of JaxMARL over seeds, and let them play each other.

In simple_spread three agents cover three landmarks together; figures are on JaxMARL's scale, the sum of the returns of
all agents over an episode of 26 steps, each agent paid half of what the team is paid and half of its own collisions. In
simple_tag three adversaries catch a faster good agent: the adversaries of each kind play the good agents of both.

A cell is a kind in an environment: one JSON file in the folder, beside it the last parameters. It is run only if its
settings, or the number of seeds, have changed: a run can be stopped and taken up again. Needs the extra envs.
"""

import argparse
import functools
import json
import time
import warnings
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from common import bootstrap, fingerprint, interquartile_mean, markdown, quick_to_compile, table, write_json
from learn import uniform_policy

import pgjax as pg
from pgjax.recipes import Recipe, maddpg
from pgjax.recipes import train as drive

SPREAD, TAG = "MPE_simple_spread_v3", "MPE_simple_tag_v3"
KINDS = {"maddpg": "MADDPG", "ddpg": "independent DDPG"}
MAKE: dict[str, Any] = {
    "num_envs": 64, "num_steps": 1, "gradient_steps": 4, "batch_size": 256, "capacity": 240_000, "warmup": 5_000,
}  # fmt: skip
SHARED = {"learning_rate": 1e-3, "critic_learning_rate": 3e-3, "discount": 0.95, "target_rate": 0.01, "noise": 0.3}
STEPS = {SPREAD: 240_000, TAG: 400_000}
FEATURES = {SPREAD: (64, 64), TAG: (128, 128)}
HYPER = {SPREAD: SHARED, TAG: SHARED | {"critic_learning_rate": 1e-3}}
FAST: dict[str, Any] = {"num_envs": 4, "batch_size": 4, "capacity": 400, "warmup": 4}
CURVE = 12
NUM_EPISODES = 256
ADVERSARIES = 3  # of simple_tag, the first rows
PER_TOUCH = 10.0  # what each adversary is paid for a touch by any of them

PAGE = """# Agents that learn together

MADDPG, whose critics see what all agents see and do, beside DDPG for each agent by itself, in two particle environments
of JaxMARL with continuous actions. {seeds} seeds, equal steps, networks and settings; the interquartile mean over seeds
of the final policies without noise over {episodes} episodes, with its 95 % bootstrap interval. *This page is written by
`make learn-agents DOCS=1`; do not edit it.*

Measured on {processor}, Python {python}, jax {jax}, pgjax {pgjax}, {date}.

## simple_spread: three agents cover three landmarks

The sum of the returns of all agents over an episode, which is what JaxMARL reports. Actions drawn uniformly earn
{random:.1f}.

{spread}

Difference, MADDPG less independent DDPG: {difference}.

## simple_tag: three adversaries catch a good agent

Touches in an episode, the adversaries of one kind (rows) against good agents of both (columns), each seed of the former
against each seed of the latter.

{tag}

{touches}

## Settings

{settings}
"""


def environment(name: str) -> Any:
    """Make an environment of JaxMARL with continuous actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        import jaxmarl

    return pg.envs.from_jaxmarl(jaxmarl.make(name, action_type="Continuous"))


def build(name: str, kind: str, make: dict[str, Any]) -> Recipe:
    """Make the run of a cell."""
    env, joint = environment(name), kind == "maddpg"
    model = pg.networks.default_actor_with_critics(env, None, features=FEATURES[name], num_critics=1, joint=joint)
    return maddpg.make_train(env, None, model=model, centralized=joint, **make)


@functools.cache
def player(name: str, episodes: int) -> Any:
    """Make what plays episodes without noise, (key, actors) -> the mean return of each agent: one for all cells."""
    env = environment(name)
    recipe = build(name, "ddpg", FAST | {"total_steps": 4, "num_steps": 1})  # actors of all kinds are of one form

    def play(key: jax.Array, actor: Any) -> jax.Array:
        params = maddpg.ActorAndCritic(actor, None)
        played = pg.evaluate(
            key, params, policy=recipe.policy, env=env, env_params=None, num_episodes=episodes, greedy=True
        )
        return played.episode_return.mean(0)

    return jax.jit(play)


def measure(name: str, kind: str, make: dict[str, Any], seeds: int, episodes: int) -> tuple[Any, dict[str, Any]]:
    """Train the seeds of a cell, one after another: (last parameters, leaves [seeds, ...], what came out).

    Side by side, eight seeds in one program, they take more than three times as long on a CPU.
    """
    steps, make = make["total_steps"], make | {"total_steps": max(make["total_steps"], make["num_envs"])}
    recipe = build(name, kind, make)
    every = max(recipe.num_updates // CURVE, 1)
    init = jax.jit(lambda key: recipe.init(key, **HYPER[name]))
    params, curves = [], []
    for seed, key in enumerate(jax.random.split(jax.random.key(0), seeds)):
        rows: list[dict[str, Any]] = []
        started = time.perf_counter()

        def report(state: Any, _: Any, rows: list[Any] = rows, started: float = started) -> None:
            seconds = round(time.perf_counter() - started, 2)
            returns = np.asarray(player(name, episodes)(jax.random.key(1), state.params.actor))  # [A]
            done = int(state.update) * make["num_envs"] * make["num_steps"]
            rows.append({"steps": done, "seconds": seconds, "returns": returns.tolist()})

        state = init(key)
        if steps:
            state = drive(recipe, state, every=every, report=report, progress=False, donate=True)
        else:
            report(state, {})
        params.append(state.params)
        curves.append({column: [row[column] for row in rows] for column in rows[0]})
        last = np.asarray(rows[-1]["returns"])
        shown = last.sum() if name == SPREAD else last[0] / PER_TOUCH
        print(f"{kind} on {name}: seed {seed}, {rows[-1]['steps']} steps, {shown:.2f}", flush=True)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *params)
    return stacked, {"returns_by_seed": [curve["returns"][-1] for curve in curves], "curves": curves}


def random_return(env: Any, episodes: int) -> float:
    """Measure what actions drawn uniformly earn, all agents together."""
    played = pg.evaluate(
        jax.random.key(2),
        (),
        policy=uniform_policy(env.action_space(None)),
        env=env,
        env_params=None,
        num_episodes=episodes,
    )
    return float(played.episode_return.sum(-1).mean())


def cross_play(params: dict[str, Any], seeds: int, episodes: int) -> dict[str, dict[str, list[float]]]:
    """Let the adversaries of each kind catch good agents of both: touches in an episode by seed of the adversaries."""

    def touches(adversaries: Any, s: int, good: Any, t: int) -> float:
        rows = jax.tree.map(lambda x, y: jnp.concatenate([x[s, :ADVERSARIES], y[t, ADVERSARIES:]]), adversaries, good)
        return float(player(TAG, episodes)(jax.random.key(3), rows)[0]) / PER_TOUCH

    def by_seed(adversaries: Any, good: Any) -> list[float]:
        return [float(np.mean([touches(adversaries, s, good, t) for t in range(seeds)])) for s in range(seeds)]

    return {kind: {other: by_seed(params[kind].actor, params[other].actor) for other in KINDS} for kind in KINDS}


def difference(first: Any, second: Any) -> dict[str, float]:
    """Subtract one interquartile mean from another, with the 95 % interval of the difference over seeds."""

    def less(a: Any, b: Any, axis: int | None = None) -> Any:
        return interquartile_mean(a, axis) - interquartile_mean(b, axis)

    low, high = bootstrap(first, second, statistic=less)
    return {"difference": less(first, second), "low": low, "high": high}


def in_words(found: dict[str, float]) -> str:
    """Write a difference with its interval."""
    return f"{found['difference']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def as_words(settings: dict[str, Any]) -> str:
    """Write what a run was made with."""
    return "`" + ", ".join(f"{name}={x}" for name, x in settings.items()) + "`"


def with_interval(x: Any) -> str:
    """Write an interquartile mean with its interval."""
    low, high = bootstrap(x)
    return f"{interquartile_mean(x):.2f} [{low:.2f}, {high:.2f}]"


def cell(
    out: Path, name: str, kind: str, make: dict[str, Any], seeds: int, episodes: int, fresh: bool
) -> tuple[Any, dict[str, Any]]:
    """Run a cell, or read what is there: (last parameters, what came out)."""
    path = out / f"{name}-{kind}.json"
    mark = fingerprint(name, kind, make, HYPER[name], FEATURES[name], seeds, episodes)
    known = json.loads(path.read_text()) if path.exists() else {}
    saved = path.with_suffix(".params")
    if fresh or known.get("fingerprint") != mark or not saved.exists():
        params, found = measure(name, kind, make, seeds, episodes)
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(flax.serialization.to_bytes(params))
        settings = {"make": make, "hyper": HYPER[name], "features": FEATURES[name]}
        write_json(path, {"env": name, "kind": kind, "seeds": seeds, **settings, **found, "fingerprint": mark})
        return params, json.loads(path.read_text())
    recipe = build(name, kind, make | {"total_steps": max(make["total_steps"], make["num_envs"])})
    like = jax.eval_shape(lambda: jax.vmap(recipe.init)(jax.random.split(jax.random.key(0), seeds)).params)
    return flax.serialization.from_bytes(like, saved.read_bytes()), known


def write_page(folder: Path, results: dict[str, Any]) -> None:
    """Write the results as a page."""
    score = results["simple_tag"]["touches"]
    rows = [[KINDS[kind], *(with_interval(score[kind][other]) for other in KINDS)] for kind in KINDS]
    gains = [
        f"Difference of the adversaries against good agents of {title}: {in_words(results['simple_tag']['of'][other])}."
        for other, title in KINDS.items()
    ]
    spread = [[KINDS[kind], with_interval(x)] for kind, x in results["simple_spread"]["by_seed"].items()]
    settings = [
        [name, *(f"{x}" for x in (steps, FEATURES[name])), as_words({**MAKE, **HYPER[name]})]
        for name, steps in results["steps"].items()
    ]
    text = PAGE.format(
        **results["setting"], seeds=results["seeds"], episodes=results["episodes"],
        random=results["simple_spread"]["random"], spread=markdown(["", "return"], spread),
        difference=in_words(results["simple_spread"]["of"]),
        tag=markdown(["adversaries", *(f"good agents: {title}" for title in KINDS.values())], rows),
        touches="\n".join(gains), settings=markdown(["", "steps", "features", "otherwise"], settings),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agents.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/agents"), help="folder of the JSON files and of the page")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs")
    parser.add_argument("--fresh", action="store_true", help="run again what is there")
    parser.add_argument("--docs", type=Path, help="another folder in which to write the page")
    parser.add_argument("--fast", action="store_true", help="3 updates in one, none in the other, 2 seeds")
    options = parser.parse_args()
    seeds, episodes, make = options.seeds, NUM_EPISODES, dict(MAKE)
    steps = {name: max(int(options.scale * number), MAKE["num_envs"]) for name, number in STEPS.items()}
    if options.fast:
        seeds, episodes, make, steps = 2, 4, MAKE | FAST, {SPREAD: 12, TAG: 0}
        quick_to_compile()
    cells = {
        (name, kind): cell(options.out, name, kind, make | {"total_steps": steps[name]}, seeds, episodes, options.fresh)
        for name in STEPS
        for kind in KINDS
    }
    spread = {kind: np.sum(cells[SPREAD, kind][1]["returns_by_seed"], axis=1).tolist() for kind in KINDS}
    touches = cross_play({kind: cells[TAG, kind][0] for kind in KINDS}, seeds, episodes)
    results = {
        "seeds": seeds,
        "episodes": episodes,
        "steps": steps,
        "simple_spread": {
            "random": random_return(environment(SPREAD), episodes),
            "by_seed": spread,
            "of": difference(*(spread[kind] for kind in KINDS)),
        },
        "simple_tag": {
            "touches": touches,
            "of": {other: difference(*(touches[kind][other] for kind in KINDS)) for other in KINDS},
        },
    }
    write_json(options.out / "results.json", results)
    written = json.loads((options.out / "results.json").read_text())
    for folder in filter(None, (options.out, options.docs)):
        write_page(folder, written)
    rows = [
        *([f"simple_spread, {KINDS[kind]}", with_interval(spread[kind])] for kind in KINDS),
        ["simple_spread, actions drawn uniformly", f"{results['simple_spread']['random']:.2f}"],
        ["simple_spread, difference", in_words(results["simple_spread"]["of"])],
    ]
    for other, title in KINDS.items():
        rows += [[f"touches of {KINDS[kind]} against {title}", with_interval(touches[kind][other])] for kind in KINDS]
        rows.append([f"difference against {title}", in_words(results["simple_tag"]["of"][other])])
    print(table(["", "interquartile mean [95 %]"], rows))
    print(f"results.json and agents.md in {options.out}")


if __name__ == "__main__":
    main()
