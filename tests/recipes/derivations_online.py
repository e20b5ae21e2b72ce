"""One update of the actor-critics that learn at each step, and of the off-policy one, each from its paper.

The form is that of `derivations`. What is derived of the first three is one environment step, a window of one row.
"""

from typing import Any, NamedTuple

import numpy as np
from derivations import Adam, Array, adam_of, descend, flat, probabilities, unflat


def score_and_entropy(tables: Any, obs: Array, action: int) -> tuple[Array, Array, float, float]:
    """Of one observation: ∇log π(a|s) and ∇H, both like the actor's table, log π(a|s) and H."""
    p = probabilities(tables[0], obs)
    entropy = -np.sum(p * np.log(p))
    along = -p * (np.log(p) + entropy)
    return np.outer(obs, np.eye(len(p))[action] - p), np.outer(obs, along), np.log(p[action]), entropy


def td_error(tables: Any, data: Any, b: int, discount: float) -> float:
    following = 0.0 if data.terminated[0, b] else discount * (data.next_obs[0, b] @ tables[1])
    return data.reward[0, b] + following - data.obs[0, b] @ tables[1]


class Stepping(NamedTuple):
    """What is remembered of one-step actor-critic: Adam's moments, and γ^t of each environment."""

    adam: Adam
    weight: Array  # [B]


def stepping(tables: Any) -> Stepping:
    return Stepping(adam_of(tables), np.ones(8))


def one_step(
    tables: Any, memory: Stepping, data: Any, hyper: Any, progress: float, *, weighted: bool = False, **_: Any
) -> Any:
    """Sutton and Barto (2018), section 13.5, the mean over the environments taken."""
    num_envs = data.reward.shape[1]
    actor, critic, seen = np.zeros_like(tables[0]), np.zeros_like(tables[1]), []
    weights = memory.weight.copy()
    for b in range(num_envs):
        error = td_error(tables, data, b, hyper["discount"])
        score, bonus, log_prob, entropy = score_and_entropy(tables, data.obs[0, b], data.action[0, b])
        weight = weights[b] if weighted else 1.0
        actor -= (weight * error * score + hyper["entropy_coef"] * bonus) / num_envs
        critic -= hyper["value_coef"] * error * data.obs[0, b] / num_envs
        seen.append([-weight * error * log_prob, 0.5 * error**2, entropy])
        weights[b] = 1.0 if data.done[0, b] else weights[b] * hyper["discount"]
    gradient = flat((actor, critic))
    means = np.mean(seen, axis=0)
    metrics = dict(zip(("policy_loss", "value_loss", "entropy"), means, strict=True))
    metrics["loss"] = means @ [1.0, hyper["value_coef"], -hyper["entropy_coef"]]
    metrics |= {"grad_norm": np.linalg.norm(gradient), "num_nonfinite": 0}
    tables, adam = descend(tables, memory.adam, gradient, hyper, progress)
    return tables, Stepping(adam, weights), metrics


class Traced(NamedTuple):
    """What is remembered of traces: those of each environment, and what belongs to them."""

    actor: Array  # [B, cells, actions]
    critic: Array  # [B, cells]
    expected: Array  # [B], value of the present observation by the parameters before their last step
    weight: Array  # [B], γ^t
    adam: Adam
    average: float


def traced(tables: Any) -> Traced:
    empty = [np.zeros((8, *x.shape)) for x in tables]
    return Traced(empty[0], empty[1], np.zeros(8), np.ones(8), adam_of(tables), 0.0)


def traces(
    tables: Any,
    memory: Traced,
    data: Any,
    hyper: Any,
    progress: float,
    *,
    dutch: bool = False,
    weighted: bool = False,
    **_: Any,
) -> Any:
    """Sutton and Barto (2018), section 13.5; with dutch traces van Seijen et al. (2016), algorithm 1 for the critic."""
    num_envs, discount = data.reward.shape[1], hyper["discount"]
    rate = hyper["learning_rate"] * (1 - hyper["anneal"] * progress)
    actor, critic, seen = np.zeros_like(tables[0]), np.zeros_like(tables[1]), []
    e, z, expected, weights = (x.copy() for x in memory[:4])
    for b in range(num_envs):
        x, error = data.obs[0, b], td_error(tables, data, b, discount)
        score, bonus, _, entropy = score_and_entropy(tables, x, data.action[0, b])
        e[b] = discount * hyper["lam"] * e[b] + (weights[b] if weighted else 1.0) * score
        fade = discount * hyper["critic_lam"]
        if dutch:
            step = rate * hyper["value_coef"] / num_envs
            z[b] = fade * z[b] + (1 - step * fade * (z[b] @ x)) * x
            change = x @ tables[1] - expected[b]
            along = (error + change) * z[b] - change * x
        else:
            z[b] = fade * z[b] + x
            along = error * z[b]
        actor -= (error * e[b] + hyper["entropy_coef"] * bonus) / num_envs
        critic -= hyper["value_coef"] * along / num_envs
        norm = np.sqrt(np.sum(e[b] ** 2) + np.sum(z[b] ** 2))
        seen.append([0.5 * error**2, entropy, error, norm])
        expected[b] = data.next_obs[0, b] @ tables[1]
        weights[b] *= discount
        if data.done[0, b]:
            e[b], z[b], weights[b] = 0.0, 0.0, 1.0
    gradient = flat((actor, critic))
    norm = np.linalg.norm(gradient)
    metrics = dict(zip(("loss", "entropy", "td_error", "trace_norm"), np.mean(seen, axis=0), strict=True))
    metrics |= {"grad_norm": norm, "num_nonfinite": 0}
    change = -rate * gradient * min(1.0, hyper["max_grad_norm"] / norm)
    memory = memory._replace(actor=e, critic=z, expected=expected, weight=weights)
    return unflat(flat(tables) + change, tables), memory, metrics


