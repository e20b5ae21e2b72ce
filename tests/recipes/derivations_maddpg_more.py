"""The updates of MADDPG that infers, and of that with several policies, in NumPy and float64: see `derivations_maddpg`.

A guess is a normal for each cell, its mean tanh of a table and its deviation the exponential of another.
"""

import functools
from types import SimpleNamespace
from typing import Any

import derivations_maddpg as joint
import derivations_replay as replayed
import jax
import jax.numpy as jnp
import numpy as np
import world
from derivations import Adam
from derivations_maddpg import AGENTS
from entry import Entry, as_data

import pgjax as pg
from pgjax.recipes import off_policy

Array = np.ndarray
NUM_POLICIES = 2


# --- inferred policies ------------------------------------------------------------------------------------------------


def guess(table: Any, obs: Any) -> pg.Normal:
    """What another does in a cell: table [cells, 2]."""
    row = obs @ table
    return pg.Normal(jnp.tanh(row[..., :1]), jnp.exp(row[..., 1:]))


def init_with_guesses(key: Any, obs: Any) -> tuple[Any, Any, Any]:
    """(actors, critics, guesses): each of two agents guesses one other."""
    tables = 0.3 * jax.random.normal(jax.random.fold_in(key, 2), (world.NUM_AGENTS, 1, world.NUM_CELLS, 2))
    return *world.init_joint_quadratics(key, obs), tables.at[..., 1].add(-0.5)


def memory_with_guesses(tables: Any) -> list[dict[str, Adam]]:
    return [
        memory | {"guess": Adam(0, np.zeros(tables[2][i].size), np.zeros(tables[2][i].size))}
        for i, memory in enumerate(joint.memory_of(tables))
    ]


def of_inference(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any) -> Any:
    """Section 4.2: the other is guessed, by one step on the newest window before that of the critic."""
    (actor, critic, guesses), rows = tables, []
    newest_obs, newest_action = (x.reshape(-1, *x.shape[2:]) for x in (data.obs, data.action))
    for batch in data.batches:
        fresh = joint.act_each(actor, newest_obs)
        own = joint.act_each(target[0], batch.next_obs)
        new_actor, new_critic, new_guesses, new_memory = list(actor), list(critic), list(guesses), []
        for i in AGENTS:
            j = 1 - i
            cells, done = newest_obs[:, j], newest_action[:, j, 0]
            mean, scale = np.tanh(cells @ guesses[i, 0, :, 0]), np.exp(cells @ guesses[i, 0, :, 1])
            z, number = (done - mean) / scale, len(done)
            log_prob = -0.5 * z**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
            entropy = np.log(scale) + 0.5 * np.log(2 * np.pi * np.e)
            of_mean, of_log_scale = -z / scale * (1 - mean**2), 1 - z**2 - hyper["entropy_coef"]
            gradient = np.stack([cells.T @ of_mean, cells.T @ of_log_scale], -1)[None] / number
            metrics = {"guess_loss": -np.mean(log_prob + hyper["entropy_coef"] * entropy)}
            metrics["guess_error"] = np.mean((mean - fresh[:, j, 0]) ** 2)
            new_guesses[i], guess_adam = replayed.step(
                memory[i]["guess"], guesses[i], gradient, hyper["guess_learning_rate"]
            )
            following = own.copy()
            following[:, j, 0] = np.tanh(batch.next_obs[:, j] @ target[2][i, 0, :, 0])
            new_actor[i], new_critic[i], adams, more = joint.of_agent(
                i, actor[i], critic[i], memory[i], batch, following, target[1][i], hyper
            )
            new_memory.append(adams | {"guess": guess_adam})
            rows.append(metrics | more)
        actor, critic, guesses, memory = np.stack(new_actor), np.stack(new_critic), np.stack(new_guesses), new_memory
        target = replayed.follow(target, (actor, critic, guesses), hyper["target_rate"])
    return (actor, critic, guesses), memory, replayed.averaged(rows)


