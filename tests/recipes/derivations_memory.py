"""One update of A2C and PPO with a memory, a squashed action and normalisers, step by step in NumPy and plain JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import recall
from derivations import Adam

Array = Any


def merged(mean: Array, var: Array, count: float, rows: Array) -> tuple[Array, Array]:
    """Mean and variance of all that was seen, the new rows among it; population variance."""
    total = count + len(rows)
    new = (mean * count + rows.sum(0)) / total
    square = ((var + mean**2) * count + (rows**2).sum(0)) / total
    return new, square - new**2


def normalised(statistics: Any, obs: Array) -> Array:
    return np.clip((obs - statistics.mean) / np.sqrt(statistics.var + 1e-8), -10, 10)


def discounted_sums(running: Array, reward: Array, done: Array, discount: float) -> tuple[Array, Array]:
    rows, running = [], running.copy()
    for t in range(len(reward)):
        running = discount * running + reward[t]
        rows.append(running)
        running = np.where(done[t], 0.0, running)
    return np.stack(rows), running


@jax.jit
def unrolled(params: Any, obs: Array, step: Array, memory: Array) -> tuple[Array, Array]:
    """Memories after each step [T, B, H], the memory set to 0 where an episode starts."""
    after = []
    for t in range(obs.shape[0]):
        memory = jnp.where((step[t] == 0)[:, None], 0.0, memory)
        memory = recall.remember(params, obs[t], memory)
        after.append(memory)
    return jnp.stack(after), jnp.stack(after) @ params["critic"]


def log_prob_and_entropy(params: Any, memories: Array, raw: Array) -> tuple[Array, Array]:
    """Of the action before squashing: a normal's density, less the logarithm of the slope of tanh."""
    distribution = recall.head(params, memories)
    error = (raw - distribution.loc) / distribution.scale
    slope = 2.0 * (jnp.log(2.0) - raw - jax.nn.softplus(-2.0 * raw))
    density = -0.5 * error**2 - jnp.log(distribution.scale) - 0.5 * jnp.log(2 * jnp.pi) - slope
    return density.sum(-1), distribution.entropy()


def advantages(data: Any, values: Array, following: Array, hyper: Any) -> Array:
    result = np.zeros_like(data.reward)
    for b in range(result.shape[1]):
        running = 0.0
        for t in reversed(range(result.shape[0])):
            bootstrap = 0.0 if data.terminated[t, b] else hyper["discount"] * following[t, b]
            error = data.reward[t, b] + bootstrap - values[t, b]
            running = error + (0.0 if data.done[t, b] else hyper["discount"] * hyper["lam"] * running)
            result[t, b] = running
    return result


def prepared(state: Any, data: Any, hyper: Any) -> dict[str, Any]:
    """Everything before the first gradient; data.reward is replaced by the scaled one."""
    network, statistics = state.params
    scale = state.reward_scale
    sums, _ = discounted_sums(scale.running_return, data.reward, data.done, hyper["discount"])
    _, var = merged(scale.statistics.mean, scale.statistics.var, scale.statistics.count, sums.reshape(-1))
    data.reward = np.clip(data.reward / np.sqrt(var + 1e-8), -10, 10)
    obs, next_obs = normalised(statistics, data.obs), normalised(statistics, data.next_obs)
    memories, values = unrolled(network, obs, data.step, state.rollout.policy_state)
    following = recall.value(network, jnp.asarray(next_obs), memories)
    advantage = advantages(data, np.asarray(values, np.float64), np.asarray(following, np.float64), hyper)
    mean, var = merged(statistics.mean, statistics.var, statistics.count, data.obs.reshape(-1, data.obs.shape[-1]))
    return {"obs": obs, "advantage": advantage, "values": np.asarray(values), "mean": mean, "var": var}


def flat(tree: Any) -> Array:
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])


def stepped(network: Any, adam: Adam, gradient: Any, hyper: Any) -> tuple[Any, Adam]:
    g = flat(gradient)
    change, adam = adam.step(g * min(1.0, hyper["max_grad_norm"] / np.linalg.norm(g)), hyper["learning_rate"])
    parts = np.split(change, np.cumsum([np.size(x) for x in jax.tree.leaves(network)])[:-1])
    leaves, structure = jax.tree.flatten(network)
    return structure.unflatten([x + c.reshape(x.shape) for x, c in zip(leaves, parts, strict=True)]), adam


def a2c(state: Any, data: Any, hyper: Any, **_: Any) -> Any:
    ready = prepared(state, data, hyper)
    network = state.params.network

    @jax.jit
    def loss(network: Any) -> Array:
        memories, values = unrolled(network, ready["obs"], data.step, state.rollout.policy_state)
        log_prob, entropy = log_prob_and_entropy(network, memories, data.raw_action)
        error = values - (ready["advantage"] + ready["values"])
        terms = -ready["advantage"] * log_prob + hyper["value_coef"] * 0.5 * error**2 - hyper["entropy_coef"] * entropy
        return terms.sum() / data.reward.shape[1]

    adam = Adam(0, np.zeros(flat(network).size), np.zeros(flat(network).size))
    return stepped(network, adam, jax.grad(loss)(network), hyper)[0], ready


def ppo(state: Any, data: Any, hyper: Any, *, order: Array) -> Any:
    """order [epochs, minibatches, environments]."""
    ready = prepared(state, data, hyper)
    network = state.params.network

    @jax.jit
    def loss(network: Any, columns: Array) -> Array:
        pick = lambda x: jnp.asarray(x)[:, columns]  # noqa: E731
        advantage, old_value = pick(ready["advantage"]), pick(ready["values"])
        weight = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        start = jnp.asarray(state.rollout.policy_state)[columns]
        memories, values = unrolled(network, pick(ready["obs"]), pick(data.step), start)
        log_prob, entropy = log_prob_and_entropy(network, memories, pick(data.raw_action))
        ratio = jnp.exp(log_prob - pick(data.log_prob))
        clipped = jnp.clip(ratio, 1 - hyper["clip"], 1 + hyper["clip"])
        error = values - (advantage + old_value)
        terms = -jnp.minimum(ratio * weight, clipped * weight) + hyper["value_coef"] * 0.5 * error**2
        return jnp.mean(terms - hyper["entropy_coef"] * entropy)

    adam = Adam(0, np.zeros(flat(network).size), np.zeros(flat(network).size))
    for columns in order.reshape(-1, order.shape[-1]):
        network, adam = stepped(network, adam, jax.grad(loss)(network, columns), hyper)
    return network, ready
