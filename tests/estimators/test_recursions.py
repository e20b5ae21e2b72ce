"""SVRPG and STORM: the mean over all trajectories is the exact gradient, and the variance near the anchor is small."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
from tabular import every_trajectory, mean, policy, random_window, trace_of_covariance

import pgjax as pg
from pgjax import exact

pytestmark = pytest.mark.usefixtures("x64", "quick_to_compile")

HORIZON = 3
OLD = np.array([[0.2, -0.3], [0.1, 0.4]])
SHIFT = np.array([[0.3, -0.1], [-0.2, 0.4]])


@functools.cache
def program() -> Any:
    """(parameters, those that collected, trajectories) -> what each adds, with its weights: compiled once."""

    @jax.jit
    def run(at: Any, batch: Any) -> Any:
        weight = pg.discount_weight(batch.step, 0.9)
        ratio = pg.episode_ratio(at, batch, policy=policy)
        each = functools.partial(pg.reinforce.per_trajectory, at, batch, policy=policy, discount=0.9)
        return each(step_weight=weight * ratio)[0], each(step_weight=weight)[0], ratio

    return run


def listed(logits: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """All trajectories of the policy with these logits, their probabilities, and the exact descent direction."""
    mdp = tabular.problem("two_state")[0]
    batch, weights = exact.trajectories(mdp, jax.nn.softmax(jnp.asarray(logits)), HORIZON)
    return batch, np.asarray(weights), -np.asarray(tabular.gradient(mdp, jnp.asarray(logits), HORIZON))


def steps(transform: Any, calls: Any) -> Any:
    """Run updates: calls of (gradient, params, gradient at the anchor); returns the last estimate and state."""
    state = transform.init(calls[0][1])
    for gradient, params, at_anchor in calls:
        estimate, state = transform.update(gradient, state, params, gradient_at=lambda old, x=at_anchor: x)
    return estimate, state


@pytest.mark.parametrize("name", ["svrpg", "storm"])
def test_the_mean_over_all_trajectories_is_the_exact_gradient_at_the_new_parameters(name: str) -> None:
    new = OLD + SHIFT
    batch, weights, truth = listed(new)
    old_truth = listed(OLD)[2]
    own = np.asarray(program()(new, batch)[0])
    corrected, unweighted, ratio = (np.asarray(x) for x in program()(OLD, batch))
    np.testing.assert_allclose(mean(corrected, weights), old_truth, atol=1e-13)
    np.testing.assert_allclose(weights @ ratio[0], 1.0, atol=1e-13)
    transform = pg.scale_by_svrpg(7) if name == "svrpg" else pg.scale_by_storm(0.3)
    share = 0.0 if name == "svrpg" else 0.3
    for offset in (0.0, 0.5):  # of the estimate at the anchor: an error is carried on, with the share that is kept
        found = []
        for g, h in ((own, corrected), (own, unweighted)):
            run = lambda g, h, start: steps(transform, [(start, OLD, start), (g, new, h)])[0]  # noqa: E731
            found.append(jax.vmap(run, (0, 0, None))(g, h, old_truth + offset))
        np.testing.assert_allclose(mean(found[0], weights), truth + (1.0 - share) * offset, atol=1e-13)
        assert np.abs(mean(found[1], weights) - truth - (1.0 - share) * offset).max() > 0.01


def test_the_variance_falls_with_the_square_of_the_distance_and_exceeds_that_without_far_away() -> None:
    def variances(distance: float) -> tuple[float, float]:
        batch, weights, _ = listed(OLD + distance * SHIFT)
        own, at_anchor = (program()(x, batch)[0] for x in (OLD + distance * SHIFT, OLD))
        difference = np.asarray(own) - np.asarray(at_anchor)  # the rest of the recursion is a constant
        return trace_of_covariance(difference, weights), trace_of_covariance(own, weights)

    (near, plain), (nearer, _), (far, far_plain) = variances(0.02), variances(0.01), variances(-8.0)
    np.testing.assert_allclose(near / nearer, 4.0, rtol=0.05)
    assert near < 0.01 * plain
    assert far > far_plain


def test_weight_1_and_period_1_are_plain_gradients_and_do_not_ask_for_another() -> None:
    random = np.random.default_rng(0)
    nothing = np.full((2, 2), np.nan)
    for transform in (pg.scale_by_storm(1.0), pg.scale_by_svrpg(1), pg.scale_by_storm(lambda count: 1.0)):
        for number in (1, 2, 3):
            calls = [(random.normal(size=(2, 2)), random.normal(size=(2, 2)), nothing) for _ in range(number)]
            np.testing.assert_array_equal(steps(transform, calls)[0], calls[-1][0])


def test_recursions_by_hand() -> None:
    """Four updates of each in numbers: what is compared with, and when it moves."""
    g, h = np.array([1.0, 2.0, 4.0, 8.0]), np.array([np.nan, 0.5, 0.25, 0.125])
    calls = [(np.full(1, x), np.full(1, 10.0 + t), np.full(1, y)) for t, (x, y) in enumerate(zip(g, h, strict=True))]
    d = [g[0]]
    for t in range(1, 4):
        d.append(g[t] + 0.75 * (d[-1] - h[t]))
    estimate, state = steps(pg.scale_by_storm(0.25), calls)
    np.testing.assert_allclose(
        [estimate[0], state.params[0], state.estimate[0], state.num_updates], [d[3], 13.0, d[3], 4]
    )
    estimate, state = steps(pg.scale_by_svrpg(3), calls[:3])
    np.testing.assert_allclose([estimate[0], state.params[0], state.estimate[0]], [4.0 + 1.0 - 0.25, 10.0, 1.0])
    estimate, state = steps(pg.scale_by_svrpg(3), calls)  # the fourth is a snapshot
    np.testing.assert_allclose(
        [estimate[0], state.params[0], state.estimate[0], state.num_updates], [8.0, 13.0, 8.0, 4]
    )
    page = pg.scale_by_storm(lambda count: jnp.where(count == 2, 1.0, 0.0))
    np.testing.assert_allclose(steps(page, calls)[0][0], g[3] + g[2] - h[3])


def test_it_stands_in_a_chain_and_under_jit_with_real_estimates() -> None:
    mdp, _, batch, _ = every_trajectory("two_state", 2)
    weight = tabular.weight(batch, mdp)
    chain = optax.chain(pg.scale_by_storm(0.5), optax.sgd(0.1))

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        def gradient_at(old: Any) -> Any:
            ratio = pg.episode_ratio(old, batch, policy=policy)
            return pg.reinforce(old, batch, policy=policy, discount=0.9, step_weight=weight * ratio)[0]

        grads = pg.reinforce(params, batch, policy=policy, discount=0.9, step_weight=weight)[0]
        updates, state = chain.update(grads, state, params, gradient_at=gradient_at)
        return optax.apply_updates(params, updates), state, (grads, gradient_at(params), gradient_at(OLD))

    first, state, (g, _, _) = step(OLD, chain.init(jnp.asarray(OLD)))
    np.testing.assert_allclose(first, OLD - 0.1 * g, rtol=1e-12)
    second, _, (g1, _, h1) = step(first, state)
    np.testing.assert_allclose(second, first - 0.1 * (g1 + 0.5 * (g - h1)), rtol=1e-12)


def test_the_ratio_is_the_product_over_the_rows_of_an_episode_and_a_constant() -> None:
    batch, logits = random_window(5, 4), tabular.problem("three_state")[1]
    batch = batch.replace(log_prob=jnp.asarray(np.random.default_rng(1).normal(size=batch.reward.shape)))
    ratio, slope = jax.value_and_grad(lambda x: pg.episode_ratio(x, batch, policy=policy).sum())(logits)
    found = np.asarray(pg.episode_ratio(logits, batch, policy=policy))
    log_ratio = np.asarray(policy(logits, batch.obs).log_prob(batch.action) - batch.log_prob)
    for b in range(4):
        for rows in tabular.episodes(jax.tree.map(lambda x, b=b: x[:, b], batch)):
            np.testing.assert_allclose(found[rows, b], np.exp(log_ratio[rows, b].sum()), rtol=1e-12)
    np.testing.assert_allclose(ratio, found.sum(), rtol=1e-12)
    assert (np.asarray(slope) == 0.0).all()
    far = batch.replace(log_prob=batch.log_prob - 1e4)
    assert np.isfinite(pg.episode_ratio(logits, far, policy=policy)).all()


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"^weight must lie in \[0, 1\], got 1.5"):
        pg.scale_by_storm(1.5)
    with pytest.raises(ValueError, match=r"^period must be at least 1, got 0"):
        pg.scale_by_svrpg(0)
    for transform in (pg.scale_by_storm(0.5), pg.scale_by_svrpg(2)):
        state = transform.init(OLD)
        with pytest.raises(TypeError, match=r"misses params: call update"):
            transform.update(OLD, state, gradient_at=lambda x: x)
        with pytest.raises(TypeError, match=r"misses gradient_at: call update"):
            transform.update(OLD, state, OLD)
        with pytest.raises(TypeError, match=r"^gradient_at must be a function"):
            transform.update(OLD, state, OLD, gradient_at=OLD)
        with pytest.raises(ValueError, match=r"result of gradient_at must have the tree structure of the updates"):
            transform.update(OLD, state, OLD, gradient_at=lambda x: {"a": x})
