"""One update of the recipes that compare episodes from one start state, in NumPy and float64: pairs of environments."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam, descend, flat, probabilities

Array = np.ndarray
REFERENCE = world.Tables(jnp.linspace(-1.0, 1.0, world.NUM_CELLS * 2).reshape(-1, 2), jnp.zeros(world.NUM_CELLS))


def first_episodes(data: Any, discount: float) -> tuple[Array, Array]:
    """(length, return) of the first episode of each column, or of what the window holds of it."""
    num_steps, num_envs = data.reward.shape
    length, returns = np.zeros(num_envs, int), np.zeros(num_envs)
    for b in range(num_envs):
        for t in range(num_steps):
            returns[b] += discount**t * data.reward[t, b]
            length[b] += 1
            if data.done[t, b]:
                break
    return length, returns


def advantages(kind: str, returns: Array, size: int, greedy: Array | None = None) -> Array:
    """Those of each kind, from the whole returns of groups of that size."""
    members = returns.reshape(-1, size)
    mean = members.mean(1, keepdims=True)
    if kind == "rloo":  # Ahmadian et al. (2024): less the mean of the others
        result = members - (members.sum(1, keepdims=True) - members) / (size - 1)
    elif kind == "dr_grpo":  # Liu et al. (2025)
        result = members - mean
    elif kind == "grpo":  # Shao et al. (2024), with the deviation of a sample, and 1e-4 beside it
        result = (members - mean) / (members.std(1, ddof=1, keepdims=True) + 1e-4)
    else:  # Li et al. (2023)
        result = members - greedy.reshape(-1, size)
    return result.ravel()


def groups(
    tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, *, order: Array, weight: Array, per_step: bool,
    reference: Array | None,
) -> Any:  # fmt: skip
    """order [epochs, minibatches, environments]; per_step: the mean over the steps of an episode, not their sum."""
    length, _ = first_episodes(data, hyper["discount"])
    minibatches = []
    for columns in order.reshape(-1, order.shape[-1]):
        actor, loss = np.zeros_like(tables[0]), 0.0
        seen: Any = {name: [] for name in ("policy_loss", "entropy", "kl", "clip_fraction", "reference_kl")}
        for b in columns:
            share = 1 / len(columns) / (length[b] if per_step else 1)
            for t in range(length[b]):
                obs, action = data.obs[t, b], data.action[t, b]
                p = probabilities(tables[0], obs)
                log_ratio = np.log(p[action]) - data.log_prob[t, b]
                ratio = np.exp(log_ratio)
                clipped = min(max(ratio, 1 - hyper["clip"]), 1 + hyper["clip"])
                score = np.eye(2)[action] - p
                here, along = -min(ratio * weight[b], clipped * weight[b]), np.zeros(2)
                if ratio * weight[b] <= clipped * weight[b]:
                    along = -weight[b] * ratio * score
                seen["policy_loss"].append(here)
                if reference is not None:
                    r = probabilities(reference, obs)[action] / p[action]
                    seen["reference_kl"].append(r - 1 - np.log(r))
                    here += hyper["kl_coef"] * (r - 1 - np.log(r))
                    along = along + hyper["kl_coef"] * (1 - r) * score
                loss += share * here
                actor += share * np.outer(obs, along)
                seen["entropy"].append(-np.sum(p * np.log(p)))
                seen["kl"].append(ratio - 1 - log_ratio)
                seen["clip_fraction"].append(abs(ratio - 1) > hyper["clip"])
        gradient = flat((actor, np.zeros_like(tables[1])))
        tables, adam = descend(tables, adam, gradient, hyper, progress)
        means = {name: np.mean(x) for name, x in seen.items() if x}
        minibatches.append(means | {"loss": loss, "grad_norm": np.linalg.norm(gradient)})
    return tables, adam, {name: np.mean([row[name] for row in minibatches]) for name in minibatches[0]}


def rloo(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, *, order: Array) -> Any:
    returns = first_episodes(data, hyper["discount"])[1]
    reference = np.asarray(REFERENCE.actor, np.float64)
    tables, adam, metrics = groups(
        tables, adam, data, hyper, progress, order=order, weight=advantages("rloo", returns, 2), per_step=False,
        reference=reference,
    )  # fmt: skip
    equal = np.mean(returns[::2] == returns[1::2])
    return tables, adam, metrics | {"num_nonfinite": 0, "equal_groups": equal}
