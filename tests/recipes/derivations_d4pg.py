"""An update of D4PG from its paper, in NumPy and float64: critics are tables of logits, quadratic in the action.

The replay says which windows come for which key and which priorities; what their weights and priorities are is derived.
"""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations_replay import Array, averaged, follow, powers, step
from entry import Entry, as_data, as_numpy

import pgjax as pg
from pgjax.recipes import off_policy

SIZES = {"num_envs": world.NUM_ENVS, "capacity": 60 * world.NUM_ENVS, "batch_size": 8}
EXPONENT = 0.6
NUM_ATOMS, LOW, HIGH = 7, -6.0, 6.0
SETTINGS = {
    "gradient_steps": 3,
    "batch_size": SIZES["batch_size"],
    "capacity": SIZES["capacity"],
    "warmup": 0,
    "window": 2,
    "num_atoms": NUM_ATOMS,
    "priority_exponent": EXPONENT,
}


def action_logits(critic: Any, obs: Any, action: Any) -> Any:
    """Logits that are quadratic in the action: critic [E, cells, 3, K], result [E, ..., K]."""
    features = jnp.concatenate([jnp.ones_like(action), action, action**2], axis=-1)
    return jnp.einsum("...s,eska,...k->e...a", obs, critic, features)


def init_logits(key: jax.Array, obs: Any, num_critics: int = 1) -> tuple[jax.Array, jax.Array]:
    """(actor, critic) for `world.deterministic` and `action_logits`."""
    actor_key, critic_key = jax.random.split(key)
    return (
        0.3 * jax.random.normal(actor_key, (world.NUM_CELLS, 1)),
        0.3 * jax.random.normal(critic_key, (num_critics, world.NUM_CELLS, 3, NUM_ATOMS)),
    )


FUNCTIONS = {"policy": world.deterministic, "critic": action_logits, "init_params": init_logits}


@functools.cache
def replay_of(window: int, prioritized: bool = True) -> Any:
    if not prioritized:
        return pg.replay.make_replay(**SIZES, num_steps=window)
    return pg.replay.make_prioritized_replay(**SIZES, num_steps=window, exponent=EXPONENT)


def scale_of(hyper: Any) -> Any:
    return hyper.noise


@functools.cache
def collected(entry: Entry, scale: Any = scale_of, prioritized: bool = True) -> Any:
    """What each lane sees in an update before it learns: (rollout, window, noise that was given, replay)."""
    env, env_params = entry.world()
    behaviour = off_policy.with_noise(world.deterministic, -1.0, 1.0)

    def of_lane(keys: Any, state: Any) -> Any:
        noise_key, act_key = jax.random.split(keys[1])
        _, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=entry.num_steps, theta=state.hyper.noise_theta
        )
        policy = pg.bind(behaviour, (jnp.bool_(False), scale(state.hyper)))
        rollout, trajectory = pg.rollout(
            act_key, state.params.actor, state.rollout, policy=policy, env=env, env_params=env_params,
            num_steps=entry.num_steps, noise=noise,
        )  # fmt: skip
        replay = replay_of(entry.settings["window"], prioritized)
        return rollout, trajectory, noise[1], replay.add(state.replay, off_policy.stored(trajectory))

    return jax.jit(jax.vmap(of_lane))


def seen(
    run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any], scale: Any = scale_of, prioritized: bool = True
) -> tuple[Any, Any]:
    """The replay of one lane; what was done in the window is the action with its noise, within the box."""
    rollout, trajectory, noise, memory = run.lane(collected(run.entry, scale, prioritized)(keys, before), *lane)
    state, data = run.lane(before, *lane), as_data(trajectory)
    wanted = np.clip(np.tanh(data.obs @ state.params.actor) + np.asarray(scale(state.hyper)) * noise, -1, 1)
    np.testing.assert_allclose(data.action, wanted, rtol=1e-5, atol=1e-6)
    data.memory = jax.tree.map(jnp.asarray, memory)
    return data, rollout


