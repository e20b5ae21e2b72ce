"""Measure what curvature costs: natural gradient, TRPO's step and K-FAC's beside a plain gradient, by network width.

Writes curvature.png and curvature.json; with --docs the page and its figure in the documentation as well.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import COLOURS, axes, markdown, quick_to_compile, save, setting, table, write_json

import pgjax as pg
from pgjax import natural

PAGE = """# The price of curvature

What a step of each kind takes beside the gradient that it starts from: a policy with two hidden layers and two actions,
{rows} states, in one run. The natural gradient takes ten iterations of conjugate gradients; TRPO adds the scale and the
line search; K-FAC takes its factors from one drawn action for each state, or from
the exact expectation over both, and inverts them. Each figure is the median of {repeats} turns in which all steps take
part, compilation apart; in brackets the least and the most.

{table}

![Time of each kind of step over the time of a plain gradient, against the width of the network](curvature.png)

Reproduce it with `python benchmarks/curvature.py`. *This page is written by the same with `--docs docs`; do not edit
it.* Measured on {processor}, Python {python}, jax {jax}, pgjax {pgjax}, on {date}.
"""


def steps(width: int, rows: int, seed: int = 0) -> dict[str, Callable[[], Any]]:
    """Make each kind of step as a compiled function without arguments."""
    model = pg.networks.ActorCritic(pg.networks.DiscretePolicy(num_actions=2), features=(width, width))
    keys = jax.random.split(jax.random.key(seed), 5)
    obs, weight = jax.random.normal(keys[0], (rows, 4)), jax.random.normal(keys[1], (rows,))
    params = model.init(keys[2], obs)
    policy = lambda params, obs: model.apply(params, obs, method="policy")  # noqa: E731
    action = policy(params, obs).sample(keys[3])

    def objective(params: Any) -> jax.Array:
        return jnp.mean(pg.policy_gradient_loss(policy(params, obs).log_prob(action), weight))

    def curved(transform: Any, **more: Any) -> Callable[..., Any]:
        def step(params: Any) -> Any:
            old = jax.lax.stop_gradient(policy(params, obs))
            functions = {
                "fisher": natural.fisher_vector_product(params, obs, policy=policy),
                "objective": lambda params: -jnp.mean(policy(params, obs).log_prob(action) * weight),
                "divergence": lambda params: jnp.mean(old.kl_divergence(policy(params, obs))),
                **{name: make(params) for name, make in more.items()},
            }
            return transform.update(jax.grad(objective)(params), transform.init(params), params, **functions)[0]

        return step

    def factors(key: Any) -> Callable[[Any], Any]:
        return lambda params: natural.kronecker_factors(key, params, obs, policy=policy)

    kinds = {
        "plain gradient": jax.grad(objective),
        "natural gradient": curved(natural.scale_by_natural_gradient(10, 0.1, 0.0)),
        "TRPO": curved(natural.trpo(0.01, 10, 0.1)),
        "K-FAC, drawn": curved(natural.scale_by_kfac(0.01), factors=factors(keys[4])),
        "K-FAC, exact": curved(natural.scale_by_kfac(0.01), factors=factors(None)),
    }
    compiled = {name: jax.jit(step) for name, step in kinds.items()}
    return {name: lambda step=step: jax.block_until_ready(step(params)) for name, step in compiled.items()}


def measure(width: int, rows: int, repeats: int) -> dict[str, list[float]]:
    """Time all steps in turn, in seconds."""
    turns = steps(width, rows)
    for step in turns.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(repeats):
        for name, step in turns.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def draw(ratios: dict[int, dict[str, np.ndarray]], path: Path) -> None:
    """Draw the ratio to a plain gradient, with the middle half of the turns."""
    figure, (panel,) = axes(width=6.4)
    widths = list(ratios)
    for colour, name in zip(COLOURS, ratios[widths[0]], strict=False):
        low, middle, high = np.array([np.percentile(ratios[w][name], [25, 50, 75]) for w in widths]).T
        panel.plot(widths, middle, "o-", color=colour, label=name, markersize=3.5)
        panel.fill_between(widths, low, high, color=colour, alpha=0.15, linewidth=0)
    panel.set(xscale="log", yscale="log", xlabel="width of both hidden layers", ylabel="time, in plain gradients")
    panel.set_xticks(widths, [str(w) for w in widths])
    panel.minorticks_off()
    figure.legend(frameon=False, fontsize=8, loc="outside right upper")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/curvature"), help="folder of the figure and the JSON")
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page to write anew")
    parser.add_argument("--rows", type=int, default=2048, help="states in a batch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--fast", action="store_true", help="small networks, few turns, to see that everything runs")
    options = parser.parse_args()
    widths = [64, 128, 256, 512, 1024]
    if options.fast:
        widths, options.rows, options.repeats = [8, 16], 32, 2
        quick_to_compile()
    seconds = {width: measure(width, options.rows, options.repeats) for width in widths}
    ratios = {
        width: {name: np.divide(x, found["plain gradient"]) for name, x in found.items()}
        for width, found in seconds.items()
    }
    header = ["width", "plain gradient, ms", *[name for name in ratios[widths[0]] if name != "plain gradient"]]
    rows = []
    for width in widths:
        plain = np.median(seconds[width]["plain gradient"])
        cells = [ratios[width][name] for name in header[2:]]
        rows.append(
            [f"{width}", f"{1e3 * plain:.2f}", *[f"{np.median(x):.1f} [{x.min():.1f}, {x.max():.1f}]" for x in cells]]
        )
    print(table(header, rows))
    write_json(options.out / "curvature.json", {"rows": options.rows, "seconds": seconds})
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        draw(ratios, folder / "curvature.png")
    if options.docs:
        where = {name: setting()[name] for name in ("processor", "python", "jax", "pgjax", "date")}
        page = PAGE.format(rows=options.rows, repeats=options.repeats, table=markdown(header, rows), **where)
        (options.docs / "curvature.md").write_text(page)


if __name__ == "__main__":
    main()
