"""One update of relative entropy pathwise policy optimisation, in NumPy and float64, for tables.

The actor is a table of locations and logarithms of scales, the critic one of logits [1, cells, 3, bins] of which the
powers 1, a, a² of the action are the weights. What an update draws is given: the window, the order of the rows, and the
normal numbers of all fresh actions.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam
from entry import Entry, shuffled

import pgjax as pg

Array = np.ndarray
NUM_BINS = 12
BINS = {"low_value": -4.0, "high_value": 8.0}


def policy(actor: Any, obs: Any) -> pg.TanhNormal:
    row = obs @ actor
    return pg.TanhNormal(row[..., :1], jnp.exp(row[..., 1:]))


def logits(critic: Any, obs: Any, action: Any) -> Any:
    powers = jnp.concatenate([jnp.ones_like(action), action, action**2], axis=-1)
    return jnp.einsum("...s,eskm,...k->e...m", obs, critic, powers)


def init_params(key: Any, obs: Any) -> Any:
    actor_key, critic_key = jax.random.split(key)
    return (
        0.3 * jax.random.normal(actor_key, (world.NUM_CELLS, 2)),
        0.3 * jax.random.normal(critic_key, (1, world.NUM_CELLS, 3, NUM_BINS)),
    )


def acting(keys: Any, state: Any) -> Any:
    return lambda params, obs: policy(params.actor, obs), state.params, state.rollout


@functools.cache
def normals(num_updates: int, rows: int) -> Any:
    """The numbers behind the fresh actions of the targets, [T, B], and of each step of the optimiser, [steps, rows]."""
    like = lambda *shape: pg.TanhNormal(jnp.zeros((*shape, 1)), 1.0)  # noqa: E731

    def draw(target_key: Any, key: Any) -> Any:
        def one(key: Any, _: Any) -> Any:
            key, draw = jax.random.split(key)
            return key, like(rows).base_noise(draw)

        following = like(world.NUM_STEPS, world.NUM_ENVS).base_noise(target_key)
        return following, jax.lax.scan(one, key, length=num_updates)[1]

    return jax.jit(draw)


def given(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    counts = [entry.settings[name] for name in ("num_epochs", "num_minibatches")]
    draw = normals(math.prod(counts), world.NUM_STEPS * world.NUM_ENVS // counts[1])
    following, fresh = (np.asarray(x, np.float64)[..., 0] for x in draw(keys[2], keys[4]))
    logs = {"log_temperature": float(state.log_temperature), "log_multiplier": float(state.log_multiplier)}
    return shuffled(entry, keys, state, data) | logs | {"following": following, "fresh": fresh}


def memory_of(tables: Any) -> Adam:
    size = tables[0].size + tables[1].size + 2
    return Adam(0, np.zeros(size), np.zeros(size))


def edges_of(hyper: Any) -> tuple[Array, Array, float]:
    """The edges of the bins, their middles and their width."""
    width = (hyper["high_value"] - hyper["low_value"]) / NUM_BINS
    edges = np.array([hyper["low_value"] + i * width for i in range(NUM_BINS + 1)])
    return edges, edges[:-1] + width / 2, width


def bin_masses(y: float, edges: Array, sigma: float) -> Array:
    """Imani and White (2018): the masses of a normal in the bins, of all that it has in them."""
    if y > edges[-1]:  # by the tails on the other side, which do not cancel
        tail = np.array([0.5 * math.erfc((y - e) / (sigma * math.sqrt(2))) for e in edges])
    else:
        tail = np.array([-0.5 * math.erfc((e - y) / (sigma * math.sqrt(2))) for e in edges])
    mass: Array = np.diff(tail) / (tail[-1] - tail[0])
    return mass


def softmax(row: Array) -> Array:
    weights = np.exp(row - row.max())
    chances: Array = weights / weights.sum()
    return chances


def powers(a: float) -> Array:
    return np.array([1.0, a, a * a])


def value(table: Array, a: float, middles: Array) -> tuple[float, float]:
    """Q and ∂Q/∂a of the logits table [3, bins] of a cell."""
    p = softmax(powers(a) @ table)
    q = p @ middles
    slope = table[1] + 2 * a * table[2]
    return q, float(np.sum(middles * p * (slope - p @ slope)))


def fresh_action(row: Array, noise: float) -> tuple[float, float]:
    """An action of (location, log scale), and its log-probability."""
    a = math.tanh(row[0] + math.exp(row[1]) * noise)
    return a, -0.5 * noise**2 - row[1] - 0.5 * math.log(2 * math.pi) - math.log(1 - a * a)


def soft_targets(tables: Any, data: Any, hyper: Any, temperature: float, following: Array, middles: Array) -> Array:
    """r + γ (1 - λ)(Q' - α log π') + γ λ (the target of the next step - α log π of its action)."""
    (actor, critic), (num_steps, num_envs) = tables, data.reward.shape
    result = np.zeros((num_steps, num_envs))
    for b in range(num_envs):
        for t in reversed(range(num_steps)):
            cell = int(data.next_obs[t, b].argmax())
            action, log_prob = fresh_action(actor[cell], following[t, b])
            soft = value(critic[0, cell], action, middles)[0] - temperature * log_prob
            if t + 1 < num_steps and not data.done[t, b]:
                later = result[t + 1, b] - temperature * data.log_prob[t + 1, b]
                soft = (1 - hyper["lam"]) * soft + hyper["lam"] * later
            result[t, b] = data.reward[t, b] + (0.0 if data.terminated[t, b] else hyper["discount"] * soft)
    return result


def reppo(
    tables: Any, memory: Adam, data: Any, hyper: Any, _: float, *, order: Array, following: Array, fresh: Array,
    log_temperature: float, log_multiplier: float,
) -> Any:  # fmt: skip
    edges, middles, width = edges_of(hyper)
    y = soft_targets(tables, data, hyper, math.exp(log_temperature), following, middles).ravel()
    cells = data.obs.reshape(-1, world.NUM_CELLS).argmax(-1)
    taken, old, minibatches = data.action.reshape(-1), tables[0], []
    for rows, noise in zip(order.reshape(-1, order.shape[-1]), fresh, strict=True):
        (actor, critic), n = tables, len(rows)
        alpha, beta = math.exp(log_temperature), math.exp(log_multiplier)
        along_actor, along_critic, along_alpha, along_beta = np.zeros_like(actor), np.zeros_like(critic), 0.0, 0.0
        seen: Any = {x: [] for x in ("loss", "actor_loss", "action_value", "entropy", "kl", "held_fraction")}
        for i, eps in zip(rows, noise, strict=True):
            c, weights = cells[i], powers(taken[i])
            p = softmax(weights @ critic[0, c])
            m = bin_masses(y[i], edges, hyper["sigma"] * width)
            along_critic[0, c] += np.outer(weights, p - m) / n
            (location, log_scale), (old_location, old_log_scale) = actor[c], old[c]
            scale, old_scale = math.exp(log_scale), math.exp(old_log_scale)
            apart = old_scale**2 + (old_location - location) ** 2
            kl = log_scale - old_log_scale + apart / (2 * scale**2) - 0.5
            a, log_prob = fresh_action(actor[c], eps)
            q, slope = value(critic[0, c], a, middles)
            if kl < hyper["max_kl"]:
                through = alpha * 2 * a - slope * (1 - a * a)
                along_actor[c] += np.array([through, through * scale * eps - alpha]) / n
                actor_loss = alpha * log_prob - q + beta * hyper["max_kl"]
            else:
                along_actor[c] += beta * np.array([(location - old_location) / scale**2, 1 - apart / scale**2]) / n
                actor_loss = beta * hyper["max_kl"]
            along_alpha -= alpha * (log_prob + hyper["entropy_per_action"]) / n
            along_beta += beta * (hyper["max_kl"] - kl) / n
            seen["loss"].append(-m @ np.log(p))
            seen["actor_loss"].append(actor_loss)
            seen["action_value"].append(p @ middles)
            seen["entropy"].append(-log_prob)
            seen["kl"].append(kl)
            seen["held_fraction"].append(kl >= hyper["max_kl"])
        gradient = np.concatenate([along_actor.ravel(), along_critic.ravel(), [along_alpha, along_beta]])
        norm = np.linalg.norm(gradient)
        clipped = gradient * min(1.0, hyper["max_grad_norm"] / norm)
        change, memory = memory.step(clipped, hyper["learning_rate"], eps=1e-8)
        tables = (
            actor + change[: actor.size].reshape(actor.shape),
            critic + change[actor.size : -2].reshape(critic.shape),
        )
        log_temperature, log_multiplier = log_temperature + change[-2], log_multiplier + change[-1]
        minibatches.append({x: np.mean(rows) for x, rows in seen.items()} | {"grad_norm": norm})
    metrics = {x: np.mean([row[x] for row in minibatches]) for x in minibatches[0]} | {"num_nonfinite": 0}
    metrics |= {"temperature": math.exp(log_temperature), "multiplier": math.exp(log_multiplier)}
    metrics["clipped_fraction"] = np.mean((y < hyper["low_value"]) | (y > hyper["high_value"]))
    return tables, memory, metrics


def value_at_location(params: Any) -> Array:
    """What the critic says of the middle of the policy, [cells], where its bins lie as in BINS."""
    middles = edges_of(BINS)[1]
    rows = zip(params.critic[0], params.actor, strict=True)
    return np.array([value(table, math.tanh(row[0]), middles)[0] for table, row in rows])
