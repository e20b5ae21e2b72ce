"""The pages of `learn.py`: a table and a figure for each environment, and the settings of every cell."""

import json
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import COLOURS, axes, bootstrap, interquartile_mean, markdown, save
from matplotlib import ticker

PAGE = """# {title}

{intro}, with {seeds} seeds. *This page is written by
`make {command} DOCS=1`; do not edit it.* One cell alone: `make {command} ONLY={first_recipe} ENV={first_env}`.

How to read it. *Return*: the interquartile mean over seeds of the final policy, which plays
whole episodes and takes the mode of its distribution, with its 95 % bootstrap interval. *Reached*: how many seeds came
to the threshold named above each table, by the returns of training; the steps and seconds to it are medians over those.
*Seconds* are those of all seeds side by side in one program, and beside them those of its compilation. Where other work
took more than {quiet:.0%} of the machine meanwhile, a part of the run was timed again and stands for all its updates,
or they are left out. *Published*: a figure, its environment steps and its source (`zoo`: rl-baselines3-zoo; gSDE: with
state-dependent exploration, the head `state_dependent`, as here where the settings of the cell name it). A
cell that falls short of a published figure says by how much; one that is longer than the published run also says what
it earned in training after as many steps. A recipe or an environment without a row has not been run.

Measured on {processor}, Python {python}, jax {jax}, pgjax {pgjax}, from {first} to {last}.

## All environments together

The return of each recipe on a scale from a random policy (0) to the threshold (1), cut at 0 and 1; interquartile mean
over seeds and environments, with seeds drawn anew within each environment for the interval.

{together}
{sections}
## Settings

The hyper-parameters that differ from the defaults; the JSON holds the curves of each seed, the returns of each final
policy and the command. *rescaled*: observations are in units of the bounds of their space, by
`envs.RescaledObservation`. A head with `hold` keeps its noise for so many steps.

{settings}
"""

SECTION = """
## {env}

Threshold {threshold:g}; actions drawn uniformly earn {at_random:.1f}; a final policy plays {episodes:,} episodes.

{table}
{notes}
![Returns of all recipes on {env} against environment steps]({name}/{file}.png)
{equal}"""

EQUAL = """
Beside each other at equal environment steps, and at equal seconds: the returns of training, explored as each recipe
does, interquartile mean over seeds with its interval. Seconds are without compilation, of {seeds} seeds side by side,
and only of cells that were timed alone.

{table}
"""


class Page(NamedTuple):
    """What distinguishes a page."""

    name: str  # of the file and of the folder beside it
    command: str  # target of make
    title: str
    intro: str
    first: tuple[str, str]  # a cell for the example
    beside: tuple[str, ...] = ()  # recipes of another page that are compared at equal steps, where they were run


ON_POLICY = Page(
    "learn",
    "learn",
    "What every recipe learns",
    "Each recipe without a replay in each small environment that it can act in",
    ("ppo", "CartPole-v1"),
)
OFF_POLICY = Page(
    "learn_offpolicy",
    "learn-offpolicy",
    "What recipes with action values learn",
    "Each recipe that learns the values of actions, from a replay or on-policy, in the small environments",
    ("sac", "Pendulum-v1"),
    ("ppo",),
)

# Cells of other libraries, which stand beside the recipes; what to note on each.
PEERS = {
    "rejax": "PPO of another library with the settings of gymnax-blines, which publishes no curve, run here by "
    "`make learn-rejax`. Its policies draw their actions in 64 episodes, by which it also reaches the threshold.",
}


def file_name(env: str) -> str:
    """Write the name of an environment so that it may be that of a file anywhere."""
    return env.replace(":", "-")


