"""One update of the recipes that play many policies at once, from their papers, in NumPy and float64 loops."""

from types import SimpleNamespace
from typing import Any

import derivations
import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam, flat, unflat

import pgjax as pg

Array = np.ndarray
NUM_PARTICLES, NUM_PAIRS = 3, 6
NUM_PARAMS = world.NUM_CELLS * (world.NUM_ACTIONS + 1)


class Unmoved:
    """In place of Adam: the gradient as it is."""

    def step(self, gradient: Array, learning_rate: float) -> Any:
        return gradient, self


@jax.jit
@jax.vmap
def windows(key: jax.Array, particles: Any, rollouts: Any) -> Any:
    """The rollouts of the particles of each lane, from the key that acts."""
    env, env_params = world.world()
    act = lambda key, params, rollout: pg.rollout(  # noqa: E731
        key, params, rollout, policy=world.policy, env=env, env_params=env_params, num_steps=world.NUM_STEPS
    )
    return jax.vmap(act)(jax.random.split(key, NUM_PARTICLES), particles, rollouts)


def seen_by_particles(run: Any, before: Any, keys: jax.Array, lane: Any) -> tuple[Any, Any]:
    from entry import as_data

    rollout, trajectory = run.lane(windows(keys[:, 1], before.particles, before.rollout), *lane)
    each = [as_data(jax.tree.map(lambda x, j=j: x[j], trajectory)) for j in range(NUM_PARTICLES)]
    return SimpleNamespace(each=each, returns=rollout.episode_return), rollout


