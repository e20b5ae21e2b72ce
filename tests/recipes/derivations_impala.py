"""One update of IMPALA from its paper, in NumPy and float64: targets as sums over the steps that follow."""

from typing import Any

import numpy as np
from derivations import Adam, descend, flat, probabilities

Array = np.ndarray


def vtrace(data: Any, critic: Array, log_ratio: Array, hyper: Any) -> tuple[Array, Array, Array]:
    """Espeholt et al. (2018): the target v_s + Σ_t γ^(t-s) (Π c_i) δ_t, inside one episode; and the advantage."""
    values, following = data.obs @ critic, np.where(data.terminated, 0.0, data.next_obs @ critic)
    rho = np.exp(log_ratio)
    error = np.minimum(hyper["clip_rho"], rho) * (data.reward + hyper["discount"] * following - values)
    trace = hyper["lam"] * np.minimum(hyper["clip_c"], rho)
    target, advantage = values.copy(), np.zeros_like(values)
    num_steps, num_envs = values.shape
    for b in range(num_envs):
        for s in range(num_steps):
            weight = 1.0
            for t in range(s, num_steps):
                target[s, b] += weight * error[t, b]
                if data.done[t, b]:
                    break
                weight *= hyper["discount"] * trace[t, b]
    for b in range(num_envs):
        for s in range(num_steps):
            inside = s + 1 < num_steps and not data.done[s, b]
            ahead = following[s, b]
            if inside:
                ahead = hyper["lam"] * target[s + 1, b] + (1 - hyper["lam"]) * following[s, b]
            gain = data.reward[s, b] + hyper["discount"] * ahead - values[s, b]
            advantage[s, b] = min(hyper["clip_pg_rho"], rho[s, b]) * gain
    return target, advantage, values


def impala(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    num_steps, num_envs = data.reward.shape
    taken = np.take_along_axis(probabilities(tables[0], data.obs), data.action[..., None], -1)[..., 0]
    log_ratio = np.log(taken) - data.log_prob
    target, advantage, values = vtrace(data, tables[1], log_ratio, hyper)
    actor, critic, loss = np.zeros_like(tables[0]), np.zeros_like(tables[1]), 0.0
    seen: Any = {"policy_loss": [], "value_loss": [], "entropy": []}
    for t in range(num_steps):
        for b in range(num_envs):
            obs, action = data.obs[t, b], data.action[t, b]
            p = probabilities(tables[0], obs)
            entropy, error = -np.sum(p * np.log(p)), values[t, b] - target[t, b]
            along = -advantage[t, b] * (np.eye(2)[action] - p) + hyper["entropy_coef"] * p * (np.log(p) + entropy)
            actor += np.outer(obs, along) / num_envs
            critic += hyper["value_coef"] * error * obs / num_envs
            seen["policy_loss"].append(-advantage[t, b] * np.log(p[action]))
            seen["value_loss"].append(0.5 * error**2)
            seen["entropy"].append(entropy)
            loss += seen["policy_loss"][-1] + hyper["value_coef"] * 0.5 * error**2 - hyper["entropy_coef"] * entropy
    gradient = flat((actor, critic))
    metrics = {name: np.mean(x) for name, x in seen.items()} | {"loss": loss / num_envs, "num_nonfinite": 0}
    metrics["explained_variance"] = 1 - np.var(target - values) / np.var(target)
    metrics["grad_norm"] = np.linalg.norm(gradient)
    metrics["kl"] = np.mean(np.exp(log_ratio) - 1 - log_ratio)
    metrics["truncated_fraction"] = np.mean(np.exp(log_ratio) > hyper["clip_rho"] * (1 + 1e-5))
    return *descend(tables, adam, gradient, hyper, progress), metrics
