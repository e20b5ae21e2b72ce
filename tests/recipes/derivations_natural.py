"""One update of the recipes that follow the natural gradient, with whole matrices, in NumPy and float64."""

from typing import Any

import numpy as np
from derivations import Adam, flat, generalised_advantage, probabilities

Array = np.ndarray


def rows_of(data: Any) -> tuple[Array, Array]:
    return data.obs.reshape(-1, data.obs.shape[-1]), data.action.ravel()


def fisher(actor: Array, obs: Array) -> Array:
    """Mean of (s sᵀ) ⊗ (diag p - p pᵀ): the parameters of a table of logits, raveled."""
    p = probabilities(actor, obs)
    inner = np.einsum("nk,kl->nkl", p, np.eye(p.shape[1])) - np.einsum("nk,nl->nkl", p, p)
    return np.einsum("ni,nkl,nj->ikjl", obs, inner, obs).reshape(actor.size, -1) / len(obs)


def score_weighted(actor: Array, obs: Array, action: Array, weight: Array) -> Array:
    """Mean of weight times the score, like the table."""
    scores = np.eye(actor.shape[1])[action] - probabilities(actor, obs)
    return np.einsum("n,ni,nk->ik", weight, obs, scores) / len(obs)


def divergence(old: Array, new: Array, obs: Array) -> float:
    p, q = probabilities(old, obs), probabilities(new, obs)
    return float(np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=1)))


def prepared(tables: Any, data: Any, hyper: Any) -> Any:
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    weight = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    p = probabilities(tables[0], rows_of(data)[0])
    metrics = {
        "entropy": -np.mean(np.sum(p * np.log(p), axis=1)),
        "explained_variance": 1 - np.var(advantage) / np.var(advantage + values),
        "num_nonfinite": 0,
    }
    return (advantage + values).ravel(), weight.ravel(), metrics


def fitted(critic: Array, adam: Adam, obs: Array, target: Array, hyper: Any, order: Array) -> tuple[Array, Adam, float]:
    """The critic after its passes over the rows, and its mean error."""
    errors = []
    for rows in order.reshape(-1, order.shape[-1]):
        miss = obs[rows] @ critic - target[rows]
        errors.append(np.mean(0.5 * miss**2))
        change, adam = adam.step(miss @ obs[rows] / len(rows), hyper["critic_learning_rate"])
        critic = critic + change
    return critic, adam, float(np.mean(errors))


def critic_memory(tables: Any) -> Adam:
    return Adam(0, np.zeros(tables[1].size), np.zeros(tables[1].size))


def along(actor: Array, obs: Array, gradient: Array, damping: float) -> Array:
    matrix = fisher(actor, obs)
    return np.linalg.solve(matrix + damping * np.eye(len(matrix)), gradient.ravel()).reshape(actor.shape)


def scale_to(step: Array, matrix: Array, max_kl: float) -> float:
    return float(np.sqrt(2 * max_kl / (step.ravel() @ matrix @ step.ravel())))


def natural_policy_gradient(tables: Any, adam: Adam, data: Any, hyper: Any, _: float, *, order: Array) -> Any:
    (obs, action), (target, weight, metrics) = rows_of(data), prepared(tables, data, hyper)
    gradient = -score_weighted(tables[0], obs, action, weight)
    step = along(tables[0], obs, gradient, hyper["damping"])
    scale = min(hyper["learning_rate"], scale_to(step, fisher(tables[0], obs), hyper["max_kl"]))
    actor = tables[0] - scale * step
    critic, adam, error = fitted(tables[1], adam, obs, target, hyper, order)
    log_prob = np.log(probabilities(tables[0], obs)[np.arange(len(obs)), action])
    metrics |= {"loss": -np.mean(weight * log_prob), "kl": divergence(tables[0], actor, obs), "value_loss": error}
    return (actor, critic), adam, metrics | {"grad_norm": np.linalg.norm(gradient)}


def natural_actor_critic(tables: Any, adam: Adam, data: Any, hyper: Any, _: float, *, order: Array) -> Any:
    (obs, action), (target, weight, metrics) = rows_of(data), prepared(tables, data, hyper)
    scores = np.eye(2)[action] - probabilities(tables[0], obs)
    features = np.einsum("ni,nk->nik", obs, scores).reshape(len(obs), -1)
    ridge = hyper["damping"] * np.eye(features.shape[1])
    weights = np.linalg.solve(features.T @ features / len(obs) + ridge, features.T @ weight / len(obs))
    allowed = scale_to(weights, fisher(tables[0], obs), hyper["max_kl"])
    actor = tables[0] + min(hyper["learning_rate"], allowed) * weights.reshape(tables[0].shape)
    critic, adam, error = fitted(tables[1], adam, obs, target, hyper, order)
    metrics |= {"loss": np.mean((weight - features @ weights) ** 2), "kl": divergence(tables[0], actor, obs)}
    return (actor, critic), adam, metrics | {"grad_norm": np.linalg.norm(weights), "value_loss": error}


