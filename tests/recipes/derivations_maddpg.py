"""The update of MADDPG in NumPy and float64, agent by agent, for two agents and the joint quadratics of `world`."""

import functools
from types import SimpleNamespace
from typing import Any

import derivations_replay as replayed
import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam
from entry import Entry, as_data, as_numpy

import pgjax as pg
from pgjax.recipes import off_policy

Array = np.ndarray
AGENTS = range(world.NUM_AGENTS)


def acts(actor: Any, obs: Any) -> Any:
    """What both do, [..., A, 1], as the recipe computes it to the last bit; `seen` tells whether it is right."""
    axis = obs.ndim - 2
    own = lambda table, obs: world.deterministic(table, obs).mode()  # noqa: E731
    return pg.exploration.Deterministic(jax.vmap(own, in_axes=(0, axis), out_axes=axis)(actor, obs))


@functools.cache
def collected(entry: Entry) -> Any:
    """What each lane sees in an update: (rollout, window, noise that was given, batches [gradient steps, N])."""
    env, env_params = entry.world()
    behaviour = off_policy.with_noise(acts, -1.0, 1.0)

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
    """The transitions of each gradient step, leaves [gradient steps, N, A, ...]."""
    replay = replayed.replay_of(entry)
    memory = replay.add(state.replay, off_policy.stored(trajectory))
    draw = lambda key: pg.fold(replay.sample(key, memory), discount=state.hyper.discount)  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, entry.settings["gradient_steps"]))


def seen(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The batches of one lane; what each agent did is its own action with its own noise, within the box."""
    rollout, trajectory, noise, rows = run.lane(collected(run.entry)(keys, before), *lane)
    state, data = run.lane(before, *lane), as_data(trajectory)
    for i in AGENTS:
        wanted = np.tanh(data.obs[..., i, :] @ state.params.actor[i]) + state.hyper.noise * noise[..., i, :]
        np.testing.assert_allclose(data.action[..., i, :], np.clip(wanted, -1, 1), rtol=1e-5, atol=1e-6)
    data.batches = [SimpleNamespace(**{k: x[n] for k, x in vars(rows).items()}) for n in range(len(rows.reward))]
    return data, rollout


def memory_of(tables: Any) -> list[dict[str, Adam]]:
    """An optimiser for the actor of each agent and one for its critic."""
    return [replayed.memory_of((tables[0][i], tables[1][i])) for i in AGENTS]


def joint_powers(action: Array) -> Array:
    a, b = action[:, 0, 0], action[:, 1, 0]
    return np.stack([np.ones_like(a), a, b, a**2, a * b, b**2], -1)


def joint_values(critic: Array, obs: Array, action: Array) -> Array:
    """Q of one agent, [N]; the cell is what the first sees, and the second in reverse order."""
    np.testing.assert_array_equal(obs[:, 0], obs[:, 1, ::-1])
    return np.sum((obs[:, 0] @ critic[0]) * joint_powers(action), -1)


def own_slope(critic: Array, obs: Array, action: Array, i: int) -> Array:
    """∂Q/∂a_i of one agent, [N]."""
    w, a, b = obs[:, 0] @ critic[0], action[:, 0, 0], action[:, 1, 0]
    return w[:, 1] + 2 * w[:, 3] * a + w[:, 4] * b if i == 0 else w[:, 2] + w[:, 4] * a + 2 * w[:, 5] * b


def act_each(actor: Array, obs: Array) -> Array:
    return np.stack([np.tanh(obs[:, i] @ actor[i]) for i in AGENTS], 1)


def regress(critic: Array, adam: Adam, batch: Any, i: int, following: Array, target: Array, hyper: Any) -> Any:
    """One step of the critic of an agent, given what all do next: (critic, adam, metrics)."""
    y = batch.reward[:, i] + batch.discount[:, i] * joint_values(target, batch.next_obs, following)
    q, features = joint_values(critic, batch.obs, batch.action), joint_powers(batch.action)
    gradient = np.einsum("n,ns,nk->sk", (q - y) / len(y), batch.obs[:, 0], features)[None]
    metrics = {"loss": np.mean(0.5 * (q - y) ** 2), "action_value": q.mean(), "grad_norm": np.linalg.norm(gradient)}
    return *replayed.step(adam, critic, gradient, hyper["critic_learning_rate"]), metrics


def of_agent(
    i: int, actor: Array, critic: Array, memory: Any, batch: Any, following: Array, target: Array, hyper: Any
) -> Any:
    """The two steps of an agent, given what all do next: (actor, critic, memory, metrics)."""
    critic, critic_adam, metrics = regress(critic, memory["critic"], batch, i, following, target, hyper)
    action = batch.action.copy()
    action[:, i] = np.tanh(batch.obs[:, i] @ actor)
    metrics["actor_loss"] = -joint_values(critic, batch.obs, action).mean()
    chain = own_slope(critic, batch.obs, action, i)[:, None] * (1 - action[:, i] ** 2)
    gradient = -batch.obs[:, i].T @ chain / len(action)
    actor, actor_adam = replayed.step(memory["actor"], actor, gradient, hyper["learning_rate"])
    return actor, critic, {"actor": actor_adam, "critic": critic_adam}, metrics


def maddpg(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any) -> Any:
    """Algorithm 1 of the paper; a_j of the others as replayed."""
    (actor, critic), rows = tables, []
    for batch in data.batches:
        following = act_each(target[0], batch.next_obs)
        each = [of_agent(i, actor[i], critic[i], memory[i], batch, following, target[1][i], hyper) for i in AGENTS]
        actor, critic = (np.stack(x) for x in list(zip(*each, strict=True))[:2])
        memory, more = ([result[n] for result in each] for n in (2, 3))
        rows += more
        target = replayed.follow(target, (actor, critic), hyper["target_rate"])
    return (actor, critic), memory, replayed.averaged(rows)


def value_at_modes(params: Any) -> Array:
    """What each critic says of what both actors do, [A, cells]."""
    critic = as_numpy(jnp.asarray(params.critic))
    cells = np.eye(world.NUM_CELLS)
    obs = np.stack([cells, cells[:, ::-1]], 1)
    action = act_each(params.actor, obs)
    return np.stack([joint_values(critic[i], obs, action) for i in AGENTS])
