"""One update of ACER for continuous actions from its paper, in NumPy and float64: loops over steps, no library.

The actor is a table of the mean and the logarithm of the scale of a normal, [cells, 2]; the critic one of the value and
of what the advantage is made of, [cells, 3]: A(a) = w a + q a². All gradients are written out. The actions that are
drawn anew are made of normal numbers that are given, [1 + draws, T, B] for each gradient step.
"""

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam, descend, flat

import pgjax as pg
from pgjax.distributions import draw_noise
from pgjax.recipes import windows as replay

Array = np.ndarray
NAMES = ("obs", "action", "reward", "next_obs", "log_prob", "terminated", "truncated")
SETTINGS = {"replay_ratio": 2, "capacity": 4, "num_draws": 3}


class Tables(NamedTuple):
    """As `world.Tables`, for a normal policy and a duelling critic."""

    actor: Any  # [cells, 2]
    critic: Any  # [cells, 3]


def policy(params: Any, obs: Any) -> pg.Normal:
    row = obs @ params.actor
    return pg.Normal(row[..., :1], jnp.exp(row[..., 1:]))


def value(params: Any, obs: Any) -> Any:
    return (obs @ params.critic)[..., 0]


def advantage(params: Any, obs: Any, action: Any) -> Any:
    row = obs @ params.critic
    return row[..., 1] * action[..., 0] + row[..., 2] * action[..., 0] ** 2


def init_params(key: jax.Array) -> Tables:
    keys = jax.random.split(key)
    actor, critic = (0.3 * jax.random.normal(k, (world.NUM_CELLS, n)) for k, n in zip(keys, (2, 3), strict=True))
    return Tables(actor - jnp.array([[0.0, 0.5]]), critic)


FUNCTIONS = {"policy": policy, "value": value, "critic": advantage, "init_params": init_params}


@functools.cache
def normals() -> Any:
    """The numbers behind the actions that are drawn anew, [gradient steps, 1 + draws, T, B, 1], of the key for them."""
    like = pg.Normal(jnp.zeros((world.NUM_STEPS, world.NUM_ENVS, 1)), 1.0)
    count = 1 + SETTINGS["replay_ratio"]
    draw = lambda key: draw_noise(like, key, num_draws=1 + SETTINGS["num_draws"])  # noqa: E731
    return jax.jit(lambda key: jax.vmap(draw)(jax.random.split(key, count)))


