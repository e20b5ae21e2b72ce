"""One update of ACER from its paper, in NumPy and float64: loops over steps and actions, no library.

The critic is a table of action values, [cells, actions]; both its gradient and that of the actor's logits are written
out. Windows are data as in `derivations`, with the behaviour's probabilities in `behaviour`, [T, B, K].
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam, descend, flat, probabilities

from pgjax.recipes import windows as replay

Array = np.ndarray
NAMES = ("obs", "action", "reward", "next_obs", "log_prob", "terminated", "truncated")


class Tables(NamedTuple):
    """As `world.Tables`, with action values."""

    actor: Any
    critic: Any  # [cells, actions]


def init_params(key: jax.Array) -> Tables:
    actor, critic = (0.3 * jax.random.normal(k, (world.NUM_CELLS, world.NUM_ACTIONS)) for k in jax.random.split(key))
    return Tables(actor, critic)


def replayed(keys: jax.Array, state: Any, data: Any, settings: Any) -> dict[str, Any]:
    """The windows of each gradient step of an update: first the new one, then those drawn; and the averaged tables."""
    capacity = settings["capacity"]
    count = min(int(state.update) + 1, capacity)
    rows = np.asarray(
        replay.draw_windows(keys[2], jnp.int32(count), num_draws=settings["replay_ratio"], num_envs=world.NUM_ENVS)
    )
    newest = int(state.update) % capacity
    data.behaviour = probabilities(data.acting[0], data.obs)
    steps = [data]
    for row in rows:
        columns = []
        for b, r in enumerate(row):
            if r == newest:
                columns.append({k: getattr(data, k)[:, b] for k in (*NAMES, "behaviour")})
            else:
                column = {k: getattr(state.windows, k)[r, :, b] for k in NAMES}
                columns.append(
                    column | {"behaviour": probabilities(np.eye(2), state.windows.extras["logits"][r, :, b])}
                )
        window = SimpleNamespace(**{k: np.stack([x[k] for x in columns], 1) for k in columns[0]})
        window.done = window.terminated | window.truncated
        steps.append(window)
    return {"steps": steps, "average": (state.average.actor, state.average.critic)}


def one_gradient(tables: Any, average: Any, data: Any, hyper: Any) -> Any:
    (actor, critic), (num_steps, num_envs) = tables, data.reward.shape
    p, q = probabilities(actor, data.obs), data.obs @ critic
    v_next = np.sum(probabilities(actor, data.next_obs) * (data.next_obs @ critic), -1)
    ratio = np.zeros((num_steps, num_envs))
    target, v = np.zeros_like(ratio), np.sum(p * q, -1)
    actor_gradient, critic_gradient = np.zeros_like(actor), np.zeros_like(critic)
    names = ("policy_loss", "value_loss", "entropy", "kl", "projected_fraction")
    seen: Any = {name: [] for name in names}
    for b in range(num_envs):
        running = None  # of the next step, in the same episode: c (Q* - Q)
        for t in reversed(range(num_steps)):
            a = data.action[t, b]
            ratio[t, b] = p[t, b, a] / np.exp(data.log_prob[t, b])
            ahead = 0.0 if data.terminated[t, b] else v_next[t, b]
            if running is not None and not data.done[t, b]:
                ahead += running
            target[t, b] = data.reward[t, b] + hyper["discount"] * ahead
            running = hyper["lam"] * min(1.0, ratio[t, b]) * (target[t, b] - q[t, b, a])
    for t in range(num_steps):
        for b in range(num_envs):
            a, probs, obs = data.action[t, b], p[t, b], data.obs[t, b]
            weight = min(hyper["clip_rho"], ratio[t, b]) * (target[t, b] - v[t, b])
            g = weight * (np.eye(2)[a] - probs)
            policy_loss = -weight * np.log(probs[a])
            for k in range(2):
                rho = probs[k] / data.behaviour[t, b, k]
                each = probs[k] * max(0.0, 1 - hyper["clip_rho"] / rho) * (q[t, b, k] - v[t, b])
                g = g + each * (np.eye(2)[k] - probs)
                policy_loss -= each * np.log(probs[k])
            entropy = -np.sum(probs * np.log(probs))
            g = g - hyper["entropy_coef"] * probs * (np.log(probs) + entropy)
            around = probabilities(average[0], obs)
            normal = probs - around  # of KL(around, π) with respect to the logits of π
            over = normal @ g - hyper["max_divergence"]
            if over > 0:
                g = g - over / (normal @ normal) * normal
            error = q[t, b, a] - target[t, b]
            actor_gradient -= np.outer(obs, g) / num_envs
            critic_gradient += hyper["value_coef"] * error * np.outer(obs, np.eye(2)[a]) / num_envs
            values = (policy_loss, 0.5 * error**2, entropy, np.sum(around * np.log(around / probs)), float(over > 0))
            for name, x in zip(names, values, strict=True):
                seen[name].append(x)
    taken = np.take_along_axis(q, data.action[..., None], -1)[..., 0]
    metrics = {name: np.mean(x) for name, x in seen.items()}
    metrics["loss"] = hyper["value_coef"] * np.sum(seen["value_loss"]) / num_envs
    metrics["explained_variance"] = 1 - np.var(target - taken) / np.var(target)
    gradient = flat((actor_gradient, critic_gradient))
    return gradient, metrics | {"grad_norm": np.linalg.norm(gradient)}


def acer(tables: Any, adam: Adam, _: Any, hyper: Any, progress: float, *, steps: list[Any], average: Any) -> Any:
    rows = []
    for data in steps:
        gradient, metrics = one_gradient(tables, average, data, hyper)
        tables, adam = descend(tables, adam, gradient, hyper, progress)
        decay = hyper["average_decay"]
        average = tuple(decay * x + (1 - decay) * y for x, y in zip(average, tables, strict=True))
        rows.append(metrics)
    return tables, adam, {name: np.mean([row[name] for row in rows]) for name in rows[0]} | {"num_nonfinite": 0}
