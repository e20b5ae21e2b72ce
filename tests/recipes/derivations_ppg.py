"""One update of the phasic policy gradient from its paper, in NumPy and float64: one rollout in each phase."""

from typing import Any

import numpy as np
from derivations import Adam, descend, flat, generalised_advantage, ppo, probabilities

Array = np.ndarray


def ppg(tables: Any, adam: Any, data: Any, hyper: Any, progress: float, *, order: Array, aux_order: Array) -> Any:
    """Cobbe et al. (2021), algorithm 1. The auxiliary value of the small world is l_0 - l_1 / 2, of its logits."""
    policy_adam, aux_adam = adam if isinstance(adam[0], Adam) else (adam, adam)
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    obs, target = data.obs.reshape(-1, data.obs.shape[-1]), (advantage + values).ravel()
    tables, policy_adam, metrics = ppo(tables, policy_adam, data, hyper | {"value_clip": np.inf}, progress, order=order)
    before = tables[0]
    aux_losses, divergences = [], []
    for rows in aux_order.reshape(-1, aux_order.shape[-1]):
        actor, critic = np.zeros_like(tables[0]), np.zeros_like(tables[1])
        seen: Any = [], []
        for i in rows:
            old, new = probabilities(before, obs[i]), probabilities(tables[0], obs[i])
            share = np.array([1.0, -0.5])
            aux_error = obs[i] @ tables[0] @ share - target[i]
            along = hyper["clone_coef"] * (new - old) + aux_error * share
            actor += np.outer(obs[i], along) / len(rows)
            critic += hyper["value_coef"] * (obs[i] @ tables[1] - target[i]) * obs[i] / len(rows)
            seen[0].append(0.5 * aux_error**2)
            seen[1].append(np.sum(old * np.log(old / new)))
        tables, aux_adam = descend(tables, aux_adam, flat((actor, critic)), hyper, progress)
        aux_losses.append(np.mean(seen[0]))
        divergences.append(np.mean(seen[1]))
    metrics |= {"aux_value_loss": np.mean(aux_losses), "clone_kl": np.mean(divergences)}
    return tables, (policy_adam, aux_adam), metrics
