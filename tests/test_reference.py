"""The mean of very many estimates: against NumPy, against the exact gradient, and in bounded memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import pgjax as pg
from pgjax import exact
from pgjax.reference import merge_references, reference_gradient

close = np.testing.assert_allclose
PARAMS = {"w": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1])}


def noisy(key, params):
    """A gradient with skewed noise that differs from entry to entry."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    draws = [jax.random.exponential(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + x * d for x, d in zip(leaves, draws, strict=True)])


def table(key, params, indices):
    """[n, P] float64: the estimates that the function is defined to average."""
    rows = [jax.flatten_util.ravel_pytree(noisy(jax.random.fold_in(key, i), params))[0] for i in indices]
    return np.asarray(rows, np.float64)


def vector(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(tree)[0])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("count", [2, 3, 9, 10, 37])
def test_mean_error_and_variance_are_those_of_numpy(count):
    params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
    key = jax.random.key(3)
    got = reference_gradient(
        key, params, estimate=noisy, num_batches=count, trajectories_per_batch=5, steps_per_batch=40
    )
    want = table(key, params, range(count))
    close(vector(got.gradient), want.mean(0), rtol=1e-13)
    close(vector(got.standard_error), want.std(0, ddof=1) / np.sqrt(count), rtol=1e-12)
    close(got.variance, want.var(0, ddof=1).sum(), rtol=1e-12)
    close(got.relative_error, np.sqrt(got.variance / count) / np.linalg.norm(want.mean(0)), rtol=1e-12)
    assert (got.num_estimates, got.num_trajectories, got.num_steps) == (count, 5 * count, 40 * count)
    assert jax.tree.structure(got.gradient) == jax.tree.structure(params)


@pytest.mark.usefixtures("x64")
@settings(max_examples=6, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6))
def test_merged_references_are_one_long_run(first, second):
    params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS)
    keys, counts = jax.random.split(jax.random.key(5)), (first, second)
    parts = [
        reference_gradient(k, params, estimate=noisy, num_batches=n, steps_per_batch=7)
        for k, n in zip(keys, counts, strict=True)
    ]
    got = merge_references(*parts)
    want = np.concatenate([table(k, params, range(n)) for k, n in zip(keys, counts, strict=True)])
    close(vector(got.gradient), want.mean(0), rtol=1e-13)
    close(vector(got.standard_error), want.std(0, ddof=1) / np.sqrt(len(want)), rtol=1e-12)
    close(got.variance, want.var(0, ddof=1).sum(), rtol=1e-12)
    assert (got.num_estimates, got.num_steps) == (first + second, 7 * (first + second))


def test_the_same_key_gives_the_same_bits_and_another_key_other_noise():
    first, again, other = (
        reference_gradient(jax.random.key(seed), PARAMS, estimate=noisy, num_batches=20) for seed in (0, 0, 1)
    )
    assert np.array_equal(vector(first), vector(again))
    assert not np.array_equal(vector(first.gradient), vector(other.gradient))


def offset_normal(key, params):
    return params + jax.random.normal(key, params.shape)


def constant(key, params):
    return params


def test_rounding_stays_below_the_noise_in_float32():
    # With squares of 1e6 in float32, the variance of one cannot be had as a difference of sums.
    count, key, params = 20_000, jax.random.key(0), jnp.array([1000.0, -1000.0])
    got = reference_gradient(key, params, estimate=offset_normal, num_batches=count)
    draw = lambda i: offset_normal(jax.random.fold_in(key, i), params)  # noqa: E731
    want = np.asarray(jax.lax.map(draw, jnp.arange(count)), np.float64)
    close(got.gradient, want.mean(0), atol=2e-4)  # one unit in the last place is 6e-5, the standard error 7e-3
    close(got.variance, want.var(0, ddof=1).sum(), rtol=1e-4)
    flat = reference_gradient(key, jnp.array([0.1]), estimate=constant, num_batches=100_000)
    assert float(flat.gradient[0]) == np.float32(0.1)
    assert float(flat.variance) == 0.0


def temporary_bytes(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_estimates():
    params = jnp.ones(10_000)

    def used(count):
        run = lambda key: reference_gradient(key, params, estimate=offset_normal, num_batches=count)  # noqa: E731
        return temporary_bytes(run, jax.random.key(0))

    def stacked(count):
        keys = lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))  # noqa: E731
        run = lambda key: jnp.sort(jax.vmap(offset_normal, (0, None))(keys(key), params), 0)[0]  # noqa: E731
        return temporary_bytes(run, jax.random.key(0))

    assert used(1_000) == used(10)
    assert used(1_000) < 20 * params.nbytes
    assert stacked(1_000) > 500 * params.nbytes  # the gauge does see a table of estimates


# The two-state process with three steps, whose gradient and covariance are known exactly.

NUM_ENVS = 32


