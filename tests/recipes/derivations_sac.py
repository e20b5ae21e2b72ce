"""Updates of soft actor-critic in NumPy and float64, for the tables of `world`: with actions in a box, and discrete.

Of an action in the box, a = tanh u with u = m + σ ε, everything is written out: log π = log N(u; m, σ²) - log(1 - a²).
"""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import world
from derivations import Adam
from derivations_replay import SETTINGS, SIZES, averaged, follow, memory_of, powers, regress, step, values
from entry import Entry, as_data

import pgjax as pg
from pgjax.recipes import off_policy

Array = np.ndarray
SETTINGS = {name: x for name, x in SETTINGS.items() if name != "window"}


@functools.cache
def collected(entry: Entry, discrete: bool) -> Any:
    """What each lane sees in an update: (rollout, window, batches [gradient steps, N])."""
    env, env_params = entry.world()
    bounds = () if discrete else (-1.0, 1.0)
    replay = pg.replay.make_replay(**SIZES)

    def behaviour(actor: Any, obs: Any) -> Any:
        return pg.exploration.WarmUp(False, entry.functions["policy"](actor, obs), *bounds)

    def of_lane(keys: Any, state: Any) -> Any:
        rollout, trajectory = pg.rollout(
            keys[1], state.params.actor, state.rollout, policy=behaviour, env=env, env_params=env_params,
            num_steps=entry.num_steps,
        )  # fmt: skip
        memory = replay.add(state.replay, off_policy.stored(trajectory))

        def draw(keys: Any) -> Any:
            keys = keys if keys.ndim else keys[None]
            normal = [jax.random.normal(key, (SIZES["batch_size"], 1)) for key in keys[1:]]
            return pg.fold(replay.sample(keys[0], memory), discount=state.hyper.discount), normal

        count = SETTINGS["gradient_steps"]
        drawn = jax.vmap(draw)(jax.random.split(keys[2], count if discrete else (3, count)).T)
        return rollout, trajectory, drawn

    return jax.jit(jax.vmap(of_lane))


def seen(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any], discrete: bool = False) -> tuple[Any, Any]:
    """The batches of one lane, and the noise of the actions that are drawn for them."""
    rollout, trajectory, (rows, normal) = run.lane(collected(run.entry, discrete)(keys, before), *lane)
    data = as_data(trajectory)
    data.batches = [
        SimpleNamespace(**{k: x[i] for k, x in vars(rows).items()}, normal=[x[i] for x in normal])
        for i in range(len(rows.reward))
    ]
    return data, rollout


def memory(tables: Any) -> dict[str, Adam]:
    return memory_of(tables) | {"temperature": Adam(0, np.zeros(1), np.zeros(1))}


