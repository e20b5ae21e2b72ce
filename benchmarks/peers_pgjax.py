"""Our side of peers_off_policy.py: SAC and TD3 of pgjax. Started by that script.

Reads a configuration from the command line, trains once, and says in a line of JSON what the policy earned when. The
clock holds imports, so it imports what a user's script would and nothing that plots.
"""

import json
import sys
import time
from typing import Any

import gymnax
import jax

import pgjax as pg


class Clock:
    """Seconds since the process was asked for, with pauses."""

    def __init__(self, started: float):
        self.started, self.paused = started, 0.0

    def read(self) -> float:
        return time.time() - self.started - self.paused

    def pause(self, since: float) -> None:
        self.paused += time.time() - since


def main() -> None:
    config: dict[str, Any] = json.loads(sys.argv[1])
    if config["fast"]:
        jax.config.update("jax_disable_most_optimizations", True)
    clock = Clock(config["started"])
    env, env_params = gymnax.make("Pendulum-v1")
    per_update, name = config["num_envs"], config["recipe"]
    options = {"head": "tanh_normal"} if name == "sac" else {}
    model = pg.networks.default_actor_with_critics(env, env_params, features=tuple(config["features"]), **options)
    shape = {k: config[k] for k in ("num_envs", "gradient_steps", "batch_size", "capacity", "warmup", "total_steps")}
    module = getattr(pg.recipes, name)
    recipe = module.make_train(env, env_params, model=model, **shape)
    rates = [field for field in module.Hyper._fields if field.endswith("learning_rate")]
    hyper = {k: config[k] for k in ("discount", "target_rate")} | dict.fromkeys(rates, config["learning_rate"])
    rows: list[list[float]] = []

    def report(state: Any, metrics: Any) -> None:
        jax.block_until_ready(state.params)
        since = time.time()
        seconds = clock.read()
        played = pg.evaluate(
            jax.random.key(len(rows)), state.params, policy=recipe.policy, env=env, env_params=env_params,
            num_episodes=config["num_episodes"], greedy=True,
        )  # fmt: skip
        steps = (len(rows) + 1) * config["every"]
        rows.append([steps, seconds, float(played.episode_return.mean())])
        clock.pause(since)

    every = config["every"] // per_update
    state = jax.jit(lambda key: recipe.init(key, **hyper))(jax.random.key(config["seed"]))
    pg.recipes.train(recipe, state, every=every, report=report, progress=False, donate=True)
    print(json.dumps({"rows": rows}), flush=True)


if __name__ == "__main__":
    main()