def svpg(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """Liu et al. (2017), algorithm 1; the kernel sees the actor, the critic of each particle learns alone."""
    actors, critics = tables
    unclipped = hyper | {"max_grad_norm": np.inf}
    grads, rows = [], []
    for j in range(NUM_PARTICLES):
        own = (actors[j], critics[j])
        after, _, metrics = derivations.a2c(own, Unmoved(), data.each[j], unclipped, progress)
        grads.append((after[0] - own[0], after[1] - own[1]))
        rows.append(metrics)
    pairs = [(i, j) for i in range(NUM_PARTICLES) for j in range(i)]
    median = np.median([np.linalg.norm(actors[i] - actors[j]) for i, j in pairs])
    h = median**2 / np.log(NUM_PARTICLES + 1)
    alpha = hyper["temperature"] * (1 - hyper["cooling"] * progress)
    gradient = np.zeros((NUM_PARTICLES, NUM_PARAMS))
    for i in range(NUM_PARTICLES):
        ascent = np.zeros_like(actors[i])
        for j in range(NUM_PARTICLES):
            k = np.exp(-np.sum((actors[j] - actors[i]) ** 2) / h)
            prior = -actors[j] / hyper["prior_scale"] ** 2
            ascent += k * (-grads[j][0] + alpha * prior) + alpha * (2 / h) * (actors[i] - actors[j]) * k
        own = flat((-ascent / NUM_PARTICLES, grads[i][1]))
        gradient[i] = own * min(1.0, hyper["max_grad_norm"] / np.linalg.norm(own))
    size = actors[0].size
    gradient = flat((gradient[:, :size], gradient[:, size:]))  # Adam treats each entry alone
    change, adam = adam.step(gradient, hyper["learning_rate"] * (1 - hyper["anneal"] * progress))
    metrics = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
    metrics["spread"] = np.sqrt(np.mean([np.sum((x - actors.mean(0)) ** 2) for x in actors]))
    means = [np.mean(x) for x in data.returns]
    known = [x for x in means if not np.isnan(x)]
    metrics["best_return"] = max(known) if known else np.nan
    metrics.pop("explained_variance")
    return unflat(flat(tables) + change, tables), adam, metrics


def played(key: jax.Array, vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns and lengths [M, B] of whole episodes at parameters [M, P], all from one key."""
    env, env_params = world.brief()

    def one(vector: jax.Array) -> Any:
        size = world.NUM_CELLS * world.NUM_ACTIONS
        params = world.Tables(vector[:size].reshape(world.NUM_CELLS, -1), vector[size:])
        episodes = pg.evaluate(
            key, params, policy=world.policy, env=env, env_params=env_params, num_episodes=world.NUM_ENVS,
            max_steps=world.NUM_STEPS,
        )  # fmt: skip
        return episodes.episode_return, episodes.episode_length

    return jax.vmap(one)(vectors)


def vector_of(params: Any) -> jax.Array:
    return jnp.concatenate([params.actor.ravel(), params.critic])


@jax.jit
@jax.vmap
def pairs(key: jax.Array, params: Any, scale: jax.Array) -> Any:
    """Noise [N, P], and what the two policies of each pair earned under common random numbers, [N, 2, B]."""

    def pair(index: jax.Array) -> Any:
        noise_key, episode_key = jax.random.split(jax.random.fold_in(key, index))
        noise = jax.random.normal(noise_key, (NUM_PARAMS,))
        middle = vector_of(params)
        return noise, *played(episode_key, jnp.stack([middle + scale * noise, middle - scale * noise]))

    return jax.vmap(pair)(jnp.arange(NUM_PAIRS))


def seen_by_pairs(run: Any, before: Any, keys: jax.Array, lane: Any) -> tuple[Any, Any]:
    noise, returns, lengths = run.lane(pairs(keys[:, 1], before.params, before.hyper.scale), *lane)
    return SimpleNamespace(
        noise=noise, returns=returns, lengths=lengths, before=run.lane(before.env_steps, *lane)
    ), SimpleNamespace(episode_return=returns)


def searched(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, slope: Array, decay: float = 0.0) -> Any:
    metrics = {"loss": -np.mean(data.returns), "num_nonfinite": 0, "grad_norm": np.linalg.norm(slope)}
    metrics["env_steps"] = data.before + np.sum(data.lengths)
    gradient = slope + decay * flat(tables)
    change, adam = adam.step(gradient, hyper["learning_rate"] * (1 - hyper["anneal"] * progress))
    return unflat(flat(tables) + change, tables), adam, metrics


def evolution_strategies(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """Salimans et al. (2017), algorithm 1, with ranks in place of costs."""
    costs = -data.returns.mean(-1)  # [N, 2]
    ranks = np.zeros_like(costs)
    for i in range(NUM_PAIRS):
        for side in range(2):
            below = np.sum(costs < costs[i, side])
            equal = np.sum(costs == costs[i, side])
            ranks[i, side] = (below + (equal - 1) / 2) / (costs.size - 1) - 0.5
    slope = np.zeros(NUM_PARAMS)
    for i in range(NUM_PAIRS):
        slope += (ranks[i, 0] - ranks[i, 1]) * data.noise[i] / (2 * NUM_PAIRS * hyper["scale"])
    return searched(tables, adam, data, hyper, progress, slope, hyper["weight_decay"])


@jax.jit
@jax.vmap
def entries(key: jax.Array, params: Any, epsilon: jax.Array) -> Any:
    """What the policies earned that differ in one entry, [P, 2, B], all under common random numbers."""
    steps = epsilon * jnp.eye(NUM_PARAMS)
    both = jnp.stack([vector_of(params)[None] + steps, vector_of(params)[None] - steps], 1)
    returns, lengths = played(key, both.reshape(-1, NUM_PARAMS))
    return returns.reshape(NUM_PARAMS, 2, -1), lengths


def seen_along_entries(run: Any, before: Any, keys: jax.Array, lane: Any) -> tuple[Any, Any]:
    returns, lengths = run.lane(entries(keys[:, 1], before.params, before.hyper.epsilon), *lane)
    return SimpleNamespace(returns=returns, lengths=lengths, before=run.lane(before.env_steps, *lane)), SimpleNamespace(
        episode_return=returns
    )


def finite_differences(tables: Any, adam: Adam, data: Any, hyper: Any, progress: float, **_: Any) -> Any:
    """Kiefer and Wolfowitz (1952): one entry after the other."""
    slope = np.zeros(NUM_PARAMS)
    for k in range(NUM_PARAMS):
        slope[k] = -(data.returns[k, 0].mean() - data.returns[k, 1].mean()) / (2 * hyper["epsilon"])
    return searched(tables, adam, data, hyper, progress, slope)
