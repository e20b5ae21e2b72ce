"""Train PPO on CartPole with pgjax and with rejax in turn, and time rollouts against a scan written by hand.

Same network, same hyper-parameters, same number of steps, runs alternating A B A B so that a drift of the machine
meets both; compilation apart. rejax runs in an environment of its own, whose Python is named by --peers-python or
$PEERS_PYTHON. With --against FOLDER another checkout of pgjax takes its place: is it faster than before?
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from common import bootstrap, quick_to_compile, setting, table, write_json

import pgjax as pg

CONFIGS = {
    "4 x 128": {"num_envs": 4, "num_steps": 128, "total_steps": 500_000, "learning_rate": 2.5e-4},
    "2048 x 32": {"num_envs": 2048, "num_steps": 32, "total_steps": 2**21, "learning_rate": 2.5e-3},
}
FAST = {"4 x 8": {"num_envs": 4, "num_steps": 8, "total_steps": 64, "learning_rate": 2.5e-4}}
ROLLOUTS = ((4, 128), (2048, 128))
ROOT = Path(__file__).resolve().parents[1]


class Side:
    """One library in a process of its own, which is stopped while it is not its turn: idle threads may spin."""

    def __init__(self, command: list[str], folder: Path | None = None):
        path = {"PYTHONPATH": str(folder)} if folder else {}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **path}
        )
        self.hello = self._answer()
        self.process.send_signal(signal.SIGSTOP)

    def run(self, seed: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        print(seed, file=self.process.stdin, flush=True)
        answer = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.communicate(timeout=60)  # it ends where its input ends

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise RuntimeError(f"{self.process.args!r} ended with status {status}; its message stands above")
        return json.loads(line)


def serve(config: dict[str, Any]) -> None:
    """Be the process of pgjax: compile, say so in a line of JSON, then train once for each seed that comes in."""
    if config["fast"]:
        quick_to_compile()
    env, env_params = gymnax.make("CartPole-v1")
    shape = {name: config[name] for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches", "total_steps")}
    # As rejax has it: rewards as they come, and the value bounded by the same number as the ratio.
    recipe = pg.recipes.ppo.make_train(env, env_params, **shape, normalize_rewards=False)
    hyper = {"learning_rate": config["learning_rate"], "anneal": 0.0, "value_clip": 0.2}
    started = time.perf_counter()
    train = jax.jit(lambda key: recipe(key, **hyper)).lower(jax.random.key(0)).compile()
    print(json.dumps({"compile_seconds": time.perf_counter() - started}), flush=True)
    for line in sys.stdin:
        key = jax.random.key(int(line))
        started = time.perf_counter()
        state, _ = jax.block_until_ready(train(key))
        seconds = time.perf_counter() - started
        result = pg.evaluate(
            key, state.params, policy=recipe.policy, env=env, env_params=env_params, num_episodes=128
        )  # fmt: skip
        print(json.dumps({"seconds": seconds, "return": float(result.episode_return.mean())}), flush=True)


def compare_training(
    config: dict[str, Any], repeats: int, *, other: str, python: str | None, against: Path | None
) -> dict[str, Any]:
    """Alternate the two libraries over the same seeds; the first pair warms up and is not counted."""
    here = Path(__file__)
    command = [sys.executable, str(here), "--serve", json.dumps(config)]
    if against:
        theirs = Side(command, against)
    else:
        theirs = Side([str(python), str(here.with_name("peers_rejax.py")), json.dumps(config)])
    ours = Side(command, ROOT)
    pairs = [(ours.run(seed), theirs.run(seed)) for seed in range(repeats + 1)][1:]
    theirs.close()
    ours.close()
    steps = config["total_steps"]
    sides = {}
    for name, hello, runs in (
        ("pgjax", ours.hello, [a for a, _ in pairs]),
        (other, theirs.hello, [b for _, b in pairs]),
    ):
        seconds = np.array([run["seconds"] for run in runs])
        sides[name] = {
            **hello,
            "steps_per_second": (steps / seconds).tolist(),
            "median_steps_per_second": float(np.median(steps / seconds)),
            "best_steps_per_second": float((steps / seconds).max()),
            "returns": [run["return"] for run in runs],
        }
    ratios = [b["seconds"] / a["seconds"] for a, b in pairs]
    return {
        **sides,
        "ratios": ratios,
        "median_ratio": float(np.median(ratios)),
        "interval": bootstrap(ratios, statistic=np.median),
    }


def compare_rollout(num_envs: int, num_steps: int, repeats: int) -> dict[str, Any]:
    """Time pg.rollout against a scan written by hand: same network, same environment, same outputs."""
    env, env_params = gymnax.make("CartPole-v1")
    model = pg.networks.ActorCritic(pg.networks.DiscretePolicy(2))
    params = model.init(jax.random.key(0), jnp.zeros(4))
    policy = lambda params, obs: model.apply(params, obs, method="policy")  # noqa: E731

    def by_hand(params: Any, carry: Any, key: jax.Array) -> Any:
        def step(carry: Any, key: jax.Array) -> Any:
            obs, env_state = carry
            act_key, env_key = jax.random.split(key)
            logits = policy(params, obs).logits
            action = jax.random.categorical(act_key, logits)
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], axis=1)[:, 0]
            keys = jax.random.split(env_key, num_envs)
            next_obs, env_state, reward, terminated, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                keys, env_state, action, env_params
            )
            row = (obs, action, reward, info["final_observation"], terminated, truncated, log_prob)
            return (next_obs, env_state), row

        return jax.lax.scan(step, carry, jax.random.split(key, num_steps))

    def ours(params: Any, state: Any, key: jax.Array) -> Any:
        return pg.rollout(key, params, state, policy=policy, env=env, env_params=env_params, num_steps=num_steps)

    start = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(1), num_envs), env_params)
    state = pg.init_rollout(jax.random.key(1), env, env_params, num_envs=num_envs)
    sides = {"pgjax": (ours, state), "by hand": (by_hand, start)}
    programs = {name: (jax.jit(f).lower(params, s, jax.random.key(0)).compile(), s) for name, (f, s) in sides.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats + 1):
        for name, (program, start_state) in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program(params, start_state, jax.random.key(repeat)))
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    ratios = np.array(seconds["by hand"]) / np.array(seconds["pgjax"])
    steps = num_envs * num_steps
    return {
        **{name: {"median_steps_per_second": steps / float(np.median(x))} for name, x in seconds.items()},
        "median_ratio": float(np.median(ratios)),
        "interval": bootstrap(ratios, statistic=np.median),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/peers"), help="folder for results.json")
    parser.add_argument("--repeats", type=int, default=7, help="counted pairs of training runs")
    parser.add_argument("--peers-python", default=os.environ.get("PEERS_PYTHON"), help="Python that has rejax")
    parser.add_argument("--against", type=Path, help="folder of another checkout of pgjax, in place of rejax")
    parser.add_argument("--fast", action="store_true", help="a few steps, to see that everything runs")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.fast:
        quick_to_compile()
        options.repeats, options.against = 2, options.against or (None if options.peers_python else ROOT)
    if not (options.peers_python or options.against):
        parser.error("no Python with rejax: run `make bench-peers`, or pass --peers-python or --against")
    other = f"pgjax in {options.against}" if options.against else "rejax"
    print("  ".join(f"{name} {value}" for name, value in setting().items()), file=sys.stderr)

    rows, results = [], {}
    for name, config in (FAST if options.fast else CONFIGS).items():
        config = {**config, "num_epochs": 4, "num_minibatches": 4, "fast": options.fast}
        result = results[f"PPO {name}"] = compare_training(
            config, options.repeats, other=other, python=options.peers_python, against=options.against
        )
        for side in ("pgjax", other):
            ratio = f"{result['median_ratio']:.2f} [{result['interval'][0]:.2f}, {result['interval'][1]:.2f}]"
            rows.append([
                f"PPO {name}, {side}",
                f"{result[side]['median_steps_per_second'] / 1e3:.0f} k",
                f"{result[side]['best_steps_per_second'] / 1e3:.0f} k",
                ratio if side == "pgjax" else "1",
                f"{result[side]['compile_seconds']:.1f}",
                f"{np.mean(result[side]['returns']):.0f}",
            ])  # fmt: skip
    for num_envs, num_steps in ((4, 8),) if options.fast else ROLLOUTS:
        result = results[f"rollout {num_envs} x {num_steps}"] = compare_rollout(
            num_envs, num_steps, 4 * options.repeats
        )
        ratio = f"{result['median_ratio']:.2f} [{result['interval'][0]:.2f}, {result['interval'][1]:.2f}]"
        for side in ("pgjax", "by hand"):
            rate = f"{result[side]['median_steps_per_second'] / 1e3:.0f} k"
            rows.append(
                [f"rollout {num_envs} x {num_steps}, {side}", rate, "", ratio if side == "pgjax" else "1", "", ""]
            )
    write_json(options.out / "results.json", results)
    print(table(["", "steps/s, median", "best", "ratio [95 %]", "compile s", "return"], rows))
    print(
        "\nratio: pair by pair, median and bootstrap interval; return: mean of 128 whole episodes of each final policy"
    )


if __name__ == "__main__":
    main()