def targets_with_guesses(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    return {"target": tuple(state.target)}


# --- several policies for each agent ----------------------------------------------------------------------------------


def init_policies(key: Any, obs: Any) -> tuple[Any, Any]:
    """(actors [A, K, ...], critics [A, ...]) for `deterministic` and `joint_value`."""
    keys = jax.random.split(key, NUM_POLICIES)
    actors, critics = zip(*[world.init_joint_quadratics(key, obs) for key in keys], strict=True)
    return jnp.stack(actors, 1), critics[0]


def chosen_acts(actor: Any, obs: Any, which: Any) -> Any:
    """What both do by the policy that plays, [..., A, 1], as the recipe computes it to the last bit."""

    def own(tables: Any, obs: Any, which: Any) -> Any:
        modes = [world.deterministic(table, obs).mode() for table in tables]
        return jnp.where(which[..., None] == 1, modes[1], modes[0])

    axis = obs.ndim - 2
    return pg.exploration.Deterministic(jax.vmap(own, in_axes=(0, axis, axis), out_axes=axis)(actor, obs, which))


@functools.cache
def collected(entry: Entry) -> Any:
    """What each lane sees in an update: (rollout, window, noise, who would play from a start, batches)."""
    env, env_params = entry.world()

    def behaviour(exploring: Any, actor: Any, obs: Any, which: Any) -> Any:
        policy = off_policy.with_noise(lambda actor, obs: chosen_acts(actor, obs, which), -1.0, 1.0)
        return policy(exploring, actor, obs), which, which

    def of_lane(keys: Any, state: Any) -> Any:
        noise_key, act_key = jax.random.split(keys[1])
        _, noise = off_policy.correlated_noise(
            noise_key, state.noise, state.rollout, num_steps=entry.num_steps, theta=state.hyper.noise_theta
        )
        drawn = jax.random.randint(jax.random.fold_in(noise_key, 2), (world.NUM_ENVS, 2), 0, NUM_POLICIES)
        rollout, trajectory = pg.rollout(
            act_key, state.params.actor, state.rollout.replace(start_policy_state=drawn),
            policy=pg.bind(behaviour, (jnp.bool_(False), state.hyper.noise)), env=env, env_params=env_params,
            num_steps=entry.num_steps, noise=noise,
        )  # fmt: skip
        replay = replayed.replay_of(entry)
        kept = off_policy.stored(trajectory).replace(extras=trajectory.extras)
        memory = replay.add(state.replay, kept)

        def batch(key: Any) -> Any:
            rows = replay.sample(key, memory)
            return pg.fold(rows, discount=state.hyper.discount), rows.extras[0]

        batches = jax.vmap(batch)(jax.random.split(keys[2], entry.settings["gradient_steps"]))
        return rollout, trajectory, noise[1], drawn, batches

    return jax.jit(jax.vmap(of_lane))


def seen(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The batches of one lane; who plays goes on in an episode, and is what was drawn in one that begins."""
    rollout, trajectory, noise, drawn, (rows, which) = run.lane(collected(run.entry)(keys, before), *lane)
    state, data = run.lane(before, *lane), as_data(trajectory)
    plays = state.rollout.policy_state
    for t in range(len(data.obs)):
        np.testing.assert_array_equal(trajectory.extras[t], plays)
        for i in AGENTS:
            tables = state.params.actor[i, plays[:, i]]  # [B, cells, 1]
            wanted = np.tanh(np.einsum("bs,bsd->bd", data.obs[t, :, i], tables))
            wanted += state.hyper.noise * noise[t, :, i]
            np.testing.assert_allclose(data.action[t, :, i], np.clip(wanted, -1, 1), rtol=1e-5, atol=1e-6)
        plays = np.where(data.done[t], drawn, plays)
    np.testing.assert_array_equal(rollout.policy_state, plays)
    drawn_rows = vars(rows) | {"which": which}
    data.batches = [SimpleNamespace(**{k: x[n] for k, x in drawn_rows.items()}) for n in range(len(which))]
    return data, rollout


def memory_of_policies(tables: Any) -> list[dict[str, Any]]:
    """For each agent an optimiser of each policy, and one of the critic."""
    new = lambda table: Adam(0, np.zeros(table.size), np.zeros(table.size))  # noqa: E731
    return [{"actor": [new(x) for x in tables[0][i]], "critic": new(tables[1][i])} for i in AGENTS]


def of_ensemble(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, target: Any) -> Any:
    """Section 4.3: the gradient of a policy is the mean over the rows in which it played, by the number of policies."""
    (actor, critic), rows = tables, []
    for batch in data.batches:
        play = lambda actor, obs: np.stack(  # noqa: E731
            [np.stack([np.tanh(obs[n, i] @ actor[i, batch.which[n, i]]) for i in AGENTS]) for n in range(len(obs))]  # noqa: B023
        )
        following, acting = play(target[0], batch.next_obs), play(actor, batch.obs)
        new_actor, new_critic, new_memory = actor.copy(), list(critic), []
        for i in AGENTS:
            new_critic[i], critic_adam, metrics = joint.regress(
                critic[i], memory[i]["critic"], batch, i, following, target[1][i], hyper
            )
            action = batch.action.copy()
            action[:, i] = acting[:, i]
            values = joint.joint_values(new_critic[i], batch.obs, action)
            slopes = joint.own_slope(new_critic[i], batch.obs, action, i)
            metrics["actor_loss"], actor_adams = 0.0, []
            for k in range(NUM_POLICIES):
                mine = [n for n in range(len(values)) if batch.which[n, i] == k]
                gradient = np.zeros_like(actor[i, k])
                for n in mine:
                    metrics["actor_loss"] -= values[n] / len(mine) / NUM_POLICIES
                    chain = slopes[n] * (1 - action[n, i] ** 2)
                    gradient -= np.outer(batch.obs[n, i], chain) / len(mine) / NUM_POLICIES
                new_actor[i, k], adam = replayed.step(
                    memory[i]["actor"][k], actor[i, k], gradient, hyper["learning_rate"]
                )
                actor_adams.append(adam)
            new_memory.append({"actor": actor_adams, "critic": critic_adam})
            rows.append(metrics)
        actor, critic, memory = new_actor, np.stack(new_critic), new_memory
        target = replayed.follow(target, (actor, critic), hyper["target_rate"])
    return (actor, critic), memory, replayed.averaged(rows)


def value_at_modes(params: Any) -> Array:
    """What each critic says of what both do by their first policies, [A, cells], and by their last."""
    first, last = (params._replace(actor=params.actor[:, k]) for k in (0, -1))
    return np.stack([joint.value_at_modes(first), joint.value_at_modes(last)])
