"""One update of the deterministic policy gradient with a compatible critic, in NumPy and float64, for tables.

μ(s) = tanh θ_s, so that J is 1 - μ² in the cell of s and 0 elsewhere, and the critic is V_s + (a - μ)(1 - μ²) w_s.
"""

import functools
from typing import Any

import jax
import numpy as np
import world
from derivations import Adam, generalised_advantage
from entry import Entry, as_data

import pgjax as pg

Array = np.ndarray


def init_params(key: jax.Array) -> world.Tables:
    tables = world.init_params(key)
    return world.Tables(tables.actor[:, :1], tables.critic)


def policy(params: world.Tables, obs: jax.Array) -> Any:
    return world.deterministic(params.actor, obs)


@functools.cache
def collected(entry: Entry) -> Any:
    """What each lane sees in an update: (rollout, window, noise that was given)."""
    env, env_params = entry.world()

    def behaviour(noise: Any, params: Any, obs: Any) -> Any:
        return pg.exploration.ClippedNormal(policy(params, obs).mode(), noise)

    def of_lane(keys: Any, state: Any) -> Any:
        _, noise = pg.exploration.ornstein_uhlenbeck(
            keys[1], state.noise, num_steps=entry.num_steps, theta=state.hyper.noise_theta,
            restart=state.rollout.step == 0,
        )  # fmt: skip
        rollout, trajectory = pg.rollout(
            keys[2], state.params, state.rollout, policy=pg.bind(behaviour, state.hyper.noise),
            env=env, env_params=env_params, num_steps=entry.num_steps, noise=noise,
        )  # fmt: skip
        return rollout, trajectory, noise

    return jax.jit(jax.vmap(of_lane))


def seen(run: Any, before: Any, keys: jax.Array, lane: tuple[str, Any]) -> tuple[Any, Any]:
    """The window of one lane; what was done in it is the action with its noise, within the box."""
    rollout, trajectory, noise = run.lane(collected(run.entry)(keys, before), *lane)
    state, data = run.lane(before, *lane), as_data(trajectory)
    wanted = np.clip(np.tanh(data.obs @ state.params.actor) + state.hyper.noise * noise, -1, 1)
    np.testing.assert_allclose(data.action, wanted, rtol=1e-5, atol=1e-6)
    return data, rollout


def given(entry: Entry, keys: Any, state: Any, data: Any) -> dict[str, Any]:
    return {"weights": state.weights.actor}


def memory_of(tables: Any) -> dict[str, Adam]:
    sizes = {"actor": tables[0].size, "critic": tables[1].size, "weights": tables[0].size}
    return {name: Adam(0, np.zeros(size), np.zeros(size)) for name, size in sizes.items()}


def dpg(tables: Any, memory: Any, data: Any, hyper: Any, _: float, *, weights: Array) -> Any:
    (actor, critic), (num_steps, num_envs) = tables, data.reward.shape
    advantage, baseline = generalised_advantage(data, critic, hyper["discount"], hyper["lam"])
    target, rows = advantage + baseline, num_steps * num_envs
    gradients = {"actor": np.zeros_like(actor), "critic": np.zeros_like(critic), "weights": np.zeros_like(actor)}
    errors, values, slopes = [], [], []
    for t in range(num_steps):
        for b in range(num_envs):
            cell, action = int(data.obs[t, b].argmax()), data.action[t, b, 0]
            mean = np.tanh(actor[cell, 0])
            jacobian = 1 - mean**2
            slope = jacobian * weights[cell, 0]
            value = critic[cell] + (action - mean) * slope
            error = value - target[t, b]
            gradients["critic"][cell] += error / rows
            gradients["weights"][cell, 0] += error * (action - mean) * jacobian / rows
            gradients["actor"][cell, 0] -= jacobian * slope / rows
            errors.append(0.5 * error**2)
            values.append(value)
            slopes.append(abs(slope))
    moved, changes = {}, {}
    for name, gradient in gradients.items():
        rate = hyper["learning_rate" if name == "actor" else "critic_learning_rate"]
        change, moved[name] = memory[name].step(gradient.ravel(), rate, eps=1e-8)
        changes[name] = change.reshape(gradient.shape)
    metrics = {"loss": np.mean(errors), "action_value": np.mean(values), "slope": np.mean(slopes), "num_nonfinite": 0}
    metrics["grad_norm"] = np.linalg.norm(gradients["actor"])
    return (actor + changes["actor"], critic + changes["critic"]), moved, metrics