def replayed(entry: Any, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    """The windows of each gradient step, first the new one; the averaged tables; and the normal numbers."""
    capacity, num_draws = SETTINGS["capacity"], SETTINGS["replay_ratio"]
    count, newest = min(int(state.update) + 1, capacity), int(state.update) % capacity
    rows = np.asarray(replay.draw_windows(keys[2], jnp.int32(count), num_draws=num_draws, num_envs=world.NUM_ENVS))
    loc, scale = statistics(data.acting[0], data.obs)
    data.loc, data.scale = loc[..., None], scale[..., None]
    steps = [data]
    for row in rows:
        columns = []
        for b, r in enumerate(row):
            if r == newest:
                columns.append({k: getattr(data, k)[:, b] for k in (*NAMES, "loc", "scale")})
            else:
                kept = {k: getattr(state.windows, k)[r, :, b] for k in NAMES}
                columns.append(kept | {k: state.windows.extras[k][r, :, b] for k in ("loc", "scale")})
        window = SimpleNamespace(**{k: np.stack([x[k] for x in columns], 1) for k in columns[0]})
        window.done = window.terminated | window.truncated
        steps.append(window)
    noise = np.asarray(normals()(keys[3]), np.float64)[..., 0]
    return {"steps": steps, "average": (state.average.actor, state.average.critic), "noise": noise}


def statistics(actor: Array, obs: Array) -> tuple[Array, Array]:
    row = obs @ actor
    return row[..., 0], np.exp(row[..., 1])


def log_density(a: float, loc: float, scale: float) -> float:
    return float(-0.5 * ((a - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi))


def score(a: float, loc: float, scale: float) -> Array:
    """Of the density with respect to (loc, scale)."""
    return np.array([(a - loc) / scale**2, ((a - loc) ** 2 / scale**2 - 1) / scale])


def powers(a: Any) -> Array:
    return np.array([a, a**2])


def one_gradient(tables: Any, average: Any, data: Any, hyper: Any, noise: Array) -> Any:
    (actor, critic), (num_steps, num_envs) = tables, data.reward.shape
    loc, scale = statistics(actor, data.obs)
    old_loc, old_scale = statistics(average[0], data.obs)
    v, v_next, weights = (data.obs @ critic)[..., 0], (data.next_obs @ critic)[..., 0], (data.obs @ critic)[..., 1:]
    drawn = loc + scale * noise  # [1 + draws, T, B]
    along_actor, along_critic = np.zeros_like(actor), np.zeros_like(critic)
    names = ("policy_loss", "action_value_loss", "value_loss", "entropy", "kl", "projected_fraction", "target", "taken")
    seen: Any = {name: [] for name in names}
    for b in range(num_envs):
        following = None  # of the next step, in the same episode: (Q° - Q, c (Q* - Q))
        for t in reversed(range(num_steps)):
            a, fresh, m, s = data.action[t, b, 0], drawn[0, t, b], loc[t, b], scale[t, b]
            mean = np.mean([powers(u) for u in drawn[1:, t, b]], 0)
            q, q_fresh = (v[t, b] + weights[t, b] @ (powers(x) - mean) for x in (a, fresh))
            ahead = np.full(2, 0.0 if data.terminated[t, b] else v_next[t, b])
            if following is not None and not data.done[t, b]:
                ahead = ahead + following
            opc, target = data.reward[t, b] + hyper["discount"] * ahead
            rho = np.exp(log_density(a, m, s) - data.log_prob[t, b])
            fresh_rho = np.exp(log_density(fresh, m, s) - log_density(fresh, data.loc[t, b, 0], data.scale[t, b, 0]))
            following = hyper["lam"] * np.array([opc - q, min(1.0, rho) * (target - q)])
            main = min(hyper["clip_rho"], rho) * (opc - v[t, b])
            extra = max(0.0, 1 - hyper["clip_rho"] / fresh_rho) * (q_fresh - v[t, b])
            g = main * score(a, m, s) + extra * score(fresh, m, s) + hyper["entropy_coef"] * np.array([0, 1 / s])
            apart = old_scale[t, b] ** 2 + (old_loc[t, b] - m) ** 2
            k = np.array([(m - old_loc[t, b]) / s**2, 1 / s - apart / s**3])
            over = k @ g - hyper["max_divergence"]
            if over > 0:
                g = g - over / (k @ k) * k
            along_actor -= np.outer(data.obs[t, b], g * np.array([1, s])) / num_envs
            error, wanted = q - target, min(1.0, rho) * (target - q)
            slope = error * np.array([1, *(powers(a) - mean)]) - np.array([wanted, 0, 0])
            along_critic += hyper["value_coef"] * np.outer(data.obs[t, b], slope) / num_envs
            losses = -main * log_density(a, m, s) - extra * log_density(fresh, m, s), 0.5 * error**2, 0.5 * wanted**2
            kl = np.log(s / old_scale[t, b]) + apart / (2 * s**2) - 0.5
            found = (*losses, np.log(s) + 0.5 * np.log(2 * np.pi * np.e), kl, float(over > 0), target, q)
            for name, x in zip(names, found, strict=True):
                seen[name].append(x)
    target, taken = (np.array(seen.pop(name)) for name in ("target", "taken"))
    metrics = {name: np.mean(x) for name, x in seen.items()}
    metrics["loss"] = hyper["value_coef"] * (np.sum(seen["action_value_loss"]) + np.sum(seen["value_loss"])) / num_envs
    metrics["explained_variance"] = 1 - np.var(target - taken) / np.var(target)
    gradient = flat((along_actor, along_critic))
    return gradient, metrics | {"grad_norm": np.linalg.norm(gradient)}


def acer_continuous(
    tables: Any, adam: Adam, _: Any, hyper: Any, progress: float, *, steps: list[Any], average: Any, noise: Array
) -> Any:
    rows = []
    for data, numbers in zip(steps, noise, strict=True):
        gradient, metrics = one_gradient(tables, average, data, hyper, numbers)
        tables, adam = descend(tables, adam, gradient, hyper, progress)
        decay = hyper["average_decay"]
        average = tuple(decay * x + (1 - decay) * y for x, y in zip(average, tables, strict=True))
        rows.append(metrics)
    return tables, adam, {name: np.mean([row[name] for row in rows]) for name in rows[0]} | {"num_nonfinite": 0}
