"""Show three ways in which PPO with a clip fails on problems of one step, and what repairs each.

After Hsu, Mendler-Dünner and Hardt (2020), Revisiting design choices in proximal policy optimization. Writes
ppo_failures.json, ppo_failures.md and a figure; with --docs the page and the figure of the documentation as well.
"""

import argparse
import json
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import COLOURS, axes, quick_to_compile, save, setting, table, write_json

import pgjax as pg

NORMAL, BETA, POINTS, SOFTMAX = "normal", "Beta", "points", "softmax"
CLIP, FORWARD, REVERSE = "clip", "forward penalty", "reverse penalty"
NUM_POINTS, NUM_ACTIONS = 11, 100
FAILS = 2 / 3  # a clip that solves less than this share of the runs
SOLVED = 0.8  # mean reward of the last policy; the best action of each problem earns 1


class Policy(NamedTuple):
    """A distribution without an observation: its parameters at the start, what they make, what an action stands for."""

    start: Any
    of: Any
    act: Any = lambda action: action[..., 0]


def normal(mean: float, std: float) -> Policy:
    start = {"mean": jnp.full(1, mean), "log_std": jnp.full(1, np.log(std))}
    return Policy(start, lambda x: pg.Normal(x["mean"], jnp.exp(x["log_std"])))


def beta() -> Policy:
    """On the box from -1 to 1, as `networks.BetaPolicy` starts."""
    return Policy(jnp.zeros((2, 1)), lambda x: pg.Beta(*(1.0 + jax.nn.softplus(x)), low=-1.0, high=1.0))


def points() -> Policy:
    """Points at equal distances on that box, as `envs.DiscretizedAction` has them."""
    act = lambda action: -1.0 + 2.0 * action / (NUM_POINTS - 1)  # noqa: E731
    return Policy(jnp.zeros(NUM_POINTS), pg.Categorical, act)


def softmax() -> Policy:
    return Policy(jnp.zeros(NUM_ACTIONS), pg.Categorical, lambda action: action)


def bounded(action: jax.Array) -> jax.Array:
    """1 at 0.5, falling by the square of the distance; nothing beyond the box."""
    return jnp.where(jnp.abs(action) <= 1.0, 1.0 - jnp.square(action - 0.5), 0.0)


def rare(action: jax.Array) -> jax.Array:
    """1 for one action of a hundred, 0.5 for ten, 0 for the others."""
    return jnp.where(action == 0, 1.0, jnp.where(action <= 10, 0.5, 0.0))


def two_hills(action: jax.Array) -> jax.Array:
    """1 at 0.8, and 0.5 at -0.2."""
    hill = lambda at: jnp.exp(-0.5 * jnp.square((action - at) / 0.15))  # noqa: E731
    return hill(0.8) + 0.5 * hill(-0.2)


class Failure(NamedTuple):
    """A problem and the policies that are tried on it: the first with a clip is the one that fails."""

    title: str
    claim: str
    reward: Any
    methods: tuple[tuple[str, str, Policy], ...]
    repairs: tuple[str, ...]  # those of which the paper says that they do
    learning_rate: float
    kl_coef: float
    batch: int


def on_the_box(start: Policy) -> tuple[tuple[str, str, Policy], ...]:
    return (
        (NORMAL, CLIP, start), (BETA, CLIP, beta()), (POINTS, CLIP, points()), (NORMAL, FORWARD, start),
        (NORMAL, REVERSE, start),
    )  # fmt: skip