def given(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    return {"target": state.target, "log_temperature": state.log_temperature}


def draw(actor: Array, obs: Array, noise: Array) -> tuple[Array, Array, Array]:
    """(a, log π(a), σ ε), each [N, 1]."""
    m, log_scale = np.split(obs @ actor, 2, axis=1)
    shift = np.exp(log_scale) * noise
    action = np.tanh(m + shift)
    slope = 4 / (np.exp(m + shift) + np.exp(-m - shift)) ** 2  # 1 - a², without its cancellation
    return action, -0.5 * noise**2 - log_scale - 0.5 * np.log(2 * np.pi) - np.log(slope), shift


def cooled(log_temperature: float, adam: Adam, excess: float, hyper: Any, learned: bool) -> tuple[float, Adam]:
    """One step of log α down the slope α · (entropy - target)."""
    if not learned:
        return log_temperature, adam
    slope = np.array([np.exp(log_temperature) * excess])
    new, adam = step(adam, np.array([log_temperature]), slope, hyper["learning_rate"])
    return new[0], adam


def sac(
    tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any, log_temperature: Any, learned: bool
) -> Any:
    (actor, critic), rows = tables, []
    for batch in data.batches:
        temperature = np.exp(log_temperature)
        following, log_prob, _ = draw(actor, batch.next_obs, batch.normal[0])
        q = values(target, batch.next_obs, following).min(0)
        y = batch.reward + batch.discount * (q - temperature * log_prob[:, 0])
        critic, critic_adam, metrics = regress(critic, memory["critic"], batch, y, hyper["critic_learning_rate"])
        (target,) = follow((target,), (critic,), hyper["target_rate"])
        action, log_prob, shift = draw(actor, batch.obs, batch.normal[1])
        q = values(critic, batch.obs, action)
        w = np.einsum("ns,esk->enk", batch.obs, critic)[q.argmin(0), np.arange(len(y))]  # of the least critic
        pull = (w[:, 1:2] + 2 * w[:, 2:] * action) * (1 - action**2)  # ∂Q/∂u
        metrics["actor_loss"] = np.mean(temperature * log_prob[:, 0] - q.min(0))
        by_location = temperature * 2 * action - pull
        by_log_scale = temperature * (2 * action * shift - 1) - pull * shift
        gradient = batch.obs.T @ np.concatenate([by_location, by_log_scale], 1) / len(y)
        actor, actor_adam = step(memory["actor"], actor, gradient, hyper["learning_rate"])
        excess = -log_prob.mean() - hyper["entropy_per_action"]
        log_temperature, adam = cooled(log_temperature, memory["temperature"], excess, hyper, learned)
        memory = {"actor": actor_adam, "critic": critic_adam, "temperature": adam}
        rows.append(metrics | {"entropy_per_action": -log_prob.mean(), "temperature": np.exp(log_temperature)})
    return (actor, critic), memory, averaged(rows)


def softmax(logits: Array) -> Array:
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return weight / weight.sum(-1, keepdims=True)


def sac_discrete(
    tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any, log_temperature: Any, learned: bool
) -> Any:
    (actor, critic), rows, count = tables, [], world.NUM_ACTIONS
    for batch in data.batches:
        temperature, size = np.exp(log_temperature), len(batch.reward)
        probs = softmax(batch.next_obs @ actor)
        q = np.einsum("ns,esa->ena", batch.next_obs, target).min(0)
        y = batch.reward + batch.discount * (probs * (q - temperature * np.log(probs))).sum(1)
        taken = np.eye(count)[batch.action.astype(int)]
        q = np.einsum("ns,esa,na->en", batch.obs, critic, taken)
        gradient = np.einsum("en,ns,na->esa", (q - y) / size, batch.obs, taken)
        metrics = {"loss": np.mean(0.5 * (q - y) ** 2, 1).sum(), "action_value": q.mean()}
        metrics["grad_norm"] = np.linalg.norm(gradient)
        critic, critic_adam = step(memory["critic"], critic, gradient, hyper["critic_learning_rate"])
        (target,) = follow((target,), (critic,), hyper["target_rate"])
        probs, q = softmax(batch.obs @ actor), np.einsum("ns,esa->ena", batch.obs, critic).min(0)
        cost = temperature * np.log(probs) - q
        metrics["actor_loss"] = (probs * cost).sum(1).mean()
        # ∂/∂z_k Σ_a π_a c_a = π_k (c_k - Σ π c); that of the entropy in c adds Σ_a π_a ∂log π_a/∂z_k = 0.
        by_logits = probs * (cost - (probs * cost).sum(1, keepdims=True))
        actor, actor_adam = step(memory["actor"], actor, batch.obs.T @ by_logits / size, hyper["learning_rate"])
        entropy = -(probs * np.log(probs)).sum(1).mean()
        excess = entropy - hyper["entropy_share"] * np.log(count)
        log_temperature, adam = cooled(log_temperature, memory["temperature"], excess, hyper, learned)
        memory = {"actor": actor_adam, "critic": critic_adam, "temperature": adam}
        rows.append(metrics | {"entropy_share": entropy / np.log(count), "temperature": np.exp(log_temperature)})
    return (actor, critic), memory, averaged(rows)


def value_of_tables(params: Any) -> Array:
    """What the first critic says of the policy's actions, [cells]."""
    found: Array = (softmax(np.asarray(params.actor)) * np.asarray(params.critic)[0]).sum(-1)
    return found


def value_at_location(params: Any) -> Array:
    """What the first critic says of the action without noise, [cells]."""
    action = np.tanh(np.asarray(params.actor)[:, :1])
    found: Array = (np.asarray(params.critic)[0] * powers(action)).sum(-1)
    return found
