"""Estimators against each other and against loops over episodes, on windows of any shape that hold several of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tabular
from tabular import by_loops, every_trajectory, miss, policy, random_window

import pgjax as pg
from pgjax import exact

from .contributions import SCORE_FUNCTION, actor, actor_part, close, each, value

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")


def test_identity_01_gpomdp_is_weighted_reinforce_trajectory_by_trajectory() -> None:
    mdp, logits, batch, _ = every_trajectory("three_state", 3)
    np.testing.assert_allclose(
        each("gpomdp", logits, batch, mdp), each("reinforce", logits, batch, mdp), rtol=0, atol=1e-13
    )
    # The right-hand side by a loop: each reward times all scores up to it, which a trace adds up.
    log_probs = jax.jacobian(lambda x: policy(x, batch.obs).log_prob(batch.action))(logits)
    trace, total = 0.0, 0.0
    for t, score in enumerate(np.asarray(log_probs)):
        trace = trace + score
        discounted = float(mdp.discount) ** t * np.asarray(batch.reward[t])
        total = total + discounted[:, None, None] * trace
    np.testing.assert_allclose(-np.asarray(each("gpomdp", logits, batch, mdp)), total, rtol=0, atol=1e-13)
    window = random_window(0, 4)
    np.testing.assert_allclose(each("gpomdp", logits, window, mdp), each("reinforce", logits, window, mdp), atol=1e-13)


@pytest.mark.parametrize("estimator", SCORE_FUNCTION)
def test_windows_that_start_inside_episodes_agree_with_loops(estimator: str) -> None:
    mdp, logits = tabular.problem("three_state")
    batch = random_window(1, 5)
    assert int(batch.step[0].max()) > 0
    assert int(batch.done[:-1].sum()) > 5
    random = np.random.default_rng(2)
    baseline, mask = jnp.asarray(random.normal(size=(7, 5))), jnp.asarray(random.random((7, 5)) < 0.6)
    kwargs = {"step_weight": None} if estimator == "reinforce" else {}
    for counts in (jnp.ones_like(mask), mask):
        got = each(estimator, logits, batch, mdp, baseline=baseline, mask=counts, **kwargs)
        for b in range(5):
            column = jax.tree.map(lambda x, b=b: x[:, b], jax.tree.map(np.asarray, batch))
            subtract = lambda t, b=b: float(baseline[t, b])  # noqa: E731
            close(got[b], by_loops(estimator, column, logits, 0.8, subtract, counts[:, b]))


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_any_number_of_batch_axes_agrees_with_loops(shape: tuple[int, ...]) -> None:
    mdp, logits = tabular.problem("three_state")
    batch = random_window(3, *shape)
    got = np.asarray(each("likelihood_ratio", logits, batch, mdp))
    assert got.shape == (*shape, *logits.shape)
    for index in np.ndindex(*shape):
        column = jax.tree.map(lambda x, index=index: np.asarray(x)[(slice(None), *index)], batch)
        close(got[index], by_loops("likelihood_ratio", column, logits, 0.8))


def a2c_arguments(batch: Any) -> dict[str, Any]:
    mask = jnp.asarray(np.random.default_rng(5).random(batch.reward.shape) < 0.7)
    return {"policy": actor, "value": value, "discount": 0.9, "lam": 0.8, "entropy_coef": 0.1, "mask": mask}


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_the_estimate_is_the_mean_of_the_contributions(shape: tuple[int, ...]) -> None:
    batch = random_window(4, *shape)
    params = {"actor": tabular.problem("three_state")[1], "critic": jnp.array([0.1, -0.4, 0.7])}
    plain = {"policy": actor, "discount": 0.9}
    cases = [(pg.actor_critic, a2c_arguments(batch))]
    cases += [(pg.reinforce, {**plain, "baseline": 0.4, "mask": a2c_arguments(batch)["mask"]})]
    if shape:
        cases += [(pg.likelihood_ratio, plain), (pg.gpomdp, {**plain, "baseline": pg.leave_one_out})]
    for estimator, kwargs in cases:
        whole, info = estimator(params, batch, **kwargs)
        parts, part_info = estimator.per_trajectory(params, batch, **kwargs)
        jax.tree.map(lambda x, y: close(x, y.reshape(-1, *x.shape).mean(0)), whole, parts)
        close(info.loss, part_info.loss.mean())
        assert part_info.loss.shape == part_info.grad_norm.shape == part_info.num_nonfinite.shape == shape
        close(info.grad_norm, jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(whole))))
        rows = jnp.concatenate([x.reshape(*shape, -1) for x in jax.tree.leaves(parts)], -1)
        close(part_info.grad_norm, jnp.linalg.norm(rows, axis=-1))
        jax.tree.map(close, info.targets, part_info.targets)


@pytest.mark.parametrize("estimator", [*SCORE_FUNCTION, "actor_critic"])
def test_two_episodes_in_one_column_add_up(estimator: str) -> None:
    mdp, logits, first, first_weights = every_trajectory("two_state", 2)
    _, _, second, second_weights = every_trajectory("two_state", 3)
    both, weights = exact.join((first, first_weights), (second, second_weights))
    critic = jnp.array([1.0, -2.0])

    def contributions(batch: Any) -> Any:
        if estimator == "actor_critic":
            return actor_part(logits, critic, batch, mdp, 0.7)
        return each(estimator, logits, batch, mdp)

    a, b = contributions(first), contributions(second)
    close(contributions(both), (np.asarray(a)[:, None] + np.asarray(b)[None]).reshape(-1, 2, 2))
    if estimator != "actor_critic":
        truth = tabular.gradient(mdp, logits, 2) + tabular.gradient(mdp, logits, 3)
        assert miss(contributions(both), weights, truth) < 1e-12


def test_the_critic_part_and_the_entropy_part_are_their_own_gradients() -> None:
    batch = random_window(6, 3)
    params = {"actor": tabular.problem("three_state")[1], "critic": jnp.array([0.3, -0.2, 0.9])}
    mask = jnp.asarray(np.random.default_rng(7).random((7, 3)) < 0.6)
    kwargs = {"policy": actor, "value": value, "discount": 0.9, "lam": 0.8, "mask": mask}
    plain, _ = pg.actor_critic(params, batch, **kwargs, value_coef=0.0)
    full, info = pg.actor_critic(params, batch, **kwargs, value_coef=0.7, entropy_coef=0.05)
    obs, target, counts = (np.asarray(x) for x in (batch.obs, info.targets["value_target"], mask))
    values = obs @ np.asarray(params["critic"])
    close(full["critic"], 0.7 * np.einsum("tb,tbs->s", counts * (values - target), obs) / 3)
    entropy = jax.grad(lambda p: jnp.sum(jnp.where(mask, actor(p, batch.obs).entropy(), 0.0)) / 3)(params)["actor"]
    close(full["actor"] - plain["actor"], -0.05 * entropy)
    close(target, info.targets["advantage"] + values)


def test_a_weight_of_the_steps_weighs_the_actor_and_not_the_target_of_the_critic() -> None:
    batch = random_window(8, 3)
    params = {"actor": tabular.problem("three_state")[1], "critic": jnp.array([0.3, -0.2, 0.9])}
    weight = pg.discount_weight(batch.step, 0.9)
    assert float(weight.min()) < 0.9
    plain, with_weight = (
        pg.actor_critic(params, batch, policy=actor, value=value, discount=0.9, lam=0.8, step_weight=w)[1].targets
        for w in (None, weight)
    )
    close(with_weight["value_target"], plain["value_target"])
    close(with_weight["weight"], weight * plain["advantage"])


def test_targets_that_depend_on_the_parameters_are_constants_of_the_surrogate() -> None:
    batch = random_window(9, 3)
    params = {"actor": tabular.problem("three_state")[1], "critic": jnp.array([0.3, -0.2, 0.9])}
    kwargs = {"policy": actor, "value": value, "discount": 0.9, "lam": 0.8}
    slope = jax.grad(lambda p: pg.actor_critic.surrogate(p, batch, **kwargs))(params)
    jax.tree.map(close, slope, pg.actor_critic(params, batch, **kwargs)[0])

    @pg.estimator
    def squared(params: Any, trajectory: pg.Trajectory) -> pg.Surrogate:
        target = jnp.sum(params**2) + trajectory.reward
        return pg.Surrogate(lambda params, data, target, state: params[0] * target, target)

    at = jnp.array([0.5, -1.0])
    held = float(batch.reward.sum(0).mean()) + len(batch.reward) * 1.25
    close(jax.grad(lambda p: squared.surrogate(p, batch))(at), jnp.array([held, 0.0]))