FAILURES = {
    "bounded": Failure(
        "Rewards that vanish outside a bounded region",
        "A normal policy is carried out of the region by its own steps; where every reward is 0, nothing leads back.",
        bounded,
        on_the_box(normal(0.0, 0.5)),
        (f"{BETA}, {CLIP}", f"{POINTS}, {CLIP}", f"{NORMAL}, {FORWARD}", f"{NORMAL}, {REVERSE}"),
        0.1,
        1.0,
        32,
    ),
    "rare": Failure(
        "A high reward that is rarely met",
        "A softmax policy settles on actions that are good enough before it has met the best often enough.",
        rare,
        tuple((SOFTMAX, objective, softmax()) for objective in (CLIP, FORWARD, REVERSE)),
        (f"{SOFTMAX}, {FORWARD}", f"{SOFTMAX}, {REVERSE}"),
        1.0,
        20.0,
        32,
    ),
    "rare_slowly": Failure(
        "The same with smaller steps and lighter penalties",
        "It fails and is repaired in the same way at a tenth of the learning rate, with penalties of weight 1.",
        rare,
        tuple((SOFTMAX, objective, softmax()) for objective in (CLIP, FORWARD, REVERSE)),
        (f"{SOFTMAX}, {FORWARD}", f"{SOFTMAX}, {REVERSE}"),
        0.1,
        1.0,
        32,
    ),
    "start": Failure(
        "A good action near the start, and a better one further off",
        "A normal policy that starts on the lower hill stays there.",
        two_hills,
        on_the_box(normal(-0.2, 0.3)),
        (f"{BETA}, {CLIP}", f"{POINTS}, {CLIP}"),
        0.05,
        1.0,
        32,
    ),
}
NUM_EPOCHS, CLIP_RANGE = 10, 0.2


def learn(
    key: jax.Array, failure: Failure, policy: Policy, objective: str, num_updates: int
) -> tuple[jax.Array, jax.Array]:
    """Train one policy on one problem: the mean reward of each batch, and of many actions of the last policy."""
    transform = optax.adam(failure.learning_rate, eps=1e-5)

    def loss(params: Any, old: Any, action: jax.Array, log_prob: jax.Array, advantage: jax.Array) -> jax.Array:
        new = policy.of(params)
        log_ratio = new.log_prob(action) - log_prob
        if objective == CLIP:
            return jnp.mean(pg.ppo_clip_loss(log_ratio, advantage, clip=CLIP_RANGE))
        kl = old.kl_divergence(new) if objective == FORWARD else new.kl_divergence(old)
        kl = jnp.broadcast_to(kl, log_ratio.shape)
        return jnp.mean(pg.kl_penalty_loss(log_ratio, advantage, kl=kl, coefficient=failure.kl_coef))

    def update(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        params, opt_state = carry
        old = policy.of(params)
        action = jax.vmap(old.sample)(jax.random.split(key, failure.batch))
        reward = failure.reward(policy.act(action))
        data = (old, action, old.log_prob(action), pg.standardize(reward))

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            params, opt_state = carry
            updates, opt_state = transform.update(jax.grad(loss)(params, *data), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, opt_state), length=NUM_EPOCHS)[0], reward.mean()

    key, last_key = jax.random.split(key)
    start = (policy.start, transform.init(policy.start))
    (params, _), rewards = jax.lax.scan(update, start, jax.random.split(key, num_updates))
    last = jax.vmap(policy.of(params).sample)(jax.random.split(last_key, 1000))
    return rewards, failure.reward(policy.act(last)).mean()


def measure(name: str, seeds: int, num_updates: int) -> dict[str, dict[str, Any]]:
    """Mean reward of each method over the updates, and the reward of each last policy."""
    failure, found = FAILURES[name], {}
    for kind, objective, policy in failure.methods:
        run = jax.jit(jax.vmap(lambda key, p=policy, o=objective: learn(key, failure, p, o, num_updates)))
        curve, final = run(jax.random.split(jax.random.key(0), seeds))
        found[f"{kind}, {objective}"] = {
            "curve": np.asarray(curve.mean(0)).tolist(),
            "final": np.asarray(final).tolist(),
            "solved": float(np.mean(final >= SOLVED)),
        }
    return found


PAGE = """# Where a clip fails

Small problems of one step on which PPO with a clip is said to fail, after Hsu, Mendler-Dünner and Hardt (2020),
*Revisiting design choices in proximal policy optimization*, and what repairs each: a Beta policy, a choice among points
of the interval, or a penalty on the divergence from the old policy in place of the clip. Objectives, penalties and
distributions are those of the library, as in `recipes.ppo` and `recipes.kl_ppo`. The verdicts are written by the
script, from its figures. *This page is written by `python benchmarks/ppo_failures.py --docs docs`; do not edit it.*

![Mean reward over the updates](figures/ppo_failures.png)
{sections}
{seeds} seeds, {updates} updates of {epochs} steps of Adam on a whole batch, clip {clip}, standardised rewards for
advantages. A run is solved if its last policy earns {solved} in the mean, of 1. Measured on {processor} ({device}),
Python {python}, jax {jax}, pgjax {pgjax}, on {date}, in {seconds:.0f} s.
"""
SECTION = """
## {title}

*The claim.* {claim}

```text
{table}
```

{verdict}

Learning rate {learning_rate}, batches of {batch}, weight of the penalties {kl_coef}.
"""


