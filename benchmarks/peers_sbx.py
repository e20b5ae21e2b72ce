"""The other side of peers_off_policy.py: SAC and TD3 of SBX, in an environment of its own. Started by that script.

Reads a configuration from the command line, trains once, and says in a line of JSON what the policy earned when.
"""

import json
import sys
import time
from typing import Any

import flax.linen as nn
import numpy as np
import sbx
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise

EPISODE_STEPS = 200


class Evaluation(BaseCallback):
    """Plays whole episodes with the greedy policy at equal intervals, while the clock stands."""

    def __init__(self, started: float, every: int, num_episodes: int):
        super().__init__()
        self.started, self.every, self.num_episodes, self.paused = started, every, num_episodes, 0.0
        self.rows: list[list[float]] = []
        self.env = make_vec_env("Pendulum-v1", n_envs=num_episodes, seed=1234)

    def _on_rollout_start(self) -> None:  # after the gradient steps of the environment steps before
        if self.num_timesteps < (len(self.rows) + 1) * self.every:
            return
        since = time.time()
        obs, total = self.env.reset(), np.zeros(self.num_episodes)
        for _ in range(EPISODE_STEPS):
            action, _ = self.model.predict(obs, deterministic=True)
            obs, reward, _, _ = self.env.step(action)
            total += reward
        self.rows.append([self.num_timesteps, since - self.started - self.paused, float(total.mean())])
        self.paused += time.time() - since

    def _on_training_end(self) -> None:
        self._on_rollout_start()

    def _on_step(self) -> bool:
        return True


def main() -> None:
    config: dict[str, Any] = json.loads(sys.argv[1])
    num_envs = config["num_envs"]
    env = make_vec_env("Pendulum-v1", n_envs=num_envs, seed=config["seed"])
    options: dict[str, Any] = {
        **{"learning_rate": config["learning_rate"], "buffer_size": config["capacity"], "tau": config["target_rate"]},
        **{"learning_starts": config["warmup"], "batch_size": config["batch_size"], "gamma": config["discount"]},
        **{"train_freq": 1, "gradient_steps": config["gradient_steps"], "seed": config["seed"]},
        "policy_kwargs": {"net_arch": list(config["features"]), "activation_fn": nn.relu},
    }
    if config["recipe"] == "td3":
        size = env.action_space.shape[0]
        options["action_noise"] = VectorizedActionNoise(
            NormalActionNoise(np.zeros(size), 0.1 * np.ones(size)), num_envs
        )
    model = {"sac": sbx.SAC, "td3": sbx.TD3}[config["recipe"]]("MlpPolicy", env, **options)
    evaluation = Evaluation(config["started"], config["every"], config["num_episodes"])
    model.learn(config["total_steps"], callback=evaluation)
    print(json.dumps({"rows": evaluation.rows}), flush=True)


if __name__ == "__main__":
    main()