def average_reward(tables: Any, memory: Traced, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """Sutton and Barto (2018), section 13.6: an episode that terminates leads to the start of the next one."""
    num_envs = data.reward.shape[1]
    actor, critic, seen = np.zeros_like(tables[0]), np.zeros_like(tables[1]), []
    e, z = memory.actor.copy(), memory.critic.copy()
    for b in range(num_envs):
        x, cut = data.obs[0, b], data.done[0, b] and not data.terminated[0, b]
        led_to = data.next_obs[0, b] if cut else data.following[b]
        error = hyper["reward_scale"] * (data.reward[0, b] - memory.average) + led_to @ tables[1] - x @ tables[1]
        score, bonus, _, entropy = score_and_entropy(tables, x, data.action[0, b])
        e[b], z[b] = hyper["lam"] * e[b] + score, hyper["critic_lam"] * z[b] + x
        actor -= (error * e[b] + hyper["entropy_coef"] * bonus) / num_envs
        critic -= hyper["value_coef"] * error * z[b] / num_envs
        seen.append([0.5 * error**2, entropy, error, np.sqrt(np.sum(e[b] ** 2) + np.sum(z[b] ** 2))])
        if cut:
            e[b], z[b] = 0.0, 0.0
    means = dict(zip(("loss", "entropy", "error", "trace_norm"), np.mean(seen, axis=0), strict=True))
    average = memory.average + hyper["average_rate"] * means.pop("error") / hyper["reward_scale"]
    gradient = flat((actor, critic))
    metrics = means | {"grad_norm": np.linalg.norm(gradient), "num_nonfinite": 0}
    metrics |= {"reward": data.reward.mean(), "average_reward": average}
    tables, adam = descend(tables, memory.adam, gradient, hyper, progress)
    return tables, memory._replace(actor=e, critic=z, adam=adam, average=average), metrics


class Followed(NamedTuple):
    """What is remembered of the off-policy actor-critic: Adam's moments, and γ ρ F of each environment's last step."""

    adam: Adam
    handed_on: Array  # [B]


def followed(tables: Any) -> Followed:
    return Followed(adam_of(tables), np.zeros(8))


def vtrace(data: Any, critic: Array, rho: Array, hyper: Any) -> tuple[Array, Array]:
    """Espeholt et al. (2018), as the sums that define the targets, one by one; and the weighted advantage."""
    num_steps, num_envs = data.reward.shape
    discount, lam = hyper["discount"], hyper["lam"]
    values = data.obs @ critic
    following = np.where(data.terminated, 0.0, data.next_obs @ critic)
    error = np.minimum(hyper["clip_rho"], rho) * (data.reward + discount * following - values)
    trace = lam * np.minimum(hyper["clip_c"], rho)
    target, advantage = values.copy(), np.zeros_like(values)
    for b in range(num_envs):
        for t in range(num_steps):
            for k in range(t, num_steps):
                target[t, b] += np.prod(discount * trace[t:k, b]) * error[k, b]
                if data.done[k, b]:
                    break
        for t in range(num_steps):
            ahead = following[t, b]
            if t + 1 < num_steps and not data.done[t, b]:
                ahead = lam * target[t + 1, b] + (1 - lam) * following[t, b]
            weight = min(hyper["clip_pg_rho"], rho[t, b])
            advantage[t, b] = weight * (data.reward[t, b] + discount * ahead - values[t, b])
    return target, advantage


def off_pac(tables: Any, memory: Followed, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """Degris, White and Sutton (2012), with the weights of Imani, Graves and White (2018)."""
    num_steps, num_envs = data.reward.shape
    log_prob = np.log([[probabilities(tables[0], data.obs[t, b])[data.action[t, b]] for b in range(num_envs)]
                       for t in range(num_steps)])  # fmt: skip
    rho = np.exp(log_prob - data.log_prob)
    target, advantage = vtrace(data, tables[1], rho, hyper)
    actor, critic, seen = np.zeros_like(tables[0]), np.zeros_like(tables[1]), []
    handed_on, emphasis = memory.handed_on.copy(), np.zeros_like(rho)
    for t in range(num_steps):
        for b in range(num_envs):
            trace = 1.0 + handed_on[b]
            handed_on[b] = 0.0 if data.done[t, b] else hyper["discount"] * rho[t, b] * trace
            emphasis[t, b] = (1 - hyper["emphatic_lam"]) + hyper["emphatic_lam"] * trace
            score, bonus, chosen, entropy = score_and_entropy(tables, data.obs[t, b], data.action[t, b])
            weight = emphasis[t, b] * advantage[t, b]
            error = data.obs[t, b] @ tables[1] - target[t, b]
            actor -= (weight * score + hyper["entropy_coef"] * bonus) / num_envs
            critic += hyper["value_coef"] * error * data.obs[t, b] / num_envs
            seen.append([-weight * chosen, 0.5 * error**2, entropy])
    gradient = flat((actor, critic))
    means = np.mean(seen, axis=0)
    metrics = dict(zip(("policy_loss", "value_loss", "entropy"), means, strict=True))
    metrics["loss"] = num_steps * means @ [1.0, hyper["value_coef"], -hyper["entropy_coef"]]
    metrics |= {"grad_norm": np.linalg.norm(gradient), "num_nonfinite": 0, "ratio_max": rho.max()}
    weights = emphasis * rho
    metrics["effective_share"] = weights.sum() ** 2 / (weights**2).sum() / weights.size
    tables, adam = descend(tables, memory.adam, gradient, hyper, progress)
    return tables, Followed(adam, handed_on), metrics