def read(folder: Path) -> list[dict[str, Any]]:
    """Read all cells that were run."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]


def published() -> dict[str, dict[str, list[Any]]]:
    """Read the published figures."""
    return tomllib.loads((Path(__file__).parent / "learn" / "published.toml").read_text())


def notes_on(env: str, recipes: Iterable[str]) -> str:
    """Write what the settings note on these recipes in an environment, such as why they miss a figure."""
    lines = []
    for recipe in sorted(recipes):
        if recipe in PEERS:
            lines.append(f"- `{recipe}`: {PEERS[recipe]}\n")
            continue
        settings = tomllib.loads((Path(__file__).parent / "learn" / f"{recipe}.toml").read_text()).get(env, {})
        lines += [f"- `{recipe}`: {settings['note']}\n"] if "note" in settings else []
    return "".join(["\n", *lines]) if lines else ""


def in_words(number: float) -> str:
    """Write a number of steps."""
    return f"{number / 1e6:.2g} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


QUIET = 0.05


def alone(cell: dict[str, Any]) -> bool:
    """Tell whether a cell ran on a quiet machine, so that its seconds mean something."""
    return not cell.get("others", 1.0) > QUIET


def shortfall(cell: dict[str, Any], figure: float) -> str:
    """Say by how much a cell misses a published figure; nothing if its interval reaches it."""
    return "" if cell["interval"][1] >= figure else f", missed by {figure - cell['final_return']:.3g}"


def row(cell: dict[str, Any], figures: dict[str, dict[str, list[Any]]]) -> list[str]:
    """Write a cell as a row of its environment's table."""
    low, high = cell["interval"]
    reached = [x for x in cell["steps_to_threshold"] if x is not None]
    seconds = [x for x in cell["seconds_to_threshold"] if x is not None]
    known = figures.get(cell["recipe"], {}).get(cell["env"])
    note = "–"
    if known:
        figure, steps, source = known
        note = f"{figure:g} at {in_words(steps)} ({source}){shortfall(cell, figure)}"
        if cell["curve"]["steps"][-1] > steps:
            note += f"; {at_point(cell, 'steps', steps)} here after as many"
    return [
        f"`{cell['recipe']}`",
        f"{cell['final_return']:.1f} [{low:.1f}, {high:.1f}]",
        in_words(cell["curve"]["steps"][-1]),
        f"{len(reached)} of {cell['seeds']}",
        in_words(float(np.median(reached))) if reached else "–",
        f"{np.median(seconds):.1f}" if seconds and alone(cell) else "–",
        f"{cell['seconds']:.1f} + {cell['compile_seconds']:.1f}" if alone(cell) else "–",
        note,
    ]


HEADER = ["recipe", "return", "steps", "reached", "steps to it", "seconds to it", "seconds + compile", "published"]


def at_point(cell: dict[str, Any], axis: str, point: float) -> str:
    """Write the return of training at a number of steps or seconds: of the last row of the curve up to there."""
    last = int(np.searchsorted(cell["curve"][axis], point, side="right")) - 1
    returns = np.array(cell["curve"]["return"][max(last, 0)], np.float64)
    if last < 0 or np.isnan(returns).any():
        return "–"
    low, high = bootstrap(returns)
    return f"{interquartile_mean(returns):.1f} [{low:.1f}, {high:.1f}]"


def at_equal_cost(cells: list[dict[str, Any]]) -> str:
    """Write the table of all cells of an environment at the largest step, and second, that all of them came to."""
    if len(cells) < 2:
        return ""
    steps = min(cell["curve"]["steps"][-1] for cell in cells)
    seeds = max(cell["seeds"] for cell in cells)
    quiet = [cell for cell in cells if alone(cell) and cell["seeds"] == seeds]
    seconds = min((cell["curve"]["seconds"][-1] for cell in quiet), default=0.0)
    header = ["recipe", f"at {in_words(steps)} steps", *([f"at {seconds:.3g} seconds"] if len(quiet) > 1 else [])]
    rows = []
    for cell in sorted(cells, key=lambda cell: cell["recipe"]):
        timed = at_point(cell, "seconds", seconds) if cell in quiet else "–"
        rows.append([f"`{cell['recipe']}`", at_point(cell, "steps", steps), timed][: len(header)])
    return EQUAL.format(seeds=seeds, table=markdown(header, rows))


def draw(env: str, cells: list[dict[str, Any]], path: Path) -> None:
    """Draw the median over seeds of every recipe's return, with the middle half of the seeds.

    The hundredth of the points of all medians that lies lowest may fall out of the figure.
    """
    figure, (panel,) = axes(width=8.0, height=5.0)
    styles, medians = ("-", "--", ":", "-."), []
    for i, cell in enumerate(sorted(cells, key=lambda cell: -cell["final_return"])):
        colour, style = COLOURS[i % len(COLOURS)], styles[i // len(COLOURS) % len(styles)]
        steps = np.array(cell["curve"]["steps"])
        returns = np.array(cell["curve"]["return"], np.float64)
        known = ~np.isnan(returns).any(axis=1)
        low, middle, high = np.percentile(returns[known], [25, 50, 75], axis=1)
        medians.append(middle)
        panel.plot(steps[known], middle, style, color=colour, label=cell["recipe"], linewidth=1.3)
        panel.fill_between(steps[known], low, high, color=colour, alpha=0.12, linewidth=0)
    panel.axhline(cells[0]["threshold"], color="0.4", linewidth=0.8, linestyle=(0, (1, 3)))
    panel.set(xscale="log", xlabel="environment steps", ylabel="episode return, median of the seeds", title=env)
    bottom, top = np.percentile(np.concatenate(medians), [1, 100])
    margin = 0.05 * (max(top, cells[0]["threshold"]) - bottom)
    panel.set_ylim(bottom - margin, max(top, cells[0]["threshold"]) + margin)
    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 1e4 * low else (1,)))
    panel.xaxis.set_major_formatter(ticker.EngFormatter())  # 20 k
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    save(figure, path)


