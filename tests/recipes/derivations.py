"""One update of each recipe from its paper, in NumPy and float64, for the tables of `world`: loops, no library.

A derivation is derive(tables, memory, data, hyper, progress, ...) -> (tables, memory, metrics), where data is the
window as arrays [T, B], and memory what it keeps from update to update, Adam's moments here. What is drawn at random
(the window, the order of the rows) is given.
"""

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray


class Adam(NamedTuple):
    """Kingma and Ba (2015), algorithm 1."""

    count: int
    first: Array
    second: Array

    def step(self, gradient: Array, learning_rate: float, eps: float = 1e-5) -> tuple[Array, "Adam"]:
        count = self.count + 1
        first = 0.9 * self.first + 0.1 * gradient
        second = 0.999 * self.second + 0.001 * gradient**2
        direction = (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + eps)
        return -learning_rate * direction, Adam(count, first, second)


def flat(tables: tuple[Array, ...]) -> Array:
    return np.concatenate([x.ravel() for x in tables])


def unflat(vector: Array, tables: tuple[Array, Array]) -> tuple[Array, Array]:
    size = tables[0].size
    return vector[:size].reshape(tables[0].shape), vector[size:].reshape(tables[1].shape)


def adam_of(tables: tuple[Array, Array]) -> Adam:
    """The optimiser before its first step."""
    return Adam(0, np.zeros(flat(tables).size), np.zeros(flat(tables).size))


def descend(tables: Any, adam: Adam, gradient: Array, hyper: Any, progress: float) -> tuple[Any, Adam]:
    """Adam on the gradient, scaled down to a norm, with a learning rate that falls linearly."""
    norm = np.linalg.norm(gradient)
    clipped = gradient * min(1.0, hyper["max_grad_norm"] / norm if norm else 1.0)
    change, adam = adam.step(clipped, hyper["learning_rate"] * (1 - hyper["anneal"] * progress))
    return unflat(flat(tables) + change, tables), adam


def probabilities(actor: Array, obs: Array) -> Array:
    logits = obs @ actor
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def rewards_to_go(data: Any, discount: float) -> Array:
    result = np.zeros_like(data.reward)
    for b in range(data.reward.shape[1]):
        running = 0.0
        for t in reversed(range(data.reward.shape[0])):
            running = data.reward[t, b] + (0.0 if data.done[t, b] else discount * running)
            result[t, b] = running
    return result


def generalised_advantage(data: Any, critic: Array, discount: float, lam: float) -> tuple[Array, Array]:
    """Schulman et al. (2016): the advantage, and the values it was counted from."""
    values, following = data.obs @ critic, data.next_obs @ critic
    result = np.zeros_like(data.reward)
    for b in range(data.reward.shape[1]):
        running = 0.0
        for t in reversed(range(data.reward.shape[0])):
            bootstrap = 0.0 if data.terminated[t, b] else discount * following[t, b]
            error = data.reward[t, b] + bootstrap - values[t, b]
            running = error + (0.0 if data.done[t, b] else discount * lam * running)
            result[t, b] = running
    return result, values


