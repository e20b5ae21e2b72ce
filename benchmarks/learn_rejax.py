"""Train rejax's PPO on Breakout-MinAtar with the published settings of gymnax-blines: a peer at the budget of learn.py.

gymnax-blines publishes a figure after 1e7 steps and no curve. This runs its settings (agents/Breakout-MinAtar/ppo.yaml)
for as many steps as the recipe has here, and writes a cell such as learn.py does. Started by `make learn-rejax`, in the
environment of rejax. What differs from the published run: the learning rate does not warm up, and rejax clips each
element of the gradient in place of its norm. The policies that are played draw their actions.
"""

import argparse
import datetime
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnax
import jax
import numpy as np
from common import bootstrap, interquartile_mean
from rejax import PPO
from rejax.evaluate import evaluate

ENV = "Breakout-MinAtar"
THRESHOLD = 20.0
NUM_EPISODES, EVERY = 64, 6  # a policy is played after so many updates
MAKE = {"num_envs": 64, "num_steps": 128, "total_steps": 1_000_000, "num_epochs": 4, "num_minibatches": 8}
HYPER = {"learning_rate": 5e-4, "discount": 0.999, "lam": 0.95, "clip": 0.2, "entropy_coef": 0.01, "value_coef": 0.5}
BETWEEN = EVERY * MAKE["num_envs"] * MAKE["num_steps"]
MODEL: dict[str, Any] = {"hidden": [256, 256], "activation": "relu"}


def make_train(total_steps: int) -> Any:
    """Make a function of a key to the returns [evaluations, NUM_EPISODES] of the policies along the way."""
    env, env_params = gymnax.make(ENV)
    algorithm = PPO.create(
        env=env,
        env_params=env_params,
        num_envs=MAKE["num_envs"],
        num_steps=MAKE["num_steps"],
        num_epochs=MAKE["num_epochs"],
        num_minibatches=MAKE["num_minibatches"],
        total_timesteps=total_steps,
        eval_freq=BETWEEN,
        skip_initial_evaluation=True,
        learning_rate=HYPER["learning_rate"],
        max_grad_norm=0.5,
        gamma=HYPER["discount"],
        gae_lambda=HYPER["lam"],
        clip_eps=HYPER["clip"],
        vf_coef=HYPER["value_coef"],
        ent_coef=HYPER["entropy_coef"],
        agent_kwargs={"activation": MODEL["activation"], "hidden_layer_sizes": tuple(MODEL["hidden"])},
    )

    def play(algorithm: Any, state: Any, key: jax.Array) -> jax.Array:
        return evaluate(algorithm.make_act(state), key, env, env_params, NUM_EPISODES)[1]

    return algorithm.replace(eval_callback=play).train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/learn"), help="folder of the JSON files")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=MAKE["total_steps"])
    options = parser.parse_args()
    if options.steps < BETWEEN:
        parser.error(f"--steps must be at least {BETWEEN}, after which a policy is first played")
    evaluations = options.steps // BETWEEN  # rejax would round up
    train = jax.jit(make_train(evaluations * BETWEEN)).lower(jax.random.key(0)).compile()
    returns, started = [], time.perf_counter()
    for seed in range(options.seeds):
        returns.append(np.asarray(train(jax.random.key(seed))[1]).mean(1))
        print(f"seed {seed}: {returns[-1][-1]:.1f} after {time.perf_counter() - started:.0f} s", flush=True)
    curve = np.stack(returns, axis=1)  # [evaluations, seeds]
    steps = BETWEEN * np.arange(1, len(curve) + 1)
    first = [int(np.argmax(column)) if column.any() else None for column in (curve >= THRESHOLD).T]
    cell = {
        "setting": {
            **{name: version(name) for name in ("rejax", "jax", "flax", "gymnax")},
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        },
        "recipe": "rejax",
        "env": ENV,
        "settings": {"make": {**MAKE, "total_steps": int(steps[-1])}, "hyper": HYPER, "model": MODEL},
        "seeds": options.seeds,
        "final_return": interquartile_mean(curve[-1]),
        "interval": bootstrap(curve[-1]),
        "final_by_seed": curve[-1].tolist(),
        "threshold": THRESHOLD,
        "steps_to_threshold": [None if i is None else float(steps[i]) for i in first],
        "seconds_to_threshold": [None] * options.seeds,
        "curve": {"steps": steps.tolist(), "return": curve.round(3).tolist()},
        "command": f"python benchmarks/learn_rejax.py --seeds {options.seeds} --steps {options.steps}",
    }
    path = options.out / "rejax" / f"{ENV}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(cell, indent=1, default=float) + "\n")
    low, high = cell["interval"]
    print(f"rejax on {ENV}: {cell['final_return']:.1f} [{low:.1f}, {high:.1f}] after {steps[-1]:,} steps")


if __name__ == "__main__":
    main()