def verdict(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Say whether the failure showed, and which of the repairs that the paper names repaired it."""
    failure = FAILURES[name]
    first = ", ".join(failure.methods[0][:2])
    broken = found[first]["solved"]
    shown = "**Found again.**" if broken < FAILS else "**Not found.**"
    lines = [f"- {shown} The failure: {first} solves {100 * broken:.0f} % of the runs."]
    for repair in failure.repairs:
        share = found[repair]["solved"]
        word = "**Found again.**" if broken < FAILS and share > broken + 0.3 else "**Not found.**"
        lines.append(f"- {word} The repair: {repair} solves {100 * share:.0f} %.")
    return "\n".join(lines)


def page(results: dict[str, Any], options: argparse.Namespace, seconds: float) -> str:
    sections = []
    for name, found in results.items():
        rows = [
            [method, f"{100 * x['solved']:.0f} %", f"{np.mean(x['final']):.2f}", f"{np.min(x['final']):.2f}"]
            for method, x in found.items()
        ]
        cells = table(["policy, objective", "solved", "mean reward", "worst seed"], rows)
        failure = FAILURES[name]._asdict()
        sections.append(SECTION.format(**failure, table=cells, verdict=verdict(name, found)))
    return PAGE.format(
        sections="".join(sections), seeds=options.seeds, updates=options.updates, epochs=NUM_EPOCHS, clip=CLIP_RANGE,
        solved=SOLVED, seconds=seconds, **setting(),
    )  # fmt: skip


def draw(results: dict[str, Any], path: Path) -> None:
    figure, panels = axes(len(results), width=4.2)
    for panel, (name, found) in zip(panels, results.items(), strict=True):
        for colour, (method, x) in zip(COLOURS, found.items(), strict=False):
            panel.plot(x["curve"], color=colour, label=method, linewidth=1.2)
        panel.set(xlabel="updates", title=textwrap.fill(FAILURES[name].title, 32))
        panel.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("mean reward")
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/ppo_failures"))
    parser.add_argument("--docs", type=Path, help="folder of the documentation whose page and figure to write anew")
    parser.add_argument("--only", nargs="+", choices=list(FAILURES), help="these problems alone")
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--fast", action="store_true", help="two updates, to see that everything runs")
    options = parser.parse_args()
    if options.fast:
        options.seeds, options.updates = 2, 2
        quick_to_compile()
    written = options.out / "ppo_failures.json"
    known = json.loads(written.read_text())["problems"] if written.exists() else {}
    size = {"seeds": options.seeds, "updates": options.updates}
    for name in options.only or FAILURES:
        if known.get(name, {}).get("size") != size:
            started = time.perf_counter()
            found = measure(name, options.seeds, options.updates)
            known[name] = {"size": size, "methods": found, "seconds": time.perf_counter() - started}
            write_json(written, {"problems": known})  # after each, so that a run that is stopped goes on where it was
        print(f"{FAILURES[name].title}\n{verdict(name, known[name]['methods'])}\n", flush=True)
    if missing := [name for name in FAILURES if known.get(name, {}).get("size") != size]:
        print(f"the page needs all problems, {', '.join(missing)} is not measured yet.")
        return
    results = {name: known[name]["methods"] for name in FAILURES}
    text = page(results, options, sum(known[name]["seconds"] for name in FAILURES))
    for folder in [options.out, *([options.docs] if options.docs else [])]:
        draw(results, folder / "figures" / "ppo_failures.png")
        (folder / "ppo_failures.md").write_text(text)
    print(f"figure and page in {options.out}")


if __name__ == "__main__":
    main()