def reinforce(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    returns = rewards_to_go(data, hyper["discount"])
    num_steps, num_envs = returns.shape
    gradient, loss = np.zeros_like(tables[0]), 0.0
    for t in range(num_steps):
        for b in range(num_envs):
            baseline = (returns[t].sum() - returns[t, b]) / (num_envs - 1)
            p = probabilities(tables[0], data.obs[t, b])
            weight = returns[t, b] - baseline
            score = np.eye(2)[data.action[t, b]] - p
            gradient -= weight * np.outer(data.obs[t, b], score) / num_envs
            loss -= weight * np.log(p[data.action[t, b]]) / num_envs
    gradient = flat((gradient, np.zeros_like(tables[1])))
    metrics = {"loss": loss, "grad_norm": np.linalg.norm(gradient), "num_nonfinite": 0}
    return *descend(tables, adam, gradient, hyper, progress), metrics


def standardized_reinforce(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """The form of PyTorch's example: standard scores of the returns for weights, no baseline."""
    returns = rewards_to_go(data, hyper["discount"])
    scores = (returns - returns.mean()) / (returns.std() + 1e-8)
    num_steps, num_envs = returns.shape
    gradient, loss = np.zeros_like(tables[0]), 0.0
    for t in range(num_steps):
        for b in range(num_envs):
            p = probabilities(tables[0], data.obs[t, b])
            gradient -= scores[t, b] * np.outer(data.obs[t, b], np.eye(2)[data.action[t, b]] - p) / num_envs
            loss -= scores[t, b] * np.log(p[data.action[t, b]]) / num_envs
    gradient = flat((gradient, np.zeros_like(tables[1])))
    metrics = {"loss": loss, "grad_norm": np.linalg.norm(gradient), "num_nonfinite": 0}
    return *descend(tables, adam, gradient, hyper, progress), metrics


def a2c(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    num_steps, num_envs = advantage.shape
    actor, critic, loss = np.zeros_like(tables[0]), np.zeros_like(tables[1]), 0.0
    seen: Any = {"policy_loss": [], "value_loss": [], "entropy": []}
    for t in range(num_steps):
        for b in range(num_envs):
            obs, action = data.obs[t, b], data.action[t, b]
            p = probabilities(tables[0], obs)
            entropy = -np.sum(p * np.log(p))
            error = values[t, b] - (advantage[t, b] + values[t, b])
            along = -advantage[t, b] * (np.eye(2)[action] - p) + hyper["entropy_coef"] * p * (np.log(p) + entropy)
            actor += np.outer(obs, along) / num_envs
            critic += hyper["value_coef"] * error * obs / num_envs
            seen["policy_loss"].append(-advantage[t, b] * np.log(p[action]))
            seen["value_loss"].append(0.5 * error**2)
            seen["entropy"].append(entropy)
            loss += seen["policy_loss"][-1] + hyper["value_coef"] * 0.5 * error**2 - hyper["entropy_coef"] * entropy
    loss /= num_envs
    gradient = flat((actor, critic))
    metrics = {name: np.mean(x) for name, x in seen.items()} | {"loss": loss, "num_nonfinite": 0}
    metrics["explained_variance"] = 1 - np.var(advantage) / np.var(advantage + values)
    metrics["grad_norm"] = np.linalg.norm(gradient)
    return *descend(tables, adam, gradient, hyper, progress), metrics


def ppo(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, *, order: Array) -> Any:
    """order [epochs, minibatches, rows]: the rows of each minibatch, numbered time first."""
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    obs = data.obs.reshape(-1, data.obs.shape[-1])
    action, old_log_prob = data.action.ravel(), data.log_prob.ravel()
    target, old_value = (advantage + values).ravel(), values.ravel()
    explained = 1 - np.var(target - old_value) / np.var(target)
    minibatches = []
    for rows in order.reshape(-1, order.shape[-1]):
        raw = advantage.ravel()[rows]
        weight = (raw - raw.mean()) / (raw.std() + 1e-8)
        actor, critic = np.zeros_like(tables[0]), np.zeros_like(tables[1])
        seen = {name: [] for name in ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction")}
        for w, i in zip(weight, rows, strict=True):
            p = probabilities(tables[0], obs[i])
            log_ratio = np.log(p[action[i]]) - old_log_prob[i]
            ratio, low, high = np.exp(log_ratio), 1 - hyper["clip"], 1 + hyper["clip"]
            clipped = min(max(ratio, low), high)
            along = -w * ratio * (np.eye(2)[action[i]] - p) if ratio * w <= clipped * w else np.zeros(2)
            entropy = -np.sum(p * np.log(p))
            along = along + hyper["entropy_coef"] * p * (np.log(p) + entropy)
            v = obs[i] @ tables[1]
            near = old_value[i] + min(max(v - old_value[i], -hyper["value_clip"]), hyper["value_clip"])
            far = abs(v - old_value[i]) > hyper["value_clip"]
            worse = (near - target[i]) ** 2 > (v - target[i]) ** 2
            error = 0.0 if worse and far else v - target[i]
            actor += np.outer(obs[i], along) / len(rows)
            critic += hyper["value_coef"] * error * obs[i] / len(rows)
            seen["policy_loss"].append(-min(ratio * w, clipped * w))
            seen["value_loss"].append(0.5 * max((near - target[i]) ** 2, (v - target[i]) ** 2))
            seen["entropy"].append(entropy)
            seen["kl"].append(ratio - 1 - log_ratio)
            seen["clip_fraction"].append(abs(ratio - 1) > hyper["clip"])
        gradient = flat((actor, critic))
        tables, adam = descend(tables, adam, gradient, hyper, progress)
        means = {name: np.mean(x) for name, x in seen.items()}
        means["loss"] = (
            means["policy_loss"] + hyper["value_coef"] * means["value_loss"] - hyper["entropy_coef"] * means["entropy"]
        )
        minibatches.append(means | {"grad_norm": np.linalg.norm(gradient), "bound_fraction": 0.0})
    metrics = {name: np.mean([row[name] for row in minibatches]) for name in minibatches[0]}
    return tables, adam, metrics | {"explained_variance": explained, "num_nonfinite": 0}