def trpo(tables: Any, adam: Adam, data: Any, hyper: Any, _: float, *, order: Array, lengths: int = 10) -> Any:
    (obs, action), (target, weight, metrics) = rows_of(data), prepared(tables, data, hyper)
    old = probabilities(tables[0], obs)[np.arange(len(obs)), action]

    def objective(actor: Array) -> float:
        return -np.mean(probabilities(actor, obs)[np.arange(len(obs)), action] / old * weight)

    gradient = -score_weighted(tables[0], obs, action, weight)
    step = along(tables[0], obs, gradient, hyper["damping"])
    step = -scale_to(step, fisher(tables[0], obs), hyper["max_kl"]) * step
    taken, gain = 0.0, 0.0
    for j in range(lengths):
        scale = hyper["shrink"] ** j
        there = tables[0] + scale * step
        if divergence(tables[0], there, obs) <= hyper["max_kl"] and objective(there) < objective(tables[0]):
            taken, gain = scale, objective(tables[0]) - objective(there)
            break
    actor = tables[0] + taken * step
    critic, adam, error = fitted(tables[1], adam, obs, target, hyper, order)
    metrics |= {"loss": objective(tables[0]), "kl": divergence(tables[0], actor, obs), "value_loss": error}
    metrics |= {"grad_norm": np.linalg.norm(gradient), "step_scale": taken, "improvement": gain}
    return (actor, critic), adam, metrics


def no_factors(tables: Any) -> tuple[int, Array]:
    """How many factors the mean has seen, and their weighted sum: two of the inputs, two of the scores."""
    cells, actions = tables[0].shape
    return 0, np.zeros(2 * cells**2 + actions**2 + 1)


def acktr(tables: Any, memory: Any, data: Any, hyper: Any, progress: float) -> Any:
    """With factors that are exact expectations over actions and returns."""
    (obs, action), cells = rows_of(data), data.obs.shape[-1]
    advantage, values = generalised_advantage(data, tables[1], hyper["discount"], hyper["lam"])
    p = probabilities(tables[0], obs)
    entropy = -np.sum(p * np.log(p), axis=1)
    to_entropy = np.einsum("ni,nk->ik", obs, p * (np.log(p) + entropy[:, None])) / len(obs)
    actor = -score_weighted(tables[0], obs, action, advantage.ravel()) + hyper["entropy_coef"] * to_entropy
    critic = -hyper["value_coef"] * advantage.ravel() @ obs / len(obs)

    moments = obs.T @ obs / len(obs)
    inner = (np.einsum("nk,kl->nkl", p, np.eye(2)) - np.einsum("nk,nl->nkl", p, p)).mean(0)
    new = np.concatenate([moments.ravel(), moments.ravel(), inner.ravel(), np.ones(1)])
    count, total = memory[0] + 1, hyper["decay"] * memory[1] + (1 - hyper["decay"]) * new
    mean = total / (1 - hyper["decay"] ** count) if hyper["decay"] < 1 else total
    first, second = (x.reshape(cells, cells) for x in (mean[: cells**2], mean[cells**2 : 2 * cells**2]))
    of_actor, of_critic = mean[2 * cells**2 : -1].reshape(2, 2), mean[-1:].reshape(1, 1)

    def solved(a: Array, gradient: Array, g: Array) -> Array:
        share = np.sqrt((np.trace(a) / len(a)) / (np.trace(g) / len(g)))
        root = np.sqrt(hyper["damping"])
        left = np.linalg.solve(a + share * root * np.eye(len(a)), gradient)
        return np.linalg.solve(g + root / share * np.eye(len(g)), left.T).T

    steps = (solved(first, actor, of_actor), solved(second, critic[:, None], of_critic)[:, 0])
    left = 1 - hyper["anneal"] * progress
    curved = steps[0].ravel() @ fisher(tables[0], obs) @ steps[0].ravel() + np.mean((obs @ steps[1]) ** 2)
    scale = min(left * hyper["learning_rate"], np.sqrt(2 * left * hyper["max_kl"] / curved))
    after = (tables[0] - scale * steps[0], tables[1] - scale * steps[1])

    log_prob = np.log(p[np.arange(len(obs)), action])
    terms = {
        "policy_loss": -np.mean(advantage.ravel() * log_prob),
        "value_loss": np.mean(0.5 * advantage**2),
        "entropy": np.mean(entropy),
    }
    loss = terms["policy_loss"] + hyper["value_coef"] * terms["value_loss"] - hyper["entropy_coef"] * terms["entropy"]
    num_steps = data.reward.shape[0]
    metrics = terms | {
        "loss": num_steps * loss,
        "kl": divergence(tables[0], after[0], obs),
        "grad_norm": num_steps * np.linalg.norm(flat((actor, critic))),
        "num_nonfinite": 0,
        "explained_variance": 1 - np.var(advantage) / np.var(advantage + values),
    }
    return after, (count, total), metrics
