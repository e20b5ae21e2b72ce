"""Updates of the recipes that learn from a replay, in NumPy and float64, for the quadratics of `world`.

What an update draws is given: the rows of each batch, as the replay gives them for the keys, and the noise of each
gradient step. That the replay draws the right rows, and `fold` folds them, is tested where they are.
"""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam
from entry import Entry, as_data, as_numpy

import pgjax as pg
from pgjax.recipes import off_policy

Array = np.ndarray
SIZES = {"num_envs": world.NUM_ENVS, "capacity": 60 * world.NUM_ENVS, "batch_size": 8}
SETTINGS = {
    "gradient_steps": 3,
    "batch_size": SIZES["batch_size"],
    "capacity": SIZES["capacity"],
    "warmup": 0,
    "window": 2,
}
DRAWS = 1 + SETTINGS["gradient_steps"]  # keys handed on in an update: to the rollout, and to each sample


def replay_of(entry: Entry) -> Any:
    return pg.replay.make_replay(**SIZES, num_steps=entry.settings["window"])


@functools.cache
def collected(entry: Entry) -> Any:
    """What each lane sees in an update: (rollout, window, noise that was given, batches [gradient steps, N])."""
    env, env_params = entry.world()
    behaviour = off_policy.with_noise(world.deterministic, -1.0, 1.0)

    def of_lane(keys: Any, state: Any) -> Any:
        noise_key, act_key = jax.random.split(keys[1])
        _, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=entry.num_steps, theta=state.hyper.noise_theta
        )
        policy = pg.bind(behaviour, (jnp.bool_(False), state.hyper.noise))
        rollout, trajectory = pg.rollout(
            act_key, state.params.actor, state.rollout, policy=policy, env=env, env_params=env_params,
            num_steps=entry.num_steps, noise=noise,
        )  # fmt: skip
        return rollout, trajectory, noise[1], batches(entry, keys[2], state, trajectory)

    return jax.jit(jax.vmap(of_lane))


def batches(entry: Entry, key: Any, state: Any, trajectory: Any) -> Any:
    """The transitions of each gradient step, and standard normal numbers drawn by the second key of it."""
    replay = replay_of(entry)
    memory = replay.add(state.replay, off_policy.stored(trajectory))

    def draw(keys: Any) -> Any:
        normal = jax.random.normal(keys[1], (SIZES["batch_size"], 1))
        return pg.fold(replay.sample(keys[0], memory), discount=state.hyper.discount), normal

    return jax.vmap(draw)(jax.random.split(key, (2, SETTINGS["gradient_steps"])).T)


def seen(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The batches of one lane; what was done in the window is the action with its noise, within the box."""
    rollout, trajectory, noise, (rows, normal) = run.lane(collected(run.entry)(keys, before), *lane)
    state, data = run.lane(before, *lane), as_data(trajectory)
    wanted = np.clip(np.tanh(data.obs @ state.params.actor) + state.hyper.noise * noise, -1, 1)
    np.testing.assert_allclose(data.action, wanted, rtol=1e-5, atol=1e-6)
    drawn = vars(rows) | {"normal": normal}
    data.batches = [SimpleNamespace(**{k: x[i] for k, x in drawn.items()}) for i in range(len(rows.reward))]
    return data, rollout


def memory_of(tables: Any) -> dict[str, Adam]:
    """One optimiser for the actor, one for the critics."""
    return {
        name: Adam(0, np.zeros(x.size), np.zeros(x.size)) for name, x in zip(("actor", "critic"), tables, strict=True)
    }


def targets(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    return {"target": (state.target.actor, state.target.critic)}


def powers(action: Array) -> Array:
    return np.stack([np.ones_like(action[:, 0]), action[:, 0], action[:, 0] ** 2], -1)


def values(critic: Array, obs: Array, action: Array) -> Array:
    return np.einsum("ns,esk,nk->en", obs, critic, powers(action))


def slope(critic: Array, obs: Array, action: Array) -> Array:
    """∂Q/∂a of one critic, [N]."""
    w = obs @ critic
    return w[:, 1] + 2 * w[:, 2] * action[:, 0]


def step(adam: Adam, table: Array, gradient: Array, learning_rate: float) -> tuple[Array, Adam]:
    change, adam = adam.step(gradient.ravel(), learning_rate, eps=1e-8)
    return table + change.reshape(table.shape), adam


def regress(critic: Array, adam: Adam, batch: Any, target: Array, learning_rate: float) -> tuple[Array, Adam, Any]:
    """One step of each critic towards the target: (critic, adam, metrics)."""
    q, features = values(critic, batch.obs, batch.action), powers(batch.action)
    gradient = np.einsum("en,ns,nk->esk", (q - target) / len(target), batch.obs, features)
    metrics = {"loss": np.mean(0.5 * (q - target) ** 2, 1).sum(), "action_value": q.mean()}
    critic, adam = step(adam, critic, gradient, learning_rate)
    return critic, adam, metrics | {"grad_norm": np.linalg.norm(gradient)}


def averaged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]} | {"num_nonfinite": 0}


def follow(old: Any, new: Any, rate: float) -> Any:
    return tuple((1 - rate) * x + rate * y for x, y in zip(old, new, strict=True))


def ddpg(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any) -> Any:
    (actor, critic), rows = tables, []
    for batch in data.batches:
        following = np.tanh(batch.next_obs @ target[0])
        y = batch.reward + batch.discount * values(target[1], batch.next_obs, following)[0]
        critic, critic_adam, metrics = regress(critic, memory["critic"], batch, y, hyper["critic_learning_rate"])
        action = np.tanh(batch.obs @ actor)
        chain = slope(critic[0], batch.obs, action)[:, None] * (1 - action**2)
        metrics["actor_loss"] = -values(critic, batch.obs, action)[0].mean()
        gradient = -batch.obs.T @ chain / len(y)
        actor, actor_adam = step(memory["actor"], actor, gradient, hyper["learning_rate"])
        memory = {"actor": actor_adam, "critic": critic_adam}
        target = follow(target, (actor, critic), hyper["target_rate"])
        rows.append(metrics)
    return (actor, critic), memory, averaged(rows)


def td3(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any, count: int, delay: int) -> Any:
    (actor, critic), rows = tables, []
    for batch in data.batches:
        smooth = np.clip(hyper["smoothing"] * batch.normal, -hyper["smoothing_clip"], hyper["smoothing_clip"])
        following = np.clip(np.tanh(batch.next_obs @ target[0]) + smooth, -1, 1)
        y = batch.reward + batch.discount * values(target[1], batch.next_obs, following).min(0)
        critic, critic_adam, metrics = regress(critic, memory["critic"], batch, y, hyper["critic_learning_rate"])
        memory = memory | {"critic": critic_adam}
        action, count = np.tanh(batch.obs @ actor), count + 1
        metrics["actor_loss"] = -values(critic, batch.obs, action)[0].mean()
        if count % delay == 0:
            gradient = -batch.obs.T @ (slope(critic[0], batch.obs, action)[:, None] * (1 - action**2)) / len(y)
            actor, actor_adam = step(memory["actor"], actor, gradient, hyper["learning_rate"])
            memory = memory | {"actor": actor_adam}
            target = follow(target, (actor, critic), hyper["target_rate"])
        rows.append(metrics)
    return (actor, critic), memory, averaged(rows)


def value_at_mode(params: Any) -> Array:
    """What the first critic says of the actor's actions, [cells]."""
    cells = np.eye(world.NUM_CELLS)
    found: Array = values(as_numpy(jnp.asarray(params.critic)), cells, np.tanh(params.actor))[0]
    return found