def scaled(cell: dict[str, Any], at_random: float) -> np.ndarray:
    """Put the final returns on a scale from a random policy to the threshold."""
    share = (np.array(cell["final_by_seed"]) - at_random) / (cell["threshold"] - at_random)
    return np.clip(share, 0.0, 1.0)


def together(cells: list[dict[str, Any]], at_random: dict[str, float]) -> str:
    """Write the table over all environments: the bootstrap draws seeds within each environment."""
    by_recipe: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        by_recipe.setdefault(cell["recipe"], []).append(scaled(cell, at_random[cell["env"]]))
    rows = []
    for name, samples in by_recipe.items():
        statistic = lambda *x, axis=-1: interquartile_mean(np.concatenate(x, axis), axis)  # noqa: E731
        low, high = bootstrap(*samples, statistic=statistic)
        rows.append((statistic(*samples), [f"`{name}`", f"{len(samples)}", f"[{low:.2f}, {high:.2f}]"]))
    ordered = [[row[0], row[1], f"{x:.2f} {row[2]}"] for x, row in sorted(rows, key=lambda pair: -pair[0])]
    return markdown(["recipe", "environments", "scaled return"], ordered)


def settings_of(cell: dict[str, Any], name: str) -> list[str]:
    """Write what a cell was run with."""
    settings = cell["settings"]
    words = ["rescaled"] if settings.get("rescaled") else []
    words += [f"{k}={v}" for part in ("make", "hyper", "model") for k, v in settings[part].items()]
    link = f"[JSON]({name}/{cell['recipe']}-{file_name(cell['env'])}.json)"
    return [f"`{cell['recipe']}` on {cell['env']}", "`" + ", ".join(words) + "`", link]


def write_page(
    folder: Path,
    docs: Path,
    *,
    layout: Page,
    recipes: set[str],
    at_random: dict[str, float],
    num_episodes: dict[str, int],
) -> None:
    """Write a page, its figures and the JSON of every cell of these recipes and environments into the documentation."""
    known, figures = [cell for cell in read(folder) if cell["env"] in at_random], published()
    cells = [cell for cell in known if cell["recipe"] in recipes]
    out = docs / layout.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    environments: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        environments.setdefault(cell["env"], []).append(cell)
    peers = [cell for cell in known if cell["recipe"] in PEERS and cell["env"] in environments]
    for cell in peers:
        environments[cell["env"]].append(cell)
    beside = [cell for cell in known if cell["recipe"] in layout.beside and cell["env"] in environments]
    shown = cells + peers + beside
    for cell in shown:
        path = out / f"{cell['recipe']}-{file_name(cell['env'])}.json"
        path.write_text(json.dumps(cell) + "\n")
    sections = []
    for env, members in environments.items():
        compared = members + [cell for cell in beside if cell["env"] == env]
        draw(env, compared, out / f"{file_name(env)}.png")
        rows = [row(cell, figures) for cell in sorted(members, key=lambda cell: -cell["final_return"])]
        here = {"threshold": members[0]["threshold"], "at_random": at_random[env], "name": layout.name}
        here["episodes"] = num_episodes[env]
        equal = at_equal_cost(compared) if layout.beside else ""
        here |= {"file": file_name(env), "equal": equal, "notes": notes_on(env, {cell["recipe"] for cell in members})}
        sections.append(SECTION.format(env=env, table=markdown(HEADER, rows), **here))
    dates = sorted(cell["setting"]["date"] for cell in cells)
    page = PAGE.format(
        title=layout.title,
        intro=layout.intro,
        command=layout.command,
        first_recipe=layout.first[0],
        first_env=layout.first[1],
        seeds=" or ".join(str(x) for x in sorted({cell["seeds"] for cell in cells})),
        quiet=QUIET,
        first=dates[0],
        last=dates[-1],
        together=together(cells, at_random),
        sections="".join(sections),
        settings=markdown(["cell", "settings", "raw"], [settings_of(cell, layout.name) for cell in shown]),
        **{name: cells[0]["setting"][name] for name in ("processor", "python", "jax", "pgjax")},
    )
    (docs / f"{layout.name}.md").write_text(page)
