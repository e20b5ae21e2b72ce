"""Train SAC and TD3 on Pendulum with pgjax and with SBX in turn, and time both to a return of -200.

SBX is Stable-Baselines3 in JAX. Same networks, learning rates, batch, discount, number of environments and ratio of
gradient steps to environment steps; each run is a process of its own, so that the clock holds imports,
compilation, warm-up, training. At equal intervals the greedy policy plays whole episodes while the clock
stands. SBX runs in an environment of its own, whose Python is named by --peers-python or $SBX_PYTHON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import COLOURS, axes, bootstrap, save, setting, table, write_json

THRESHOLD, NUM_EPISODES = -200.0, 20
SHARED = {
    **{"num_envs": 16, "gradient_steps": 8, "batch_size": 128, "capacity": 50_000, "warmup": 1_000},
    **{"learning_rate": 1e-3, "discount": 0.98, "target_rate": 0.01, "features": (64, 64)},
    **{"total_steps": 20_000, "every": 800, "num_episodes": NUM_EPISODES},
}
FAST = {"total_steps": 640, "every": 320, "warmup": 160}


def run(command: list[str], config: dict[str, Any]) -> np.ndarray:
    """Start a process, wait for it, and take what it says: rows of steps, seconds, return."""
    environment = {k: x for k, x in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    config = {**config, "started": time.time()}
    done = subprocess.run([*command, json.dumps(config)], stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{command!r} ended with status {done.returncode}; its message stands above")
    return np.array(json.loads(done.stdout.splitlines()[-1])["rows"])


def summarise(runs: list[np.ndarray]) -> dict[str, Any]:
    """Say when each run reached the threshold, and how fast it stepped once it was under way."""
    reached = [next(((row[0], row[1]) for row in rows if row[2] >= THRESHOLD), (np.nan, np.nan)) for rows in runs]
    half = (len(runs[0]) - 1) // 2
    later = [(rows[-1, 0] - rows[half, 0]) / (rows[-1, 1] - rows[half, 1]) for rows in runs]
    return {
        "steps_to_threshold": [x[0] for x in reached],
        "seconds_to_threshold": [x[1] for x in reached],
        "steps_per_second": later,
        "first_seconds": [rows[0, 1] for rows in runs],
        "final_return": [rows[-1, 2] for rows in runs],
        "rows": [rows.tolist() for rows in runs],
    }


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the curves of all runs, return against seconds since the start of the process."""
    figure, panels = axes(len(results))
    for panel, (recipe, sides) in zip(panels, results.items(), strict=True):
        for colour, side in zip(COLOURS, ("pgjax", "sbx"), strict=False):
            for i, rows in enumerate(np.array(sides[side]["rows"])):
                panel.plot(rows[:, 1], rows[:, 2], color=colour, alpha=0.7, linewidth=1.2, label=None if i else side)
        panel.axhline(THRESHOLD, color="grey", linewidth=0.8, linestyle=":")
        panel.set(xlabel="seconds since the process started", title=f"{recipe} on Pendulum-v1")
        panel.set_xlim(left=0.0)
    panels[0].set_ylabel(f"return, {NUM_EPISODES} greedy episodes")
    panels[0].legend(frameon=False)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/peers_off_policy"), help="folder for the JSON and figure")
    parser.add_argument("--repeats", type=int, default=5, help="seeds, each run by both")
    parser.add_argument("--only", nargs="*", default=["sac", "td3"], help="recipes")
    parser.add_argument("--peers-python", default=os.environ.get("SBX_PYTHON"), help="Python that has SBX")
    parser.add_argument("--fast", action="store_true", help="a few steps, to see that it runs; pgjax alone without SBX")
    options = parser.parse_args()
    here = Path(__file__)
    ours = [sys.executable, str(here.with_name("peers_pgjax.py"))]
    theirs = [options.peers_python, str(here.with_name("peers_sbx.py"))] if options.peers_python else None
    if options.fast:
        options.repeats, theirs = 1, theirs or ours
    if theirs is None:
        parser.error("no Python with SBX: run `make bench-sbx`, or pass --peers-python")
    print("  ".join(f"{name} {value}" for name, value in setting().items()), file=sys.stderr)

    results: dict[str, Any] = {}
    rows = []
    for recipe in options.only:
        config = {**SHARED, **(FAST if options.fast else {}), "recipe": recipe, "fast": options.fast}
        pairs = [
            (run(ours, {**config, "seed": seed}), run(theirs, {**config, "seed": seed}))
            for seed in range(options.repeats)
        ]
        sides = {"pgjax": summarise([a for a, _ in pairs]), "sbx": summarise([b for _, b in pairs])}
        seconds = [np.array(sides[side]["seconds_to_threshold"]) for side in ("sbx", "pgjax")]
        ratios = seconds[0] / seconds[1]
        interval = bootstrap(ratios, statistic=np.median)
        results[recipe] = {
            "config": config, **sides, "ratios": ratios.tolist(), "median_ratio": float(np.median(ratios)),
            "interval": interval,
        }  # fmt: skip
        for side, found in sides.items():
            ratio = f"{np.median(ratios):.1f} [{interval[0]:.1f}, {interval[1]:.1f}]" if side == "pgjax" else "1"
            rows.append([
                f"{recipe}, {side}",
                f"{np.median(found['seconds_to_threshold']):.1f}",
                ratio,
                f"{np.median(found['steps_to_threshold']):.0f}",
                f"{np.median(found['steps_per_second']):.0f}",
                f"{np.median(found['first_seconds']):.1f}",
                f"{np.mean(found['final_return']):.0f}",
            ])  # fmt: skip
    write_json(options.out / "results.json", results)
    draw(results, options.out / "curves.png")
    print(table(["", "seconds to -200", "ratio [95 %]", "steps to it", "steps/s", "first s", "last return"], rows))
    print("\nseconds: from the start of the process; steps/s: in the second half; first s: to the first evaluation")


if __name__ == "__main__":
    main()
