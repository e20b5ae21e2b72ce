"""One update of the recipes that keep near the old policy, from their papers, in NumPy and float64."""

from typing import Any

import numpy as np
from derivations import Adam, descend, flat, generalised_advantage, probabilities

Array = np.ndarray


def forward_divergence(old: Array, new: Array) -> tuple[float, Array]:
    """KL(old ‖ new) of two softmax policies, and its gradient with respect to the logits of the new one."""
    return float(np.sum(old * np.log(old / new))), new - old


def reverse_divergence(old: Array, new: Array) -> tuple[float, Array]:
    """KL(new ‖ old), and its gradient with respect to the logits of the new one."""
    kl = float(np.sum(new * np.log(new / old)))
    return kl, new * (np.log(new / old) - kl)


def kl_ppo(
    tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, *, order: Array, kl_coef: float,
    divergence: Any = forward_divergence,
) -> Any:  # fmt: skip
    """Schulman et al. (2017), section 4: the penalty, and the rule that adapts its weight."""
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    obs = data.obs.reshape(-1, data.obs.shape[-1])
    action, old_log_prob = data.action.ravel(), data.log_prob.ravel()
    target, behaviour = (advantage + values).ravel(), tables[0]
    explained = 1 - np.var(advantage) / np.var(target)
    minibatches = []
    for rows in order.reshape(-1, order.shape[-1]):
        raw = advantage.ravel()[rows]
        weight = (raw - raw.mean()) / (raw.std() + 1e-8)
        actor, critic = np.zeros_like(tables[0]), np.zeros_like(tables[1])
        seen: Any = {name: [] for name in ("policy_loss", "value_loss", "entropy", "kl")}
        for w, i in zip(weight, rows, strict=True):
            p = probabilities(tables[0], obs[i])
            log_ratio = np.log(p[action[i]]) - old_log_prob[i]
            kl, slope = divergence(probabilities(behaviour, obs[i]), p)
            entropy = -np.sum(p * np.log(p))
            along = -w * np.exp(log_ratio) * (np.eye(2)[action[i]] - p) + kl_coef * slope
            along += hyper["entropy_coef"] * p * (np.log(p) + entropy)
            error = obs[i] @ tables[1] - target[i]
            actor += np.outer(obs[i], along) / len(rows)
            critic += hyper["value_coef"] * error * obs[i] / len(rows)
            seen["policy_loss"].append(-w * np.exp(log_ratio) + kl_coef * kl)
            seen["value_loss"].append(0.5 * error**2)
            seen["entropy"].append(entropy)
            seen["kl"].append(np.exp(log_ratio) - 1 - log_ratio)
        gradient = flat((actor, critic))
        tables, adam = descend(tables, adam, gradient, hyper, progress)
        means = {name: np.mean(x) for name, x in seen.items()}
        means["loss"] = (
            means["policy_loss"] + hyper["value_coef"] * means["value_loss"] - hyper["entropy_coef"] * means["entropy"]
        )
        minibatches.append(means | {"grad_norm": np.linalg.norm(gradient), "bound_fraction": 0.0})
    metrics = {name: np.mean([row[name] for row in minibatches]) for name in minibatches[0]}
    reached = np.mean([divergence(probabilities(behaviour, x), probabilities(tables[0], x))[0] for x in obs])
    if reached > 1.5 * hyper["kl_target"]:
        kl_coef = kl_coef * hyper["kl_factor"]
    elif reached < hyper["kl_target"] / 1.5:
        kl_coef = kl_coef / hyper["kl_factor"]
    metrics |= {"divergence": reached, "kl_coef": kl_coef, "explained_variance": explained, "num_nonfinite": 0}
    return tables, adam, metrics
