"""Other surrogates in the place of PPO's clipped one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular import policy, random_window

import pgjax as pg

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

close = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
PARAMS = {"actor": np.random.default_rng(11).normal(size=(3, 2)), "critic": np.array([0.4, -0.3, 0.8])}


def actor(params: Any, obs: Any) -> Any:
    return policy(params["actor"], obs)


def value(params: Any, obs: Any) -> Any:
    return obs @ params["critic"]


def gspo(log_ratio: Any, advantage: Any) -> Any:
    return pg.ppo_clip_loss(pg.sequence_log_ratio(log_ratio), advantage)


def spo(clip: Any, log_ratio: Any, advantage: Any) -> Any:
    return pg.spo_loss(log_ratio, advantage, clip=clip)


def objective_of(batch: Any, **more: Any) -> Any:
    target = jnp.zeros((7, 4))
    advantage = jnp.asarray(np.random.default_rng(5).normal(size=(7, 4)))
    arguments = {"policy": actor, "value": value, "advantage": advantage, "value_target": target}
    return pg.ppo_objective(PARAMS, batch, **arguments, **more), advantage


def window(noise: float) -> Any:
    batch = random_window(4, 4)
    log_prob = actor(PARAMS, batch.obs).log_prob(batch.action)
    return batch.replace(log_prob=log_prob + noise * np.random.default_rng(6).normal(size=(7, 4)))


def test_a_surrogate_takes_the_place_of_the_first_term_alone() -> None:
    batch = window(0.5)
    (plain, with_clip), _ = objective_of(batch)
    (loss, metrics), advantage = objective_of(batch, surrogate=pg.spo_loss, clip=9.0)
    ratio = np.exp(np.asarray(metrics["log_ratio"]))
    wanted = np.abs(advantage) * (ratio - 1) ** 2 / 0.4 - ratio * advantage
    close(metrics["policy_loss"], wanted)
    close(loss - metrics["policy_loss"], plain - with_clip["policy_loss"])
    assert np.abs(metrics["policy_loss"] - with_clip["policy_loss"]).max() > 0.1
    (again, _), _ = objective_of(batch, surrogate=None)
    close(again, plain)


def test_the_numbers_of_a_surrogate_are_bound_traced_and_differentiable() -> None:
    batch = window(0.5)

    def total(clip: Any) -> Any:
        (loss, metrics), _ = objective_of(batch, surrogate=pg.bind(spo, clip))
        return loss.sum(), metrics

    (_, metrics), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(jnp.float64(0.3))
    ratio = np.exp(np.asarray(metrics["log_ratio"]))
    advantage = np.random.default_rng(5).normal(size=(7, 4))
    close(metrics["policy_loss"], np.abs(advantage) * (ratio - 1) ** 2 / 0.6 - ratio * advantage)
    close(slope, -np.sum(np.abs(advantage) * (ratio - 1) ** 2) / (2 * 0.3**2))


def test_before_the_first_step_ppo_is_the_same_with_each_but_a_mean_over_the_sequence() -> None:
    batch, arguments = window(0.0), {"policy": actor, "value": value, "discount": 0.9}
    want, _ = pg.ppo(PARAMS, batch, **arguments)
    for surrogate in (pg.spo_loss, pg.discovered_loss, pg.importance_weighted_loss):
        got, _ = pg.ppo(PARAMS, batch, **arguments, surrogate=surrogate)
        jax.tree.map(close, got, want)
    got, _ = pg.ppo(PARAMS, batch, **arguments, surrogate=gspo)
    close(got["critic"], want["critic"])
    assert np.abs(got["actor"] - want["actor"]).max() > 0.1
    columns, _ = pg.ppo.per_trajectory(PARAMS, batch, **arguments, surrogate=gspo)
    close(columns["actor"].mean(0), got["actor"])


def test_a_surrogate_of_another_kind_is_refused_by_name() -> None:
    batch = window(0.0)
    with pytest.raises(TypeError, match=r"^surrogate must be a function"):
        objective_of(batch, surrogate=jnp.zeros((7, 4)))
    with pytest.raises(ValueError, match=r"^the result of surrogate must have the shape of trajectory\.reward"):
        objective_of(batch, surrogate=lambda x, a: pg.masked_mean(x * a))
