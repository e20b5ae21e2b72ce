"""An update of FastTD3 from its paper, in NumPy and float64: two critics that are tables of logits."""

import functools
from types import SimpleNamespace
from typing import Any

import derivations_d4pg as one
import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam
from derivations_replay import Array, averaged, step
from entry import Entry, as_numpy

import pgjax as pg

SETTINGS = {name: x for name, x in one.SETTINGS.items() if name != "priority_exponent"}
SETTINGS |= {"normalize_observations": False}
FUNCTIONS = one.FUNCTIONS | {"init_params": functools.partial(one.init_logits, num_critics=2)}
DELAY = 2


def scales(hyper: Any) -> Any:
    """[B, 1], one for each environment."""
    share = jnp.arange(world.NUM_ENVS)[:, None] / (world.NUM_ENVS - 1)
    return hyper.smallest_noise + (hyper.largest_noise - hyper.smallest_noise) * share


seen = functools.partial(one.seen, scale=scales, prioritized=False)


def targets(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    keys = jax.random.split(keys[2], (2, SETTINGS["gradient_steps"])).T
    replay, rows = one.replay_of(entry.settings["window"], prioritized=False), []
    for sample_key, noise_key in keys:
        folded = pg.fold(replay.sample(sample_key, data.memory), discount=np.float32(state.hyper.discount))
        normal = jax.random.normal(noise_key, (one.SIZES["batch_size"], 1))
        rows.append(SimpleNamespace(**{k: as_numpy(x) for k, x in vars(folded).items()}, normal=as_numpy(normal)))
    return {"target": state.target, "batches": rows, "count": int(state.num_learned)}


def decayed(adam: Adam, table: Array, gradient: Array, rate: float, decay: float) -> tuple[Array, Adam]:
    """Loshchilov and Hutter (2019), algorithm 2: the decay does not pass through the moments."""
    moved, adam = step(adam, table, gradient, rate)
    return moved - rate * decay * table, adam


def fasttd3(
    tables: Any, memory: Any, _: Any, hyper: Any, __: float, *, target: Any, batches: Any, count: int
) -> Any:  # fmt: skip
    (actor, critic), rows, atoms, decay = tables, [], one.atoms_of(hyper), hyper["weight_decay"]
    for batch in batches:
        smooth = np.clip(hyper["smoothing"] * batch.normal, -hyper["smoothing_clip"], hyper["smoothing_clip"])
        following = np.clip(np.tanh(batch.next_obs @ actor) + smooth, -1, 1)
        p = one.softmax(one.logits_of(target, batch.next_obs, following))
        p = np.stack([min(p[:, n], key=lambda row: row @ atoms) for n in range(p.shape[1])])
        m = one.projected(batch.reward, batch.discount, p, atoms)
        gradient, _, metrics = one.cross_entropy(critic, batch, m, np.ones(len(m)), atoms)
        critic, adam = decayed(memory["critic"], critic, gradient, hyper["critic_learning_rate"], decay)
        memory, count = memory | {"critic": adam}, count + 1
        target = (1 - hyper["target_rate"]) * target + hyper["target_rate"] * critic
        action = np.tanh(batch.obs @ actor)
        value, slope = one.values_and_slopes(critic, batch.obs, action, atoms)
        least = value.argmin(0)[None]
        metrics["actor_loss"] = -np.take_along_axis(value, least, 0).mean()
        if count % DELAY == 0:
            chain = np.take_along_axis(slope, least, 0)[0][:, None] * (1 - action**2)
            gradient = -batch.obs.T @ chain / len(m)
            actor, adam = decayed(memory["actor"], actor, gradient, hyper["learning_rate"], decay)
            memory = memory | {"actor": adam}
        rows.append(metrics)
    return (actor, critic), memory, averaged(rows)