def targets(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    keys = jax.random.split(keys[2], SETTINGS["gradient_steps"])
    return {"target": (state.target.actor, state.target.critic), "keys": keys, "window": entry.settings["window"]}


def logits_of(critic: Array, obs: Array, action: Array) -> Array:
    """[E, N, K]."""
    return np.einsum("ns,eska,nk->ena", obs, critic, powers(action))


def softmax(logits: Array) -> Array:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def projected(reward: Array, discount: Array, probs: Array, atoms: Array) -> Array:
    """Bellemare, Dabney and Munos (2017): each atom that moved shares its mass between its neighbours."""
    gap, result = atoms[1] - atoms[0], np.zeros_like(probs)
    for n in range(len(reward)):
        for j, z in enumerate(atoms):
            moved = min(max(reward[n] + discount[n] * z, atoms[0]), atoms[-1])
            for i, at in enumerate(atoms):
                result[n, i] += probs[n, j] * max(0.0, 1 - abs(moved - at) / gap)
    return result


def cross_entropy(critic: Array, batch: Any, target: Array, weight: Array, atoms: Array) -> tuple[Array, Array, Any]:
    """(gradient of all critics, loss of each row [E, N], metrics)."""
    p = softmax(logits_of(critic, batch.obs, batch.action))
    each = -np.sum(target * np.log(p), -1)
    error = weight[:, None] * (p - target) / len(weight)
    gradient = np.einsum("ena,ns,nk->eska", error, batch.obs, powers(batch.action))
    metrics = {
        "loss": np.mean(weight * each, -1).sum(),
        "action_value": np.mean(p @ atoms),
        "grad_norm": np.linalg.norm(gradient),
        "end_mass": np.mean(p[..., 0] + p[..., -1]),
    }
    return gradient, each, metrics


def values_and_slopes(critic: Array, obs: Array, action: Array, atoms: Array) -> tuple[Array, Array]:
    """The mean of each critic and its slope in the action, [E, N]: dz/da = Σ_i z_i p_i (l_i' - Σ_k p_k l_k')."""
    p = softmax(logits_of(critic, obs, action))
    a = action[:, 0]
    by_action = np.einsum("ns,eska,nk->ena", obs, critic, np.stack([0 * a, 1 + 0 * a, 2 * a], -1))
    centred = by_action - np.sum(p * by_action, -1, keepdims=True)
    return p @ atoms, np.sum(atoms * p * centred, -1)


def atoms_of(hyper: Any) -> Array:
    width = hyper["high_value"] - hyper["low_value"]
    return np.array([hyper["low_value"] + k * width / (NUM_ATOMS - 1) for k in range(NUM_ATOMS)])


def importance(memory: Any, rows: Array, exponent: float) -> Array:
    """Schaul et al. (2016), section 3.4, over the greatest of the batch."""
    node = as_numpy(memory.node)
    leaves = node[len(node) // 2 :]
    weight = (np.sum(leaves > 0) * leaves[rows] / leaves.sum()) ** -exponent
    return weight / weight.max()


def d4pg(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any, keys: Any, window: int) -> Any:
    (actor, critic), rows, atoms, stored = tables, [], atoms_of(hyper), data.memory
    for key in keys:
        drawn = replay_of(window).sample(key, stored, np.float32(hyper["importance_exponent"]))
        folded = pg.fold(drawn.window, discount=np.float32(hyper["discount"]))
        batch = SimpleNamespace(**{k: as_numpy(x) for k, x in vars(folded).items()})
        weight = importance(stored, np.asarray(drawn.rows), hyper["importance_exponent"])
        p = softmax(logits_of(target[1], batch.next_obs, np.tanh(batch.next_obs @ target[0])))[0]
        m = projected(batch.reward, batch.discount, p, atoms)
        gradient, each, metrics = cross_entropy(critic, batch, m, weight, atoms)
        critic, critic_adam = step(memory["critic"], critic, gradient, hyper["critic_learning_rate"])
        stored = replay_of(window).update(stored, drawn.rows, jnp.asarray(each[0], jnp.float32))
        action = np.tanh(batch.obs @ actor)
        value, slope = values_and_slopes(critic, batch.obs, action, atoms)
        metrics["actor_loss"] = -value[0].mean()
        gradient = -batch.obs.T @ (slope[0][:, None] * (1 - action**2)) / len(weight)
        actor, actor_adam = step(memory["actor"], actor, gradient, hyper["learning_rate"])
        memory = {"actor": actor_adam, "critic": critic_adam}
        target = follow(target, (actor, critic), hyper["target_rate"])
        rows.append(metrics)
    return (actor, critic), memory, averaged(rows)


def value_at_mode(params: Any) -> Array:
    """What the first critic says of the actor's actions, [cells]."""
    atoms = np.linspace(LOW, HIGH, NUM_ATOMS)
    critic, cells = as_numpy(jnp.asarray(params.critic)), np.eye(world.NUM_CELLS)
    found: Array = values_and_slopes(critic, cells, np.tanh(params.actor), atoms)[0][0]
    return found
