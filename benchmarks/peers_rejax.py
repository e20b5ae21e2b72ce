"""The other side of peers.py: PPO of rejax, in an environment of its own. Started by peers.py, not by hand.

Reads a configuration from the command line, compiles, says so in a line of JSON, then trains once for each seed that
comes in on standard input and answers with a line of JSON.
"""

import json
import sys
import time
from importlib.metadata import version

import gymnax
import jax
import jax.numpy as jnp
from rejax import PPO
from rejax.evaluate import evaluate


def main() -> None:
    config = json.loads(sys.argv[1])
    env, env_params = gymnax.make("CartPole-v1")
    total = config["total_steps"]
    algorithm = PPO.create(
        env=env,
        env_params=env_params,
        num_envs=config["num_envs"],
        num_steps=config["num_steps"],
        num_epochs=config["num_epochs"],
        num_minibatches=config["num_minibatches"],
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        learning_rate=config["learning_rate"],
        max_grad_norm=0.5,
        gamma=0.99,
        gae_lambda=0.95,
        clip_eps=0.2,
        vf_coef=0.5,
        ent_coef=0.01,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: jnp.float32(0.0))
    started = time.perf_counter()
    train = jax.jit(algorithm.train).lower(jax.random.key(0)).compile()
    compile_seconds = time.perf_counter() - started
    versions = {name: version(name) for name in ("rejax", "jax", "gymnax")}
    print(json.dumps({"compile_seconds": compile_seconds, "versions": versions}), flush=True)
    # rejax's own evaluation takes a new closure each time; compiled once here, outside the clock.
    score = jax.jit(lambda state, key: evaluate(algorithm.make_act(state), key, env, env_params, 128)[1])
    for line in sys.stdin:
        key = jax.random.key(int(line))
        started = time.perf_counter()
        state, _ = jax.block_until_ready(train(key))
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "return": float(score(state, key).mean())}), flush=True)


if __name__ == "__main__":
    main()