def rollout_estimate(step_weighted):
    env = exact.TabularEnvironment(exact.two_state().replace(horizon=3))
    policy = lambda params, obs: pg.Categorical(obs @ params)  # noqa: E731

    def estimate(key, params):
        start, run = jax.random.split(key)
        state = pg.init_rollout(start, env, env.default_params, num_envs=NUM_ENVS)
        _, trajectory = pg.rollout(
            run, params, state, policy=policy, env=env, env_params=env.default_params, num_steps=3
        )
        weight = pg.discount_weight(trajectory.step, 0.9) if step_weighted else None
        return pg.reinforce(params, trajectory, policy=policy, discount=0.9, step_weight=weight)[0]

    return estimate


def test_on_a_known_problem_it_finds_the_exact_gradient_and_its_own_error():
    """χ² with the exact covariance, rank 2, at p = 1e-6. Power: dropping the weight γ^t must be found."""
    count, logits = 3000, np.array([[0.2, -0.3], [0.1, 0.4]])
    with jax.enable_x64(True):
        mdp, probs = exact.two_state().replace(horizon=3), jax.nn.softmax(jnp.asarray(logits))
        moments = exact.pair_moments(mdp, exact.gpomdp_pair(mdp, probs))
        mean, covariance = np.asarray(moments.mean), np.asarray(moments.covariance) / NUM_ENVS
        wrong = exact.dropped_discount_gradient(mdp, jnp.asarray(logits))
    close(np.trace(covariance) * NUM_ENVS, 3.99767005, rtol=1e-8)
    inverse, limit = np.linalg.pinv(covariance, rcond=1e-6), stats.chi2.isf(1e-6, 2)
    shift = np.asarray(wrong).ravel() - mean
    noncentrality = count * shift @ inverse @ shift
    assert stats.ncx2.sf(limit, 2, noncentrality) > 0.999999

    def run(step_weighted):
        estimate, params = rollout_estimate(step_weighted), jnp.asarray(logits, jnp.float32)
        got = reference_gradient(jax.random.key(7), params, estimate=estimate, num_batches=count)
        away = -np.asarray(got.gradient, np.float64).ravel() - mean  # the library descends
        return got, count * away @ inverse @ away

    reference, distance = run(True)
    assert distance < limit
    assert run(False)[1] > limit
    # The spread of a variance of nearly normal numbers: six of its standard errors, about 15 percent.
    error = 6 * np.sqrt(2 * np.trace(covariance @ covariance) / count) / np.trace(covariance)
    assert error < 0.2
    close(reference.variance, np.trace(covariance), rtol=error)
    close(np.asarray(reference.standard_error).ravel(), np.sqrt(np.diag(covariance) / count), rtol=error)


def test_low_precision_is_widened_and_parameters_can_be_batched():
    got = reference_gradient(jax.random.key(0), jnp.ones(3, jnp.bfloat16), estimate=noisy, num_batches=4)
    assert got.gradient.dtype == got.standard_error.dtype == got.variance.dtype == jnp.float32
    several = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    run = lambda p: reference_gradient(jax.random.key(0), p, estimate=noisy, num_batches=5)  # noqa: E731
    batch = jax.vmap(run)(several)
    for i, params in enumerate(several):
        close(batch.gradient[i], run(params).gradient, rtol=1e-6)
    assert batch.num_estimates == 5


def test_bad_arguments_are_refused_by_name():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match=r"estimate must be a function, got float"):
        reference_gradient(key, PARAMS, estimate=1.0, num_batches=3)
    with pytest.raises(ValueError, match=r"num_batches must be at least 2, got 1"):
        reference_gradient(key, PARAMS, estimate=noisy, num_batches=1)
    with pytest.raises(TypeError, match=r"num_batches must be a Python int"):
        reference_gradient(key, PARAMS, estimate=noisy, num_batches=3.0)
    with pytest.raises(ValueError, match=r"steps_per_batch must be at least 1, got 0"):
        reference_gradient(key, PARAMS, estimate=noisy, num_batches=3, steps_per_batch=0)
    with pytest.raises(ValueError, match=r"trajectories_per_batch must be at least 1, got -1"):
        reference_gradient(key, PARAMS, estimate=noisy, num_batches=3, trajectories_per_batch=-1)
    with pytest.raises(ValueError, match=r"estimate\(key, params\) must have the tree structure of params"):
        reference_gradient(key, PARAMS, estimate=lambda k, p: (noisy(k, p), 0.0), num_batches=3)
    one = reference_gradient(key, PARAMS, estimate=noisy, num_batches=3)
    with pytest.raises(ValueError, match=r"second must have the tree structure of first"):
        merge_references(one, reference_gradient(key, PARAMS["b"], estimate=noisy, num_batches=3))
    with pytest.raises(ValueError, match=r"second must have the shape of first, \[1\], got \[2\]"):
        merge_references(*(reference_gradient(key, jnp.ones(n), estimate=noisy, num_batches=3) for n in (1, 2)))
